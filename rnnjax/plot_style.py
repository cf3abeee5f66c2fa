"""What every figure shares: colours, ink and paper of a light or dark page, legend, labels, and how it is written."""

import os
import zlib
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from rnnjax.files import published

# After Wong (2011, Nature Methods 8:441), safe for the colour-blind; a user's cell gets one of Tol's "muted" scheme,
# made light enough for a dark page.
CELL_COLORS = {
    "rnn": "#D55E00",
    "irnn": "#E69F00",
    "lstm": "#0078C2",
    "gru": "#009E73",
    "gru_cho": "#CC79A7",
    "mgu": "#56B4E9",
}
OTHER_COLORS = ("#B65FC2", "#999933", "#44AA99", "#C0578A", "#7A9E2E", "#8877DD", "#B8862B", "#CC6677")
GREY = "#9a9a9a"  # no value
DECADES = 8  # of a gradient map's colours; what is smaller has the lowest colour


def cell_color(cell: str) -> str:
    """The colour of a cell in every figure; for a user's cell always the same one of `OTHER_COLORS`."""
    return CELL_COLORS.get(cell) or OTHER_COLORS[zlib.crc32(cell.encode()) % len(OTHER_COLORS)]


def new_figure(
    dark: bool, rows: int = 1, columns: int = 1, *, width: float = 4.6, height: float = 3.2
) -> tuple[Figure, list[Axes]]:
    """A figure and its panels, the first row first, in the colours of a light or dark page."""
    figure = Figure(figsize=(width, height), facecolor=paper(dark), layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel())
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


def write(figure: Figure, out: str | os.PathLike | None) -> Figure:
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
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    bar.outline.set_edgecolor(ink(dark))


def ink(dark: bool) -> str:
    """The colour of what is written and of axes."""
    return "#e6e6e6" if dark else "#222222"


def paper(dark: bool) -> str:
    """The colour of the page."""
    return "#1b1e24" if dark else "#ffffff"


def colormap(name: str = "magma") -> Colormap:
    """The colours of a map, grey where there is no value."""
    return matplotlib.colormaps[name].with_extremes(bad=GREY)


def plain(text: str) -> str:
    """Any text as a label: no mathematics, one line, of limited length. A leading "_" would hide a legend entry."""
    text = " ".join(str(text).split()).replace("$", r"\$")
    text = text if len(text) <= 60 else text[:59] + "…"
    return " " + text if text.startswith("_") else text
