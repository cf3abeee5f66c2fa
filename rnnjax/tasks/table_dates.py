"""Dates as people write them: read by one pattern a column, their step found, and written on in the same way."""

import calendar
import datetime
import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rnnjax.tasks.common import unknown

ORDERS = ("dmy", "mdy", "unix")  # what cannot be seen, and may be told
MONTHS = [calendar.month_name[i].lower() for i in range(1, 13)]  # in English: nothing here sets a locale
CALLED_DATE = re.compile(
    r"date|time|datum|zeit|fecha|year|jahr|month|monat|quarter|week|day|period|hour|^ds$|^dt$", re.I
)
SAMPLE = 1000  # cells that tell a column of dates from another
EPOCH = datetime.datetime(1970, 1, 1)

_TIME = (
    r"(?:(?:T|,? +)(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,]\d+)?)?(?: ?(?P<half>[AaPp][Mm]))?"
    r"(?: ?(?:Z|UTC|(?P<zone>[+-]\d{2}:?\d{2})))?)?"
)
_NAME = r"(?P<name>[A-Za-z]{3,9})\.?"
_PATTERNS = {
    key: re.compile(pattern)
    for key, pattern in {
        "ymd": rf"(?!\d+\.\d+$)(?P<year>\d{{4}})([-/.])(?P<month>\d{{1,2}})(?:\2(?P<day>\d{{1,2}}){_TIME})?",
        "dmy": rf"(?P<day>\d{{1,2}})([-/.])(?P<month>\d{{1,2}})\2(?P<year>\d{{4}}|\d{{2}}){_TIME}",
        "mdy": rf"(?P<month>\d{{1,2}})([-/.])(?P<day>\d{{1,2}})\2(?P<year>\d{{4}}|\d{{2}}){_TIME}",
        "my": r"(?P<month>\d{1,2})[-/](?P<year>\d{4})",
        "name": rf"{_NAME}[ /-]+(?:(?P<day>\d{{1,2}}),?[ /-]+)?(?P<year>\d{{4}}|\d{{2}}){_TIME}",
        "day name": rf"(?P<day>\d{{1,2}})\.?[ /-]*{_NAME}[ /,-]*(?P<year>\d{{4}}|\d{{2}}){_TIME}",
        "quarter": r"(?P<year>\d{4})[ -]?Q(?P<quarter>[1-4])",
        "quarter year": r"Q(?P<quarter>[1-4])[ /-]?(?P<year>\d{4})",
        "compact": r"(?P<year>(?:19|20)\d{2})(?P<month>\d{2})(?P<day>\d{2})",
        "year": r"(?P<year>(?:1[5-9]|2[01])\d{2})",
        "unix": r"(?P<unix>\d{1,14})(?:\.\d+)?",
    }.items()
}
_OF_NUMBERS = ("compact", "year")  # what reads as a number too, and is a date only in a column that is called one


class Dates(NamedTuple):
    """A column of dates."""

    column: str
    pattern: str
    moments: list[datetime.datetime]  # in UTC where the dates say how far they are off


def is_date(cell: str) -> bool:
    """Whether a cell is a date that cannot be a number."""
    return any(_moment(key, cell) for key in _PATTERNS if key not in (*_OF_NUMBERS, "unix"))


def find_dates(
    columns: Mapping[str, Sequence[str]],
    rows: Sequence[int],
    taken: Collection[str] = (),
    date: str | None = None,
    dates: str | None = None,
) -> Dates | None:
    """The column of dates, read; None where there is none.

    Args:
      columns: name -> a cell a row; `rows`, the number of each row, are for complaints.
      taken: columns that are something else.
      date: the name of the column. By default the first that is called a date and has some, else the first that has
        dates which cannot be numbers.
      dates: dmy, mdy or unix, where the cells do not show it.

    Raises ValueError for a cell that is no date among others that are, and where day and month may be either.
    """
    if dates is not None and dates not in ORDERS:
        raise unknown("dates", dates, ORDERS)
    if date is not None:
        if date not in columns:
            raise unknown("column", date, columns)
        return read_dates(date, columns[date], rows, dates)
    free = [name for name in columns if name not in taken]
    for name in sorted(free, key=lambda name: not CALLED_DATE.search(name)):  # those first
        called = bool(CALLED_DATE.search(name))
        if _patterns(columns[name][:SAMPLE], dates, called):
            return read_dates(name, columns[name], rows, dates, called)
    return None


