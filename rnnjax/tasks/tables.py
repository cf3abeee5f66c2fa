"""Series from a table in a file."""

import csv
import hashlib
import os
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from rnnjax.tasks.common import unknown


class Table(NamedTuple):
    """Series side by side, a row a step."""

    name: str
    times: list[str]  # [N], as the file writes them; "" where it has none
    step: str | None  # from row to row: hour, day, weekday, week, month, quarter, year; None: unknown
    columns: dict[str, np.ndarray]  # name -> float64 [N]: the targets, then the inputs, in the order they are asked for
    sha256: str  # of the file, or of the settings that a made series is made from
    notes: tuple[str, ...] = ()  # what a reader should know, such as gaps and cells that were filled


def read_table(path: str | os.PathLike, *, target: str | None = None, inputs: str | None = None) -> Table:
    """The columns `target` and `inputs` of a CSV file, names separated by commas, as float64.

    `target` may be left out where the table has one column of numbers. Raises ValueError, in one line that names the
    file and what is wrong in it.
    """
    path = pathlib.Path(path)
    data = path.read_bytes()
    header, *rows = [[cell.strip() for cell in row] for row in csv.reader(data.decode("utf-8-sig").splitlines()) if row]
    cells = dict(zip(header, zip(*rows, strict=True), strict=True))
    numbers = {name: column for name, column in cells.items() if all(map(_is_number, column))}
    times = next((list(column) for name, column in cells.items() if name not in numbers), [""] * len(rows))
    if target is None and len(numbers) != 1:
        raise ValueError(f"{path.name}: target is not given; allowed: {', '.join(numbers)}")
    columns = {name: np.array(list(map(float, column))) for name, column in numbers.items()}
    columns = choose(path.name, columns, target or next(iter(numbers)), inputs)
    return Table(path.name, times, None, columns, hashlib.sha256(data).hexdigest())


def times_after(table: Table, n: int) -> list[str]:
    """The `n` times after the last row, written as the table writes them; the steps' numbers where it has none."""
    return [str(len(table.times) + i) for i in range(1, n + 1)]


def choose(
    source: str, columns: Mapping[str, np.ndarray], target: str, inputs: str | None = None
) -> dict[str, np.ndarray]:
    """The columns called in `target` and `inputs`, names separated by commas, in that order, each once.

    Raises ValueError for a name that is none of a column, with the nearest one that is.
    """
    names = [name.strip() for name in f"{target},{inputs or ''}".split(",") if name.strip()]
    for name in names:
        if name not in columns:
            raise ValueError(f"{source}: {unknown('column', name, columns)}")
    return {name: columns[name] for name in names}


def _is_number(cell):
    try:
        return np.isfinite(float(cell))
    except ValueError:
        return False
