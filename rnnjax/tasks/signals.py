"""Series that need no file: noisy sines, Mackey-Glass and Lorenz."""

import hashlib
from collections.abc import Callable

import numpy as np

from rnnjax.tasks.common import check_integer, unknown
from rnnjax.tasks.tables import Table, choose


def signal(
    name: str, *, steps: int = 5000, seed: int = 0, target: str | None = None, inputs: str | None = None
) -> Table:
    """A series by its name: `steps` steps of sines, mackey_glass or lorenz, by default of its first column alone.

    Raises ValueError for an unknown name, an unknown column and too few steps.
    """
    if name not in MADE:
        raise unknown("signal", name, MADE)
    check_integer(name, "steps", steps, 2)
    columns = MADE[name](steps, np.random.default_rng(seed))
    settings = f"{name} 1 steps={steps} seed={seed}"
    chosen = choose(target or next(iter(columns)), columns) + choose(inputs or "", columns)
    columns = {column: columns[column] for column in chosen}
    return Table(name, [""] * steps, None, columns, hashlib.sha256(settings.encode()).hexdigest())


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
