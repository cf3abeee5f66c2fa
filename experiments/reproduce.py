"""Runs a published table again: its protocol as a sweep, and ours beside what was published.

    python experiments/reproduce.py --list
    python experiments/reproduce.py --table=long_adding --rows=lem --rows=lstm --workdir=runs/long_adding

Trials go to WORKDIR/trials: the same command goes on where it stopped, or shows the table again. Writes table.md and
table.csv into WORKDIR. Exit codes: see sweep.py.
"""

import sys

from absl import flags
from command_line import BadSetting, define_path, main_with_errors

from rnnjax import runs
from rnnjax.reproductions import TABLES, markdown, reproduce, write_table
from rnnjax.training.config import Config
from rnnjax.training.devices import prepare_devices


def main(_) -> int:
    if LIST.value:
        for name, make in TABLES.items():
            print(f"{name}: {make().title} ({make().duration} on two cores)")
        return runs.EXIT_DONE
    if TABLE.value not in TABLES:
        raise BadSetting(f"--table={TABLE.value}: allowed: {', '.join(TABLES)}")
    table, workdir = TABLES[TABLE.value](), WORKDIR.value
    if not workdir:
        raise BadSetting("--workdir is missing; allowed: a directory for the runs, such as --workdir=runs/long_adding")
    rows, columns = chosen("rows", table), chosen("columns", table)
    table = table._replace(places=tuple(p for p in table.places if p.row in rows and p.column in columns))
    prepare_devices(Config())
    with runs.stop_signals(last=True) as stop:
        found = reproduce(table, workdir, seeds=SEEDS.value, stop=stop)
    if found is None:
        print(f"stopped; the same command resumes {workdir}", file=sys.stderr)
        return runs.EXIT_STOPPED
    print(f"{markdown(table, found)}\ntable: {write_table(table, found, workdir)}")
    return runs.EXIT_DONE


def chosen(name: str, table) -> list[str]:
    """What a flag names of the table's rows or columns; all by default. Raises BadSetting."""
    every = list(dict.fromkeys(getattr(place, name.removesuffix("s")) for place in table.places))
    asked = flags.FLAGS[name].value or every
    for value in asked:
        if value not in every:
            raise BadSetting(f"--{name}={value}: allowed: {', '.join(every)}")
    return asked


if __name__ == "__main__":
    LIST = flags.DEFINE_bool("list", False, "print a line a table, and nothing else")
    TABLE = flags.DEFINE_string("table", None, f"which: {', '.join(TABLES)}")
    flags.DEFINE_multi_string("rows", None, "some of its rows, one a flag")
    flags.DEFINE_multi_string("columns", None, "some of its columns, one a flag")
    SEEDS = flags.DEFINE_integer("seeds", None, "of each place, instead of the table's own number", lower_bound=1)
    WORKDIR = define_path("workdir", None, "the directory of the runs; those that it holds are not run again")
    main_with_errors(main)
