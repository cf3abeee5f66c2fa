"""Dates of a table: read as they are written, put in order, and written on."""

import datetime

import numpy as np
import pytest

from rnnjax.tasks.table_dates import find_dates, find_step, read_dates
from rnnjax.tasks.tables import read_table, times_after


def of_dates(tmp_path, cells, **options):
    """A table with these dates and the values 1, 2, ..."""
    path = tmp_path / "t.csv"
    path.write_text("date\tv\n" + "".join(f"{cell}\t{i}\n" for i, cell in enumerate(cells, start=1)))
    return read_table(path, target="v", **options)


@pytest.mark.parametrize(
    ("dates", "step", "after"),
    [
        (["2020-02-27", "2020-02-28"], "day", ["2020-02-29", "2020-03-01"]),
        (["2020/1/9", "2020/1/10"], "day", ["2020/1/11", "2020/1/12"]),
        (["2021-12-30 22:00", "2021-12-30 23:00"], "hour", ["2021-12-31 00:00", "2021-12-31 01:00"]),
        (["2020-01-01T00:00:00Z", "2020-01-01T00:15:00Z"], None, ["2020-01-01T00:30:00Z", "2020-01-01T00:45:00Z"]),
        (["2020-01-01T23:00+02:00", "2020-01-02T00:00+02:00"], "hour", ["2020-01-02T01:00+02:00"]),
        (["1/31/2020 11:00 PM", "2/1/2020 12:00 AM"], "hour", ["2/1/2020 1:00 AM", "2/1/2020 2:00 AM"]),
        (["31.01.2020", "01.02.2020"], "day", ["02.02.2020"]),
        (["12/30/99", "12/31/99"], "day", ["01/01/00"]),
        (["2019-11", "2019-12"], "month", ["2020-01", "2020-02"]),
        (["11/2019", "12/2019"], "month", ["01/2020", "02/2020"]),
        (["2020-01-31", "2020-02-29", "2020-03-31"], "month", ["2020-04-30", "2020-05-31"]),
        (["2019-12-31", "2020-01-31", "2020-02-29"], "month", ["2020-03-31"]),
        (["2020-01-01 23:58", "2020-01-01 23:59"], "minute", ["2020-01-02 00:00"]),
        (["2020-01-30", "2020-03-30"], None, ["2020-05-30", "2020-07-30"]),
        (["Oct 1 2019", "Nov 1 2019"], "month", ["Dec 1 2019", "Jan 1 2020"]),
        (["Nov 2019", "Dec 2019"], "month", ["Jan 2020"]),
        (["March 31, 2020", "April 1, 2020"], "day", ["April 2, 2020"]),
        (["30-APR-2020", "1-MAY-2020"], "day", ["2-MAY-2020"]),
        (["2019-07-01", "2019-10-01"], "quarter", ["2020-01-01"]),
        (["2019Q3", "2019Q4"], "quarter", ["2020Q1", "2020Q2"]),
        (["Q4 2019", "Q1 2020"], "quarter", ["Q2 2020"]),
        (["1998", "1999"], "year", ["2000", "2001"]),
        (["20200228", "20200229"], "day", ["20200301"]),
        (["2020-01-06", "2020-01-13", "2020-01-20"], "week", ["2020-01-27"]),
        (
            ["2020-01-02", "2020-01-03", "2020-01-06", "2020-01-07"],
            "weekday",
            ["2020-01-08", "2020-01-09", "2020-01-10", "2020-01-13"],
        ),
        (["2020-01-01", "2020-01-02", "2020-01-06", "2020-02-01"], None, ["5", "6"]),
    ],
)
def test_dates_are_written_on_as_they_are_written(tmp_path, dates, step, after):
    table = of_dates(tmp_path, dates)
    assert table.times == dates and table.step == step and list(table.columns) == ["v"]
    assert times_after(table, len(after)) == after


def test_day_and_month_are_told_apart_by_the_whole_column_or_by_the_reader(tmp_path):
    assert read_dates("date", ["1/2/2020", "13/2/2020"], [2, 3]).moments[0] == datetime.datetime(2020, 2, 1)
    assert read_dates("date", ["1/2/2020", "1/13/2020"], [2, 3]).moments[0] == datetime.datetime(2020, 1, 2)
    assert times_after(of_dates(tmp_path, ["1/2/2020", "1/3/2020"], dates="dmy"), 1) == ["1/4/2020"]
    assert of_dates(tmp_path, ["1/2/2020", "1/3/2020"], dates="dmy").step == "month"
    assert of_dates(tmp_path, ["1/2/2020", "1/3/2020"], dates="mdy").step == "day"
    with pytest.raises(ValueError, match=r"column 'date', row 2: '1/2/2020' may be February 1 or January 2"):
        of_dates(tmp_path, ["1/2/2020", "1/3/2020"])


