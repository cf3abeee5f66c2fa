"""The simple recurrent network of Elman (1990), and its ReLU form that starts as the identity."""

from typing import Literal

import jax
import jax.numpy as jnp

from rnnjax.cells.gated import gated, memoized
from rnnjax.initializers import Initializer, glorot, identity, normal, orthogonal
from rnnjax.types import Array, Cell

ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid}


@memoized
def rnn(
    hidden_size: int,
    *,
    activation: Literal["tanh", "relu", "sigmoid"] = "tanh",
    gain: float | Array = 1.0,
    w_x: Initializer = glorot,
    w_h: Initializer | None = None,
) -> Cell:
    """The Elman network, with a tanh, relu or sigmoid nonlinearity.

        h_t = phi(W_x x_t + W_h h_{t-1} + b)

    Elman (1990), Finding structure in time.

    Args:
      hidden_size: H.
      activation: phi, the nonlinearity.
      gain: scale of the orthogonal W_h; at 1 the linear part neither grows nor shrinks a gradient.
      w_x, w_h: initialisers instead of Glorot and orthogonal.

    Raises ValueError for an unknown `activation`.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"unknown activation {activation!r}; allowed: {', '.join(ACTIVATIONS)}")
    return gated(
        hidden_size,
        {"h": ACTIVATIONS[activation]},
        lambda weights, carry, *, h: h,
        w_x=w_x,
        w_h=orthogonal(gain) if w_h is None else w_h,
    )


@memoized
def irnn(hidden_size: int, *, gain: float | Array = 1.0) -> Cell:
    """A ReLU network whose W_h starts as `gain` times the identity, W_x as N(0, 0.001^2).

        h_t = relu(W_x x_t + W_h h_{t-1} + b)

    Le, Jaitly & Hinton (2015), A simple way to initialize recurrent networks of rectified linear units
    (arXiv:1504.00941): at first the state is copied, and the gradient with it.

    Args:
      hidden_size: H.
      gain: what stands on the diagonal of W_h at the start.
    """
    return rnn(hidden_size, activation="relu", w_x=normal(0.001), w_h=identity(gain))
