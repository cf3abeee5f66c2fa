"""Wrappers that change when a cell steps, and from which of its earlier states."""

import numbers
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rnnjax.cells.inside import Own, gates_inside, one_carry, with_parameters
from rnnjax.initializers import glorot
from rnnjax.types import Array, Carry, Cell, Params, Weights


class ClockworkCarry(NamedTuple):
    """The carry of the cell inside, and the steps done, counted modulo the longest period, an integer `[..., 1]`."""

    state: Carry
    t: Array


class SkipCarry(NamedTuple):
    """The carry of the cell inside, and how near the next update is, in [0, 1] `[..., 1]`."""

    state: Carry
    u: Array


def dilated(cell: Cell, k: int) -> Cell:
    """A cell that goes on from its state of k steps ago.

        h_t = step(h_{t-k}, z_t)

    Chang et al. (2017), Dilated recurrent neural networks (arXiv:1710.02224), one layer of it: a path through T steps
    is T / k steps long. It equals k networks with the same weights that take turns. There each layer dilates more than
    the one below, `[dilated(gru(8), 2**l) for l in range(4)]`. Each part of the carry holds the last k, oldest first,
    `[..., k, H]`; all begin as the cell's initial carry.

    Args:
      cell: any cell.
      k: the dilation; 1 is the cell itself.

    Raises ValueError for a k below 1 or not whole.
    """
    _check_count("k", k)
    if k == 1:
        return cell

    def initial_carry(weights: Weights, batch_shape: tuple[int, ...]) -> Carry:
        own, alone = cell.initial_carry(weights, batch_shape), one_carry(cell, weights)
        return jax.tree.map(lambda a, one: jnp.repeat(jnp.expand_dims(a, _ring(one)), k, _ring(one)), own, alone)

    def at(weights, carry, index):
        alone = one_carry(cell, weights)
        return jax.tree.map(lambda a, one: lax.index_in_dim(a, index, _ring(one), keepdims=False), carry, alone)

    def step(weights: Weights, carry: Carry, z: Any) -> Carry:
        new, alone = cell.step(weights, at(weights, carry, 0), z), one_carry(cell, weights)

        def shift(a, new, one):
            kept = lax.slice_in_dim(a, 1, k, axis=a.ndim + _ring(one))
            return jnp.concatenate([kept, jnp.expand_dims(new, _ring(one)).astype(a.dtype)], axis=_ring(one))

        return jax.tree.map(shift, carry, new, alone)

    def output(weights: Weights, carry: Carry, z: Any) -> Array:
        return cell.output(weights, at(weights, carry, k - 1), z)

    return cell._replace(initial_carry=initial_carry, step=step, output=output, form=None)


def clockwork(cell: Cell, groups: int, *, triangular: bool = True) -> Cell:
    """Units in groups that step at periods 1, 2, 4, ..., and hold still in between.

        h_t[g] = step(h_{t-1}, z_t)[g] where t mod 2^g = 0, else h_{t-1}[g]        t = 0, 1, ...,  g = 0, 1, ...

    Koutnik et al. (2014), A clockwork RNN (arXiv:1402.3511), whose periods these are, for any cell. All groups step on
    the first input. As there, no group sees a faster one: the blocks of W_h from faster to slower groups count as 0.

    Args:
      cell: any cell; made of gates (see `gated`), with a state of H units, where `triangular`.
      groups: into how many to divide the units of each part of the carry, the fastest first; 1 is the cell itself.
      triangular: whether those blocks count as 0.

    Raises ValueError for `groups` below 1 or not whole, and for a cell that is not made of gates, where `triangular`.
    """
    _check_count("groups", groups)
    if groups == 1:
        return cell
    if triangular and gates_inside(cell) is None:
        raise ValueError(
            "clockwork keeps faster groups from slower ones in a cell made of gates (see cells.gated), and this one is "
            "not; allowed: triangular=False"
        )
    if groups > 31:
        raise ValueError(f"groups={groups!r}; allowed: 1 to 31")

    def initial_carry(weights: Weights, batch_shape: tuple[int, ...]) -> ClockworkCarry:
        return ClockworkCarry(cell.initial_carry(weights, batch_shape), jnp.zeros((*batch_shape, 1), jnp.int32))

    def step(weights: Weights, carry: ClockworkCarry, z: Any) -> ClockworkCarry:
        def held(new, old):
            features = old.ndim - (carry.t.ndim - 1)
            if not features or not jnp.issubdtype(old.dtype, jnp.inexact):
                return new
            t = carry.t.reshape(*carry.t.shape, *[1] * (features - 1))
            return jnp.where(t % 2 ** _groups(old.shape[-1], groups) == 0, new, old)

        state = jax.tree.map(held, cell.step(weights, carry.state, z), carry.state)
        return ClockworkCarry(state, (carry.t + 1) % 2 ** (groups - 1))

    def output(weights: Weights, carry: ClockworkCarry, z: Any) -> Array:
        return cell.output(weights, carry.state, z)

    def weights(params: Params) -> Weights:
        return _without_fast_to_slow(cell.weights(params), groups) if triangular else cell.weights(params)

    return cell._replace(initial_carry=initial_carry, step=step, output=output, weights=weights, form=None)


