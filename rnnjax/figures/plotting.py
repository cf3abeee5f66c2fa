"""Figures from run directories and arrays: how the score went, and where the gradient went.

Every figure takes `out`, where to write it (a path ending in .png or .svg; None writes nothing), and `dark`, for a dark
page. It returns a `matplotlib.figure.Figure` and touches no global state of matplotlib's.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from rnnjax.figures.curves import draw_curves
from rnnjax.figures.plot_style import (
    DECADES,
    Out,
    add_legend,
    add_patches,
    cell_color,
    ink,
    label_decades,
    log_mesh,
    new_figure,
    paper,
    plain,
    style_colorbar,
    write,
)
from rnnjax.runs.read import (
    RunData,
    diverged_at,
    group_by_setting,
    quartiles,
    read_run,
    score_over_time,
    setting_labels,
)

REACH = 1e-3  # the gradient reach is how far back the gradient stays above this part of its last value

RunLike = Any  # a RunData, or the path of a run directory


def learning_curve(runs: Sequence[RunLike], out: Out = None, *, dark: bool = False) -> Figure:
    """The validation score against the training step: one line for each setting, that is for runs that differ in the
    seed alone.

    Several seeds give their median and a band between their quartiles; a run that ended early keeps its last score, and
    one that is not finite counts as the worst. Of more than a dozen settings the ten best at the end are named, and the
    others grey. A score that says "lower is better" and spans more than a decade has a log axis, and so has one whose
    references lie far away.

    Raises ValueError for no runs, runs of several tasks, or without evaluations.
    """
    runs = [as_run(run) for run in runs]
    if not runs:
        raise ValueError("a learning curve needs at least one run")
    name, lower = common_score(runs)
    groups = group_by_setting(runs)
    labels = setting_labels([group[0].config for group in groups])
    figure, (axes,) = new_figure(dark)
    curves = [score_over_time(group, name, worst=np.inf if lower else -np.inf) for group in groups]
    draw_curves(axes, groups, labels, curves, lower)
    drawn = np.concatenate([line.get_ydata() for line in axes.lines])
    drawn = drawn[np.isfinite(drawn)]
    lines = _reference_lines(runs[0])
    known = np.array([value for _, value in lines if value > 0] or [np.nan])
    far = drawn.size > 0 and np.nanmax([*known, drawn.max()]) > 20 * np.nanmin([*known, drawn.min()])
    if lower and drawn.size and (drawn > 0).all() and (drawn.max() / drawn.min() > 10 or far):
        axes.set_yscale("log")
        lines = [(text, value) for text, value in lines if value > 0]
    _draw_references(axes, lines, dark)
    axes.margins(y=0.12)  # room for the name of the line at the top
    if axes.get_yscale() == "log":
        label_decades(axes.yaxis)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("training step")
    axes.set_ylabel(f"validation {plain(name.replace('_', ' '))}\n({'lower' if lower else 'higher'} is better)")
    axes.set_title(title_of(groups), fontsize=10)
    if any(diverged_at(run) is not None for run in runs):
        axes.plot([], [], "x", color=ink(dark), label="diverged here")
    add_legend(axes, dark)
    return write(figure, out)


def title_of(groups: Sequence[Sequence[RunData]]) -> str:
    """The task of the groups of runs, and what a line stands for where a group has several seeds."""
    title, sizes = plain(groups[0][0].config.get("task", "")), sorted({len(group) for group in groups})
    if sizes[-1] == 1:
        return title
    count = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    return f"{title}: median and quartiles over {count} seeds"


def gradient_map(
    run: RunLike | Mapping[str, np.ndarray],
    out: Out = None,
    *,
    limits: tuple[float, float] | None = None,
    dark: bool = False,
) -> Figure:
    """|dL/dh_t| on the training batches by training step and sequence step, one panel for each layer (down) and carry
    part (across).

    0 (padding, what no loss sees, or what no float can hold) and what is not finite have their own colours and do not
    stretch the scale; what is below it has its lowest colour. The legend names those that there are.

    Args:
      run: a run, its path, or what its gradient_flow.npz holds: "step" `[E]` and arrays `[E, T]` by name.
      limits: of the colours, to compare figures: see `gradient_limits`.

    Raises ValueError where no gradient flow was recorded.
    """
    if isinstance(run, Mapping):
        flow, title = run, ""
    else:
        run = as_run(run)
        flow, title = run.flow, plain("{cell} on {task}".format_map(run.config))
    names = [name for name in flow if name != "step"]
    if not names or not np.size(flow["step"]):
        raise ValueError("no gradient flow was recorded (gradient_flow=False, or no evaluation yet)")
    rows, columns = _layout(names)
    low, high = limits or gradient_limits([flow])
    figure, panels = new_figure(
        dark, len(rows), len(columns), width=1 + 3.2 * len(columns), height=0.4 + 2.4 * len(rows)
    )
    steps = np.asarray(flow["step"], float)
    first = steps[0] - (steps[1] - steps[0]) if len(steps) > 1 else 0
    edges = np.concatenate([[max(first, 0)], steps])  # a row is the mean since the row before it
    image: Any = None
    kinds: dict[str, Any] = {}
    for panel, (row, column) in zip(panels, [(r, c) for r in rows for c in columns], strict=True):
        name = f"{row}.{column}" if column else row
        if name not in flow:
            panel.set_axis_off()
            continue
        values = np.asarray(flow[name])
        image, here = log_mesh(panel, np.arange(values.shape[1] + 1) + 0.5, edges, values, low, high)
        kinds |= here
        panel.set_title(_layer_title(row, column, alone=len(names) == 1), fontsize=10)
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        panel.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        panel.label_outer()
    figure.suptitle(title, fontsize=10, color=ink(dark))
    figure.supxlabel("sequence step $t$", fontsize=10, color=ink(dark))
    figure.supylabel("training step", fontsize=10, color=ink(dark))
    extend = "min" if any(name.startswith("below") for name in kinds) else "neither"
    bar = figure.colorbar(image, ax=panels, extend=extend, aspect=20 * len(rows))
    letter = "x" if columns == ["x"] else "h"  # of one that attends, what enters a layer
    style_colorbar(bar, f"$|dL/d{letter}_t|$, rms over training batches", dark)
    add_patches(figure, kinds, dark)
    return write(figure, out)


def gradient_limits(flows: Sequence[Mapping[str, np.ndarray]]) -> tuple[float, float]:
    """The colour scale that suits all of these gradient flows: whole decades up to their largest value, at most 8."""
    values = np.concatenate([np.ravel(flow[name]) for flow in flows for name in flow if name != "step"] or [np.ones(1)])
    values = values[np.isfinite(values) & (values > 0)].astype(float)
    if not values.size:
        return 0.1, 1.0
    high = np.ceil(np.log10(values.max()))
    low = min(max(np.floor(np.log10(values.min())), high - DECADES), high - 1)
    return float(10.0**low), float(10.0**high)


def gradient_profiles(
    profiles: Mapping[str, tuple[np.ndarray, np.ndarray | None]],
    out: Out = None,
    *,
    dark: bool = False,
) -> Figure:
    """|dL/dh_t| over its last value, against steps back from the end: one colour a cell.

    Solid at initialisation, dashed after training; several seeds give their median and a band between their quartiles.
    The gradient reach ends at the dotted line. Seeds that are not finite are left out, and the legend says so.

    Args:
      profiles: cell -> (|dL/dh_t| on validation data, at initialisation `[S, T]` of S seeds, and after training
        `[S', T]` or None).
    """
    figure, (axes,) = new_figure(dark, width=5.6, height=3.7)
    lowest, highest = REACH / 100, 10.0
    for cell, pair in profiles.items():
        for values, style, when in zip(pair, ("-", "--"), ("", ", trained"), strict=True):
            if values is None:
                continue
            back, relative = _from_the_end(np.atleast_2d(values))
            lost = int(np.isnan(relative).any(axis=1).sum())
            fault = f" ({lost} of {len(relative)} without a finite gradient)" if lost else ""
            relative = np.where(np.isnan(relative).any(axis=1, keepdims=True), np.nan, relative)
            low, middle, high = quartiles(relative)
            axes.plot(back, middle, style, color=cell_color(cell), linewidth=1.8, label=plain(cell + when + fault))
            if len(relative) > 1:
                axes.fill_between(back, low, high, color=cell_color(cell), alpha=0.18, linewidth=0)
            seen = middle[np.isfinite(middle) & (middle > 0)]
            lowest, highest = min(lowest, seen.min(initial=1.0)), max(highest, seen.max(initial=1.0) * 2)
    axes.axhline(REACH, linestyle=":", color=ink(dark), linewidth=1.4)
    axes.text(1.01, REACH, "reach ends:\n$10^{-3}$ of the\nlast value", transform=axes.get_yaxis_transform(),
              va="center", fontsize=9, color=ink(dark))  # fmt: skip
    axes.set_yscale("log")
    axes.set_ylim(max(lowest, 10.0**-DECADES), highest)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlim(left=0)
    axes.set_xlabel("steps back from the end, $T - t$")
    axes.set_ylabel("$|dL/dh_t|$ / its last value")
    axes.set_title("rms over validation sequences", fontsize=10)
    add_legend(axes, dark)
    return write(figure, out)


def as_run(run: RunLike) -> RunData:
    """The run, read where it is a path."""
    return run if isinstance(run, RunData) else read_run(run)


def _draw_references(axes, lines, dark):
    """Labelled horizontal lines; the label of the higher one stands above its line, so that no two collide."""
    lines = sorted(lines, key=lambda line: line[1], reverse=True)
    for rank, (text, value) in enumerate(lines):
        axes.axhline(value, linestyle=(0, (1, 1.5)), color=ink(dark), linewidth=1.2, alpha=0.8)
        above = rank == 0
        axes.annotate(f"{text} {value:.4g}", (1, value), (0, 3 if above else -3), textcoords="offset points",
                      xycoords=axes.get_yaxis_transform(), ha="right", va="bottom" if above else "top", fontsize=9,
                      color=ink(dark), path_effects=[withStroke(linewidth=3, foreground=paper(dark))])  # fmt: skip


def _reference_lines(run):
    lines = run.result.get("references")
    if lines is None:  # of an earlier version
        lines = {"no memory": run.result.get("baseline"), "solved": run.result.get("solved_threshold")}
    return [(name, value) for name, value in lines.items() if value is not None]


def common_score(runs: Sequence[RunData]) -> tuple[str, bool]:
    """(name, whether lower is better) of the score that all runs have."""
    found = {(r.result.get("score_name", "loss"), not r.result.get("higher_is_better", False)) for r in runs}
    tasks = {str(run.config.get("task")) for run in runs}
    if len(found) > 1 or len(tasks) > 1:
        raise ValueError(
            f"a figure of scores compares runs of one task and score; these have {', '.join(sorted(tasks))} "
            f"in {', '.join(sorted(name for name, _ in found))}"
        )
    return found.pop()


def _layout(names):
    """The layers (down) and carry parts (across) of names such as "layer0.c" and "layer0.forward.h"."""
    split = [name.rpartition(".")[::2] if "." in name else (name, "") for name in names]
    rows, columns = zip(*split, strict=True)
    return list(dict.fromkeys(rows)), list(dict.fromkeys(columns))


def _layer_title(row, column, alone):
    part = f"$|dL/d{column}_t|$" if len(column) == 1 and column.isalpha() else plain(column)
    layer = plain(re.sub(r"^layer(\d+)", r"layer \1", row.replace(".", " ")))
    return part if alone and part else f"{layer}: {part}" if part else layer


def _from_the_end(values):
    """Steps back from the last step with a gradient `[T']`, and values `[S, T']` there over the one at that step.

    A row without any gradient, or with one that is not finite, is NaN somewhere.
    """
    last = np.flatnonzero((values > 0).any(axis=0))[-1:]
    if not last.size:
        return np.arange(1), np.full((len(values), 1), np.nan)
    back = values[:, last[0] :: -1].astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.arange(back.shape[1]), np.where(np.isfinite(back), back / back[:, :1], np.nan)
