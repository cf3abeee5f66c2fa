"""Tables of a user's, and series that need no file."""

import hashlib

import numpy as np
import pytest

from rnnjax.tasks.signals import MADE, signal
from rnnjax.tasks.tables import read_table, times_after


def test_a_plain_csv_is_read_with_its_times_and_the_columns_asked_for(tmp_path):
    path = tmp_path / "sales.csv"
    path.write_text("date,price,sales\n2020-01-01,1.5,10\n2020-01-02,2.5,-3e1\n")
    table = read_table(path, target="sales", inputs="price")
    assert list(table.columns) == ["sales", "price"]
    np.testing.assert_array_equal(table.columns["sales"], [10, -30])
    np.testing.assert_array_equal(table.columns["price"], [1.5, 2.5])
    assert table.times == ["2020-01-01", "2020-01-02"] and table.name == "sales.csv"
    assert table.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


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
    with pytest.raises(ValueError, match=r"unknown signal 'lorentz'; did you mean 'lorenz'\?"):
        signal("lorentz")
    with pytest.raises(ValueError, match="lorenz: unknown column 'w'; allowed: x, y, z"):
        signal("lorenz", steps=3, inputs="w")
