"""Networks of oscillators, which are differential equations of second order in time, and of waves."""

import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rnnjax.cells.gated import check_hidden_size, check_positive, gated, memoized, with_constants
from rnnjax.initializers import uniform, uniform_sqrt
from rnnjax.types import Array, Cell, Params, Weights


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
      epsilon: damping of an oscillator.

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
        w_x=lambda key, shape, dtype=jnp.float32: uniform(math.sqrt(6 / (65 * max(shape[0], 1))))(key, shape, dtype),
        w_h=jax.random.uniform,
        vectors={"c": uniform(0.1)},
    )
    return with_constants(cell._replace(output=_position), dt=dt, alpha=alpha)


@memoized
def wrnn(hidden_size: int, *, channels: int = 1, kernel_size: int = 3, start: Literal["fwd", "eye"] = "fwd") -> Cell:
    """Wave RNN (wRNN): a ReLU network on rings of units, whose recurrence is a convolution and starts as a wave.

        h_t[c, i] = relu(sum_{c', j} u[c, c', j] h_{t-1}[c', i + j - k // 2] + (V x_t)[c, i] + b[c, i])

    Keller, Muller, Sejnowski & Welling (2023), arXiv:2309.08045, in one dimension: the H units are `channels` rings of
    N = H / channels, i counts around a ring, and k is `kernel_size`. u starts as a copy of each channel from its
    neighbour, so that what a unit holds moves on by one place a step, towards i = 0 and around; V is 1 into the first
    unit of each ring and 0 elsewhere; b is 0, where their code has the random bias of a convolution. So nothing is
    drawn. Their scripts start without a shift unless told to. Six channels of 100 units copy, 16 read sequential MNIST,
    27 add.

    Args:
      hidden_size: H.
      channels: the number of rings, a divisor of H.
      kernel_size: k, the places that a unit sees in each ring, odd.
      start: fwd, the wave; eye, a copy of the unit itself, as in `irnn`.

    Raises ValueError for channels that do not divide H, an even or too small kernel, and an unknown `start`.
    """
    check_hidden_size(hidden_size)
    if channels < 1 or hidden_size % channels:
        raise ValueError(f"channels is {channels}; allowed: the divisors of hidden_size, {hidden_size}")
    if kernel_size < 3 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size is {kernel_size}; allowed: 3, 5, 7, ...")
    if start not in ("fwd", "eye"):
        raise ValueError(f"unknown start {start!r}; allowed: fwd, eye")
    H, C, N, k = hidden_size, channels, hidden_size // channels, kernel_size
    # h @ shift[j] is h[i + j - k // 2] at place i.
    shift = np.stack([np.roll(np.eye(N), j - k // 2, axis=0) for j in range(k)])
    cell = gated(H, {"h": jax.nn.relu}, lambda weights, carry, *, h: h)

    def init(key: Array, input_size: int) -> Params:
        source = np.zeros((C, C, k), np.float32)
        source[range(C), range(C), k // 2 + (start == "fwd")] = 1
        first = np.arange(H) % N == 0
        return {
            "W_x": jnp.broadcast_to(jnp.asarray(first, jnp.float32), (input_size, H)),
            "u": jnp.asarray(source),
            "b": jnp.zeros(H, jnp.float32),
        }

    def weights(params: Params) -> Weights:
        ring = jnp.einsum("cdj,jmi->dmci", params["u"], jnp.asarray(shift, params["u"].dtype))
        return {"W_x": params["W_x"], "W_h": ring.reshape(H, H), "b": params["b"]}

    return cell._replace(init=init, weights=weights)
