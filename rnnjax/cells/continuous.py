"""Cells that are differential equations of first order, with the scheme that steps them through time."""

import numbers
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rnnjax.cells.gated import check_hidden_size, check_positive, gated, memoized, split, unsquashed, with_constants
from rnnjax.initializers import normal, uniform_sqrt
from rnnjax.types import Activation, Array, Cell, Params, Weights

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


@memoized
def antisymmetric(
    hidden_size: int,
    *,
    epsilon: float | Array = 0.01,
    gamma: float | Array = 0.01,
    sigma_w: float | Array = 1.0,
) -> Cell:
    """AntisymmetricRNN: an Euler step of an equation that neither grows nor forgets.

        h_t = h_{t-1} + epsilon tanh((W - W^T - gamma I) h_{t-1} + V x_t + b)

    Chang, Chen, Haber & Chi (2019), arXiv:1902.09689. The eigenvalues of W - W^T are imaginary, and gamma, the
    diffusion, moves them to the left by as much as Euler's scheme needs to be stable: of an eigenvalue i omega,
    epsilon (gamma^2 + omega^2) <= 2 gamma. W, here W_h, starts as N(0, sigma_w^2 / H), V as N(0, 1 / D), b as 0.
    The paper tunes epsilon, gamma and sigma_w to each task; the defaults are no task's, but small enough to be stable.
    Public versions default to epsilon = 1 and gamma = 0, which is not.

    Args:
      hidden_size: H.
      epsilon: the step of time.
      gamma: diffusion, how far the eigenvalues are moved to the left.
      sigma_w: scale of W at the start.

    Raises ValueError for an epsilon of 0 or less.
    """

    def update(weights, h, *, n):
        return h + weights["epsilon"] * n

    return _antisymmetric(hidden_size, {"n": jnp.tanh}, update, epsilon, gamma, sigma_w)


@memoized
def antisymmetric_gated(
    hidden_size: int,
    *,
    epsilon: float | Array = 0.01,
    gamma: float | Array = 0.01,
    sigma_w: float | Array = 1.0,
) -> Cell:
    """AntisymmetricRNN with a gate, which sees the state through the very same matrix.

        z_t = sigmoid((W - W^T - gamma I) h_{t-1} + V_z x_t + b_z)
        h_t = h_{t-1} + epsilon z_t tanh((W - W^T - gamma I) h_{t-1} + V_h x_t + b_h)

    Chang, Chen, Haber & Chi (2019), arXiv:1902.09689. W_x and b hold V and b in the order z, h; everything starts as in
    `antisymmetric`.

    Args:
      hidden_size: H.
      epsilon: the step of time.
      gamma: diffusion, how far the eigenvalues are moved to the left.
      sigma_w: scale of W at the start.

    Raises ValueError for an epsilon of 0 or less.
    """

    def update(weights, h, *, z, n):
        return h + weights["epsilon"] * z * n

    return _antisymmetric(hidden_size, {"z": sigmoid, "n": jnp.tanh}, update, epsilon, gamma, sigma_w)


def _antisymmetric(
    hidden_size: int,
    activations: Mapping[str, Activation],
    update: Callable,
    epsilon: float | Array,
    gamma: float | Array,
    sigma_w: float | Array,
) -> Cell:
    """A gated cell whose gates all see h through W - W^T - gamma I, with one W `[H, H]`."""
    check_positive(epsilon=epsilon)
    cell, H, G = gated(hidden_size, activations, update), hidden_size, len(activations)

    def init(key: Array, input_size: int) -> Params:
        key_x, key_h = jax.random.split(key)
        return {
            "W_x": normal(max(input_size, 1) ** -0.5)(key_x, (input_size, G * H)),
            "W_h": normal(sigma_w / H**0.5)(key_h, (H, H)),
            "b": jnp.zeros(G * H, jnp.float32),
        }

    def weights(params: Params) -> Weights:
        return params | {"W_h": jnp.tile(_split_of(params["W_h"], 1.0, gamma), (1, G))}

    return with_constants(cell._replace(init=init, weights=weights), epsilon=epsilon)


@memoized
def lipschitz(
    hidden_size: int,
    *,
    epsilon: float | Array = 0.03,
    beta: float | Array = 0.75,
    gamma: float | Array = 0.001,
    init_std: float | Array = 0.1,
) -> Cell:
    """Lipschitz RNN: a linear part and a nonlinear one, each with a matrix that is mostly skew.

        h_t = h_{t-1} + epsilon (A h_{t-1} + tanh(W h_{t-1} + U x_t + b))
        A = (1 - beta) (M_A + M_A^T) + beta (M_A - M_A^T) - gamma I,    W likewise of M_W

    Erichson, Azencot, Queiruga, Hodgkinson & Mahoney (2020), arXiv:2006.12070, by Euler's scheme. No half is taken of
    M + M^T and M - M^T. The paper writes beta and gamma for A and W apart; as in their code, one of each serves both.
    At the start M_A and M_W are N(0, s^2), s = init_std / H (not over sqrt H), U and b are U(-a, a), a^2 = 1 / D. The
    defaults are their code's for sequential MNIST, permuted or not, with 128 units.

    Args:
      hidden_size: H.
      epsilon: the step of time.
      beta: how skew A and W are, from 0, symmetric, to 1, skew.
      gamma: how far their spectrum is moved to the left.
      init_std: scale of M_A and M_W at the start.

    Raises ValueError for an epsilon of 0 or less, and for a beta outside 0 to 1.
    """
    check_positive(epsilon=epsilon)
    if isinstance(beta, numbers.Real) and not 0 <= float(beta) <= 1:
        raise ValueError(f"beta is {beta}; allowed: 0 to 1")

    def update(weights, h, *, a, w):
        return h + weights["epsilon"] * (a + w)

    cell = gated(hidden_size, {"a": unsquashed, "w": jnp.tanh}, update, of_input=("w",))
    H = hidden_size

    def init(key: Array, input_size: int) -> Params:
        keys = jax.random.split(key, 4)
        uniform, matrix = uniform_sqrt(max(input_size, 1)), normal(init_std / H)
        return {
            "W_x": uniform(keys[0], (input_size, H)),
            "b": uniform(keys[1], (H,)),
            "M_A": matrix(keys[2], (H, H)),
            "M_W": matrix(keys[3], (H, H)),
        }

    def weights(params: Params) -> Weights:
        A, W = (_split_of(params[name], beta, gamma) for name in ("M_A", "M_W"))
        return {
            "W_x": params["W_x"],
            "W_h": jnp.concatenate([A, W], axis=1),
            "b": params["b"],
            "b_h": jnp.zeros_like(params["b"]),
        }

    return with_constants(cell._replace(init=init, weights=weights), epsilon=epsilon)


def _split_of(M: Array, beta: float | Array, gamma: float | Array) -> Array:
    """(1 - beta) (M + M^T) + beta (M - M^T) - gamma I."""
    beta, gamma = jnp.asarray(beta, M.dtype), jnp.asarray(gamma, M.dtype)
    return (1 - beta) * (M + M.T) + beta * (M - M.T) - gamma * jnp.eye(len(M), dtype=M.dtype)
