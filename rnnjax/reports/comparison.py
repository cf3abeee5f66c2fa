"""Several models on one task, each over the same seeds: what they reached, and which differences the seeds support."""

import dataclasses
import math
import os
import types
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from rnnjax import runs
from rnnjax.intervals import ERROR, bootstrap_interval, median, needed, set_apart, told_apart
from rnnjax.runs.read import recorded_reach
from rnnjax.sweeps.files import TABLES, open_store, trial_directory
from rnnjax.sweeps.lanes import run_sweep
from rnnjax.sweeps.matching import Model, count_parameters, matched, models_of
from rnnjax.sweeps.timing import Timing, Timings
from rnnjax.training.config import Config
from rnnjax.training.own_files import short_name
from rnnjax.training.refusals import BadSetting
from rnnjax.training.settings import checked

_NEVER = types.SimpleNamespace(requested=False)


class Row(NamedTuple):
    """What one model reached over the seeds."""

    label: str
    cell: str
    hidden_size: int
    parameters: int
    scores: list[float]  # of each seed, on validation data at the end; of a run that diverged the worst there is
    tests: list[float] | None  # likewise on test data, where the task reports it
    solved: int  # runs that met the task's threshold
    solved_at: float | None  # the median step at which they did
    step: Timing | None  # seconds a training step, measured alone
    reach: float | None  # median gradient reach of the last evaluation
    sequence_steps: int | None
    diverged: int


class Comparison(NamedTuple):
    """All that the page shows."""

    task: str
    match: str
    score_name: str
    higher_is_better: bool
    rows: list[Row]
    references: dict[str, float]  # scores to compare with, on validation data
    test_references: dict[str, float]
    directories: list[Path]  # of all runs, model by model


def compare(
    config: Config,
    models: Sequence[str],
    workdir: str | os.PathLike,
    *,
    seeds: int = 5,
    match: str = "parameters",
    stop: runs.StopRequest = _NEVER,
) -> Comparison | None:
    """Trains every model with every seed, as one sweep, and returns what they reached; None if `stop` ended it.

    The same call goes on where the last one ended, or shows the result again: sizes that were matched by time are
    those of the first call.

    Args:
      config: the task, the budget and all that is the same for all models, and the hidden size of the first.
      models: such as `["lstm", "gru", "transformer:heads=2"]`, see `models_of`.
      workdir: of the sweep; new, empty, or of an earlier comparison or sweep.
      seeds: how many, from 0.
      match: what the others have as the first does, by their hidden size: "parameters", "width" or "time".
      stop: once its `requested` is true, the sweep saves and ends.

    Raises BadSetting for what cannot be, and RunRefused and RunFailed as a sweep does.
    """
    if type(seeds) is not int or seeds < 1:
        raise BadSetting(f"seeds={seeds!r}; allowed: 1 or more")
    planned = models_of(config, models)
    workdir = runs.check_own_directory(workdir, "compare", "sweep", *TABLES)
    timings = Timings(workdir)
    sized = matched(planned, match, lambda config: timings(config).seconds)
    trials = [over_seeds(model, seeds) for model in sized]
    every = [trial for of_model in trials for trial in of_model]
    open_store(workdir, every)  # raises, before anything is written
    runs.own_directory(workdir, "compare", "sweep", *TABLES)
    timings.save()  # now, so that a second start finds the same sizes
    if not run_sweep(every, workdir, stop):
        return None
    for model in sized:
        timings(model.config)
    timings.save()
    return read_comparison(sized, workdir, seeds, match, timings)


def over_seeds(model: Model, seeds: int) -> list[Config]:
    """The model's checked trials, one a seed."""
    return [checked(dataclasses.replace(model.config, seed=seed)) for seed in range(seeds)]


def read_comparison(
    models: Sequence[Model],
    workdir: str | Path,
    seeds: int,
    match: str,
    timing: Callable[[Config], Timing] | None = None,
) -> Comparison:
    """What the runs in a sweep's directory reached, of models with the hidden sizes that they were trained with.

    Raises RunRefused for a run that is not there or damaged.
    """
    rows, directories, results = [], [], []
    for model in models:
        paths = [trial_directory(workdir, trial) for trial in over_seeds(model, seeds)]
        found = [_result(path) for path in paths]
        rows.append(_row(model, found, timing))
        directories += paths
        results += found
    first = results[0]
    about = short_name(models[0].config.task), match, first["score_name"], first["higher_is_better"]
    return Comparison(*about, rows, first["references"], _test_references(results), directories)


