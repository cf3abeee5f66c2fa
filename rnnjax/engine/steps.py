"""A cell step by step: its states around each one, its carry as a vector with names, and the derivative of a step.

All that gradients and diagnostics need of a cell, whatever its carry is made of.
"""

from collections.abc import Callable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from rnnjax.engine.unroll import unroll
from rnnjax.types import Array, Carry, Cell, Params, Weights, prepared


def carries_around(
    cell: Cell, params: Params, xs: Array, carry: Carry | None = None, lengths: Array | None = None
) -> tuple[Carry, Carry]:
    """The carries (before, after) every step of `xs` `[T, ..., D]`, with a leading T; past `lengths` the last ones."""
    cell, weights = prepared(cell, params)
    carry = cell.initial_carry(weights, xs.shape[1:-1]) if carry is None else carry
    last, after = unroll(cell._replace(output=lambda weights, carry, z: carry), weights, xs, carry, lengths=lengths)
    if lengths is not None:  # `unroll` shows zeros there
        valid = jnp.arange(xs.shape[0]).reshape(-1, *[1] * lengths.ndim) < lengths
        fit = lambda a: valid.reshape(*valid.shape, *[1] * (a.ndim - valid.ndim))  # noqa: E731
        after = jax.tree.map(lambda a, end: jnp.where(fit(a), a, end), after, last)
    before = jax.tree.map(lambda c, a: jnp.concatenate([c[None].astype(a.dtype), a[:-1]]), carry, after)
    return before, after


def trajectory(cell: Cell, weights: Weights, xs: Array, carry: Carry | None) -> tuple[Carry, Any]:
    """(the carry *before* each step, z of each step), each with a leading T."""
    carry, zs = start(cell, weights, xs, carry)
    return lax.scan(lambda carry, z: (_advance(cell, weights, carry, z), carry), carry, zs)[1], zs


def start(cell: Cell, weights: Weights, xs: Array, carry: Carry | None) -> tuple[Carry, Any]:
    """The carry before the first step, in the precision of `weights` and `xs`, and z of every step."""
    chex.assert_rank(xs, 2)
    carry = cell.initial_carry(weights, ()) if carry is None else carry
    return in_one_precision(weights, xs, carry)[2], cell.project(weights, xs)


def push(cell: Cell, weights: Weights, carry: Carry, z: Any, V: Array) -> tuple[Carry, Array]:
    """(the next carry, J v for each row v of V `[k, n]`), in forward mode."""
    h, restore = flatten(carry)
    _, jvp, new = jax.linearize(lambda h: _flat_step(cell, weights, restore(h), z), h, has_aux=True)
    return new, jax.vmap(jvp)(V)


def pull(cell: Cell, weights: Weights, carry: Carry, z: Any, V: Array) -> Array:
    """v J for each row v of V `[k, n]`, in reverse mode."""
    h, restore = flatten(carry)
    _, vjp, _ = jax.vjp(lambda h: _flat_step(cell, weights, restore(h), z), h, has_aux=True)
    return jax.vmap(lambda v: vjp(v)[0])(V)


def flatten(carry: Carry) -> tuple[Array, Callable[[Array], Carry]]:
    """(the real numbers of a carry as one vector h `[n]`, a function that puts such a vector in their place).

    A complex number is two real ones; integers, such as a clock, have no derivative and keep their value.
    """
    leaves, treedef = jax.tree.flatten(carry)
    h, unravel = ravel_pytree([_real_parts(leaf) for leaf in leaves])

    def restore(h: Array) -> Carry:
        parts = zip(leaves, unravel(h), strict=True)
        return treedef.unflatten([lax.complex(*p) if len(p) == 2 else p[0] if p else leaf for leaf, p in parts])

    return h, restore


def inexact(tree: Any) -> list[Array]:
    """The leaves that have a derivative, all but integers, in order."""
    return [a for a in jax.tree.leaves(tree) if jnp.issubdtype(a.dtype, jnp.inexact)]


def with_inexact(tree: Any) -> Callable[[list[Array]], Any]:
    """A function that puts such leaves as `inexact` finds in their place; the others keep their value."""
    leaves, treedef = jax.tree.flatten(tree)

    def rebuild(replaced: list[Array]) -> Any:
        replaced = iter(replaced)
        return treedef.unflatten([next(replaced) if inexact(leaf) else leaf for leaf in leaves])

    return rebuild


def in_one_precision(weights: Weights, xs: Array, carry: Carry) -> tuple[Weights, Array, Carry]:
    """The same as precise as weights and xs together, float32 at least; what is complex or an integer stays so."""
    dtype = jnp.finfo(jnp.result_type(xs, *jax.tree.leaves(weights), jnp.float32)).dtype

    def cast(a):
        kind = jnp.result_type(dtype, jnp.complex64) if jnp.iscomplexobj(a) else dtype
        return jnp.asarray(a, kind if inexact(a) else None)

    return jax.tree.map(cast, (weights, xs, carry))


def carry_names(carry: Carry) -> tuple[str, ...]:
    """The names of a carry's parts in the order of its leaves: ("c", "h") for an LSTM, ("h",) for a bare array."""
    paths, _ = jax.tree_util.tree_flatten_with_path(carry)
    return tuple(jax.tree_util.keystr(path, simple=True, separator=".") or "h" for path, _ in paths)


def layer_names(carries: Sequence[Carry], bidirectional: bool = False) -> tuple[str, ...]:
    """The names of all parts of a stack's carries in the order of their leaves: `layer0.c`, `layer1.backward.h`.

    Args:
      carries: one a layer, a pair (forward, backward) where `bidirectional`: a tree does not say that by itself, as a
        pair may be a carry. A layer that attends to both sides at once has a NamedTuple there, and no pair.
      bidirectional: whether the stack runs in both directions.
    """
    names = []
    for number, carry in enumerate(carries):
        pair = bidirectional and type(carry) is tuple
        directions = zip(("forward.", "backward."), carry, strict=True) if pair else [("", carry)]
        for direction, parts in directions:  # a dot stands between levels of the stack alone
            names += [f"layer{number}.{direction}{name.replace('.', '_')}" for name in carry_names(parts)]
    return tuple(names)


def with_step(cell: Cell, step: Callable) -> Cell:
    """`cell` with another `step`, and without the parts from which the engine would derive its own."""
    parts = [name for name, default in Cell._field_defaults.items() if default is None]
    return cell._replace(step=step, **dict.fromkeys(parts))


def unclipped(cell: Cell) -> Cell:
    """`cell` without what `penalties.clip_cotangent` put on it; itself where that is nothing."""
    plain = getattr(cell.step, "plain", None)
    return cell if plain is None else cell._replace(**plain)


def _flat_step(cell, weights, carry, z):
    new = _advance(unclipped(cell), weights, carry, z)
    return flatten(new)[0], new


def _advance(cell, weights, carry, z):
    return jax.tree.map(lambda a, old: a.astype(old.dtype), cell.step(weights, carry, z), carry)


def _real_parts(leaf):
    if jnp.iscomplexobj(leaf):
        return (leaf.real, leaf.imag)
    return (leaf,) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating) else ()
