"""Figures of the diagnostics, from plain arrays: one function each, taking `out` and `dark` as in `plotting`."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter

from rnnjax.figures.plot_style import (
    DECADES,
    GREY,
    add_legend,
    add_patches,
    ink,
    log_mesh,
    mark_undrawn,
    new_figure,
    plain,
    style_colorbar,
    write,
)
from rnnjax.intervals import median, median_interval

LINES = ("#0078C2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Wong (2011)
STYLES = ("-", "--", "-.", ":")
LOWEST = 1e-12  # of a logarithmic axis, relative to its top: what is smaller is drawn at its foot

Out = str | os.PathLike | None


def lines_over_steps(
    lines: Mapping[str, np.ndarray],
    out: Out = None,
    *,
    ylabel: str,
    xlabel: str = "sequence step $t$",
    dark: bool = False,
) -> Figure:
    """Curves `[T]` on a log axis, such as |dL/dh_t| of each layer; what is 0 or not finite is marked as such."""
    figure, (axes,) = new_figure(dark, width=5.2, height=3.5)
    for k, (name, values) in enumerate(lines.items()):
        axes.plot(np.arange(1, len(values) + 1), _positive(values), **_style(k), label=plain(name))
    _log_y(axes)
    for values in lines.values():
        mark_undrawn(axes, np.arange(1, len(values) + 1), values)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    _labels(axes, xlabel, ylabel)
    add_legend(axes, dark)
    return write(figure, out)


def sensitivity(
    log_frobenius: np.ndarray,
    starts: np.ndarray,
    log_spectral: np.ndarray | None,
    out: Out = None,
    *,
    dark: bool = False,
) -> Figure:
    """log10 |dh_T/dh_t| against T - t: the root mean square gain `[T + 1]`, and the worst case at some `starts`."""
    figure, (axes,) = new_figure(dark, width=5.2, height=3.5)
    T = len(log_frobenius) - 1
    axes.axhline(0, color=ink(dark), linewidth=1, linestyle=":")
    axes.plot(np.arange(T, -1, -1), _decades(log_frobenius), **_style(0), label="root mean square, $|·|_F/\\sqrt{n}$")
    if log_spectral is not None:
        axes.plot(T - np.asarray(starts), _decades(log_spectral), "o", color=LINES[1], ms=4, label="worst, $|·|_2$")
    sizes = np.where(np.isneginf(log_frobenius), 0.0, np.where(np.isfinite(log_frobenius), 1.0, np.nan))
    mark_undrawn(axes, np.arange(T, -1, -1), sizes, "0")
    axes.set_xlim(left=0)
    _labels(axes, "steps back from the end, $T - t$", "$\\log_{10}|dh_T/dh_t|$ (0: kept)")
    add_legend(axes, dark)
    return write(figure, out)


def step_spectra(singular_values: np.ndarray, out: Out = None, *, dark: bool = False) -> Figure:
    """Singular values of J_t `[T, n]` over time: largest, smallest, and the middle half between."""
    figure, (axes,) = new_figure(dark, width=5.2, height=3.5)
    sigma = np.sort(np.asarray(singular_values, float), axis=1)
    t = np.arange(1, len(sigma) + 1)
    low, middle, high = np.quantile(sigma, [0.25, 0.5, 0.75], axis=1)
    axes.axhline(1, color=ink(dark), linewidth=1, linestyle=":")
    axes.plot(t, _positive(sigma[:, -1]), **_style(1), label="largest")
    axes.plot(t, _positive(middle), **_style(0), label="median")
    axes.fill_between(t, _positive(low), _positive(high), color=LINES[0], alpha=0.22, linewidth=0)
    axes.plot(t, _positive(sigma[:, 0]), **_style(2), label="smallest")
    _log_y(axes, lowest=1e-6)
    _labels(axes, "sequence step $t$", "singular values of $J_t$ (1: isometry)")
    add_legend(axes, dark)
    return write(figure, out)


def product_spectra(
    steps: Sequence[int], log_singular_values: np.ndarray, out: Out = None, *, dark: bool = False
) -> Figure:
    """log10 of the singular values of P_{0->t}, `[S, n]` natural logs, one line for each of the `steps` t."""
    figure, (axes,) = new_figure(dark, width=5.2, height=3.5)
    values = _decades(log_singular_values)
    axes.axhline(0, color=ink(dark), linewidth=1, linestyle=":")
    for k, (t, row) in enumerate(zip(steps, values, strict=True)):
        axes.plot(np.arange(1, len(row) + 1), row, **_style(k), label=f"$t$ = {t}")
    top = np.nanmax(values, initial=1.0)
    axes.set_ylim(max(np.nanmin(values, initial=-1.0), top - 40) - 0.5, top + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    _labels(axes, "singular value, largest first", "$\\log_{10}$ singular value of $P_{0→t}$")
    add_legend(axes, dark)
    return write(figure, out)


def exponents(values: np.ndarray, standard_error: np.ndarray, out: Out = None, *, dark: bool = False) -> Figure:
    """Lyapunov exponents `[k]`, natural log per step, with their standard errors; above 0 gradients explode."""
    figure, (axes,) = new_figure(dark, width=5.2, height=3.5)
    axes.axhline(0, color=ink(dark), linewidth=1, linestyle=":")
    index = np.arange(1, len(values) + 1)
    axes.errorbar(index, values, standard_error, fmt="o", ms=3.5, color=LINES[0], ecolor=LINES[5], elinewidth=1)
    values = np.asarray(values)[np.isfinite(values)]
    if values.size and values.min() < values.max() - 15:
        axes.set_ylim(values.max() - 15, values.max() + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    _labels(axes, "exponent, largest first", "Lyapunov exponent (1/step)")
    return write(figure, out)


def time_by_time(
    matrix: np.ndarray, out: Out = None, *, label: str, rows: str, columns: str, dark: bool = False
) -> Figure:
    """A matrix `[T, T]` in colours, such as |dL_t/dh_s|; what is 0 or not finite has a colour of its own."""
    figure, (axes,) = new_figure(dark, width=4.9, height=4.1)
    values = np.asarray(matrix)
    shown = np.isfinite(values) & (values > 0)
    high = np.ceil(np.log10(values[shown].max())) if shown.any() else 0.0
    low = max(np.floor(np.log10(values[shown].min())), high - DECADES) if shown.any() else -1.0
    low = min(low, high - 1)
    edges = np.arange(len(values) + 1) + 0.5
    image, kinds = log_mesh(axes, edges, edges, values, 10.0**low, 10.0**high)
    axes.invert_yaxis()
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    _labels(axes, columns, rows)
    bar = figure.colorbar(image, ax=axes, extend="min" if (values[shown] < 10.0**low).any() else "neither")
    style_colorbar(bar, label, dark)
    add_patches(figure, kinds, dark)
    return write(figure, out)


def histograms(
    shares: Mapping[str, np.ndarray],
    edges: np.ndarray,
    out: Out = None,
    *,
    xlabel: str,
    log: bool = False,
    mark: Mapping[str, float] | None = None,
    dark: bool = False,
) -> Figure:
    """Shares `[bins]` by name over common `edges`; `mark` draws a labelled vertical line at {text: value}."""
    figure, (axes,) = new_figure(dark, width=5.2, height=3.5)
    for k, (name, share) in enumerate(shares.items()):
        axes.stairs(100 * np.asarray(share, float), edges, baseline=None, label=plain(name), **_style(k))
    if log:
        axes.set_xscale("log")
    for text, value in (mark or {}).items():
        axes.axvline(value, color=ink(dark), linewidth=1, linestyle=":")
        axes.text(value, 1.01, plain(text), transform=axes.get_xaxis_transform(), ha="center", fontsize=9,
                  color=ink(dark))  # fmt: skip
    axes.set_ylim(bottom=0)
    _labels(axes, xlabel, "share of values (%)")
    add_legend(axes, dark)
    return write(figure, out)


def eigenvalues(blocks: Mapping[str, np.ndarray], out: Out = None, *, dark: bool = False) -> Figure:
    """Eigenvalues `[H]` of each recurrent matrix in the complex plane, with the unit circle."""
    columns = min(len(blocks), 2)
    rows = -(-len(blocks) // columns)
    figure, panels = new_figure(dark, rows, columns, width=1 + 2.5 * columns, height=0.5 + 2.5 * rows)
    circle = np.exp(2j * np.pi * np.linspace(0, 1, 200))
    for axes, (name, values) in zip(panels, blocks.items(), strict=False):
        axes.plot(circle.real, circle.imag, color=ink(dark), linewidth=1, linestyle=":")
        axes.plot(values.real, values.imag, "o", ms=3.5, alpha=0.8, color=LINES[0], mew=0)
        axes.set_title(f"{plain(name)}: radius {np.abs(values).max():.3g}", fontsize=10)
        axes.set_aspect("equal", adjustable="box")
    for axes in panels[len(blocks) :]:
        axes.set_axis_off()
    figure.supxlabel("real part", fontsize=10, color=ink(dark))
    figure.supylabel("imaginary part", fontsize=10, color=ink(dark))
    return write(figure, out)


def by_lag(lines: Mapping[str, tuple[np.ndarray, np.ndarray]], out: Out = None, *, dark: bool = False) -> Figure:
    """Curves (lags, values), each over its own largest value: does the memory end where the gradient does?"""
    figure, (axes,) = new_figure(dark, width=5.2, height=3.5)
    for k, (name, (lags, values)) in enumerate(lines.items()):
        values = np.asarray(values, float)
        top = np.max(values, initial=0.0, where=np.isfinite(values)) or 1.0
        axes.plot(lags, _positive(values / top), **_style(k), label=name)
    _log_y(axes, lowest=1e-8)
    for lags, values in lines.values():
        mark_undrawn(axes, lags, values)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    _labels(axes, "lag, steps before the last", "relative to its largest value")
    add_legend(axes, dark)
    return write(figure, out)


def gradient_errors(
    methods: Sequence[str],
    cosine: Sequence[float] | np.ndarray,
    norm_ratio: Sequence[float] | np.ndarray,
    out: Out = None,
    *,
    dark: bool = False,
) -> Figure:
    """Cosine with and norm over the full gradient, for each of the `methods`."""
    figure, (axes,) = new_figure(dark, width=5.2, height=1.5 + 0.32 * len(methods))
    y = np.arange(len(methods))
    axes.axvline(1, color=ink(dark), linewidth=1, linestyle=":")
    axes.plot(cosine, y - 0.12, "o", color=LINES[0], ms=6, label="cosine with full BPTT")
    axes.plot(norm_ratio, y + 0.12, "D", color=LINES[1], ms=5, label="norm / that of full BPTT")
    finite = np.isfinite(cosine) & np.isfinite(norm_ratio)
    axes.set_yticks(y, [plain(m if ok else f"{m} (not finite)") for m, ok in zip(methods, finite, strict=True)])
    axes.set_ylim(len(methods) - 0.5, -0.5)
    both = np.abs(np.asarray([*cosine, *norm_ratio], float))
    largest = np.max(both, initial=1.0, where=np.isfinite(both))
    if largest > 3:
        axes.set_xscale("symlog", linthresh=1)
        axes.xaxis.set_major_locator(FixedLocator([-1, 0, 1, *10.0 ** np.arange(1, np.ceil(np.log10(largest)) + 1)]))
    _labels(axes, "1 is right", "")
    add_legend(axes, dark)
    return write(figure, out)


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


def _style(k):
    return {"color": LINES[k % len(LINES)], "linestyle": STYLES[k % len(STYLES)], "linewidth": 1.8}


def _positive(values):
    values = np.asarray(values, float)
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def _decades(log):
    log = np.asarray(log, float) / np.log(10)
    return np.where(np.isfinite(log), log, np.nan)


def _log_y(axes, lowest=LOWEST):
    drawn = np.concatenate([np.ravel(line.get_ydata()) for line in axes.lines])
    drawn = drawn[np.isfinite(drawn) & (drawn > 0)].astype(float)
    axes.set_yscale("log")
    if drawn.size:
        top = drawn.max() * 2
        axes.set_ylim(max(drawn.min() / 2, top * lowest), top)
    axes.yaxis.set_minor_formatter(NullFormatter())


def _labels(axes, x, y):
    axes.set_xlabel(x)
    axes.set_ylabel(y)
