"""Several models on one task, each over the same seeds and matched in size: what they reach, and what seeds support.

    python experiments/compare.py --models=rnn,lstm,gru --config=configs/adding.py --workdir=runs/compare
    python experiments/compare.py --models=lstm,lstm:peepholes=true:lr=4e-3,gru --match=width --workdir=runs/peepholes

Trains each model with each seed as one sweep (trials in WORKDIR/trials: the same command resumes, or shows the result
again), and writes index.html, compare.md, compare.csv, compare.json and figures into WORKDIR. A model is CELL or
CELL:OPTION=VALUE:..., options of the cell or settings of --config. Exit codes: see sweep.py.
"""

import sys

from absl import flags
from command_line import BadSetting, define_config, define_path, load_config, main_with_errors

from rnnjax import runs
from rnnjax.reports.compare_page import markdown, write_page
from rnnjax.reports.comparison import compare
from rnnjax.sweeps.matching import MATCHES
from rnnjax.training.devices import prepare_devices


def main(_) -> int:
    config, workdir = load_config(), WORKDIR.value
    if not workdir:
        raise BadSetting("--workdir is missing; allowed: a directory for the runs, such as --workdir=runs/compare")
    prepare_devices(config)
    with runs.stop_signals(last=True) as stop:
        found = compare(config, MODELS.value, workdir, seeds=SEEDS.value, match=MATCH.value, stop=stop)
        if found is None:
            print(f"stopped; the same command resumes {workdir}", file=sys.stderr)
            return runs.EXIT_STOPPED
        page = write_page(found, workdir)
    print(f"{markdown(found)}\npage: {page}")
    return runs.EXIT_DONE


if __name__ == "__main__":
    define_config()
    MODELS = flags.DEFINE_list(
        "models", ["rnn", "lstm", "gru"], "CELL or CELL:OPTION=VALUE:..., the first to be matched"
    )
    SEEDS = flags.DEFINE_integer("seeds", 5, "of each model, from 0; fewer than 4 tell nothing apart", lower_bound=1)
    MATCH = flags.DEFINE_enum("match", "parameters", MATCHES, "what all models have as the first, by their hidden size")
    WORKDIR = define_path("workdir", None, "the directory of the runs; those that it holds are not run again")
    main_with_errors(main)
