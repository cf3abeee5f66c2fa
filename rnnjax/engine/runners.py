"""Every way to run a cell over a sequence: one table, one signature, and the one place that chooses.

A runner is `(cell, weights, carry, xs, mask, taps, probe) -> (the last carry, ys [T, ..., O])`. All agree with `scan`
in values, gradients, taps and probe, whatever the lengths.
"""

from collections.abc import Callable
from typing import NamedTuple

from rnnjax.engine.chunked import by_length, chunked, chunked_of
from rnnjax.engine.deferred import deferred
from rnnjax.engine.linear import associative, by_platform
from rnnjax.engine.newton import newton, newton_of
from rnnjax.engine.scan import scan
from rnnjax.types import Cell, Gates, Linear, Memory


class Runner(NamedTuple):
    """One way through time."""

    run: Callable
    form: type  # that `Cell.form` must be of; `object` for any cell
    of: str  # such cells, in words
    # What stands behind a colon, such as "32" -> the runner so set; raises ValueError saying what is allowed. None: it
    # has no option.
    with_option: Callable[[str], Callable] | None = None
    tried: tuple[str, ...] = ()  # options that are worth a comparison


RUNNERS = {
    "scan": Runner(scan, object, "any cell"),
    "deferred": Runner(deferred, Gates, "a cell made of gates (see cells.gated)"),
    "associative": Runner(associative, Linear, "a cell that is linear in its carry (see cells.linear)"),
    "chunked": Runner(chunked, Memory, "a cell whose state is a memory (see cells.memory)", chunked_of, ("16", "128")),
    "newton": Runner(newton, object, "any cell", newton_of, ("diagonal",)),
}
METHODS = ("auto", *RUNNERS)


def runner(method: str, cell: Cell) -> Callable:
    """The runner of that name; for "auto", the quickest that the cell can have where the program will run.

    Raises ValueError as `check_method` does.
    """
    check_method(method, cell)
    if method != "auto":
        return _named(method)
    if isinstance(cell.form, Linear):
        return by_platform
    if isinstance(cell.form, Memory):
        return by_length
    return deferred if isinstance(cell.form, Gates) else scan


def check_method(method: str, cell: Cell | None = None) -> None:
    """Refuses a name that is none of `METHODS`, an option that it cannot have, and what the cell, if any, cannot have.

    Raises ValueError.
    """
    name = method.partition(":")[0]
    if name not in METHODS:
        raise ValueError(f"unknown method {method!r}; allowed: {', '.join(METHODS)}")
    if method == "auto":
        return
    _named(method)
    if cell is not None and not isinstance(cell.form, RUNNERS[name].form):
        allowed = [name for name in METHODS if name == "auto" or isinstance(cell.form, RUNNERS[name].form)]
        raise ValueError(f"method {method!r} needs {RUNNERS[name].of}; allowed: {', '.join(map(repr, allowed))}")


def _named(method):
    """The runner that `NAME` or `NAME:OPTION` says."""
    name, colon, option = method.partition(":")
    if not colon:
        return RUNNERS[name].run
    if name == "auto" or RUNNERS[name].with_option is None:
        raise ValueError(f"method {method!r}: {name} has no option; allowed: {name}")
    return RUNNERS[name].with_option(option)
