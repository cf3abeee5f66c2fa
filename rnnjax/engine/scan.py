"""The plain runner: `jax.lax.scan` of a cell's step, differentiated by JAX as it stands. For any cell."""

import math

import jax
from jax import lax

from rnnjax.cells.check import as_carry
from rnnjax.engine.hooks import frozen, probed, tapped
from rnnjax.types import Array, Carry, Cell, Weights


def scan(
    cell: Cell, weights: Weights, carry: Carry, xs: Array, mask: Array | None, taps: Carry | None, probe: Carry | None
) -> tuple[Carry, Array]:
    """(the last carry, ys `[T, ..., O]`) over xs `[T, ..., D]`; mask `[T, ...]`; taps and probe as in `unroll`."""
    zs = cell.project(weights, xs)
    shown = jax.eval_shape(cell.output, weights, carry, jax.tree.map(lambda z: z[0], zs))
    alone = jax.eval_shape(lambda: cell.initial_carry(weights, ()))
    batch_ndim = jax.tree.leaves(carry)[0].ndim - jax.tree.leaves(alone)[0].ndim
    inside = _features(carry, batch_ndim) > 4 * _features(shown, batch_ndim)  # too large to keep one of every step

    def body(carry, inputs):
        z, mask, tap, probe = inputs
        new = as_carry(cell.step(weights, carry, z), carry)
        new = frozen(probed(tapped(new, tap), probe), carry, mask)
        return new, (cell.output(weights, new, z) if inside else new)

    carry, ys = lax.scan(body, carry, (zs, mask, taps, probe))
    return carry, ys if inside else cell.output(weights, ys, zs)


def _features(tree, batch_dimensions):
    """How many numbers a sequence has in `tree`."""
    return sum(math.prod(leaf.shape[batch_dimensions:]) for leaf in jax.tree.leaves(tree))
