"""Trains one recurrent network on one task, and shows what it learned and where its gradient went.

    python experiments/train.py --config=configs/adding.py --config.cell=gru --config.seq_len=200 --workdir=runs/x

The same command again resumes. Exit codes: 0 done, 1 error, 2 bad flags, 75 stopped by a signal and resumable.
"""

import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from absl import flags
from command_line import BadSetting, define_config, define_path, load_config, main_with_errors
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from rnnjax import runs
from rnnjax.sweeps.tracing import Traced, traced_run
from rnnjax.training import outputs, sharded
from rnnjax.training.config import Config, hyperparameters
from rnnjax.training.devices import device_info, prepare_devices

define_config()
WORKDIR = define_path("workdir", None, "the run directory; the same config in it resumes")
SHARDS = flags.DEFINE_integer("shards", 0, "devices that split each batch; 0 decides from the sizes", lower_bound=0)
ACCEPT = flags.DEFINE_bool("accept_changes", False, "go on though what the run began with has changed, on purpose")
SAVE_SECONDS = flags.DEFINE_float("save_seconds", 10.0, "seconds between checkpoints, at most one lost", lower_bound=0)


def main(_) -> int:
    if not WORKDIR.value:
        raise BadSetting("--workdir is missing; allowed: a directory for the run, such as --workdir=runs/x")
    config = load_config()
    prepare_devices(config)
    settings, sources = outputs.config_dict(config), outputs.sources(config)
    finished = runs.finished_run(WORKDIR.value, settings, sources, ACCEPT.value)
    if finished is not None:
        print(f"{WORKDIR.value} was finished before: nothing is trained or written")
        show(finished, Path(WORKDIR.value))
        return runs.EXIT_DONE
    info = device_info()
    info["numbers"]["shards"] = find_shards(config, WORKDIR.value)
    traced = traced_run(config, info["numbers"]["shards"])
    with (
        runs.stop_signals() as stop,
        runs.open_run(WORKDIR.value, settings, info, sources, ACCEPT.value) as run,
    ):
        result = train_run(config, run, traced, stop)
    if result is None:
        print(f"stopped; the same command resumes {WORKDIR.value}", file=sys.stderr)
        return runs.EXIT_STOPPED
    show(result, run.path)
    return runs.EXIT_DONE


def find_shards(config: Config, workdir: str) -> int:
    """The devices that split each batch: as --shards says, or as the run began, or as its sizes make quick."""
    allowed = f"a divisor of config.batch_size={config.batch_size} up to {jax.device_count()}, the number of devices"
    shards = SHARDS.value
    if not shards and Path(workdir, "config.json").is_file():
        shards = runs.read_config(workdir).get("numbers", {}).get("shards", 0)
        if shards > jax.device_count():
            raise BadSetting(
                f"{workdir} began with {shards} shards; allowed: {allowed}, with --shards and --accept_changes"
            )
    if shards and (shards > jax.device_count() or config.batch_size % shards):
        raise BadSetting(f"--shards={shards}: allowed: {allowed}")
    return shards or sharded(config, jax.devices())


def train_run(config: Config, run: runs.Run, traced: Traced, stop) -> dict | None:
    """Trains from the newest checkpoint, or from the start, to the end. None if it was stopped on the way."""
    train, init, chunk = traced
    values = {name: jnp.float32(value) for name, value in hyperparameters(config).items()}
    state = init(jax.random.key(config.seed), values)
    flow_path = run.path / "gradient_flow.npz"
    flow_rows, done, earlier = [], 0, 0.0
    found = runs.latest_checkpoint(run, (state, jnp.float32(0)))
    if found is not None:
        done, (state, seconds) = found
        earlier = float(seconds)
        if flow_path.exists():  # as it was at the checkpoint
            flow_rows = outputs.unstack_rows(runs.load_arrays(flow_path))
    started = saved = time.monotonic()

    def save():
        if flow_rows:
            runs.save_arrays(flow_path, outputs.stack_rows(flow_rows))
        runs.save_checkpoint(run, done, (state, jnp.float32(earlier + time.monotonic() - started)))

    with _progress(config, done) as report:
        while done < config.steps and not stop.requested:
            state, record = chunk(state, values)
            record = jax.device_get(record)
            done = int(record["step"])
            row = outputs.metrics_row(record)
            runs.append_rows(run, [row])
            if flow := outputs.flow_row(record, config.bidirectional):
                flow_rows.append(flow)
            report(row, train.task.score)
            if time.monotonic() - saved > SAVE_SECONDS.value and done < config.steps:
                save()
                saved = time.monotonic()
    save()
    if done < config.steps:
        return None
    seconds = earlier + time.monotonic() - started
    return outputs.finish(run, config, train, state.params, outputs.stack_rows(flow_rows), seconds)


class _progress:
    """A bar with steps/s, loss, score and time left on a terminal; a plain line an evaluation elsewhere."""

    def __init__(self, config: Config, done: int):
        self.steps, self.start, self.began = config.steps, done, time.monotonic()
        columns = (
            TextColumn("{task.completed}/{task.total} steps"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=Console(stderr=True)) if sys.stderr.isatty() else None

    def __enter__(self):
        if self.bar:
            self.bar.start()
            self.task = self.bar.add_task("", total=self.steps, completed=self.start, text="compiling")
        return self.report

    def __exit__(self, *_):
        if self.bar:
            self.bar.stop()

    def report(self, row: dict, score: str) -> None:
        rate = (row["step"] - self.start) / (time.monotonic() - self.began)
        text = f"{rate:.0f} steps/s  training loss {row['loss']:.4g}  validation {score} {row[f'eval_{score}']:.4g}"
        if row["diverged"] >= 0:
            text += f"  diverged at step {row['diverged']}: {row['blame']} not finite"
        if self.bar:
            self.bar.update(self.task, completed=row["step"], text=text)
        else:
            left = (self.steps - row["step"]) / rate
            print(f"step {row['step']}/{self.steps}  {text}  {left:.0f} s left", file=sys.stderr, flush=True)


def show(result: dict, path: Path) -> None:
    """Prints a finished run in a few lines."""
    score = f"validation {result['score_name']} {result['score']:.4g}"
    solved = f"solved at step {result['solved_at']}" if result["solved_at"] is not None else "not solved"
    print(f"{result['cell']} on {result['task']}: {score} (baseline {result['baseline']:.4g}), {solved}")
    if result["diverged"] is not None:
        print(f"diverged at step {result['diverged']}: {result['blame']} not finite; frozen there")
    if result.get("gradient_fault"):
        print(f"the gradient has no reach: {result['gradient_fault']} in the steps before the last evaluation")
    if result["gradient_reach"] is not None:
        reach, steps = result["gradient_reach"], result["sequence_steps"]
        where = f"falls below 1/1000 of its last value {reach} steps back"
        if reach >= steps:
            where = f"stays above 1/1000 of its last value over all {steps} steps"
        print(f"on the last training batches the gradient {where}")
    for line in outputs.report_lines(result, path):
        print(line)
    figures = [str(path / name) for name in ("learning_curve.png", "gradient_map.png") if (path / name).exists()]
    print(f"figures: {', '.join(figures)}")


if __name__ == "__main__":
    main_with_errors(main)
