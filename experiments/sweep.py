"""Runs a grid of trials as few compiled programs, on all devices; the same command again does only what is missing.

    python experiments/sweep.py --config=configs/adding.py --grid=lr=1e-4,1e-3,1e-2 --grid=seed=0:8 \
        --grid=cell=rnn,lstm,gru --workdir=runs/s1
    python experiments/sweep.py --config=configs/adding.py --sample=lr=log:1e-5:1e-1 --trials=64 --workdir=runs/s2
    python experiments/sweep.py --workdir=runs/s1 --replay=813d1e97f67f6931 --debug_nans

Each trial gets `WORKDIR/trials/ID`, a run directory like that of experiments/train.py (without figures), where ID is a
hash of its resolved config. Exit codes: 0 done, 1 error, 2 bad flags, 75 stopped by a signal and resumable.
"""

import dataclasses
import importlib.util
import sys

from absl import flags
from command_line import BadSetting, define_config, define_path, load_config, main_with_errors
from trials import parse_trials

from rnnjax import runs
from rnnjax.sweeps import processes
from rnnjax.sweeps.dry_run import describe
from rnnjax.sweeps.lanes import Options, run_sweep, trial_directory
from rnnjax.sweeps.replay import replay
from rnnjax.training.config import Config
from rnnjax.training.devices import prepare_devices

__all__ = ["run_sweep", "trial_directory"]


def main(_) -> int:
    config = load_config()
    if REPLAY.value:
        prepare_devices(Config())
        return replay(WORKDIR.value, REPLAY.value, DEBUG_NANS.value)
    trials = parse_trials(config, GRID.value, SAMPLE.value, TRIALS.value)
    if not WORKDIR.value and not DRY_RUN.value:
        raise BadSetting("--workdir is missing; allowed: a directory for the sweep, such as --workdir=runs/s1")
    shared = COORDINATOR.value is not None or EXECUTOR.value == "ray"  # both start JAX's devices in their own way
    # Each bucket decides on float64 for itself.
    prepare_devices(dataclasses.replace(config, dtype="float32"), start=not shared)
    options = Options(SAVE_SECONDS.value, LANES.value, WIDTH.value, None, (PROCESS.value, PROCESSES.value))
    options = options._replace(stop_solved=STOP_SOLVED.value, stop_hopeless=STOP_HOPELESS.value)
    options = options._replace(accept_changes=ACCEPT.value)
    if DRY_RUN.value:
        describe(trials, WORKDIR.value, options)
        return runs.EXIT_DONE
    if EXECUTOR.value == "ray":
        return on_ray(trials, options)
    job, failed = join_job(COORDINATOR.value, PROCESSES.value, PROCESS.value), None
    with runs.stop_signals(last=True) as signals:
        try:
            finished = run_sweep(trials, WORKDIR.value, processes.Stop(signals, job), options)
        except runs.RunFailed as error:  # of some trials, at its end
            finished, failed = True, error
        broken = job.broken if job else None
        finished = job.end(finished) if job else finished
    if failed:
        raise failed
    if not finished:
        reason = broken or (job and job.broken)
        reason = f"stopped, as {reason}; the same command on each process" if reason else "stopped; the same command"
        print(f"{reason} resumes {WORKDIR.value}", file=sys.stderr)
        return runs.EXIT_STOPPED
    print(f"{len(trials)} trials done in {WORKDIR.value}/trials")
    return runs.EXIT_DONE


def on_ray(trials: list[Config], options: Options) -> int:
    """Runs the sweep as tasks of Ray; returns the exit code. Raises BadSetting if Ray is not there."""
    if importlib.util.find_spec("ray") is None:
        raise BadSetting("--executor=ray: allowed where Ray is installed: pip install ray")
    from rnnjax.sweeps.ray_executor import run_on_ray

    with runs.stop_signals(last=True) as stop:
        if run_on_ray(trials, WORKDIR.value, stop, options, RAY_ADDRESS.value, flags.FLAGS["config"].value):
            print(f"{len(trials)} trials done in {WORKDIR.value}/trials")
            return runs.EXIT_DONE
    print(f"stopped; the same command resumes {WORKDIR.value}", file=sys.stderr)
    return runs.EXIT_STOPPED


def join_job(coordinator: str | None, count: int, index: int) -> processes.Job | None:
    """The job that the flags name, if any. Raises BadSetting."""
    if (coordinator is None) != (count == 1) or not 0 <= index < count:
        raise BadSetting(
            f"--coordinator={coordinator} --num_processes={count} --process_id={index}: allowed: none of them, or "
            "HOST:PORT of process 0, 2 or more processes, and an id below their number"
        )
    return processes.join(coordinator, count, index) if coordinator else None


if __name__ == "__main__":
    define_config()
    GRID = flags.DEFINE_multi_string("grid", [], "NAME=VALUE,VALUE,... or, for integers, NAME=START:STOP")
    SAMPLE = flags.DEFINE_multi_string("sample", [], "NAME=log:A:B or NAME=uniform:A:B, drawn at random --trials times")
    TRIALS = flags.DEFINE_integer("trials", None, "how often --sample draws", lower_bound=1)
    REPLAY = flags.DEFINE_string("replay", None, "run the one trial of this id again, alone, and write nothing")
    DEBUG_NANS = flags.DEFINE_bool("debug_nans", False, "with --replay: show the operation that was first not finite")
    WORKDIR = define_path("workdir", None, "the sweep's directory; trials that it holds are not run again")
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
    ACCEPT = flags.DEFINE_bool(
        "accept_changes", False, "go on though an own cell or task, or the data, changed since trials were made"
    )
    EXECUTOR = flags.DEFINE_enum("executor", "local", ["local", "ray"], "where lanes run: here, or as tasks of Ray")
    RAY_ADDRESS = flags.DEFINE_string("ray_address", None, "of a Ray cluster; by default one is started here, for this")
    COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0; the same command runs on each")
    PROCESSES = flags.DEFINE_integer("num_processes", 1, "how many processes share the sweep", lower_bound=1)
    PROCESS = flags.DEFINE_integer("process_id", 0, "which of them this is, from 0", lower_bound=0)
    SAVE_SECONDS = flags.DEFINE_float("save_seconds", 30.0, "between checkpoints, at most one lost", lower_bound=0)
    main_with_errors(main)
