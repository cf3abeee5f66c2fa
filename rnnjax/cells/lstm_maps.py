"""LSTMs with a second matrix on the way of the state, so that a step makes two products in sequence."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rnnjax.cells.gated import check_hidden_size, memoized, split
from rnnjax.cells.lstm import LSTMCarry
from rnnjax.initializers import Initializer, constant, glorot, orthogonal, per_gate, uniform_sqrt, zeros
from rnnjax.types import Array, Cell, Params

sigmoid = jax.nn.sigmoid
GATES = ("i", "f", "g", "o")


def _bias(hidden_size: int, forget_bias: float | Array) -> Array:
    """b of the four gates at the start, 0 but for b_f."""
    zero, b_f = zeros(None, (hidden_size,)), constant(forget_bias)(None, (hidden_size,))
    return jnp.concatenate([zero, b_f, zero, zero])


@memoized
def lstm_projected(
    hidden_size: int,
    *,
    projection_size: int | None = None,
    peepholes: bool = False,
    forget_bias: float | Array = 1.0,
) -> Cell:
    """The LSTM with a projection (LSTMP): what it shows and feeds back is smaller than its memory.

        i_t = sigmoid(W_i x_t + U_i h_{t-1} + b_i)          g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)
        f_t = sigmoid(W_f x_t + U_f h_{t-1} + b_f)          o_t = sigmoid(W_o x_t + U_o h_{t-1} + b_o)
        c_t = f_t c_{t-1} + i_t g_t                         [H]
        h_t = W_r (o_t tanh(c_t))                           [P]

    Sak, Senior & Beaufays (2014, arXiv:1402.1128), Long short-term memory based recurrent neural network architectures
    for large vocabulary speech recognition, without the second projection that is shown and not fed back; with
    peepholes as there, without as PyTorch's `proj_size`. Weights start as PyTorch's, U(-1/sqrt(H), 1/sqrt(H)), with H
    and not P, and biases at 0 but for b_f.

    Args:
      hidden_size: H, the units of c.
      projection_size: P, the units of h; by default half of H, rounded up.
      peepholes: i and f see c_{t-1} and o sees c_t, through vectors p_i, p_f, p_o.
      forget_bias: b_f at the start.

    Raises ValueError for a hidden size below 1 or not whole, and for a projection that is not 1, ..., H.
    """
    check_hidden_size(hidden_size)
    H, P = hidden_size, (hidden_size + 1) // 2 if projection_size is None else projection_size
    if P not in range(1, H + 1):
        raise ValueError(f"projection_size is {projection_size}; allowed: 1, ..., {H}, the hidden size")
    seen = ("p_i", "p_f", "p_o") if peepholes else ()

    def init(key: Array, input_size: int) -> Params:
        shapes = {"W_x": (input_size, 4 * H), "W_h": (P, 4 * H), "W_r": (H, P), **{name: (H,) for name in seen}}
        keys = jax.random.split(key, len(shapes))
        params = {name: uniform_sqrt(H)(k, shape) for k, (name, shape) in zip(keys, shapes.items(), strict=True)}
        return params | {"b": _bias(H, forget_bias)}

    def initial_carry(weights, batch_shape):
        return LSTMCarry(jnp.zeros((*batch_shape, H)), jnp.zeros((*batch_shape, P)))

    def step(weights, carry, z):
        s = {k: z[k] + u for k, u in split(carry.h @ weights["W_h"], GATES).items()}
        if peepholes:
            s |= {"i": s["i"] + weights["p_i"] * carry.c, "f": s["f"] + weights["p_f"] * carry.c}
        c = sigmoid(s["f"]) * carry.c + sigmoid(s["i"]) * jnp.tanh(s["g"])
        o = sigmoid(s["o"] + weights["p_o"] * c if peepholes else s["o"])
        return LSTMCarry(c, (o * jnp.tanh(c)) @ weights["W_r"])

    return Cell(init, initial_carry, step, _project)


@memoized
def mlstm_mul(
    hidden_size: int,
    *,
    gate_inside: bool = False,
    forget_bias: float | Array = 1.0,
    gain: float | Array = 1.0,
) -> Cell:
    """The multiplicative LSTM: each input has a transition matrix of its own.

        m_t = (W_m x_t) (U_m h_{t-1})
        s_t = W x_t + U m_t + b                             for each of i, f, g, o
        c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g)
        h_t = sigmoid(o) tanh(c_t)

    Krause, Lu, Murray & Renals (2016, arXiv:1609.07959), Multiplicative LSTM for sequence modelling. This is the form
    of its last results, and of OpenAI's sentiment neuron, both of which normalise the weights besides. Not the mLSTM of
    xLSTM, whose memory is a matrix. Where h_0 = 0, the first step sees x_1 through W alone. W and W_m start as Glorot,
    U and U_m orthogonal, b at 0 but for b_f.

    Args:
      hidden_size: H, also that of m.
      gate_inside: the form of the paper's first results instead: c_t = sigmoid(f) c_{t-1} + sigmoid(i) (W_g x_t +
        U_g m_t) and h_t = tanh(sigmoid(o) c_t + b_g); b_f started at 3 there.
      forget_bias: b_f at the start.
      gain: scale of the orthogonal U and U_m.
    """
    check_hidden_size(hidden_size)
    H = hidden_size

    def init(key: Array, input_size: int) -> Params:
        keys = jax.random.split(key, 4)
        return {
            "W_m": glorot(keys[0], (input_size, H)),
            "U_m": orthogonal(gain)(keys[1], (H, H)),
            "W_x": per_gate(glorot, 4)(keys[2], (input_size, 4 * H)),
            "W_h": per_gate(orthogonal(gain), 4)(keys[3], (H, 4 * H)),
            "b": _bias(H, forget_bias),
        }

    def project(weights, x, key=None):
        z = _project(weights, x) | {"m": x @ weights["W_m"]}
        return z | {"g": z["g"] - _b_g(weights)} if gate_inside else z

    def step(weights, carry, z):
        m = z["m"] * (carry.h @ weights["U_m"])
        s = {k: z[k] + u for k, u in split(m @ weights["W_h"], GATES).items()}
        g = s["g"] if gate_inside else jnp.tanh(s["g"])
        c, o = sigmoid(s["f"]) * carry.c + sigmoid(s["i"]) * g, sigmoid(s["o"])
        return LSTMCarry(c, jnp.tanh(o * c + _b_g(weights)) if gate_inside else o * jnp.tanh(c))

    return Cell(init, _zeros(LSTMCarry, H), step, project)


def _b_g(weights):
    return split(weights["b"], GATES)["g"]


class NestedCarry(NamedTuple):
    """The inner memory, the outer one that it computes, and the shown state, all `[..., H]`."""

    c_in: Array
    c: Array
    h: Array


@memoized
def nested_lstm(hidden_size: int, *, forget_bias: float | Array = 1.0) -> Cell:
    """The nested LSTM: the memory of an LSTM is computed by another one, which has a memory of its own.

        i, f, o = sigmoid(W x_t + U h_{t-1} + b)            g = W_g x_t + U_g h_{t-1} + b_g
        i', f', o' = sigmoid(W' (i g) + U' (f c_{t-1}) + b')     g' = tanh(W'_g (i g) + U'_g (f c_{t-1}) + b'_g)
        c_in_t = f' c_in_{t-1} + i' g'
        c_t = o' tanh(c_in_t)                               instead of f c_{t-1} + i g
        h_t = o tanh(c_t)

    Moniz & Krueger (2017, arXiv:1801.10308), Nested LSTMs, of depth two. g is linear, as in the paper, where some
    public versions squash it. W starts as Glorot, all matrices of what the cell makes itself orthogonal, biases at 0
    but for b_f and b'_f.

    Args:
      hidden_size: H.
      forget_bias: b_f and b'_f at the start.
    """
    check_hidden_size(hidden_size)
    H = hidden_size

    def init(key: Array, input_size: int) -> Params:
        shapes: dict[str, tuple[int, Initializer]] = {
            "W_x": (input_size, glorot),
            "W_h": (H, orthogonal()),
            "W_in": (H, orthogonal()),
            "U_in": (H, orthogonal()),
        }
        keys = jax.random.split(key, len(shapes))
        params = {
            name: per_gate(initializer, 4)(k, (rows, 4 * H))
            for k, (name, (rows, initializer)) in zip(keys, shapes.items(), strict=True)
        }
        return params | {"b": _bias(H, forget_bias), "b_in": _bias(H, forget_bias)}

    def step(weights, carry, z):
        s = {k: z[k] + u for k, u in split(carry.h @ weights["W_h"], GATES).items()}
        x, h = sigmoid(s["i"]) * s["g"], sigmoid(s["f"]) * carry.c
        inner = split(x @ weights["W_in"] + h @ weights["U_in"] + weights["b_in"], GATES)
        c_in = sigmoid(inner["f"]) * carry.c_in + sigmoid(inner["i"]) * jnp.tanh(inner["g"])
        c = sigmoid(inner["o"]) * jnp.tanh(c_in)
        return NestedCarry(c_in, c, sigmoid(s["o"]) * jnp.tanh(c))

    return Cell(init, _zeros(NestedCarry, H), step, _project)


def _project(weights, x, key=None):
    W_x, b = split(weights["W_x"], GATES), split(weights["b"], GATES)
    return {k: x @ W_x[k] + b[k] for k in GATES}


def _zeros(carry, hidden_size):
    return lambda weights, batch_shape: carry(*(jnp.zeros((*batch_shape, hidden_size)),) * len(carry._fields))
