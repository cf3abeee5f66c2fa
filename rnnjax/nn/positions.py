"""How a step is told from another one: the codes of positions that attention can have, see `attention.transformer`."""

import jax.numpy as jnp
import numpy as np

from rnnjax.types import Array

POSITIONS = ("none", "sinusoidal", "rotary", "alibi")


def waves(steps: Array, width: int) -> Array:
    """sin and cos of t / 10000^(2i / width), `[..., T, width]`, of steps `[..., T]` (Vaswani et al. 2017)."""
    phases = _phases(steps, width)
    return jnp.concatenate([jnp.sin(phases), jnp.cos(phases)], axis=-1)[..., :width]


def turned(a: Array, steps: Array) -> Array:
    """`[..., heads, T, d]`, units i and i + d/2 turned as a point of the plane by t / 10000^(2i/d) (Su et al. 2021)."""
    phases = _phases(steps, a.shape[-1])[..., None, :, :]
    wide = jnp.promote_types(a.dtype, jnp.float32)
    cos, sin = jnp.cos(phases).astype(wide), jnp.sin(phases).astype(wide)
    left, right = jnp.split(a.astype(wide), 2, axis=-1)
    return jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1).astype(a.dtype)


def slopes(heads: int) -> np.ndarray:
    """What a step of distance takes from the score, `[heads]`: 2^(-8 n / heads) (Press et al. 2021)."""
    return 2.0 ** (-8.0 * np.arange(1, heads + 1) / heads)


def _phases(steps, width):
    """t / 10000^(2i / width) up to whole turns, `[..., T, width / 2]`, exact to float32 however large t is.

    t is taken apart into digits of five bits, and what each is worth is brought below one turn beforehand.
    """
    frequencies = 10000.0 ** (-np.arange(0, width, 2) / width)
    digits = range(0, 31, 5)
    worth = [(frequencies * 2.0**bits) % (2 * np.pi) for bits in digits]
    return sum((steps[..., None] >> bits & 31) * value for bits, value in zip(digits, worth, strict=True))
