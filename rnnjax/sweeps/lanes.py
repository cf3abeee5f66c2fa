"""The trials of a sweep as lanes of one program a bucket: started, advanced, saved, resumed, published."""

import contextlib
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from rnnjax import runs
from rnnjax.runs.identity import Settings
from rnnjax.sweeps import grid as sweep
from rnnjax.sweeps.files import TABLES, Store, complete, is_done, open_store, publish, trial_directory
from rnnjax.sweeps.progress import Progress
from rnnjax.sweeps.tracing import traced_lanes
from rnnjax.training.config import Config, Hyperparameters
from rnnjax.training.devices import device_info
from rnnjax.training.dotted import default_settings, static_settings
from rnnjax.training.train import TrainState
from rnnjax.types import Array, Task

__all__ = ["Options", "is_done", "run_sweep", "trial_directory"]

_LOG = logging.getLogger(__name__)


class Options(NamedTuple):
    """How a sweep runs; nothing above the last three changes a trial's numbers, but `width` above 1 their last bits."""

    save_seconds: float = 30.0  # between checkpoints, at most one lost
    lanes: int | None = None  # runs at a time; by default `width` a device
    width: int | None = None  # see `sweep.make_lanes`; by default from the platform
    devices: Sequence[jax.Device] | None = None  # by default all of this process's
    share: tuple[int, int] = (0, 1)  # (0, 2) runs the first half of each bucket's trials
    stop_solved: bool = False  # a trial ends at the first evaluation that meets the task's threshold
    stop_hopeless: float | None = None  # ... or that has diverged, or beaten the baseline at none in this fraction
    accept_changes: bool = False  # go on though an own cell, task or data changed since trials were begun or finished

    @property
    def early(self) -> bool:
        """Whether trials may end before their steps."""
        return self.stop_solved or self.stop_hopeless is not None


class Lane(NamedTuple):
    """A trial under way. Its state is kept here only while it waits for a place."""

    trial: Config
    records: list[dict]  # one a chunk
    seconds: float  # its share of the time so far
    state: Any = None


def run_sweep(
    trials: Sequence[Config],
    workdir: str | os.PathLike,
    stop: runs.StopRequest,
    options: Options = Options(),  # noqa: B008
) -> bool:
    """Runs the checked `trials` that are missing in `workdir`, bucket by bucket. False if `stop.requested` ended it.

    Raises RunRefused as `open_store` does, before anything is written; RunFailed, at the end, where what follows
    training failed for some trials.
    """
    trials = sweep.unique(trials)
    store, missing = open_store(workdir, trials, options.early, options.accept_changes)
    buckets = [sweep.share_of(bucket, *options.share) for bucket in sweep.buckets(trials)]
    plans = [plan_bucket(bucket, store, options) for bucket in buckets]  # what cannot run is found before it all begins
    runs.own_directory(workdir, "sweep", *TABLES)
    shares = {trial for bucket in buckets for trial in bucket.trials}
    with Progress(buckets, [trial for trial in missing if trial in shares]) as progress:
        for bucket in buckets:
            plan = plans.pop(0)  # and its programs with it, once the bucket is done
            if plan and not run_bucket(bucket, store, stop, progress, plan):
                return False
    if store.failures:
        raise runs.RunFailed(f"{len(store.failures)} trials are not complete, such as {store.failures[0]}")
    return True


class Plan(NamedTuple):
    """How a bucket will run."""

    path: Path  # of what is under way
    options: Options  # with its devices and width
    lanes: sweep.Lanes


def plan_bucket(bucket: sweep.Bucket, store: Store, options: Options) -> Plan | None:
    """None where nothing is left to do. Raises BadSetting where the bucket's program cannot be traced."""
    number, count = options.share
    share = f"-{number}of{count}" if count > 1 else ""
    path = store.workdir / "buckets" / f"{sweep.bucket_id(bucket.config)}{share}"
    missing = sum(not store.is_done(trial) for trial in bucket.trials)
    if not missing and not path.exists():
        return None
    devices = options.devices or jax.local_devices()
    width = options.width or stored_width(path) or default_width(len(bucket.trials), devices, options)
    options = options._replace(devices=devices, width=width)
    lanes = traced_lanes(bucket.config, devices, width, lane_count(max(missing, 1), options))
    return Plan(path, options, lanes)


