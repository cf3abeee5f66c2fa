"""Every way through time that a cell can take: equal values and gradients, and what each costs on this machine."""

import csv
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rnnjax import runs
from rnnjax.diagnostics.lyapunov import lyapunov_spectrum
from rnnjax.engine.memory import device_bytes
from rnnjax.engine.newton import newton_solve
from rnnjax.engine.runners import RUNNERS
from rnnjax.engine.unroll import unroll
from rnnjax.reports.costs import median_seconds, working_bytes
from rnnjax.types import Array, Cell, Params, prepared

TOO_FAR = 1e-3  # of the largest number: beyond rounding, a way would be another function


class Way(NamedTuple):
    """One way through time: what a forward and a backward pass take, and how far they are from the plain scan's."""

    method: str
    seconds: float  # not a number where it would take more than half of the memory, and is not run
    working_bytes: int | None  # beside arguments and results; None where the compiler does not say
    values: float  # the largest difference of an output, over the largest output
    gradients: float  # likewise of the gradients by parameters and inputs, each over its largest
    iterations: int | None  # where it is iterative

    @property
    def agrees(self) -> bool:
        """Whether it computes what the scan does, but for rounding."""
        return max(self.values, self.gradients) <= TOO_FAR


class Subject(NamedTuple):
    """A cell, its parameters and what it reads."""

    cell: Cell
    params: Params
    xs: Array  # [T, B, D]


def methods_of(cell: Cell) -> list[str]:
    """Every method that the cell can have, with the options that are worth trying, and what "auto" makes of them."""
    named = [
        method
        for name, runner in RUNNERS.items()
        if isinstance(cell.form, runner.form)
        for method in (name, *(f"{name}:{option}" for option in runner.tried))
    ]
    return [*named, "auto"]


def ways(subject: Subject, methods: Sequence[str] | None = None) -> list[Way]:
    """What each method takes and gives: a gradient by parameters and inputs of a sum of squares of all outputs.

    Args:
      subject: what is run.
      methods: as in `unroll`; by default `methods_of` the cell.
    """
    plain = _measure(subject, "scan")[2]
    found = []
    for method in methods or methods_of(subject.cell):
        seconds, size, results = _measure(subject, method)
        if results is None:
            found.append(Way(method, seconds, size, math.nan, math.nan, None))
            continue
        values, gradients = map(_largest_difference, results, plain)
        found.append(Way(method, seconds, size, values, gradients, _iterations(subject, method)))
    return found


def largest_exponent(subject: Subject) -> float:
    """The largest Lyapunov exponent along the first sequence, without its first quarter, natural logarithm a step."""
    T = subject.xs.shape[0]
    run = jax.jit(lambda p, xs: lyapunov_spectrum(subject.cell, p, xs, k=1, transient=T // 4, batches=2).exponents[0])
    return float(run(subject.params, subject.xs[:, 0]))


def ways_table(found: Sequence[Way]) -> str:
    """Markdown: a line a way, the quickest in bold."""
    lines = ["| method | milliseconds | working memory | iterations | difference of values | of gradients |"]
    lines += ["|---|---:|---:|---:|---:|---:|"]
    quickest = min((way for way in found if way.agrees), key=lambda way: way.seconds, default=None)
    for way in found:
        size = "" if way.working_bytes is None else f"{way.working_bytes / 2**20:.1f} MiB"
        name = f"**{way.method}**" if way is quickest else way.method
        apart = f"{way.values:.0e} | {way.gradients:.0e}" + ("" if way.agrees else " (too far)")
        if math.isnan(way.seconds):
            lines.append(f"| {name} | not run | {size} | | | |")
        else:
            lines.append(f"| {name} | {1e3 * way.seconds:.3g} | {size} | {way.iterations or ''} | {apart} |")
    return "\n".join(lines) + "\n"


def about_exponent(exponent: float) -> str:
    """What the largest exponent says of Newton's method, in two sentences."""
    head = f"The largest Lyapunov exponent is {exponent:+.3g} a step"
    if exponent < 0:
        return (
            f"{head}: perturbations fade, to a third within about {-1 / exponent:.3g} steps. Newton's method converges "
            "in a number of iterations that hardly grows with T."
        )
    return (
        f"{head}: perturbations do not fade. Newton's method needs a number of iterations that grows with T, and where "
        "it gives up, the scan is run."
    )


def write_ways(tables: dict[str, Sequence[Way]], out: str | os.PathLike) -> Path:
    """ways.csv in the directory `out`, a line a way; the keys of `tables` stand in front. Returns its path."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["subject", *Way._fields])
    writer.writerows([name, *way] for name, found in tables.items() for way in found)
    runs.write_file(path := Path(out, "ways.csv"), text.getvalue())
    return path


def _measure(subject, method) -> tuple[float, int | None, Any]:
    """(seconds, bytes, (outputs, gradients)); None for these where there is no room to run it."""

    def loss(params, xs):
        ys = unroll(subject.cell, params, xs, method=method)[1]
        return jnp.mean(ys**2), ys

    arguments = subject.params, subject.xs
    program = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True)).lower(*arguments).compile()
    if (working_bytes(program) or 0) > device_bytes() / 2:
        return math.nan, working_bytes(program), None
    (_, ys), gradients = jax.device_get(program(*arguments))
    return median_seconds(program, *arguments), working_bytes(program), (ys, gradients)


def _largest_difference(ours, plain) -> float:
    """Over all leaves, each beside its own largest number."""
    return max(_difference(a, b) for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True))


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    largest = np.max(np.abs(b), initial=0)
    return float(np.max(np.abs(a - b), initial=0) / largest) if largest else float(np.any(a != 0))


def _iterations(subject, method) -> int | None:
    """How many iterations Newton's method takes; None of other methods."""
    name, _, option = method.partition(":")
    if name != "newton":
        return None
    cell, weights = prepared(subject.cell, subject.params)
    carry = cell.initial_carry(weights, subject.xs.shape[1:-1])

    def count(weights, carry, xs):
        zs = cell.project(weights, xs)
        return newton_solve(cell, weights, carry, zs, kind=option or "full").iterations

    return int(jax.jit(count)(weights, carry, subject.xs))
