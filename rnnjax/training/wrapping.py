"""The wrappers of a run's cell as text: `layernorm,zoneout:0.1` is zoneout around layernorm around the cell.

Wrappers stand from the inside out. What changes the gates goes next to the cell, wherever it stands, as it means the
same there. Each text of one meaning is one setting, see `canonical`.
"""

import functools

from rnnjax.cells.wrappers import WRAPPERS
from rnnjax.training.items import Item, read_item, split, written
from rnnjax.types import Cell

OF_GATES = ("multiplicative", "layernorm", "recurrent_dropout")


def read(text: str) -> list[Item]:
    """The wrappers that the text names, the innermost first, with their options. Raises ValueError, in one line."""
    try:
        found = [read_item(item, WRAPPERS, "wrapper") for item in split(text)]
    except ValueError as error:
        raise ValueError(f"wrap={text!r}: {error}") from None
    return sorted(found, key=lambda item: OF_GATES.index(item[0]) if item[0] in OF_GATES else len(OF_GATES))


def canonical(text: str) -> str:
    """The one text of its meaning; one that cannot be read stays as it is, for `read` to refuse."""
    try:
        wrappers = read(text)
    except ValueError:
        return text
    return ",".join(":".join([name, *(f"{o}={written(v)}" for o, v in given.items())]) for name, given in wrappers)


def wrapped(cell: Cell, text: str) -> Cell:
    """The cell in its wrappers. Raises ValueError, in one line, for one that it cannot have."""
    for name, options in read(text):
        try:
            cell = WRAPPERS[name](cell, **options)
        except ValueError as error:
            raise ValueError(f"wrap={text!r}: {error}") from error
    return cell


wrapped_once = functools.lru_cache(maxsize=256)(wrapped)  # of a cell that holds no tracer: the same one again
