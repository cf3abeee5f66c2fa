"""Wrappers that change how the gates of a cell come from its input and state, for cells made by `gated`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rnnjax.cells.gated import split
from rnnjax.cells.inside import Own, projected, with_affine, with_parameters
from rnnjax.types import Array, Cell, Gates, Params

EPSILON = 1e-5


def layernorm(cell: Cell, *, gain: float | Array = 1.0) -> Cell:
    """Gates of normalised products.

        s_t = g_x norm(W_x x_t) + g_h norm(W_h h_{t-1}) + b      for each gate by itself
        norm(a) = (a - mean(a)) / sqrt(var(a) + 1e-5)            over its H units

    Ba, Kiros & Hinton (2016), Layer normalization (arXiv:1607.06450), their form with the two products apart; b stands
    for its two shifts, too. There one norm is over all gates, and c of an LSTM is normed before h is made of it, which
    is not done here.

    Args:
      cell: a cell made by `gated`.
      gain: g_x and g_h at the start.

    Raises ValueError for another cell.
    """

    def draw(names: dict[str, tuple[str, ...]], units: int) -> dict[str, Array]:
        return {side: jnp.full((len(names[side]) * units,), gain, jnp.float32) for side in ("x", "h")}

    def of_input(own, a):
        return (own["x"] * _norm(a),)

    def joined(own, z, u):
        seen = [*z, *([] if u is None else [own["h"] * _norm(u)])]
        return sum(seen[1:], seen[0])

    return _with_products("layernorm", cell, draw, of_input, joined)


def multiplicative(cell: Cell, *, alpha: float | Array = 1.0, beta: float | Array = 1.0) -> Cell:
    """Multiplicative integration: the products of input and state multiply each other.

        s_t = alpha (W_x x_t) (W_h h_{t-1}) + beta_x W_x x_t + beta_h W_h h_{t-1} + b      for each gate that sees both

    Wu et al. (2016), On multiplicative integration with recurrent neural networks (arXiv:1606.06630), the general form.

    Args:
      cell: a cell made by `gated`.
      alpha: alpha at the start; with 0 here and beta 1, the cell begins as itself.
      beta: beta_x and beta_h at the start.

    Raises ValueError for another cell.
    """

    def draw(names: dict[str, tuple[str, ...]], units: int) -> dict[str, Array]:
        values = {"alpha": alpha, "beta_x": beta, "beta_h": beta}
        return {name: jnp.full((len(names["both"]) * units,), value, jnp.float32) for name, value in values.items()}

    def of_input(own, a):
        return (own["beta_x"] * a, own["alpha"] * a) if "alpha" in own else (a,)

    def joined(own, z, u):
        if "alpha" not in own:
            return u if u is not None else z[0]
        return z[0] + (z[1] + own["beta_h"]) * u

    return _with_products("multiplicative", cell, draw, of_input, joined)


SIDES = {"x": "x", "h": "h", "alpha": "both", "beta_x": "both", "beta_h": "both"}  # which gates a parameter is of


def _with_products(kind: str, cell: Cell, draw: Callable, of_input: Callable, joined: Callable) -> Cell:
    """`cell` whose gates are joined of W_x x and W_h h in another way than by their sum.

    Args:
      kind: the wrapper's name.
      cell: the cell inside.
      draw: (gates by side, H) -> parameters, each one vector `[H]` for each gate of its side in `SIDES`.
      of_input: (a gate's parameters, W_x x) -> what is made of it for all steps at once, a tuple, b added to the first.
      joined: (a gate's parameters, that tuple or (), W_h h or None) -> the pre-activation.
    """
    gates = cell.form
    if not isinstance(gates, Gates):
        raise ValueError(f"{kind} needs a cell made by cells.gated, and no wrapper of the step inside it")

    def of_gates(own, z):
        """The parameters by gate."""
        sides = _sides(gates, z)
        each = {name: split(value, sides[SIDES[name]]) for name, value in own.items() if sides[SIDES[name]]}
        return {gate: {name: a[gate] for name, a in each.items() if gate in a} for gate in gates.activations}

    def init_own(key: Array, params: Params, input_size: int) -> dict[str, Array]:
        weights = cell.weights(params)
        z = jax.eval_shape(lambda: cell.project(weights, jnp.zeros(input_size)))
        if not (isinstance(weights, dict) and isinstance(z, dict) and "W_h" in weights):
            raise ValueError(f"{kind} needs a cell made by cells.gated")
        return draw(_sides(gates, z), weights["W_h"].shape[-1] // len(gates.of_state))

    def project(weights: Own, x: Array, key: Array | None = None) -> dict[str, Any]:
        z = projected(cell, weights.inside, x, key)
        b, own = cell.project(weights.inside, jnp.zeros_like(x, shape=x.shape[-1:])), of_gates(weights.own, z)

        def with_bias(first, *rest, b):
            return (first + b, *rest)

        return {gate: with_bias(*of_input(own[gate], a - b[gate]), b=b[gate]) for gate, a in z.items()}

    def affine(weights: Own, h: Array, z: dict[str, Any]) -> dict[str, Array]:
        s = gates.affine(weights.inside, h, {gate: jnp.zeros_like(parts[0]) for gate, parts in z.items()})
        alone = tuple(gate for gate in gates.of_state if gate not in z)
        b = split(weights.inside["b_h"], alone) if alone else {}
        own = of_gates(weights.own, z)
        found = {}
        for gate in gates.activations:
            u = s[gate] - b.get(gate, 0) if gate in gates.of_state else None
            found[gate] = joined(own[gate], z.get(gate, ()), u) + b.get(gate, 0)
        return found

    return with_affine(with_parameters(cell, kind, init_own), affine)._replace(project=project)


def _sides(gates: Gates, z: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """The gates that see x, those that see h and those that see both, in the order of the weights."""
    x = tuple(gate for gate in gates.activations if gate in z)
    return {"x": x, "h": gates.of_state, "both": tuple(gate for gate in gates.of_state if gate in x)}


def _norm(a: Array) -> Array:
    """Each `[H]` with mean 0 and variance 1; in float32 at least."""
    wide = a.astype(jnp.promote_types(a.dtype, jnp.float32))
    centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
    return (centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + EPSILON)).astype(a.dtype)
