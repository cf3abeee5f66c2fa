"""What every figure shares: colours, ink and paper of a light or dark page, legend, labels, and how it is written."""

import os
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import QuadMesh
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Colormap, ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from rnnjax.runs.files import published

# After Wong (2011, Nature Methods 8:441), safe for the colour-blind; a user's cell gets one of Tol's "muted" scheme,
# made light enough for a dark page.
CELL_COLORS = {
    "rnn": "#D55E00",
    "irnn": "#E69F00",
    "lstm": "#0078C2",
    "gru": "#009E73",
    "gru_cho": "#CC79A7",
    "mgu": "#56B4E9",
    "lru": "#4B3FA0",
    "transformer": "#C2185B",
}
OTHER_COLORS = ("#B65FC2", "#999933", "#44AA99", "#C0578A", "#7A9E2E", "#8877DD", "#B8862B", "#CC6677")
LINES = ("#0078C2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Wong's, in the order of curves
GREY = "#9a9a9a"  # no value, or 0
NOT_FINITE = "#00B3C4"  # NaN and inf, in no colour map here
DECADES = 8  # of a gradient map's colours; what is smaller has the lowest colour

Out = str | os.PathLike | None  # where a figure is written, if anywhere


def cell_color(cell: str) -> str:
    """The colour of a cell, the same in every figure; beyond those of `CELL_COLORS` two may share one."""
    return CELL_COLORS.get(cell) or OTHER_COLORS[zlib.crc32(cell.encode()) % len(OTHER_COLORS)]


def distinct_colors(cells: Iterable[str]) -> dict[str, str]:
    """`cell_color` of each, but where another cell has it already the next free one, as long as there is one."""
    found: dict[str, str] = {}
    names = list(dict.fromkeys(cells))
    for cell in sorted(names, key=lambda cell: cell not in CELL_COLORS):
        free = [c for c in (cell_color(cell), *OTHER_COLORS, *CELL_COLORS.values()) if c not in found.values()]
        found[cell] = free[0] if free else cell_color(cell)
    return found


def new_figure(
    dark: bool, rows: int = 1, columns: int = 1, *, width: float = 4.6, height: float = 3.2, share: bool = True
) -> tuple[Figure, list[Axes]]:
    """A figure and its panels, the first row first, in the colours of a light or dark page; they `share` their axes."""
    figure = Figure(figsize=(width, height), facecolor=paper(dark), layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share).ravel())
    for axes in panels:
        axes.set_facecolor(paper(dark))
        axes.tick_params(colors=ink(dark), which="both", labelsize=9)
        axes.grid(True, color=ink(dark), alpha=0.15, linewidth=0.6)
        axes.set_axisbelow(True)
        for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
            text.set_color(ink(dark))
            text.set_fontsize(10)
        for side, spine in axes.spines.items():
            spine.set_color(ink(dark))
            spine.set_visible(side in ("left", "bottom"))
    return figure, panels


def write(figure: Figure, out: Out) -> Figure:
    """The figure, written to `out` unless that is None."""
    if out is not None:
        with published(Path(out)) as file:
            figure.savefig(file, dpi=160, format=Path(out).suffix.removeprefix(".") or "png")
    return figure


def add_legend(axes: Axes, dark: bool) -> None:
    """A legend below the figure, where there is anything to name."""
    handles, labels = axes.get_legend_handles_labels()
    options = {"frameon": False, "labelcolor": ink(dark), "fontsize": 9, "handlelength": 2.4}
    if handles:
        columns = 4 if sum(map(len, labels)) < 32 else 3 if max(map(len, labels)) < 16 else 1
        axes.figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), columns), **options)


def style_colorbar(bar: Colorbar, label: str, dark: bool) -> None:
    """Label, ticks and edge of a colour bar."""
    bar.set_label(label, color=ink(dark), fontsize=9)
    bar.ax.tick_params(colors=ink(dark), labelsize=9)
    label_decades(bar.ax.yaxis)
    bar.outline.set_edgecolor(ink(dark))


