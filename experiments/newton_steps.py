"""How many steps Newton's method in time takes, against the largest Lyapunov exponent; and on chaotic systems.

    python experiments/newton_steps.py --out=runs/newton_steps                       # tanh networks of growing gain
    python experiments/newton_steps.py --study=observers --out=runs/observers        # chaotic systems, and observers
    python experiments/newton_steps.py --quick --out=runs/quick                      # a smaller one, in seconds

After Gonzalez et al. (2025, arXiv:2508.16817), figures 2 and 7, and table 1; in float64. Prints a table and writes
newton_steps.csv into --out, and of the networks newton_steps.png and newton_steps_dark.png.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from command_line import define_path, main_with_errors
from rich.console import Console
from rich.table import Table

from rnnjax import intervals, runs
from rnnjax.diagnostics.newton_steps import NewtonSteps, newton_steps
from rnnjax.figures import study_plots
from rnnjax.types import Array, Cell

DT, TOLERANCE, GIVE_UP = 0.01, 1e-10, 30


class Row(NamedTuple):
    """One trajectory."""

    name: str  # the gain, or the system
    seed: int
    found: NewtonSteps


def networks(units: int, T: int, gains: np.ndarray, seeds: int) -> Iterator[Row]:
    """s_t = W tanh(s_{t-1}) + u_t, W = g N(0, 1/D) without its diagonal, u_t a sine a unit; s_0 and guess uniform."""
    cell = Cell(None, lambda w, shape: jnp.zeros((*shape, units)), lambda w, s, u: jnp.tanh(s) @ w["W"] + u)

    @jax.jit
    def one(gain, key):
        keys = jax.random.split(key, 6)
        W = gain * jax.random.normal(keys[0], (units, units)) / units**0.5 * (1 - jnp.eye(units))
        size, rate, phase = (
            jax.random.uniform(k, (units,), float, low, high)
            for k, low, high in zip(keys[1:4], (0, 0.5, 0), (0.2, 3, 2 * np.pi), strict=True)
        )
        u = size * jnp.sin(rate * jnp.arange(T)[:, None] + phase)
        start, guess = (
            jax.random.uniform(k, shape, float, -1) for k, shape in zip(keys[4:], ((units,), u.shape), strict=True)
        )
        return newton_steps(cell, {"W": W}, u, start, tolerance=TOLERANCE, guess=guess)

    for gain in gains:
        for seed in range(seeds):
            yield Row(f"{gain:.2f}", seed, jax.device_get(one(gain, jax.random.key(seed))))


class System(NamedTuple):
    """A chaotic flow, and what of its state an observer is told."""

    flow: Callable[..., tuple]  # (x, y, z) -> its rate of change
    start: tuple[float, float, float]
    told: tuple[int, ...]  # the coordinates that are known


def chua(x, y, z):
    """Chua's circuit, with its three pieces."""
    return 15.6 * (y - x + 0.71429 * x + 0.214285 * (abs(x + 1) - abs(x - 1))), x - y + z, -28 * y


SYSTEMS = {
    "Lorenz": System(lambda x, y, z: (10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z), (-9.8, -15, 20.5), (1,)),
    "Kawczynski-Strizhak": System(
        lambda x, y, z: (0.49 * (y - x**3 + 6.3 * x), -4.2 * x - y - z - 0.4, 0.2 * (x - z)), (-1.2, 5.9, -1.2), (0, 1)
    ),
    "Thomas": System(
        lambda x, y, z: (10 * jnp.sin(y) - 1.85 * x, 10 * jnp.sin(z) - 1.85 * y, 10 * jnp.sin(x) - 1.85 * z),
        (2.2, 2.4, 3.2),
        (1,),
    ),
    "Chua": System(chua, (1.1, -0.1, -0.8), (1,)),
}


def observers(T: int, seeds: int) -> Iterator[Row]:
    """Each system by itself, and an observer that is told some coordinates and one random projection of the others.

    Euler steps of 0.01. x' = f(x, what is told in its place) + C (C x_true - C x), C normal `[3]`.
    """
    for name, system in SYSTEMS.items():
        run = jax.jit(lambda key, system=system: alone_and_observed(system, T, key))
        for seed in range(seeds):
            for which, found in zip(("alone", "observed"), jax.device_get(run(jax.random.key(seed))), strict=True):
                yield Row(f"{name}, {which}", seed, found)


