"""The one host loop of a training run: in memory, or in a run directory that survives kills."""

import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rnnjax import runs
from rnnjax.runs.identity import Sources
from rnnjax.training import outputs
from rnnjax.training.config import Config
from rnnjax.training.devices import device_info
from rnnjax.training.progress import Bar
from rnnjax.training.settings import BadSetting, checked
from rnnjax.training.shards import sharded
from rnnjax.training.tracing import Traced, run_inputs, traced_run
from rnnjax.training.train import TrainState, check_precision
from rnnjax.training.trained_run import TrainedRun, read_trained


class Begun(NamedTuple):
    """A run as far as it is."""

    state: TrainState
    rows: list[dict[str, Any]]
    flow: list[dict[str, Any]]
    seconds: float


def fit(
    config: Config,
    workdir: str | os.PathLike | None = None,
    *,
    progress: bool = True,
    stop: runs.StopRequest | None = None,
    accept_changes: bool = False,
    shards: int = 0,
    save_seconds: float = 10.0,
) -> TrainedRun:
    """Trains what `config` says, and returns the run: its model, metrics and gradient flow.

    Args:
      config: the settings.
      workdir: a run directory, new, empty or of this very run, which then goes on from its newest checkpoint, or is
        read where it is finished. Without one all stays in memory: see `TrainedRun.save`.
      progress: shows a bar on a terminal or in a notebook, and elsewhere a line an evaluation on stderr.
      stop: once its `requested` is true, the run ends at its next evaluation, unfinished: its `result` is None.
      accept_changes: go on in `workdir` though an own cell or task, the data or the devices are not as they were.
      shards: devices that split each batch; 0 takes those that the run began with, or decides from the sizes.
      save_seconds: between two checkpoints, at most one of which is lost.

    No setting of JAX is changed. Raises BadSetting, a ValueError, for settings that cannot be; ValueError where JAX's
    float64 mode is not that of `config.dtype`; and as `runs.open_run` does, where nothing is written.
    """
    config = checked(config)
    check_precision(config)
    how: dict[str, Any] = {"progress": progress, "stop": stop, "save_seconds": save_seconds}
    if workdir is None:
        count = find_shards(config, None, shards)
        return train_on(config, traced_run(config, count), count, **how)
    sources = outputs.sources(config)
    if runs.finished_run(workdir, outputs.config_dict(config), sources, accept_changes) is not None:
        return read_trained(workdir, config)
    return train_in(workdir, config, sources, accept_changes=accept_changes, shards=shards, **how)


def train_in(
    workdir: str | os.PathLike,
    config: Config,
    sources: Sources,
    *,
    accept_changes: bool = False,
    shards: int = 0,
    **how: Any,
) -> TrainedRun:
    """`fit` in a directory that does not hold the finished run, as `runs.finished_run` was asked with these `sources`.

    Args:
      config: checked settings.
      how: `progress`, `stop` and `save_seconds`; these and the others are as in `fit`.
    """
    info = run_info(config, workdir, shards)
    count = info["numbers"]["shards"]
    traced = traced_run(config, count)
    with runs.open_run(workdir, outputs.config_dict(config), info, sources, accept_changes) as run:
        return train_on(config, traced, count, restored(run, config, traced), run, **how)