def read_dates(
    name: str, cells: Sequence[str], rows: Sequence[int], dates: str | None = None, called: bool = True
) -> Dates:
    """The cells of one column as dates, see `find_dates`."""
    keys = _patterns(cells[:SAMPLE], dates, called)
    if not keys:
        raise ValueError(f"column {name!r}, row {rows[0]}: {cells[0]!r} is no date; allowed: such as 2020-01-31 14:00")
    read = {key: [_moment(key, cell) for cell in cells] for key in keys}
    whole = [key for key in keys if all(read[key])]
    if not whole:
        key = max(keys, key=lambda key: _before_none(read[key]))
        at = _before_none(read[key])
        like = next(cell for cell, moment in zip(cells, read[key], strict=True) if moment)
        raise ValueError(f"column {name!r}, row {rows[at]}: {cells[at]!r} is no date as {like!r} is")
    if {"dmy", "mdy"} <= set(whole) and read["dmy"] != read["mdy"]:
        at = next(i for i, pair in enumerate(zip(read["dmy"], read["mdy"], strict=True)) if pair[0] != pair[1])
        said = " or ".join(f"{read[key][at]:%B} {read[key][at].day}" for key in ("dmy", "mdy"))
        raise ValueError(
            f"column {name!r}, row {rows[at]}: {cells[at]!r} may be {said}; allowed: dates=dmy or dates=mdy"
        )
    return Dates(name, whole[0], read[whole[0]])


class Step(NamedTuple):
    """What is from one date to the next."""

    name: str | None  # minute, hour, day, weekday, week, month, quarter, year; None: another one
    months: int  # of the calendar; else 0
    seconds: int  # where it is no step of months; 0: dates without a step
    gaps: np.ndarray  # [N - 1], where more than a step is left out


def find_step(moments: Sequence[datetime.datetime]) -> Step:
    """The step of dates in ascending order, that which most of them have."""
    months = np.diff([moment.year * 12 + moment.month for moment in moments])
    seconds = np.diff([round((moment - EPOCH).total_seconds()) for moment in moments])
    days = {(moment.day, moment.time()) for moment in moments}
    about_a_month = np.ptp(months) == 0 and seconds.min() > 26 * 86400  # such as the last weekday of each
    if months.min() >= 1 and (len(days) == 1 or all(map(_ends_month, moments)) or about_a_month):
        unit, share = _most(months)
        if share >= 0.5:
            return Step({1: "month", 3: "quarter", 12: "year"}.get(unit), unit, 0, months > unit)
    unit, share = _most(seconds)
    if share < 0.5:
        return Step(None, 0, 0, np.zeros(len(seconds), bool))
    if unit == 86400 and (seconds > unit).any() and all(moment.weekday() < 5 for moment in moments):
        of_days = np.array([moment.date() for moment in moments], "datetime64[D]")
        return Step("weekday", 0, unit, np.busday_count(of_days[:-1], of_days[1:]) > 1)
    return Step({60: "minute", 3600: "hour", 86400: "day", 604800: "week"}.get(unit), 0, unit, seconds > unit)


def dates_after(times: Sequence[str], pattern: str, n: int) -> list[str]:
    """The `n` dates after `times`, written as they are; none where these have no step."""
    moments = [_moment(pattern, time) for time in times]
    step = find_step(moments)
    if not step.months and not step.seconds:
        return []
    found = [_PATTERNS[pattern].fullmatch(time) for time in times]
    zone = found[-1].groupdict().get("zone")
    offset = _offset(zone) if zone else datetime.timedelta()
    ends_month, at, texts = all(map(_ends_month, moments)), moments[-1], []
    for i in range(1, n + 1):
        if step.months:
            at = _months_later(moments[-1], i * step.months, ends_month)
        else:
            at += datetime.timedelta(seconds=step.seconds)
            while step.name == "weekday" and at.weekday() > 4:
                at += datetime.timedelta(days=1)
        texts.append(_write(at + offset, found))
    return texts


