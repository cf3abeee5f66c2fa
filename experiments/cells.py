"""What every cell costs, attention beside them: parameters, state and FLOPs a step, and the time to write a text.

    python experiments/cells.py --list
    python experiments/cells.py --cell=lem
    python experiments/cells.py --cells=rnn,lstm,transformer --out=runs/cells

--list prints a line a cell: what it is, its paper and its options. With --cell it prints the card of one cell: its
equations, what it costs, what its gradient does at the start, and each way to run it with time and memory.
FILE.py:NAME is a cell of your own. Else it prints tables and writes cells.md, costs.csv, writing.csv, cells.json and
figures into --out.
"""

from absl import flags
from command_line import BadSetting, define_path, main_with_errors

from rnnjax import runs
from rnnjax.reports.cards import card, catalogue, count_starts, starts_table
from rnnjax.reports.cells_page import all_cells, count_costs, time_texts, write_cells
from rnnjax.training.config import Config
from rnnjax.training.devices import prepare_devices

SOME = ["rnn", "lstm", "gru", "lru", "lem", "cornn", "indrnn", "transformer"]
PAST = 256  # steps that a layer that attends has seen, where its costs stand beside others


def main(_) -> int:
    sizes, lengths = positive("hidden_sizes"), positive("lengths")
    prepare_devices(Config())
    try:
        if LIST.value:
            print(catalogue(), end="")
            return runs.EXIT_DONE
        if CELL.value is not None:
            print(card(Config(cell=CELL.value, hidden_size=HIDDEN_SIZE.value), sizes, PAST, SEQ_LEN.value), end="")
            return runs.EXIT_DONE
        runs.check_own_directory(OUT.value, "cells")
        every = all_cells() if CELLS.value == ["all"] else CELLS.value
        configs = [Config(cell=name, hidden_size=HIDDEN_SIZE.value) for name in every]
        counted = count_costs(configs, sizes, PAST)
        started = count_starts(configs, SEQ_LEN.value)
        written = time_texts(configs, lengths)
    except ValueError as error:
        raise BadSetting(str(error)) from error
    more = [starts_table(started)] if started else []
    print(write_cells(counted, written, OUT.value, more))
    print(f"figures: {OUT.value}/costs.png, {OUT.value}/writing.png")
    return runs.EXIT_DONE


def positive(name: str) -> list[int]:
    """The integers of a flag between commas. Raises BadSetting."""
    texts = flags.FLAGS[name].value
    if not texts or not all(text.strip().isdigit() and int(text) > 0 for text in texts):
        raise BadSetting(f"--{name}={','.join(texts)}: allowed: integers of 1 or more, between commas")
    return [int(text) for text in texts]


if __name__ == "__main__":
    LIST = flags.DEFINE_bool("list", False, "print a line a cell, and nothing else")
    CELL = flags.DEFINE_string("cell", None, "print the card of this one alone: its name, or FILE.py:NAME")
    CELLS = flags.DEFINE_list("cells", SOME, "those to count and to time; all: every one, of which a figure shows 12")
    SEQ_LEN = flags.DEFINE_integer("seq_len", 200, "steps over which the start is measured", lower_bound=8)
    flags.DEFINE_list("hidden_sizes", ["32", "64", "128", "256"], "hidden sizes to count for")
    flags.DEFINE_list("lengths", ["64", "256", "1024", "4096"], "lengths of the texts that are written and timed")
    HIDDEN_SIZE = flags.DEFINE_integer("hidden_size", 64, "of what is timed and measured", lower_bound=1)
    OUT = define_path("out", "runs/cells", "the directory for tables and figures")
    main_with_errors(main)
