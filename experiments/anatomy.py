"""The gradient anatomy table: per-step gradients, Jacobians, exponents and timescales, before and after training.

    python experiments/anatomy.py --config=configs/anatomy.py --workdir=runs/anatomy

Trains the networks of ROWS on copy and adding over the seeds of seeds.py, as a sweep (trials in WORKDIR/trials, so that
it resumes), and writes anatomy.md, anatomy.json, anatomy.png and anatomy_dark.png into --out, by default WORKDIR.
Exit codes: see sweep.py.
"""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import seeds
from command_line import BadSetting, define_config, define_path, load_config, main_with_errors

from rnnjax import intervals, runs
from rnnjax.cells import CELLS
from rnnjax.diagnostics.evidence import Layer, gather, stack_layers
from rnnjax.diagnostics.gradient_flow import gradient_reach
from rnnjax.diagnostics.jacobians import jacobian_statistics, step_jacobians
from rnnjax.diagnostics.lyapunov import lyapunov_spectrum
from rnnjax.diagnostics.units import record_units
from rnnjax.diagnostics.verdict import judge
from rnnjax.figures import plot_style, study_plots
from rnnjax.keys import Purpose, purpose_key
from rnnjax.reports.diagnosis_subject import validation_batch
from rnnjax.sweeps import lanes
from rnnjax.sweeps.grid import lane_inputs
from rnnjax.training import Train, make_train, outputs
from rnnjax.training.config import Config
from rnnjax.training.dotted import with_settings
from rnnjax.types import Array

ROWS = {
    "tanh RNN": {"cell": "rnn_gaussian"},
    "IRNN": {"cell": "irnn"},
    "orthogonal RNN": {"cell": "rnn"},
    "LSTM, b_f = 0": {"cell": "lstm", "cell.forget_bias": 0.0},
    "LSTM, b_f = 1": {"cell": "lstm", "cell.forget_bias": 1.0},
    "LSTM, chrono": {"cell": "lstm", "cell.chrono_t_max": "seq_len"},
    "GRU": {"cell": "gru"},
}
TASKS = ("adding", "copy")
COLUMNS = {  # header of the table -> field of a measure
    "score": "score",
    "reach": "reach",
    "|dL/dh_1| / |dL/dh_T|": "ratio",
    "|dh_T/dh_0|": "sensitivity",
    "mean sigma^2(J)": "mean_square",
    "var sigma^2(J)": "variance_square",
    "lambda_1": "lyapunov",
    "tau, median": "timescale",
    "tau, top 10 %": "timescale_top",
}
NOTES = """score: on the run's own validation sequences, at its end.
reach: steps back until |dL/dh_t| is below 1/1000 of its last value. |dh_T/dh_0|: Frobenius norm / sqrt(n), 1
if norms are kept. sigma(J): singular values of a step's Jacobian, mean over steps; an isometry has mean 1, variance 0.
lambda_1: largest Lyapunov exponent, natural log a step. tau: timescales -1/log f of the units by themselves, over all
units and steps; 0 where the state is overwritten each step. All on fresh validation sequences, others for each seed."""

Measures = dict[str, Any]  # what `COLUMNS` and the figure show, and "verdict", of one seed
Row = dict[str, list[Measures]]  # "start" and "trained", a seed each


def main(_) -> int:
    config = load_config()
    planned = plan(config)
    out = seeds.train_all(
        [trial for trials in planned.values() for trial in trials], WORKDIR.value, "anatomy", OUT.value
    )
    if out is None:
        return runs.EXIT_STOPPED
    rows = {}
    for (task, network), trials in planned.items():
        rows[task, network] = row_of(trials, WORKDIR.value)
        print(f"measured {network} on {task}", file=sys.stderr)
    write_table(rows, out)
    print(table(rows))
    return runs.EXIT_DONE


