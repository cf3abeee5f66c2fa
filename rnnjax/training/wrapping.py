"""The wrappers of a run's cell as text: `layernorm,zoneout:0.1` is zoneout around layernorm around the cell.

Wrappers stand from the inside out, a comma or, in a grid, where commas stand between values, a plus between them; their
options after colons, by position or as NAME=VALUE. What changes the gates goes next to the cell, wherever it stands, as
it means the same there. Each text of one meaning is one setting, see `canonical`.
"""

import functools
import math
import re
from typing import Any

from rnnjax.cells.wrappers import WRAPPERS
from rnnjax.training.options import REQUIRED, kinds_in_words, options_of, parsed_as
from rnnjax.training.refusals import nearest, one_of
from rnnjax.types import Cell

OF_GATES = ("multiplicative", "layernorm", "recurrent_dropout")


def read(text: str) -> list[tuple[str, dict[str, Any]]]:
    """The wrappers that the text names, the innermost first, with their options. Raises ValueError, in one line."""
    if text.strip().lower() in ("", "none"):
        return []
    try:
        found = [_read(item.strip()) for item in re.split(r"[,+](?=\s*[A-Za-z_])", text)]
    except ValueError as error:
        raise ValueError(f"wrap={text!r}: {error}") from None
    return sorted(found, key=lambda item: OF_GATES.index(item[0]) if item[0] in OF_GATES else len(OF_GATES))


def canonical(text: str) -> str:
    """The one text of its meaning; one that cannot be read stays as it is, for `read` to refuse."""
    try:
        wrappers = read(text)
    except ValueError:
        return text
    return ",".join(":".join([name, *(f"{o}={_written(v)}" for o, v in given.items())]) for name, given in wrappers)


def wrapped(cell: Cell, text: str) -> Cell:
    """The cell in its wrappers. Raises ValueError, in one line, for one that it cannot have."""
    for name, options in read(text):
        try:
            cell = WRAPPERS[name](cell, **options)
        except ValueError as error:
            raise ValueError(f"wrap={text!r}: {error}") from error
    return cell


wrapped_once = functools.lru_cache(maxsize=256)(wrapped)  # of a cell that holds no tracer: the same one again


def _read(item):
    name, *given = (part.strip() for part in item.split(":"))
    one_of("wrapper", name, WRAPPERS)
    known = options_of(WRAPPERS[name])
    values: dict[str, Any] = {}
    for place, text in enumerate(given):
        option, is_named, value = text.partition("=")
        option, value = (option.strip(), value.strip()) if is_named else ([*known, ""][min(place, len(known))], text)
        if option not in known:
            hint = nearest(option, known) or f"; options: {', '.join(known) or 'none'}"
            raise ValueError(f"{name} has no option {option or text!r}{hint}")
        if option in values:
            raise ValueError(f"{name}'s {option} is given twice; allowed: once")
        values[option] = _value(name, known[option], value)
    for option in known.values():
        if option.default is REQUIRED and option.name not in values:
            raise ValueError(f"{name} needs its {option.name}; allowed: {name}:{option.name}=VALUE")
    return name, {n: values[n] for n, option in known.items() if n in values and values[n] != option.default}


def _value(name, option, text):
    for kind in option.kinds:
        is_one, value = parsed_as(kind, text)
        if is_one and not (isinstance(value, float) and not math.isfinite(value)):
            return value
    raise ValueError(f"{name}'s {option.name}={text!r}; allowed: {kinds_in_words(option.kinds)}")


def _written(value) -> str:
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