def train_on(
    config: Config,
    traced: Traced,
    shards: int,
    begun: Begun | None = None,
    run: runs.Run | None = None,
    *,
    progress: bool = True,
    stop: runs.StopRequest | None = None,
    save_seconds: float = 10.0,
) -> TrainedRun:
    """Trains from `begun`, or from the start, to the end of `config.steps` or until `stop` asks; records in `run`."""
    key, values = run_inputs(config)
    state, rows, flow, earlier = begun or Begun(traced.init(key, values), [], [], 0.0)
    done, task = int(state.step), traced.train.task
    if done and done % min(config.eval_every, config.steps):  # a shorter run that goes on from its end
        traced = traced_run(config, shards, done)
    started = saved = time.monotonic()
    sources = outputs.sources(config)  # as they are now, whatever becomes of the files meanwhile

    def seconds():
        return earlier + time.monotonic() - started

    def save():
        if flow:
            runs.save_arrays(run.path / "gradient_flow.npz", outputs.stack_rows(flow))
        runs.save_checkpoint(run, done, (state, jnp.float32(seconds())))

    with Bar(config.steps, done, shown=progress) as bar:
        start, began = done, time.monotonic()
        while done < config.steps and not (stop is not None and stop.requested):
            state, record = traced.chunk(state, values)
            record = jax.device_get(record)
            done = int(record["step"])
            rows.append(outputs.metrics_row(record))
            if norms := outputs.flow_row(record, config.bidirectional):
                flow.append(norms)
            bar.update(done, progress_text(config, rows[-1], task.score, (done - start) / (time.monotonic() - began)))
            if run is None:
                continue
            runs.append_rows(run, rows[-1:])
            if time.monotonic() - saved > save_seconds and done < config.steps:
                save()
                saved = time.monotonic()
    if run is not None:
        save()
    arrays, result, path = outputs.stack_rows(flow), None, None if run is None else run.path
    if done == config.steps:
        result = outputs.finish(run, config, traced.train, state.params, rows, arrays, seconds())
    return TrainedRun(config, traced.train, state.params, rows, arrays, result, path, state, seconds(), shards, sources)


def restored(run: runs.Run, config: Config, traced: Traced) -> Begun | None:
    """What the newest good checkpoint of an open run holds, its files as they were then; None without one."""
    state = jax.eval_shape(traced.init, *run_inputs(config))
    found = runs.latest_checkpoint(run, (state, jnp.float32(0)))
    if found is None:
        return None
    _, (state, seconds) = found
    flow_path = run.path / "gradient_flow.npz"
    flow = outputs.unstack_rows(runs.load_arrays(flow_path)) if flow_path.exists() else []
    return Begun(state, runs.read_rows(run.path), flow, float(seconds))


def run_info(config: Config, workdir: str | os.PathLike, shards: int) -> dict[str, Any]:
    """What a run in this directory is computed on, as `runs.open_run` records and compares it."""
    info = device_info()
    info["numbers"]["shards"] = find_shards(config, workdir, shards)
    return info


def find_shards(config: Config, workdir: str | os.PathLike | None, shards: int) -> int:
    """The devices that split each batch: as `shards` says, or as the run began, or as its sizes make quick."""
    allowed = f"a divisor of config.batch_size={config.batch_size} up to {jax.device_count()}, the number of devices"
    if not shards and workdir is not None and Path(workdir, "config.json").is_file():
        shards = runs.read_config(workdir).get("numbers", {}).get("shards", 0)
        if shards > (count := jax.device_count()):
            raise BadSetting(
                f"{workdir} began with each batch split over {shards} devices, and JAX has {count} here; allowed: as "
                f'many (from Python: jax.config.update("jax_num_cpu_devices", {shards}) before JAX is first used), or '
                f"other last bits, by --shards={count} --accept_changes (Python: shards={count}, accept_changes=True)"
            )
    if shards > 1 and config.stateful:
        raise BadSetting(f"shards={shards}: stateful=True keeps the state of all sequences in one place; allowed: 1")
    if shards and (shards > jax.device_count() or config.batch_size % shards):
        raise BadSetting(f"shards={shards}: allowed: {allowed}")
    return shards or sharded(config, jax.devices())


def progress_text(config: Config, row: dict[str, Any], score: str, rate: float) -> str:
    """How a run stands after an evaluation, in one line."""
    text = f"step {row['step']}/{config.steps}  {rate:.0f} steps/s  training loss {row['loss']:.4g}"
    text += f"  validation {score} {row[f'eval_{score}']:.4g}"
    if row["diverged"] >= 0:
        text += f"  diverged at step {row['diverged']}: {row['blame']} not finite"
    return f"{text}  {(config.steps - row['step']) / rate:.0f} s left"
