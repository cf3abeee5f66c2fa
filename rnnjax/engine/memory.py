"""How much memory the gradient of an unrolled cell takes, and into how many segments to cut time to fit a budget."""

import math
import os
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rnnjax.cells.memory import reads_its_memory
from rnnjax.engine.chunked import default_chunk
from rnnjax.types import Cell, Gates, Memory, Weights


def segments_that_fit(
    cell: Cell, weights: Weights, T: int, batch_shape: tuple[int, ...], input_size: int, outputs: str
) -> int:
    """What `unroll(..., segments="auto")` takes: the fewest whose gradient fits a quarter of the device's memory.

    The rest is for parameters, optimiser, and other layers. Arguments and errors as of `plan_segments`.
    """
    return plan_segments(cell, T, batch_shape, input_size, device_bytes() / 4, outputs, weights).segments


def device_bytes() -> int:
    """The memory of the device that JAX takes by default; of a CPU, that of the machine."""
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    return limit or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class Plan(NamedTuple):
    """What `plan_segments` found."""

    segments: int  # for `unroll(..., segments=)`
    peak_bytes: int  # predicted, of the arrays that the forward pass keeps and the backward pass makes


def plan_segments(
    cell: Cell,
    T: int,
    batch_shape: tuple[int, ...],
    input_size: int,
    budget_bytes: float,
    outputs: str = "last",
    weights: Weights | None = None,
) -> Plan:
    """The fewest segments whose gradient fits the budget, and the peak that they need.

        peak(S) = T (x + y) + S c + ceil(T / S) r

    x, y and c are the bytes a step of the input, of the outputs with their gradient ("every") and of the carry; r
    those that a step keeps for the backward pass and makes in it, for a free-form cell an upper bound. One segment
    runs time once; more run it twice.

    Args:
      cell: the cell.
      T, batch_shape, input_size: as xs `[T, ..., D]` has them, in float32.
      budget_bytes: what the gradient may take beside parameters and optimiser.
      outputs: as in `unroll`.
      weights: those of the cell, of which the shapes count; by default those of new parameters.

    Raises ValueError if no number of segments fits.
    """
    if weights is None:
        weights = jax.eval_shape(lambda: cell.weights(cell.init(jax.random.key(0), input_size)))
    kept, fixed, carry = bytes_a_step(cell, weights, batch_shape, input_size, outputs)

    def peak(segments):
        length = -(-T // segments)
        return int(T * fixed + length * kept + (segments * carry if segments > 1 else 0))

    if peak(1) <= budget_bytes:
        return Plan(1, peak(1))
    best = min(T, max(1, round(math.sqrt(T * kept / carry))))
    if peak(best) > budget_bytes:
        raise ValueError(
            f"budget_bytes is {budget_bytes:.3g}, but T={T} steps need {peak(best):.3g} even in {best} segments"
        )
    low, high = 1, best  # peak falls up to `best`
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if peak(middle) <= budget_bytes else (middle, high)
    return Plan(high, peak(high))


def bytes_a_step(
    cell: Cell, weights: Weights, batch_shape: tuple[int, ...], input_size: int, outputs: str = "last"
) -> tuple[int, int, int]:
    """Bytes a step: (kept for or made in the backward pass of a segment, always there, of a carry)."""
    carry = jax.eval_shape(lambda w: cell.initial_carry(w, batch_shape), weights)
    x = jax.ShapeDtypeStruct((*batch_shape, input_size), jnp.float32)
    z = jax.eval_shape(cell.project, weights, x)
    y = jax.eval_shape(cell.output, weights, carry, z)
    fixed = _bytes(x) + (2 * _bytes(y) if outputs == "every" else 0)
    if isinstance(cell.form, Gates):  # the carry and the gates, and in the backward pass the gates' gradient
        unit = _bytes(cell.form.state(carry))
        return _bytes(carry) + unit * 2 * len(cell.form.activations), fixed, _bytes(carry)
    if isinstance(cell.form, Memory) and reads_its_memory(cell):  # in chunks, of which the first carry is kept
        return (
            3 * _bytes(z) + _bytes(carry) // default_chunk(jax.eval_shape(cell.form.parts, weights, z)),
            fixed,
            _bytes(carry),
        )
    residuals = jax.eval_shape(lambda w, c, z: jax.vjp(cell.step, w, c, z)[1], weights, carry, z)
    loop_invariant = {leaf.shape for leaf in jax.tree.leaves(weights)}
    kept = sum(_bytes(leaf) for leaf in jax.tree.leaves(residuals) if leaf.shape not in loop_invariant)
    return kept + 2 * _bytes(z), fixed, _bytes(carry)


def _bytes(tree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
