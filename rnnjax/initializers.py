"""Initialisers, each `(key, shape, dtype) -> array` as in `jax.nn.initializers`, and the reason for each.

`per_gate` draws every gate of a fused `[D, G H]` matrix by itself: an orthogonal `[H, 4H]` matrix is not four
orthogonal `[H, H]` blocks, and Glorot's fan-out is H, not 4H.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from rnnjax.types import Array

Initializer = Callable[..., Array]


def glorot(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
    """U(-a, a), a^2 = 6 / (fan_in + fan_out): keeps the variance of signals and gradients (Glorot & Bengio 2010)."""
    draw = jax.nn.initializers.glorot_uniform()
    return draw(key, shape, dtype) if math.prod(shape) else jnp.zeros(shape, dtype)  # a cell may have no inputs


def zeros(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
    """0 everywhere."""
    return jnp.zeros(shape, dtype)


def orthogonal(gain: float | Array = 1.0) -> Initializer:
    """`gain` times a random orthogonal matrix: every singular value equals `gain` (Saxe et al. 2014).

    `gain` may be traced, so that it can be an axis of a sweep.
    """
    draw = jax.nn.initializers.orthogonal()

    def scaled(key, shape, dtype=jnp.float32):
        return jnp.asarray(gain, dtype) * one_by_one(lambda key: draw(key, shape, dtype))(key)

    return scaled


def one_by_one(draw: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """`draw`, which takes a key and factorises a matrix, as it is; under `jax.vmap` for one key after the other.

    On a CPU, LAPACK's factorisation of a batch holds its thread while others of the pool work for it: as many of
    them side by side as there are threads wait for one another for ever. It has no gradient.
    """
    return jax.custom_batching.sequential_vmap(draw)


def identity(scale: float | Array = 1.0) -> Initializer:
    """`scale` times the identity: a ReLU network that starts by copying its state (IRNN, Le et al. 2015)."""
    return lambda key, shape, dtype=jnp.float32: jnp.asarray(scale, dtype) * jnp.eye(shape[0], shape[1], dtype=dtype)


def normal(stddev: float | Array) -> Initializer:
    """N(0, stddev^2)."""
    return lambda key, shape, dtype=jnp.float32: jnp.asarray(stddev, dtype) * jax.random.normal(key, shape, dtype)


def uniform(bound: float | Array) -> Initializer:
    """U(-bound, bound)."""

    def draw(key, shape, dtype=jnp.float32):
        return jnp.asarray(bound, dtype) * jax.random.uniform(key, shape, dtype, -1.0, 1.0)

    return draw


def log_uniform(low: float | Array, high: float | Array) -> Initializer:
    """The logarithm of a number between two bounds, U(log low, log high): steps of time of every order alike."""

    def draw(key, shape, dtype=jnp.float32):
        start, end = jnp.log(jnp.asarray(low, dtype)), jnp.log(jnp.asarray(high, dtype))
        return start + jax.random.uniform(key, shape, dtype) * (end - start)

    return draw


def spectral(radius: float | Array, draw: Initializer) -> Initializer:
    """What `draw` gives, scaled so that its largest |eigenvalue| is `radius`: below 1 a linear state fades."""

    def scaled(key, shape, dtype=jnp.float32):
        W = draw(key, shape, dtype)
        return W * (jnp.asarray(radius, dtype) / spectral_radius(W))

    return scaled


def spectral_radius(W: Array) -> Array:
    """max |lambda| of W `[H, H]`, as |W^k|^(1/k) for k = 2^30, which is squared 30 times (Gelfand 1941).

    The eigenvalues themselves are to be had on a CPU only, and powers of a vector do not settle where the largest
    eigenvalues are a pair.
    """

    def square(i, found):
        power, log_radius = found
        size = jnp.max(jnp.abs(power))
        power = power / size
        return jnp.matmul(power, power, precision="highest"), log_radius + jnp.log(size) * 0.5**i

    _, log_radius = jax.lax.fori_loop(0, 31, square, (W, jnp.zeros((), W.dtype)))
    return jnp.exp(log_radius)


def uniform_sqrt(hidden_size: int) -> Initializer:
    """U(-1/sqrt(H), 1/sqrt(H)), for weights and biases alike: PyTorch's default for `nn.RNN`, `nn.LSTM`, `nn.GRU`."""
    bound = 1.0 / math.sqrt(hidden_size)
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


def constant(value: float | Array) -> Initializer:
    """`value` everywhere; it may be traced, as a forget bias in a sweep is."""
    return lambda key, shape, dtype=jnp.float32: jnp.full(shape, value, dtype)


def chrono(t_max: float | Array) -> Initializer:
    """log U(1, T_max - 1), for a forget-gate bias; the input gate gets its negative (Tallec & Ollivier 2018).

    A gate f = sigmoid(b) forgets over 1/(1-f) = 1 + e^b steps, so that the units' timescales are spread
    uniformly over [2, T_max].
    """

    def draw(key, shape, dtype=jnp.float32):
        return jnp.log(1.0 + jax.random.uniform(key, shape, dtype) * (jnp.asarray(t_max, dtype) - 2.0))

    return draw


def per_gate(initializer: Initializer, gates: int) -> Initializer:
    """Draws each of the `gates` column blocks of `[..., G H]` by itself, and sets them side by side."""

    def draw(key, shape, dtype=jnp.float32):
        *rows, columns = shape
        block = (*rows, columns // gates)
        return jnp.concatenate([initializer(k, block, dtype) for k in jax.random.split(key, gates)], axis=-1)

    return draw
