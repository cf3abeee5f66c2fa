"""Series from a table in a file."""

import hashlib
import itertools
import os
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from rnnjax.tasks.common import unknown
from rnnjax.tasks.table_cells import Cells, read_cells
from rnnjax.tasks.table_dates import dates_after, find_dates, find_step, is_date
from rnnjax.tasks.table_numbers import decimal_mark, is_missing, is_number, read_numbers

MOST_SAID = 500  # characters of a complaint: tables may have hundreds of columns, and cells hold whole texts
FILLS = ("refuse", "previous", "linear")


class Table(NamedTuple):
    """Series side by side, a row a step."""

    name: str
    times: list[str]  # [N], as the file writes them; "" where it has none
    step: str | None  # from row to row: minute, hour, day, weekday, week, month, quarter, year; None: unknown
    columns: dict[str, np.ndarray]  # name -> float64 [N]: the targets, then the inputs, in the order they are asked for
    sha256: str  # of the file, or of the settings that a made series is made from
    notes: tuple[str, ...] = ()  # what a reader should know, such as gaps and cells that were filled
    targets: int = 1  # how many of the columns are targets; a column that is asked for as both is one
    written: str | None = None  # how times are written, for `times_after`


def read_table(
    path: str | os.PathLike,
    *,
    target: str | None = None,
    inputs: str | None = None,
    missing: str = "refuse",
    date: str | None = None,
    where: str | None = None,
    dates: str | None = None,
    decimal: str | None = None,
) -> Table:
    """The columns `target` and `inputs` of a CSV file, names separated by commas, as float64.

    Args:
      target: what is to be forecast; may be left out where the table has one column of numbers.
      missing: what is done about cells without a value. `refuse` raises; `previous` takes the last value before;
        `linear` draws a line between the values before and after, so that a step then knows of later ones.
      date: the column that says when; by default it is found, see `find_dates`, and `rows` is for rows that are to be
        taken in the order in which they stand. Rows are sorted by it, each date may stand once, and gaps are noted.
      where: COLUMN=VALUE, the rows to take, such as symbol=AAPL.
      dates: dmy or mdy where 01/02/2020 could be either, unix for seconds since 1970.
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
        cells = read_cells(content, lambda cell: is_number(cell) or is_date(cell))
        if where is not None:
            cells = _rows_where(cells, where)
        asked = [*choose(target or "", cells.columns), *choose(inputs or "", cells.columns)]
        ordered = date == "rows" and date not in cells.columns
        found = None if ordered else find_dates(cells.columns, cells.rows, asked, date, dates)
        times, step, of_dates = [""] * len(cells.rows), None, []
        if found:
            cells, found, of_dates = _in_order(cells, found)
            times, step = list(cells.columns.pop(found.column)), find_step(found.moments).name
        columns, targets, notes = _series(cells, target, inputs, missing, decimal)
    except ValueError as error:
        said = " ".join(str(error).split())  # one line, though cells may have several
        said = said if len(said) <= MOST_SAID else f"{said[:MOST_SAID]} ..."
        raise ValueError(f"{os.fspath(path)}: {said}") from None
    sha256, written = hashlib.sha256(content).hexdigest(), found.pattern if found else None
    return Table(pathlib.Path(path).name, times, step, columns, sha256, (*of_dates, *notes), targets, written)


def times_after(table: Table, n: int) -> list[str]:
    """The `n` times after the last row, written as the table writes them; the steps' numbers where it has none."""
    dates = dates_after(table.times, table.written, n) if table.written else []
    return dates or [str(len(table.times) + i) for i in range(1, n + 1)]


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


def _in_order(cells, found):
    """(cells, dates) with the dates ascending, and notes on that and on gaps. Raises ValueError for a date twice."""
    moments, notes = found.moments, []
    order = sorted(range(len(moments)), key=moments.__getitem__)
    for i, j in itertools.pairwise(order):
        if moments[i] == moments[j]:
            raise ValueError(
                f"column {found.column!r} has {cells.columns[found.column][j]!r} in row {cells.rows[i]} and in row "
                f"{cells.rows[j]}; allowed: each date once, {_hint(cells, found.column)}or date=rows to take the "
                "rows in the order in which they stand"
            )
    if order != list(range(len(order))):
        newest_first = order == list(range(len(order)))[::-1]
        notes.append(f"the rows {'stand newest first' if newest_first else 'are out of order'}, and are sorted by date")
    cells, found = _taken(cells, order), found._replace(moments=[moments[i] for i in order])
    gaps = np.flatnonzero(find_step(found.moments).gaps)
    if len(gaps):
        said = "there is 1 gap" if len(gaps) == 1 else f"there are {len(gaps)} gaps, the first"
        after = cells.columns[found.column][gaps[0]]
        notes.append(f"column {found.column!r}: {said} after {after} (row {cells.rows[gaps[0]]}); rows count as steps")
    return cells, found, notes


def _hint(cells, date):
    """A column and a value that `where` may be, where a column looks as if it said whose rows they are."""
    for name, column in cells.columns.items():
        if name != date and not _all_numbers(column) and 1 < len(set(column)) <= len(column) / 2:
            return f"such as with where={name}={column[0]}, "
    return ""


def _series(cells, target, inputs, missing, decimal):
    """(name -> values, how many are targets, notes) of the columns asked for."""
    columns = cells.columns
    of_numbers = {name: column for name, column in columns.items() if _all_numbers(column)}
    if target is None and not of_numbers:
        raise ValueError(f"no column is of numbers: {', '.join(columns)}; allowed: a table with a number in each row")
    if target is None and len(of_numbers) != 1:
        raise ValueError(f"target is not given; allowed: {', '.join(of_numbers)}")
    targets = list(of_numbers) if target is None else choose(target, columns)
    asked = list(dict.fromkeys(targets + choose(inputs or "", columns)))
    mark = decimal_mark(of_numbers | {name: columns[name] for name in asked}, cells.delimiter, decimal)
    values, notes = {}, []
    for name in asked:
        values[name], note = _filled(name, read_numbers(name, columns[name], cells.rows, mark), cells.rows, missing)
        notes += note
        if (values[name] == values[name][0]).all():
            said = f"column {name!r} is {values[name][0]:g} in every row"
            if name in targets:
                raise ValueError(f"{said}: there is nothing to forecast; allowed: a target that changes")
            notes.append(said)
    return values, len(targets), tuple(notes)


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
