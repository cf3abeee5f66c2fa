"""Norms of numbers that may be tiny or huge: no square is taken before the largest entry is brought near 1.

sqrt(sum a^2) as it stands is 0 in float32 where |a| < 1e-19 or so, and inf where |a| > 2e19. These are 0 only where all
entries are, and inf only where one is or the norm itself has no float; NaN stays NaN. The scale is a power of two, so
that no digit changes where the plain formula would do. Their derivative at 0 is 0.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from rnnjax.types import Array


def norm(tree: Any, batch_ndim: int = 0) -> Array:
    """sqrt(sum of |a|^2) over all leaves and all but their first `batch_ndim` dimensions, in float32 at least."""
    size, scale = scaled_norm(tree, batch_ndim)
    return size * scale


def scaled_norm(tree: Any, batch_ndim: int = 0) -> tuple[Array, Array]:
    """(size, scale) with norm = size * scale, scale a power of two: `size` is finite where every entry is."""
    leaves = [_moduli(a) for a in jax.tree.leaves(tree)]
    inner = [tuple(range(batch_ndim, a.ndim)) for a in leaves]
    largest = [jnp.max(lax.stop_gradient(a), axis=axes, initial=0) for a, axes in zip(leaves, inner, strict=True)]
    largest = functools.reduce(jnp.maximum, largest)
    scale = _power_of_two(jnp.where(largest == 0, 1, largest))  # XLA squares the scale of zeros that it knows: not 1e38
    squares = sum(
        jnp.sum(jnp.square(a * (1 / scale).reshape(*scale.shape, *[1] * len(axes))), axis=axes)
        for a, axes in zip(leaves, inner, strict=True)
    )
    zero = squares == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, squares))), scale


def rms(a: Array, axis: int) -> Array:
    """sqrt(mean of |a|^2) over one axis."""
    return norm(jnp.moveaxis(a, axis, -1), a.ndim - 1) / jnp.sqrt(float(a.shape[axis]))


def _moduli(a):
    size = jnp.abs(a)
    return size.astype(jnp.promote_types(size.dtype, jnp.float32))


def _power_of_two(size):
    """A power of two near `size` whose inverse is a float, too."""
    info = jnp.finfo(size.dtype)
    return lax.reduce_precision(jnp.clip(size, info.tiny, 1 / info.tiny), info.nexp, 0)
