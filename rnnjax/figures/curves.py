"""The curves of many settings in one panel."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from rnnjax.figures.plot_style import GREY, distinct_colors, plain
from rnnjax.runs.read import RunData, diverged_at, quartiles

NAMED, MOST = 10, 12  # settings that a learning curve names, where there are more than it can show


def draw_curves(
    axes: Axes,
    groups: Sequence[Sequence[RunData]],
    labels: Sequence[str],
    curves: Sequence[tuple[np.ndarray, np.ndarray]],
    lower: bool,
) -> None:
    """A line a setting with its band, in grey where it is not named, and a cross where a run diverged.

    Args:
      groups, labels: the runs of each setting, and what it is called.
      curves: of each, steps `[E]` and scores `[S, E]` of S runs.
      lower: whether a lower score is better.
    """
    named = _named([quartiles(scores)[1][-1] for _, scores in curves], lower)
    cells = [str(group[0].config.get("cell")) for group in groups]
    colors = distinct_colors(cell for i, cell in enumerate(cells) if i in named)
    styles: dict[str, int] = {}
    others = f"{len(groups) - len(named)} others"
    for i, (group, label, cell, (steps, scores)) in enumerate(zip(groups, labels, cells, curves, strict=True)):
        low, middle, high = quartiles(scores)
        if i not in named:
            axes.plot(steps, middle, color=GREY, linewidth=0.8, alpha=0.6, zorder=1, label=others)
            others = "_"  # not named again
            continue
        color, style = colors[cell], ("-", "--", "-.", ":")[styles.setdefault(cell, 0) % 4]
        styles[cell] += 1
        marker = "o" if len(steps) == 1 else None
        axes.plot(steps, middle, style, color=color, marker=marker, linewidth=1.8, label=plain(label))
        if len(group) > 1:
            axes.fill_between(steps, low, high, color=color, alpha=0.22 if len(groups) < 5 else 0.1, linewidth=0)
        for run in group:
            if (stop := diverged_at(run)) is not None:
                axes.plot(stop, np.interp(stop, steps, middle), "x", color=color, markersize=8, mew=2)


def _named(finals, lower: bool) -> set[int]:
    """Which settings to name, by their last scores: all, or the best where they are many."""
    if len(finals) <= MOST:
        return set(range(len(finals)))
    worst = np.inf if lower else -np.inf
    order = np.argsort(np.nan_to_num(finals, nan=worst) * (1 if lower else -1), kind="stable")
    return {int(i) for i in order[:NAMED]}
