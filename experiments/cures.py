"""Each cure for vanishing and exploding gradients, on a network that it helps and on one that it does not.

    python experiments/cures.py --workdir=runs/cures

Trains every case with and without its cure, with SEEDS seeds, as a sweep (trials in WORKDIR/trials, so that it
resumes), and writes cures.md, cures.json, cures.png and cures_dark.png into WORKDIR. Exit codes: see sweep.py.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from absl import flags

from experiments import lanes, outputs
from experiments.flags import BadSetting, checked, main_with_errors
from rnnjax import diagnostic_plots, runs
from rnnjax.config import Config

SEEDS = 8
BASE = {"task": "adding", "hidden_size": 32, "batch_size": 32, "lr": 2e-3, "clip": 1.0}
BASE |= {"steps": 2000, "eval_every": 250, "eval_batch": 256}


class Case(NamedTuple):
    """A network that is ill, and what is to cure it."""

    cure: str
    ill: str
    settings: dict[str, Any]  # of the network, over BASE
    treatment: dict[str, Any]  # what the cure changes


RELU = {"cell": "rnn", "activation": "relu"}
LOUD = {"optimizer": "momentum", "clip": 0.0, "seq_len": 30}  # a learning rate that a plain step cannot bear
TANH_50 = {"cell": "rnn", "seq_len": 50}
RELU_50 = {**RELU, "seq_len": 50}
VANISHING = {**TANH_50, "gain": 0.5}
CHAOTIC = {**TANH_50, "gain": 2.0}
CASES = (
    Case("clip by global norm 0.1", "ReLU, momentum, lr 0.1: diverges", {**RELU, **LOUD, "lr": 0.1}, {"clip": 0.1}),
    Case("clip by global norm 0.1", "tanh, gain 0.5", {**VANISHING, "clip": 0.0, "seq_len": 100}, {"clip": 0.1}),
    Case("cotangent clip 0.01", "ReLU, momentum, lr 0.03", {**RELU, **LOUD, "lr": 0.03}, {"cotangent_clip": 0.01}),
    Case("cotangent clip 0.01", "LSTM, momentum, lr 1", {"cell": "lstm", **LOUD, "lr": 1.0}, {"cotangent_clip": 0.01}),
    Case("Omega, weight 0.1", "tanh, orthogonal", TANH_50, {"omega": 0.1}),
    Case("Omega, weight 0.1", "tanh, gain 2: chaotic", CHAOTIC, {"omega": 0.1}),
    Case("Jacobian penalty, weight 1", "tanh, gain 0.5", VANISHING, {"jacobian": 1.0}),
    Case("Jacobian penalty, weight 1", "tanh, gain 2: chaotic", CHAOTIC, {"jacobian": 1.0}),
    Case("flossing, weight 1", "tanh, gain 0.5", VANISHING, {"flossing": 1.0}),
    Case("flossing, weight 1", "tanh, gain 2: chaotic", CHAOTIC, {"flossing": 1.0}),
    Case("orthogonality, weight 0.1", "ReLU, gain 2: explodes", {**RELU_50, "gain": 2.0}, {"orthogonality": 0.1}),
    Case("orthogonality, weight 0.1", "ReLU, gain 3: overflows", {**RELU_50, "gain": 3.0}, {"orthogonality": 0.1}),
)


def trials_of(case: Case, base: Config) -> tuple[list[Config], list[Config]]:
    """Its checked trials without and with the cure, one a seed."""
    ill = [dataclasses.replace(base, **case.settings, seed=seed) for seed in range(SEEDS)]
    return [checked(trial) for trial in ill], [checked(dataclasses.replace(trial, **case.treatment)) for trial in ill]


def outcome(trials: list[Config], workdir: str) -> dict[str, Any]:
    """What the seeds of one setting reached; a score that is not a number counts as infinite."""
    results = [json.loads((lanes.trial_directory(workdir, t) / "result.json").read_bytes()) for t in trials]
    scores = [r["score"] if r["score"] is not None and np.isfinite(r["score"]) else np.inf for r in results]
    return {
        "scores": scores,
        "median": float(np.median(scores)),
        "solved": sum(r["solved_at"] is not None for r in results),
        "diverged": sum(r["diverged"] is not None for r in results),
        "baseline": results[0]["baseline"],
    }


def helped(without: dict, treated: dict) -> bool:
    """Whether the median error fell by half, or more seeds solved the task."""
    return treated["median"] < 0.5 * without["median"] or treated["solved"] > without["solved"]


def table(rows: list[dict]) -> str:
    """Markdown, a line a case."""
    lines = ["| cure | network | T | without: median error, solved | with it | helps |", "|---|---|---:|---|---|---|"]
    for row in rows:
        cells = [_cell(row["without"]), _cell(row["treated"])]
        verdict = "yes" if helped(row["without"], row["treated"]) else "no"
        lines.append(f"| {row['cure']} | {row['ill']} | {row['steps']} | {cells[0]} | {cells[1]} | {verdict} |")
    return "\n".join(lines) + "\n"


def _cell(found):
    median = f"{found['median']:.2g}" if np.isfinite(found["median"]) else "not finite"
    diverged = f", {found['diverged']} diverged" if found["diverged"] else ""
    return f"{median}, {found['solved']}/{SEEDS}{diverged}"


def main(_) -> int:
    if not WORKDIR.value:
        raise BadSetting("--workdir is missing; allowed: a directory for the runs, such as --workdir=runs/cures")
    base = Config(**BASE)
    planned = [trials_of(case, base) for case in CASES]
    try:
        out = runs.check_directory(WORKDIR.value)
    except ValueError as error:
        raise BadSetting(str(error)) from error
    outputs.prepare_devices(base)
    with runs.stop_signals() as stop:
        everything = [trial for pair in planned for group in pair for trial in group]
        if not lanes.run_sweep(everything, WORKDIR.value, stop):
            print(f"stopped; the same command resumes {WORKDIR.value}", file=sys.stderr)
            return runs.EXIT_STOPPED
    rows = [
        {"cure": case.cure, "ill": case.ill, "steps": ill[0].seq_len}
        | {"without": outcome(ill, WORKDIR.value), "treated": outcome(treated, WORKDIR.value)}
        for case, (ill, treated) in zip(CASES, planned, strict=True)
    ]
    runs.write_file(out / "cures.json", json.dumps(outputs.plain_numbers(rows), allow_nan=False) + "\n")
    runs.write_file(out / "cures.md", table(rows))
    scores = {f"{row['cure']}\n{row['ill']}": (row["without"]["scores"], row["treated"]["scores"]) for row in rows}
    for dark in (False, True):
        path = out / f"cures{'_dark' * dark}.png"
        diagnostic_plots.before_and_after(scores, rows[0]["without"]["baseline"], path, dark=dark)
    print(table(rows))
    return runs.EXIT_DONE


if __name__ == "__main__":
    WORKDIR = flags.DEFINE_string("workdir", None, "the directory of the runs; those that it holds are not run again")
    main_with_errors(main)
