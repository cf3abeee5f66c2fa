"""The credit matrix: how strongly the loss of each step reaches each earlier state."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rnnjax.diagnostics.gradient_flow import total_norm
from rnnjax.engine.steps import carry_names, unclipped
from rnnjax.engine.unroll import make_probe, unroll
from rnnjax.types import Array, Carry, Cell, Params, prepared


class Credit(NamedTuple):
    """C[t, s] = |dL_t/dh_s|, for each sequence; zero where s > t."""

    matrix: Array  # [T, T, ...] the norm over the whole carry
    parts: dict[str, Array]  # the same for each part of the carry, by name
    direct: Array  # [T, ...] |dL_t/dh_t|, through y_t alone: the matrix's diagonal
    total: Array  # [T, ...] |dL/dh_t| of the sum L of all losses, which is what training sees
    by_lag: Array  # [T] the mean of C[t, t-k] over sequences and over the t that have a loss, at each lag k


def credit_matrix(
    cell: Cell,
    params: Params,
    xs: Array,
    losses: Callable[[Array], Array],
    carry: Carry | None = None,
    *,
    block: int = 32,
) -> Credit:
    """|dL_t/dh_s| for every t and s, in T batched backward passes over one forward pass.

    Args:
      cell, params: the cell and its parameters.
      xs: `[T, ..., D]`.
      losses: ys `[T, ..., O]` -> `[T, ...]`, the loss of each step of each sequence; L_t must depend on y_t alone.
      carry: the carry before the first step.
      block: backward passes at a time; memory grows with it, by a few `[T, ..., H]` arrays each.

    dL_t/dh_s is the total derivative through steps s+1 ... t and, at s = t, through y_t. The parts of a carry count
    as independent: dL/dc_t of an LSTM does not include the way through h_t.
    """
    T, batch_shape = xs.shape[0], xs.shape[1:-1]
    cell, weights = prepared(unclipped(cell), params)
    probe = make_probe(cell, weights, T, batch_shape)

    def run(probe):
        return losses(unroll(cell, weights, xs, carry, probe=probe)[1])

    values, pullback = jax.vjp(run, probe)
    if values.shape != (T, *batch_shape):
        raise ValueError(f"losses returned shape {values.shape}; it must be [T, ...] = {(T, *batch_shape)}")

    def row(t):  # the probe's "gradient" is |dL_t/dh_s| for every s
        at = jnp.arange(T).reshape(T, *[1] * len(batch_shape)) == t
        return pullback(jnp.broadcast_to(at, values.shape).astype(values.dtype))[0]

    norms = lax.map(row, jnp.arange(T), batch_size=min(block, T))
    total = total_norm(pullback(jnp.ones_like(values))[0])
    matrix = total_norm(norms)
    parts = dict(zip(carry_names(norms), jax.tree.leaves(norms), strict=True))
    direct = jnp.moveaxis(jnp.diagonal(matrix), -1, 0)
    return Credit(matrix, parts, direct, total, _by_lag(matrix))


def _by_lag(matrix: Array) -> Array:
    """`[T, T, ...]` -> `[T]`; a step whose loss reaches no state at all is left out of the means."""
    T = matrix.shape[0]
    matrix = matrix.reshape(T, T, -1)
    source = jnp.arange(T)[:, None] - jnp.arange(T)  # [t, k] -> s
    lagged = jnp.take_along_axis(matrix, jnp.maximum(source, 0)[..., None], axis=1)
    counts = (source >= 0)[..., None] & jnp.any(matrix > 0, axis=1, keepdims=True)
    return jnp.sum(jnp.where(counts, lagged, 0), axis=(0, 2)) / jnp.maximum(jnp.sum(counts, axis=(0, 2)), 1)
