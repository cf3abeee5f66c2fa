"""What ails one recurrent network: every diagnostic on one page, of a run or at initialisation.

    python experiments/diagnose.py --workdir=runs/x
    python experiments/diagnose.py --config.cell=lstm --config.seq_len=200 --out=runs/diagnostics
    python experiments/diagnose.py --workdir=runs/leaky --config=configs/own_cell.py      # a run of your own cell

Writes index.html (one file that loads nothing) and diagnostics.json into --out, by default RUN/diagnostics. Of stacked
layers the page shows the first (forwards, if it has two directions); the verdict and the gradient are of all. Of a
transformer it shows the score, the gradient by position, and the horizon.
"""

from pathlib import Path

from command_line import BadSetting, checked, define_config, define_path, load_config, main_with_errors

from rnnjax import runs
from rnnjax.reports.diagnosis_page import write_page
from rnnjax.reports.diagnosis_subject import make_subject
from rnnjax.training import outputs
from rnnjax.training.config import Config
from rnnjax.training.devices import prepare_devices
from rnnjax.training.own_files import short_name


def main(_) -> int:
    workdir = WORKDIR.value
    config = load_config()  # with a run too: the file may hold the run's cell
    try:
        config = config if workdir is None else read_run_config(workdir)
        out = OUT.value or (Path(workdir) / "diagnostics" if workdir else "runs/diagnostics")
        out = runs.check_own_directory(out, "diagnosis")
        prepare_devices(config)
        subject = make_subject(config, workdir)
    except (ValueError, TypeError) as error:
        raise BadSetting(str(error)) from error
    title = f"{short_name(config.cell)} on {short_name(config.task)}, T = {subject.batch.inputs.shape[0]}: " + (
        f"run {Path(workdir).name}" if workdir else "at initialisation"
    )
    print(write_page(subject, out, title))
    print(f"wrote {out / 'index.html'} and {out / 'diagnostics.json'}")
    return runs.EXIT_DONE


def read_run_config(workdir: str | Path) -> Config:
    """The config of a run directory. Raises ValueError, BadSetting or RunRefused, in one line."""
    for name in ("config.json", "params.npz"):
        if not Path(workdir, name).is_file():
            raise ValueError(f"{Path(workdir, name)} is missing; allowed: the directory of a finished run")
    return checked(outputs.trained_config(workdir))


if __name__ == "__main__":
    define_config()
    WORKDIR = define_path("workdir", None, "a finished run; without it a model as --config initialises it")
    OUT = define_path("out", None, "the directory to write into; by default WORKDIR/diagnostics")
    main_with_errors(main)
