"""What may be done to a carry on its way from step to step; every runner does it with these functions."""

import jax
import jax.numpy as jnp

from rnnjax.norms import norm
from rnnjax.types import Array, Carry


def tapped(h: Carry, tap: Carry | None) -> Carry:
    """h_t + tap_t: the gradient by a tap of zeros is dL/dh_t."""
    return h if tap is None else jax.tree.map(lambda a, b: a + b.astype(a.dtype), h, tap)


def probed(h: Carry, probe: Carry | None) -> Carry:
    """h_t itself, whose gradient dL/dh_t leaves its norm over features as the "gradient" by the probe."""
    if probe is None:
        return h
    return jax.tree.map(lambda a, dummy: _probed(a, dummy) if jnp.issubdtype(a.dtype, jnp.inexact) else a, h, probe)


def frozen(h: Carry, held: Carry, mask: Array | None) -> Carry:
    """h_t where the mask `[...]` is set, and what is `held` past a sequence's end: a carry, or a number."""
    if mask is None:
        return h
    if isinstance(held, int):
        return jax.tree.map(lambda a: where(mask, a, held), h)
    return jax.tree.map(lambda a, b: where(mask, a, b), h, held)


def where(mask: Array, a: Array, b: Array | int) -> Array:
    """`jnp.where` for a mask that lacks the features of `a` `[..., F]`."""
    return jnp.where(mask.reshape(*mask.shape, *[1] * (a.ndim - mask.ndim)), a, b)


@jax.custom_vjp
def _probed(h, dummy):
    return h


def _backward(dummy, dh):
    return dh, norm(dh, dummy.ndim).astype(dummy.dtype)


_probed.defvjp(lambda h, dummy: (h, dummy), _backward)
