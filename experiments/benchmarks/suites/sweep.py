"""A training step of many independent runs at once."""

import itertools
import math

from absl import flags

from benchmarks.case import parse_case, title
from benchmarks.harness import Entry, build_entries, drop_entries, time_entries
from benchmarks.suites.layers import SHAPES
from benchmarks.tables import cell_of, ratio
from benchmarks.workers import cores, on_gpu, sharding, start_workers, stop_workers

FLAGS = flags.FLAGS
flags.DEFINE_list("sweep_shapes", SHAPES[:2], "Shapes BxTxIxH of the suite sweep.")
flags.DEFINE_integer("sweep_runs", 16, "Independent LSTM runs of the suite sweep.")


def sweep() -> tuple[list, list[str]]:
    """The runs on all virtual devices of one process, against PyTorch in as many processes as cores."""
    processes = 1 if on_gpu() else min(cores(), FLAGS.sweep_runs)
    workers = start_workers({"jax-sharded" if sharding() else "jax"} | {f"torch-1 {k}" for k in range(processes)})
    cases, table = [], ["| case | rnnjax | torch | ratio |", "|-|-|-|-|"]
    for shape in FLAGS.sweep_shapes:
        case = parse_case("lstm", shape)
        ours, *theirs = workers.values()
        devices = math.gcd(cores(), FLAGS.sweep_runs) if sharding() else 1
        entries = [Entry("rnnjax", [ours], "sweep", {"runs": FLAGS.sweep_runs, "devices": devices})]
        split = [FLAGS.sweep_runs * k // processes for k in range(processes + 1)]
        shares = [{"runs": b - a, "first": a} for a, b in itertools.pairwise(split)]
        entries.append(Entry("torch", theirs, "sweep", shares))
        entries, absent = build_entries(entries, case)
        times = time_entries(entries, "step")
        drop_entries(entries)
        cases.append({"runs": FLAGS.sweep_runs, "processes": processes, **case._asdict(), "times": times})
        cases[-1]["absent"] = absent
        table.append(f"| {FLAGS.sweep_runs} x {title(case)} | {cell_of(times, 'rnnjax')} | {cell_of(times, 'torch')} |")
        table[-1] += f" {ratio(times, 'torch')} |"
    stop_workers(workers)
    return cases, ["One training step of every run, ms: median [min..max].", "", *table]
