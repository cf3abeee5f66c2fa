"""The influence dh_t/dtheta of the parameters on the state, carried forwards: RTRL, SnAp-1 and UORO for one sequence.

Every estimate is `(cell, weights, carry, xs, length, dys, dlast, key) -> (dweights, dxs, dcarry)`:

    xs [T, D]; length [], the valid steps; dys [T, ...], dL/dy_t; dlast, dweights, dxs and dcarry, the gradients by the
    last carry, by weights, xs and the first carry: lists of the leaves that are not integers.

theta is all weights, h the carry and x an input, each as one vector of reals, `[N]`, `[n]` and `[d]` (see
`jacobians.flatten`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rnnjax.engine.steps import flatten, inexact, with_inexact
from rnnjax.keys import Purpose, purpose_key
from rnnjax.norms import norm
from rnnjax.types import Array, Carry, Cell, Weights

EPSILON = 1e-7  # keeps UORO's ratios of norms finite (Tallec & Ollivier 2018, algorithm 1)


def rtrl(
    cell: Cell, weights: Weights, carry: Carry, xs: Array, length: Array, dys: Any, dlast: Any, key: Array
) -> tuple[Any, Any, Any]:
    """M_t = I_t + J_t M_{t-1};  dL/dtheta = sum_t (dL_t/dh_t) M_t."""
    dweights, _ = _with_influence(cell, weights, carry, xs, length, dys, dlast, lambda M: M)
    rebuild, rebuild_xs = with_inexact(carry), with_inexact(xs)

    def replay(xs, first):
        def body(carry, inputs):
            x, valid = inputs
            z = cell.project(weights, x)
            new = _freeze(valid, cell.step(weights, carry, z), carry)
            return new, _freeze(valid, cell.output(weights, new, z), None)

        xs = rebuild_xs(xs)
        last, ys = lax.scan(body, rebuild(first), (xs, jnp.arange(xs.shape[0]) < length))
        return ys, inexact(last)

    _, pull = jax.vjp(replay, inexact(xs), inexact(carry))
    return dweights, *pull((dys, dlast))


def snap1(
    cell: Cell, weights: Weights, carry: Carry, xs: Array, length: Array, dys: Any, dlast: Any, key: Array
) -> tuple[Any, Any, Any]:
    """M_t = I_t + P (J_t M_{t-1}), P the pattern of I_t."""
    pattern = _pattern(cell, weights, carry, xs)
    dweights, dxs = _with_influence(cell, weights, carry, xs, length, dys, dlast, lambda M: jnp.where(pattern, M, 0))
    return dweights, _by_step(xs, dxs), jax.tree.map(jnp.zeros_like, inexact(carry))


def uoro(
    cell: Cell, weights: Weights, carry: Carry, xs: Array, length: Array, dys: Any, dlast: Any, key: Array
) -> tuple[Any, Any, Any]:
    """M_t replaced by s_t theta_t^T, with E[s_t theta_t^T] = M_t over signs nu_t.

    s_t = rho_0 J_t s_{t-1} + rho_1 nu_t;   theta_t = theta_{t-1} / rho_0 + nu_t I_t / rho_1
    rho_0^2 = |theta_{t-1}| / |J_t s_{t-1}|;   rho_1^2 = |nu_t I_t| / |nu_t|

    theta_t is a sum over the steps before t, and so is its like for xs; the latter is summed backwards at the end.
    """
    theta, unravel = flatten(weights)

    def body(state, inputs):
        carry, s, influence, grad = state
        x, valid, dy, dlast, nu = inputs
        at = _step(cell, unravel, theta, carry, x, valid)
        carried = at.push(s)
        immediate, _, dx = at.pull(nu)
        size = lambda v: norm(v) + EPSILON  # noqa: E731
        rho_0 = jnp.where(valid, jnp.sqrt(size(influence) / size(carried)), 1)
        rho_1 = jnp.sqrt(size(immediate) / size(nu))
        s = jnp.where(valid, rho_0 * carried + rho_1 * nu, s)
        influence = jnp.where(valid, influence / rho_0 + immediate / rho_1, influence)
        dtheta, delta, dx_shown = at.pull_output(dy)
        share = (delta + dlast) @ s
        grad = grad + dtheta + share * influence
        return (at.new, s, influence, grad), (share, rho_0, jnp.where(valid, dx / rho_1, 0), dx_shown)

    h = flatten(carry)[0]
    nus = jax.random.rademacher(key, (xs.shape[0], h.size), h.dtype)
    start = (carry, jnp.zeros_like(h), jnp.zeros_like(theta), jnp.zeros_like(theta))
    inputs = _inputs(carry, xs, length, dys, dlast)
    (*_, grad), (shares, rho_0, dxs, dxs_shown) = lax.scan(body, start, (*inputs, nus))

    def back(later, inputs):  # the sum over t >= s of share_t / (rho_0 of the steps s+1 ... t)
        share, rho_0 = inputs
        return (share + later) / rho_0, share + later

    _, later = lax.scan(back, jnp.zeros((), shares.dtype), (shares, rho_0), reverse=True)
    dxs = _by_step(xs, dxs_shown + later[:, None] * dxs)
    return _by_leaf(weights, grad), dxs, jax.tree.map(jnp.zeros_like, inexact(carry))


def _with_influence(cell, weights, carry, xs, length, dys, dlast, keep):
    """(dweights, dxs through each step alone), with `keep` applied to J_t M_{t-1} `[n, N]`."""
    theta, unravel = flatten(weights)

    def body(state, inputs):
        carry, M, grad = state
        x, valid, dy, dlast = inputs
        at = _step(cell, unravel, theta, carry, x, valid)
        immediate, J, by_x = jax.vmap(at.pull)(jnp.eye(at.h.size, dtype=at.h.dtype))
        M = jnp.where(valid, immediate + keep(J @ M), M)
        dtheta, delta, dx = at.pull_output(dy)
        delta = delta + dlast
        dx = dx + jnp.tensordot(delta, by_x, 1)
        return (at.new, M, grad + dtheta + delta @ M), dx

    h = flatten(carry)[0]
    start = (carry, jnp.zeros((h.size, theta.size), h.dtype), jnp.zeros_like(theta))
    (_, _, grad), dxs = lax.scan(body, start, _inputs(carry, xs, length, dys, dlast))
    return _by_leaf(weights, grad), dxs


class _Step(NamedTuple):
    """One step and its derivatives."""

    h: Array  # [n], before
    new: Carry  # after
    push: Callable  # tangent of h [n] -> that of the new h [n]
    pull: Callable  # cotangent of the new h [n] -> those of theta [N], of h [n] and of x [d]
    pull_output: Callable  # cotangent of y -> those of theta [N], of the new h [n] and of x [d]


def _step(cell, unravel, theta, carry, x, valid) -> _Step:
    h, restore = flatten(carry)
    x, restore_x = flatten(x)

    def advance(theta, h, x):
        weights, old = unravel(theta), restore(h)
        new = _freeze(valid, cell.step(weights, old, cell.project(weights, restore_x(x))), old)
        return flatten(new)[0], new

    _, pull, new = jax.vjp(advance, theta, h, x, has_aux=True)
    new_h, new_restore = flatten(new)

    def show(theta, h, x):
        weights = unravel(theta)
        return cell.output(weights, new_restore(h), cell.project(weights, restore_x(x)))

    def push(tangent):
        return jax.jvp(lambda h: advance(theta, h, x)[0], (h,), (tangent,))[1]

    return _Step(h, new, push, pull, jax.vjp(show, theta, new_h, x)[1])


def _inputs(carry, xs, length, dys, dlast):
    """What a scan needs of each step: x, whether it is valid, dL/dy_t, and dL/dh of the last carry where it is that."""
    t = jnp.arange(xs.shape[0])
    dys = jax.tree.map(lambda d: jnp.where((t < length).reshape(-1, *[1] * (d.ndim - 1)), d, 0), dys)
    h, restore = flatten(carry)
    (dlast,) = jax.vjp(lambda h: inexact(restore(h)), h)[1](dlast)
    return xs, t < length, dys, jnp.where((t == length - 1)[:, None], dlast, 0)


def _by_leaf(tree, dreals):
    """The gradient by the reals of `tree`, one vector, as those by its leaves."""
    leaves = inexact(tree)
    if not leaves:
        return []
    return jax.vjp(lambda leaves: flatten(with_inexact(tree)(leaves))[0], leaves)[1](dreals)[0]


def _by_step(xs, dreals):
    return jax.vmap(_by_leaf)(xs, dreals)


def _freeze(valid, new, old):
    """`new` where valid, else `old`, or zero where that is None."""
    if old is None:
        return jax.tree.map(lambda a: jnp.where(valid, a, 0), new)
    return jax.tree.map(lambda a, b: jnp.where(valid, a.astype(b.dtype), b), new, old)


def _pattern(cell, weights, carry, xs):
    """Which entries of I_t `[n, N]` can differ from zero: those that do at one of 32 random points or more.

    Random and not where training stands, so that a zero input or a closed ReLU is not taken for the cell's structure;
    but integer inputs, which may choose parameters, are those of the sequence, all of them.
    """
    theta, unravel = flatten(weights)
    h, restore = flatten(carry)
    T = xs.shape[0]

    def draw(key, like):
        return jax.random.uniform(key, like.shape, like.dtype, -1, 1)

    def immediate(inputs):
        key, t = inputs
        a, b, c = jax.random.split(key, 3)
        x, restore_x = flatten(xs[t])
        at = _step(
            cell,
            unravel,
            draw(a, theta) / jnp.sqrt(h.size),
            restore(draw(b, h)),
            restore_x(draw(c, x)),
            True,
        )
        return jax.vmap(at.pull)(jnp.eye(h.size, dtype=h.dtype))[0] != 0

    draws = 32 if inexact(xs) else max(32, T)
    keys = jax.random.split(purpose_key(Purpose.PROBES), draws)
    return jnp.any(lax.map(immediate, (keys, jnp.arange(draws) % T)), axis=0)