def plan(config: Config) -> dict[tuple[str, str], list[Config]]:
    """(task, network) -> its checked trials, one a seed. Raises BadSetting for what the table cannot show."""
    if config.num_layers > 1 or config.bidirectional:
        raise BadSetting("anatomy compares single layers; allowed: config.num_layers=1, config.bidirectional=false")
    if "rnn_gaussian" not in CELLS:
        raise BadSetting("--config is missing; allowed: a file that defines rnn_gaussian, such as configs/anatomy.py")
    return {
        (task, network): seeds.over_seeds(with_settings(config, {"task": task} | settings_of(network, config)))
        for task in TASKS
        for network in ROWS
    }


def settings_of(network: str, config: Config) -> dict[str, Any]:
    """What tells a network of ROWS from the others; "seq_len" there stands for that of the config."""
    return {name: float(config.seq_len) if v == "seq_len" else v for name, v in ROWS[network].items()}


def row_of(trials: Sequence[Config], workdir: str | Path) -> Row:
    """Every seed's network as it starts and as its run in `workdir` left it, all by one compiled program."""
    train = make_train(trials[0])
    batches = [validation_batch(trial, train) for trial in trials]
    steps = min(b.inputs.shape[0] if b.lengths is None else int(b.lengths.min()) for b in batches)
    batches = _stack(batches)
    collect = jax.jit(lambda params: jax.lax.map(lambda both: collect_one(train, steps, *both), (params, batches)))
    init = jax.jit(lambda inputs: jax.lax.map(lambda both: train.init(*both).params, inputs))
    start = init(lane_inputs(trials))
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), start)
    trained = _stack([runs.load_params(lanes.trial_directory(workdir, trial), like=like) for trial in trials])
    scores = [result["score"] for result in seeds.read_results(trials, workdir)]
    return {"start": numbers(collect(start), [None] * len(trials)), "trained": numbers(collect(trained), scores)}


def collect_one(train: Train, steps: int, params: Any, batch) -> tuple[Any, dict[str, Array]]:
    """What `judge` reads and the `spectra` of one network, over the first `steps` of a batch."""
    model = train.model(params)
    layers = stack_layers(model, batch.inputs, batch.lengths, steps)
    taps = model.make_taps(batch.inputs.shape[0], batch.inputs.shape[1:2])

    def loss(taps):
        return train.task.loss(model(batch.inputs, lengths=batch.lengths, taps=taps), batch)

    return gather(loss, taps, layers, purpose_key(Purpose.PROBES)), spectra(layers[0])


def spectra(layer: Layer) -> dict[str, Array]:
    """Isometry of J_t, the largest Lyapunov exponent and the timescales of a layer, on its first sequence."""
    cell, params, xs = layer
    T = xs.shape[0]
    transient = T // 5
    statistics = jacobian_statistics(step_jacobians(cell, params, xs[:, 0]))
    exponents = lyapunov_spectrum(
        cell, params, xs[:, 0], k=1, transient=transient, batches=min(10, T - transient)
    ).exponents
    taus = jax.tree.leaves(record_units(cell, params, xs).timescale)
    slowest = jnp.argmax(jnp.stack([jnp.median(tau) for tau in taus]))  # of an LSTM's c and h, c
    median, top = jnp.stack([jnp.quantile(tau, jnp.array([0.5, 0.9])) for tau in taus])[slowest]
    return {
        "mean_square": statistics.mean_square.mean(),
        "variance_square": statistics.variance_square.mean(),
        "lyapunov": exponents[0],
        "timescale": median,
        "timescale_top": top,
    }


def numbers(collected: Any, scores: Sequence[float | None]) -> list[Measures]:
    """The measures of each seed, from what `collect_one` found of it and its score."""
    collected = jax.device_get(collected)
    found = [jax.tree.map(lambda leaf, seed=seed: leaf[seed], collected) for seed in range(len(scores))]
    return [
        {"score": score} | _measures(*evidence, more) for score, (evidence, more) in zip(scores, found, strict=True)
    ]


