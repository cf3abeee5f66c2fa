"""Liquid networks: neurons whose time constant depends on what they receive, stepped or in closed form."""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp

from rnnjax.cells.gated import check_hidden_size, check_positive, gated, memoized, split, unsquashed, with_constants
from rnnjax.initializers import glorot, per_gate, uniform_sqrt
from rnnjax.types import Activation, Array, Cell, Params, Weights

sigmoid = jax.nn.sigmoid


def _lecun_tanh(s):
    return 1.7159 * jnp.tanh(0.666 * s)


def _gelu(s):
    return jax.nn.gelu(s, approximate=False)


ACTIVATIONS: dict[str, Activation] = {
    "lecun_tanh": _lecun_tanh,
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "gelu": _gelu,
}
MODES = ("default", "no_gate", "pure")


@memoized
def cfc(
    hidden_size: int,
    *,
    mode: Literal["default", "no_gate", "pure"] = "default",
    backbone_layers: int = 1,
    backbone_units: int = 128,
    activation: Literal["lecun_tanh", "tanh", "relu", "silu", "gelu"] = "lecun_tanh",
    dt: float | Array = 1.0,
) -> Cell:
    """Closed-form continuous-time network (CfC): what a liquid neuron comes to, without a solver.

        u_t = backbone(W_x x_t + W_h h_{t-1} + b)                         layers of an MLP, each with phi
        f, g = tanh(W_f u_t + b_f), tanh(W_g u_t + b_g)                   two ends, one for early and one for late
        s = sigmoid((W_a u_t + b_a) dt + W_b u_t + b_b)                   where between them, by the time passed
        h_t = f (1 - s) + g s           default
        h_t = f + g s                   no_gate
        h_t = A - A exp(-dt (|w_tau| + |f|)) f,    f = W_f u_t + b_f      pure

    Hasani et al. (2021), arXiv:2106.13898, as in the authors' package ncps, which takes the sign of the paper's time
    gate into the weights. W_k, b_k belong to the k-th layer, the last of which makes all heads at once, in the order f,
    g, a, b. With a backbone it is written as a free-form `step`; with none, the heads see x and h, and it is a gated
    cell. Matrices start as Glorot, head by head, biases as U(-a, a), a^2 = 1 / fan-in, and A and w_tau as Glorot for a
    row, which is what ncps draws over its A = 1 and w_tau = 0 (at which |w_tau| would have no gradient). The pure form
    does not depend on h but through f. The defaults are those of ncps.

    Args:
      hidden_size: H.
      mode: which of the three makes h.
      backbone_layers: layers of the backbone, the MLP before the heads; 0 for none.
      backbone_units: units of each of these layers.
      activation: phi, the nonlinearity of the backbone.
      dt: the time that passes in a step.

    Raises ValueError for an unknown mode or activation, fewer than 0 layers or 1 unit, and a dt of 0 or less.
    """
    check_hidden_size(hidden_size)
    _check_cfc(mode, activation, backbone_layers, backbone_units, dt)
    pure, phi, H = mode == "pure", ACTIVATIONS[activation], hidden_size
    heads: dict[str, Activation] = {"f": unsquashed if pure else jnp.tanh}
    heads |= {} if pure else {"g": jnp.tanh, "a": unsquashed, "b": unsquashed}
    widths = [*[backbone_units] * backbone_layers, len(heads) * H]

    def init(key: Array, input_size: int) -> Params:
        params: Params = {}
        fan_in = input_size + H
        for k, width in enumerate(widths, 1):
            key, key_w, key_b = jax.random.split(key, 3)
            W = per_gate(glorot, len(heads) if k == len(widths) else 1)(key_w, (fan_in, width))
            b = uniform_sqrt(fan_in)(key_b, (width,))
            of_both = {"W_x": W[:input_size], "W_h": W[input_size:], "b": b}
            params |= of_both if k == 1 else {f"W_{k}": W, f"b_{k}": b}
            fan_in = width
        for name in ("A", "w_tau") if pure else ():
            key, key_w = jax.random.split(key)
            params[name] = glorot(key_w, (1, H))[0]
        return params

    def update(weights, h, *, f, g=None, a=None, b=None):
        dt = weights["dt"]
        if pure:
            return weights["A"] * (1 - jnp.exp(-dt * (jnp.abs(weights["w_tau"]) + jnp.abs(f))) * f)
        s = sigmoid(a * dt + b)
        return f + g * s if mode == "no_gate" else f * (1 - s) + g * s

    def initial_carry(weights: Weights, batch_shape: tuple[int, ...]) -> Array:
        return jnp.zeros((*batch_shape, H))

    def project(weights: Weights, x: Array, key: Array | None = None) -> Array:
        return x @ weights["W_x"] + weights["b"]

    def step(weights: Weights, h: Array, x: Array) -> Array:
        u = x + h @ weights["W_h"]
        for k in range(2, len(widths) + 1):
            u = phi(u) @ weights[f"W_{k}"] + weights[f"b_{k}"]
        s = split(u, tuple(heads))
        return update(weights, h, **{name: heads[name](s[name]) for name in heads})

    by_layers = Cell(init, initial_carry, step, project)
    cell = by_layers if backbone_layers else gated(H, heads, update)._replace(init=init)
    return with_constants(cell, dt=dt)


