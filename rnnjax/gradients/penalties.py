"""Cures for vanishing and exploding gradients, for any cell: penalties to add to the loss, and a clip inside a cell.

Each penalty is `(cell, params, xs, key, *, lengths=None, ...) -> scalar`, differentiable by `params`, for xs
`[T, ..., D]` and the valid steps `[...]` of each sequence: the mean over those that have any, so that padding does not
count. Of a cell of `clip_cotangent` it is that of the plain one. The key draws random directions; a penalty that draws
none ignores it.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from rnnjax.engine.affine import state_matrices
from rnnjax.engine.steps import carries_around, flatten, inexact, push, start, unclipped, with_inexact, with_step
from rnnjax.engine.unroll import clean_lengths, make_taps, unroll, zero_past
from rnnjax.norms import norm, scaled_norm
from rnnjax.types import Array, Cell, Gates, Params, Weights, prepared


def clip_cotangent(cell: Cell, max_norm: float | Array) -> Cell:
    """`cell` whose backward pass clips the gradient that passes from each step to the one before.

        delta <- delta min(1, max_norm / |delta|),   delta = dL/dh_t through the later steps, the whole carry

    for each sequence by itself. Values are untouched. It bounds an explosion where it arises, which clipping the
    summed gradient afterwards does not; Graves (2013, arXiv:1308.0850, section 2.1) clips elementwise at this place.
    `max_norm` may be traced. Diagnostics and penalties that are given the new cell measure the plain one.
    """

    def step(weights, carry, z):
        leaves = inexact(carry)
        clipped = _clipped(_batch_ndim(cell, weights, leaves), leaves, jnp.asarray(max_norm)) if leaves else []
        return cell.step(weights, with_inexact(carry)(clipped), z)

    clipping = with_step(cell, step)
    step.plain = {name: part for name, part in cell._asdict().items() if part is not getattr(clipping, name)}
    return clipping


def omega(
    cell: Cell,
    params: Params,
    xs: Array,
    key: Array,
    *,
    lengths: Array | None = None,
    loss: Callable[[Array], Array] | None = None,
) -> Array:
    """Pascanu's regulariser: errors should keep their norm on the way back.

        Omega = sum_k (|delta_{k+1} J_{k+1}| / |delta_{k+1}| - 1)^2,   delta_k = dL/dh_k,  J_{k+1} = dh_{k+1}/dh_k

    Pascanu, Mikolov & Bengio (2013, arXiv:1211.5063). As there, delta and the states count as constants, and Omega
    depends on the parameters through J alone. Steps that no error reaches (delta = 0) add nothing. The first step
    counts too, h_0 being the initial carry.

    Args:
      loss: ys `[T, ..., O]` -> scalar, whose gradient gives delta. By default delta is that of a random linear
        function of the last carry.
    """
    cell, weights = prepared(unclipped(cell), params)
    weights_now = lax.stop_gradient(weights)
    xs, lengths = _valid(xs, lengths)
    taps = make_taps(cell, weights_now, xs.shape[0], xs.shape[1:-1])

    def error(taps):
        last, ys = unroll(cell, weights_now, xs, taps=taps, lengths=lengths)
        if loss is not None:
            return loss(ys)
        last = inexact(last)
        return sum(jnp.sum(jnp.real(a * v)) for a, v in zip(last, _normal(key, last), strict=True))

    before, after = lax.stop_gradient(carries_around(cell, weights_now, xs, lengths=lengths))
    rebuild, zs = with_inexact(before), cell.project(weights, xs)
    new, pullback = jax.vjp(lambda c: inexact(cell.step(weights, rebuild(c), zs)), inexact(before))
    delta = [d for d, a in zip(*map(jax.tree.leaves, (jax.grad(error)(taps), after)), strict=True) if inexact(a)]
    delta = [d.astype(a.dtype) for d, a in zip(lax.stop_gradient(delta), new, strict=True)]
    after, before = _norm(cell, weights, delta), _norm(cell, weights, pullback(delta)[0])
    reached = after > 0
    ratio = before / jnp.where(reached, after, 1)
    return _mean(jnp.sum(jnp.where(reached, jnp.square(ratio - 1), 0), axis=0), lengths)


def flossing(
    cell: Cell, params: Params, xs: Array, key: Array, *, lengths: Array | None = None, exponents: int = 1
) -> Array:
    """Gradient flossing: finite-time Lyapunov exponents pushed to zero.

        Q_t R_t = J_t Q_{t-1},   lambda_i = (1/T) sum_t log |R_t,ii|,   the mean of lambda_i^2 over i < exponents

    T is each sequence's own length.

    Engelken (2023, arXiv:2312.17306). Q_0 is random and orthonormal; its first columns turn towards the most expanding
    directions. `exponents` above the rank of J_t has no gradient: a step that forgets a direction at once has
    lambda = -inf, held at log of the smallest float here.
    """

    T, *batch_shape = xs.shape[:-1]
    xs, lengths = _valid(xs, lengths)
    cell, weights = prepared(cell, params)
    ends = jnp.full(batch_shape, T) if lengths is None else lengths

    def squares(xs, end):
        carry, zs = start(cell, weights, xs, None)
        size = flatten(carry)[0].size
        if not 1 <= exponents <= size:
            raise ValueError(f"exponents is {exponents}; a carry of {size} numbers has 1 to {size} of them")

        def body(state, inputs):
            z, valid = inputs
            carry, columns = push(cell, weights, state[0], z, state[1].T)
            Q, R = jnp.linalg.qr(jnp.where(valid, columns.T, state[1]))  # past the end something with a gradient
            R = jnp.where(valid, jnp.abs(jnp.diagonal(R)), 1)
            return jax.tree.map(lambda new, old: jnp.where(valid, new, old), (carry, Q), state), R

        Q, _ = jnp.linalg.qr(jax.random.normal(key, (size, exponents), flatten(carry)[0].dtype))
        _, R = lax.scan(body, (carry, Q), (zs, jnp.arange(T) < end))
        return jnp.square(jnp.sum(jnp.log(jnp.maximum(R, jnp.finfo(R.dtype).tiny)), axis=0) / jnp.maximum(end, 1))

    sequences = xs.reshape(T, -1, xs.shape[-1])
    return _mean(jnp.mean(jax.vmap(squares, (1, 0))(sequences, ends.ravel()), axis=1).reshape(ends.shape), lengths)


def orthogonal(
    cell: Cell,
    params: Params,
    xs: Array,
    key: Array | None = None,
    *,
    lengths: Array | None = None,
    names: Sequence[str] = (),
) -> Array:
    """sum of |W^T W - I|_F^2 over the matrices `[H, H]` that the cell multiplies its state by, one for each gate.

    Vorontsov et al. (2017, arXiv:1702.00071). A cell made of gates is asked for them, whatever they are called and made
    of; of another one they are the square blocks `[H, H]` of its W_h `[H, G H]`, as it is made of the parameters. Of xs
    `[T, ..., D]` the D alone is used, and neither key nor lengths.

    Args:
      names: parameters `[H, G H]` whose blocks are meant instead.

    Raises ValueError for a cell without such matrices.
    """
    if names:
        if missing := [name for name in names if name not in params]:
            raise ValueError(f"no parameter {missing[0]!r}; parameters: {', '.join(params)}")
        stacks = [_square_blocks(name, params[name]) for name in names]
    else:
        stacks = [_matrices_of_state(unclipped(cell), params, xs.shape[-1])]
    total = jnp.zeros(())
    for W in stacks:
        gram = jnp.einsum("gki,gkj->gij", W.conj(), W)
        total += jnp.sum(jnp.square(jnp.abs(gram - jnp.eye(W.shape[-1]))))
    return total


def jacobian(
    cell: Cell,
    params: Params,
    xs: Array,
    key: Array,
    *,
    lengths: Array | None = None,
    probes: int = 1,
    target: float | Array = 1.0,
) -> Array:
    """The mean over steps and random unit vectors v of (|J_t v| - target)^2, J_t = dh_t/dh_{t-1}.

    target 1 asks for steps that keep lengths; target 0 shrinks |J_t|_F^2 / n, the projected Jacobian regulariser of
    Hoffman, Roberts & Yaida (2019, arXiv:1908.02729). The states' dependence on the parameters counts too.
    """
    cell, weights = prepared(unclipped(cell), params)
    xs, lengths = _valid(xs, lengths)
    before, _ = carries_around(cell, weights, xs, lengths=lengths)
    zs, rebuild, before = cell.project(weights, xs), with_inexact(before), inexact(before)
    _, push = jax.linearize(lambda c: inexact(cell.step(weights, rebuild(c), zs)), before)
    T = xs.shape[0]

    def one(key):
        # Drawn step by step: what a step draws does not depend on how many follow.
        v = jax.vmap(lambda key, now: _normal(key, now))(jax.random.split(key, T), before)
        return jnp.square(_norm(cell, weights, push(v)) / _norm(cell, weights, v) - target)

    errors = jnp.mean(jax.vmap(one)(jax.random.split(key, probes)), axis=0)
    if lengths is None:
        return jnp.mean(errors)
    return _mean(jnp.sum(zero_past(errors, lengths), axis=0) / jnp.maximum(lengths, 1), lengths)


PENALTIES: dict[str, Callable[..., Array]] = {
    "omega": omega,
    "flossing": flossing,
    "orthogonality": orthogonal,
    "jacobian": jacobian,
}
"""Those that a config adds to the loss, by the name of the setting that is their weight."""


def _matrices_of_state(cell: Cell, params: Params, D: int) -> Array:
    """`[G, H, H]`, what the state is multiplied by; `[1, S, S]` of one map of the whole, such as a complex one."""
    cell, weights = prepared(cell, params)
    if isinstance(cell.form, Gates):
        found = state_matrices(cell, weights, D)
        if found is None:
            raise ValueError("orthogonality needs a matrix that the state is multiplied by, and this cell has none")
        W = jnp.concatenate(list(found.values()), axis=1)
        return W[None] if W.shape[0] == W.shape[1] else _square_blocks("the matrix of the state", W, len(found))
    W = weights.get("W_h") if isinstance(weights, dict) else None
    if W is None:
        raise ValueError(f"orthogonality needs a cell made of gates or a W_h; the parameters are {', '.join(params)}")
    widest = max(a.shape[-1] for a in inexact(jax.eval_shape(lambda: cell.initial_carry(weights, ()))))
    if W.ndim == 2 and W.shape[0] < widest:
        raise ValueError(f"orthogonality needs a W_h `[H, G H]`; it is {W.shape}, and a part of the state has {widest}")
    return _square_blocks("W_h", W)


def _square_blocks(name: str, W: Array, blocks: int | None = None) -> Array:
    """`[H, G H]` -> `[G, H, H]`; G is `blocks`, if given."""
    if W.ndim != 2 or W.shape[1] % W.shape[0] or W.shape[1] // W.shape[0] != (blocks or W.shape[1] // W.shape[0]):
        raise ValueError(f"{name} has shape {W.shape}; it must be square blocks [H, H] side by side")
    return jnp.moveaxis(W.reshape(W.shape[0], -1, W.shape[0]), 1, 0)


def _valid(xs, lengths):
    """(xs with zeros past the lengths, so that nothing there can spoil a number, the lengths as int32 or None)."""
    lengths = clean_lengths(lengths, xs.shape[0], xs.shape[1:-1])
    return zero_past(xs, lengths), lengths


def _mean(values, lengths):
    """The mean of `[...]` over the sequences that have a step."""
    if lengths is None:
        return jnp.mean(values)
    return jnp.sum(jnp.where(lengths > 0, values, 0)) / jnp.maximum(jnp.sum(lengths > 0), 1)


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


def _norm(cell: Cell, weights: Weights, leaves: list[Array]) -> Array:
    """The norm of the whole carry, `[T, ...]`, for its inexact leaves `[T, ..., features]`."""
    return norm(leaves, _batch_ndim(cell, weights, leaves))


def _batch_ndim(cell: Cell, weights: Weights, leaves: list[Array]) -> int:
    """How many dimensions stand before the features in the inexact leaves of the carry."""
    own = inexact(jax.eval_shape(lambda: cell.initial_carry(weights, ())))
    return leaves[0].ndim - own[0].ndim


def _normal(key: Array, leaves: list[Array]) -> list[Array]:
    keys = jax.random.split(key, len(leaves))
    return [jax.random.normal(k, a.shape, a.dtype) for k, a in zip(keys, leaves, strict=True)]


def _like(a, b):
    return a.reshape(*a.shape, *[1] * (b.ndim - a.ndim))
