"""Trains one recurrent network on one task, and shows what it learned and where its gradient went.

    python experiments/train.py --config=configs/adding.py --config.cell=gru --config.seq_len=200 --workdir=runs/x

The same command again resumes. Exit codes: 0 done, 1 error, 2 bad flags, 75 stopped by a signal and resumable.
"""

import sys
from pathlib import Path

from absl import flags
from command_line import BadSetting, define_config, define_path, load_config, main_with_errors

from rnnjax import runs
from rnnjax.training import outputs
from rnnjax.training.devices import prepare_devices
from rnnjax.training.fit import train_in

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
    sources = outputs.sources(config)
    finished = runs.finished_run(WORKDIR.value, outputs.config_dict(config), sources, ACCEPT.value)
    if finished is not None:
        print(f"{WORKDIR.value} was finished before: nothing is trained or written")
        show(finished, Path(WORKDIR.value))
        return runs.EXIT_DONE
    how = {"accept_changes": ACCEPT.value, "shards": SHARDS.value, "save_seconds": SAVE_SECONDS.value}
    with runs.stop_signals(last=True) as stop:
        run = train_in(WORKDIR.value, config, sources, stop=stop, **how)
    if run.result is None:
        print(f"stopped; the same command resumes {WORKDIR.value}", file=sys.stderr)
        return runs.EXIT_STOPPED
    show(run.result, run.workdir)
    return runs.EXIT_DONE


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
    names = ["learning_curve.png", "gradient_map.png", "score_by_length.png"]
    names += (result.get("report") or {}).get("figures", [])
    figures = [str(path / name) for name in names if (path / name).exists()]
    print(f"figures: {', '.join(figures)}")


if __name__ == "__main__":
    main_with_errors(main)
