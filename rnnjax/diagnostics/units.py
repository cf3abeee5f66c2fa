"""Gates and units along a trajectory, for any cell, without editing it: what `step` computes on its way."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Literal

from rnnjax.engine.steps import carries_around, inexact, unclipped, with_inexact
from rnnjax.types import Array, Carry, Cell, Gates, Params, Weights, prepared


class Units(NamedTuple):
    """Every sigmoid, tanh and ReLU that a step computes, each `[T, ..., H]`, and what a step keeps of the carry.

    A cell made of gates names its own ("i", "f", ...). Those inside `update`, and all those of a free-form `step`,
    are numbered in the order in which they are computed ("sigmoid_0", "tanh_0", ...).
    """

    sigmoid: dict[str, Array]
    tanh: dict[str, Array]
    relu: dict[str, Array]
    retention: Carry  # dh_t/dh_{t-1} of each unit past every matmul: f of an LSTM's c, z of a GRU; 0 of an integer
    timescale: Carry  # tau = -1/log |retention|, in steps


class UnitSummary(NamedTuple):
    """Shares between 0 and 1. Histograms are shares too, over `edges` and `timescale_edges`."""

    closed: dict[str, Array]  # of a sigmoid's values, below 0.1
    open: dict[str, Array]  # of a sigmoid's values, above 0.9
    saturated: dict[str, Array]  # of a tanh's values, |a| above 0.99
    dead: dict[str, Array]  # of a ReLU's units, zero at every step of every sequence
    histogram: dict[str, Array]  # of a sigmoid's values
    edges: Array
    timescale: Carry  # of tau, for each part of the carry; the end bins hold what lies beyond
    timescale_edges: Array


def record_units(cell: Cell, params: Params, xs: Array, carry: Carry | None = None) -> Units:
    """Runs `cell` over `xs` `[T, ..., D]` and records its nonlinearities.

    The retention is the elementwise part of J_t, found with the flow through every matmul (and every other
    operation that mixes units) stopped. Where a part of the carry is gated by f_t, it is f_t, whatever the cell
    calls it, so that it needs no name for the forget-like gate.
    """
    cell, weights = prepared(unclipped(cell), params)
    before, _ = carries_around(cell, weights, xs, carry)
    zs = cell.project(weights, xs)
    found = Units({}, {}, {}, None, None)
    form = cell.form
    if not isinstance(form, Gates):
        _, recorded = interpret(lambda c: cell.step(weights, c, zs), before)
        _number(found, recorded)
    else:
        pre = form.affine(weights, form.state(before), zs)
        gates = {}
        for name, activation in form.activations.items():
            gates[name], recorded = interpret(activation, pre[name])
            if len(recorded) == 1:
                getattr(found, recorded[0][0])[name] = gates[name]
            else:
                _number(found, recorded)
        _, recorded = interpret(lambda c: form.update(weights, c, **gates), before)
        _number(found, recorded)
    retention = _retention(cell, weights, before, zs)
    timescale = jax.tree.map(_timescale, retention)
    return found._replace(retention=retention, timescale=timescale)


def summarise_units(units: Units, bins: int = 20) -> UnitSummary:
    """The shares of saturated gates and dead units, and the histograms of gates and of timescales."""
    edges = jnp.linspace(0.0, 1.0, bins + 1)
    timescale_edges = jnp.logspace(-1.0, 5.0, bins + 1)

    def histogram(values, edges):
        values = jnp.clip(values.ravel(), edges[0], edges[-1])
        return jnp.histogram(values, bins=edges)[0] / values.size

    def dead(a):
        return jnp.mean(jnp.all(a == 0, axis=tuple(range(a.ndim - 1))))

    return UnitSummary(
        closed={name: jnp.mean(a < 0.1) for name, a in units.sigmoid.items()},
        open={name: jnp.mean(a > 0.9) for name, a in units.sigmoid.items()},
        saturated={name: jnp.mean(jnp.abs(a) > 0.99) for name, a in units.tanh.items()},
        dead={name: dead(a) for name, a in units.relu.items()},
        histogram={name: histogram(a, edges) for name, a in units.sigmoid.items()},
        edges=edges,
        timescale=jax.tree.map(lambda tau: histogram(tau, timescale_edges), units.timescale),
        timescale_edges=timescale_edges,
    )


def interpret(function: Callable, *args: Any, elementwise: bool = False) -> tuple[Any, list[tuple[str, Array]]]:
    """Evaluates `function(*args)`, recording what its nonlinearities return.

    Returns (its value, [("sigmoid" | "tanh" | "relu", output), ...] in the order of computation). With
    `elementwise`, no gradient flows through an operation that mixes units. What stands inside a loop, a branch or a
    function with its own derivative is computed, but not recorded.
    """
    jaxpr, shape = jax.make_jaxpr(function, return_shape=True)(*args)
    recorded: list[Any] = []
    out = _evaluate(jaxpr.jaxpr, jaxpr.consts, jax.tree.leaves(args), recorded, elementwise)
    return jax.tree.unflatten(jax.tree.structure(shape), out), recorded


CALLS = {"jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "remat", "remat2", "checkpoint"}
MIXING = ("dot_general", "conv", "reduce_", "cum", "sort", "fft", "scan", "while", "cond", "custom_vjp_call")


def _evaluate(jaxpr, consts, args, recorded, elementwise):
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))

    def read(v):
        return v.val if isinstance(v, Literal) else values[v]

    for eqn in jaxpr.eqns:
        name, inputs = eqn.primitive.name, [read(v) for v in eqn.invars]
        inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
        if name in CALLS and inner is not None:
            body = getattr(inner, "jaxpr", inner)
            out = _evaluate(body, getattr(inner, "consts", ()), inputs, recorded, elementwise)
        else:
            variables = [v for v in eqn.invars if not isinstance(v, Literal)]
            alone = jaxpr.replace(constvars=[], invars=variables, outvars=eqn.outvars, eqns=[eqn])
            out = jax.core.eval_jaxpr(alone, [], *map(read, variables))
            if elementwise and name.startswith(MIXING):
                out = [lax.stop_gradient(a) for a in out]
            kind = _kind(name, inputs)
            if kind:
                recorded.append((kind, out[0]))
        values.update(zip(eqn.outvars, out, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _kind(name, inputs) -> str | None:
    if name == "max":
        zero = any(not isinstance(a, jax.core.Tracer) and jnp.size(a) == 1 and a == 0 for a in inputs)
        return "relu" if zero else None
    return {"logistic": "sigmoid", "tanh": "tanh"}.get(name)


def _number(found: Units, recorded) -> None:
    for kind, value in recorded:
        names = getattr(found, kind)
        names[f"{kind}_{sum(name.startswith(kind) for name in names)}"] = value


def _retention(cell: Cell, weights: Weights, before: Carry, zs) -> Carry:
    def elementwise(carry):
        return interpret(lambda c: cell.step(weights, c, zs), carry, elementwise=True)[0]

    rebuild, leaves = with_inexact(before), inexact(before)
    kept = []
    for i in range(len(leaves)):
        tangent = [jnp.ones_like(a) if i == j else jnp.zeros_like(a) for j, a in enumerate(leaves)]
        _, change = jax.jvp(lambda leaves: inexact(elementwise(rebuild(leaves))), (leaves,), (tangent,))
        kept.append(change[i])
    kept = iter(kept)
    return jax.tree.map(lambda a: next(kept) if inexact(a) else jnp.zeros(a.shape), before)


def _timescale(retention):
    f = jnp.abs(retention)
    return jnp.where(f < 1, -1 / jnp.log(jnp.minimum(f, 1)), jnp.inf)
