"""The block around a run's recurrences as text: `norm,conv:4,gate,mlp:2`, or the name of a preset.

A preset stands for its parts; what comes after it is added, or said anew: `mamba,mlp:2`, `lru,norm:rms`. The order of
parts is that of `PARTS`, however they are written. Each text of one meaning is one setting, see `canonical`.
"""

from typing import Any

from rnnjax.nn.block_parts import PARTS, PRESETS, BlockParts
from rnnjax.training.items import Item, read_item, split, written
from rnnjax.training.options import options_of
from rnnjax.training.refusals import one_of

UNTOLD = ("out:linear", "residual:true")  # what a block has unless it is told otherwise


def read(text: str) -> list[Item]:
    """The parts that the text names, in order, with their options; none of "". Raises ValueError, in one line."""
    try:
        items = [part for item in split(text) for part in _expanded(item)]
        found: dict[str, dict[str, Any]] = {}
        for item in items:
            name, options = read_item(item, PARTS, "part or preset of a block")
            PARTS[name](BlockParts(), **options)  # raises for a value that cannot be
            found[name] = options
    except ValueError as error:
        raise ValueError(f"block={text!r}: {error}") from None
    return [(name, found[name]) for name in PARTS if name in found]


def canonical(text: str) -> str:
    """The one text of its meaning; one that cannot be read stays as it is, for `read` to refuse."""
    try:
        items = read(text)
    except ValueError:
        return text
    parts = [_written(*item) for item in items]
    return ",".join(part for part in parts if part not in UNTOLD) or ("residual" if parts else "")


def parts_of(text: str) -> BlockParts | None:
    """The parts of the block; None of "". Raises ValueError, in one line."""
    items = read(text)
    if not items:
        return None
    parts = BlockParts()
    for name, options in items:
        parts = PARTS[name](parts, **options)
    return parts


def _expanded(item):
    if item in PRESETS:
        return split(PRESETS[item].parts)
    one_of("part or preset of a block", item.partition(":")[0].strip(), [*PRESETS, *PARTS])
    return [item]


def _written(name, options):
    """A part with its first option, and the others up to the last that is not at its default."""
    known = list(options_of(PARTS[name]).values())
    values = [options.get(option.name, option.default) for option in known]
    while len(values) > 1 and values[-1] == known[len(values) - 1].default:
        values.pop()
    return ":".join([name, *(written(value).removesuffix(".0") for value in values)])