def skip(cell: Cell, *, bias: float | Array = 1.0) -> Cell:
    """A cell that learns which steps to skip.

        u_t = round(q_t)                                                    1: update, 0: skip
        s_t = u_t step(s_{t-1}, z_t) + (1 - u_t) s_{t-1}
        p_t = sigmoid(W s_t + b)
        q_{t+1} = u_t p_t + (1 - u_t) (q_t + min(p_t, 1 - q_t)),    q_1 = 1

    Campos et al. (2017), Skip RNN (arXiv:1708.06834). The rounding counts as the identity in the backward pass (the
    straight-through estimator). W sees the first part of the carry, which is c of an LSTM, as in the authors' code. The
    paper's cost of each update is no part of it, and a skipped step costs no less here. Integer parts stand still, too.

    Args:
      cell: any cell.
      bias: b at the start; a high one updates often.
    """

    def draw(key: Array, params: Params, input_size: int) -> dict[str, Array]:
        size = _seen(cell.initial_carry(cell.weights(params), ()), 0).shape[-1]
        return {"W": glorot(key, (size, 1)), "b": jnp.full((1,), bias, jnp.float32)}

    inside = with_parameters(cell, "skip", draw)

    def initial_carry(weights: Weights, batch_shape: tuple[int, ...]) -> SkipCarry:
        return SkipCarry(inside.initial_carry(weights, batch_shape), jnp.ones((*batch_shape, 1)))

    def step(weights: Weights, carry: SkipCarry, z: Any) -> SkipCarry:
        q, batch_ndim = carry.u, carry.u.ndim - 1
        u = q + lax.stop_gradient(jnp.round(q) - q)

        def chosen(new, old):
            gate = u.reshape(*u.shape[:-1], *[1] * (old.ndim - batch_ndim))
            return gate * new + (1 - gate) * old if jnp.issubdtype(old.dtype, jnp.inexact) else _of(gate, new, old)

        state = jax.tree.map(chosen, inside.step(weights, carry.state, z), carry.state)
        p = jax.nn.sigmoid(_seen(state, batch_ndim) @ weights.own["W"] + weights.own["b"])
        return SkipCarry(state, u * p + (1 - u) * (q + jnp.minimum(p, 1 - q)))

    def output(weights: Weights, carry: SkipCarry, z: Any) -> Array:
        return inside.output(weights, carry.state, z)

    return inside._replace(initial_carry=initial_carry, step=step, output=output, form=None)


def _check_count(name, value):
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < 1:
        raise ValueError(f"{name}={value!r}; allowed: 1, 2, ...")


def _ring(one) -> int:
    """The axis that holds the last k of a part of the carry, from the end."""
    return -one.ndim - 1


def _groups(units: int, groups: int) -> Array:
    """The group of each unit, the fastest first."""
    if groups > units:
        raise ValueError(f"clockwork has groups={groups}, and the carry a part of {units} units; allowed: 1 to {units}")
    return jnp.arange(units) * groups // units


def _without_fast_to_slow(weights: Weights, groups: int) -> Weights:
    if isinstance(weights, Own):
        return weights._replace(inside=_without_fast_to_slow(weights.inside, groups))
    W_h = weights.get("W_h") if isinstance(weights, dict) else None
    if W_h is None or W_h.ndim != 2 or W_h.shape[1] % W_h.shape[0]:
        raise ValueError("clockwork's W_h must be [H, G H], of a cell made of gates; allowed: triangular=False")
    group = _groups(W_h.shape[0], groups)
    seen = jnp.tile(group[:, None] >= group, W_h.shape[1] // W_h.shape[0])  # [from, to]
    return weights | {"W_h": jnp.where(seen, W_h, 0)}


def _seen(carry: Carry, batch_ndim: int) -> Array:
    """The first part of a carry as real numbers side by side."""
    first = next(a for a in jax.tree.leaves(carry) if jnp.issubdtype(a.dtype, jnp.inexact))
    flat = first.reshape(*first.shape[:batch_ndim], -1)
    return jnp.concatenate([flat.real, flat.imag], axis=-1) if jnp.iscomplexobj(flat) else flat


def _of(gate, new, old):
    return jnp.where(gate > 0, new, old)
