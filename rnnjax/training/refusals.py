"""What is said of a setting that cannot be: one line, with the nearest one that can."""

import difflib
from collections.abc import Iterable
from typing import Any


class BadSetting(ValueError):
    """A setting or flag that cannot be, in one line: exit code 2."""


def one_of(name: str, value: Any, allowed: Iterable[str]) -> None:
    """Raises ValueError, with the nearest name that is allowed, for one that is not."""
    if value not in (allowed := tuple(allowed)):
        hint = nearest(str(value), allowed) or ";"
        raise ValueError(f"unknown {name} {value!r}{hint} allowed: {', '.join(allowed)}")


def nearest(name: str, names: Iterable[str]) -> str:
    """`; did you mean 'lstm'?` where a name is close to `name` but for its case, else nothing."""
    close = closest(name, names)
    return f"; did you mean {close!r}?" if close else ""


def closest(name: str, names: Iterable[str]) -> str | None:
    """The name that `name` may mean, whatever its case."""
    lower = {other.lower(): other for other in names}
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
    return lower[close[0]] if close else None