def _patterns(cells, dates, called):
    """The patterns that more than half of the cells follow."""
    keys = [key for key in _PATTERNS if called or key not in _OF_NUMBERS]
    keys = [
        key for key in keys if (key == "unix") == (dates == "unix") and not (key in ORDERS and dates not in (None, key))
    ]
    counts = {key: sum(_moment(key, cell) is not None for cell in cells) for key in keys}
    return [key for key in keys if counts[key] * 2 > len(cells)]


def _moment(key, cell):
    found = _PATTERNS[key].fullmatch(cell)
    if not found:
        return None
    part = found.groupdict()
    try:
        if key == "unix":
            seconds = int(part["unix"]) / (1000 if len(part["unix"]) > 11 else 1)
            return EPOCH + datetime.timedelta(seconds=seconds)
        year = int(part["year"])
        if len(part["year"]) == 2:
            year += 1900 if year > 68 else 2000  # as POSIX has it
        if part.get("name"):
            month = _month_called(part["name"])
        else:
            month = int(part["quarter"]) * 3 - 2 if part.get("quarter") else int(part.get("month") or 1)
        hour = int(part.get("hour") or 0)
        if part.get("half"):
            hour = hour % 12 + 12 * (part["half"].lower() == "pm")
        minute, second = int(part.get("minute") or 0), int(part.get("second") or 0)
        moment = datetime.datetime(year, month, int(part.get("day") or 1), hour, minute, second)
        return moment - _offset(part["zone"]) if part.get("zone") else moment
    except (ValueError, OverflowError):
        return None


def _month_called(name):
    """1 to 12; 0, which is none, for another word."""
    name = name.lower()
    return next((i for i, month in enumerate(MONTHS, 1) if name in (month, month[:3], month[:4])), 0)


def _offset(zone):
    minutes = int(zone[1:3]) * 60 + int(zone[-2:])
    return datetime.timedelta(minutes=-minutes if zone[0] == "-" else minutes)


def _before_none(moments):
    return next((i for i, moment in enumerate(moments) if moment is None), len(moments))


def _most(values):
    """(the commonest of them, its share)."""
    each, counts = np.unique(values, return_counts=True)
    return int(each[counts.argmax()]), counts.max() / counts.sum()


def _ends_month(moment):
    return moment.day == calendar.monthrange(moment.year, moment.month)[1]


def _months_later(moment, months, ends_month):
    year, month = divmod(moment.year * 12 + moment.month - 1 + months, 12)
    last = calendar.monthrange(year, month + 1)[1]
    return moment.replace(year=year, month=month + 1, day=last if ends_month else min(moment.day, last))


def _write(at, found):
    """A date in the last one's place: its text with each part set anew, as wide as the others show that part."""
    last, text = found[-1], found[-1][0]
    for name in sorted((name for name, part in last.groupdict().items() if part), key=last.start, reverse=True):
        if name not in ("half", "zone"):
            shown = [one[name] for one in found if one[name]]
            text = text[: last.start(name)] + _part(name, at, shown, last) + text[last.end(name) :]
        elif name == "half":
            half = ("pm" if at.hour > 11 else "am") if last["half"].islower() else ("PM" if at.hour > 11 else "AM")
            text = text[: last.start(name)] + half + text[last.end(name) :]
    return text


def _part(name, at, shown, last):
    if name == "name":
        month = MONTHS[at.month - 1]
        month = month if max(map(len, shown)) > 4 else month[:3]
        return month.upper() if shown[-1].isupper() else month if shown[-1].islower() else month.capitalize()
    if name == "year":
        return f"{at.year:04d}"[-len(shown[-1]) :]
    if name == "quarter":
        return str((at.month + 2) // 3)
    if name == "unix":
        return str(round((at - EPOCH).total_seconds() * (1000 if len(shown[-1]) > 11 else 1)))
    value, padded = getattr(at, name), min(map(len, shown)) > 1
    if name == "hour" and last.groupdict().get("half"):
        value, padded = (value - 1) % 12 + 1, any(part.startswith("0") for part in shown)
    return f"{value:02d}" if padded else str(value)
