"""Networks of oscillators: differential equations of second order in time."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rnnjax.cells.gated import check_positive, gated, memoized, with_constants
from rnnjax.initializers import uniform_sqrt
from rnnjax.types import Array, Cell, Params


class OscillatorCarry(NamedTuple):
    """The position y, which is shown, and the velocity z, both `[..., H]`."""

    y: Array
    z: Array


def _position(weights, carry, z):
    return carry.y


@memoized
def cornn(
    hidden_size: int, *, dt: float | Array = 0.076, gamma: float | Array = 0.4, epsilon: float | Array = 8.0
) -> Cell:
    """Coupled oscillatory RNN (coRNN): damped oscillators that the input and all the others drive.

        z_t = z_{t-1} + dt (tanh(W_y y_{t-1} + W_z z_{t-1} + V x_t + b) - gamma y_{t-1} - epsilon z_{t-1})
        y_t = y_{t-1} + dt z_t

    Rusch & Mishra (2020), arXiv:2010.00951, with the damping epsilon taken before the step, as in their code. The new z
    moves y. W_h `[2 H, H]` is W_y above W_z. As one layer in PyTorch, all start as U(-a, a), a^2 = 1 / (D + 2 H). The
    defaults are their code's for permuted sequential MNIST; for the adding problem it has 0.06, 66 and 15.

    Args:
      hidden_size: H.
      dt: step of time; dt epsilon and dt sqrt(gamma) must stay well below 2, or the oscillators blow up.
      gamma: frequency squared of an oscillator by itself.
      epsilon: its damping.

    Raises ValueError for a dt of 0 or less.
    """
    check_positive(dt=dt)

    def update(weights, carry, *, s):
        z = carry.z + weights["dt"] * (s - weights["gamma"] * carry.y - weights["epsilon"] * carry.z)
        return OscillatorCarry(carry.y + weights["dt"] * z, z)

    cell = gated(
        hidden_size,
        {"s": jnp.tanh},
        update,
        carry=OscillatorCarry,
        state=lambda c: jnp.concatenate([c.y, c.z], axis=-1),
    )

    def init(key: Array, input_size: int) -> Params:
        draw = uniform_sqrt(input_size + 2 * hidden_size)
        shapes = {"W_x": (input_size, hidden_size), "W_h": (2 * hidden_size, hidden_size), "b": (hidden_size,)}
        return {name: draw(k, shapes[name]) for name, k in zip(shapes, jax.random.split(key, 3), strict=True)}

    return with_constants(cell._replace(init=init, output=_position), dt=dt, gamma=gamma, epsilon=epsilon)


@memoized
def unicornn(hidden_size: int, *, dt: float | Array = 0.19, alpha: float | Array = 30.65) -> Cell:
    """Undamped independent controlled oscillatory RNN (UnICORNN): oscillators that do not see each other.

        z_t = z_{t-1} - dt sigmoid(c) (tanh(w y_{t-1} + V x_t + b) + alpha y_{t-1})        elementwise
        y_t = y_{t-1} + dt sigmoid(c) z_t

    Rusch & Mishra (2021), arXiv:2103.05487. The step is symplectic: it keeps volume, and can be undone. w, here W_h, is
    a vector; layers must be stacked for the units to mix. At the start w ~ U(0, 1), c ~ U(-0.1, 0.1), b = 0, and V is
    U(-a, a), a^2 = 6 / (65 D). The defaults are their code's for permuted sequential MNIST, in three layers.

    Args:
      hidden_size: H.
      dt: step of time; dt sqrt(alpha) must stay well below 4.
      alpha: frequency squared of an oscillator by itself.

    Raises ValueError for a dt of 0 or less.
    """
    check_positive(dt=dt)

    def update(weights, carry, *, s):
        step = weights["dt"] * jax.nn.sigmoid(weights["c"])
        z = carry.z - step * (s + weights["alpha"] * carry.y)
        return OscillatorCarry(carry.y + step * z, z)

    cell = gated(
        hidden_size,
        {"s": jnp.tanh},
        update,
        carry=OscillatorCarry,
        state=lambda c: c.y,
        diagonal=True,
        w_x=lambda key, shape, dtype=jnp.float32: _uniform(math.sqrt(6 / (65 * max(shape[0], 1))))(key, shape, dtype),
        w_h=jax.random.uniform,
        vectors={"c": _uniform(0.1)},
    )
    return with_constants(cell._replace(output=_position), dt=dt, alpha=alpha)


def _uniform(bound: float):
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)