def run_bucket(bucket: sweep.Bucket, store: Store, stop: runs.StopRequest, progress: Progress, plan: Plan) -> bool:
    """Runs the trials of one compiled program as lanes, and publishes each as it ends. False if it was stopped.

    A lane whose trial has ended takes the next. The lanes under way are checkpointed together, and found again by
    their trials' ids: so they go on with another number of devices, of lanes or of trials. The directory that holds
    them goes when the bucket is done.
    """
    path, options, lanes = plan
    devices, width = options.devices, options.width
    identity = Settings(static_settings(bucket.config) | {"width": width}, default_settings(bucket.config))
    sources = {name: source._replace(texts={}) for name, source in store.sources_of(bucket.config).items()}
    with jax.enable_x64(bucket.config.dtype == "float64"):
        info = device_info()
        info["numbers"] |= {"one_device": len(devices) == 1} if width > 1 else {}  # see `sweep.make_lanes`
        with runs.open_run(path, identity, info, sources, options.accept_changes) as run:
            missing = [trial for trial in bucket.trials if not store.is_done(trial)]
            missing = {sweep.trial_id(trial): trial for trial in missing if not complete(store, trial, lanes.train)}
            finished = not missing or run_lanes(run, lanes, missing, bucket, store, stop, progress, options)
            if finished:
                runs.discard_run(run)
    if finished and options.share[0] == 0:
        discard_other_shares(path, options.share[1])
    return finished


def discard_other_shares(path: Path, count: int) -> None:
    """Removes what a sweep of another number of processes had under way in this bucket."""
    for other in path.parent.glob(f"{path.name[:16]}*"):
        if other != path and not other.name.endswith(f"of{count}"):
            with contextlib.suppress(runs.RunBusy):
                runs.remove_run(other)


def run_lanes(
    run: runs.Run,
    lanes: sweep.Lanes,
    missing: dict[str, Config],
    bucket: sweep.Bucket,
    store: Store,
    stop: runs.StopRequest,
    progress: Progress,
    options: Options,
) -> bool:
    """Advances lanes by a chunk at a time until all of `missing` is published."""
    K = lane_count(len(missing), options)
    slots: list[Lane | None] = [None] * K
    inputs = lanes.place(sweep.lane_inputs([bucket.config] * K))
    states = lanes.init(*inputs)
    chunks, queue = restore(run, lanes, states, inputs[1], missing)
    saved = time.monotonic()
    while True:
        if queue and None in slots:
            states, inputs = refill(lanes, states, slots, queue, bucket.config)
        live = [k for k, slot in enumerate(slots) if slot]
        if not live:
            return True
        began = time.monotonic()
        states, record = lanes.chunk(states, inputs[1], lanes.data)
        record = jax.device_get(record)
        chunks, share = chunks + 1, (time.monotonic() - began) / len(live)
        for k in live:
            records = [*slots[k].records, sweep.take_lane(record, k)]
            slots[k] = Lane(slots[k].trial, records, slots[k].seconds + share)
        progress.report(bucket, [slots[k] for k in live], lanes.train.task.score)
        ended = {k: reason for k in live if (reason := why_ended(slots[k], lanes.train.task, options))}
        params = jax.device_get(states.params) if ended else None
        for k, reason in ended.items():
            stopped, history = None if reason == "steps" else reason, run.record.get("history", ())
            trial, records, seconds, _ = slots[k]
            publish(store, trial, lanes.train, sweep.take_lane(params, k), records, seconds, stopped, history)
            progress.published(slots[k])
            slots[k] = None
        under_way = [k for k, slot in enumerate(slots) if slot]
        stopping = stop.requested
        if stopping or time.monotonic() - saved > options.save_seconds:
            host = sweep.to_host(states) if under_way else None
            kept = [slots[k]._replace(state=sweep.take_lane(host, k)) for k in under_way]
            kept += [lane for lane in queue if lane.records]
            if kept:
                save(run, chunks, kept)
            saved = time.monotonic()
        if stopping and (under_way or queue):
            return False


def refill(
    lanes: sweep.Lanes, states: TrainState, slots: list[Lane | None], queue: list[Lane], config: Config
) -> tuple[TrainState, tuple[Array, Hyperparameters]]:
    """Puts waiting lanes into empty slots. Returns the states, and the inputs `[K]` of all lanes."""
    filled = [k for k, slot in enumerate(slots) if slot is None][: len(queue)]
    for k in filled:
        slots[k] = queue.pop(0)
    inputs = lanes.place(sweep.lane_inputs([slot.trial if slot else config for slot in slots]))
    host, new = jax.tree.map(np.array, sweep.to_host(states)), sweep.to_host(lanes.init(*inputs))
    for k in filled:
        lane = sweep.take_lane(new, k) if slots[k].state is None else slots[k].state
        jax.tree.map(lambda leaf, value, k=k: leaf.__setitem__(k, value), host, lane)
        slots[k] = slots[k]._replace(state=None)
    return lanes.place(sweep.from_host(host)), inputs


