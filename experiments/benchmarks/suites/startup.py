"""From the start of a process to the end of its first training step."""

import os
import statistics
import subprocess
import tempfile
import time

from absl import flags

from benchmarks import peers
from benchmarks.case import Case, parse_named, title
from benchmarks.workers import environment, set_up, start

FLAGS = flags.FLAGS
flags.DEFINE_string("startup_shape", "lstm:32x200x2x64", "Cell and shape of the suite startup.")
flags.DEFINE_string("startup_command", "", "A command that trains one step and exits, to be timed in startup as well.")


def startup() -> tuple[dict, list[str]]:
    """Process start to the end of the first training step."""
    case = parse_named(FLAGS.startup_shape, "startup_shape")
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


def first_step(name, case) -> None:
    """In a process of its own: takes one step."""
    case = Case(*case)
    set_up(peers.LAYERS[name].process)
    peers.build("layers", name, case).step["call"](1)
    os._exit(0)  # the step is done: taking the process down is not part of it
