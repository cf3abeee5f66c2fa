"""The main job in minutes: which networks learn to add over 100 steps, which does not and why; and one that writes.

python experiments/demo.py --workdir=runs/demo
"""

import math
import statistics
from pathlib import Path

from command_line import define_path, main_with_errors
from rich.console import Console
from rich.table import Table
from sweep import run_sweep, trial_directory

from rnnjax import intervals, runs
from rnnjax.figures import plotting
from rnnjax.runs.read import recorded_reach
from rnnjax.sweeps import grid as sweep
from rnnjax.training.config import Config
from rnnjax.training.devices import prepare_devices
from rnnjax.training.outputs import report_lines

WORKDIR = define_path("workdir", "runs/demo", "where runs and figures go; what is there is not run again")

ADDING = Config(
    task="adding",
    seq_len=100,
    hidden_size=64,
    lr=4e-3,
    schedule="cosine",
    clip=1.0,
    batch_size=32,
    steps=2500,
    eval_every=125,
    eval_batch=256,
)
CELLS = ("rnn", "lstm", "gru")
SEEDS = range(4)
TEXT = Config(
    task="text",
    seq_len=64,
    cell="lstm",
    hidden_size=256,
    embedding_size=64,
    lr=4e-3,
    schedule="cosine",
    batch_size=32,
    steps=1000,
    eval_every=100,
    eval_batch=128,
)


def main(_) -> int:
    prepare_devices(ADDING)
    workdir = runs.own_directory(WORKDIR.value, "demo")
    adding = sweep.grid(ADDING, {"cell": CELLS, "seed": SEEDS})
    with runs.stop_signals() as stop:
        if not run_sweep(adding, workdir / "adding", stop) or not run_sweep([TEXT], workdir / "text", stop):
            return runs.EXIT_STOPPED
    show(workdir, adding)
    return runs.EXIT_DONE


def show(workdir: Path, adding: list[Config]) -> None:
    """Prints the table and the sample, draws the figures and says which to open."""
    console = Console(width=100)
    table = Table(title="adding two numbers 100 steps apart", title_justify="left")
    for column in ("cell", "validation mse", "baseline", "solved", "at step", "gradient reach"):
        table.add_column(column, justify="left" if column == "cell" else "right")
    for cell in CELLS:
        trials = [trial for trial in adding if trial.cell == cell]
        results = [runs.read_result(trial_directory(workdir / "adding", t)) for t in trials]
        reach = intervals.median([recorded_reach(r) for r in results])
        steps = [r["solved_at"] for r in results if r["solved_at"] is not None]
        table.add_row(
            cell,
            f"{intervals.median([math.nan if r['score'] is None else r['score'] for r in results]):.5f}",
            f"{results[0]['baseline']:.3f}",
            f"{len(steps)} of {len(results)}",
            f"{statistics.median_low(steps)}" if steps else "-",
            f"{reach:g} steps" if math.isfinite(reach) else "not finite, or none",
        )
    console.print(table)
    console.print(
        f"Medians over seeds. mse: mean squared error on {ADDING.eval_batch} validation sequences at the end. Reach: "
        f"how far back |dL/dh_t| stays above 1/1000 of its last value, rms over the last {ADDING.eval_every} training "
        "batches.\n"
    )

    text = trial_directory(workdir / "text", TEXT)
    result = runs.read_result(text)
    said, sample = report_lines(result, text)
    console.print(
        f"A character LSTM after {TEXT.steps} steps: {said}. "
        f"The figure shows it on validation windows of {TEXT.seq_len} characters: {result['score']:.3f}. It writes:\n"
    )
    console.print(sample, markup=False, highlight=False)

    plotting.learning_curve([text], workdir / "text_learning_curve.png")
    directories = {t: trial_directory(workdir / "adding", t) for t in adding}
    plotting.learning_curve(list(directories.values()), workdir / "adding_learning_curves.png")
    flows = {}
    for cell in CELLS:
        first = next(t for t in adding if t.cell == cell)
        flows[cell] = runs.load_arrays(directories[first] / "gradient_flow.npz")
    limits = plotting.gradient_limits(list(flows.values()))
    for cell, flow in flows.items():
        plotting.gradient_map(flow, workdir / f"gradient_map_{cell}.png", limits=limits)
    console.print("Open these:")
    console.print(f"  {workdir}/adding_learning_curves.png   which of them learn")
    for cell in CELLS:
        console.print(f"  {workdir}/gradient_map_{cell}.png   where the gradient of the {cell} goes")
    console.print(f"  {workdir}/text_learning_curve.png   the character model beside n-grams")


if __name__ == "__main__":
    main_with_errors(main)
