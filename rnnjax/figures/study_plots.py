"""Figures of the studies, over several seeds: one function each, taking `out` and `dark` as in `plotting`."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from rnnjax.figures.plot_style import GREY, LINES, Out, add_legend, ink, new_figure, plain, write
from rnnjax.intervals import median, median_interval


def anatomy(
    rows: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]],
    colors: Mapping[str, str],
    out: Out = None,
    *,
    ylabel: str,
    lowest: float = 1e-8,
    highest: float = 1e3,
    dark: bool = False,
) -> Figure:
    """Profiles over steps back of several seeds, a panel a cell: {row: {cell: {"start" or "trained": `[S, T]`}}}.

    The line is the median, dashed at the start and solid after training, the band its 95 % interval over seeds; what
    lies beyond `lowest` or `highest` is drawn there, and a value that is not a number widens the band to both.
    """
    cells = list(colors)
    figure, axes = new_figure(dark, len(rows), len(cells), width=0.8 + 1.3 * len(cells), height=0.9 + 2.1 * len(rows))
    for r, (title, profiles) in enumerate(rows.items()):
        for c, cell in enumerate(cells):
            panel = axes[r * len(cells) + c]
            for when, style, alpha in (("start", "--", 0.18), ("trained", "-", 0.3)):
                low, middle, high = np.clip(_over_seeds(profiles[cell][when][:, ::-1]), lowest, highest)
                back = np.arange(len(middle))
                panel.fill_between(back, low, high, color=colors[cell], alpha=alpha, linewidth=0)
                panel.plot(back, middle, style, color=colors[cell], linewidth=1.8 if style == "-" else 1.4)
            panel.set_yscale("log")
            panel.set_ylim(lowest, highest)
            panel.axhline(1, color=ink(dark), linewidth=0.8, linestyle=":")
            panel.xaxis.set_major_locator(MaxNLocator(3, integer=True))
            panel.yaxis.set_minor_formatter(NullFormatter())
            if r == 0:
                panel.set_title(plain(cell), fontsize=10)
            if c == 0:
                panel.set_ylabel(plain(title))
            panel.label_outer()
    label = (
        "steps back from the end   (dashed: at the start, solid: trained; band: 95 % interval of the median over seeds)"
    )
    figure.supxlabel(label, fontsize=10, color=ink(dark))
    figure.supylabel(ylabel, fontsize=10, color=ink(dark))
    return write(figure, out)


def errors_without_and_with(
    rows: Mapping[str, tuple[Sequence[float], Sequence[float]]], baseline: float, out: Out = None, *, dark: bool = False
) -> Figure:
    """Errors of several seeds without (circles) and with a treatment (diamonds), a row each, on a log axis.

    One above ten times the baseline, or not finite, stands at the right edge as a cross.
    """
    figure, (axes,) = new_figure(dark, width=7.2, height=1.2 + 0.44 * len(rows))
    edge = 10 * baseline
    for row, pair in enumerate(rows.values()):
        for values, marker, color, offset, label in zip(
            pair, "oD", (GREY, LINES[0]), (-0.16, 0.16), ("without", "with"), strict=True
        ):
            values = np.asarray(values, float)
            bad = ~(values < edge)
            y = np.full(len(values), row + offset)
            axes.plot(values[~bad], y[~bad], marker, color=color, ms=6, alpha=0.85, label=label if not row else None)
            if bad.any():
                axes.plot(np.full(bad.sum(), edge), y[bad], "x", color=color, ms=7, mew=2, clip_on=False)
                axes.annotate(f"{bad.sum()} beyond", (edge, row + offset), (7, 0), textcoords="offset points",
                              va="center", fontsize=8, color=ink(dark), annotation_clip=False)  # fmt: skip
    axes.axvline(baseline, color=ink(dark), linewidth=1, linestyle=":")
    axes.text(baseline, -0.75, "no memory", ha="center", va="bottom", fontsize=9, color=ink(dark))
    axes.set_xscale("log")
    axes.set_xlim(right=edge)
    axes.set_ylim(len(rows) - 0.5, -0.7)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set_xlabel("mean squared error after training")
    add_legend(axes, dark)
    return write(figure, out)


def _over_seeds(values):
    """The interval's lower end, the median and the upper end `[3, T]` of values `[S, T]`."""
    columns = np.asarray(values, float).T.tolist()
    ends = [median_interval(column) for column in columns]
    return np.array([[low for low, _ in ends], [median(column) for column in columns], [high for _, high in ends]])


def newton_steps(points: Sequence[tuple[float, float, int]], T: int, out: Out = None, *, dark: bool = False) -> Figure:
    """Steps of Newton's method against the largest Lyapunov exponent, (gain, exponent, steps) a network.

    The colour is the gain; the upper line is T, the steps of time, which it never needs to pass.
    """
    gains, exponents, steps = np.array(points, float).T
    figure, (axes,) = new_figure(dark, width=5.6, height=3.6)
    shown = axes.scatter(exponents, steps, c=gains, cmap="viridis", s=26, linewidths=0)
    axes.axvline(0, color=ink(dark), linewidth=1, linestyle=":")
    axes.axhline(T, color=ink(dark), linewidth=1, linestyle="--")
    axes.annotate(f"T = {T}, where all states are exact", (0.02, T), xycoords=("axes fraction", "data"),
                  xytext=(0, -4), textcoords="offset points", va="top", fontsize=8, color=ink(dark))  # fmt: skip
    axes.set_yscale("log")
    axes.set_xlabel("largest Lyapunov exponent a step")
    axes.set_ylabel("steps of Newton's method")
    bar = figure.colorbar(shown, ax=axes)
    bar.set_label("gain of W", color=ink(dark), fontsize=9)
    bar.ax.tick_params(colors=ink(dark), labelsize=9)
    return write(figure, out)
