"""Series from a table in a file."""

import hashlib
import os
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from rnnjax.tasks.common import unknown
from rnnjax.tasks.table_cells import Cells, read_cells
from rnnjax.tasks.table_numbers import decimal_mark, is_missing, is_number, read_numbers

FILLS = ("refuse", "previous", "linear")


class Table(NamedTuple):
    """Series side by side, a row a step."""

    name: str
    times: list[str]  # [N], as the file writes them; "" where it has none
    step: str | None  # from row to row: hour, day, weekday, week, month, quarter, year; None: unknown
    columns: dict[str, np.ndarray]  # name -> float64 [N]: the targets, then the inputs, in the order they are asked for
    sha256: str  # of the file, or of the settings that a made series is made from
    notes: tuple[str, ...] = ()  # what a reader should know, such as gaps and cells that were filled


def read_table(
    path: str | os.PathLike,
    *,
    target: str | None = None,
    inputs: str | None = None,
    missing: str = "refuse",
    where: str | None = None,
    decimal: str | None = None,
) -> Table:
    """The columns `target` and `inputs` of a CSV file, names separated by commas, as float64.

    Args:
      target: what is to be forecast; may be left out where the table has one column of numbers.
      missing: what is done about cells without a value. `refuse` raises; `previous` takes the last value before;
        `linear` draws a line between the values before and after, so that a step then knows of later ones.
      where: COLUMN=VALUE, the rows to take, such as symbol=AAPL.
      decimal: the decimal mark, "." or ","; by default what the numbers show.

    Encoding, delimiter and header are found, see `read_cells`; so are decimal and thousands marks, see
    `decimal_mark`, and signs of percent and currencies are left out. Raises ValueError, in one line that names the
    file, and the column and row, for what cannot be read so.
    """
    if missing not in FILLS:
        hint = "; leaving rows out would move later ones in time" if missing == "drop" else ""
        raise ValueError(f"missing is {missing!r}{hint}; allowed: {', '.join(FILLS)}")
    content = _bytes(path)
    try:
        cells = read_cells(content, is_number)
        if where is not None:
            cells = _rows_where(cells, where)
        columns, notes = _series(cells, target, inputs, missing, decimal)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from None
    times = _times(cells)
    return Table(pathlib.Path(path).name, times, None, columns, hashlib.sha256(content).hexdigest(), notes)


def times_after(table: Table, n: int) -> list[str]:
    """The `n` times after the last row, written as the table writes them; the steps' numbers where it has none."""
    return [str(len(table.times) + i) for i in range(1, n + 1)]


def choose(names: str, columns: Mapping[str, object]) -> list[str]:
    """The columns called in `names`, separated by commas, or the one column of this name.

    Raises ValueError for a name that is none of a column, with the nearest one that is.
    """
    chosen = [names] if names in columns else [name.strip() for name in names.split(",") if name.strip()]
    for name in chosen:
        if name not in columns:
            raise unknown("column", name, columns)
    return list(dict.fromkeys(chosen))


def _bytes(path):
    if os.path.isdir(path):
        raise ValueError(f"{os.fspath(path)}: it is a directory; allowed: a file")
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{os.fspath(path)}: {error.strerror or error}") from None


def _rows_where(cells, where):
    name, equals, value = (part.strip() for part in where.partition("="))
    if not equals:
        raise ValueError(f"where is {where!r}; allowed: COLUMN=VALUE")
    if name not in cells.columns:
        raise unknown("column", name, cells.columns)
    kept = [i for i, cell in enumerate(cells.columns[name]) if cell == value]
    if not kept:
        raise unknown(f"value of column {name!r}", value, sorted(set(cells.columns[name]))[:20])
    if len(kept) == 1:
        raise ValueError(f"where={where} takes one row, row {cells.rows[kept[0]]}; allowed: two rows or more")
    return _taken(cells, kept)


def _taken(cells, kept):
    columns = {name: [column[i] for i in kept] for name, column in cells.columns.items()}
    return Cells(columns, [cells.rows[i] for i in kept], cells.delimiter)


def _times(cells):
    texts = (list(column) for column in cells.columns.values() if not any(map(is_number, column)))
    return next(texts, [""] * len(cells.rows))


def _series(cells, target, inputs, missing, decimal):
    """(name -> values, notes) of the columns asked for."""
    columns = cells.columns
    of_numbers = {name: column for name, column in columns.items() if _all_numbers(column)}
    if target is None and len(of_numbers) != 1:
        raise ValueError(f"target is not given; allowed: {', '.join(of_numbers) or 'none, no column is of numbers'}")
    targets = list(of_numbers) if target is None else choose(target, columns)
    asked = list(dict.fromkeys(targets + choose(inputs or "", columns)))
    mark = decimal_mark(of_numbers | {name: columns[name] for name in asked}, cells.delimiter, decimal)
    values, notes = {}, []
    for name in asked:
        values[name], note = _filled(name, read_numbers(name, columns[name], cells.rows, mark), cells.rows, missing)
        notes += note
        if np.ptp(values[name]) == 0:
            said = f"column {name!r} is {values[name][0]:g} in every row"
            if name in targets:
                raise ValueError(f"{said}: there is nothing to forecast; allowed: a target that changes")
            notes.append(said)
    return values, tuple(notes)


def _all_numbers(column):
    try:
        return bool(np.isfinite(list(map(float, column))).any())
    except ValueError:
        return all(is_number(cell) or is_missing(cell) for cell in column) and not all(map(is_missing, column))


def _filled(name, values, rows, missing):
    """(values without NaN, notes)."""
    empty = np.isnan(values)
    if not empty.any():
        return values, []
    at = np.flatnonzero(empty)
    said = f"column {name!r} has no value in row {rows[at[0]]}"
    if len(at) > 1:
        said += f", and in {len(at) - 1} other row{'s' if len(at) > 2 else ''}"
    known = np.flatnonzero(~empty)
    if not len(known):
        raise ValueError(f"column {name!r} has no value in any row; allowed: a column of numbers")
    if missing == "refuse":
        raise ValueError(f"{said}; allowed: values, or missing=previous or missing=linear to fill them in")
    if missing == "previous":
        if empty[0]:
            raise ValueError(f"{said}, and none before it to take; allowed: missing=linear")
        return values[np.maximum.accumulate(np.where(empty, 0, np.arange(len(values))))], [
            f"{said}: filled with the value before"
        ]
    filled = np.interp(np.arange(len(values)), known, values[known])
    return filled, [f"{said}: filled along a line to the next value, which looks ahead"]
