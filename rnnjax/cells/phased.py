"""An LSTM whose units keep time: each opens for a short while, again and again."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rnnjax.cells.gated import check_hidden_size, check_positive, gated, memoized, unsquashed, with_constants
from rnnjax.initializers import constant, orthogonal, uniform_sqrt
from rnnjax.types import Array, Cell

sigmoid = jax.nn.sigmoid


class PhasedCarry(NamedTuple):
    """The memory, the shown state, both `[..., H]`, and the number of steps done, an integer `[..., 1]`."""

    c: Array
    h: Array
    t: Array


@memoized
def phased_lstm(
    hidden_size: int,
    *,
    min_period: float | Array = math.e,
    max_period: float | Array = math.e**5,
    open_ratio: float | Array = 0.05,
    leak: float | Array = 1e-3,
    forget_bias: float | Array = 0.0,
    gain: float | Array = 1.0,
) -> Cell:
    """The phased LSTM: a clock opens each unit for a small part of a period of its own.

        phi_t = ((t - s) mod |tau|) / |tau|                 t = 0, 1, ... counts the steps
        k_t = 2 phi / r if phi < r / 2,    2 - 2 phi / r if phi < r,    leak phi otherwise
        i_t, f_t = sigmoid(W x_t + U h_{t-1} + p c_{t-1} + b)           g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)
        c~ = f_t c_{t-1} + i_t g_t                          o_t = sigmoid(W_o x_t + U_o h_{t-1} + p_o c~ + b_o)
        c_t = k_t c~ + (1 - k_t) c_{t-1}                    h_t = k_t o_t tanh(c~) + (1 - k_t) h_{t-1}

    Neil, Pfeiffer & Liu (2016, arXiv:1610.09513), Phased LSTM: accelerating recurrent network training for long or
    event-based sequences. Their code has t + s; here t is a step's number, and no input says when it was. tau starts
    log-uniform between the periods, s uniform over a period, and both are learned; r is not. W starts as Glorot, U
    orthogonal, p uniform, b at 0 but for b_f.

    Args:
      hidden_size: H.
      min_period, max_period: the shortest and the longest period at the start, in steps; by default e and e^5.
      open_ratio: r, the part of a period in which a unit is open, half of it opening.
      leak: how open a unit is at the end of a period; the authors take 0 once a network is trained.
      forget_bias: b_f at the start.
      gain: scale of the orthogonal U.

    Raises ValueError for a hidden size below 1 or not whole, and for a period or an open_ratio of 0 or less.
    """
    check_hidden_size(hidden_size)
    check_positive(min_period=min_period, max_period=max_period, open_ratio=open_ratio)

    def tau(key, shape, dtype):
        shortest, longest = jnp.log(jnp.asarray(min_period, dtype)), jnp.log(jnp.asarray(max_period, dtype))
        return jnp.exp(shortest + jax.random.uniform(key, shape, dtype) * (longest - shortest))

    def update(weights, carry, *, i, f, g, o):
        c = carry.c
        new = sigmoid(f + weights["p_f"] * c) * c + sigmoid(i + weights["p_i"] * c) * g
        h = sigmoid(o + weights["p_o"] * new) * jnp.tanh(new)
        k = openness(carry.t.astype(c.dtype), jnp.abs(weights["tau"]), weights["s"], weights["r"], weights["leak"])
        return PhasedCarry(k * new + (1 - k) * c, k * h + (1 - k) * carry.h, carry.t + 1)

    cell = gated(
        hidden_size,
        {"i": unsquashed, "f": unsquashed, "g": jnp.tanh, "o": unsquashed},
        update,
        carry=PhasedCarry,
        w_h=orthogonal(gain),
        bias={"f": constant(forget_bias)},
        vectors={"tau": tau, "s": _uniform, **{name: uniform_sqrt(hidden_size) for name in ("p_i", "p_f", "p_o")}},
    )

    def init(key, input_size):
        params = cell.init(key, input_size)
        return params | {"s": params["s"] * params["tau"]}  # a part of its own period

    def initial_carry(weights, batch_shape):
        c, h, _ = cell.initial_carry(weights, batch_shape)
        return PhasedCarry(c, h, jnp.zeros((*batch_shape, 1), jnp.int32))

    # Without a form, as the clock, an integer, keeps it off the fast path.
    return with_constants(cell._replace(init=init, initial_carry=initial_carry, form=None), r=open_ratio, leak=leak)


def openness(t: Array, tau: Array, s: Array, r: float | Array, leak: float | Array) -> Array:
    """k_t of `phased_lstm`: up to 1 and down again in the first part r of a period, then next to nothing."""
    phi = jnp.mod(t - s, tau) / tau
    return jnp.where(phi < r / 2, 2 * phi / r, jnp.where(phi < r, 2 - 2 * phi / r, leak * phi))


def _uniform(key, shape, dtype):
    return jax.random.uniform(key, shape, dtype)
