"""How long a training step takes here, read off the clock once and kept beside the trials that it was read for."""

import dataclasses
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from rnnjax import runs
from rnnjax.runs.files import RunRefused, read_json
from rnnjax.sweeps.grid import bucket_id
from rnnjax.training.config import Config
from rnnjax.training.tracing import run_inputs, traced_run

READINGS = 5
LEAST_SECONDS = 0.1  # of a reading
STEPS = 10  # a call of the compiled program


class Timing(NamedTuple):
    """Seconds a training step: the median of `READINGS` readings, and the lowest and highest."""

    seconds: float
    low: float
    high: float


class Timings:
    """The timings of a directory, in its file `step_times.json`; each program is timed once, whoever asks again.

    What is new is in memory alone until `save`: so that what turns out to be refused later has written nothing.
    """

    def __init__(self, workdir: str | Path):
        self.path = Path(workdir, "step_times.json")
        stored = read_json(self.path) if self.path.exists() else {}
        try:
            self.found = {name: Timing(**values) for name, values in stored.items()}
        except TypeError:
            raise RunRefused(f"{self.path} is damaged, or not written by this program") from None

    def __call__(self, config: Config) -> Timing:
        """The timing of the config's program, from the file or, where it is not there, from the clock."""
        name = bucket_id(config)
        if name not in self.found:
            self.found[name] = time_a_step(config)
        return self.found[name]

    def save(self) -> None:
        """Writes all that is known; the directory is there."""
        runs.write_json(self.path, {name: timing._asdict() for name, timing in self.found.items()})


def time_a_step(config: Config) -> Timing:
    """The time of a compiled training step on one device, with a tenth of the evaluation of one sequence."""
    config = dataclasses.replace(config, steps=STEPS, eval_every=STEPS, eval_batch=1)
    with jax.enable_x64(config.dtype == "float64"):
        _, init, chunk = traced_run(config)
        key, values = run_inputs(config)
        state = init(key, values)
        jax.block_until_ready(chunk(state, values))  # compiles
        calls = read_clock(lambda: jax.block_until_ready(chunk(state, values)), LEAST_SECONDS)
    readings = [seconds / STEPS for seconds in calls]
    return Timing(statistics.median(readings), min(readings), max(readings))


def read_clock(call: Callable[[], Any], least_seconds: float) -> list[float]:
    """Seconds a call, `READINGS` times, each the mean over as many calls as last `least_seconds`, one at least."""
    return [_reading(call, least_seconds) for _ in range(READINGS)]


def _reading(call, least_seconds):
    calls, began = 0, time.perf_counter()
    while (seconds := time.perf_counter() - began) < least_seconds or not calls:
        call()
        calls += 1
    return seconds / calls