def _check_cfc(mode: str, activation: str, layers: int, units: int, dt: float | Array):
    if mode not in MODES:
        raise ValueError(f"unknown mode {mode!r}; allowed: {', '.join(MODES)}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"unknown activation {activation!r}; allowed: {', '.join(ACTIVATIONS)}")
    if layers < 0:
        raise ValueError(f"backbone_layers is {layers}; allowed: 0, 1, 2, ...")
    if units < 1:
        raise ValueError(f"backbone_units is {units}; allowed: 1, 2, ...")
    check_positive(dt=dt)


@memoized
def ltc(hidden_size: int, *, unfolds: int = 6, dt: float | Array = 1.0) -> Cell:
    """Liquid time-constant network (LTC): leaky neurons whose synapses open and close, by an implicit solver.

        s_ji = w_ji sigmoid(sigma_ji (v_j - mu_ji))                       of unit j to unit i; s_x of inputs likewise
        v_i <- (c v_i + gleak_i vleak_i + sum_j s_ji E_ji + sum_j s_x,ji E_x,ji)
               / (c + gleak_i + sum_j s_ji + sum_j s_x,ji),    c = cm_i unfolds / dt,    `unfolds` times a step

    Hasani et al. (2020), arXiv:2006.04439, as in the authors' package ncps, all neurons joined, without its affine maps
    of inputs and outputs. A synapse that is open pulls v_i to its reversal potential E, and makes it quicker. w, w_x,
    gleak and cm are the softplus of their parameters, so that v stays between the potentials whatever is learned. The
    parameters start uniform: gleak, w in (0.001, 1), vleak in (-0.2, 0.2), cm in (0.4, 0.6), sigma in (3, 8), mu in
    (0.3, 0.8), and E is 1 or, once in three, -1. The first public code had no dt, and six times less inertia.

    Args:
      hidden_size: H.
      unfolds: steps of the solver in one step.
      dt: the time that passes in a step.

    Raises ValueError for less than 1 unfold, and a dt of 0 or less.
    """
    check_hidden_size(hidden_size)
    if unfolds < 1:
        raise ValueError(f"unfolds is {unfolds}; allowed: 1, 2, ...")
    check_positive(dt=dt)
    H = hidden_size

    def init(key: Array, input_size: int) -> Params:
        ranges = {"gleak": (0.001, 1.0), "vleak": (-0.2, 0.2), "cm": (0.4, 0.6)}
        of_synapses = {"w": (0.001, 1.0), "sigma": (3.0, 8.0), "mu": (0.3, 0.8)}
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(ranges, (H,))
        for end, sources in (("", H), ("_x", input_size)):
            ranges |= {name + end: bounds for name, bounds in of_synapses.items()}
            shapes |= {name + end: (sources, H) for name in (*of_synapses, "E")}
        params = {}
        for name, k in zip(shapes, jax.random.split(key, len(shapes)), strict=True):
            if name in ranges:
                params[name] = jax.random.uniform(k, shapes[name], jnp.float32, *ranges[name])
            else:
                params[name] = jnp.where(jax.random.bernoulli(k, 2 / 3, shapes[name]), 1, -1).astype(jnp.float32)
        return params

    def weights(params: Params) -> Weights:
        made = params | {name: jax.nn.softplus(params[name]) for name in ("gleak", "cm", "w", "w_x")}
        for end in ("", "_x"):  # what the products of the inner loop have in common
            made |= {
                f"wE{end}": made[f"w{end}"] * made[f"E{end}"],
                f"shift{end}": made[f"sigma{end}"] * made[f"mu{end}"],
            }
        return made

    def initial_carry(weights: Weights, batch_shape: tuple[int, ...]) -> Array:
        return jnp.zeros((*batch_shape, H))

    def project(weights: Weights, x: Array, key: Array | None = None) -> tuple[Array, Array]:
        return _synapses(weights, x, "_x")

    def step(weights: Weights, v: Array, x: tuple[Array, Array]) -> Array:
        c = weights["cm"] * unfolds / weights["dt"]
        current, conductance = x[0] + weights["gleak"] * weights["vleak"], x[1] + weights["gleak"]

        @functools.partial(jax.checkpoint, prevent_cse=False)  # [B, H, H] numbers are sooner made again than kept
        def unfold(_: Any, v: Array) -> Array:
            pulled, opened = _synapses(weights, v, "")
            return ((c * v + current + pulled) / (c + conductance + opened)).astype(v.dtype)

        return jax.lax.fori_loop(0, unfolds, unfold, v)

    return with_constants(Cell(init, initial_carry, step, project, weights=weights), dt=dt)


def _synapses(weights: Weights, v: Array, end: str) -> tuple[Array, Array]:
    """(sum_j s_ji E_ji, sum_j s_ji), both `[..., H]`."""
    opened = sigmoid(weights["sigma" + end] * v[..., None] - weights["shift" + end])
    return jnp.sum(opened * weights["wE" + end], axis=-2), jnp.sum(opened * weights["w" + end], axis=-2)
