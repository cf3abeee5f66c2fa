"""Cells whose gates see the input alone, so that the state is a moving average whose speed the input sets."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rnnjax.cells.gated import gated, memoized, unsquashed
from rnnjax.cells.linear import of_input_alone, retention
from rnnjax.initializers import constant
from rnnjax.types import Array, Cell, Weights

sigmoid = jax.nn.sigmoid


@memoized
def mingru(hidden_size: int, *, positive: bool = False, negative_eigenvalues: bool = False) -> Cell:
    """minGRU: a GRU whose gate and candidate see the input alone.

        z_t = sigmoid(W_z x_t + b_z)
        n_t = W_n x_t + b_n                         g(.) of it: `positive`
        h_t = (1 - z_t) h_{t-1} + z_t n_t           1 - 2 z_t instead of 1 - z_t: `negative_eigenvalues`

    Feng, Tung, Ahmed, Bengio & Hajimirsadeghi (2024, arXiv:2410.01201), Were RNNs all we needed? g(s) = s + 1/2 where
    s >= 0, else sigmoid(s): their form in logarithms, which needs h_0 > 0; here it needs no logarithm, and h_0 = 0 may
    be. Public versions differ in what they start from, g(0) = 1/2 or 0. Linear in h, and without a nonlinearity across
    time: what is to be computed of the state, such as a product of two inputs, needs another layer above. W starts as
    Glorot's, b at 0.

    Args:
      hidden_size: H.
      positive: candidates above 0, and so states, if they start so.
      negative_eigenvalues: the state is multiplied by what lies in [-1, 1] instead of [0, 1], without which no such
        network counts parity (Grazzi et al. 2024, arXiv:2411.12537).

    Raises ValueError for a hidden size below 1 or not whole.
    """
    gates = {"z": unsquashed, "n": above_zero if positive else unsquashed}

    def coefficients(weights: Weights, s: dict[str, Array]) -> tuple[Array, Array]:
        return retention(sigmoid(-s["z"]), negative_eigenvalues), sigmoid(s["z"]) * s["n"]

    return of_input_alone(hidden_size, gates, coefficients)


@memoized
def minlstm(hidden_size: int, *, positive: bool = False, forget_bias: float | Array = 0.0) -> Cell:
    """minLSTM: an LSTM whose gates and candidate see the input alone, and whose two gates add up to 1.

        f_t, i_t = sigmoid(W_f x_t + b_f), sigmoid(W_i x_t + b_i)
        n_t = W_n x_t + b_n                         g(.) of it: `positive`, as in `mingru`
        h_t = f_t / (f_t + i_t) h_{t-1} + i_t / (f_t + i_t) n_t

    Feng, Tung, Ahmed, Bengio & Hajimirsadeghi (2024, arXiv:2410.01201), Were RNNs all we needed? So it is a `mingru`
    whose gate is i / (f + i). Linear in h: a nonlinearity must stand around it. W starts as Glorot's, b at 0 but for
    b_f. Of the public ports one starts its sequential form from h_0 and its parallel one from g(h_0).

    Args:
      hidden_size: H.
      positive: candidates above 0, and so states, if they start so.
      forget_bias: b_f at the start; a larger one keeps more.

    Raises ValueError for a hidden size below 1 or not whole.
    """
    gates = {"f": jax.nn.log_sigmoid, "i": jax.nn.log_sigmoid, "n": above_zero if positive else unsquashed}

    def coefficients(weights: Weights, s: dict[str, Array]) -> tuple[Array, Array]:
        more = s["f"] - s["i"]  # log f - log i, so that two gates near 0 are not divided by their sum
        return sigmoid(more), sigmoid(-more) * s["n"]

    return of_input_alone(hidden_size, gates, coefficients, bias={"f": constant(forget_bias)})


@memoized
def gilr(hidden_size: int) -> Cell:
    """Gated impulse linear recurrence (GILR): a moving average of tanh of the input, whose speed the input sets.

        g_t = sigmoid(U x_t + b_g)
        i_t = tanh(V x_t + b_i)
        h_t = g_t h_{t-1} + (1 - g_t) i_t

    Martin & Cundy (2018, arXiv:1709.04057), Parallelizing linear recurrent neural nets over sequence length. It is a
    `mingru` with tanh of its candidate, z = 1 - g. Linear in h: one layer alone computes nothing of two inputs
    together. U and V start as Glorot's, b at 0.

    Args:
      hidden_size: H.

    Raises ValueError for a hidden size below 1 or not whole.
    """

    def coefficients(weights: Weights, s: dict[str, Array]) -> tuple[Array, Array]:
        return sigmoid(s["g"]), sigmoid(-s["g"]) * s["i"]

    return of_input_alone(hidden_size, {"g": unsquashed, "i": jnp.tanh}, coefficients)


class GILRLSTMCarry(NamedTuple):
    """The linear surrogate that the gates see, the memory, and the shown state, all `[..., H]`."""

    s: Array
    c: Array
    h: Array


@memoized
def gilr_lstm(hidden_size: int, *, forget_bias: float | Array = 1.0) -> Cell:
    """The GILR-LSTM: an LSTM whose gates see a linear surrogate s of its state instead of the state.

        s_t = g_t s_{t-1} + (1 - g_t) tanh(V x_t + b_j),        g_t = sigmoid(U x_t + b_g)
        f_t, i_t, o_t = sigmoid(W x_t + W_h s_{t-1} + b)        z_t = tanh(W_z x_t + W_hz s_{t-1} + b_z)
        c_t = f_t c_{t-1} + i_t z_t
        h_t = o_t c_t

    Martin & Cundy (2018, arXiv:1709.04057), Parallelizing linear recurrent neural nets over sequence length. Two linear
    recurrences one after the other: s of the input alone, and, once all s are known, c. The gates are not linear in s,
    so the cell as a whole is not; it is one of gates whose W_h multiplies s. W_x starts as Glorot's, W_h orthogonal, b
    at 0 but for b_f.

    Args:
      hidden_size: H.
      forget_bias: b_f at the start.

    Raises ValueError for a hidden size below 1 or not whole.
    """

    def update(weights, carry, *, g, j, f, i, o, z):
        c = f * carry.c + i * z
        return GILRLSTMCarry(g * carry.s + (1 - g) * j, c, o * c)

    return gated(
        hidden_size,
        {"g": sigmoid, "j": jnp.tanh, "f": sigmoid, "i": sigmoid, "o": sigmoid, "z": jnp.tanh},
        update,
        of_state=("f", "i", "o", "z"),
        carry=GILRLSTMCarry,
        state=_surrogate,
        bias={"f": constant(forget_bias)},
    )


def above_zero(s: Array) -> Array:
    """g(s) = s + 1/2 where s >= 0, else sigmoid(s): continuous, and above 0."""
    return jnp.where(s >= 0, s + 0.5, sigmoid(s))


def _surrogate(carry):
    return carry.s
