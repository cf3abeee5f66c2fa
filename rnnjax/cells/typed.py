"""Strongly typed cells: what the weights multiply is input, and never state, which is only added up and gated."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rnnjax.cells.gated import check_hidden_size, memoized, split, unsquashed
from rnnjax.cells.linear import of_input_alone
from rnnjax.initializers import constant, glorot, per_gate, zeros
from rnnjax.types import Array, Carry, Cell, Params, Weights

sigmoid = jax.nn.sigmoid
GATES = ("z", "f", "o")


@memoized
def t_rnn(hidden_size: int, *, forget_bias: float | Array = 0.0) -> Cell:
    """The strongly typed RNN (T-RNN): an average of projected inputs, whose speed the input sets.

        z_t = W x_t
        f_t = sigmoid(V x_t + b)
        h_t = f_t h_{t-1} + (1 - f_t) z_t

    Balduzzi & Ghifary (2016, arXiv:1602.02218), Strongly-typed recurrent neural networks. A public port has tanh for
    the sigmoid. W and V, side by side in W_x, start as Glorot's. Linear in h: a nonlinearity must stand around it.

    Args:
      hidden_size: H.
      forget_bias: b at the start; a larger one keeps more.

    Raises ValueError for a hidden size below 1 or not whole.
    """

    def coefficients(weights: Weights, s: dict[str, Array]) -> tuple[Array, Array]:
        return sigmoid(s["f"]), sigmoid(-s["f"]) * s["z"]

    gates = {"z": unsquashed, "f": unsquashed}
    return of_input_alone(hidden_size, gates, coefficients, bias={"f": constant(forget_bias)}, biased=("f",))


class TGRUCarry(NamedTuple):
    """V x of the step before `[..., 3 H]`, and the shown state `[..., H]`."""

    past: Array
    h: Array


@memoized
def t_gru(hidden_size: int, *, forget_bias: float | Array = 0.0) -> Cell:
    """The strongly typed GRU (T-GRU): gates of this input and the one before.

        z_t = V_z x_{t-1} + W_z x_t + b_z
        f_t = sigmoid(V_f x_{t-1} + W_f x_t + b_f)
        o_t = tanh(V_o x_{t-1} + W_o x_t + b_o)
        h_t = f_t h_{t-1} + z_t o_t                     x_0 = 0

    Balduzzi & Ghifary (2016, arXiv:1602.02218), Strongly-typed recurrent neural networks. No state is multiplied by a
    matrix: the carry holds V x_{t-1}, made of all inputs at once. As f depends on it, the cell is linear in h and not
    in all of its carry, and is scanned. W and V start as Glorot's, b at 0 but for b_f.

    Args:
      hidden_size: H.
      forget_bias: b_f at the start; a larger one keeps more.

    Raises ValueError for a hidden size below 1 or not whole.
    """

    def update(carry: TGRUCarry, past: Array, s: dict[str, Array]) -> TGRUCarry:
        return TGRUCarry(past, sigmoid(s["f"]) * carry.h + s["z"] * jnp.tanh(s["o"]))

    return _of_two_inputs(hidden_size, TGRUCarry, update, forget_bias)


class TLSTMCarry(NamedTuple):
    """V x of the step before `[..., 3 H]`, the memory and the shown state, both `[..., H]`."""

    past: Array
    c: Array
    h: Array


@memoized
def t_lstm(hidden_size: int, *, forget_bias: float | Array = 0.0) -> Cell:
    """The strongly typed LSTM (T-LSTM): an average of projected inputs, and a gate on what it shows.

        z_t = V_z x_{t-1} + W_z x_t + b_z
        f_t = sigmoid(V_f x_{t-1} + W_f x_t + b_f)
        o_t = tanh(V_o x_{t-1} + W_o x_t + b_o)
        c_t = f_t c_{t-1} + (1 - f_t) z_t               x_0 = 0
        h_t = c_t o_t

    Balduzzi & Ghifary (2016, arXiv:1602.02218), Strongly-typed recurrent neural networks. No state is multiplied by a
    matrix: the carry holds V x_{t-1}, made of all inputs at once. As f depends on it, the cell is linear in c and not
    in all of its carry, and is scanned. W and V start as Glorot's, b at 0 but for b_f.

    Args:
      hidden_size: H.
      forget_bias: b_f at the start; a larger one keeps more.

    Raises ValueError for a hidden size below 1 or not whole.
    """

    def update(carry: TLSTMCarry, past: Array, s: dict[str, Array]) -> TLSTMCarry:
        f = sigmoid(s["f"])
        c = f * carry.c + (1 - f) * s["z"]
        return TLSTMCarry(past, c, c * jnp.tanh(s["o"]))

    return _of_two_inputs(hidden_size, TLSTMCarry, update, forget_bias)


class TwoInputs(NamedTuple):
    """What a step needs of its input: the products of now, and those for the next step, both `[..., 3 H]`."""

    now: Array
    later: Array


def _of_two_inputs(
    hidden_size: int,
    carry: Callable[..., Carry],
    update: Callable[[Carry, Array, dict[str, Array]], Carry],
    forget_bias: float | Array,
) -> Cell:
    """A cell with `update(carry, V x_t, {gate: V x_{t-1} + W x_t + b})`."""
    check_hidden_size(hidden_size)
    H, columns = hidden_size, len(GATES) * hidden_size

    def init(key: Array, input_size: int) -> Params:
        key_w, key_v = jax.random.split(key)
        b = [zeros(None, (H,)), constant(forget_bias)(None, (H,)), zeros(None, (H,))]
        W, V = (per_gate(glorot, len(GATES))(k, (input_size, columns)) for k in (key_w, key_v))
        return {"W_x": W, "V_x": V, "b": jnp.concatenate(b)}

    def initial_carry(weights: Weights, batch_shape: tuple[int, ...]) -> Carry:
        states = [jnp.zeros((*batch_shape, H))] * (len(carry._fields) - 1)  # type: ignore[attr-defined]
        return carry(jnp.zeros((*batch_shape, columns)), *states)

    def project(weights: Weights, x: Array, key: Array | None = None) -> TwoInputs:
        return TwoInputs(x @ weights["W_x"] + weights["b"], x @ weights["V_x"])

    def step(weights: Weights, old: Carry, z: TwoInputs) -> Carry:
        return update(old, z.later, split(z.now + old.past, GATES))

    return Cell(init, initial_carry, step, project)
