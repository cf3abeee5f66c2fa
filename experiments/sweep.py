"""Runs a grid of trials as few compiled programs, on all devices; the same command again does only what is missing.

    python experiments/sweep.py --config=configs/adding.py --grid=lr=1e-4,1e-3,1e-2 --grid=seed=0:8 \
        --grid=cell=rnn,lstm,gru --workdir=runs/s1
    python experiments/sweep.py --config=configs/adding.py --sample=lr=log:1e-5:1e-1 --trials=64 --workdir=runs/s2
    python experiments/sweep.py --workdir=runs/s1 --replay=813d1e97f67f6931 --debug_nans

Each trial gets `WORKDIR/trials/ID`, a run directory like that of experiments/train.py (without figures), where ID is a
hash of its resolved config. Exit codes: 0 done, 1 error, 2 bad flags, 75 stopped by a signal and resumable.
"""

import contextlib
import dataclasses
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import numpy as np
from absl import flags

from experiments import outputs, processes
from experiments.flags import FIELDS, BadSetting, checked, define_config, load_config, main_with_errors, parse_setting
from rnnjax import runs, sweep
from rnnjax.config import Config
from rnnjax.training import make_train


class Options(NamedTuple):
    """How a sweep runs; nothing above the last two changes a trial's numbers, but `width` above 1 their last bits."""

    save_seconds: float = 30.0  # between checkpoints, at most one lost
    lanes: int | None = None  # runs at a time; by default `width` a device
    width: int | None = None  # see `sweep.make_lanes`; by default from the platform
    devices: Sequence[jax.Device] | None = None  # by default all of this process's
    share: tuple[int, int] = (0, 1)  # (0, 2) runs the first half of each bucket's trials
    stop_solved: bool = False  # a trial ends at the first evaluation that meets the task's threshold
    stop_hopeless: float | None = None  # ... or that has diverged, or beaten the baseline at none in this fraction


class Lane(NamedTuple):
    """A trial under way. Its state is kept here only while it waits for a place."""

    trial: Config
    records: list[dict]  # one a chunk
    seconds: float  # its share of the time so far
    state: Any = None


