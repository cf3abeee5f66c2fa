"""The measured horizon: how far back a trained network really uses its input."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rnnjax.norms import norm
from rnnjax.types import Array

MODES = ("swap", "noise")


class Horizon(NamedTuple):
    """By lag: entry k tells of the input k steps before the last, x_{T-1-k}."""

    lags: Array  # [K]
    loss_change: Array  # [K] mean of loss(disturbed) - loss; above 0 where the network needs that input
    absolute_loss_change: Array  # [K] mean of its absolute value
    output_change: Array  # [K] root mean square of the outputs' change, over that of the outputs about their mean
    horizon: Array  # [] the number of last steps that matter: 1 + the largest lag whose output_change passes; NaN where
    # an output_change is not finite, as nobody knows then


def measured_horizon(
    apply: Callable[[Array], Any],
    loss: Callable[[Any], Array],
    inputs: Array,
    key: Array,
    *,
    lags: Array | None = None,
    mode: str = "swap",
    scale: float | Array = 1.0,
    threshold: float | Array = 1e-3,
    block: int = 16,
) -> Horizon:
    """Disturbs the input at one lag at a time, and measures what becomes of output and loss.

    Lay it over a gradient by lag (`Credit.by_lag`): is the memory lost where the gradient is?

    Args:
      apply: inputs -> outputs, any pytree of arrays; the whole trained model. Let it return the outputs of the steps
        that are asked about, say the last: the output of step t always knows x_t.
      loss: outputs -> scalar, or `[B]`.
      inputs: `[T, B, ...]`, floats or tokens.
      key: draws the disturbance; the same one at every lag.
      lags: integers `[K]` in 0 ... T-1; all by default.
      mode: "swap" puts another sequence's input there, so that it stays typical data; "noise" adds N(0, scale^2).
      threshold: of `output_change`, for `horizon`.
      block: lags at a time.

    Raises ValueError for an unknown mode, noise on tokens, or a swap with fewer than two sequences.
    """
    if mode not in MODES:
        raise ValueError(f"unknown mode {mode!r}; allowed: {', '.join(MODES)}")
    T, B = inputs.shape[:2]
    if mode == "noise":
        if not jnp.issubdtype(inputs.dtype, jnp.inexact):
            raise ValueError("mode 'noise' needs inputs that are floats; for tokens use 'swap'")
        other = inputs + scale * jax.random.normal(key, inputs.shape, inputs.dtype)
    else:
        if B < 2:
            raise ValueError("mode 'swap' needs a batch of two sequences or more")
        other = jnp.roll(inputs, jax.random.randint(key, (), 1, B), axis=1)
    lags = jnp.arange(T) if lags is None else lags
    outputs = apply(inputs)
    value = loss(outputs)
    spread = _rms(jax.tree.map(lambda y: y - jnp.mean(y), outputs))

    def effect_of(lag):
        at = (jnp.arange(T) == T - 1 - lag).reshape(T, *[1] * (inputs.ndim - 1))
        disturbed = apply(jnp.where(at, other, inputs))
        change = loss(disturbed) - value
        relative = _rms(jax.tree.map(jnp.subtract, disturbed, outputs)) / jnp.where(spread == 0, 1, spread)
        return jnp.mean(change), jnp.mean(jnp.abs(change)), relative

    change, absolute, moved = lax.map(effect_of, lags, batch_size=min(block, lags.shape[0]))
    horizon = jnp.max(jnp.where(moved > threshold, 1 + lags, 0)).astype(float)
    horizon = jnp.where(jnp.all(jnp.isfinite(moved)), horizon, jnp.nan)
    return Horizon(lags, change, absolute, moved, horizon)


def _rms(tree) -> Array:
    return norm(tree) / sum(a.size for a in jax.tree.leaves(tree)) ** 0.5
