"""Cells whose step has two or more products in a row: highways, the mutants of a search, and a slow context."""

import numbers
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rnnjax.cells.gated import check_hidden_size, memoized, split
from rnnjax.initializers import glorot, orthogonal, per_gate, zeros
from rnnjax.types import Array, Cell, Params

sigmoid = jax.nn.sigmoid


@memoized
def rhn(hidden_size: int, *, depth: int = 10, transform_bias: float | Array = -2.0, gain: float | Array = 1.0) -> Cell:
    """Recurrent highway network (RHN): L highway layers in a row at each step.

        h_l = tanh([l = 1] W_H x_t + R_Hl s_{l-1} + b_Hl)
        t_l = sigmoid([l = 1] W_T x_t + R_Tl s_{l-1} + b_Tl)        l = 1, ..., L
        s_l = t_l h_l + (1 - t_l) s_{l-1}                           s_0 of step t is s_L of step t - 1

    Zilly et al. (2016, arXiv:1607.03474), Recurrent highway networks, with the coupled carry gate c = 1 - t of their
    experiments. x enters the first layer alone, and t takes up the new. Without their dropout. W starts as Glorot's;
    the paper draws all matrices from U(-0.04, 0.04), for some 1000 units.

    Args:
      hidden_size: H.
      depth: L, how many layers a step goes through.
      transform_bias: b_T at the start; -2 for words, -4 for characters in the paper.
      gain: scale of the orthogonal R, gate by gate.

    Raises ValueError for a depth below 1 or not whole.
    """
    check_hidden_size(hidden_size)
    if not isinstance(depth, numbers.Integral) or depth < 1:
        raise ValueError(f"{depth=}; allowed: 1, 2, ...")
    H = hidden_size

    def init(key: Array, input_size: int) -> Params:
        key, *keys = jax.random.split(key, depth + 1)
        b = jnp.concatenate([jnp.zeros(H, jnp.float32), jnp.full(H, transform_bias, jnp.float32)])
        return {
            "W_x": per_gate(glorot, 2)(key, (input_size, 2 * H)),
            "R": jnp.stack([per_gate(orthogonal(gain), 2)(k, (H, 2 * H)) for k in keys]),
            "b": jnp.tile(b, (depth, 1)),
        }

    def project(weights: Params, x: Array, key: Array | None = None) -> Array:
        return x @ weights["W_x"]

    def step(weights: Params, s: Array, z: Array) -> Array:
        for layer in range(depth):
            inner = s @ weights["R"][layer] + weights["b"][layer] + (z if layer == 0 else 0)
            h, t = jnp.split(inner, 2, axis=-1)
            t = sigmoid(t)
            s = t * jnp.tanh(h) + (1 - t) * s
        return s

    return Cell(init, _zeros(H), step, project)


@memoized
def mut1(hidden_size: int, *, bare_input: bool = False, gain: float | Array = 1.0) -> Cell:
    """MUT1, the first of three cells that a search over ten thousand found: its update gate sees no state.

        z_t = sigmoid(W_z x_t + b_z)
        r_t = sigmoid(W_r x_t + U_r h_{t-1} + b_r)
        n_t = tanh(U_n (r_t h_{t-1}) + tanh(W_n x_t) + b_n)
        h_t = z_t n_t + (1 - z_t) h_{t-1}

    Jozefowicz, Zaremba & Sutskever (2015), An empirical exploration of recurrent network architectures. The paper has
    tanh(x_t), which asks for an input as wide as the state. W starts as Glorot's, biases as 0.

    Args:
      hidden_size: H.
      bare_input: tanh(x_t) as in the paper; there is no W_n, and the input is to have H features.
      gain: scale of the orthogonal U, gate by gate.
    """
    return _mutant(hidden_size, gain, content=jnp.tanh, bare="n" if bare_input else None)


@memoized
def mut2(hidden_size: int, *, bare_input: bool = False, gain: float | Array = 1.0) -> Cell:
    """MUT2: a GRU whose reset gate sees the input as it is.

        z_t = sigmoid(W_z x_t + U_z h_{t-1} + b_z)
        r_t = sigmoid(W_r x_t + U_r h_{t-1} + b_r)
        n_t = tanh(U_n (r_t h_{t-1}) + W_n x_t + b_n)
        h_t = z_t n_t + (1 - z_t) h_{t-1}

    Jozefowicz, Zaremba & Sutskever (2015), An empirical exploration of recurrent network architectures. The paper has
    x_t for W_r x_t, which asks for an input as wide as the state; without `bare_input` this is `gru_cho` with 1 - z for
    z. W starts as Glorot's, biases as 0.

    Args:
      hidden_size: H.
      bare_input: x_t as in the paper; there is no W_r, and the input is to have H features.
      gain: scale of the orthogonal U, gate by gate.
    """
    return _mutant(hidden_size, gain, z_sees=lambda h: h, bare="r" if bare_input else None)