def main(_) -> int:
    config = load_config()
    if REPLAY.value:
        outputs.prepare_devices(Config())
        return replay(WORKDIR.value, REPLAY.value, DEBUG_NANS.value)
    trials = parse_trials(config, GRID.value, SAMPLE.value, TRIALS.value)
    if not WORKDIR.value and not DRY_RUN.value:
        raise BadSetting("--workdir is missing; allowed: a directory for the sweep, such as --workdir=runs/s1")
    outputs.prepare_devices(dataclasses.replace(config, dtype="float32"))  # each bucket decides on float64 for itself
    options = Options(SAVE_SECONDS.value, LANES.value, WIDTH.value, None, (PROCESS.value, PROCESSES.value))
    options = options._replace(stop_solved=STOP_SOLVED.value, stop_hopeless=STOP_HOPELESS.value)
    if DRY_RUN.value:
        describe(trials, WORKDIR.value, options)
        return runs.EXIT_DONE
    job = join_job(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    with runs.stop_signals() as signals:
        finished = run_sweep(trials, WORKDIR.value, processes.Stop(signals, job), options)
        broken = job.broken if job else None
        finished = job.end(finished) if job else finished
    if not finished:
        reason = broken or (job and job.broken)
        reason = f"stopped, as {reason}; the same command on each process" if reason else "stopped; the same command"
        print(f"{reason} resumes {WORKDIR.value}", file=sys.stderr)
        return runs.EXIT_STOPPED
    print(f"{len(trials)} trials done in {WORKDIR.value}/trials")
    return runs.EXIT_DONE


def run_sweep(trials: Sequence[Config], workdir: str | Path, stop, options: Options = Options()) -> bool:  # noqa: B008
    """Runs the checked `trials` that are missing in `workdir`, bucket by bucket. False if `stop.requested` ended it."""
    workdir = runs.check_directory(workdir)
    buckets = [sweep.deal(bucket, *options.share) for bucket in sweep.buckets(list(dict.fromkeys(trials)))]
    with Progress(buckets, workdir, options) as progress:
        for bucket in buckets:
            if not run_bucket(bucket, workdir, stop, progress, options):
                return False
    return True


def join_job(coordinator: str | None, count: int, index: int) -> processes.Job | None:
    """The job that the flags name, if any. Raises BadSetting."""
    if (coordinator is None) != (count == 1) or not 0 <= index < count:
        raise BadSetting(
            f"--coordinator={coordinator} --num_processes={count} --process_id={index}: allowed: none of them, or "
            "HOST:PORT of process 0, 2 or more processes, and an id below their number"
        )
    return processes.join(coordinator, count, index) if coordinator else None


def trial_directory(workdir: str | Path, trial: Config) -> Path:
    """Where a trial's run directory is."""
    return Path(workdir) / "trials" / sweep.trial_id(trial)


def is_done(workdir: str | Path, trial: Config, options: Options = Options()) -> bool:  # noqa: B008
    """Whether a trial's result is there: it is the last file that a trial writes.

    A trial that was stopped early is done for a sweep that stops trials early too.
    """
    path = trial_directory(workdir, trial) / "result.json"
    if not path.exists():
        return False
    early = options.stop_solved or options.stop_hopeless is not None
    return early or json.loads(path.read_text())["stopped"] is None


def run_bucket(bucket: sweep.Bucket, workdir: Path, stop, progress: "Progress", options: Options) -> bool:
    """Runs the trials of one compiled program as lanes, and publishes each as it ends. False if it was stopped.

    A lane whose trial has ended takes the next. The lanes under way are checkpointed together, and found again by
    their trials' ids: so they go on with another number of devices, of lanes or of trials. The directory that holds
    them goes when the bucket is done.
    """
    number, count = options.share
    share = f"-{number}of{count}" if count > 1 else ""
    path = workdir / "buckets" / f"{sweep.bucket_id(bucket.config)}{share}"
    if all(is_done(workdir, trial, options) for trial in bucket.trials) and not path.exists():
        return True
    devices = options.devices or jax.local_devices()
    width = options.width or stored_width(path)
    width = width or sweep.default_width(min(len(bucket.trials), options.lanes or len(bucket.trials)), devices)
    options = options._replace(devices=devices, width=width)
    identity = sweep.static_settings(bucket.config) | {"width": width}
    with (
        jax.enable_x64(bucket.config.dtype == "float64"),
        runs.open_run(path, identity, outputs.device_info()) as run,
    ):
        missing = {sweep.trial_id(trial): trial for trial in bucket.trials if not is_done(workdir, trial, options)}
        lanes = sweep.make_lanes(bucket.config, devices, width)
        finished = not missing or run_lanes(run, lanes, missing, bucket, workdir, stop, progress, options)
        if finished:
            runs.discard_run(run)
    if finished and number == 0:
        discard_other_shares(path, count)
    return finished


def discard_other_shares(path: Path, count: int) -> None:
    """Removes what a sweep of another number of processes had under way in this bucket."""
    for other in path.parent.glob(f"{path.name[:16]}*"):
        if other != path and not other.name.endswith(f"of{count}"):
            with (
                contextlib.suppress(runs.RunBusy),
                runs.open_run(other, runs.read_config(other)["config"], {}) as run,
            ):
                runs.discard_run(run)


def run_lanes(run, lanes, missing, bucket, workdir, stop, progress, options) -> bool:
    """Advances lanes by a chunk at a time until all of `missing` is published."""
    devices = len(options.devices)
    K = sweep.lane_count(min(options.lanes or devices * options.width, len(missing)), devices, options.width)
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
        states, record = lanes.chunk(states, inputs[1])
        record = jax.device_get(record)
        chunks, share = chunks + 1, (time.monotonic() - began) / len(live)
        for k in live:
            records = [*slots[k].records, sweep.take_lane(record, k)]
            slots[k] = Lane(slots[k].trial, records, slots[k].seconds + share)
        progress.report(bucket, [slots[k] for k in live], lanes.train.task.score)
        ended = {k: reason for k in live if (reason := why_ended(slots[k], lanes.train.task, options))}
        params = jax.device_get(states.params) if ended else None
        for k, reason in ended.items():
            publish(workdir, lanes.train, slots[k], sweep.take_lane(params, k), reason, options)
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


def refill(lanes: sweep.Lanes, states, slots: list[Lane | None], queue: list[Lane], config: Config):
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


def restore(run: runs.Run, lanes: sweep.Lanes, states, values, missing: dict[str, Config]) -> tuple[int, list[Lane]]:
    """How many chunks the bucket has done, and its queue: the lanes that were under way, then the rest of `missing`."""

    def like(saved):
        n, longest = saved["records/step"]
        resize = lambda size: lambda leaf: np.empty((*size, *leaf.shape[1:]), leaf.dtype)  # noqa: E731
        return {
            "ids": np.empty((n, 16), np.uint8),
            "seconds": np.empty(n, np.float32),
            "chunks": np.empty(n, np.int32),
            "records": jax.tree.map(resize((n, longest)), jax.eval_shape(lanes.chunk, states, values)[1]),
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


def stored_width(path: Path) -> int | None:
    """The lane width of the bucket that was begun in this directory."""
    return runs.read_config(path)["config"].get("width") if (path / "config.json").exists() else None


def stack(trees: Sequence[Any]) -> Any:
    """Trees of equal structure as one, with a new leading axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def why_ended(lane: Lane, task, options: Options) -> str | None:
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


def publish(workdir: Path, train, lane: Lane, params, reason: str, options: Options) -> None:
    """Writes one trial's run directory. A trial half published before starts anew; one published meanwhile stands."""
    trial = lane.trial
    with runs.open_run(trial_directory(workdir, trial), outputs.config_dict(trial), outputs.device_info()) as run:
        if is_done(workdir, trial, options):
            return
        (run.path / "result.json").unlink(missing_ok=True)  # of a trial that was stopped early
        runs.latest_checkpoint(run, None)  # there is none: this empties the log
        runs.append_rows(run, [outputs.metrics_row(record) for record in lane.records])
        flow = outputs.stack_rows([outputs.flow_row(r) for r in lane.records]) if trial.gradient_flow else {}
        if flow:
            runs.save_arrays(run.path / "gradient_flow.npz", flow)
        stopped = None if reason == "steps" else reason
        outputs.write_result(run, trial, train, params, flow, lane.seconds, stopped)


class Progress:
    """How far the whole sweep is, and the time left: a bar on a terminal, a line every two seconds elsewhere."""

    def __init__(self, buckets: Sequence[sweep.Bucket], workdir: Path, options: Options):
        self.labels = bucket_labels(buckets)
        self.trials = sum(len(bucket.trials) for bucket in buckets)
        missing = [t for bucket in buckets for t in bucket.trials if not is_done(workdir, t, options)]
        self.done, self.worked, self.steps = self.trials - len(missing), 0.0, 0
        self.work = sum(map(work_of, missing))
        self.began = self.last = time.monotonic()
        self.bar = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bar

            self.bar = Bar(BarColumn(), TextColumn("{task.description}"), console=Console(stderr=True))
            self.task = self.bar.add_task("compiling", total=max(self.work, 1e-9))

    def __enter__(self):
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_):
        if self.bar:
            self.bar.stop()

    def report(self, bucket: sweep.Bucket, lanes: list[Lane], score: str) -> None:
        """After a chunk of these lanes."""
        config, now = bucket.config, time.monotonic()
        self.worked += len(lanes) * work_of(config) * config.eval_every / config.steps
        self.steps += len(lanes) * config.eval_every
        elapsed = now - self.began
        left = max(self.work - self.worked, 0) * elapsed / self.worked
        median = np.median([lane.records[-1][f"eval_{score}"] for lane in lanes])
        at = sorted({int(lane.records[-1]["step"]) for lane in lanes})
        text = (
            f"{self.done}/{self.trials} trials  {self.labels[sweep.bucket_id(config)]}: {len(lanes)} lanes "
            f"at step {'-'.join(map(str, at[:: max(len(at) - 1, 1)]))}/{config.steps}  median {score} {median:.4g}  "
            f"{self.steps / elapsed:.0f} steps/s  {duration(left)} left"
        )
        if self.bar:
            self.bar.update(self.task, completed=self.worked, description=text)
        elif now - self.last >= 2 or self.steps == len(lanes) * config.eval_every:
            print(text, file=sys.stderr, flush=True)
            self.last = now

    def published(self, lane: Lane) -> None:
        """After the end of a trial."""
        self.done += 1
        self.work -= work_of(lane.trial) * max(1 - int(lane.records[-1]["step"]) / lane.trial.steps, 0)


def bucket_labels(buckets: Sequence[sweep.Bucket]) -> dict[str, str]:
    """What tells each bucket from the others, such as `bucket 2/6 cell=lstm seq_len=100`, by its id."""
    settings = [dataclasses.asdict(bucket.config) for bucket in buckets]
    static = [sweep.static_settings(bucket.config) for bucket in buckets]
    names = [name for name in settings[0] if len({str(s[name]) for s in static}) > 1] if buckets else []
    return {
        sweep.bucket_id(bucket.config): " ".join(
            [f"bucket {n}/{len(buckets)}", *(f"{name}={s[name]}" for name in names)]
        )
        for n, (bucket, s) in enumerate(zip(buckets, settings, strict=True), start=1)
    }


def work_of(config: Config) -> float:
    """Roughly how long a trial takes, in no unit: small nets take their time from the length of the sequences."""
    return float(config.steps) * config.seq_len * config.num_layers * (1 + config.bidirectional)


def duration(seconds: float) -> str:
    """`45 s`, `12 min` or `3.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def describe(trials: Sequence[Config], workdir: str | None, options: Options) -> None:
    """Prints buckets, lanes and devices, with the memory that each bucket's program needs and the time it will take.

    The time is that of two steps of all lanes, once compiled.
    """
    devices, total = options.devices or jax.local_devices(), 0.0
    buckets = sweep.buckets(trials)
    labels = bucket_labels(buckets)
    print(f"{len(trials)} trials in {len(buckets)} buckets on {len(devices)} devices ({devices[0].device_kind})")
    for bucket in buckets:
        missing = [t for t in bucket.trials if not (workdir and is_done(workdir, t, options))]
        line = f"{labels[sweep.bucket_id(bucket.config)]}: {len(missing)} of {len(bucket.trials)} trials to run"
        if missing:
            width = options.width or sweep.default_width(min(len(missing), options.lanes or len(missing)), devices)
            K = sweep.lane_count(min(options.lanes or len(devices) * width, len(missing)), len(devices), width)
            with jax.enable_x64(bucket.config.dtype == "float64"):
                compile_seconds, step_seconds, bytes_ = measure(bucket, devices, width, K)
            seconds = compile_seconds + -(-len(missing) // K) * bucket.config.steps * step_seconds
            total += seconds
            line += f", {K} lanes of width {width}, about {duration(seconds)} and {bytes_ / 2**20:.0f} MiB"
        print(line)
    print(f"in all about {duration(total)}")


def measure(bucket: sweep.Bucket, devices, width: int, K: int) -> tuple[float, float, int]:
    """Seconds to compile, seconds a step of K lanes with its share of the evaluations, and bytes of the program."""
    config = dataclasses.replace(bucket.config, eval_every=2)
    lanes = sweep.make_lanes(config, devices, width)
    began = time.monotonic()
    inputs = lanes.place(sweep.lane_inputs([bucket.config] * K))
    states = lanes.init(*inputs)
    program = lanes.chunk.lower(states, inputs[1]).compile()
    jax.block_until_ready(program(states, inputs[1]))
    compiled = time.monotonic()
    jax.block_until_ready(program(states, inputs[1]))
    run_seconds = time.monotonic() - compiled
    forward = config.eval_batch / (3 * config.batch_size)  # an evaluation in training steps: it goes forward alone
    step = run_seconds / (2 + forward) * (1 + forward / bucket.config.eval_every)
    memory = program.memory_analysis()
    per_device = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    return compiled - began, step, per_device * len(devices)


def replay(workdir: str, trial: str, debug_nans: bool) -> int:
    """Runs a trial of a sweep again, alone; returns the exit code. Writes nothing.

    With `debug_nans`, the step at which it diverged is run operation by operation under JAX's checks, so that the
    traceback ends at the first operation whose result is not finite.
    """
    path = Path(workdir or "", "trials", trial)
    if not workdir or not re.fullmatch("[0-9a-f]{16}", trial) or not (path / "config.json").exists():
        raise BadSetting(f"--replay={trial}: allowed: the name of a directory in --workdir={workdir}/trials")
    config = checked(Config(**runs.read_config(path)["config"]))
    with jax.enable_x64(config.dtype == "float64"):
        before, values, rows = replay_until_diverged(config, runs.read_rows(path))
        if rows[-1]["diverged"] < 0:
            print("it did not diverge")
            return runs.EXIT_DONE
        print(f"diverged at step {rows[-1]['diverged']}: {rows[-1]['blame']} not finite")
        if debug_nans:
            one = make_train(dataclasses.replace(config, eval_every=1))
            step = jax.jit(one.chunk)
            while int(before.step) < rows[-1]["diverged"]:
                before, _ = step(before, values)
            with jax.debug_nans(True), jax.debug_infs(True), jax.disable_jit():
                one.chunk(before, values)
            print("no operation of that step is not finite when it is run by itself")
    return runs.EXIT_DONE


def replay_until_diverged(config: Config, stored: list[dict]):
    """Prints each row beside whether it is the stored one. Returns the state before the last, hyperparameters, rows."""
    train = make_train(config)
    key, values = jax.tree.map(lambda leaf: leaf[0], sweep.lane_inputs([config]))
    state, chunk, rows = jax.jit(train.init)(key, values), jax.jit(train.chunk), []
    while not rows or (rows[-1]["step"] < config.steps and rows[-1]["diverged"] < 0):
        before = state
        state, record = chunk(state, values)
        row = outputs.metrics_row(jax.device_get(record))
        before_too = json.dumps(row) == json.dumps(stored[len(rows)]) if len(rows) < len(stored) else None
        print(f"{json.dumps(row)}  { {True: 'as before', False: 'not as before', None: 'new'}[before_too] }")
        rows.append(row)
    return before, values, rows


def parse_trials(config: Config, grid: Sequence[str], sample: Sequence[str] = (), count: int | None = None):
    """The trials that --grid, --sample and --trials mean: every draw at every point of the grid, without duplicates.

    Raises BadSetting.
    """
    axes, ranges = {}, {}
    for flag, texts, parse, found in (("grid", grid, parse_axis, axes), ("sample", sample, parse_range, ranges)):
        for text in texts:
            name, values = parse(text)
            if name in axes or name in ranges:
                raise BadSetting(f"--{flag}={text}: {name} is given twice; allowed: one --grid or --sample a setting")
            found[name] = values
    if bool(ranges) != (count is not None):
        raise BadSetting(f"--sample={','.join(sample)} and --trials={count}: allowed: both, or neither")
    draws = sweep.sample(config, ranges, count) if ranges else [config]
    try:
        trials = [trial for draw in draws for trial in sweep.grid(draw, axes)]
    except (ValueError, TypeError, OSError) as error:
        raise BadSetting(f"{' '.join(f'--grid={text}' for text in grid)}: {error}") from error
    return list(dict.fromkeys(checked(trial) for trial in trials))


def parse_range(text: str) -> tuple[str, tuple[str, float, float]]:
    """`lr=log:1e-5:1e-1` -> ("lr", ("log", 1e-5, 0.1)). Raises BadSetting."""
    name, _, values = text.partition("=")
    scale, *ends = values.split(":")
    try:
        low, high = (float(parse_setting(name, end)) for end in ends)
    except (TypeError, ValueError) as error:
        if isinstance(error, BadSetting) and name not in FIELDS:
            raise
        low = high = float("nan")
    if scale not in ("log", "uniform") or not (-np.inf < low < high < np.inf) or (scale == "log" and low <= 0):
        raise BadSetting(
            f"--sample={text}: allowed: NAME=log:A:B with 0 < A < B, or NAME=uniform:A:B with A < B, of a number"
        )
    return name, (scale, low, high)


def parse_axis(text: str) -> tuple[str, list]:
    """`lr=1e-3,1e-2` -> ("lr", [0.001, 0.01]); `seed=0:8` -> ("seed", [0, ..., 7]). Raises BadSetting."""
    name, separator, values = text.partition("=")
    if not separator or not values:
        raise BadSetting(f"--grid={text}: allowed: NAME=VALUE,VALUE,... or NAME=START:STOP")
    start, colon, stop = values.partition(":")
    if colon and start.lstrip("-").isdigit() and stop.lstrip("-").isdigit() and int(start) < int(stop):
        return name, [parse_setting(name, str(value)) for value in range(int(start), int(stop))]
    return name, [parse_setting(name, value) for value in values.split(",")]


if __name__ == "__main__":
    define_config()
    GRID = flags.DEFINE_multi_string("grid", [], "NAME=VALUE,VALUE,... or, for integers, NAME=START:STOP")
    SAMPLE = flags.DEFINE_multi_string("sample", [], "NAME=log:A:B or NAME=uniform:A:B, drawn at random --trials times")
    TRIALS = flags.DEFINE_integer("trials", None, "how often --sample draws", lower_bound=1)
    REPLAY = flags.DEFINE_string("replay", None, "run the one trial of this id again, alone, and write nothing")
    DEBUG_NANS = flags.DEFINE_bool("debug_nans", False, "with --replay: show the operation that was first not finite")
    WORKDIR = flags.DEFINE_string("workdir", None, "the sweep's directory; trials that it holds are not run again")
    DRY_RUN = flags.DEFINE_bool("dry_run", False, "print buckets, lanes, devices, time and memory; train nothing")
    LANES = flags.DEFINE_integer("lanes", None, "runs at a time; by default one a device, on a GPU all", lower_bound=1)
    WIDTH = flags.DEFINE_integer(
        "width", None, "of these, how many a device advances at once, by vmap; 1 gives the bits of solo runs", 1
    )
    STOP_SOLVED = flags.DEFINE_bool("stop_solved", False, "end a trial at the evaluation that meets the threshold")
    STOP_HOPELESS = flags.DEFINE_float(
        "stop_hopeless",
        None,
        "end a trial that diverged, or did not beat the baseline in this fraction of its steps",
        0,
        1,
    )
    COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0; the same command runs on each")
    PROCESSES = flags.DEFINE_integer("num_processes", 1, "how many processes share the sweep", lower_bound=1)
    PROCESS = flags.DEFINE_integer("process_id", 0, "which of them this is, from 0", lower_bound=0)
    SAVE_SECONDS = flags.DEFINE_float("save_seconds", 30.0, "between checkpoints, at most one lost", lower_bound=0)
    main_with_errors(main)
