"""Relatives of the LSTM that differ from it in their gates alone."""

import numbers

import jax
import jax.numpy as jnp

from rnnjax.cells.gated import gated, memoized
from rnnjax.cells.lstm import LSTMCarry
from rnnjax.initializers import Initializer, chrono, constant, orthogonal
from rnnjax.types import Array, Cell, Params, Weights

sigmoid = jax.nn.sigmoid


def _linear(s):
    return s


@memoized
def janet(
    hidden_size: int,
    *,
    beta: float | Array = 1.0,
    forget_bias: float | Array | None = None,
    chrono_t_max: float | Array | None = None,
    gain: float | Array = 1.0,
) -> Cell:
    """JANET: an LSTM with a forget gate and nothing else.

        s_t = W_f x_t + U_f h_{t-1} + b_f           g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)
        h_t = sigmoid(s_t) h_{t-1} + (1 - sigmoid(s_t - beta)) g_t

    Van der Westhuizen & Lasenby (2018, arXiv:1804.04849), The unreasonable effectiveness of the forget gate. The two
    coefficients do not add up to 1: beta lets in more than is forgotten, and h may leave (-1, 1). W starts as Glorot,
    U orthogonal, b_g at 0.

    Args:
      hidden_size: H.
      beta: how much further the input is open; at 0 a forget gate alone is left.
      forget_bias: b_f at the start, by default 1.
      chrono_t_max: b_f = log U(1, T_max - 1) instead, as in the paper's experiments (Tallec & Ollivier 2018).
      gain: scale of the orthogonal U.

    Raises ValueError where both forget_bias and chrono_t_max are given, and for a chrono_t_max of 2 or less.
    """

    def update(weights, h, *, s, g):
        return sigmoid(s) * h + (1 - sigmoid(s - weights["beta"])) * g

    bias = {"s": _forget(forget_bias, chrono_t_max)}
    cell = gated(hidden_size, {"s": _linear, "g": jnp.tanh}, update, w_h=orthogonal(gain), bias=bias)
    # As a weight beta may be traced: the engine differentiates `update` by what it is given.
    return cell._replace(weights=lambda p: p | {"beta": jnp.asarray(beta, p["b"].dtype)})


def _forget(forget_bias, chrono_t_max) -> Initializer:
    """The initialiser of b_f, by default 1."""
    if forget_bias is not None and chrono_t_max is not None:
        raise ValueError(f"{forget_bias=} and {chrono_t_max=} both set b_f; allowed: one of them")
    if isinstance(chrono_t_max, numbers.Real) and chrono_t_max <= 2:
        raise ValueError(f"{chrono_t_max=}; allowed: more than 2")
    return constant(1.0 if forget_bias is None else forget_bias) if chrono_t_max is None else chrono(chrono_t_max)


@memoized
def ur_lstm(hidden_size: int, *, gain: float | Array = 1.0) -> Cell:
    """The UR-LSTM: a forget gate that starts uniform, and a gate that refines it where it is saturated.

        f_t = sigmoid(W_f x_t + U_f h_{t-1} + b_f + b_u)      r_t = sigmoid(W_r x_t + U_r h_{t-1} + b_r - b_u)
        u_t = tanh(W_u x_t + U_u h_{t-1} + b_c)               o_t = sigmoid(W_o x_t + U_o h_{t-1} + b_o)
        g_t = r_t (1 - (1 - f_t)^2) + (1 - r_t) f_t^2
        c_t = g_t c_{t-1} + (1 - g_t) u_t                     h_t = o_t tanh(c_t)

    Gu, Gulcehre, Paine, Hoffman & Pascanu (2019, arXiv:1910.09890), Improving the gating mechanism of recurrent neural
    networks. g is f moved by as much as f (1 - f), up or down. At the start sigmoid(b_u) is uniform on (1/H, 1 - 1/H),
    and the other biases 0; b_u is learned, one for both gates. Some public versions squash u twice. W starts as Glorot,
    U orthogonal.

    Args:
      hidden_size: H.
      gain: scale of the orthogonal U.
    """

    def update(weights, carry, *, f, r, u, o):
        g = r * (1 - (1 - f) ** 2) + (1 - r) * f**2
        c = g * carry.c + (1 - g) * u
        return LSTMCarry(c, o * jnp.tanh(c))

    def uniform(key, shape, dtype):
        edge = 1 / max(hidden_size, 2)  # a single unit starts at 1/2
        u = jax.random.uniform(key, shape, dtype, edge, 1 - edge)
        return jnp.log(u) - jnp.log1p(-u)

    def weights(params: Params) -> Weights:
        b_u, zero = params["b_u"], jnp.zeros_like(params["b_u"])
        return params | {"b": params["b"] + jnp.concatenate([b_u, -b_u, zero, zero])}

    cell = gated(
        hidden_size,
        {"f": sigmoid, "r": sigmoid, "u": jnp.tanh, "o": sigmoid},
        update,
        carry=LSTMCarry,
        w_h=orthogonal(gain),
        vectors={"b_u": uniform},
    )
    return cell._replace(weights=weights)