@memoized
def mut3(hidden_size: int, *, gain: float | Array = 1.0) -> Cell:
    """MUT3: a GRU whose update gate sees tanh of the state.

        z_t = sigmoid(W_z x_t + U_z tanh(h_{t-1}) + b_z)
        r_t = sigmoid(W_r x_t + U_r h_{t-1} + b_r)
        n_t = tanh(U_n (r_t h_{t-1}) + W_n x_t + b_n)
        h_t = z_t n_t + (1 - z_t) h_{t-1}

    Jozefowicz, Zaremba & Sutskever (2015), An empirical exploration of recurrent network architectures. W starts as
    Glorot's, biases as 0.

    Args:
      hidden_size: H.
      gain: scale of the orthogonal U, gate by gate.
    """
    return _mutant(hidden_size, gain, z_sees=jnp.tanh)


def _mutant(
    hidden_size: int,
    gain: float | Array,
    *,
    z_sees: Callable[[Array], Array] | None = None,
    content: Callable[[Array], Array] = lambda s: s,
    bare: str | None = None,
) -> Cell:
    """What the mutants share: `z_sees` of h, if anything; `content` of W_n x; the gate that x enters `bare`."""
    check_hidden_size(hidden_size)
    names = ("z", "r", "n")
    of_input = tuple(name for name in names if name != bare)
    of_state = names if z_sees else names[1:]

    def init(key: Array, input_size: int) -> Params:
        if bare and input_size != hidden_size:
            raise ValueError(f"bare_input with {input_size} features; allowed: {hidden_size}, the hidden size")
        key_x, key_h = jax.random.split(key)
        columns_x, columns_h = len(of_input) * hidden_size, len(of_state) * hidden_size
        return {
            "W_x": per_gate(glorot, len(of_input))(key_x, (input_size, columns_x)),
            "W_h": per_gate(orthogonal(gain), len(of_state))(key_h, (hidden_size, columns_h)),
            "b": zeros(key, (3 * hidden_size,)),
        }

    def project(weights: Params, x: Array, key: Array | None = None) -> dict[str, Array]:
        s = {name: x @ W for name, W in split(weights["W_x"], of_input).items()} | ({bare: x} if bare else {})
        s["n"] = content(s["n"])
        return {name: s[name] + b for name, b in split(weights["b"], names).items()}

    def step(weights: Params, h: Array, s: dict[str, Array]) -> Array:
        U = split(weights["W_h"], of_state)
        z = sigmoid(s["z"] + z_sees(h) @ U["z"] if z_sees else s["z"])
        r = sigmoid(s["r"] + h @ U["r"])
        n = jnp.tanh(s["n"] + (r * h) @ U["n"])
        return z * n + (1 - z) * h

    return Cell(init, _zeros(hidden_size), step, project)


class SCRNCarry(NamedTuple):
    """The hidden state h `[..., H]` and the slow context s `[..., K]`."""

    h: Array
    s: Array


@memoized
def scrn(hidden_size: int, *, context_size: int = 40, alpha: float | Array = 0.95, gain: float | Array = 1.0) -> Cell:
    """Structurally constrained recurrent network (SCRN): an Elman network beside slow averages of its input.

        s_t = (1 - alpha) B x_t + alpha s_{t-1}          [K], the context
        h_t = sigmoid(P s_t + A x_t + R h_{t-1})         [H]
        y_t = [h_t, s_t]

    Mikolov et al. (2014, arXiv:1412.7753), Learning longer memory in recurrent neural networks. The readout sees both
    parts, so that y has H + K features. h sees the new context; a published program gives it the old one. alpha is not
    learned. A, B and P start as Glorot's; there are no biases.

    Args:
      hidden_size: H.
      context_size: K, how many numbers the context has.
      alpha: how much of the context a step keeps.
      gain: scale of the orthogonal R.

    Raises ValueError for a context_size below 1 or not whole.
    """
    check_hidden_size(hidden_size)
    if not isinstance(context_size, numbers.Integral) or context_size < 1:
        raise ValueError(f"{context_size=}; allowed: 1, 2, ...")

    def init(key: Array, input_size: int) -> Params:
        keys = jax.random.split(key, 4)
        return {
            "A": glorot(keys[0], (input_size, hidden_size)),
            "B": glorot(keys[1], (input_size, context_size)),
            "P": glorot(keys[2], (context_size, hidden_size)),
            "R": orthogonal(gain)(keys[3], (hidden_size, hidden_size)),
        }

    def initial_carry(weights: Params, batch_shape: tuple[int, ...]) -> SCRNCarry:
        return SCRNCarry(jnp.zeros((*batch_shape, hidden_size)), jnp.zeros((*batch_shape, context_size)))

    def project(weights: Params, x: Array, key: Array | None = None) -> tuple[Array, Array]:
        return x @ weights["A"], ((1 - alpha) * (x @ weights["B"])).astype(x.dtype)

    def step(weights: Params, carry: SCRNCarry, z: tuple[Array, Array]) -> SCRNCarry:
        s = z[1] + alpha * carry.s
        return SCRNCarry(sigmoid(s @ weights["P"] + z[0] + carry.h @ weights["R"]), s)

    def output(weights: Params, carry: SCRNCarry, z: tuple[Array, Array]) -> Array:
        return jnp.concatenate(carry, axis=-1)

    return Cell(init, initial_carry, step, project, output)


def _zeros(hidden_size: int) -> Callable[..., Array]:
    return lambda weights, batch_shape: jnp.zeros((*batch_shape, hidden_size))
