"""Truncated backpropagation through time (Williams & Peng 1990): the carry's gradient is cut every K steps."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from rnnjax.engine.unroll import unroll
from rnnjax.types import Array, Carry, Cell, Params, prepared


def unroll_in_pieces(
    K: int,
    cell: Cell,
    params: Params,
    xs: Array,
    carry: Carry | None = None,
    lengths: Array | None = None,
    **options: Any,
) -> tuple[Carry, Any]:
    """`unroll` of every output, whose gradient passes no end of a piece of K steps.

    They are counted from each sequence's own end: its first one takes the remainder, so that its last one has K steps.

    Args:
      K: steps a piece.
      cell, params, xs, carry: as in `unroll`.
      lengths: int32 `[...]` in [0, T], as `clean_lengths` makes them.
      options: of `unroll`: dtype, method, segments.
    """
    T, K = xs.shape[0], min(K, xs.shape[0])
    cell, weights = prepared(cell, params)
    if lengths is None:
        lead, size, count = T % K or K, T % K or K, T // K - (T % K == 0)
    else:
        lead, size, count = jnp.where(lengths % K, lengths % K, K), K, -(-(T - 1) // K)
    ends = None if lengths is None else _bounded(lengths, 0, lead)
    carry, first = unroll(cell, weights, xs[:size], carry, lengths=ends, **options)

    def piece(carry, begin):
        if lengths is None:
            steps, carry, left = lax.dynamic_slice_in_dim(xs, begin, K), lax.stop_gradient(carry), None
        else:
            left = _bounded(lengths, begin, K)
            steps, carry = _steps(xs, begin, K), _cut(carry, left)
        return unroll(cell, weights, steps, carry, lengths=left, **options)

    begins = jnp.arange(count).reshape(-1, *[1] * jnp.ndim(lead)) * K + lead
    carry, rest = lax.scan(piece, carry, begins)

    def join(first, rest):
        ys = jnp.concatenate([first, rest.reshape(-1, *rest.shape[2:])])
        if lengths is None:
            return ys
        t = jnp.arange(T).reshape(-1, *[1] * lengths.ndim)  # the rest begins at row K, whatever the lead
        rows = jnp.where(t < lead, t, t - lead + K)
        return jnp.take_along_axis(ys, rows.reshape(*rows.shape, *[1] * (ys.ndim - rows.ndim)), axis=0)

    return carry, jax.tree.map(join, first, rest)


def _steps(xs, begin, size):
    """`size` steps of xs `[T, ..., D]` from each sequence's `begin` `[...]`; those past T repeat the last."""
    t = jnp.minimum(begin + jnp.arange(size).reshape(-1, *[1] * begin.ndim), xs.shape[0] - 1)
    return jnp.take_along_axis(xs, t[..., None], axis=0)


def _cut(carry, left):
    """`carry` without a gradient, but for those sequences that have no steps left: theirs is their last carry."""

    def cut(a):
        goes_on = (left > 0).reshape(*left.shape, *[1] * (a.ndim - left.ndim))
        return jnp.where(goes_on, lax.stop_gradient(a), a)

    return jax.tree.map(cut, carry)


def _bounded(lengths, begin, size):
    return jnp.clip(lengths - begin, 0, size)
