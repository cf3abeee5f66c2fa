"""rnnjax against PyTorch, Flax, Haiku, Equinox and Keras: the same work, side by side in one run.

    python experiments/benchmark.py                          all suites on all cores
    python experiments/benchmark.py --threads=1 --suite=layers --cells=lstm --shapes=32x200x2x64

Suites: layers (forward pass and training step), sweep (a step of independent runs), trials (a sweep from start to end),
diagnostics (gradient norms over time), costs (of every diagnostic), memory (peak against T), startup (process start to
the end of the first step). Writes results.json, tables.md and layers.png into --out. Times mean something on a quiet
machine alone. On a GPU the same command runs there.

One process keeps the clock and gives the turns, round by round in a shuffled order. The contenders sit in worker
processes that sleep on a pipe until it is their turn: number of host devices and threads are settings of a process,
so JAX on one device, JAX on all virtual devices and PyTorch get one each, and none has another's thread pool beside it.
"""

import importlib.metadata
import itertools
import json
import math
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import peers
from absl import app, flags
from benchmark_costs import costs, measure_costs
from benchmark_tables import (
    cell_of,
    layers_table,
    median,
    paired_price,
    plot_layers,
    ratio,
    show_times,
    title,
)
from benchmark_trials import CELLS, check_workdir, torch_trials, trials
from benchmark_turns import (
    Seat,
    check_seats,
    cores,
    environment,
    join_deployments,
    measure,
    measure_peak,
    on_gpu,
    serve,
    set_up,
    sharding,
    sit_down,
    stand_up,
    start,
    start_workers,
    stop_workers,
)

SUITES = ("layers", "sweep", "trials", "diagnostics", "costs", "memory", "startup")
SHAPES = ["16x100x2x32", "32x200x2x64", "32x500x2x128", "64x100x64x512"]
FLAGS = flags.FLAGS
flags.DEFINE_list("suite", list(SUITES), f"Which of {', '.join(SUITES)}.")
flags.DEFINE_list("cells", ["rnn", "lstm", "gru"], "Cells of the suite layers.")
flags.DEFINE_list("shapes", SHAPES, "Shapes BxTxIxH of the suite layers.")
flags.DEFINE_list("contenders", list(peers.LAYERS), "Contenders of the suite layers; rnnjax always takes part.")
flags.DEFINE_list("sweep_shapes", SHAPES[:2], "Shapes BxTxIxH of the suite sweep.")
flags.DEFINE_integer("sweep_runs", 16, "Independent LSTM runs of the suite sweep.")
flags.DEFINE_list("diagnostics_shapes", SHAPES[:3], "Shapes BxTxIxH of the suite diagnostics.")
flags.DEFINE_string("costs_shape", "lstm:32x500x2x128", "Cell and shape of the suite costs.")
flags.DEFINE_list("memory_lengths", ["1000", "10000", "100000", "1000000"], "Lengths T of the suite memory.")
flags.DEFINE_float("memory_limit_gib", 2.0, "Skip a length whose predicted resident memory is above this.")
flags.DEFINE_float("memory_seconds", 600, "Give up a length after this long.")
flags.DEFINE_string("startup_shape", "lstm:32x200x2x64", "Cell and shape of the suite startup.")
flags.DEFINE_string("startup_command", "", "A command that trains one step and exits, to be timed in startup as well.")
flags.DEFINE_integer("rounds", 7, "Turns of every contender.", lower_bound=1)
flags.DEFINE_float("seconds", 0.3, "How long one measurement should last.")
flags.DEFINE_enum("threads", "all", ["1", "all"], "One core, or all that this process may use.")
flags.DEFINE_enum("device", "auto", ["auto", "cpu", "gpu"], "auto is the GPU where nvidia-smi finds one.")
flags.DEFINE_string("out", "runs/benchmark", "Folder for the results.")
flags.DEFINE_string("child", "", "Used by the benchmark itself: what this process is to do, as JSON.")

PACKAGES = ("rnnjax", "jax", "jaxlib", "flax", "dm-haiku", "equinox", "keras", "torch", "numpy")


