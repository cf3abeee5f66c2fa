"""Peak memory and time of a gradient against the length, one fresh process a measurement."""

import json
import math
import resource
import subprocess
import sys
import time

from absl import flags

from benchmarks import peers
from benchmarks.case import Case
from benchmarks.workers import set_up, start

FLAGS = flags.FLAGS
flags.DEFINE_list("memory_lengths", ["1000", "10000", "100000", "1000000"], "Lengths T of the suite memory.")
flags.DEFINE_float("memory_limit_gib", 2.0, "Skip a length whose predicted resident memory is above this.")
flags.DEFINE_float("memory_seconds", 600, "Give up a length after this long.")

MEMORY = {
    "rnnjax": ("jax", lambda T: 1),
    "rnnjax, sqrt(T) segments": ("jax", math.isqrt),
    "torch": ("torch", lambda T: 1),
}


def memory() -> tuple[list, list[str]]:
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
    case = Case("lstm", 1, T, 2, 64)
    try:
        set_up(kind)
    except ImportError:
        sys.exit(3)
    options = {} if kind == "torch" else {"segments": segments}
    contender = peers.build("layers", "torch" if kind == "torch" else "rnnjax", case, **options)
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
