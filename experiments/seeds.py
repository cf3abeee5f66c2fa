"""Networks trained over SEEDS seeds as one sweep, for the tables of anatomy.py and cures.py."""

import dataclasses
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from command_line import BadSetting, checked

from rnnjax import intervals, runs
from rnnjax.sweeps import lanes
from rnnjax.training.config import Config
from rnnjax.training.devices import prepare_devices

SEEDS = 12  # of each setting, so that 10 must agree (see rnnjax.intervals); two cores train them two at a time


def over_seeds(config: Config) -> list[Config]:
    """The setting's checked trials, one a seed. Raises BadSetting."""
    return [checked(dataclasses.replace(config, seed=seed)) for seed in range(SEEDS)]


def train_all(trials: Sequence[Config], workdir: str | None, kind: str, out: str | None = None) -> Path | None:
    """Trains the trials that `workdir` lacks, for a table of this `kind`. Returns where the table goes; None if a
    signal ended it, which it says.

    Raises BadSetting for a directory that cannot be used.
    """
    if not workdir:
        raise BadSetting("--workdir is missing; allowed: a directory for the runs, such as --workdir=runs/seeds")
    try:
        out = runs.check_own_directory(out or workdir, kind, "sweep")
    except ValueError as error:
        raise BadSetting(str(error)) from error
    prepare_devices(trials[0])
    with runs.stop_signals() as stop:
        if not lanes.run_sweep(trials, workdir, stop):
            print(f"stopped; the same command resumes {workdir}", file=sys.stderr)
            return None
    return runs.own_directory(out, kind, "sweep")


def read_results(trials: Sequence[Config], workdir: str | Path) -> list[dict[str, Any]]:
    """Each trial's result.json, with the worst score there is for a run that diverged or whose score is no number."""
    results = [runs.read_result(lanes.trial_directory(workdir, t)) for t in trials]
    return [r | {"score": _worst(r), "solved_at": None} if _diverged(r) else r for r in results]


def two_digits(value: float) -> str:
    """Two digits of a number, and all those before the point."""
    return f"{value:.0f}" if 100 <= abs(value) < 1e5 else f"{value:.2g}"


def with_interval(values: Sequence[float], show: Callable[[float], str] = two_digits) -> str:
    """`median [low, high]` over seeds; the median alone where the ends are no other."""
    texts = [show(v) for v in (intervals.median(values), *intervals.median_interval(values))]
    return texts[0] if len(set(texts)) == 1 else f"{texts[0]} [{texts[1]}, {texts[2]}]"


def about_medians() -> str:
    """What the brackets of `with_interval` are, for a table's notes."""
    k = intervals.needed(SEEDS)
    return f"Medians over {SEEDS} seeds" + (
        f""", in brackets an exact 95 % interval of the median: numbers {SEEDS + 1 - k} and {k} of them in order.
A value that is not a number counts as the lowest for the one and as the highest for the other."""
        if k <= SEEDS
        else ", too few for an interval."
    )


def _diverged(result):
    return result["diverged"] is not None or result["score"] is None or not math.isfinite(result["score"])


def _worst(result):
    return -math.inf if result["higher_is_better"] else math.inf