def label_decades(axis: Axis) -> None:
    """Numbers at the powers of ten of a logarithmic axis; at 1, 2 and 5 times them where it shows fewer than two.

    For an axis whose limits are final.
    """
    low, high = sorted(axis.get_view_interval())
    axis.set_minor_formatter(NullFormatter())
    if np.ceil(np.log10(low)) + 1 > np.floor(np.log10(high)):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def ink(dark: bool) -> str:
    """The colour of what is written and of axes."""
    return "#e6e6e6" if dark else "#222222"


def paper(dark: bool) -> str:
    """The colour of the page."""
    return "#1b1e24" if dark else "#ffffff"


def colormap(name: str = "magma") -> Colormap:
    """The colours of a map, grey where there is no value."""
    return matplotlib.colormaps[name].with_extremes(bad=GREY)


def log_mesh(
    axes: Axes, x: np.ndarray, y: np.ndarray, values: np.ndarray, low: float, high: float
) -> tuple[QuadMesh, dict[str, str]]:
    """Draws a map of sizes `values` [Y, X] between the edges x and y, its colours from `low` to `high`.

    What has no colour of its own is 0, not finite or below `low`: three things. Returns the image, and what of them
    there is as {name: colour}, for `add_patches`.
    """
    zero = zero_name(values)
    values = np.asarray(values, float)
    bad, shown = ~np.isfinite(values), np.isfinite(values) & (values > 0)
    image = axes.pcolormesh(x, y, np.ma.masked_where(~shown, np.clip(values, low, None)), norm=LogNorm(low, high),
                            cmap=colormap(), rasterized=True)  # fmt: skip
    axes.set_facecolor(GREY)
    axes.grid(False)
    if bad.any():
        axes.pcolormesh(x, y, np.ma.masked_where(~bad, bad), cmap=ListedColormap([NOT_FINITE]), rasterized=True)
    below = f"below {low:.0e}".replace("e-0", "e-")
    kinds: dict[str, Any] = {
        zero: (values == 0, GREY),
        below: (shown & (values < low), image.cmap(0.0)),
        "not finite": (bad, NOT_FINITE),
    }
    return image, {name: color for name, (mask, color) in kinds.items() if mask.any()}


def add_patches(figure: Figure, names: Mapping[str, Any], dark: bool) -> None:
    """A legend of coloured patches {name: colour} above the figure, where no label of an axis is."""
    if names:
        patches = [Patch(facecolor=color, edgecolor=ink(dark), linewidth=0.5, label=n) for n, color in names.items()]
        figure.legend(handles=patches, loc="outside upper center", ncols=len(patches), frameon=False,
                      labelcolor=ink(dark), fontsize=9, handlelength=1.2)  # fmt: skip


def mark_undrawn(axes: Axes, x: np.ndarray, values: np.ndarray, zero: str | None = None) -> None:
    """Crosses where a curve on a log axis has no point: at the foot what is 0, at the top what is not finite.

    `zero` names the former in the legend; by default it says how small a number would be none.
    """
    zero = zero or zero_name(values)
    values = np.asarray(values, float)
    known = axes.get_legend_handles_labels()[1]
    for name, mask, y, color in ((zero, values == 0, 0, GREY), ("not finite", ~np.isfinite(values), 1, NOT_FINITE)):
        if mask.any():
            axes.plot(np.asarray(x)[mask], np.full(mask.sum(), y), "x", transform=axes.get_xaxis_transform(), ms=5,
                      color=color, clip_on=False, label=None if name in known else name)  # fmt: skip


def zero_name(values: np.ndarray) -> str:
    """What a 0 among these numbers says: how small a number would be none."""
    kind = np.asarray(values).dtype
    return f"0, or below {np.finfo(kind if kind.kind == 'f' else float).tiny:.0e}"


def plain(text: str) -> str:
    """Any text as a label: no mathematics, one line, of limited length. A leading "_" would hide a legend entry."""
    text = " ".join(str(text).split()).replace("$", r"\$")
    text = text if len(text) <= 60 else text[:59] + "…"
    return " " + text if text.startswith("_") else text
