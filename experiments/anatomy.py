"""The gradient anatomy table: per-step gradients, Jacobians, exponents and timescales, before and after training.

    python experiments/anatomy.py --config=configs/anatomy.py --workdir=runs/anatomy

Trains the networks of ROWS on copy and adding as a sweep (trials in WORKDIR/trials, so that it resumes), and writes
anatomy.md, anatomy.json, anatomy.png and anatomy_dark.png into --out, by default WORKDIR. Exit codes: see sweep.py.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from rnnjax.keys import Purpose, purpose_key

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments import outputs, sweep
from experiments.diagnose_subject import find_params, loss_of_taps, sample, subject_of
from experiments.flags import BadSetting, checked, define_config, load_config, main_with_errors
from rnnjax import diagnostic_plots, plot_style, runs
from rnnjax.cells import CELLS
from rnnjax.config import Config
from rnnjax.diagnostics.gradient_flow import gradient_reach
from rnnjax.diagnostics.jacobians import jacobian_statistics, step_jacobians
from rnnjax.diagnostics.lyapunov import lyapunov_spectrum
from rnnjax.diagnostics.triage import Layer, gather, judge
from rnnjax.diagnostics.units import record_units
from rnnjax.training import make_train
from rnnjax.types import Array

ROWS = {
    "tanh RNN": {"cell": "rnn_gaussian"},
    "IRNN": {"cell": "irnn"},
    "orthogonal RNN": {"cell": "rnn"},
    "LSTM, b_f = 0": {"cell": "lstm", "forget_bias": 0.0},
    "LSTM, b_f = 1": {"cell": "lstm", "forget_bias": 1.0},
    "LSTM, chrono": {"cell": "lstm", "chrono": True},
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
    "verdict": "verdict",
}
NOTES = """reach: steps back until |dL/dh_t| is below 1/1000 of its last value. |dh_T/dh_0|: Frobenius norm / sqrt(n), 1
if norms are kept. sigma(J): singular values of a step's Jacobian, mean over steps; an isometry has mean 1, variance 0.
lambda_1: largest Lyapunov exponent, natural log a step. tau: timescales -1/log f of the units by themselves, over all
units and steps; 0 where the state is overwritten each step. All on fresh validation sequences, of one seed."""


def trials(config: Config) -> dict[tuple[str, str], Config]:
    """(task, row) -> its checked config. Raises BadSetting, where the config does not know a row's cell."""
    return {
        (task, row): checked(dataclasses.replace(config, task=task, **settings))
        for task in TASKS
        for row, settings in ROWS.items()
    }


def measure(config: Config, run: Path) -> dict[str, dict[str, Any]]:
    """Two lines of the table: "start", of fresh parameters, and "trained", of those in a run directory."""
    train = make_train(config)
    batch = sample(config, train)

    @jax.jit
    def collect(params):
        subject = subject_of(config, train, params, batch)
        taps = subject.model.make_taps(batch.inputs.shape[0], batch.inputs.shape[1:2])
        found = gather(loss_of_taps(subject), taps, subject.layers, purpose_key(Purpose.PROBES))
        return found, spectra(subject.layers[0])

    return {
        when: _numbers(*jax.device_get(collect(find_params(config, train, path))), path)
        for when, path in (("start", None), ("trained", run))
    }


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


def _numbers(found, spectra, run):
    evidence = found[1][0]
    gradient = evidence.gradient
    last = gradient[np.flatnonzero(gradient)[-1]] if gradient.any() else np.nan
    return {
        "steps": len(gradient),
        "score": json.loads((run / "result.json").read_bytes())["score"] if run else None,
        "reach": int(gradient_reach(jnp.asarray(gradient))),
        "ratio": float(gradient[0] / last),
        "sensitivity": float(np.exp(evidence.log_sensitivity[0])),
        "log_sensitivity": evidence.log_sensitivity.tolist(),
        "gradient": gradient.tolist(),
        **{name: float(value) for name, value in spectra.items()},
        "verdict": judge(*found).verdict,
    }


