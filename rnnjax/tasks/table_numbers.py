"""Numbers as people write them: decimal comma or point, thousands, percent and currency signs, missing values."""

import re
from collections.abc import Sequence

import numpy as np

from rnnjax.tasks.common import unknown

MISSING = frozenset(("", "na", "n/a", "#n/a", "nan", "null", "none", "-", "--", "?", "."))
OTHER = {".": ",", ",": "."}
SPACES = " \u00a0\u2009\u202f"
CURRENCY = "[$€£¥₹]"


def is_missing(cell: str) -> bool:
    """Whether a cell says that there is no value: empty, NA, NaN, null, -, ? and their like."""
    return cell.lower() in MISSING


def is_number(cell: str) -> bool:
    """Whether a cell is a number with either decimal mark."""
    return any(pattern.fullmatch(cell) for pattern in _NUMBER.values())


def decimal_mark(columns: dict[str, Sequence[str]], delimiter: str, told: str | None = None) -> str:
    """The decimal mark of a table, "." or ",", as all of its number columns (name -> cells) together show it.

    A mark that stands before other than three digits, after a lone 0 or more than three digits, or after the other
    mark is the decimal one; a mark that stands twice in a number groups thousands. Where all that is written could be
    either, as 1,234, a point is taken for the decimal mark and, between commas as delimiters, a comma for a mark of
    thousands; in tables with other delimiters neither is assumed.

    Raises ValueError where columns contradict each other, or nothing decides.
    """
    if told is not None:
        if told not in OTHER:
            raise unknown("decimal", told, OTHER)
        return told
    shown: dict[str, tuple[str, str]] = {}
    open_to_doubt: dict[str, tuple[str, str]] = {}
    for name, cells in columns.items():
        text = "\n".join(cells)
        for mark in OTHER:
            found = _DECIMAL[mark].search(text)
            if found:
                shown.setdefault(mark, (name, _line(text, found.start())))
            elif mark in text:
                doubt = re.search(rf"\d{re.escape(mark)}\d", text)
                if doubt:
                    open_to_doubt.setdefault(mark, (name, _line(text, doubt.start())))
    if len(shown) == 2:
        (a, one), (b, two) = shown["."], shown[","]
        raise ValueError(
            f"column {a!r} has {one!r} and column {b!r} has {two!r}: is the decimal mark . or ,? "
            f"allowed: decimal=. or decimal=, and the other mark for thousands alone"
        )
    if shown:
        return next(iter(shown))
    doubtful = open_to_doubt.get(",") if delimiter != "," else None
    doubtful = doubtful or (open_to_doubt.get(".") if delimiter == ";" else None)
    if doubtful:
        name, cell = doubtful
        whole, _, part = re.sub(r"[^\d.,]", "", cell).replace(",", ".").partition(".")
        raise ValueError(
            f"column {name!r} has {cell!r}, which may be {whole}{part} or {whole}.{part}; "
            "allowed: decimal=. or decimal=,"
        )
    return "."


def read_numbers(name: str, cells: Sequence[str], rows: Sequence[int], decimal: str = ".") -> np.ndarray:
    """Cells `[N]` as float64, NaN where missing; `name` and `rows`, the number of each cell's row, are for complaints.

    A percent or currency sign is left out where every number of the column has the same one, so 12% is 12. Raises
    ValueError for what is no finite number.
    """
    try:
        values = np.array(list(map(float, cells))) if decimal == "." else None
    except ValueError:
        values = None
    if values is not None and np.isfinite(values).all():
        return values
    values, pattern = np.empty(len(cells)), _NUMBER[decimal]
    units: dict[str, int] = {}  # each, and the first cell that has it
    for i, cell in enumerate(cells):
        if cell.lower() in MISSING:
            values[i] = np.nan
            continue
        found = pattern.fullmatch(cell)
        if not found:
            raise ValueError(f"column {name!r}, row {rows[i]}: {_complaint(cell, decimal)}")
        digits = re.sub(rf"[{OTHER[decimal]}{SPACES}'’]", "", found["number"]).replace(decimal, ".")
        negative = "-" in (found["sign"], found["sign_after"]) or "−" in (found["sign"], found["sign_after"])
        values[i] = -float(digits) if negative or found["open"] else float(digits)
        if not np.isfinite(values[i]):
            raise ValueError(f"column {name!r}, row {rows[i]}: {cell!r} is not finite")
        units.setdefault(found["unit"] or found["unit_after"] or "", i)
    if len(units) > 1:
        (_, i), (_, j) = sorted(units.items(), key=lambda item: item[1])[:2]
        raise ValueError(
            f"column {name!r} has {cells[i]!r} in row {rows[i]} and {cells[j]!r} in row {rows[j]}; allowed: one unit"
        )
    return values


def _complaint(cell, decimal):
    if cell.lower().lstrip("+-") in ("inf", "infinity"):
        return f"{cell!r} is not finite"
    if _NUMBER[OTHER[decimal]].fullmatch(cell):
        return f"{cell!r} is no number with the decimal mark {decimal!r}"
    return f"{cell!r} is no number"


def _line(text, position):
    return text[text.rfind("\n", 0, position) + 1 :].partition("\n")[0]


def _number(decimal):
    group = rf"[{OTHER[decimal]}{SPACES}'’]"
    whole = rf"(?:\d{{1,3}}(?:{group}\d{{2,3}})*{group}\d{{3}}|\d+)"
    return re.compile(
        rf"(?P<open>\()?(?P<sign>[+\-−])? *(?P<unit>{CURRENCY})?[{SPACES}]*(?P<sign_after>[+\-−])?"
        rf"(?P<number>(?=[.,]?\d){whole}?(?:[{decimal}]\d*)?(?:[eE][+-]?\d+)?)"
        rf"[{SPACES}]*(?P<unit_after>%|{CURRENCY})?(?(open)\))"
    )


_NUMBER = {mark: _number(mark) for mark in OTHER}
_DECIMAL = {
    mark: re.compile(
        rf"(?<![\d.,])0*[{mark}]\d|\d{{4}}[{mark}]\d|\d[{mark}]\d{{0,2}}(?![\d.,])|[{mark}]\d{{4}}|[{mark}]\d+[eE]"
        rf"|[{other}]\d+[{mark}]|[{other}]\d+[{other}]"
    )
    for mark, other in OTHER.items()
}
