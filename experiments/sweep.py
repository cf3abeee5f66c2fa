"""Runs a grid of trials as few compiled programs, on all devices; the same command again does only what is missing.

    python experiments/sweep.py --config=configs/adding.py --grid=lr=1e-4,1e-3,1e-2 --grid=seed=0:8 \
        --grid=cell=rnn,lstm,gru --workdir=runs/s1
    python experiments/sweep.py --config=configs/adding.py --sample=lr=log:1e-5:1e-1 --trials=64 --workdir=runs/s2

Each trial gets `WORKDIR/trials/ID`, a run directory like that of experiments/train.py, where ID is a hash of its
resolved config. Exit codes: 0 done, 1 error, 2 bad flags, 75 stopped by a signal and resumable.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments import outputs
from experiments.flags import BadSetting, checked, define_config, load_config, main_with_errors, parse_setting
from experiments.train import prepare_devices
from rnnjax import runs, sweep
from rnnjax.config import Config

GRID = flags.DEFINE_multi_string("grid", [], "NAME=VALUE,VALUE,... or, for integers, NAME=START:STOP")
WORKDIR = flags.DEFINE_string("workdir", None, "the sweep's directory; trials that it holds are not run again")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "print the buckets, lanes and devices, and run nothing")


def main(_) -> int:
    config = load_config()
    axes = dict(parse_axis(text) for text in GRID.value)
    trials = [checked(trial) for trial in sweep.grid(config, axes)]
    if not WORKDIR.value and not DRY_RUN.value:
        raise BadSetting("--workdir is missing; allowed: a directory for the sweep, such as --workdir=runs/s1")
    prepare_devices(config)
    if DRY_RUN.value:
        describe(trials)
        return runs.EXIT_DONE
    with runs.stop_signals() as stop:
        finished = run_sweep(trials, Path(WORKDIR.value), stop)
    return runs.EXIT_DONE if finished else runs.EXIT_STOPPED


def run_sweep(trials: Sequence[Config], workdir: Path, stop, save_seconds: float = 30.0) -> bool:
    """Runs what is missing, bucket by bucket. False if it was stopped on the way."""
    workdir = runs.check_directory(workdir)
    clock = _Progress(trials, workdir)
    for bucket in sweep.buckets(trials):
        missing = [trial for trial in bucket.trials if not is_done(workdir, trial)]
        if missing and not run_bucket(missing, workdir, stop, clock, save_seconds):
            return False
    return True


def trial_directory(workdir: Path, trial: Config) -> Path:
    """Where a trial's run directory is."""
    return Path(workdir) / "trials" / sweep.trial_id(trial)


def is_done(workdir: Path, trial: Config) -> bool:
    """Whether a trial's result is there: it is the last file that a trial writes before its figures."""
    return (trial_directory(workdir, trial) / "result.json").exists()


def run_bucket(trials: list[Config], workdir: Path, stop, clock, save_seconds: float) -> bool:
    """Runs the trials of one compiled program as lanes, and publishes each. False if it was stopped on the way.

    The state of all lanes is checkpointed together; the directory that holds it goes when the bucket is done.
    """
    config, ids = trials[0], [sweep.trial_id(trial) for trial in trials]
    width, devices = sweep.default_width(), jax.devices()
    lanes = sweep.make_lanes(config, devices, width)
    count = sweep.lane_count(len(trials), len(devices), width)
    keys, values = sweep.lane_inputs(trials, count)
    states = lanes.init(keys, values)
    name = sweep.bucket_id(trials)
    identity = {"trials": ids, "width": width}
    with runs.open_run(workdir / "buckets" / name, identity, outputs.device_info()) as run:
        flow_path = run.path / "flow.npz"
        done, records, began, saved = 0, [], time.monotonic(), time.monotonic()
        real = lambda tree: jax.tree.map(lambda leaf: leaf[: len(trials)], tree)  # noqa: E731
        found = runs.latest_checkpoint(run, (real(states), jnp.float32(0)))
        earlier = 0.0
        if found is not None:
            done, (kept, earlier) = found
            states = jax.tree.map(lambda leaf, full: jnp.concatenate([leaf, full[len(trials) :]]), kept, states)
            records = load_records(flow_path, done)
        while done < config.steps and not stop.requested:
            states, record = lanes.chunk(states, values)
            record = jax.device_get(real(record))
            records.append(record)
            done = int(record["step"][0])
            clock.report(len(trials) * config.eval_every, record, lanes.train.task.score)
            if time.monotonic() - saved > save_seconds and done < config.steps:
                save_records(flow_path, records)
                runs.save_checkpoint(run, done, (real(states), jnp.float32(earlier + time.monotonic() - began)))
                saved = time.monotonic()
        seconds = float(earlier) + time.monotonic() - began
        if done < config.steps:
            save_records(flow_path, records)
            runs.save_checkpoint(run, done, (real(states), jnp.float32(seconds)))
            return False
        for k, trial in enumerate(trials):
            lane = sweep.take_lane(states.params, k)
            publish(workdir, trial, lanes.train, lane, [sweep.take_lane(r, k) for r in records], seconds / len(trials))
    runs.discard_run(run)
    return True


def publish(workdir: Path, trial: Config, train, params, records: list[dict], seconds: float) -> None:
    """Writes one trial's run directory."""
    with runs.open_run(trial_directory(workdir, trial), outputs.config_dict(trial), outputs.device_info()) as run:
        runs.latest_checkpoint(run, None)  # a trial half published before starts its log anew
        runs.append_rows(run, [outputs.metrics_row(record) for record in records])
        flow = outputs.stack_rows([outputs.flow_row(r) for r in records]) if trial.gradient_flow else {}
        if flow:
            runs.save_arrays(run.path / "gradient_flow.npz", flow)
        outputs.finish(run, trial, train, params, flow, seconds)


def save_records(path: Path, records: list[dict]) -> None:
    """All lanes' records so far, `[E, K, ...]` by name."""
    leaves = {jax.tree_util.keystr(p, simple=True, separator="/"): leaf for p, leaf in _paths(_stack(records))}
    runs.save_arrays(path, leaves)


def parse_axis(text: str) -> tuple[str, list]:
    """`lr=1e-3,1e-2` -> ("lr", [0.001, 0.01]); `seed=0:8` -> ("seed", [0, ..., 7]). Raises BadSetting."""
    name, separator, values = text.partition("=")
    if not separator or not values:
        raise BadSetting(f"--grid={text}: allowed: NAME=VALUE,VALUE,... or NAME=START:STOP")
    start, colon, stop = values.partition(":")
    if colon and start.lstrip("-").isdigit() and stop.lstrip("-").isdigit() and int(start) < int(stop):
        return name, [parse_setting(name, str(value)) for value in range(int(start), int(stop))]
    return name, [parse_setting(name, value) for value in values.split(",")]
