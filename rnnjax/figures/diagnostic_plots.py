"""Figures of the diagnostics, from plain arrays: one function each, taking `out` and `dark` as in `plotting`."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from rnnjax.figures.plot_style import (
    DECADES,
    LINES,
    Out,
    add_legend,
    add_patches,
    ink,
    label_decades,
    log_mesh,
    mark_undrawn,
    new_figure,
    plain,
    style_colorbar,
    write,
)

STYLES = ("-", "--", "-.", ":")
LOWEST = 1e-12  # of a logarithmic axis, relative to its top: what is smaller is drawn at its foot


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
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlim(right=2 * largest)  # the whole of the last mark
    _labels(axes, "1 is right", "")
    add_legend(axes, dark)
    return write(figure, out)


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
    label_decades(axes.yaxis)


def _labels(axes, x, y):
    axes.set_xlabel(x)
    axes.set_ylabel(y)
