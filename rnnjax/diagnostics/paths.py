"""Flow by path: which way a gradient takes back through time, found by closing the ways one at a time."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rnnjax.diagnostics.units import interpret
from rnnjax.engine.steps import carry_names, unclipped, with_step
from rnnjax.engine.unroll import make_probe, unroll
from rnnjax.types import Array, Carry, Cell, Params, prepared


class PathFlow(NamedTuple):
    """|dL/dh_t| for each part of the carry: trees like the carry, of `[T, ...]`.

    Paths: each part of a carry that has several ("c", "h"); "elementwise", from each unit to itself past every
    matmul (f of an LSTM, z of a GRU); and "matmuls", the rest, through the gates.
    """

    full: Carry
    alone: dict[str, Carry]  # every path closed but this one
    without: dict[str, Carry]  # this path closed


def flow_by_path(
    cell: Cell, params: Params, xs: Array, loss: Callable[[Array], Array], carry: Carry | None = None
) -> PathFlow:
    """The gradient over time with the flow between steps stopped along one path at a time, for any cell.

    Args:
      cell, params: the cell and its parameters.
      xs: `[T, ..., D]`.
      loss: ys `[T, ..., O]` -> scalar.
      carry: the carry before the first step.

    The states are those of the plain run throughout; only derivatives are closed. With J_t = E_t + M_t, the
    elementwise part and the rest, "elementwise" alone follows products of E_t, and a part p alone follows
    dp_t/dp_{t-1}.
    """
    cell, weights = prepared(unclipped(cell), params)
    carry = cell.initial_carry(weights, xs.shape[1:-1]) if carry is None else carry
    parts = carry_names(carry)
    n = len(parts)
    first = 0 if n > 1 else 1  # the one part of a carry is no path of its own
    names = (*parts, "elementwise", "matmuls")[first:]
    # A row of switches: one for each part of the carry, then one for E_t and one for M_t.
    every = jnp.ones(n + 2, bool)
    without = [every.at[first + i].set(False) for i in range(len(names))]
    alone = [
        every.at[slice(0, n) if first + i < n else slice(n, n + 2)].set(False).at[first + i].set(True)
        for i in range(len(names))
    ]

    def profile(switches):
        opened = _with_switches(cell, switches[:n], switches[n], switches[n + 1])
        probe = make_probe(cell, weights, xs.shape[0], xs.shape[1:-1])
        return jax.grad(lambda probe: loss(unroll(opened, weights, xs, carry, probe=probe)[1]))(probe)

    flows = lax.map(profile, jnp.stack([every, *alone, *without]))
    full, *rows = [jax.tree.map(lambda a, i=i: a[i], flows) for i in range(1 + 2 * len(names))]
    alone, without = rows[: len(names)], rows[len(names) :]
    return PathFlow(full, dict(zip(names, alone, strict=True)), dict(zip(names, without, strict=True)))


def _with_switches(cell: Cell, parts: Array, elementwise: Array, matmuls: Array) -> Cell:
    def step(weights, carry, z):
        leaves, structure = jax.tree.flatten(carry)
        carry = structure.unflatten([_gate(a, parts[i]) for i, a in enumerate(leaves)])
        new = cell.step(weights, carry, z)
        through_units, _ = interpret(lambda c: cell.step(weights, c, z), carry, elementwise=True)

        def join(new, e):  # the value of new; the derivative E_t and M_t, as far as each is open
            stop = lax.stop_gradient
            e = e - stop(e)
            m = new - stop(new) - e
            return stop(new) + _gate(e, elementwise) + _gate(m, matmuls)

        return jax.tree.map(join, new, through_units)

    return with_step(cell, step)


def _gate(a, is_open):
    return jnp.where(is_open, a, lax.stop_gradient(a))
