"""A sweep from start to end: one command, beside one command a trial, and beside PyTorch in a process a core."""

import itertools
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from absl import app, flags

from benchmarks.case import CELLS
from benchmarks.workers import LAUNCHER, cores, environment, on_gpu, start

RATES, SEEDS = (1e-3, 2e-3, 4e-3, 8e-3), 8
flags.DEFINE_integer("trials_steps", 1000, "Training steps of each trial of the suite trials.", lower_bound=1)
flags.DEFINE_integer("trials_length", 100, "Length T of the adding problem of the suite trials.", lower_bound=2)
flags.DEFINE_integer("trials_alone", 2, "Trials a cell that are also run alone, as a command each.", lower_bound=1)
flags.DEFINE_string("trials_workdir", "", "Keep the sweep here, for a report; a temporary folder by default.")
FLAGS = flags.FLAGS


def check_workdir() -> None:
    """Raises UsageError where the sweep that is to be timed is there already."""
    if FLAGS.trials_workdir and pathlib.Path(FLAGS.trials_workdir).expanduser().exists():
        raise app.UsageError(f"--trials_workdir={FLAGS.trials_workdir} is there already; allowed: a folder to be made")


def trials() -> tuple[dict, list[str]]:
    """The suite: cells x learning rates x seeds on adding; (raw results, lines of markdown)."""
    settings = {"seq_len": FLAGS.trials_length, "hidden_size": 32, "batch_size": 32, "steps": FLAGS.trials_steps}
    settings |= {"eval_every": min(250, FLAGS.trials_steps), "eval_batch": 256}
    options = ["--config=configs/adding.py", *(f"--config.{name}={value}" for name, value in settings.items())]
    axes = {"cell": CELLS, "lr": RATES, "seed": range(SEEDS)}
    grid = [f"--grid={name}={','.join(map(str, values))}" for name, values in axes.items()]
    count = math.prod(len(values) for values in axes.values())
    alone = {}
    with tempfile.TemporaryDirectory() as folder:
        workdir = os.path.expanduser(FLAGS.trials_workdir) or f"{folder}/sweep"
        sweep = _launch("sweep", *options, *grid, f"--workdir={workdir}")
        results = [(*_settings(p), _score(p)) for p in pathlib.Path(workdir, "trials").iterdir()]
        for cell, seed in itertools.product(CELLS, range(FLAGS.trials_alone)):
            flags_ = [f"--config.cell={cell}", f"--config.seed={seed}", f"--workdir={folder}/{cell}{seed}"]
            alone[f"{cell} {seed}"] = _launch("train", *options, *flags_)
    theirs, torch, missing = _torch(settings)
    sum_alone = count * statistics.mean(alone.values())
    row = "| PyTorch, {} processes | {:.0f} | **{:.1f}x** | {} |" if not missing else "| PyTorch | not installed | | |"
    table = [
        f"{len(CELLS)} cells x {len(RATES)} learning rates x {SEEDS} seeds, adding T={settings['seq_len']}, H=32, B=32",
        f"and {settings['steps']} steps, command start to end. Solved: seeds at the best learning rate.",
        "",
        f"| | seconds | | solved by {', '.join(CELLS)} |",
        "|-|-|-|-|",
        f"| one sweep, {len(CELLS)} buckets | {sweep:.0f} | | {_solved(results)} |",
        f"| {count} commands, reckoned from {len(alone)} | {sum_alone:.0f} | **{sum_alone / sweep:.1f}x** | |",
        row.format(cores(), torch, torch / sweep, "" if missing else _solved(theirs)),
    ]
    raw = {"settings": settings, "sweep": sweep, "alone": alone, "torch": torch, "results": results, "theirs": theirs}
    return raw, table


def _torch(settings):
    """([cell, lr, seed, mse] of every trial, seconds, whether PyTorch is missing), in as many processes as cores."""
    begun, device = time.perf_counter(), "cuda" if on_gpu() else "cpu"
    todo = list(itertools.product(CELLS, RATES, range(SEEDS)))
    shares = [todo[k :: cores()] for k in range(cores())]
    tasks = [{"do": "torch_trials", "kind": "torch-1", "trials": t, "device": device, **settings} for t in shares]
    processes = [start(task, stdout=subprocess.PIPE) for task in tasks]
    outputs = [process.communicate()[0] for process in processes]
    theirs = [tuple(row) for output in outputs if output for row in json.loads(output.splitlines()[-1])]
    return theirs, time.perf_counter() - begun, any(process.returncode for process in processes)


def _launch(name, *options):
    """Seconds of a command from its start to its end."""
    env = environment("", {})
    begun = time.perf_counter()
    command = [sys.executable, str(LAUNCHER.with_name(f"{name}.py")), *options]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    subprocess.run(command, check=True, env=env, cwd=LAUNCHER.parents[1], **pipes)
    return time.perf_counter() - begun


def _settings(trial):
    config = json.loads((trial / "config.json").read_bytes())["config"]
    return config["cell"], config["lr"], config["seed"]


def _score(trial):
    from rnnjax import runs  # here: the children of other libraries have no JAX

    return runs.read_result(trial)["score"]


def _solved(rows):
    """For each cell how many seeds have solved the task (0.05) at the learning rate where most have."""
    counts = {}
    for cell, lr, _, score in rows:
        counts.setdefault(cell, {}).setdefault(lr, []).append(score < 0.05)
    best = [max(map(sum, counts[cell].values())) for cell in CELLS]
    return ", ".join(f"{n} of {SEEDS}" for n in best)
