"""Which way through time pays for a cell: every method, certified against the plain scan, with time and memory.

    python experiments/ways.py --cell=lru --seq_len=1024,4096
    python experiments/ways.py --workdir=runs/gru200

Prints a table for each length, forwards and backwards on this machine, and the largest Lyapunov exponent, which says
whether Newton's method in time can pay. With --workdir it is the first layer of a finished run on its own task, before
and after training. FILE.py:NAME is a cell of your own. With --out, ways.csv holds the numbers.
"""

import jax
from absl import flags
from cells import positive
from command_line import BadSetting, define_path, main_with_errors
from diagnose import read_run_config

from rnnjax import runs
from rnnjax.reports.diagnosis_subject import make_subject
from rnnjax.reports.ways import Subject, Way, about_exponent, largest_exponent, methods_of, ways, ways_table, write_ways
from rnnjax.training.config import Config, make_cell
from rnnjax.training.devices import prepare_devices
from rnnjax.types import Cell

FEATURES = 2


def main(_) -> int:
    try:
        subjects = of_run(WORKDIR.value) if WORKDIR.value else untrained()
        unknown = [m for m in METHODS.value if m not in methods_of(next(iter(subjects.values())).cell)]
        if unknown:
            allowed = ", ".join(methods_of(next(iter(subjects.values())).cell))
            raise ValueError(f"--methods={unknown[0]}: allowed: {allowed}")
        out = runs.own_directory(OUT.value, "ways") if OUT.value else None
    except (ValueError, TypeError) as error:
        raise BadSetting(str(error)) from error
    found: dict[str, list[Way]] = {}
    for name, subject in subjects.items():
        found[name] = ways(subject, METHODS.value or None)
        print(f"{name}\n\n{ways_table(found[name])}\n{about_exponent(largest_exponent(subject))}\n", flush=True)
    if out:
        print(f"numbers: {write_ways(found, out)}")
    return runs.EXIT_DONE


def untrained() -> dict[str, Subject]:
    """The cell as it starts, on standard normal inputs, for each length. Raises ValueError."""
    lengths = positive("seq_len")
    config = Config(cell=CELL.value, hidden_size=HIDDEN_SIZE.value)
    prepare_devices(config)
    cell = make_cell(config)
    if not isinstance(cell, Cell):
        raise ValueError(f"--cell={CELL.value}: it attends; allowed: a recurrent cell")
    key = jax.random.key(0)
    params = jax.jit(cell.init, static_argnums=1)(key, FEATURES)
    return {
        f"{CELL.value}, T = {T}, H = {HIDDEN_SIZE.value}, B = {BATCH.value}": Subject(
            cell, params, jax.random.normal(key, (T, BATCH.value, FEATURES))
        )
        for T in lengths
    }


def of_run(workdir: str) -> dict[str, Subject]:
    """The first layer of a finished run, before and after training, on sequences of its task. Raises ValueError."""
    config = read_run_config(workdir)
    prepare_devices(config)
    found = {}
    for name, at in (("before training", None), ("after training", workdir)):
        subject = make_subject(config, at)
        if not subject.layers:
            raise ValueError(f"{workdir} attends; allowed: a run of a recurrent cell")
        layer = subject.layers[0]
        found[f"{config.cell}, T = {subject.steps}, {name}"] = Subject(layer.cell, layer.params, layer.xs)
    return found


if __name__ == "__main__":
    CELL = flags.DEFINE_string("cell", "gru", "its name, or FILE.py:NAME")
    flags.DEFINE_list("seq_len", ["1024"], "lengths T")
    HIDDEN_SIZE = flags.DEFINE_integer("hidden_size", 64, "H", lower_bound=1)
    BATCH = flags.DEFINE_integer("batch_size", 8, "B, sequences side by side", lower_bound=1)
    METHODS = flags.DEFINE_list("methods", [], "of these alone; by default all that the cell can have")
    WORKDIR = define_path("workdir", None, "a finished run, instead of a cell")
    OUT = define_path("out", None, "the directory for ways.csv; by default none is written")
    main_with_errors(main)
