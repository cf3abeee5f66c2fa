"""Settings that are a list of named things with options, as text: `layernorm,zoneout:0.1`.

A comma or, in a grid, where commas stand between values, a plus stands between them, their options after colons, by
position or as NAME=VALUE. Each thing is a function whose arguments after the first are its options.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from rnnjax.training.options import REQUIRED, Option, kinds_in_words, options_of, parsed_as
from rnnjax.training.refusals import nearest, one_of

Item = tuple[str, dict[str, Any]]  # its name, and those of its options that are not at their defaults


def split(text: str) -> list[str]:
    """The things of a list as they are written; none of "" and of "none"."""
    if text.strip().lower() in ("", "none"):
        return []
    return [item.strip() for item in re.split(r"[,+](?=\s*[A-Za-z_])", text)]


def read_item(text: str, table: Mapping[str, Callable], noun: str) -> Item:
    """One of them. Raises ValueError, in one line, for a name that is not in the table and options that cannot be."""
    name, *given = (part.strip() for part in text.split(":"))
    one_of(noun, name, table)
    known = options_of(table[name])
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


def written(value: Any) -> str:
    """A value as it is read."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _value(name: str, option: Option, text: str) -> Any:
    if option.choices:
        one_of(f"{name}'s {option.name}", text, option.choices)
        return text
    for kind in option.kinds:
        is_one, value = parsed_as(kind, text)
        if is_one and not (isinstance(value, float) and not math.isfinite(value)):
            return value
    raise ValueError(f"{name}'s {option.name}={text!r}; allowed: {kinds_in_words(option.kinds)}")