def save(run: runs.Run, chunks: int, lanes: list[Lane]) -> None:
    """Checkpoints lanes: real ones only, so that it does not matter how many there are at the next start."""
    longest = max(len(lane.records) for lane in lanes)
    histories = [lane.records + [lane.records[-1]] * (longest - len(lane.records)) for lane in lanes]
    tree = {
        "ids": np.asarray([list(sweep.trial_id(lane.trial).encode()) for lane in lanes], np.uint8),
        "seconds": np.asarray([lane.seconds for lane in lanes], np.float32),
        "chunks": np.asarray([len(lane.records) for lane in lanes], np.int32),
        "records": stack([stack(history) for history in histories]),
        "states": stack([lane.state for lane in lanes]),
    }
    runs.save_checkpoint(run, chunks, tree)


def restore(
    run: runs.Run, lanes: sweep.Lanes, states: TrainState, values: Hyperparameters, missing: dict[str, Config]
) -> tuple[int, list[Lane]]:
    """How many chunks the bucket has done, and its queue: the lanes that were under way, then the rest of `missing`."""

    def like(saved):
        n, longest = saved["records/step"]
        resize = lambda size: lambda leaf: np.empty((*size, *leaf.shape[1:]), leaf.dtype)  # noqa: E731
        return {
            "ids": np.empty((n, 16), np.uint8),
            "seconds": np.empty(n, np.float32),
            "chunks": np.empty(n, np.int32),
            "records": jax.tree.map(resize((n, longest)), jax.eval_shape(lanes.chunk, states, values, lanes.data)[1]),
            "states": jax.tree.map(resize((n,)), sweep.to_host(states)),
        }

    chunks, saved = runs.latest_checkpoint(run, like) or (0, {"ids": []})
    waiting, rest = [], dict(missing)
    for n, letters in enumerate(saved["ids"]):
        trial = rest.pop(bytes(letters).decode(), None)
        if trial is not None:
            history = sweep.take_lane(saved["records"], n)
            records = [sweep.take_lane(history, e) for e in range(saved["chunks"][n])]
            waiting.append(Lane(trial, records, float(saved["seconds"][n]), sweep.take_lane(saved["states"], n)))
    return chunks, waiting + [Lane(trial, [], 0.0) for trial in rest.values()]


def default_width(trials: int, devices: Sequence[jax.Device], options: Options) -> int:
    """The lane width for so many trials, of which no more than `options.lanes` run at a time."""
    return sweep.default_width(min(trials, options.lanes or trials), devices)


def lane_count(trials: int, options: Options) -> int:
    """How many lanes run at a time."""
    devices = len(options.devices)
    return sweep.lane_count(min(options.lanes or devices * options.width, trials), devices, options.width)


def stored_width(path: Path) -> int | None:
    """The lane width of the bucket that was begun in this directory; one whose record is damaged begins anew."""
    if not (path / "config.json").exists():
        return None
    try:
        return runs.read_config(path)["config"].get("width")
    except runs.RunRefused as error:
        _LOG.warning("%s; the trials that were under way begin anew", error)
        runs.remove_run(path)
        return None


def stack(trees: Sequence[Any]) -> Any:
    """Trees of equal structure as one, with a new leading axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def why_ended(lane: Lane, task: Task, options: Options) -> str | None:
    """Why a trial needs no more chunks, if so: `steps`, or by the options `solved`, `diverged` or `hopeless`."""
    record, better = lane.records[-1], 1 if task.higher_is_better else -1
    scores = [better * float(record[f"eval_{task.score}"]) for record in lane.records]
    if record["step"] >= lane.trial.steps:
        return "steps"
    if options.stop_solved and scores[-1] >= better * task.solved:
        return "solved"
    if options.stop_hopeless is None:
        return None
    if record["diverged"] >= 0:
        return "diverged"
    late = record["step"] >= options.stop_hopeless * lane.trial.steps
    return "hopeless" if late and not max(scores) > better * task.baseline else None
