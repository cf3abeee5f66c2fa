"""Figures that set models beside each other: scores of their seeds, and what they cost as they and texts grow.

Arguments `out` and `dark`, and what is returned, are as in plotting.py.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from rnnjax.figures.plot_style import Out, add_legend, ink, label_decades, new_figure, plain, write
from rnnjax.intervals import bootstrap_interval, median


def scores_of_seeds(
    points: Mapping[str, tuple[Sequence[float], str]],
    references: Mapping[str, float],
    out: Out = None,
    *,
    label: str,
    higher_is_better: bool = False,
    dark: bool = False,
) -> Figure:
    """A row a model: a dot a seed, a bar over the 95 % bootstrap interval of their median; references as lines.

    A score that is not finite is a cross at the worse edge. Positive scores over more than a decade have a log axis.

    Args:
      points: label -> (the score of each seed, the colour).
    """
    figure, (axes,) = new_figure(dark, width=6.4, height=1.5 + 0.5 * len(points))
    everything = np.asarray([*references.values(), *(score for scores, _ in points.values() for score in scores)])
    everything = everything[np.isfinite(everything)]
    if everything.size and everything.min() > 0 and everything.max() / everything.min() > 10:
        axes.set_xscale("log")
    edge = 0.0 if higher_is_better else 1.0
    for row, (scores, color) in enumerate(points.values()):
        scores = np.asarray(scores, float)
        finite = np.isfinite(scores)
        y = row + np.linspace(-0.18, 0.18, len(scores)) * (len(scores) > 1)
        axes.plot(scores[finite], y[finite], "o", color=color, ms=5.5, alpha=0.75, mew=0)
        (low, high), middle = bootstrap_interval(scores.tolist()), median(scores.tolist())
        if np.isfinite([low, high]).all():
            axes.plot([low, high], [row + 0.32] * 2, "-", color=color, linewidth=2.2, solid_capstyle="butt")
        if np.isfinite(middle):
            axes.plot([middle], [row + 0.32], "|", color=color, ms=11, mew=2.4)
        if not finite.all():
            across = axes.get_yaxis_transform()
            axes.plot(np.full((~finite).sum(), edge), y[~finite], "x", color=color, ms=7, mew=2, transform=across,
                      clip_on=False)  # fmt: skip
    for rank, (name, value) in enumerate(sorted(references.items(), key=lambda item: item[1])):
        axes.axvline(value, color=ink(dark), linewidth=1, linestyle=(0, (1, 1.5)))
        axes.annotate(plain(name), (value, 1), (0, 3 + 11 * (rank % 2)), xycoords=axes.get_xaxis_transform(),
                      textcoords="offset points", ha="center", fontsize=8.5, color=ink(dark))  # fmt: skip
    if not np.isfinite([score for scores, _ in points.values() for score in scores]).all():
        axes.plot([], [], "x", color=ink(dark), label="diverged, or not finite")
    axes.set_yticks(range(len(points)), [plain(name) for name in points])
    axes.set_ylim(len(points) - 0.4, -0.5)
    axes.set_xlabel(f"{plain(label)} of each seed ({'higher' if higher_is_better else 'lower'} is better)")
    if axes.get_xscale() == "log":
        label_decades(axes.xaxis)
    add_legend(axes, dark)
    return write(figure, out)


def panels(
    lines: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float], str]]],
    out: Out = None,
    *,
    x_label: str,
    title: str,
    dark: bool = False,
) -> Figure:
    """A panel for each quantity, a line a cell, both axes logarithmic.

    Lines may lie on one another, so each has a marker and a dash of its own.

    Args:
      lines: label of y -> cell -> (x, y, colour).
    """
    figure, axes = new_figure(dark, 1, len(lines), width=1 + 3.1 * len(lines), height=3.4, share=False)
    for panel, (label, curves) in zip(axes, lines.items(), strict=True):
        for k, (name, (x, y, color)) in enumerate(curves.items()):
            style: dict[str, Any] = {
                "marker": "os^Dv<>P"[k % 8],
                "ms": 4.5,
                "linewidth": 1.5,
                "linestyle": ("-", "--", "-.", ":")[k % 4],
            }
            panel.plot(x, y, color=color, label=plain(name) if panel is axes[0] else None, alpha=0.9, **style)
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        ticks = sorted({value for x, _, _ in curves.values() for value in x})
        panel.set_xticks(ticks, [f"{value:g}" for value in ticks])
        panel.minorticks_off()
        label_decades(panel.yaxis)
        panel.set_title(plain(label), fontsize=10)
        panel.set_xlabel(plain(x_label))
    figure.suptitle(plain(title), fontsize=10, color=ink(dark))
    add_legend(axes[0], dark)
    return write(figure, out)
