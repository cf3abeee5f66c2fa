"""The keys and values of past steps, kept in a ring: what a layer that attends carries from call to call."""

from typing import NamedTuple

import jax.numpy as jnp

from rnnjax.types import Array


class KVCache(NamedTuple):
    """Keys and values of the last N steps of each sequence; zeros hold no step.

    Step p, counted from the sequence's start, lies in slot p mod N.
    """

    keys: Array  # [..., heads, N, H / heads]
    values: Array  # [..., heads, N, H / heads]
    count: Array  # [...] int32, steps that each sequence has had


def kept(cache: KVCache | None, k: Array, v: Array, lengths: Array | None, room: int) -> KVCache:
    """The cache after the steps of `k` and `v` `[..., heads, T, d]`, of which `lengths` `[...]` are valid.

    Without a cache before them, of N = `room`.
    """
    *batch_shape, heads, T, _ = k.shape
    count = jnp.zeros(batch_shape, jnp.int32) if cache is None else cache.count
    after = count + (T if lengths is None else lengths)
    index = (_steps_in(after, room) - count[..., None])[..., None, :, None]  # of the new step in a slot, below 0: none
    from_new = jnp.broadcast_to(jnp.clip(index, 0, T - 1), (*batch_shape, heads, room, 1))

    def put(new, old):
        chosen = new if T == 1 else jnp.take_along_axis(new, from_new, -2)
        return jnp.where(index >= 0, chosen, old.astype(new.dtype) if cache is not None else 0)

    keys, values = (k, v) if cache is None else cache[:2]
    return KVCache(put(k, keys), put(v, values), after)


def in_view(cache: KVCache, after: KVCache, k: Array, v: Array, steps: Array) -> tuple[Array, Array, Array]:
    """(keys, values, which step each is of `[..., S]`, below 0 where there is none), of what new steps may attend to.

    Args:
      cache, after: before the new steps, and what `kept` made of it.
      k, v, steps: of the new steps, `[..., heads, T, d]` and `[..., T]`.
    """
    room = cache.keys.shape[-2]
    if k.shape[-2] == 1:  # one step alone lies in its slot by now; of several the first see what the last forget
        return after.keys, after.values, _steps_in(after.count, room)
    keys, values = (jnp.concatenate([a.astype(b.dtype), b], -2) for a, b in ((cache.keys, k), (cache.values, v)))
    return keys, values, jnp.concatenate([_steps_in(cache.count, room), steps], -1)


def _steps_in(count, room):
    """Which step lies in each slot `[..., N]` after so many; below 0 in one that is empty."""
    newest = count[..., None] - 1
    return newest - (newest - jnp.arange(room)) % room
