"""What every cell costs, attention beside them: parameters, state and FLOPs a step, and the time to write a text.

    python experiments/cells.py --out=runs/cells
    python experiments/cells.py --cell=lstm

Prints tables and writes cells.md, costs.csv, writing.csv, cells.json and figures into --out. With --cell it prints the
card of one cell alone: its equations and paper, and what it costs. FILE.py:NAME is a cell of your own.
"""

from absl import flags
from command_line import BadSetting, define_path, main_with_errors

from rnnjax import runs
from rnnjax.reports.cells_page import all_cells, card, count_costs, time_texts, write_cells
from rnnjax.training.config import Config
from rnnjax.training.devices import prepare_devices

PAST = 256  # steps that a layer that attends has seen, where its costs stand beside others


def main(_) -> int:
    sizes, lengths = positive("hidden_sizes"), positive("lengths")
    prepare_devices(Config())
    try:
        if CELL.value is not None:
            print(card(Config(cell=CELL.value), sizes, PAST))
            return runs.EXIT_DONE
        runs.check_own_directory(OUT.value, "cells")
        configs = [Config(cell=name, hidden_size=HIDDEN_SIZE.value) for name in all_cells()]
        counted = count_costs(configs, sizes, PAST)
        written = time_texts(configs, lengths)
    except ValueError as error:
        raise BadSetting(str(error)) from error
    print(write_cells(counted, written, OUT.value))
    print(f"figures: {OUT.value}/costs.png, {OUT.value}/writing.png")
    return runs.EXIT_DONE


def positive(name: str) -> list[int]:
    """The integers of a flag between commas. Raises BadSetting."""
    texts = flags.FLAGS[name].value
    if not texts or not all(text.strip().isdigit() and int(text) > 0 for text in texts):
        raise BadSetting(f"--{name}={','.join(texts)}: allowed: integers of 1 or more, between commas")
    return [int(text) for text in texts]


if __name__ == "__main__":
    CELL = flags.DEFINE_string("cell", None, "print the card of this one alone: its name, or FILE.py:NAME")
    flags.DEFINE_list("hidden_sizes", ["32", "64", "128", "256"], "hidden sizes to count for")
    flags.DEFINE_list("lengths", ["64", "256", "1024", "4096"], "lengths of the texts that are written and timed")
    HIDDEN_SIZE = flags.DEFINE_integer("hidden_size", 64, "of the layers that are timed", lower_bound=1)
    OUT = define_path("out", "runs/cells", "the directory for tables and figures")
    main_with_errors(main)
