"""The gradient over time: |dL/dh_t| for every t, and how far back it reaches."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rnnjax.norms import norm, rms
from rnnjax.types import Array


class GradientFlow(NamedTuple):
    """What one backward pass says of every step."""

    loss: Array  # []
    gradient: Any  # shaped like the taps: dL/dh_t, [T, ..., H] for each layer and carry part
    norm: Any  # the same tree without features: |dL/dh_t| [T, ...]


def gradient_flow(loss: Callable[[Any], Array], taps: Any, batch_ndim: int = 1) -> GradientFlow:
    """dL/dh_t of every step t, layer and carry part, exactly, for any model, in one backward pass.

    Each h_t is given a zero "tap" to be added to it, and the loss is differentiated by the taps.

    Args:
      loss: taps -> scalar; runs the model with these taps, say `lambda taps: task.loss(model(x, taps=taps), batch)`.
      taps: zeros, leaves `[T, ..., H]`, from `make_taps`.
      batch_ndim: how many batch dimensions stand between T and the features.
    """
    value, gradient = jax.value_and_grad(loss)(taps)
    return GradientFlow(value, gradient, jax.tree.map(lambda g: norm(g, 1 + batch_ndim), gradient))


def state_sensitivity(state: Callable[[Any], Array], taps: Any, key: Array, probes: int = 8) -> Any:
    """|dh_T/dh_t|_F / sqrt(n) of every step t, layer and carry part, leaves `[T, ...]`.

        E_v |v^T dh_T/dh_t|^2 = |dh_T/dh_t|_F^2   for v ~ N(0, I)

    so that `probes` backward passes from h_T with random cotangents v estimate it (Hutchinson 1990). It says what
    the gradient of *any* loss at T can keep of step t, whatever the loss. 1 means that norms are kept.

    Args:
      state: taps -> h_T `[..., n]`, each batch element's from its own sequence.
      taps: zeros, leaves `[T, ..., H]`, with as many batch dimensions as h_T.
    """
    h_T, pullback = jax.vjp(state, taps)

    def one(key):
        (gradient,) = pullback(jax.random.normal(key, h_T.shape, h_T.dtype))
        return jax.tree.map(lambda g: norm(g, h_T.ndim), gradient)

    norms = jax.lax.map(one, jax.random.split(key, probes))
    return jax.tree.map(lambda n: rms(n, 0) / jnp.sqrt(float(h_T.shape[-1])), norms)


def rms_over_batch(norms: Any, batch_size: int) -> Any:
    """The root mean square over the batch of a sequence's own |dL_b/dh_t|, leaves `[T]`.

    The loss is a mean over B sequences, so that dL_b/dh_t is B times what the backward pass of L brings.

    Args:
      norms: leaves `[T, B]`, |dL/dh_t| of each sequence: the gradient by a `probe`, or `gradient_flow(...).norm`.
      batch_size: B.
    """
    return jax.tree.map(lambda n: batch_size * rms(n, -1), norms)


def gradient_reach(profile: Array, threshold: float = 1e-3) -> Array:
    """How many steps back the gradient first falls below `threshold` of its last value; T if it never does.

    NaN where there is no such number: some of the profile is not finite, or all of it is 0 (see `gradient_fault`).

    Args:
      profile: `[..., T]`, |dL/dh_t|; its last value is that of the last step with a gradient at all.
    """
    T = profile.shape[-1]
    known = jnp.all(jnp.isfinite(profile), axis=-1) & jnp.any(profile > 0, axis=-1)
    has = profile > 0
    last = T - 1 - jnp.argmax(jnp.flip(has, -1), axis=-1)
    reference = jnp.take_along_axis(profile, last[..., None], axis=-1)
    t = jnp.arange(T)
    below = (profile / jnp.where(reference > 0, reference, 1) < threshold) & (t < last[..., None])
    newest = jnp.max(jnp.where(below, t, -1), axis=-1)
    return jnp.where(known, jnp.where(newest >= 0, last - newest, T).astype(float), jnp.nan)


def gradient_fault(profile: Array) -> str | None:
    """Why a profile `[..., T]` of |dL/dh_t| has no reach: "not finite" or "no gradient"; None where it has one."""
    profile = np.asarray(profile)
    if not np.isfinite(profile).all():
        return "not finite"
    return None if profile.any(axis=-1).all() else "no gradient"


def total_norm(norms: Any) -> Array:
    """sqrt(sum of squares) over the parts of a carry: `LSTMCarry(c [T, ...], h [T, ...])` -> `[T, ...]`."""
    leaves = jax.tree.leaves(norms)
    return norm(leaves, leaves[0].ndim)
