"""Fixed and slow points of a recurrent network under a constant input."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import lax

from rnnjax.engine.steps import flatten, push, start
from rnnjax.types import Array, Carry, Cell, Params, prepared


class FixedPoints(NamedTuple):
    """Where each start came to rest, slowest first. Look at those where `distinct`."""

    carry: Carry  # the points, a leading S on each part
    q: Array  # [S], 1/2 |F(h) - h|^2: zero at a fixed point, small at a slow one
    fixed: Array  # [S], q is at most the tolerance
    distinct: Array  # [S], no point before it is this near: each point counts once
    eigenvalues: Array  # [S, n], complex, of the Jacobian there, largest modulus first
    stable: Array  # [S], all of them inside the unit circle


def fixed_points(
    cell: Cell,
    params: Params,
    x: Array,
    starts: Carry,
    *,
    iterations: int = 100,
    tolerance: float | None = None,
    distance: float = 1e-2,
) -> FixedPoints:
    """Minimises q(h) = 1/2 |F(h) - h|^2, F(h) = step(h, project(x)), from many starts at once.

    Sussillo & Barak (2013), Opening the black box. A minimum with q = 0 is a fixed point; one with a small q is a slow
    point, near which the network lingers. Levenberg-Marquardt: a Newton step where it helps, a gradient step where it
    does not, so that stable and unstable points are found alike. Costs for each start and iteration n forward
    derivatives and a solve: grows as S iterations n^3, and not with T.

    Args:
      x: `[D]`, the constant input.
      starts: a carry with a leading S on each part, such as states that the network visits, with some noise.
      iterations: for each start.
      tolerance: the largest q of a fixed point; by default that of an error of a few roundings in each number.
      distance: points this near (root mean square over the n numbers) are one.
    """
    chex.assert_rank(x, 1)
    cell, weights = prepared(cell, params)
    first, zs = start(cell, weights, x[None], jax.tree.map(lambda a: a[0], starts))
    z = jax.tree.map(lambda a: a[0], zs)
    starts = jax.tree.map(lambda a, one: a.astype(one.dtype), starts, first)
    n, dtype = flatten(first)[0].size, flatten(first)[0].dtype
    tolerance = n * (10 * jnp.finfo(dtype).eps) ** 2 if tolerance is None else tolerance
    eye = jnp.eye(n, dtype=dtype)

    def residual_and_jacobian(carry, h):
        _, restore = flatten(carry)
        new, columns = push(cell, weights, restore(h), z, eye)
        return flatten(new)[0] - h, columns.T

    def settle(carry):
        def iterate(_, state):
            h, (r, J), damping = state
            A = J - eye
            trial = h - jnp.linalg.solve(A.T @ A + damping * eye, A.T @ r)
            there = residual_and_jacobian(carry, trial)
            better = jnp.vdot(there[0], there[0]) < jnp.vdot(r, r)
            h, now = jax.tree.map(lambda a, b: jnp.where(better, a, b), (trial, there), (h, (r, J)))
            damping = jnp.where(better, damping / 8, damping * 4)
            return h, now, jnp.clip(damping, jnp.finfo(dtype).eps, 1 / jnp.finfo(dtype).eps)

        h, restore = flatten(carry)
        state = (h, residual_and_jacobian(carry, h), jnp.asarray(1e-2, dtype))
        h, (r, J), _ = lax.fori_loop(0, iterations, iterate, state)
        return h, restore(h), jnp.vdot(r, r) / 2, J

    h, carry, q, J = jax.vmap(settle)(starts)
    order = jnp.argsort(q)  # the best of a cluster stands for it
    h, carry, q, J = jax.tree.map(lambda a: a[order], (h, carry, q, J))
    eigenvalues = jnp.linalg.eigvals(J)
    by_modulus = jnp.argsort(-jnp.abs(eigenvalues), axis=1)
    eigenvalues = jnp.take_along_axis(eigenvalues, by_modulus, axis=1)
    apart = jnp.sqrt(jnp.mean(jnp.square(h[:, None] - h[None]), axis=-1)) > distance
    distinct = jnp.all(apart | jnp.triu(jnp.ones_like(apart)), axis=1)
    return FixedPoints(carry, q, q <= tolerance, distinct, eigenvalues, jnp.abs(eigenvalues[:, 0]) < 1)