def main(_) -> int:
    check_flags()
    if FLAGS.threads == "1":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # the workers inherit it
    from rnnjax.runs.directories import own_directory

    out = own_directory(os.path.expanduser(FLAGS.out), "benchmark")
    results, report = {"machine": machine()}, []
    suites = {"layers": layers, "sweep": sweep, "trials": trials, "diagnostics": diagnostics}
    suites |= {"costs": costs_of_diagnostics, "memory": memory, "startup": startup}
    for suite in FLAGS.suite:
        results[suite], table = suites[suite]()
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
    children = {"serve": serve, "memory": memory_point, "first_step": first_step}
    children |= {"costs": measure_costs, "torch_trials": torch_trials}
    children[task.pop("do")](**task)


def check_flags() -> None:
    """Raises UsageError, in one line, for what no suite can run: before the first of them begins."""
    from rnnjax.training.config import nearest

    tables = {"suite": SUITES, "cells": CELLS, "contenders": tuple(peers.LAYERS)}
    for name, allowed in tables.items():
        for value in FLAGS[name].value:
            if value not in allowed:
                hint = nearest(value, allowed) or ";"
                raise app.UsageError(f"--{name}={value}: unknown{hint} allowed: {', '.join(allowed)}")
    for name in ("shapes", "sweep_shapes", "diagnostics_shapes"):
        for shape in FLAGS[name].value:
            parse_case("lstm", shape, name)
    for name in ("costs_shape", "startup_shape"):
        parse_named(FLAGS[name].value, name)
    for length in FLAGS.memory_lengths:
        if not length.isdigit() or int(length) < 1:
            raise app.UsageError(f"--memory_lengths={length}: allowed: whole numbers above 0")
    if "trials" in FLAGS.suite:
        check_workdir()


def machine() -> dict:
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    models = [line for line in cpuinfo.read_text().splitlines() if "model name" in line] if cpuinfo.exists() else []
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "command": " ".join(["python", *sys.argv]),
        "cpu": models[0].split(":")[1].strip() if models else platform.processor(),
        "cores": cores(),
        "gpu": subprocess.getoutput("nvidia-smi --query-gpu=name --format=csv,noheader") if on_gpu() else None,
        "load at the start": os.getloadavg()[0],
        "versions": versions,
    }


# The suites: each returns (raw results, lines of markdown).


def layers():
    workers = start_workers({"jax", "torch"} | ({"jax-sharded"} if sharding() else set()))
    results = {"peak_gflops": measure_peak(workers), "cases": []}
    try:
        for shape in FLAGS.shapes:
            for cell in FLAGS.cells:
                case = parse_case(cell, shape)
                names = [n for n in peers.LAYERS if n in FLAGS.contenders or n.startswith("rnnjax")]
                seats, absent = sit_down("LAYERS", names, case, workers)
                for what, passes in (("forward", 1), ("step", 3)):
                    times = measure(seats, what)
                    join_deployments(times)
                    operations = passes * peers.flops(case)
                    results["cases"].append({"what": what, **case._asdict(), "flops": operations, "times": times})
                    results["cases"][-1]["absent"] = absent
                    print(f"{what} {title(case)}: " + show_times(times), flush=True)
                stand_up(seats)
    finally:
        stop_workers(workers)
    return results, layers_table(results)


