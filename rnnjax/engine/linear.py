"""Runners of a recurrence that is linear in its carry, h_t = a_t h_{t-1} + b_t: a system of equations, solved as one.

Written as (1 - A) h = b, with A the a_t below the diagonal, it is differentiated as any linear system is: the gradient
by b is the same recurrence run backwards, and that by a_t is that gradient times h_{t-1}. Only how it is solved
differs: step by step, or for all steps at once in about log2(T) rounds (Blelloch 1990, Prefix sums and their
applications), which does about three times the arithmetic and pays where many units can work side by side.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from rnnjax.engine.hooks import frozen, probed, tapped
from rnnjax.types import Array, Carry, Cell, Weights


def associative(
    cell: Cell, weights: Weights, carry: Carry, xs: Array, mask: Array | None, taps: Carry | None, probe: Carry | None
) -> tuple[Carry, Array]:
    """As `scan` in values and gradients, all steps at once. Products of a_t over any stretch of time must be finite."""
    return _run(_at_once, cell, weights, carry, xs, mask, taps, probe)


def by_platform(
    cell: Cell, weights: Weights, carry: Carry, xs: Array, mask: Array | None, taps: Carry | None, probe: Carry | None
) -> tuple[Carry, Array]:
    """As `scan` in values and gradients: step by step in a program lowered for a CPU, all steps at once elsewhere."""
    return _run(_as_the_platform_likes, cell, weights, carry, xs, mask, taps, probe)


def _run(solver: Callable, cell, weights, carry, xs, mask, taps, probe):
    zs = cell.project(weights, xs)
    a, b = cell.form.coefficients(weights, zs)
    T = jax.tree.leaves(xs)[0].shape[0]
    b = jax.tree.map(lambda b, h: jnp.broadcast_to(b, (T, *h.shape)).astype(h.dtype), b, carry)
    b = frozen(probed(tapped(b, taps), probe), 0, mask)  # what is added to h_t has the gradient of h_t
    a = jax.tree.map(lambda a, b: _over_time(a, b, mask), a, b)
    carries = jax.tree.map(functools.partial(_solve, solver), a, b, carry)
    return jax.tree.map(lambda h: h[-1], carries), cell.output(weights, carries, zs)


def _over_time(a, b, mask):
    """`a` with the dimensions of `b` `[T, ..., H]`, of size 1 where it is the same for all; 1 where the mask is not."""
    a = a.reshape(*[1] * (b.ndim - a.ndim), *a.shape)
    a = jnp.broadcast_to(a, (b.shape[0], *a.shape[1:])) if mask is None else jnp.broadcast_to(a, b.shape)
    return frozen(a, 1, mask)


def _solve(solver, a, b, h0):
    """h of every step, for a `[T, ...]`, b `[T, ...]` and h0 `[...]`."""
    b = b.at[0].add((a[0] * h0).astype(b.dtype))
    a = a.astype(b.dtype)

    def matvec(h):
        return h - jnp.concatenate([jnp.zeros_like(h[:1]), a[1:] * h[:-1]])

    # What a_1 multiplies here is 0: nothing comes before the first step, nor after the last.
    return lax.custom_linear_solve(
        matvec,
        b,
        lambda _, b: solver(a, b, reverse=False),
        lambda _, db: solver(jnp.roll(a, -1, axis=0), db, reverse=True),
    )


def _as_the_platform_likes(a, b, reverse):
    one, other = (functools.partial(solver, reverse=reverse) for solver in (_step_by_step, _at_once))
    return lax.platform_dependent(a, b, cpu=one, default=other)


def _step_by_step(a, b, reverse):
    def body(h, coefficients):
        a, b = coefficients
        h = a * h + b
        return h, h

    return lax.scan(body, jnp.zeros_like(b[0]), (a, b), reverse=reverse)[1]


def _at_once(a, b, reverse):
    def then(earlier, later):
        (a1, b1), (a2, b2) = earlier, later
        return a2 * a1, a2 * b1 + b2

    return lax.associative_scan(then, (a, b), reverse=reverse)[1]