@pytest.mark.parametrize(
    ("cell", "moment"),
    [
        ("2020-01-01T01:30:15+02:00", (2019, 12, 31, 23, 30, 15)),
        ("2020-01-01 01:30-0500", (2020, 1, 1, 6, 30)),
        ("2020-01-01 01:30:15.25 UTC", (2020, 1, 1, 1, 30, 15)),
        ("1/31/69 12:05 am", (1969, 1, 31, 0, 5)),
        ("31.1.68 12:05", (2068, 1, 31, 12, 5)),
        ("Sept. 3, 2020", (2020, 9, 3)),
        ("3. June 2020 7:00 PM", (2020, 6, 3, 19)),
    ],
)
def test_a_date_is_the_moment_that_it_says(cell, moment):
    assert read_dates("date", [cell, cell], [2, 3]).moments[0] == datetime.datetime(*moment)


def test_seconds_since_1970_are_dates_where_that_is_told(tmp_path):
    table = of_dates(tmp_path, [1577836800, 1577840400], dates="unix")
    assert table.step == "hour" and times_after(table, 1) == ["1577844000"]
    moment = read_dates("t", ["1577836800500", "1577836801500"], [2, 3], "unix").moments[0]
    assert moment == datetime.datetime(2020, 1, 1, 0, 0, 0, 500_000)


def test_rows_are_put_in_order_and_gaps_are_noted(tmp_path):
    newest_first = of_dates(tmp_path, ["2020-01-05", "2020-01-03", "2020-01-02", "2020-01-01"])
    np.testing.assert_array_equal(newest_first.columns["v"], [4, 3, 2, 1])
    assert newest_first.times[0] == "2020-01-01" and newest_first.step == "day"
    assert newest_first.notes == (
        "the rows stand newest first, and are sorted by date",
        "column 'date': there is 1 gap after 2020-01-03 (row 3); rows count as steps",
    )
    mixed = of_dates(tmp_path, ["2020-02-01", "2020-04-01", "2020-03-01"])
    np.testing.assert_array_equal(mixed.columns["v"], [1, 3, 2])
    assert mixed.notes == ("the rows are out of order, and are sorted by date",)


def test_months_with_a_gap_and_weekdays_with_a_holiday_keep_their_step():
    def step(*dates):
        return find_step(read_dates("date", dates, range(len(dates))).moments)

    months = step("2020-01-01", "2020-02-01", "2020-04-01", "2020-05-01")
    assert months.name == "month" and months.gaps.tolist() == [False, True, False]
    days = step("2020-01-02", "2020-01-03", "2020-01-06", "2020-01-07", "2020-01-09")
    assert days.name == "weekday" and days.gaps.tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"v": ["1", "2"], "when": ["2020-01-01", "2020-01-02"]}, "when"),
        ({"a": ["2020-01-01", "2020-01-02"], "Date": ["2021-01-01", "2021-01-02"]}, "Date"),
        ({"year": ["2001", "2002"]}, "year"),
        ({"price": ["2001", "2002"]}, None),
        ({"rate": ["1.2345", "1.1999"], "big": ["2020.1", "2020.2"]}, None),
        ({"month": ["1", "2"], "name": ["May", "June"]}, None),
    ],
)
def test_the_column_of_dates_is_found(columns, found):
    dates = find_dates(columns, [2, 3])
    assert (dates.column if dates else None) == found


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (
            "date,v\n2020-01-01,1\n2020-02-30,2\n2020-01-03,3\n",
            {},
            "column 'date', row 3: '2020-02-30' is no date as '2020-01-01' is",
        ),
        ("date,v\n2020-01-01,1\n,2\n2020-01-03,3\n", {}, "column 'date', row 3: '' is no date as '2020-01-01' is"),
        (
            "day,v\nx,1\ny,2\n",
            {"date": "day"},
            "column 'day', row 2: 'x' is no date; allowed: such as 2020-01-31 14:00",
        ),
        ("day,v\nx,1\ny,2\n", {"date": "dya"}, "unknown column 'dya'; did you mean 'day'? allowed: day, v"),
        (
            "date,v\n2020-01-01,1\n2020-01-02,2\n",
            {"dates": "ydm"},
            "unknown dates 'ydm'; did you mean 'dmy'? allowed: dmy, mdy, unix",
        ),
        (
            "s,date,v\nA,2020,1\nA,2021,2\nB,2020,1\nB,2021,3\n",
            {},
            "column 'date' has '2020' in row 2 and in row 4; allowed: each date once, such as with where=s=A, or "
            "date=rows to take the rows in the order in which they stand",
        ),
    ],
)
def test_bad_dates_are_said_in_one_line(tmp_path, text, options, said):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ValueError) as error:
        read_table(path, target="v", **options)
    assert str(error.value) == f"{path}: {said}"


def test_rows_are_taken_as_they_stand_where_that_is_told(tmp_path):
    table = of_dates(tmp_path, ["2020-01-01", "2020-01-01"], date="rows")
    assert table.times == ["", ""] and table.step is None and times_after(table, 1) == ["3"]
