"""Cells whose matrices all multiply inputs, so that what is left to do step by step is elementwise."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from rnnjax.cells.gated import check_hidden_size, gated, memoized, split, unsquashed
from rnnjax.cells.linear import linear
from rnnjax.initializers import constant, glorot, per_gate, zeros
from rnnjax.types import Array, Cell, Params, Weights

sigmoid = jax.nn.sigmoid


class SRUCarry(NamedTuple):
    """The memory and the shown state, both `[..., H]`."""

    c: Array
    h: Array


@memoized
def sru(hidden_size: int, *, highway_bias: float | Array = 0.0, rescale: bool = True) -> Cell:
    """The simple recurrent unit, whose gates see their own unit's memory and nothing else of the state.

        f_t = sigmoid(W_f x_t + v_f c_{t-1} + b_f)          r_t = sigmoid(W_r x_t + v_r c_{t-1} + b_r)
        c_t = f_t c_{t-1} + (1 - f_t) W x_t
        h_t = r_t c_t + (1 - r_t) alpha x_t                 W_s x_t instead of alpha x_t, where D is not H

    Lei, Zhang, Wang, Dai & Artzi (2018, arXiv:1709.02755), Simple recurrent units for highly parallelizable
    recurrence; their version 2. `sru_v1` has no v, and is linear. As in their code W starts uniform with variance 1/D,
    W_f and W_r with half of that, v with 1/2, and W_s with alpha^2/D; alpha = sqrt(1 + 2 exp(highway_bias)) keeps the
    variance of h, and is fixed.

    Args:
      hidden_size: H.
      highway_bias: b_r at the start; a negative one lets more of x through. b_f starts at 0.
      rescale: False for alpha = 1, as the authors' `SRU` has it by default, and their `SRUCell` has not.

    Raises ValueError for a hidden size below 1 or not whole.
    """

    def update(weights, carry, *, z, f, r, x):
        c = f * carry.c + (1 - f) * z
        return SRUCarry(c, r * c + (1 - r) * x)

    cell = gated(
        hidden_size,
        {"z": unsquashed, "f": sigmoid, "r": sigmoid, "x": unsquashed},
        update,
        of_state=("f", "r"),
        carry=SRUCarry,
        state=_memory,
        diagonal=True,
    )
    init, weights = _sru_parameters(hidden_size, highway_bias, rescale, of_gates=0.5)

    def init_with_v(key: Array, input_size: int) -> Params:
        return init(key, input_size) | {"W_h": _uniform(jax.random.fold_in(key, 1), (2 * hidden_size,), 0.5)}

    return cell._replace(init=init_with_v, weights=weights)


@memoized
def sru_v1(hidden_size: int, *, highway_bias: float | Array = 0.0, rescale: bool = True) -> Cell:
    """The first version of the simple recurrent unit, whose gates see the input alone.

        f_t = sigmoid(W_f x_t + b_f)                        r_t = sigmoid(W_r x_t + b_r)
        c_t = f_t c_{t-1} + (1 - f_t) W x_t
        h_t = r_t c_t + (1 - r_t) alpha x_t                 W_s x_t instead of alpha x_t, where D is not H

    Lei, Zhang & Artzi (2017, arXiv:1709.02755v1), Training RNNs as fast as CNNs, without the tanh of c there, as in
    their later code. Linear in c, so all steps can be run at once. It starts as `sru` does, but W_f and W_r as W.

    Args:
      hidden_size: H.
      highway_bias: b_r at the start; a negative one lets more of x through. b_f starts at 0.
      rescale: False for alpha = 1, as the authors' `SRU` has it by default, and their `SRUCell` has not.

    Raises ValueError for a hidden size below 1 or not whole.
    """
    check_hidden_size(hidden_size)
    init, weights = _sru_parameters(hidden_size, highway_bias, rescale, of_gates=1.0)
    names = ("z", "f", "r", "x")

    def project(weights: Weights, x: Array, key: Array | None = None) -> dict[str, Array]:
        W_x, b = split(weights["W_x"], names), split(weights["b"], names)
        s = {name: x @ W_x[name] + b[name] for name in names}
        return s | {"f": sigmoid(s["f"]), "r": sigmoid(s["r"])}

    def initial_carry(weights: Weights, batch_shape: tuple[int, ...]) -> Array:
        return jnp.zeros((*batch_shape, hidden_size))

    def output(weights: Weights, c: Array, z: dict[str, Array]) -> Array:
        return z["r"] * c + (1 - z["r"]) * z["x"]

    return linear(
        init,
        initial_carry,
        lambda weights, z: (z["f"], (1 - z["f"]) * z["z"]),
        project=project,
        output=output,
        weights=weights,
    )


def _memory(carry):
    return carry.c


def _uniform(key, shape, variance):
    bound = (3 * variance) ** 0.5
    return jax.random.uniform(key, shape, jnp.float32, -bound, bound)


def _sru_parameters(hidden_size, highway_bias, rescale, of_gates):
    """(init, weights): W_x of z, f and r and, where D is not H, W_s, become one matrix `[D, 4 H]` with what skips c.

    `of_gates` is the variance of W_f and W_r at the start, as a part of W's.
    """
    H = hidden_size

    def alpha(dtype: jnp.dtype) -> Array:
        return jnp.sqrt(1 + 2 * jnp.exp(jnp.asarray(highway_bias, dtype))) if rescale else jnp.ones((), dtype)

    def init(key: Array, input_size: int) -> Params:
        key_z, key_f, key_s = jax.random.split(key, 3)
        variance = 1 / max(input_size, 1)
        W, W_fr = _uniform(key_z, (input_size, H), variance), _uniform(key_f, (input_size, 2 * H), of_gates * variance)
        params = {
            "W_x": jnp.concatenate([W, W_fr], axis=1),
            "b": jnp.concatenate([zeros(None, (H,)), constant(highway_bias)(None, (H,))]),  # of f and r
        }
        if input_size != H:
            params["W_s"] = alpha(jnp.float32) * _uniform(key_s, (input_size, H), variance)
        return params

    def weights(params: Params) -> Weights:
        W_x, b = params["W_x"], params["b"]
        skip = params["W_s"] if "W_s" in params else alpha(W_x.dtype) * jnp.eye(H, dtype=W_x.dtype)
        zero = jnp.zeros(H, b.dtype)
        return params | {"W_x": jnp.concatenate([W_x, skip], axis=1), "b": jnp.concatenate([zero, b, zero])}

    return init, weights


class QRNNCarry(NamedTuple):
    """The memory, what past inputs will add to coming steps, and the shown state."""

    c: Array  # [..., H]
    past: Array  # [..., (k - 1) G H]
    h: Array  # [..., H]


POOLING = {"f": ("z", "f"), "fo": ("z", "f", "o"), "ifo": ("z", "f", "o", "i")}


@memoized
def qrnn(hidden_size: int, *, window: int = 2, pooling: Literal["f", "fo", "ifo"] = "fo") -> Cell:
    """The quasi-recurrent network: gates from a convolution over the last inputs, and a linear memory.

        s_t = W_0 x_t + W_1 x_{t-1} + ... + W_{k-1} x_{t-k+1} + b       for each of z, f, o and i; x is 0 before t = 1
        c_t = sigmoid(f) c_{t-1} + (1 - sigmoid(f)) tanh(z)             sigmoid(i) instead of 1 - sigmoid(f): ifo
        h_t = sigmoid(o) c_t                                            c_t: f

    Bradbury, Merity, Xiong & Socher (2016, arXiv:1611.01576), Quasi-recurrent neural networks. Some public versions
    keep 1 - f where the paper keeps f. W `[D, k G H]`, with W_0 first, starts as Glorot over the window, b at 0.

    With a window of 1 it is linear in c, so all steps can be run at once. With a longer one the gates depend on what
    the carry holds of past inputs, so it runs step by step, though no step multiplies by a matrix: each input is
    multiplied by all W_j when it comes, and the carry holds the sums that are still to be used.

    Args:
      hidden_size: H.
      window: k, how many inputs a gate sees.
      pooling: which gates there are, f, f and o, or i, f and o.

    Raises ValueError for a hidden size below 1 or not whole, a window below 1, and an unknown `pooling`.
    """
    check_hidden_size(hidden_size)
    if window < 1:
        raise ValueError(f"window is {window}; allowed: 1, 2, ...")
    if pooling not in POOLING:
        raise ValueError(f"unknown pooling {pooling!r}; allowed: {', '.join(POOLING)}")
    names = POOLING[pooling]
    columns = len(names) * hidden_size

    def init(key: Array, input_size: int) -> Params:
        W = per_gate(glorot, len(names))(key, (input_size * window, columns))
        return {"W": W.reshape(input_size, window * columns), "b": zeros(None, (columns,))}

    def project(weights: Weights, x: Array, key: Array | None = None) -> Array:
        return x @ weights["W"] + jnp.pad(weights["b"], (0, (window - 1) * columns))

    def gates(s: Array) -> dict[str, Array]:
        s = split(s, names)
        return {name: jnp.tanh(a) if name == "z" else sigmoid(a) for name, a in s.items()}

    def coefficients(weights: Weights, s: Array) -> tuple[Array, Array]:
        gate = gates(s)
        return gate["f"], gate.get("i", 1 - gate["f"]) * gate["z"]

    def shown(c: Array, s: Array) -> Array:
        return gates(s).get("o", 1.0) * c

    def zero(weights: Weights, batch_shape: tuple[int, ...]) -> Array:
        return jnp.zeros((*batch_shape, hidden_size))

    if window == 1:
        return linear(init, zero, coefficients, project=project, output=lambda weights, c, s: shown(c, s))

    def initial_carry(weights: Weights, batch_shape: tuple[int, ...]) -> QRNNCarry:
        past = jnp.zeros((*batch_shape, (window - 1) * columns))
        return QRNNCarry(zero(weights, batch_shape), past, zero(weights, batch_shape))

    def step(weights: Weights, carry: QRNNCarry, z: Array) -> QRNNCarry:
        later = [(0, 0)] * (carry.past.ndim - 1) + [(0, columns)]  # what is furthest ahead begins with this input
        s = z + jnp.pad(carry.past, later)
        a, b = coefficients(weights, s[..., :columns])
        c = a * carry.c + b
        return QRNNCarry(c, s[..., columns:], shown(c, s[..., :columns]))

    return Cell(init, initial_carry, step, project)
