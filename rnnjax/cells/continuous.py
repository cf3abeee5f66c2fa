"""Cells that are differential equations of first order, with the scheme that steps them through time."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rnnjax.cells.gated import check_hidden_size, check_positive, memoized, split, with_constants
from rnnjax.initializers import uniform_sqrt
from rnnjax.types import Array, Cell, Params, Weights

sigmoid = jax.nn.sigmoid


class LEMCarry(NamedTuple):
    """The state y, which is shown, and the memory z, both `[..., H]`."""

    y: Array
    z: Array


@memoized
def lem(hidden_size: int, *, dt: float | Array = 1.0) -> Cell:
    """Long expressive memory (LEM): two states, each unit of each with a step of time that it learns.

        d_t = dt sigmoid(W_1 y_{t-1} + V_1 x_t + b_1)
        e_t = dt sigmoid(W_2 y_{t-1} + V_2 x_t + b_2)
        z_t = (1 - d_t) z_{t-1} + d_t tanh(W_z y_{t-1} + V_z x_t + b_z)
        y_t = (1 - e_t) y_{t-1} + e_t tanh(W_y z_t + V_y x_t + b_y)

    Rusch, Mishra, Erichson & Mahoney (2021), arXiv:2110.04744. y sees the new z, so that there are two matmuls in
    sequence a step, and it is written as a free-form `step`; some public versions give y the old z, which is another
    cell. W_x and b hold V and b in the order 1, 2, z, y, W_h holds W_1, W_2 and W_z. All start as U(-a, a),
    a^2 = 1 / H; b is one vector where their code adds two.

    Args:
      hidden_size: H.
      dt: the longest step of time. 1 is the default of their code; it was tuned to each task, from 1.7e-4 for
        EigenWorms and 0.0242 for adding to 0.31 for permuted sequential MNIST.

    Raises ValueError for a dt of 0 or less.
    """
    check_hidden_size(hidden_size)
    check_positive(dt=dt)
    H, names = hidden_size, ("1", "2", "z", "y")

    def init(key: Array, input_size: int) -> Params:
        shapes = {"W_x": (input_size, 4 * H), "W_h": (H, 3 * H), "W_y": (H, H), "b": (4 * H,)}
        draw = uniform_sqrt(H)
        return {name: draw(k, shapes[name]) for name, k in zip(shapes, jax.random.split(key, 4), strict=True)}

    def initial_carry(weights: Weights, batch_shape: tuple[int, ...]) -> LEMCarry:
        zero = jnp.zeros((*batch_shape, H))
        return LEMCarry(zero, zero)

    def project(weights: Weights, x: Array, key: Array | None = None) -> dict[str, Array]:
        W_x, b = split(weights["W_x"], names), split(weights["b"], names)
        return {name: x @ W_x[name] + b[name] for name in names}

    def step(weights: Weights, carry: LEMCarry, x: dict[str, Array]) -> LEMCarry:
        s = split(carry.y @ weights["W_h"], names[:3])
        d, e = (weights["dt"] * sigmoid(s[name] + x[name]) for name in ("1", "2"))
        z = (1 - d) * carry.z + d * jnp.tanh(s["z"] + x["z"])
        y = (1 - e) * carry.y + e * jnp.tanh(z @ weights["W_y"] + x["y"])
        return LEMCarry(y, z)

    return with_constants(Cell(init, initial_carry, step, project, lambda weights, carry, z: carry.y), dt=dt)
