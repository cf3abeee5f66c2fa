"""How far something is: a bar on a terminal or in a notebook, and plain lines elsewhere."""

import html
import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn


class Bar:
    """A bar with one line of text, as a context manager; stderr that is no terminal gets the lines themselves.

    Args:
      total: where it ends; what is `done` is in the same unit.
      seconds: between two plain lines, at least.
      shown: False shows nothing.
    """

    def __init__(self, total: float, done: float = 0.0, seconds: float = 0.0, shown: bool = True):
        self.total, self.done, self.seconds, self.shown = max(total, 1e-9), done, seconds, shown
        self.last: float | None = None  # time of the last plain line
        self.bar: Progress | None = None
        self.display: Any = None
        self.handle: Any = None

    def __enter__(self) -> "Bar":
        self.display = _notebook() if self.shown else None
        if self.display is not None:
            self.handle = self.display.display(self._html("compiling"), display_id=True)
        elif self.shown and sys.stderr.isatty():
            columns = BarColumn(), TextColumn("{task.description}", markup=False)
            self.bar = Progress(*columns, console=Console(stderr=True))
            self.task = self.bar.add_task("compiling", total=self.total, completed=int(self.done))
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def update(self, done: float, text: str) -> None:
        """Shows how much is `done`, and a line about it."""
        self.done, now = done, time.monotonic()
        if self.handle is not None:
            self.handle.update(self._html(text))
        elif self.bar is not None:
            self.bar.update(self.task, completed=done, description=text)
        elif self.shown and (self.last is None or now - self.last >= self.seconds):
            print(text, file=sys.stderr, flush=True)
            self.last = now

    def _html(self, text):
        bar = f'<progress value="{self.done}" max="{self.total}"></progress>'
        return self.display.HTML(f"{bar} {html.escape(text)}")


def _notebook() -> Any:
    """`IPython.display` where this runs in a notebook. Nothing is imported to find out: a notebook has it already."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return sys.modules.get("IPython.display") if getattr(shell, "kernel", None) is not None else None