def table(rows: dict[tuple[str, str], Row]) -> str:
    """Markdown: for each task a table with two lines a network, at the start and trained."""
    parts = ["# Gradient anatomy", "", f"{NOTES}\n{about_verdicts()}\n{seeds.about_medians()}"]
    header = " | ".join(name.replace("|", "\\|") for name in (*COLUMNS, "verdict"))
    for task in TASKS:
        steps = rows[task, next(iter(ROWS))]["start"][0]["steps"]
        parts += ["", f"## {task}, {steps} steps", "", f"| network | when | {header} |"]
        parts.append("|---|---|" + "---:|" * (len(COLUMNS) + 1))
        for network in ROWS:
            for when, measures in rows[task, network].items():
                cells = [_text(measures, field) for field in COLUMNS.values()]
                parts.append(f"| {network} | {when} | {' | '.join(cells)} | {verdict(measures)} |")
    return "\n".join(parts) + "\n"


def about_verdicts() -> str:
    """How a verdict over seeds is found, in a sentence."""
    n, k = seeds.SEEDS, intervals.needed(seeds.SEEDS)
    if k > n:
        return f"verdict: undecided, as {n} seeds are too few for one."
    return (
        f"verdict: what at least {k} of {n} seeds say, so that at 95 % (exact sign test) more than half of all seeds\n"
        "would; else undecided, with the count of each."
    )


def verdict(measures: Sequence[Measures]) -> str:
    """The verdict that the seeds support, or `undecided (7 vanishing, 5 healthy)`."""
    found = [m["verdict"] for m in measures]
    counts = ", ".join(f"{count} {name}" for name, count in Counter(found).most_common())
    return intervals.agreed(found) or f"undecided ({counts})"


def write_table(rows: dict[tuple[str, str], Row], out: Path) -> None:
    """Writes the table, its numbers and its figure into `out`."""
    record = [
        {"task": task, "network": network} | row | {"verdict": {when: verdict(m) for when, m in row.items()}}
        for (task, network), row in rows.items()
    ]
    runs.write_file(out / "anatomy.json", json.dumps(outputs.plain_numbers(record), allow_nan=False) + "\n")
    runs.write_file(out / "anatomy.md", table(rows))
    profiles = {
        task: {network: {when: _profiles(m) for when, m in rows[task, network].items()} for network in ROWS}
        for task in TASKS
    }
    colors = {network: plot_style.cell_color(settings["cell"]) for network, settings in ROWS.items()}
    for dark in (False, True):
        path = out / f"anatomy{'_dark' * dark}.png"
        study_plots.anatomy(profiles, colors, path, ylabel="$|dh_T/dh_t|_F/\\sqrt{n}$", dark=dark)


def _measures(loss, evidence, spectra):
    gradient, logs = evidence[0].gradient, evidence[0].log_sensitivity
    last = gradient[np.flatnonzero(gradient)[-1]] if gradient.any() else np.nan
    return {
        "steps": len(gradient),
        "reach": float(gradient_reach(jnp.asarray(gradient))),
        "ratio": float(gradient[0] / last),
        "sensitivity": float(np.exp(logs[0])),
        "log_sensitivity": logs.tolist(),
        "gradient": gradient.tolist(),
        **{name: float(value) for name, value in spectra.items()},
        "verdict": judge(loss, evidence).verdict,
    }


def _profiles(measures):
    return np.exp(np.asarray([m["log_sensitivity"][1:] for m in measures]))


def _text(measures, field):
    values, steps = [m[field] for m in measures], measures[0]["steps"]
    if None in values:
        return "–"
    if field == "reach":
        return seeds.with_interval(values, lambda v: f">= {steps}" if v >= steps else f"{v:g}")
    return seeds.with_interval(values, "{:.3g}".format) if field == "score" else seeds.with_interval(values)


def _stack(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


if __name__ == "__main__":
    define_config()
    WORKDIR = define_path("workdir", None, "the directory of the runs; those that it holds are not run again")
    OUT = define_path("out", None, "where to write table and figure; by default WORKDIR")
    main_with_errors(main)
