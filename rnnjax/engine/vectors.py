"""A cell whose carry is one real vector, whatever it is made of, with any dimensions before it."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Literal

from rnnjax.cells.check import as_carry
from rnnjax.engine.hooks import frozen, tapped
from rnnjax.types import Array, Carry, Cell, Weights


class AtStep(NamedTuple):
    """What a step takes beside weights and state; with a leading T, what all steps do."""

    z: Any
    clocks: list[Array]  # the integer parts of the carry before the step, in order
    mask: Array | None
    added: Carry | None  # to the new state: zeros, of which the gradient is dL/dh_t


class Vectors(NamedTuple):
    """`cell` for states `h` `[..., n]`: a complex number is two real ones, and integers stand beside."""

    cell: Cell
    treedef: Any
    shapes: tuple[tuple[int, ...], ...]  # of each part, without batch
    dtypes: tuple[Any, ...]

    @property
    def parts(self) -> int:
        """How many numbers a unit has, where all parts of the carry are of one shape; else each number is a unit."""
        real = [
            shape for shape, dtype in zip(self.shapes, self.dtypes, strict=True) if jnp.issubdtype(dtype, jnp.inexact)
        ]
        halves = sum(jnp.issubdtype(dtype, jnp.complexfloating) for dtype in self.dtypes)
        return len(real) + halves if len(set(real)) == 1 else 1

    def step(self, weights: Weights, h: Array, at: AtStep) -> Array:
        """h_t of h_{t-1}: the cell's step, then what the engine does to a carry."""
        carry = self.carry(h, at.clocks)
        new = as_carry(self.cell.step(weights, carry, at.z), carry)
        return self.vector(frozen(tapped(new, at.added), carry, at.mask))

    def vector(self, carry: Carry) -> Array:
        """`[..., n]`, the real numbers of a carry side by side."""
        flat = [
            part.reshape(*part.shape[: part.ndim - len(shape)], math.prod(shape))
            for leaf, shape in zip(jax.tree.leaves(carry), self.shapes, strict=True)
            for part in _real_parts(leaf)
        ]
        return jnp.concatenate([part.astype(jnp.result_type(*flat)) for part in flat], axis=-1)

    def carry(self, h: Array, clocks: list[Array]) -> Carry:
        """The carry of such a vector and of the integers that go with it."""
        leaves, rest, integers = [], h, iter(clocks)

        def take(shape):
            nonlocal rest
            part, rest = jnp.split(rest, [math.prod(shape)], axis=-1)
            return part.reshape(*h.shape[:-1], *shape)

        for shape, dtype in zip(self.shapes, self.dtypes, strict=True):
            if jnp.issubdtype(dtype, jnp.complexfloating):
                leaves.append(lax.complex(take(shape), take(shape)).astype(dtype))
            elif jnp.issubdtype(dtype, jnp.floating):
                leaves.append(take(shape).astype(dtype))
            else:
                leaves.append(next(integers))
        return self.treedef.unflatten(leaves)


def vectors(cell: Cell, weights: Weights, carry: Carry) -> Vectors:
    """`cell` on vectors, for carries like this one `[..., H]`."""
    leaves, treedef = jax.tree.flatten(carry)
    alone = jax.tree.leaves(jax.eval_shape(lambda: cell.initial_carry(weights, ())))
    shapes = (tuple(leaf.shape[leaf.ndim - len(one.shape) :]) for leaf, one in zip(leaves, alone, strict=True))
    return Vectors(cell, treedef, tuple(shapes), tuple(leaf.dtype for leaf in leaves))


def clocks(
    cell: Cell, weights: Weights, carry: Carry, zs: Any, mask: Array | None
) -> tuple[list[Array], list[Array]] | None:
    """The integer parts of the carry (before, after) every step, found step by step; None where they need real ones.

    They have no derivative, and are cheap where only they themselves and the input move them, as a clock.
    """
    leaves, treedef = jax.tree.flatten(carry)
    whole = [not jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves]
    if not any(whole):
        return [], []

    def advance(real, integers, weights, z):
        given = iter(real), iter(integers)
        carry = treedef.unflatten([next(given[is_whole]) for is_whole in whole])
        return pick(as_carry(cell.step(weights, carry, z), carry))

    def pick(carry):
        return [leaf for leaf, is_whole in zip(jax.tree.leaves(carry), whole, strict=True) if is_whole]

    real = [leaf for leaf, is_whole in zip(leaves, whole, strict=True) if not is_whole]
    first = jax.tree.map(lambda z: z[0], zs)
    if _depends(jax.make_jaxpr(advance)(real, pick(carry), weights, first).jaxpr, len(real)):
        return None

    def body(integers, inputs):
        z, mask = inputs
        new = frozen(advance(real, integers, weights, z), integers, mask)
        return new, (integers, new)

    return lax.scan(body, pick(carry), (zs, mask))[1]


def _depends(jaxpr, count: int) -> bool:
    """Whether any result of a program may depend on one of its first `count` arguments."""
    reached = set(jaxpr.invars[:count])
    for equation in jaxpr.eqns:
        if any(not isinstance(v, Literal) and v in reached for v in equation.invars):
            reached.update(equation.outvars)
    return any(not isinstance(v, Literal) and v in reached for v in jaxpr.outvars)


def _real_parts(leaf):
    if jnp.iscomplexobj(leaf):
        return (leaf.real, leaf.imag)
    return (leaf,) if jnp.issubdtype(leaf.dtype, jnp.floating) else ()
