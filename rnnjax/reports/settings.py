"""What the runs of each setting reached: found in run directories, and written as lines of a table."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rnnjax.intervals import median, quantile, wilson_interval
from rnnjax.runs.read import RunData, diverged_at, group_by_setting, read_run, recorded_reach
from rnnjax.training.dotted import with_defaults

PROBLEM = ("task", "seq_len", "min_seq_len")  # with the task's options: runs that differ in these are never compared
NEEDED = ("score_name", "score", "baseline", "solved_threshold", "higher_is_better", "solved_at")


class Setting(NamedTuple):
    """Runs that differ in the seed alone, and what they reached."""

    config: dict[str, Any]
    runs: list[RunData]
    scores: list[float]  # of each run; one that is not a number counts as the worst there is
    quartiles: tuple[float, float, float]
    solved: int  # runs that met the task's threshold at some evaluation
    interval: tuple[float, float]  # 95 % of the success rate
    solved_at: float | None  # median step, of those that solved it
    reach: float | None  # median gradient reach of the last evaluation
    seconds: float | None  # median of a run
    steps_per_second: float | None  # likewise
    diverged: int  # runs


def group_by_problem(runs: Sequence[RunData]) -> list[list[Setting]]:
    """The settings of each problem: runs on different tasks or lengths are never compared."""
    problems: dict[tuple, list[RunData]] = {}
    for run in runs:
        names = [*PROBLEM, *(name for name in run.config if name.startswith("task."))]
        problems.setdefault(tuple((name, run.config.get(name)) for name in names), []).append(run)
    return [[summarise(group) for group in group_by_setting(runs)] for runs in problems.values()]


def find_runs(paths: Sequence[str]) -> tuple[list[RunData], list[Path]]:
    """The finished runs in these directories or below them, and where the unfinished ones are."""
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise ValueError(f"{path} is not a directory; allowed: a run directory, or a parent of some")
        if (path / "config.json").is_file() and not (path / "trials").is_dir():
            inside = [path]
        else:
            below = [file.parent for file in path.glob("**/config.json") if file.parent != path]
            inside = sorted(run for run in below if run.parent.name != "buckets")  # a sweep's own, while it goes on
        if not inside:
            raise ValueError(f"{path} holds no run: there is no config.json in it or below")
        found |= dict.fromkeys(inside)
    unfinished = [path for path in found if not (path / "result.json").is_file()]
    runs = [read_run(path) for path in found if path not in unfinished]
    runs = [run._replace(config=with_defaults(run.config)) for run in runs]
    if not runs:
        raise ValueError(
            f"{unfinished[0] / 'result.json'} is missing; {len(unfinished)} of {len(found)} runs unfinished"
        )
    for run in runs:
        if missing := [name for name in NEEDED if name not in run.result]:
            raise ValueError(f"{run.path / 'result.json'} is damaged: it holds no {missing[0]!r}")
        if not run.rows:
            raise ValueError(f"{run.path / 'metrics.jsonl'} holds no evaluations")
    return runs, unfinished


def summarise(runs: list[RunData]) -> Setting:
    """What the runs of one setting reached."""
    results = [run.result for run in runs]
    worst = -math.inf if results[0]["higher_is_better"] else math.inf
    scores = [worst if r["score"] is None or math.isnan(r["score"]) else float(r["score"]) for r in results]
    solved = [r["solved_at"] for r in results if r["solved_at"] is not None]
    return Setting(
        runs[0].config,
        runs,
        scores,
        (quantile(scores, 0.25), quantile(scores, 0.5), quantile(scores, 0.75)),
        len(solved),
        wilson_interval(len(solved), len(runs)),
        _median(solved),
        _median([recorded_reach(r) for r in results]),
        _median([r.get("seconds") for r in results]),
        _median([r.get("steps_per_second") for r in results]),
        sum(diverged_at(run) is not None for run in runs),
    )


def best_settings(settings: Sequence[Setting]) -> list[Setting]:
    """For each cell, the setting with the best median score; the best cell first."""
    best: dict[str, Setting] = {}
    for setting in settings:
        cell = setting.config["cell"]
        if cell not in best or rank(setting) < rank(best[cell]):
            best[cell] = setting
    return sorted(best.values(), key=rank)


def settings_csv(tables: Sequence[Sequence[Setting]]) -> str:
    """A line for each setting: its whole config without the seed, and what its runs reached."""
    rows = []
    for settings in tables:
        best = best_settings(settings)
        for s in settings:
            rows.append(
                {name: value for name, value in s.config.items() if name != "seed"}
                | {"seeds": len(s.runs), "score_name": s.runs[0].result["score_name"]}
                | dict(zip(("score_q1", "score_median", "score_q3"), s.quartiles, strict=True))
                | {"baseline": s.runs[0].result["baseline"], "solved": s.solved, "success_rate": s.solved / len(s.runs)}
                | dict(zip(("success_low", "success_high"), s.interval, strict=True))
                | {"median_solved_at": s.solved_at, "median_gradient_reach": s.reach, "diverged": s.diverged}
                | {"median_seconds": s.seconds, "median_steps_per_second": s.steps_per_second}
                | {"best_of_cell": any(s is other for other in best)}
            )
    return csv_text(rows)


def runs_csv(runs: Sequence[RunData]) -> str:
    """A line for each run: its directory, config and result."""
    scores = [{n: v for n, v in run.result.items() if not isinstance(v, dict)} for run in runs]
    return csv_text([{"run": str(run.path)} | run.config | row for run, row in zip(runs, scores, strict=True)])


def rank(setting: Setting) -> float:
    """Its median score as a number to sort by: the better, the smaller."""
    middle = setting.quartiles[1]
    return -middle if setting.runs[0].result["higher_is_better"] else middle


def _median(values):
    values = [value for value in values if value is not None]
    return median(values) if values else None


def csv_text(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as a CSV whose columns are all names in them, and in which no text acts in a spreadsheet."""
    buffer = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        # A spreadsheet takes a text that starts like this for a formula.
        writer.writerow({n: "'" + v if isinstance(v, str) and v[:1] in "=+-@" else v for n, v in row.items()})
    return buffer.getvalue().encode("utf-8", "backslashreplace").decode()  # of a path that is not UTF-8