def differences(comparison: Comparison) -> list[str]:
    """Sentences: each pair of models that the seeds tell apart, then the pairs that they do not, then references.

    By the scores on test data, where the task reports such; else by those on validation data.
    """
    said, unsaid, on_test = [], [], judged_on(comparison) == "test"
    rows = [row._replace(scores=row.tests) for row in comparison.rows] if on_test else comparison.rows
    references = comparison.test_references if on_test else comparison.references
    for a, b in combinations(rows, 2):
        if not differ(a.scores, b.scores):
            unsaid.append(f"{a.label} and {b.label}")
            continue
        gains = [_gain(x, y, comparison.higher_is_better) for x, y in zip(a.scores, b.scores, strict=True)]
        if median(gains) > 0:
            said.append(_better(a, b, gains))
        else:
            said.append(_better(b, a, [-gain for gain in gains]))
    if unsaid:
        said.append(f"Nothing is said between {'; '.join(unsaid)}.")
    for name, value in references.items():
        sign = 1 if comparison.higher_is_better else -1
        counts = [(row.label, sum(sign * score > sign * value for score in row.scores), row.scores) for row in rows]
        runs_beyond = ", ".join(f"{label} {count} of {len(scores)}" for label, count, scores in counts)
        if name != "solved":  # which the table counts, at any evaluation
            said.append(f"Runs better than {name} ({number(value)}): {runs_beyond}.")
    return said


def judged_on(comparison: Comparison) -> str:
    """The data whose scores decide: "test" where every run has such a score, else "validation"."""
    return "test" if all(row.tests is not None for row in comparison.rows) else "validation"


def differ(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether scores of the same seeds support a difference at 95 %: see `rule`."""
    return told_apart(a, b) if needed(len(a)) <= len(a) else set_apart(a, b)


def rule(seeds: int) -> str:
    """When two models of so many seeds are said to differ, in words."""
    if needed(seeds) <= seeds:
        means = f"the same one is better in {needed(seeds)} of the {seeds} seeds or more (exact sign test, 95 %)"
    elif ERROR * math.comb(2 * seeds, seeds) >= 2:
        chance = 200 / math.comb(2 * seeds, seeds)
        means = (
            f"every run of the one is better than every run of the other: with {seeds} runs each, chance does that in "
            f"{chance:.1f} % of cases (exact rank-sum test)"
        )
    else:
        return f"{seeds} seeds are too few to tell any two models apart: 4 are the least."
    return (
        f"Two models are said to differ where {means}. Each pair is judged by itself. A run that diverged counts as "
        "the worst there is, and none is left out. By how much: the median of the differences seed by seed; in "
        "parentheses its 95 % bootstrap interval."
    )


def number(value: float | None) -> str:
    """A score with three digits."""
    if value is None or not math.isfinite(value):
        return "–" if value is None else "not finite"
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def _better(a, b, gains):
    """`lstm is better than rnn by 0.12 (0.1 to 0.15).`"""
    middle, (low, high) = median(gains), bootstrap_interval(gains)
    diverged = f"{b.diverged} of {len(b.scores)} runs of {b.label} diverged"
    if not math.isfinite(middle):
        return f"{a.label} is better than {b.label}: {diverged}."
    low, high = ("without limit" if math.isinf(end) else number(end) for end in (low, high))
    reason = f"; {diverged}" if b.diverged else ""
    return f"{a.label} is better than {b.label} by {number(middle)} ({low} to {high}{reason})."


def _gain(a, b, higher):
    """How much better a is; 0 where both are equal, two that diverged among them."""
    return 0.0 if a == b else a - b if higher else b - a


def _result(path) -> dict[str, Any]:
    result = runs.read_result(path)
    if result is None:
        raise runs.RunRefused(f"{path} holds no result; allowed: a sweep that is done")
    return result


def _test_references(results) -> dict[str, float]:
    """What all results share of scores on test data: `test_mase_last_value` beside `test_mase`, or `test_unigram`."""
    own = f"test_{results[0]['score_name']}"
    shared = {
        name: value
        for name, value in results[0].items()
        if name.startswith("test_") and isinstance(value, float) and all(r.get(name) == value for r in results)
    }
    prefix = f"{own}_" if any(name.startswith(f"{own}_") for name in shared) else "test_"
    named = {name.removeprefix(prefix): value for name, value in shared.items() if name.startswith(prefix)}
    named.pop(results[0]["score_name"], None)
    return {name.replace("_", " "): value for name, value in named.items()}


def _row(model, results, timing):
    worst = -math.inf if results[0]["higher_is_better"] else math.inf
    own = f"test_{results[0]['score_name']}"

    def values(name):
        bad = lambda r: _diverged(r) or r.get(name) is None or not math.isfinite(r[name])  # noqa: E731
        return [worst if bad(result) else float(result[name]) for result in results]

    solved = [r["solved_at"] for r in results if r["solved_at"] is not None and not _diverged(r)]
    reaches = [reach for r in results if (reach := recorded_reach(r)) is not None]
    return Row(
        model.label,
        short_name(model.config.cell),
        model.config.hidden_size,
        count_parameters(model.config),
        values("score"),
        values(own) if any(own in result for result in results) else None,
        len(solved),
        median(solved) if solved else None,
        timing(model.config) if timing else None,
        median(reaches) if reaches else None,
        results[0].get("sequence_steps"),
        sum(map(_diverged, results)),
    )


def _diverged(result):
    return result["diverged"] is not None or result["score"] is None or not math.isfinite(result["score"])
