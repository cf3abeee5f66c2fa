"""What is to be drawn, said without a word on how: a task asks for it, and `rnnjax.figures` draws it."""

from typing import Any, NamedTuple


class Line(NamedTuple):
    """One line of a plot; values that are not finite are gaps."""

    label: str
    x: Any  # [N], numbers
    y: Any  # [N]
    role: str = "model"  # truth, model or reference: how it looks
    low: Any = None  # [N], the lower and upper end of a band around it
    high: Any = None


class Plot(NamedTuple):
    """Lines on one pair of axes, as a task may ask for them without knowing how figures are made."""

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    spans: tuple[tuple[str, float, float], ...] = ()  # shaded ranges of x: (label, from, to)
    x_ticks: tuple[tuple[float, str], ...] = ()  # where x has names, such as dates
    log_y: bool = False