def sweep():
    """The runs on all virtual devices of one process, against PyTorch in as many processes as cores."""
    processes = 1 if on_gpu() else min(cores(), FLAGS.sweep_runs)
    workers = start_workers({"jax-sharded" if sharding() else "jax"} | {f"torch-1 {k}" for k in range(processes)})
    cases, table = [], ["| case | rnnjax | torch | ratio |", "|-|-|-|-|"]
    for shape in FLAGS.sweep_shapes:
        case = parse_case("lstm", shape)
        ours, *theirs = workers.values()
        devices = math.gcd(cores(), FLAGS.sweep_runs) if sharding() else 1
        seats = [Seat("rnnjax", [ours], "SWEEP", {"runs": FLAGS.sweep_runs, "devices": devices})]
        split = [FLAGS.sweep_runs * k // processes for k in range(processes + 1)]
        shares = [{"runs": b - a, "first": a} for a, b in itertools.pairwise(split)]
        seats.append(Seat("torch", theirs, "SWEEP", shares))
        seats, absent = check_seats(seats, case)
        times = measure(seats, "step")
        stand_up(seats)
        cases.append({"runs": FLAGS.sweep_runs, "processes": processes, **case._asdict(), "times": times})
        cases[-1]["absent"] = absent
        table.append(f"| {FLAGS.sweep_runs} x {title(case)} | {cell_of(times, 'rnnjax')} | {cell_of(times, 'torch')} |")
        table[-1] += f" {ratio(times, 'torch')} |"
    stop_workers(workers)
    return cases, ["One training step of every run, ms: median [min..max].", "", *table]


def diagnostics():
    """A training step without and with |dL/dh_t| for every t."""
    workers = start_workers({"jax", "torch"} | ({"jax-sharded"} if sharding() else set()))
    cases = []
    table = [
        "| case | rnnjax step | with norms | price | torch step | with norms | torch / rnnjax |",
        "|-|-|-|-|-|-|-|",
    ]
    for shape in FLAGS.diagnostics_shapes:
        case = parse_case("lstm", shape)
        seats, absent = sit_down("DIAGNOSTICS", list(peers.DIAGNOSTICS), case, workers)
        times = measure(seats, "step")
        join_deployments(times, "rnnjax")
        join_deployments(times, "rnnjax norms")
        stand_up(seats)
        cases.append({**case._asdict(), "times": times, "absent": absent})
        price = paired_price(times)
        gain = f"{median(times, 'torch norms') / median(times, 'rnnjax norms'):.1f}x" if "torch norms" in times else "-"
        cells = [cell_of(times, n) for n in ("rnnjax", "rnnjax norms", "torch", "torch norms")]
        table.append(f"| {title(case)} | {cells[0]} | {cells[1]} | {price:+.1%} | {cells[2]} | {cells[3]} | {gain} |")
    stop_workers(workers)
    return cases, ["A training step, ms: median [min..max]; the price is the median over the rounds.", "", *table]


def costs_of_diagnostics():
    return costs(parse_named(FLAGS.costs_shape))


def memory():
    """Peak resident memory and time of one gradient of an LSTM (H=64, B=1) against T, each in a fresh process."""
    rows, table = [], ["| T | " + " | ".join(MEMORY) + " |", "|-" * (len(MEMORY) + 1) + "|"]
    for T in map(int, FLAGS.memory_lengths):
        line = []
        for name in MEMORY:
            before = [r for r in rows if r["name"] == name]
            row = {"name": name, "T": T, **memory_of(name, T, before)}
            rows.append(row)
            line.append(row.get("error") or f"{row['peak_mib']:.0f} MiB, {row['seconds']:.2f} s")
            print(f"memory T={T} {name}: {line[-1]}", flush=True)
        norms = [row["norm"] for row in rows if row["T"] == T and "norm" in row]
        if norms and max(norms) - min(norms) > 1e-3 * max(norms):
            raise AssertionError(f"at T={T} the gradient norms differ: {norms}")
        table.append(f"| {T} | " + " | ".join(line) + " |")
    slopes = [memory_slope([r for r in rows if r["name"] == name]) for name in MEMORY]
    table.append("| bytes a step | " + " | ".join(slopes) + " |")
    text = "Peak resident memory of a process, and the time of a gradient after the first: LSTM, B=1, I=2, H=64."
    return rows, [text, "", *table]


def startup():
    """Process start to the end of the first training step."""
    case = parse_named(FLAGS.startup_shape)
    times = {}
    with tempfile.TemporaryDirectory() as cache:
        cached = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        contenders = {}
        for name in ("rnnjax", "flax.nnx", "torch"):
            contenders[name] = ({"do": "first_step", "name": name, "case": case}, {})
            if name != "torch":
                contenders[f"{name}, cached"] = (contenders[name][0], cached)
        if FLAGS.startup_command:
            contenders["command"], contenders["command, cached"] = (None, {}), (None, cached)
        for name, (task, extra) in contenders.items():
            if extra:
                time_process(task, extra, name)  # fills the cache
        for _ in range(FLAGS.rounds):
            for name, (task, extra) in contenders.items():
                times.setdefault(name, []).append(time_process(task, extra, name))
    table = ["| contender | seconds, median [min..max] |", "|-|-|"]
    for name, s in times.items():
        table.append(f"| {name} | {statistics.median(s):.2f} [{min(s):.2f}..{max(s):.2f}] |")
    text = f"From the start of the process to the end of the first training step, {title(case)}"
    return {"case": case._asdict(), "times": times}, [text, "", *table]


# Memory and start-up: one fresh process a measurement.

MEMORY = {
    "rnnjax": ("jax", lambda T: 1),
    "rnnjax, sqrt(T) segments": ("jax", math.isqrt),
    "torch": ("torch", lambda T: 1),
}


def memory_of(name, T, before):
    worked = [r for r in before if "peak_mib" in r]
    if any("error" in r for r in before):
        return {"error": "-"}
    if worked:
        grown = worked[-1]["peak_mib"] - worked[-1]["start_mib"]
        power = 0.5 if "sqrt" in name else 1.0
        predicted = worked[-1]["start_mib"] + grown * (T / worked[-1]["T"]) ** power
        if predicted > 1024 * FLAGS.memory_limit_gib:
            return {"error": f"skipped, about {predicted / 1024:.1f} GiB"}
    kind, segments = MEMORY[name]
    process = start({"do": "memory", "kind": kind, "T": T, "segments": segments(T)}, stdout=subprocess.PIPE)
    try:
        output, _ = process.communicate(timeout=FLAGS.memory_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return {"error": f"over {FLAGS.memory_seconds:.0f} s"}
    if process.returncode:
        return {"error": "not installed" if process.returncode == 3 else f"failed ({process.returncode})"}
    return json.loads(output.splitlines()[-1])


def memory_point(kind, T, segments):
    """Prints the peak of this process after one gradient, and the time of a second."""
    case = peers.Case("lstm", 1, T, 2, 64)
    try:
        set_up(kind)
    except ImportError:
        sys.exit(3)
    contender = peers.torch_nn(case) if kind == "torch" else peers.rnnjax(case, segments=segments)
    start_mib = peak_mib()
    _, norm = contender.check()
    start = time.perf_counter()
    contender.check()
    seconds = time.perf_counter() - start
    print(json.dumps({"start_mib": start_mib, "peak_mib": peak_mib(), "seconds": seconds, "norm": norm}))


def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory_slope(rows):
    worked = [r for r in rows if "peak_mib" in r]
    if len(worked) < 2:
        return "-"
    return f"{(worked[-1]['peak_mib'] - worked[0]['peak_mib']) * 2**20 / (worked[-1]['T'] - worked[0]['T']):.0f}"


def time_process(task, extra, name):
    start_time = time.perf_counter()
    if task:
        process = start(task, extra, stdout=subprocess.DEVNULL)
    else:
        process = subprocess.Popen(
            FLAGS.startup_command, shell=True, env=environment("", extra), stdout=subprocess.DEVNULL
        )
    if process.wait():
        raise RuntimeError(f"{name} failed with exit code {process.returncode}")
    return time.perf_counter() - start_time


def first_step(name, case):
    case = peers.Case(*case)
    set_up(peers.LAYERS[name][0])
    ways = peers.LAYERS[name][1](case).step
    ways["call"](1)
    os._exit(0)  # the step is done: taking the process down is not part of it


def parse_named(text, flag="shape"):
    """The case that CELL:BxTxIxH names, such as lstm:32x200x2x64."""
    cell, _, shape = text.partition(":")
    if cell not in CELLS:
        raise app.UsageError(f"--{flag}={text}: allowed: CELL:BxTxIxH with CELL one of {', '.join(CELLS)}")
    return parse_case(cell, shape, flag)


def parse_case(cell, shape, flag="shape"):
    sizes = shape.split("x")
    if len(sizes) != 4 or not all(size.isdigit() and int(size) > 0 for size in sizes):
        raise app.UsageError(f"--{flag}={shape}: allowed: BxTxIxH, four whole numbers above 0, such as 32x200x2x64")
    return peers.Case(cell, *map(int, sizes))


if __name__ == "__main__":
    if any(argument.startswith("--child=") for argument in sys.argv):
        child(FLAGS(sys.argv))
    else:
        from command_line import main_with_errors

        main_with_errors(main)