def table(measures: dict[tuple[str, str], dict[str, dict]]) -> str:
    """Markdown: for each task a table with two lines a network, at the start and trained."""
    parts = ["# Gradient anatomy", "", NOTES]
    header = " | ".join(name.replace("|", "\\|") for name in COLUMNS)
    for task in TASKS:
        first = measures[task, next(iter(ROWS))]["start"]
        parts += ["", f"## {task}, {first['steps']} steps", "", f"| network | when | {header} |"]
        parts.append("|---|---|" + "---:|" * len(COLUMNS))
        for row in ROWS:
            for when, m in measures[task, row].items():
                cells = [_text(m, field) for field in COLUMNS.values()]
                parts.append(f"| {row} | {when} | {' | '.join(cells)} |")
    return "\n".join(parts) + "\n"


def figure(measures: dict, out: Path, dark: bool) -> None:
    """|dh_T/dh_t| against steps back, a panel for each network and task."""
    panels = {}
    for task in TASKS:
        profiles = {
            row: tuple(np.exp(np.asarray(m["log_sensitivity"][1:])) for m in measures[task, row].values())
            for row in ROWS
        }
        panels[task] = (profiles, 1e-8)
    colors = {row: plot_style.cell_color(settings["cell"]) for row, settings in ROWS.items()}
    diagnostic_plots.anatomy(panels, colors, out, ylabel="$|dh_T/dh_t|_F/\\sqrt{n}$", dark=dark)


def _text(m, field):
    value = m[field]
    if value is None:
        return "–"
    if field == "reach" and value >= m["steps"]:
        return f">= {m['steps']}"
    return value if isinstance(value, str) else str(value) if isinstance(value, int) else f"{value:.3g}"


def main(_) -> int:
    if not WORKDIR.value:
        raise BadSetting("--workdir is missing; allowed: a directory for the runs, such as --workdir=runs/anatomy")
    config = load_config()
    if config.num_layers > 1 or config.bidirectional:
        raise BadSetting("anatomy compares single layers; allowed: config.num_layers=1, config.bidirectional=false")
    if "rnn_gaussian" not in CELLS:
        raise BadSetting("--config is missing; allowed: a file that defines rnn_gaussian, such as configs/anatomy.py")
    planned = trials(config)
    try:
        out = runs.check_directory(OUT.value or WORKDIR.value)
    except ValueError as error:
        raise BadSetting(str(error)) from error
    outputs.prepare_devices(config)
    with runs.stop_signals() as stop:
        if not sweep.run_sweep(list(planned.values()), WORKDIR.value, stop):
            print(f"stopped; the same command resumes {WORKDIR.value}", file=sys.stderr)
            return runs.EXIT_STOPPED
    measures = {}
    for (task, row), trial in planned.items():
        path = sweep.trial_directory(WORKDIR.value, trial)
        measures[task, row] = measure(trial, path)
        print(f"measured {row} on {task}", file=sys.stderr)
    out.mkdir(parents=True, exist_ok=True)
    record = [{"task": task, "network": row} | measured for (task, row), measured in measures.items()]
    runs.write_file(out / "anatomy.json", json.dumps(outputs.plain_numbers(record), allow_nan=False) + "\n")
    runs.write_file(out / "anatomy.md", table(measures))
    figure(measures, out / "anatomy.png", dark=False)
    figure(measures, out / "anatomy_dark.png", dark=True)
    print(table(measures))
    return runs.EXIT_DONE


if __name__ == "__main__":
    define_config()
    WORKDIR = flags.DEFINE_string("workdir", None, "the directory of the runs; those that it holds are not run again")
    OUT = flags.DEFINE_string("out", None, "where to write table and figure; by default WORKDIR")
    main_with_errors(main)
