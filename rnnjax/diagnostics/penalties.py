"""Cures for vanishing and exploding gradients, for any cell: penalties to add to the loss, and a clip inside a cell.

Each penalty is `(cell, params, xs, key, ...) -> scalar`, differentiable by `params`, for xs `[T, ..., D]`, and the
mean over sequences. The key draws random directions; a penalty that draws none ignores it.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from rnnjax.diagnostics.jacobians import flatten, push, start
from rnnjax.diagnostics.paths import with_step
from rnnjax.diagnostics.units import before_and_after
from rnnjax.norms import norm, scaled_norm
from rnnjax.types import Array, Carry, Cell, Params
from rnnjax.unroll import make_taps, unroll


def clip_cotangent(cell: Cell, max_norm: float | Array) -> Cell:
    """`cell` whose backward pass clips the gradient that passes from each step to the one before.

        delta <- delta min(1, max_norm / |delta|),   delta = dL/dh_t through the later steps, the whole carry

    for each sequence by itself. Values are untouched. It bounds an explosion where it arises, which clipping the
    summed gradient afterwards does not; Graves (2013, arXiv:1308.0850, section 2.1) clips elementwise at this place.
    `max_norm` may be traced.
    """
    ranks = [leaf.ndim for leaf in jax.tree.leaves(jax.eval_shape(lambda: cell.initial_carry(())))]

    def step(params, carry, z):
        leaves, structure = jax.tree.flatten(carry)
        batch_ndim = leaves[0].ndim - ranks[0]
        return cell.step(params, structure.unflatten(_clipped(batch_ndim, leaves, jnp.asarray(max_norm))), z)

    return with_step(cell, step)


def omega(cell: Cell, params: Params, xs: Array, key: Array, *, loss: Callable[[Array], Array] | None = None) -> Array:
    """Pascanu's regulariser: errors should keep their norm on the way back.

        Omega = sum_k (|delta_{k+1} J_{k+1}| / |delta_{k+1}| - 1)^2,   delta_k = dL/dh_k,  J_{k+1} = dh_{k+1}/dh_k

    Pascanu, Mikolov & Bengio (2013, arXiv:1211.5063). As there, delta and the states count as constants, and Omega
    depends on the parameters through J alone. Steps that no error reaches (delta = 0) add nothing. The first step
    counts too, h_0 being the initial carry.

    Args:
      loss: ys `[T, ..., O]` -> scalar, whose gradient gives delta. By default delta is that of a random linear
        function of the last carry.
    """
    params_now = lax.stop_gradient(params)
    taps = make_taps(cell, xs.shape[0], xs.shape[1:-1])

    def error(taps):
        last, ys = unroll(cell, params_now, xs, taps=taps)
        if loss is not None:
            return loss(ys)
        return sum(
            jnp.sum(jnp.real(a * v)) for a, v in zip(*map(jax.tree.leaves, (last, _normal(key, last))), strict=True)
        )

    delta = lax.stop_gradient(jax.grad(error)(taps))
    before, _ = lax.stop_gradient(before_and_after(cell, params_now, xs))
    zs = cell.project(params, xs)
    _, pullback = jax.vjp(lambda c: cell.step(params, c, zs), before)
    after, before = _norm(cell, delta), _norm(cell, pullback(delta)[0])
    reached = after > 0
    ratio = before / jnp.where(reached, after, 1)
    return jnp.mean(jnp.sum(jnp.where(reached, jnp.square(ratio - 1), 0), axis=0))


def flossing(cell: Cell, params: Params, xs: Array, key: Array, *, exponents: int = 1) -> Array:
    """Gradient flossing: finite-time Lyapunov exponents pushed to zero.

        Q_t R_t = J_t Q_{t-1},   lambda_i = (1/T) sum_t log |R_t,ii|,   the mean of lambda_i^2 over i < exponents

    Engelken (2023, arXiv:2312.17306). Q_0 is random and orthonormal; its first columns turn towards the most expanding
    directions. `exponents` above the rank of J_t has no gradient: a step that forgets a direction at once has
    lambda = -inf, held at log of the smallest float here.
    """

    def squares(xs):
        carry, zs = start(cell, params, xs, None)
        size = flatten(carry)[0].size
        if not 1 <= exponents <= size:
            raise ValueError(f"exponents is {exponents}; a carry of {size} numbers has 1 to {size} of them")

        def body(state, z):
            carry, Q = state
            carry, columns = push(cell, params, carry, z, Q.T)
            Q, R = jnp.linalg.qr(columns.T)
            return (carry, Q), jnp.abs(jnp.diagonal(R))

        Q, _ = jnp.linalg.qr(jax.random.normal(key, (size, exponents), flatten(carry)[0].dtype))
        _, R = lax.scan(body, (carry, Q), zs)
        return jnp.square(jnp.mean(jnp.log(jnp.maximum(R, jnp.finfo(R.dtype).tiny)), axis=0))

    return jnp.mean(jax.vmap(squares, 1)(xs.reshape(xs.shape[0], -1, xs.shape[-1])))


def orthogonal(
    cell: Cell, params: Params, xs: Array | None = None, key: Array | None = None, *, names=("W_h",)
) -> Array:
    """sum of |W^T W - I|_F^2 over the square blocks `[H, H]` of each recurrent matrix `[H, G H]` in `names`.

    Vorontsov et al. (2017, arXiv:1702.00071). xs and key are not used.
    """
    total = 0.0
    for name in names:
        if name not in params:
            raise ValueError(f"no parameter {name!r}; parameters: {', '.join(params)}")
        rows, columns = params[name].shape
        if columns % rows:
            raise ValueError(f"{name} has shape {params[name].shape}; it must be square blocks [H, H] side by side")
        W = params[name].reshape(rows, columns // rows, rows)
        gram = jnp.einsum("kgi,kgj->gij", W.conj(), W)
        total += jnp.sum(jnp.square(jnp.abs(gram - jnp.eye(rows))))
    return total


def jacobian(
    cell: Cell, params: Params, xs: Array, key: Array, *, probes: int = 1, target: float | Array = 1.0
) -> Array:
    """The mean over steps and random unit vectors v of (|J_t v| - target)^2, J_t = dh_t/dh_{t-1}.

    target 1 asks for steps that keep lengths; target 0 shrinks |J_t|_F^2 / n, the projected Jacobian regulariser of
    Hoffman, Roberts & Yaida (2019, arXiv:1908.02729). The states' dependence on the parameters counts too.
    """
    before, _ = before_and_after(cell, params, xs)
    zs = cell.project(params, xs)
    _, push = jax.linearize(lambda c: cell.step(params, c, zs), before)

    def one(key):
        v = _normal(key, before)
        return jnp.mean(jnp.square(_norm(cell, push(v)) / _norm(cell, v) - target))

    return jnp.mean(jax.vmap(one)(jax.random.split(key, probes)))


def _clipped(batch_ndim, leaves, max_norm):
    """Identity on `leaves`, whose cotangent's joint norm over all but the batch dimensions is at most `max_norm`."""

    @jax.custom_vjp
    def identity(leaves, max_norm):
        return leaves

    def backward(max_norm, cotangents):
        size, scale = scaled_norm(cotangents, batch_ndim)
        clipped = size * scale > max_norm
        down, up = jnp.where(clipped, 1 / scale, 1), jnp.where(clipped, max_norm / jnp.where(clipped, size, 1), 1)
        return [(d * _like(down, d) * _like(up, d)).astype(d.dtype) for d in cotangents], None

    identity.defvjp(lambda leaves, max_norm: (leaves, max_norm), backward)
    return identity(leaves, max_norm)


def _norm(cell: Cell, tree: Carry) -> Array:
    """The norm of the whole carry, `[T, ...]`, for leaves `[T, ..., features]`."""
    features = jax.tree.leaves(jax.eval_shape(lambda: cell.initial_carry(())))[0].ndim
    return norm(tree, jax.tree.leaves(tree)[0].ndim - features)


def _normal(key: Array, tree: Carry) -> Carry:
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    return structure.unflatten([jax.random.normal(k, a.shape, a.dtype) for k, a in zip(keys, leaves, strict=True)])


def _like(a, b):
    return a.reshape(*a.shape, *[1] * (b.ndim - a.ndim))
