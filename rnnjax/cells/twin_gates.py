"""Cells of one state and two gates, through which alone the units see one another: a candidate sees the input alone."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from rnnjax.cells.gated import gated, memoized, unsquashed
from rnnjax.cells.light_gates import without_bias
from rnnjax.initializers import constant, orthogonal
from rnnjax.types import Array, Cell

sigmoid = jax.nn.sigmoid


class RANCarry(NamedTuple):
    """The sum c and what is shown of it, h, both `[..., H]`."""

    c: Array
    h: Array


@memoized
def ran(hidden_size: int, *, activation: Literal["tanh", "identity"] = "tanh", gain: float | Array = 1.0) -> Cell:
    """Recurrent additive network (RAN): a gated sum of inputs, and nothing else in the recurrence.

        i_t = sigmoid(W_i x_t + U_i h_{t-1} + b_i)
        f_t = sigmoid(W_f x_t + U_f h_{t-1} + b_f)
        c_t = i_t (W_c x_t) + f_t c_{t-1}
        h_t = phi(c_t)

    Lee, Levy & Zettlemoyer (2017, arXiv:1705.07393), Recurrent additive networks. c is a weighted sum of the inputs'
    contents W_c x, which have no bias, and may grow with T. W starts as Glorot's, biases as 0.

    Args:
      hidden_size: H.
      activation: phi, by which c is shown.
      gain: scale of the orthogonal U, gate by gate.

    Raises ValueError for an unknown `activation`.
    """
    if activation not in ("tanh", "identity"):
        raise ValueError(f"unknown activation {activation!r}; allowed: tanh, identity")
    shown = jnp.tanh if activation == "tanh" else unsquashed

    def update(weights, carry, *, i, f, n):
        c = i * n + f * carry.c
        return RANCarry(c, shown(c))

    gates = {"i": sigmoid, "f": sigmoid, "n": unsquashed}
    cell = gated(hidden_size, gates, update, of_state=("i", "f"), carry=RANCarry, w_h=orthogonal(gain))
    return without_bias(cell, b=hidden_size)


@memoized
def cfn(
    hidden_size: int,
    *,
    forget_bias: float | Array = 1.0,
    input_bias: float | Array = -1.0,
    gain: float | Array = 1.0,
) -> Cell:
    """Chaos-free network (CFN): without input its state always fades to zero.

        theta_t = sigmoid(U_theta h_{t-1} + V_theta x_t + b_theta)
        eta_t = sigmoid(U_eta h_{t-1} + V_eta x_t + b_eta)
        h_t = theta_t tanh(h_{t-1}) + eta_t tanh(W x_t)

    Laurent & von Brecht (2016, arXiv:1612.06212), A recurrent neural network without chaos. tanh(W x) has no bias, with
    which the state would not fade; some ports have one. The blocks of W_x are V_theta, V_eta and W, which start as
    Glorot's. b_theta starts at 1 and b_eta at -1: a unit keeps more than it lets in.

    Args:
      hidden_size: H.
      forget_bias, input_bias: b_theta and b_eta at the start.
      gain: scale of the orthogonal U, gate by gate.
    """

    def update(weights, h, *, theta, eta, n):
        return theta * jnp.tanh(h) + eta * n

    gates = {"theta": sigmoid, "eta": sigmoid, "n": jnp.tanh}
    bias = {"theta": constant(forget_bias), "eta": constant(input_bias)}
    cell = gated(hidden_size, gates, update, of_state=("theta", "eta"), w_h=orthogonal(gain), bias=bias)
    return without_bias(cell, b=hidden_size)


@memoized
def atr(hidden_size: int, *, gain: float | Array = 1.0) -> Cell:
    """Addition-subtraction twin-gated recurrent network (ATR): two gates of one sum and one difference.

        p_t = W x_t + b,    q_t = U h_{t-1}
        i_t = sigmoid(p_t + q_t),    f_t = sigmoid(p_t - q_t)
        h_t = i_t p_t + f_t h_{t-1}

    Zhang et al. (2018, arXiv:1810.12546), Simplifying neural machine translation. p is linear, so that the state may
    grow with T. The authors' programs differ in where a bias stands: here, as in one of them, with W x. W starts as
    Glorot's, b as 0.

    Args:
      hidden_size: H.
      gain: scale of the orthogonal U.
    """

    def update(weights, h, *, p, q):
        return sigmoid(p + q) * p + sigmoid(p - q) * h

    gates = {"p": unsquashed, "q": unsquashed}
    cell = gated(hidden_size, gates, update, of_input=("p",), of_state=("q",), w_h=orthogonal(gain))
    return without_bias(cell, b_h=hidden_size)


@memoized
def brc(hidden_size: int) -> Cell:
    """Bistable recurrent cell (BRC): each unit sees itself alone, and may hold one of two values for ever.

        a_t = 1 + tanh(U_a x_t + w_a h_{t-1} + b_a)        w_a, w_c [H], elementwise
        c_t = sigmoid(U_c x_t + w_c h_{t-1} + b_c)
        h_t = c_t h_{t-1} + (1 - c_t) tanh(U x_t + a_t h_{t-1})

    Vecoven, Ernst & Drion (2021, arXiv:2006.05252), A bio-inspired bistable recurrent cell. Without input, where a > 1
    the state has two stable fixed points, h = tanh(a h), and where a <= 1 it fades to 0. As in the authors' code U
    starts as Glorot's, w_a and w_c as 1, and there are biases in a and c alone. W_h is w_a and w_c.

    Args:
      hidden_size: H.
    """
    return _bistable(hidden_size, diagonal=True, w_h=constant(1.0))


@memoized
def nbrc(hidden_size: int, *, gain: float | Array = 1.0) -> Cell:
    """Neuromodulated bistable recurrent cell (nBRC): a BRC in which a and c see all units.

        a_t = 1 + tanh(U_a x_t + W_a h_{t-1} + b_a)
        c_t = sigmoid(U_c x_t + W_c h_{t-1} + b_c)
        h_t = c_t h_{t-1} + (1 - c_t) tanh(U x_t + a_t h_{t-1})

    Vecoven, Ernst & Drion (2021, arXiv:2006.05252), A bio-inspired bistable recurrent cell: a GRU whose candidate has
    no matrix, and whose reset gate reaches 2. As in the authors' code U starts as Glorot's, and there are biases in a
    and c alone.

    Args:
      hidden_size: H.
      gain: scale of the orthogonal W_a and W_c.
    """
    return _bistable(hidden_size, w_h=orthogonal(gain))


def _bistable(hidden_size: int, **options) -> Cell:
    def update(weights, h, *, a, c, n):
        return c * h + (1 - c) * jnp.tanh(n + (1 + a) * h)

    gates = {"a": jnp.tanh, "c": sigmoid, "n": unsquashed}
    return without_bias(gated(hidden_size, gates, update, of_state=("a", "c"), **options), b=hidden_size)
