"""rnnjax against PyTorch, Flax, Haiku, Equinox and Keras: the same work, side by side in one run.

    python experiments/benchmark.py                          all suites on all cores
    python experiments/benchmark.py --threads=1 --suite=layers --cells=lstm --shapes=32x200x2x64

Suites: layers (forward pass and training step), transformer (training step), cells (a training step of each, beside the
LSTM's), sweep (a step of independent runs), trials (a sweep from start to end), diagnostics (gradient norms over time),
costs (of every diagnostic), memory (peak against T), startup (process start to the end of the first step). Writes
results.json, tables.md and layers.png into --out.
Times mean something on a quiet machine alone. On a GPU the same command runs there.
"""

import json
import os
import pathlib
import platform
import subprocess
import sys

from absl import app, flags
from benchmarks import harness, peers, workers
from benchmarks.case import CELLS, parse_case, parse_named
from benchmarks.figure import plot_layers
from benchmarks.peers.torch_trials import train_trials
from benchmarks.suites import MODULES, SUITES, cells, costs, memory, startup, trials

FLAGS = flags.FLAGS
flags.DEFINE_list("suite", list(SUITES), f"Which of {', '.join(SUITES)}.")
flags.DEFINE_string("out", "runs/benchmark", "Folder for the results.")
for _module in (harness, workers, *MODULES):
    flags.adopt_module_key_flags(_module)  # so that --helpshort shows them

CHILDREN = {  # what a process that the benchmark starts can be told to do
    "serve": workers.serve,
    "memory": memory.memory_point,
    "first_step": startup.first_step,
    "costs": costs.measure_costs,
    "cells": cells.measure_cells,
    "torch_trials": train_trials,
}


def main(_) -> int:
    check_flags()
    if FLAGS.threads == "1":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # the workers inherit it
    from rnnjax.runs.directories import own_directory

    out = own_directory(os.path.expanduser(FLAGS.out), "benchmark")
    results, report = {"machine": machine()}, []
    for suite in FLAGS.suite:
        results[suite], table = SUITES[suite]()
        report += [f"## {suite}", "", *table, ""]
        print("\n".join(table), flush=True)
        (out / "results.json").write_text(json.dumps(results, indent=1))  # after each suite: a long run may be cut
        head = [f"{k}: {v}" for k, v in results["machine"].items()]
        (out / "tables.md").write_text("\n".join(["# Benchmark", "", *[f"- {line}" for line in head], "", *report]))
        if suite == "layers":
            plot_layers(results["layers"], out / "layers.png")
    print(f"wrote {out}/results.json, {out}/tables.md")
    return 0


def child(_) -> None:
    """What one of the benchmark's own processes does: without JAX, if it is another library's."""
    task = json.loads(FLAGS.child)
    CHILDREN[task.pop("do")](**task)


def check_flags() -> None:
    """Raises UsageError, in one line, for what no suite can run: before the first of them begins."""
    from rnnjax.training.refusals import nearest

    tables = {"suite": tuple(SUITES), "cells": CELLS, "contenders": tuple(peers.LAYERS)}
    for name, allowed in tables.items():
        for value in FLAGS[name].value:
            if value not in allowed:
                hint = nearest(value, allowed) or ";"
                raise app.UsageError(f"--{name}={value}: unknown{hint} allowed: {', '.join(allowed)}")
    for name in ("shapes", "transformer_shapes", "sweep_shapes", "diagnostics_shapes"):
        for shape in FLAGS[name].value:
            parse_case("lstm", shape, name)
    for name in ("costs_shape", "startup_shape", "cells_shape"):
        parse_named(FLAGS[name].value, name)
    for length in FLAGS.memory_lengths:
        if not length.isdigit() or int(length) < 1:
            raise app.UsageError(f"--memory_lengths={length}: allowed: whole numbers above 0")
    if "trials" in FLAGS.suite:
        trials.check_workdir()


def machine() -> dict:
    """What the times depend on, besides the code."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    models = [line for line in cpuinfo.read_text().splitlines() if "model name" in line] if cpuinfo.exists() else []
    return {
        "command": " ".join(["python", *sys.argv]),
        "cpu": models[0].split(":")[1].strip() if models else platform.processor(),
        "cores": workers.cores(),
        "gpu": subprocess.getoutput("nvidia-smi --query-gpu=name --format=csv,noheader") if workers.on_gpu() else None,
        "load at the start": os.getloadavg()[0],
        "versions": peers.versions(),
    }


if __name__ == "__main__":
    if any(argument.startswith("--child=") for argument in sys.argv):
        child(FLAGS(sys.argv))
    else:
        from command_line import main_with_errors

        main_with_errors(main)
