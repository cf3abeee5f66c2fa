"""Gated recurrent units in their two published forms, and the minimal gated unit."""

import jax
import jax.numpy as jnp

from rnnjax.cells.gated import check_hidden_size, gated, memoized, split, unsquashed
from rnnjax.initializers import Initializer, constant, glorot, orthogonal, per_gate, zeros
from rnnjax.types import Array, Cell, Params

sigmoid = jax.nn.sigmoid


@memoized
def gru(
    hidden_size: int, *, gain: float | Array = 1.0, w_x: Initializer = glorot, w_h: Initializer | None = None
) -> Cell:
    """GRU with the reset gate after the matmul, as in PyTorch, Flax and cuDNN.

        r_t = sigmoid(W_r x_t + U_r h_{t-1} + b_r)
        z_t = sigmoid(W_z x_t + U_z h_{t-1} + b_z)
        n_t = tanh(W_n x_t + b_n + r_t (U_n h_{t-1} + b_h))
        h_t = (1 - z_t) n_t + z_t h_{t-1}

    Cho et al. (2014) in the form of Chung et al. (2014, arXiv:1412.3555); z keeps the old state.

    Args:
      hidden_size: H.
      gain: scale of the orthogonal U, gate by gate.
      w_x, w_h: initialisers instead of Glorot and orthogonal.
    """

    def update(weights, h, *, r, z, n_x, n_h):
        return (1 - z) * jnp.tanh(n_x + r * n_h) + z * h

    return gated(
        hidden_size,
        {"r": sigmoid, "z": sigmoid, "n_x": unsquashed, "n_h": unsquashed},
        update,
        of_input=("r", "z", "n_x"),
        of_state=("r", "z", "n_h"),
        w_x=w_x,
        w_h=orthogonal(gain) if w_h is None else w_h,
    )


@memoized
def gru_cho(
    hidden_size: int, *, gain: float | Array = 1.0, w_x: Initializer = glorot, w_h: Initializer | None = None
) -> Cell:
    """GRU with the reset gate before the matmul.

        r_t = sigmoid(W_r x_t + U_r h_{t-1} + b_r)
        z_t = sigmoid(W_z x_t + U_z h_{t-1} + b_z)
        n_t = tanh(W_n x_t + U_n (r_t h_{t-1}) + b_n)
        h_t = z_t h_{t-1} + (1 - z_t) n_t

    Cho et al. (2014), arXiv:1406.1078. Two matmuls in sequence a step, so it is written as a free-form `step`.

    Args:
      hidden_size: H.
      gain: scale of the orthogonal U, gate by gate.
      w_x, w_h: initialisers instead of Glorot and orthogonal.
    """
    check_hidden_size(hidden_size)
    w_h = orthogonal(gain) if w_h is None else w_h
    gates = ("r", "z", "n")

    def init(key: Array, input_size: int) -> Params:
        key_x, key_h = jax.random.split(key)
        return {
            "W_x": per_gate(w_x, 3)(key_x, (input_size, 3 * hidden_size)),
            "W_h": per_gate(w_h, 3)(key_h, (hidden_size, 3 * hidden_size)),
            "b": zeros(None, (3 * hidden_size,)),
        }

    def initial_carry(weights, batch_shape):
        return jnp.zeros((*batch_shape, hidden_size))

    def project(weights, x, key=None):
        W_x, b = split(weights["W_x"], gates), split(weights["b"], gates)
        return {gate: x @ W_x[gate] + b[gate] for gate in gates}

    def step(weights, h, z_x):
        W_rz, W_n = jnp.split(weights["W_h"], [2 * hidden_size], axis=1)
        r, z = jnp.split(h @ W_rz, 2, axis=-1)
        r, z = sigmoid(z_x["r"] + r), sigmoid(z_x["z"] + z)
        n = jnp.tanh(z_x["n"] + (r * h) @ W_n)
        return z * h + (1 - z) * n

    return Cell(init, initial_carry, step, project)


@memoized
def mgu(
    hidden_size: int,
    *,
    forget_bias: float | Array = 1.0,
    gain: float | Array = 1.0,
    w_x: Initializer = glorot,
    w_h: Initializer | None = None,
) -> Cell:
    """Minimal gated unit: a GRU whose one gate both resets and updates, as `flax.linen.MGUCell`.

        f_t = sigmoid(W_f x_t + U_f h_{t-1} + b_f)
        n_t = tanh(W_n x_t + b_n + f_t (U_n h_{t-1} + b_h))
        h_t = (1 - f_t) n_t + f_t h_{t-1}

    Zhou et al. (2016), arXiv:1603.09420, whose f is 1 - f here and multiplies h before the matmul.

    Args:
      hidden_size: H.
      forget_bias: b_f at the start; above 0 a step keeps more of the state than it replaces.
      gain: scale of the orthogonal U, gate by gate.
      w_x, w_h: initialisers instead of Glorot and orthogonal.
    """

    def update(weights, h, *, f, n_x, n_h):
        return (1 - f) * jnp.tanh(n_x + f * n_h) + f * h

    return gated(
        hidden_size,
        {"f": sigmoid, "n_x": unsquashed, "n_h": unsquashed},
        update,
        of_input=("f", "n_x"),
        of_state=("f", "n_h"),
        w_x=w_x,
        w_h=orthogonal(gain) if w_h is None else w_h,
        bias={"f": constant(forget_bias)},
    )
