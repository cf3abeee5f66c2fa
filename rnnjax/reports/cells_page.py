"""What every cell costs, and attention beside them: tables and figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rnnjax import runs
from rnnjax.cells import CELLS
from rnnjax.figures import compare_plots
from rnnjax.figures.plot_style import distinct_colors
from rnnjax.reports.costs import layer_costs, time_writing, with_size
from rnnjax.reports.settings import csv_text
from rnnjax.training.config import OWNERS, Config
from rnnjax.training.own_files import short_name

COUNTED = ("parameters", "state", "flops")
DRAWN = 12  # lines of a figure that an eye can still tell apart
NOTES = (
    "One layer of H units that reads H numbers a step, one sequence. State: numbers that it carries from step to step. "
    "FLOPs: operations of the matrix products in a step forwards (2 m n k; elementwise work is not counted). A layer "
    "that attends keeps keys and values of every step it can see: its state and FLOPs are those after {past} steps, "
    "and grow with the length; a recurrent layer's do not."
)


def all_cells() -> list[str]:
    """Every cell of the table, then what stands in the place of one."""
    return [*CELLS, *(name for name in sorted(OWNERS["cell"]) if name not in CELLS)]


def count_costs(configs: Sequence[Config], sizes: Sequence[int], past: int) -> list[dict[str, Any]]:
    """A row for each config's cell and each hidden size: what it costs after `past` steps. Raises ValueError."""
    return [
        {"cell": short_name(config.cell), "hidden_size": size, "past": past}
        | layer_costs(with_size(config, size), past)._asdict()
        for config in configs
        for size in sizes
    ]


def time_texts(configs: Sequence[Config], lengths: Sequence[int]) -> list[dict[str, Any]]:
    """A row for each config's cell and each length of a text: what writing it takes. Raises ValueError."""
    return [
        {"cell": short_name(config.cell), "hidden_size": config.hidden_size, "length": length} | writing._asdict()
        for config in configs
        for length, writing in zip(lengths, time_writing(config, lengths), strict=True)
    ]


def write_cells(
    counted: Sequence[dict[str, Any]], written: Sequence[dict[str, Any]], out: str | Path, more: Sequence[str] = ()
) -> str:
    """Writes cells.md, two CSV files, cells.json and figures into `out`; returns what cells.md says.

    `more` are tables to stand below; the figures show the first `DRAWN` cells.
    """
    out = runs.own_directory(out, "cells")
    tables = [costs_table(counted), NOTES.format(past=counted[0]["past"]), "", *writing_tables(written)]
    text = "\n".join([*tables, *(f"\n{table}" for table in more)]) + "\n"
    runs.write_file(out / "cells.md", text)
    runs.write_file(out / "costs.csv", csv_text(counted))
    runs.write_file(out / "writing.csv", csv_text(written))
    runs.write_json(out / "cells.json", {"costs": counted, "writing": written})
    drawn = list(dict.fromkeys(row["cell"] for row in counted))[:DRAWN]
    counted, written = ([row for row in rows if row["cell"] in drawn] for rows in (counted, written))
    by_size = {
        "parameters": _lines(counted, "hidden_size", lambda row: row["parameters"]),
        "state, numbers": _lines(counted, "hidden_size", lambda row: row["state"]),
        "FLOPs a step": _lines(counted, "hidden_size", lambda row: row["flops"]),
    }
    by_length = {
        "microseconds a symbol": _lines(written, "length", lambda row: 1e6 * row["seconds"] / row["length"]),
        "seconds for the whole text": _lines(written, "length", lambda row: row["seconds"]),
        "state, bytes": _lines(written, "length", lambda row: row["state_bytes"]),
    }
    size = written[0]["hidden_size"]
    for dark in (False, True):
        ending = f"{'_dark' * dark}.png"
        title = f"One layer; attention after {counted[0]['past']} steps"
        compare_plots.panels(by_size, out / f"costs{ending}", x_label="hidden size H", title=title, dark=dark)
        title = f"Writing a text, measured: one layer, H = {size}"
        compare_plots.panels(by_length, out / f"writing{ending}", x_label="symbols", title=title, dark=dark)
    return text


def costs_table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: a line a cell and, for each hidden size, its parameters, state and FLOPs."""
    sizes = list(dict.fromkeys(row["hidden_size"] for row in rows))
    lines = [f"| cell | {' | '.join(f'H = {size}' for size in sizes)} |", "|---|" + "---:|" * len(sizes)]
    lines = ["Parameters / state / FLOPs a step:", "", *lines]
    for cell in dict.fromkeys(row["cell"] for row in rows):
        of_cell = {row["hidden_size"]: row for row in rows if row["cell"] == cell}
        lines.append(f"| {cell} | {' | '.join(_counts(of_cell[size]) for size in sizes)} |")
    return "\n".join(lines) + "\n"


def writing_tables(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Markdown: microseconds a symbol, and bytes of state, by the length of the text."""
    lengths = list(dict.fromkeys(row["length"] for row in rows))
    lines = [
        f"Writing a text of so many symbols, H = {rows[0]['hidden_size']}: microseconds a symbol, measured / bytes"
    ]
    lines[0] += " of state:"
    lines += ["", f"| cell | {' | '.join(map(str, lengths))} |", "|---|" + "---:|" * len(lengths)]
    for cell in dict.fromkeys(row["cell"] for row in rows):
        of_cell = {row["length"]: row for row in rows if row["cell"] == cell}
        texts = [f"{1e6 * of_cell[n]['seconds'] / n:.3g} / {of_cell[n]['state_bytes']}" for n in lengths]
        lines.append(f"| {cell} | {' | '.join(texts)} |")
    return lines


def _counts(row):
    return " / ".join(_short(row[name]) for name in COUNTED)


def _short(count: int) -> str:
    """`98.8k`: a count to three digits."""
    for power, unit in ((9, "G"), (6, "M"), (3, "k")):
        if count >= 10**power:
            return f"{count / 10**power:.3g}{unit}"
    return str(count)


def _lines(rows, x, y):
    """cell -> (x, y, colour) of its rows."""
    found, colors = {}, distinct_colors(row["cell"] for row in rows)
    for cell in dict.fromkeys(row["cell"] for row in rows):
        of_cell = [row for row in rows if row["cell"] == cell]
        found[cell] = [row[x] for row in of_cell], [y(row) for row in of_cell], colors[cell]
    return found
