"""Each cure for vanishing and exploding gradients, on a network that it should help and on one that it should not.

    python experiments/cures.py --workdir=runs/cures

Trains every network with and without its cure, over the seeds of seeds.py, as a sweep (trials in WORKDIR/trials, so
that it resumes), and writes cures.md, cures.json, cures.png and cures_dark.png into WORKDIR. Exit codes: see sweep.py.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import seeds
from command_line import define_path, main_with_errors

from rnnjax import intervals, runs
from rnnjax.figures import study_plots
from rnnjax.training import outputs
from rnnjax.training.config import Config
from rnnjax.training.dotted import with_settings

BASE = {"task": "adding", "hidden_size": 32, "batch_size": 32, "lr": 2e-3, "clip": 1.0}
BASE |= {"steps": 2000, "eval_every": 250, "eval_batch": 256}
WORTH = 0.8  # a cure helps where it lowers the error to less than this part of itself
RULE = f"""ratio: error with the cure over error without it, of the same seed; 1 where neither is finite. A run that
diverged has an infinite error. helps: yes where the whole interval of the median ratio lies below {WORTH}, no where it
lies above, undecided where it holds {WORTH}."""


class Pair(NamedTuple):
    """A network, and what may cure it."""

    cure: str
    network: str
    settings: dict[str, Any]  # of the network, over BASE
    changes: dict[str, Any]  # what the cure sets


RELU = {"cell": "rnn", "cell.activation": "relu"}
LOUD = {"optimizer": "momentum", "clip": 0.0, "seq_len": 30}  # a learning rate that a plain step cannot bear
TANH_50 = {"cell": "rnn", "seq_len": 50}
RELU_50 = {**RELU, "seq_len": 50}
VANISHING = {**TANH_50, "cell.gain": 0.5}
CHAOTIC = {**TANH_50, "cell.gain": 2.0}
PAIRS = (
    Pair("clip by global norm 0.1", "ReLU, momentum, lr 0.1: diverges", {**RELU, **LOUD, "lr": 0.1}, {"clip": 0.1}),
    Pair("clip by global norm 0.1", "tanh, gain 0.5", {**VANISHING, "clip": 0.0, "seq_len": 100}, {"clip": 0.1}),
    Pair("cotangent clip 0.01", "ReLU, momentum, lr 0.03", {**RELU, **LOUD, "lr": 0.03}, {"cotangent_clip": 0.01}),
    Pair("cotangent clip 0.01", "LSTM, momentum, lr 1", {"cell": "lstm", **LOUD, "lr": 1.0}, {"cotangent_clip": 0.01}),
    Pair("Omega, weight 0.1", "tanh, orthogonal", TANH_50, {"omega": 0.1}),
    Pair("Omega, weight 0.1", "tanh, gain 2: chaotic", CHAOTIC, {"omega": 0.1}),
    Pair("Jacobian penalty, weight 1", "tanh, gain 0.5", VANISHING, {"jacobian": 1.0}),
    Pair("Jacobian penalty, weight 1", "tanh, gain 2: chaotic", CHAOTIC, {"jacobian": 1.0}),
    Pair("flossing, weight 1", "tanh, gain 0.5", VANISHING, {"flossing": 1.0}),
    Pair("flossing, weight 1", "tanh, gain 2: chaotic", CHAOTIC, {"flossing": 1.0}),
    Pair("orthogonality, weight 0.1", "ReLU, gain 2: explodes", {**RELU_50, "cell.gain": 2.0}, {"orthogonality": 0.1}),
    Pair("orthogonality, weight 0.1", "ReLU, gain 3: overflows", {**RELU_50, "cell.gain": 3.0}, {"orthogonality": 0.1}),
)


def main(_) -> int:
    base = Config(**BASE)
    planned = [trials_of(pair, base) for pair in PAIRS]
    out = seeds.train_all([trial for both in planned for trials in both for trial in trials], WORKDIR.value, "cures")
    if out is None:
        return runs.EXIT_STOPPED
    rows = []
    for pair, (untreated, treated) in zip(PAIRS, planned, strict=True):
        about = {"cure": pair.cure, "network": pair.network, "steps": untreated[0].seq_len}
        rows.append(about | compare(outcome(untreated, WORKDIR.value), outcome(treated, WORKDIR.value)))
    write_table(rows, out)
    print(table(rows))
    return runs.EXIT_DONE


def trials_of(pair: Pair, base: Config) -> tuple[list[Config], list[Config]]:
    """Its checked trials without and with the cure, one a seed."""
    network = with_settings(base, pair.settings)
    return seeds.over_seeds(network), seeds.over_seeds(with_settings(network, pair.changes))


def outcome(trials: Sequence[Config], workdir: str | Path) -> dict[str, Any]:
    """What the seeds of one setting reached. A run that diverged counts as the worst: infinite, and not solved."""
    results = seeds.read_results(trials, workdir)
    scores = [r["score"] for r in results]
    return {
        "scores": scores,
        "solved": sum(r["solved_at"] is not None for r in results),
        "diverged": sum(map(math.isinf, scores)),
        "baseline": results[0]["baseline"],
    }


def compare(untreated: dict[str, Any], treated: dict[str, Any]) -> dict[str, Any]:
    """Both outcomes, the ratio of errors of each seed, the interval of its median, and whether the cure helps."""
    ratios = [error_ratio(a, b) for a, b in zip(untreated["scores"], treated["scores"], strict=True)]
    low, high = intervals.median_interval(ratios)
    helps = "yes" if high < WORTH else "no" if low > WORTH else "undecided"
    return {"untreated": untreated, "treated": treated, "ratios": ratios, "interval": (low, high), "helps": helps}


def error_ratio(untreated: float, treated: float) -> float:
    """treated / untreated of errors in [0, inf]; 1 where they are equal, so that two runs that diverged differ in
    nothing."""
    if untreated == treated:
        return 1.0
    return treated / untreated if untreated else math.inf


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown, a line a pair."""
    names = ["cure", "network", "T", "without: median validation error, solved", "with it", "ratio", "helps"]
    lines = [f"{seeds.about_medians()}\n{RULE}", "", f"| {' | '.join(names)} |", "|---|---|---:|---|---|---|---|"]
    for row in rows:
        errors = [_errors(row["untreated"]), _errors(row["treated"])]
        cells = [
            row["cure"],
            row["network"],
            str(row["steps"]),
            *errors,
            seeds.with_interval(row["ratios"]),
            row["helps"],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_table(rows: Sequence[dict[str, Any]], out: Path) -> None:
    """Writes the table, its numbers and its figure into `out`."""
    runs.write_file(out / "cures.json", json.dumps(outputs.plain_numbers(rows), allow_nan=False) + "\n")
    runs.write_file(out / "cures.md", table(rows))
    errors = {
        f"{row['cure']}: {row['helps']}\n{row['network']}": (row["untreated"]["scores"], row["treated"]["scores"])
        for row in rows
    }
    for dark in (False, True):
        path = out / f"cures{'_dark' * dark}.png"
        study_plots.errors_without_and_with(errors, rows[0]["untreated"]["baseline"], path, dark=dark)


def _errors(found):
    median = intervals.median(found["scores"])
    diverged = f", {found['diverged']} diverged" if found["diverged"] else ""
    return (
        f"{'not finite' if math.isinf(median) else f'{median:.2g}'}, {found['solved']}/{len(found['scores'])}{diverged}"
    )


if __name__ == "__main__":
    WORKDIR = define_path("workdir", None, "the directory of the runs; those that it holds are not run again")
    main_with_errors(main)