def alone_and_observed(system: System, T: int, key: Array) -> tuple[NewtonSteps, NewtonSteps]:
    """Of a system, and of its observer, which begins elsewhere."""
    keys = jax.random.split(key, 3)
    C, told = jax.random.normal(keys[0], (3,)), jnp.isin(jnp.arange(3), jnp.array(system.told))

    def alone(weights, x, z):
        return x + DT * jnp.stack(system.flow(*jnp.moveaxis(x, -1, 0)), -1) + 0 * z

    def observed(weights, x, true):
        x = jnp.where(told, true, x)
        return alone(weights, x, true) + DT * C * ((true - x) @ C)[..., None]

    start = jnp.array(system.start)
    _, true = jax.lax.scan(lambda x, z: (alone(None, x, z), x), start, jnp.zeros((T, 3)))
    guess, elsewhere = jax.random.normal(keys[1], (T, 3)), start + jax.random.normal(keys[2], (3,))
    limits = {"tolerance": TOLERANCE, "max_iterations": GIVE_UP}

    def steps(step, first):
        cell = Cell(None, lambda w, shape: jnp.zeros((*shape, 3)), step)
        return newton_steps(cell, {}, true, first, guess=guess, **limits)

    return steps(alone, start), steps(observed, elsewhere)


def table(rows: list[Row], first: str) -> Table:
    """A line a name."""
    shown = Table(caption="medians, and from the lowest to the highest seed; the error is that of those that converged")
    for column in (first, "Lyapunov exponent a step", "Newton steps", "converged", "largest error"):
        shown.add_column(column, justify="left" if column == first else "right", no_wrap=True)
    for name in dict.fromkeys(row.name for row in rows):
        found = [row.found for row in rows if row.name == name]
        steps = [int(f.iterations) for f in found]
        shown.add_row(
            name,
            f"{intervals.median([float(f.exponent) for f in found]):+.4f}",
            f"{intervals.median(steps):g} ({min(steps)} to {max(steps)})",
            f"{sum(bool(f.converged) for f in found)} of {len(found)}",
            f"{max((float(f.error) for f in found if f.converged), default=np.nan):.0e}",
        )
    return shown


def as_csv(rows: list[Row], first: str) -> str:
    """A line a trajectory."""
    lines = [",".join((first, "seed", *NewtonSteps._fields))]
    lines += [",".join(f'"{v}"' if "," in str(v) else str(v) for v in (r.name, r.seed, *r.found)) for r in rows]
    return "\n".join(lines) + "\n"


def main(_) -> int:
    out, quick = runs.own_directory(OUT.value, "newton_steps"), QUICK.value
    with jax.enable_x64(True):
        if STUDY.value == "gains":
            T, units = (100, 20) if quick else (1000, 100)
            gains = np.linspace(0.5, 2, 4 if quick else 16)
            rows = list(networks(units, T, gains, 2 if quick else 5))
        else:
            rows = list(observers(300 if quick else 30000, 1 if quick else 5))
    first = {"gains": "gain", "observers": "system"}[STUDY.value]
    runs.write_file(out / "newton_steps.csv", as_csv(rows, first))
    Console(width=100).print(table(rows, first))
    if STUDY.value == "gains":
        points = [(float(r.name), float(r.found.exponent), int(r.found.iterations)) for r in rows]
        for dark in (False, True):
            study_plots.newton_steps(points, T, out / f"newton_steps{'_dark' * dark}.png", dark=dark)
        print(f"figure: {out / 'newton_steps.png'}")
    return runs.EXIT_DONE


if __name__ == "__main__":
    STUDY = flags.DEFINE_enum("study", "gains", ["gains", "observers"], "tanh networks, or chaotic systems")
    QUICK = flags.DEFINE_bool("quick", False, "a smaller one, in seconds")
    OUT = define_path("out", "runs/newton_steps", "where to write table and figure")
    main_with_errors(main)
