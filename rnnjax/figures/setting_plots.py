"""Figures of what a sweep varied: a table in colours of a few values, a scatter of many that were drawn at random.

Arguments `out` and `dark`, and what is returned, are as in plotting.py.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from rnnjax.figures.plot_style import (
    GREY,
    Out,
    add_legend,
    cell_color,
    colormap,
    label_decades,
    new_figure,
    paper,
    plain,
    write,
)

MAX_COLUMNS = 10  # more values than these make a table that nobody can read


def heat_map(
    values: np.ndarray,
    texts: Sequence[Sequence[str]],
    rows: Sequence[str],
    columns: Sequence[str],
    out: Out = None,
    *,
    column_label: str,
    label: str,
    lower_is_better: bool = True,
    dark: bool = False,
) -> Figure:
    """A table in colours, the best in yellow: values `[rows, columns]`, NaN where nothing was run, and their texts."""
    values = np.ma.masked_invalid(np.asarray(values, float))
    shape = (0.9 + 0.95 * len(columns), 1.5 + 0.5 * len(rows))
    figure, (axes,) = new_figure(dark, width=max(shape[0], 4.6), height=shape[1])
    log = bool(values.count()) and values.min() > 0 and values.max() / values.min() > 10
    norm = (LogNorm if log else Normalize)(values.min(), values.max()) if values.count() else Normalize(0, 1)
    colors = colormap("viridis_r" if lower_is_better else "viridis")
    axes.pcolormesh(values, norm=norm, cmap=colors, edgecolors=paper(dark), linewidth=2)
    for i, j in np.ndindex(*values.shape):
        masked = np.ma.getmaskarray(values)[i, j]
        light = masked or np.dot(colors(norm(values[i, j]))[:3], (0.3, 0.59, 0.11)) > 0.5
        text = "\n".join(map(plain, texts[i][j].split("\n")))
        color = "black" if light else "white"
        axes.text(j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=9, color=color)
    axes.set_facecolor(GREY)
    axes.grid(False)
    axes.set_xticks(np.arange(len(columns)) + 0.5, [plain(c) for c in columns])
    axes.set_yticks(np.arange(len(rows)) + 0.5, [plain(r) for r in rows])
    axes.tick_params(length=0)
    axes.invert_yaxis()
    axes.set_xlabel(plain(column_label))
    axes.set_title(plain(label), fontsize=10)
    return write(figure, out)


def score_scatter(
    points: Mapping[str, tuple[Sequence[float], Sequence[float], Sequence[bool]]],
    out: Out = None,
    *,
    column_label: str,
    label: str,
    dark: bool = False,
) -> Figure:
    """The score of every setting against one number in it, one colour a cell; full circles where a run solved the task.

    Scores that are not finite are crosses at the upper edge. An axis that spans more than a decade is logarithmic.

    Args:
      points: cell -> (the number, the score, whether it was solved) of each setting.
    """
    figure, (axes,) = new_figure(dark)
    everything = []
    for cell, (x, score, solved) in points.items():
        x, score, solved = np.asarray(x, float), np.asarray(score, float), np.asarray(solved, bool)
        finite = np.isfinite(score)
        everything.append((x, score[finite]))
        color = cell_color(cell)
        face = np.where(solved[finite], color, "none")
        axes.scatter(x[finite], score[finite], s=30, facecolors=face, edgecolors=color, linewidths=1.2)
        axes.scatter([], [], s=30, color=color, label=plain(cell))
        if not finite.all():
            up = axes.get_xaxis_transform()
            axes.plot(x[~finite], np.full((~finite).sum(), 0.97), "x", color=color, transform=up, markersize=7, mew=2)
    if not all(score.size == x.size for x, score in everything):
        axes.plot([], [], "x", color=GREY, label="not finite")
    for scale, values in zip((axes.set_xscale, axes.set_yscale), zip(*everything, strict=True), strict=True):
        values = np.concatenate(values)
        if values.size and values.min() > 0 and values.max() / values.min() > 10:
            scale("log")
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            label_decades(axis)
    axes.set_xlabel(plain(column_label))
    axes.set_ylabel(plain(label))
    add_legend(axes, dark)
    return write(figure, out)
