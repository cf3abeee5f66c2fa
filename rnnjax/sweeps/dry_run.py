"""What a sweep would do, how long it would take and how much memory, without training anything."""

import dataclasses
import math
import time
from collections.abc import Sequence
from typing import Any

import jax

from rnnjax.sweeps import grid as sweep
from rnnjax.sweeps.files import open_store
from rnnjax.sweeps.lanes import Options, default_width, lane_count
from rnnjax.sweeps.progress import bucket_labels, duration
from rnnjax.training.config import Config
from rnnjax.training.tracing import errors_in_one_line


def describe(trials: Sequence[Config], workdir: str | None, options: Options) -> None:
    """Prints buckets, lanes and devices, with the memory that each bucket's program needs and the time it will take.

    The time is that of two steps of all lanes, once compiled.
    """
    to_run = set(open_store(workdir, trials, options.early, options.accept_changes)[1] if workdir else trials)
    devices, total = options.devices or jax.local_devices(), 0.0
    buckets = sweep.buckets(trials)
    labels = bucket_labels(buckets)
    print(f"{len(trials)} trials in {len(buckets)} buckets on {len(devices)} devices ({devices[0].device_kind})")
    for bucket in buckets:
        missing = [trial for trial in bucket.trials if trial in to_run]
        line = f"{labels[sweep.bucket_id(bucket.config)]}: {len(missing)} of {len(bucket.trials)} trials to run"
        if missing:
            width = options.width or default_width(len(missing), devices, options)
            K = lane_count(len(missing), options._replace(devices=devices, width=width))
            with jax.enable_x64(bucket.config.dtype == "float64"), errors_in_one_line(bucket.config):
                compile_seconds, step_seconds, bytes_ = try_program(bucket, devices, width, K)
            seconds = compile_seconds + math.ceil(len(missing) / K) * bucket.config.steps * step_seconds
            total += seconds
            line += f", {K} lanes of width {width}, about {duration(seconds)} and {bytes_ / 2**20:.0f} MiB"
        print(line)
    print(f"in all about {duration(total)}")


def try_program(bucket: sweep.Bucket, devices: Sequence[jax.Device], width: int, K: int) -> tuple[float, float, int]:
    """Seconds to compile, seconds a step of K lanes with its share of the evaluations, and bytes of the program."""
    config = dataclasses.replace(bucket.config, eval_every=2)
    lanes = sweep.make_lanes(config, devices, width)
    began = time.monotonic()
    inputs = lanes.place(sweep.lane_inputs([bucket.config] * K))
    states = lanes.init(*inputs)
    chunk: Any = lanes.chunk  # jitted
    program = chunk.lower(states, inputs[1], lanes.data).compile()
    jax.block_until_ready(program(states, inputs[1], lanes.data))
    compiled = time.monotonic()
    jax.block_until_ready(program(states, inputs[1], lanes.data))
    run_seconds = time.monotonic() - compiled
    forward = config.eval_batch / (3 * config.batch_size)  # an evaluation in training steps: it goes forward alone
    step = run_seconds / (2 + forward) * (1 + forward / bucket.config.eval_every)
    memory = program.memory_analysis()
    per_device = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    return compiled - began, step, per_device * len(devices)
