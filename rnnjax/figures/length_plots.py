"""The figure of how a score holds beyond the lengths of training. Arguments are as in plotting.py."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from rnnjax.figures.plot_style import GREY, Out, add_legend, cell_color, ink, label_decades, new_figure, plain, write
from rnnjax.figures.plotting import RunLike, as_run, common_score, title_of
from rnnjax.runs.read import group_by_setting, quartiles, setting_labels

MAX_TICKS = 7


def score_by_length(runs: Sequence[RunLike], out: Out = None, *, dark: bool = False) -> Figure:
    """The test score against the sequences' length: one line for each setting, the training lengths shaded.

    Several seeds give their median and a band between their quartiles; a score that is not finite counts as the worst.
    The dotted line is the baseline, the best score without memory at each length. An axis of lengths, or of scores that
    say "lower is better", that spans more than a decade is logarithmic.

    Raises ValueError for no runs, runs of several tasks, or runs without `eval_lengths` or of several ones.
    """
    runs = [as_run(run) for run in runs]
    if not runs:
        raise ValueError("scores by length need at least one run")
    name, lower = common_score(runs)
    lengths = _common_lengths(runs)
    groups = group_by_setting(runs)
    figure, (axes,) = new_figure(dark, width=5.2, height=3.7)
    for low, high in sorted({_training_lengths(run) for run in runs}):
        # A range of one length has no width of its own.
        axes.axvspan(low / 1.03, high * 1.03, color=GREY, alpha=0.3, linewidth=0)
    axes.plot([], [], color=GREY, alpha=0.3, linewidth=8, label="trained on")
    styles: dict[str, int] = {}
    labels = setting_labels([group[0].config for group in groups])
    worst = np.inf if lower else -np.inf
    found = [quartiles(_scores(group, lengths, name, worst)) for group in groups]
    for i, (group, label, (low, middle, high)) in enumerate(zip(groups, labels, found, strict=True)):
        cell = str(group[0].config.get("cell"))
        style = ("-", "--", "-.", ":")[styles.setdefault(cell, 0) % 4]
        styles[cell] += 1
        above = sum(np.allclose(middle, other, rtol=0.02) for _, other, _ in found[i + 1 :])
        width = 1.6 + 1.5 * min(above, 4)  # so that lines of one score are seen beneath each other
        of_line: dict[str, Any] = {
            "color": cell_color(cell),
            "linewidth": width,
            "marker": "o",
            "markersize": 3 + width,
        }
        axes.plot(lengths, middle, style, label=plain(label), **of_line)
        if len(group) > 1:
            axes.fill_between(lengths, low, high, color=cell_color(cell), alpha=0.18, linewidth=0)
    baselines = [runs[0].result["lengths"][str(length)]["baseline"] for length in lengths]
    axes.plot(lengths, baselines, linestyle=(0, (1, 1.5)), color=ink(dark), linewidth=1.4, label="no memory")
    _scale(axes, lengths, lower)
    axes.set_xlabel("length of the test sequences, $T$")
    axes.set_ylabel(f"test {plain(name.replace('_', ' '))}\n({'lower' if lower else 'higher'} is better)")
    axes.set_title(title_of(groups), fontsize=10)
    add_legend(axes, dark)
    return write(figure, out)


def has_lengths(runs: Sequence[RunLike]) -> bool:
    """Whether the figure can be drawn: all runs were scored at the same lengths."""
    found = {tuple(as_run(run).result.get("lengths", ())) for run in runs}
    return len(found) == 1 and found != {()}


def _common_lengths(runs):
    if not has_lengths(runs):
        found = sorted({", ".join(run.result.get("lengths", ())) or "none" for run in runs})
        raise ValueError(f"the runs were scored at lengths {'; '.join(found)}; allowed: eval_lengths that all share")
    return sorted(map(int, runs[0].result["lengths"]))


def _training_lengths(run):
    longest = run.config["seq_len"]
    return run.config.get("min_seq_len") or longest, longest


def _scores(group, lengths, name, worst):
    """`[S, E]`, of S seeds at E lengths."""
    scores = [[run.result["lengths"][str(length)].get(name) for length in lengths] for run in group]
    values = np.array(scores, dtype=float)
    return np.where(np.isfinite(values), values, worst)


def _scale(axes, lengths, lower):
    """Logarithmic axes where they span more than a decade, and ticks at the lengths themselves."""
    drawn = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.lines])
    drawn = drawn[np.isfinite(drawn)]
    if lower and drawn.size and (drawn > 0).all() and drawn.max() / drawn.min() > 10:
        axes.set_yscale("log")
        label_decades(axes.yaxis)
    if lengths[-1] > 10 * lengths[0]:
        axes.set_xscale("log")
    if len(lengths) <= MAX_TICKS:
        axes.xaxis.set_major_locator(FixedLocator(lengths))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    elif axes.get_xscale() == "log":
        label_decades(axes.xaxis)
