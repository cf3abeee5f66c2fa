"""Whether a recurrence is worth running for all steps at once: how many steps Newton's method takes, and why."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rnnjax.diagnostics.lyapunov import lyapunov_spectrum
from rnnjax.engine.newton import newton_solve
from rnnjax.types import Array, Carry, Cell, Params, prepared


class NewtonSteps(NamedTuple):
    """What the method took, and what predicts it."""

    iterations: Array  # [], linear recurrences that were solved
    converged: Array  # [], whether within the limit; where not, `iterations` is the limit
    residual: Array  # [], of the last iterate, see `engine.newton.NewtonResult`
    exponent: Array  # [], the largest Lyapunov exponent, natural log a step
    error: Array  # [], the largest difference from the states that a scan finds, over 1 + those


def newton_steps(
    cell: Cell,
    params: Params,
    xs: Array,
    carry: Carry | None = None,
    *,
    kind: str = "full",
    max_iterations: int | None = None,
    tolerance: float | None = None,
    guess: Carry | None = None,
) -> NewtonSteps:
    """Steps of Newton's method in time, beside the largest Lyapunov exponent of the same trajectory.

    Where the exponent l is negative the method takes few steps, O(log T), and where it is positive about as many as
    there are steps of time: the condition of the equations grows as e^(l T) (Gonzalez et al. 2025, arXiv:2508.16817,
    Predictability enables parallelization of nonlinear state space models). The exponent leaves out the first tenth.

    Args:
      cell, params: the cell.
      xs: `[T, D]`, one sequence of 20 steps or more.
      carry: what stands before the first step, without batch.
      kind, tolerance, guess: see `engine.newton.newton_solve`.
      max_iterations: T + 1 by default, which always suffices.

    Raises ValueError where the sequence is too short for an exponent, and as `newton_solve` does.
    """
    T = xs.shape[0]
    cell, weights = prepared(cell, params)
    carry = cell.initial_carry(weights, ()) if carry is None else carry
    spectrum = lyapunov_spectrum(cell, weights, xs, carry, k=1, transient=T // 10)
    zs = cell.project(weights, xs)
    limit = T + 1 if max_iterations is None else max_iterations
    found = newton_solve(cell, weights, carry, zs, kind=kind, max_iterations=limit, tolerance=tolerance, guess=guess)
    _, exact = jax.lax.scan(lambda h, z: 2 * (cell.step(weights, h, z),), carry, zs)
    error = jnp.max(
        jnp.stack([jnp.max(_apart(a, b)) for a, b in zip(*map(jax.tree.leaves, (found.carries, exact)), strict=True)])
    )
    return NewtonSteps(found.iterations, found.converged, found.residual, spectrum.exponents[0], error)


def _apart(a, b):
    """|a - b| / (1 + |b|), inf where that is no number."""
    apart = jnp.abs(a - b) / (1 + jnp.abs(b))
    return jnp.where(apart >= 0, apart, jnp.inf)
