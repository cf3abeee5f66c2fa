"""Long short-term memory."""

import numbers
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rnnjax.cells.gated import gated, memoized
from rnnjax.initializers import Initializer, chrono, constant, glorot, orthogonal, uniform_sqrt
from rnnjax.types import Array, Cell, Params

sigmoid = jax.nn.sigmoid


class LSTMCarry(NamedTuple):
    """The memory c and the shown state h, both `[..., H]`."""

    c: Array
    h: Array


@memoized
def lstm(
    hidden_size: int,
    *,
    forget_bias: float | Array | None = None,
    chrono_t_max: float | Array | None = None,
    peepholes: bool = False,
    coupled: bool = False,
    gain: float | Array = 1.0,
    w_x: Initializer = glorot,
    w_h: Initializer | None = None,
) -> Cell:
    """LSTM with forget gates.

        i_t = sigmoid(W_i x_t + U_i h_{t-1} + b_i)          g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)
        f_t = sigmoid(W_f x_t + U_f h_{t-1} + b_f)          o_t = sigmoid(W_o x_t + U_o h_{t-1} + b_o)
        c_t = f_t c_{t-1} + i_t g_t                         h_t = o_t tanh(c_t)

    Hochreiter & Schmidhuber (1997); the forget gate, Gers, Schmidhuber & Cummins (2000). Columns in the order
    i, f, g, o, as in PyTorch and Flax.

    Args:
      hidden_size: H.
      forget_bias: b_f at the start, by default 1, which keeps half to three quarters of c a step instead of half
        (Jozefowicz 2015).
      chrono_t_max: spreads the timescales over [2, T_max] instead: b_f = log U(1, T_max - 1), b_i = -b_f (Tallec &
        Ollivier 2018, arXiv:1804.11188). T_max is usually T.
      peepholes: i and f see c_{t-1} and o sees c_t, through vectors p_i, p_f, p_o (Gers & Schmidhuber 2000).
      coupled: f_t = 1 - i_t, one gate fewer (CIFG in Greff et al. 2015, arXiv:1503.04069); the bias of i is then
        minus that of f.
      gain: scale of the orthogonal U.
      w_x, w_h: initialisers instead of Glorot and orthogonal.

    Raises ValueError where both forget_bias and chrono_t_max are given, and for a chrono_t_max of 2 or less.
    """
    if forget_bias is not None and chrono_t_max is not None:
        raise ValueError(f"{forget_bias=} and {chrono_t_max=} both set b_f; allowed: one of them")
    if isinstance(chrono_t_max, numbers.Real) and chrono_t_max <= 2:
        raise ValueError(f"{chrono_t_max=}; allowed: more than 2")
    forget = constant(1.0 if forget_bias is None else forget_bias) if chrono_t_max is None else chrono(chrono_t_max)

    def minus_forget(key, shape, dtype):
        return -forget(key, shape, dtype)

    bias = {"i": minus_forget} if coupled else {"f": forget}
    gate = (lambda s: s) if peepholes else sigmoid  # with peepholes the gate is closed inside `update`
    activations = {"i": gate, "f": gate, "g": jnp.tanh, "o": gate}
    if coupled:
        del activations["f"]

    def update(weights, carry, *, i, g, o, f=None):
        if peepholes:
            i = sigmoid(i + weights["p_i"] * carry.c)
            f = f if coupled else sigmoid(f + weights["p_f"] * carry.c)
        c = (1 - i if coupled else f) * carry.c + i * g
        if peepholes:
            o = sigmoid(o + weights["p_o"] * c)
        return LSTMCarry(c, o * jnp.tanh(c))

    peephole_names = () if not peepholes else ("p_i", "p_o") if coupled else ("p_i", "p_f", "p_o")
    cell = gated(
        hidden_size,
        activations,
        update,
        carry=LSTMCarry,
        w_x=w_x,
        w_h=orthogonal(gain) if w_h is None else w_h,
        bias=bias,
        vectors={name: uniform_sqrt(hidden_size) for name in peephole_names},
    )
    if chrono_t_max is None or coupled:
        return cell

    def init(key: Array, input_size: int) -> Params:
        params = cell.init(key, input_size)
        _, b_f, b_g, b_o = jnp.split(params["b"], 4)
        return params | {"b": jnp.concatenate([-b_f, b_f, b_g, b_o])}  # b_i is minus the very b_f that was drawn

    return cell._replace(init=init)
