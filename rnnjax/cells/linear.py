"""The constructor of every cell whose recurrence is linear in its carry, elementwise."""

from collections.abc import Callable
from typing import Any

import jax

from rnnjax.types import Array, Carry, Cell, Linear, Params, Weights


def linear(
    init: Callable[[Array, int], Params],
    initial_carry: Callable[[Weights, tuple[int, ...]], Carry],
    coefficients: Callable[[Weights, Any], tuple[Carry, Carry]],
    **parts: Callable,
) -> Cell:
    """A cell from the coefficients of its recurrence.

        h_t = a_t h_{t-1} + b_t,    a_t, b_t = coefficients(w, z_t)

    Args:
      init, initial_carry: as in `Cell`.
      coefficients: `(weights, z) -> (a, b)`, each a pytree like the carry; see `Linear`.
      parts: the other functions of the `Cell`: project, output, weights.
    """

    def step(weights: Weights, carry: Carry, z: Any) -> Carry:
        a, b = coefficients(weights, z)
        return jax.tree.map(lambda a, h, b: a * h + b, a, carry, b)

    return Cell(init, initial_carry, step, form=Linear(coefficients), **parts)
