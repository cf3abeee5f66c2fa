"""A table in a file, from bytes to columns of text: encoding, delimiter, quotes and header."""

import codecs
import contextlib
import csv
import io
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

DELIMITERS = "\t;|, "  # where two fit alike, the first
ONE_COLUMN = "\x1f"  # a delimiter that no text has
WINDOW = 1000  # rows that the delimiter is judged by


class Cells(NamedTuple):
    """A table as text."""

    columns: dict[str, Sequence[str]]  # name -> a cell a row, without the spaces around it
    rows: Sequence[int]  # the number of each row in the file, as a spreadsheet counts, from 1, header and blanks too
    delimiter: str


def read_cells(content: bytes, is_value: Callable[[str], bool]) -> Cells:
    """The cells of a CSV file or its like.

    The encoding is that of a byte order mark, or UTF-8, or else Windows-1252. The delimiter is the tab, semicolon, bar,
    comma or run of spaces that gives the most rows as many cells as the first. The first row is a header unless a cell
    of it is a value, a number or a date; the columns are then called 1, 2 and so on. Raises ValueError for what is
    no table, with the row.
    """
    text = _decode(content)
    if not re.search(r"[^\s;|,\"]", text):
        raise ValueError("it is empty; allowed: a table with a header and two rows or more")
    delimiter = _delimiter(text)
    numbered = [(i, [cell.strip() for cell in row]) for i, row in enumerate(_split(text, delimiter), start=1)]
    numbered = [(i, row) for i, row in numbered if any(row)]
    first, header = numbered[0]
    if any(map(is_value, header)):
        names = [str(i) for i in range(1, len(header) + 1)]
    else:
        names = [" ".join(name.split()) or str(i) for i, name in enumerate(header, start=1)]
        numbered = numbered[1:]
    if not numbered:
        raise ValueError("it has a header and no rows; allowed: two rows or more")
    width = len(names)
    for i, row in numbered:
        if len(row) != width:
            if len(row) < width or any(row[width:]):
                raise ValueError(
                    f"row {i} has {_count(len(row), 'cell')} and row {first} has {width}; "
                    "allowed: as many cells in each row"
                )
            del row[width:]
    columns: dict[str, Sequence[str]] = dict(zip(names, zip(*(row for _, row in numbered), strict=True), strict=True))
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise ValueError(f"row {first} has two columns called {twice!r}; allowed: one of a name")
    if not numbered[1:]:
        raise ValueError(f"it has one row of values, row {numbered[0][0]}; allowed: two rows or more")
    return Cells(columns, [i for i, _ in numbered], delimiter)


def _decode(content):
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = content.decode("utf-16", errors="replace")
    else:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("cp1252", errors="replace")
    control = re.search(r"[\x00-\x08\x0e-\x1f]", text)
    if control:
        raise ValueError(
            f"it is no text: character {control.start() + 1} is {control[0]!r}; "
            "allowed: a table as text, such as a spreadsheet saves as CSV"
        )
    return text


def _split(text: str, delimiter: str) -> Iterator[list[str]]:
    lines = io.StringIO(text, newline="")
    rows = csv.reader(
        map(str.strip, lines) if delimiter == " " else lines, delimiter=delimiter, skipinitialspace=True, strict=True
    )
    done = 0
    try:
        for cells in rows:
            done += 1
            yield cells
    except csv.Error as error:
        said = "a quote is not closed" if "unexpected end" in str(error) else str(error)
        raise ValueError(f"row {done + 1}: {said}") from None


def _delimiter(text):
    best, most = ONE_COLUMN, 0.0
    for delimiter in DELIMITERS:
        widths = []
        with contextlib.suppress(ValueError):  # said when the rows are read
            rows = itertools.islice(_split(text, delimiter), WINDOW)
            widths.extend(len(row) for row in rows if any(cell.strip() for cell in row))
        share = widths.count(widths[0]) / len(widths) if widths and widths[0] > 1 else 0
        if share > most and (delimiter != " " or share == 1):
            best, most = delimiter, share
    return best


def _count(n, noun):
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
