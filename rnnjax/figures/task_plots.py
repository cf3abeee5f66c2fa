"""What a task asks to be drawn, drawn: `rnnjax.plots.Plot` as figures, `out` and `dark` as in `plotting`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from rnnjax.figures.plot_style import GREY, LINES, Out, add_legend, ink, label_decades, new_figure, plain, write
from rnnjax.plots import Line, Plot

MOST_TICKS = 8
WIDTHS = {"truth": 2.6, "model": 1.7, "reference": 1.2}  # from below to above


def draw(plot: Plot, out: Out = None, dark: bool = False) -> Figure:
    """A task's plot: the truth in ink, models solid in colour, references dashed, bands around a line, spans shaded.

    Raises ValueError for a plot without lines, or a line whose x, y, low and high are not equally long.
    """
    if not plot.lines:
        raise ValueError(f"plot {plot.title!r} has no lines; it needs one or more")
    figure, (axes,) = new_figure(dark, width=7.2, height=3.6)
    colors = {role: iter(names * len(plot.lines)) for role, names in _colors(dark).items()}
    for line in sorted(plot.lines, key=lambda line: list(WIDTHS).index(_role(line))):
        _draw_line(axes, line, next(colors[line.role]))
    _draw_spans(axes, plot.spans, dark)
    if plot.log_y:
        axes.set_yscale("log")
        label_decades(axes.yaxis)
    if plot.x_ticks:
        chosen = plot.x_ticks[:: -(-len(plot.x_ticks) // MOST_TICKS)]
        axes.set_xticks([x for x, _ in chosen], [plain(name) for _, name in chosen], fontsize=8)
    axes.set_title(plain(plot.title), fontsize=10, pad=16 if plot.spans else None)
    axes.set_xlabel(plain(plot.x_label))
    axes.set_ylabel(plain(plot.y_label))
    add_legend(axes, dark)
    return write(figure, out)


def forecast_plot(times: list[str], values: Mapping[str, Any], past_times: list[str], past: Mapping[str, Any]) -> Plot:
    """The plot of a `Forecast`, given by its fields: what is known, and what is expected after it.

    Of a name's quantiles, such as "sales 0.1" and "sales 0.9", the lowest and the highest are its band.
    """
    P, S, lines = len(past_times), len(times), []
    for name, known in past.items():
        bands = sorted(
            (float(n.rpartition(" ")[2]), n) for n in values if n.rpartition(" ")[0] == name and n not in past
        )
        joined = [np.concatenate([[known[-1]], values[n]]) for n in (name, *(n for _, n in bands))]
        low, high = (joined[1], joined[-1]) if bands else (None, None)
        suffix = f" ({bands[0][0]:g} to {bands[-1][0]:g} quantile)" if bands else ""
        lines.append(Line(name if len(past) > 1 else "known", np.arange(P), np.asarray(known), "truth"))
        label = f"{name}: forecast{suffix}" if len(past) > 1 else f"forecast{suffix}"
        lines.append(Line(label, np.arange(P - 1, P + S), joined[0], "model", low, high))
    names = [*past_times, *times]
    ticks = [(float(i), names[i]) for i in np.unique(np.linspace(0, P + S - 1, 5).round().astype(int))]
    title = f"{', '.join(past)}: {S} steps after {past_times[-1]}"
    spans = (("forecast", P - 0.5, P + S - 0.5),)
    return Plot(title, "", ", ".join(past), tuple(lines), spans, tuple(ticks))


def _role(line):
    if line.role not in WIDTHS:
        raise ValueError(f"line {line.label!r} has the role {line.role!r}; allowed: {', '.join(WIDTHS)}")
    return line.role


def _colors(dark):
    return {"truth": (ink(dark), GREY), "model": LINES, "reference": ("#B8862B", "#CC79A7", "#44AA99", "#999933")}


def _draw_line(axes, line, color):
    x, y = np.asarray(line.x, float), np.asarray(line.y, float)
    ends = [y if end is None else np.asarray(end, float) for end in (line.low, line.high)]
    if x.ndim != 1 or any(values.shape != x.shape for values in (y, *ends)):
        shapes = ", ".join(str(values.shape) for values in (x, y, *ends))
        raise ValueError(f"line {line.label!r} has x, y, low and high of the shapes {shapes}; they must be one [N]")
    if line.low is not None or line.high is not None:
        axes.fill_between(x, *ends, color=color, alpha=0.22, linewidth=0)
    style = "--" if line.role == "reference" else "-"
    marker = "o" if np.isfinite(y).sum() == 1 else None
    axes.plot(x, y, style, color=color, linewidth=WIDTHS[line.role], label=plain(line.label), marker=marker)


def _draw_spans(axes, spans, dark):
    """Shaded ranges, every other one a little darker, each with its name above the axes."""
    for number, (label, start, end) in enumerate(spans):
        axes.axvspan(start, end, color=ink(dark), alpha=0.10 if number % 2 else 0.04, linewidth=0, zorder=0)
        axes.annotate(plain(label), ((start + end) / 2, 1), (0, 2), xycoords=axes.get_xaxis_transform(),
                      textcoords="offset points", ha="center", va="bottom", fontsize=8, color=ink(dark),
                      annotation_clip=False)  # fmt: skip
        if number or len(spans) == 1:
            axes.axvline(start, color=ink(dark), linewidth=0.9, linestyle=":")
