"""How a program ends: its exit codes, and how it is asked to stop."""

import contextlib
import signal
import types
from collections.abc import Iterator
from typing import Protocol

EXIT_DONE, EXIT_ERROR, EXIT_BAD_FLAGS, EXIT_STOPPED = 0, 1, 2, 75  # 75: EX_TEMPFAIL, "run me again"


class RunFailed(RuntimeError):
    """What follows training failed; what was trained is on disk: exit code 1."""


class StopRequest(Protocol):
    """Whoever asks a run or a sweep to end: see `stop_signals`."""

    requested: bool


@contextlib.contextmanager
def stop_signals(last: bool = False) -> Iterator[StopRequest]:
    """Yields an object whose `requested` becomes True at SIGTERM or Ctrl-C; a second Ctrl-C interrupts at once.

    Where what is done inside is the `last` thing that a program does, SIGTERM finds it done from then on: one that
    comes while Python shuts down does not make a failure of it.
    """
    stop = types.SimpleNamespace(requested=False)

    def handle(number, frame):
        if stop.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.requested = True

    previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            done = last and number == signal.SIGTERM  # of all handlers, Python keeps this one while it shuts down
            signal.signal(number, signal.SIG_IGN if done else handler or signal.SIG_DFL)
