"""Relatives of the LSTM that differ from it in their gates alone."""

import numbers

import jax
import jax.numpy as jnp

from rnnjax.cells.gated import gated, memoized, split, unsquashed, with_constants
from rnnjax.cells.lstm import LSTMCarry
from rnnjax.initializers import Initializer, chrono, constant, orthogonal
from rnnjax.types import Array, Cell, Params, Weights

sigmoid = jax.nn.sigmoid


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
    cell = gated(hidden_size, {"s": unsquashed, "g": jnp.tanh}, update, w_h=orthogonal(gain), bias=bias)
    return with_constants(cell, beta=beta)


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


@memoized
def lstm_1997(
    hidden_size: int,
    *,
    truncated: bool = True,
    input_bias: float | Array = -6.0,
    output_bias: float | Array = 0.0,
    weight_range: float | Array = 0.1,
) -> Cell:
    """The first LSTM: no forget gate, and a gradient that is cut where it would leave the memory.

        y_in_t = sigmoid(W_in x_t + U_in h_{t-1} + b_in)      y_out_t = sigmoid(W_out x_t + U_out h_{t-1} + b_out)
        g_t = 4 sigmoid(W_c x_t + U_c h_{t-1} + b_c) - 2      in (-2, 2)
        c_t = c_{t-1} + y_in_t g_t                            the constant error carousel; s_c in the paper
        h_t = y_out_t (2 sigmoid(c_t) - 1)                    y^c in the paper; in (-1, 1) before the gate

    Hochreiter & Schmidhuber (1997), Long short-term memory. Truncated, U h_{t-1} passes no gradient to h_{t-1}: an
    error stays in c as it is, for as long as it takes, and only the weights learn from the gates. The paper's blocks
    may hold several cells, and their gates see other gates as well; here a block is one cell, and all see h. All
    weights start uniform on (-weight_range, weight_range), b_c at 0.

    Args:
      hidden_size: H.
      truncated: the paper's gradient; False for the whole one.
      input_bias: b_in of unit k = 1, ..., H starts as k/H of it, against a drift of c: with two units -3 and -6, as in
        the paper's adding problem.
      output_bias: the same of b_out, against units that all do the same: -4 with four units is the paper's -1, ..., -4.
      weight_range: the largest weight at the start, 0.1 or 0.2 in the paper.
    """

    def uniform(key, shape, dtype=jnp.float32):
        return weight_range * jax.random.uniform(key, shape, dtype, -1, 1)

    def spread(bias):
        return lambda key, shape, dtype: bias * jnp.arange(1, hidden_size + 1, dtype=dtype) / hidden_size

    def update(weights, carry, *, y_in, g, y_out):
        c = carry.c + y_in * g
        return LSTMCarry(c, y_out * _between_minus_1_and_1(c))

    return gated(
        hidden_size,
        {"y_in": sigmoid, "g": _between_minus_2_and_2, "y_out": sigmoid},
        update,
        carry=LSTMCarry,
        state=_cut if truncated else None,
        w_x=uniform,
        w_h=uniform,
        bias={"y_in": spread(input_bias), "y_out": spread(output_bias)},
    )


def _between_minus_2_and_2(s):
    return 4 * sigmoid(s) - 2


def _between_minus_1_and_1(c):
    return 2 * sigmoid(c) - 1


def _cut(carry):
    return jax.lax.stop_gradient(carry.h)


@memoized
def mi_lstm(
    hidden_size: int,
    *,
    alpha: float | Array = 1.0,
    beta: float | Array = 1.0,
    forget_bias: float | Array = 1.0,
    gain: float | Array = 1.0,
) -> Cell:
    """The LSTM with multiplicative integration: input and state are also multiplied with each other.

        s_t = alpha (W x_t) (U h_{t-1}) + beta_1 (U h_{t-1}) + beta_2 (W x_t) + b        for each of i, f, g, o
        c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g)
        h_t = sigmoid(o) tanh(c_t)

    Wu, Zhang, Zhang, Bengio & Salakhutdinov (2016, arXiv:1606.06630), On multiplicative integration with recurrent
    neural networks. alpha, beta_1 and beta_2 are learned vectors `[4 H]`; the paper sets their start task by task. With
    alpha = 0 it is an LSTM; the product alone, as in some public versions, never sees x_1 where h_0 = 0. W starts as
    Glorot, U orthogonal, b at 0 but for b_f.

    Args:
      hidden_size: H.
      alpha: the product's coefficient at the start.
      beta: beta_1 and beta_2 at the start.
      forget_bias: b_f at the start.
      gain: scale of the orthogonal U.
    """
    gates = ("i", "f", "g", "o")

    def update(weights, carry, **parts):
        alpha, beta_1, beta_2, b = (split(weights[name], gates) for name in ("alpha", "beta_1", "beta_2", "b_s"))
        s = {}
        for k in gates:
            wx, uh = parts[f"{k}_x"], parts[f"{k}_h"]
            s[k] = alpha[k] * wx * uh + beta_1[k] * uh + beta_2[k] * wx + b[k]
        c = sigmoid(s["f"]) * carry.c + sigmoid(s["i"]) * jnp.tanh(s["g"])
        return LSTMCarry(c, sigmoid(s["o"]) * jnp.tanh(c))

    cell = gated(
        hidden_size,
        {f"{k}_{of}": unsquashed for of in "xh" for k in gates},
        update,
        of_input=tuple(f"{k}_x" for k in gates),
        of_state=tuple(f"{k}_h" for k in gates),
        carry=LSTMCarry,
        w_h=orthogonal(gain),
    )

    def init(key: Array, input_size: int) -> Params:
        params = cell.init(key, input_size)
        start = {"alpha": alpha, "beta_1": beta, "beta_2": beta}
        return {
            "W_x": params["W_x"],
            "W_h": params["W_h"],
            "b": params["b"].at[hidden_size : 2 * hidden_size].set(forget_bias),
            **{name: constant(value)(None, params["b"].shape) for name, value in start.items()},
        }

    def weights(params: Params) -> Weights:
        zero = jnp.zeros_like(params["b"])  # b comes after the product
        return params | {"b": zero, "b_h": zero, "b_s": params["b"]}

    return cell._replace(init=init, weights=weights)
