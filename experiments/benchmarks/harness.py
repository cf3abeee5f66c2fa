"""Who of the contenders is timed, in which order, and by which clock.

One process keeps the clock and tells the workers to run, round by round in a shuffled order.
"""

import random
import statistics
import time
from typing import NamedTuple

from absl import flags

from benchmarks import peers
from benchmarks.case import title
from benchmarks.workers import ask, cores, on_gpu, receive, send

FLAGS = flags.FLAGS
flags.DEFINE_integer("rounds", 7, "How often every contender is timed.", lower_bound=1)
flags.DEFINE_float("seconds", 0.3, "How long one measurement should last.")

TOLERANCE = {"cpu": 1e-4, "gpu": 1e-2}  # relative, of loss and gradient norm; GPUs multiply in TF32 by default


class Entry(NamedTuple):
    """A contender, and the workers that run it: several where its work is split over processes."""

    name: str
    workers: list
    suite: str
    options: dict | list  # keyword arguments of its function in its peer's file; a list has one for each worker
    ways: dict = {}  # noqa: RUF012  what -> names of the ways to run it
    numbers: tuple = ()  # loss, gradient norm


def enter(suite, names, case, workers):
    """As `build_entries`, of the contenders of a suite by their names."""
    entries, absent = [], {}
    for name in names:
        process = peers.SUITES[suite][name].process
        if process in workers:
            entries.append(Entry(name, [workers[process]], suite, {"devices": cores()} if "sharded" in name else {}))
        elif "sharded" not in name:
            absent[name] = "not installed"
    entries, more = build_entries(entries, case)
    return entries, absent | more


def build_entries(entries, case):
    """Builds the contenders: (those to be timed, why each other is not).

    One that cannot run the case, fails, or differs from rnnjax in loss or gradient norm is left out.
    """
    checked, absent, references = [], {}, {}
    for entry in entries:
        options = entry.options if isinstance(entry.options, list) else [entry.options]
        for worker, arguments in zip(entry.workers, options, strict=True):
            send(worker, do="make", suite=entry.suite, name=entry.name, case=case, options=arguments)
        answers = [receive(worker, strict=False) for worker in entry.workers]
        reason = next((a["skip"] for a in answers if "skip" in a), None)
        if not reason:
            numbers = tuple(sum(a["numbers"][k] for a in answers) for k in range(2))
            reference = references.setdefault("norms" in entry.name, numbers)  # rnnjax comes first
            reason = disagreement(numbers, answers[0].get("reference") or reference)
        if not reason:
            checked.append(entry._replace(ways=answers[0]["ways"], numbers=numbers))
        elif entry.name in ("rnnjax", "rnnjax norms"):
            raise RuntimeError(f"{entry.name} {title(case)}: {reason}")
        else:
            absent[entry.name] = reason
            print(f"  {entry.name} is left out of {title(case)}: {reason}", flush=True)
    return checked, absent


def disagreement(numbers, expected):
    off = max(abs(a - b) / abs(b) for a, b in zip(numbers, expected, strict=True))
    if off <= TOLERANCE["gpu" if on_gpu() else "cpu"]:
        return None
    return f"disagrees: loss and gradient norm {numbers}, expected {expected}"


def time_entries(entries, what):
    """{contender: {"ways": {way: {"n", "seconds" a pass of each round}}, "way", "median", "min", "max"}}."""
    turns = {(entry.name, way): entry for entry in entries for way in entry.ways.get(what, ())}
    n = {turn: calibrate(entry, what, turn[1]) for turn, entry in turns.items()}
    seconds, order = {turn: [] for turn in turns}, list(turns)
    for round_ in range(FLAGS.rounds):
        random.Random(round_).shuffle(order)
        for turn in order:
            seconds[turn].append(clock(turns[turn], what, turn[1], n[turn]) / n[turn])
    times = {}
    for entry in entries:
        ways = {w: {"n": n[name, w], "seconds": s} for (name, w), s in seconds.items() if name == entry.name}
        if ways:
            times[entry.name] = {"ways": ways, "numbers": entry.numbers, **best_way(ways)}
    return times


def best_way(ways):
    way = min(ways, key=lambda w: statistics.median(ways[w]["seconds"]))
    seconds = ways[way]["seconds"]
    return {"way": way, "median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}


def join_deployments(times, name="rnnjax"):
    """`rnnjax` becomes the better of one device and the batch spread over all; both stay in the results."""
    sharded = times.get(f"{name} sharded")
    times[name]["deployment"] = "one device"
    times[f"{name} on one device"] = dict(times[name])
    if sharded and sharded["median"] < times[name]["median"]:
        times[name] = {**sharded, "deployment": "batch sharded"}


def calibrate(entry, what, way):
    """How many passes last about `--seconds`. The first run compiles."""
    clock(entry, what, way, 1)
    n = 1
    for _ in range(2):
        n = max(1, min(100_000, round(n * FLAGS.seconds / clock(entry, what, way, n))))
    return n


def clock(entry, what, way, n):
    """Wall time of n passes, until the last of the entry's workers is done."""
    start = time.perf_counter()
    for worker in entry.workers:
        send(worker, do="run", name=entry.name, what=what, way=way, n=n)
    for worker in entry.workers:
        receive(worker)
    return time.perf_counter() - start


def drop_entries(entries):
    for entry in entries:
        for worker in entry.workers:
            ask(worker, do="drop", name=entry.name)


def measure_peak(workers):
    """The best rate of a large matmul by any deployment, in GFLOP/s; the least flattering for our fraction of it."""
    rates = {name: ask(worker, do="peak")["gflops"] for name, worker in workers.items()}
    print("matmul peak, GFLOP/s: " + ", ".join(f"{k} {v:.0f}" for k, v in rates.items()), flush=True)
    return rates
