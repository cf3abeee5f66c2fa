"""Sequences that follow each other in one row, such as packed documents or episodes: where the state starts anew."""

from typing import Any

import jax
import jax.numpy as jnp

from rnnjax.cells.memory import of_memory, reads_its_memory
from rnnjax.engine.hooks import where
from rnnjax.types import Array, Carry, Cell, Linear, Memory, Parts, Weights


def restarting(cell: Cell) -> Cell:
    """`cell` over pairs (x, fresh): where `fresh` `[...]` is set, the step begins with the cell's own initial carry.

        h_t = step(w, h_0 if fresh_t else h_{t-1}, z_t)

    One that is linear stays linear, with a_t = 0 and b_t + a_t h_0 there. One whose state is a memory stays that. One
    made of gates is a free one.
    """

    def project(weights: Weights, pair: tuple[Any, Array], key: Array | None = None) -> tuple[Any, Array]:
        x, fresh = pair
        return (cell.project(weights, x) if key is None else cell.project(weights, x, key)), fresh

    def step(weights: Weights, carry: Carry, pair: tuple[Any, Array]) -> Carry:
        z, fresh = pair
        return cell.step(weights, jax.tree.map(lambda h, h0: where(fresh, h0, h), carry, start(weights, carry)), z)

    def start(weights, carry):
        alone = cell.initial_carry(weights, ())
        return jax.tree.map(lambda h0, h: jnp.broadcast_to(h0, h.shape).astype(h.dtype), alone, carry)

    def output(weights: Weights, carry: Carry, pair: tuple[Any, Array]) -> Any:
        return cell.output(weights, carry, pair[0])

    def parts(weights: Weights, pair: tuple[Any, Array]) -> Parts:
        assert isinstance(cell.form, Memory)
        z, fresh = pair
        found = cell.form.parts(weights, z)
        return found._replace(fresh=fresh if found.fresh is None else fresh | found.fresh)

    def coefficients(weights: Weights, pair: tuple[Any, Array]) -> tuple[Carry, Carry]:
        z, fresh = pair
        assert isinstance(cell.form, Linear)
        a, b = cell.form.coefficients(weights, z)
        alone = cell.initial_carry(weights, ())
        a = jax.tree.map(lambda a, h0: jnp.broadcast_to(a, (*fresh.shape, *h0.shape)), a, alone)
        b = jax.tree.map(lambda b, a: jnp.broadcast_to(b, a.shape), b, a)
        from_start = jax.tree.map(lambda a, b, h0: where(fresh, b + a * h0, b), a, b, alone)
        return jax.tree.map(lambda a: where(~fresh, a, 0), a), from_start

    restarted = cell._replace(project=project, step=step, output=output, form=None)
    if isinstance(cell.form, Linear):
        return restarted._replace(form=Linear(coefficients))
    if isinstance(cell.form, Memory) and reads_its_memory(cell):
        show = cell.form.show
        form = cell.form._replace(parts=parts, show=lambda weights, pair, o, m: show(weights, pair[0], o, m))
        return restarted._replace(form=form, output=of_memory(form)["output"])
    return restarted


def as_resets(resets: Array, T: int, batch_shape: tuple[int, ...], valid: Array | None, reverse: bool) -> Array:
    """`resets` `[T, ...]` where each step asks whether the state starts anew before it, in running order's terms.

    What begins at step t ends, for one who comes from the end, before step t - 1.

    Raises TypeError where they are not booleans, ValueError for a wrong shape.
    """
    resets = resets if isinstance(resets, jax.Array) else jnp.asarray(resets)
    if resets.dtype != jnp.bool_:
        raise TypeError(f"resets are {resets.dtype}; allowed: booleans")
    if resets.shape != (T, *batch_shape):
        raise ValueError(f"resets have shape {resets.shape}; allowed: {(T, *batch_shape)}, that of xs without features")
    if valid is not None:
        resets = resets & valid
    return jnp.concatenate([resets[1:], jnp.zeros_like(resets[:1])]) if reverse else resets
