"""A published table as trials of a sweep, and what they reached beside what was published."""

import csv
import dataclasses
import io
import math
import os
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rnnjax import runs
from rnnjax.intervals import median
from rnnjax.sweeps.lanes import Options, run_sweep, trial_directory
from rnnjax.training.config import Config
from rnnjax.training.settings import checked

_NEVER = types.SimpleNamespace(requested=False)


def steps_to_solve(results: Sequence[dict[str, Any]]) -> str:
    """The median step at which the task counted as solved, how many runs got there, and the score of the others."""
    solved = [r["solved_at"] for r in results if r["solved_at"] is not None]
    missed = [_score(r) for r in results if r["solved_at"] is None]
    of = f" ({len(solved)} of {len(results)})" if len(results) > 1 and missed and solved else ""
    return f"{median(solved):,.0f}{of}" if solved else f"not in {results[0]['steps']:,} ({median(missed):.2g})"


class Place(NamedTuple):
    """One place of a table: a row, a column, what is trained for it, and what was published."""

    row: str
    column: str
    config: Config  # of the first seed; the others differ in nothing else
    published: str = ""
    seeds: int = 3


class Table(NamedTuple):
    """A published table."""

    title: str
    source: str  # authors (year), title
    protocol: str  # what is done, and where that is not what was published: whole sentences
    places: tuple[Place, ...]
    duration: str  # on two cores
    rows_are: str = "cell"
    value: Callable[[Sequence[dict[str, Any]]], str] = steps_to_solve  # results of all seeds -> what a place shows
    stop_solved: bool = True  # a run ends at the evaluation that solves its task


def reproduce(
    table: Table, workdir: str | os.PathLike, *, seeds: int | None = None, stop: runs.StopRequest = _NEVER
) -> list[str] | None:
    """Trains what `workdir` lacks; what each place shows, in the order of `table.places`. None if `stop` ended it.

    Args:
      table: whole, or with some of its places.
      workdir: of the sweep; new, empty, or of an earlier call.
      seeds: of each place, instead of its own number.
      stop: once its `requested` is true, the sweep saves and ends.

    Raises RunRefused and RunFailed as a sweep does.
    """
    trials = [_trials(place, seeds) for place in table.places]
    every = [trial for group in trials for trial in group]
    if not run_sweep(every, workdir, stop, Options(stop_solved=table.stop_solved)):
        return None
    return [table.value([_result(workdir, trial) for trial in group]) for group in trials]


def markdown(table: Table, found: Sequence[str]) -> str:
    """The table: ours in each place, what was published below a line in parentheses, where there is any."""
    rows = list(dict.fromkeys(place.row for place in table.places))
    columns = list(dict.fromkeys(place.column for place in table.places))
    shown = {
        (place.row, place.column): text + (f" ({place.published})" if place.published else "")
        for place, text in zip(table.places, found, strict=True)
    }
    lines = [f"| {table.rows_are} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {row} | {' | '.join(shown.get((row, column), '') for column in columns)} |" for row in rows]
    head = f"{table.title}. {table.source}.\n\n{table.protocol} Published values stand in parentheses behind ours."
    return f"{head}\n\n" + "\n".join(lines) + "\n"


def write_table(table: Table, found: Sequence[str], workdir: str | os.PathLike) -> Path:
    """table.md and table.csv in `workdir`; returns the first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([table.rows_are, "column", "ours", "published", "seeds"])
    writer.writerows([p.row, p.column, ours, p.published, p.seeds] for p, ours in zip(table.places, found, strict=True))
    runs.write_file(Path(workdir, "table.csv"), text.getvalue())
    runs.write_file(path := Path(workdir, "table.md"), markdown(table, found))
    return path


def _trials(place, seeds):
    return [checked(dataclasses.replace(place.config, seed=seed)) for seed in range(seeds or place.seeds)]


def _result(workdir, trial):
    return runs.read_result(trial_directory(workdir, trial)) | {"steps": trial.steps}


def _score(result):
    score = result["score"]
    return math.inf if result["diverged"] is not None or score is None else score
