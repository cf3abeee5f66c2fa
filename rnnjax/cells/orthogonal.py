"""Elman networks whose matrix is orthogonal, or has known eigenvalues, whatever is learned: it is made once a call."""

import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from rnnjax.cells.gated import check_hidden_size, gated, memoized, unsquashed
from rnnjax.cells.orthogonal_matrices import (
    ANGLES,
    blocks,
    cayley_angles,
    elman_init,
    exp_of_skew,
    henaff_angles,
    in_full,
    place,
    skew,
)
from rnnjax.initializers import Initializer, glorot, normal, uniform, zeros
from rnnjax.types import Activation, Array, Cell, Params, Weights


@memoized
def exprnn(hidden_size: int, *, start: Literal["henaff", "cayley"] = "henaff") -> Cell:
    """An orthogonal network: W is the exponential of a skew-symmetric matrix.

        h_t = modrelu(W h_{t-1} + W_x x_t; b),    W = exp(A - A^T),    A strictly upper triangular
        modrelu(s; b) = sign(s) relu(|s| + b)

    Lezcano-Casado & Martinez-Rubio (2019), Cheap orthogonal constraints in neural networks (arXiv:1901.08428). A holds
    its H (H - 1) / 2 free entries, row by row. W starts as rotations of pairs of units; W_x is Kaiming's normal, b is
    U(-0.01, 0.01). The exponential is `exp_of_skew`.

    The paper trains A with a tenth of the learning rate of the rest: `lr_of=A:0.1`. The authors' code moves the point
    at which it takes the exponential every 100 steps by default (dynamic trivialisations, arXiv:1909.09501); this is
    the static form, that of the paper.

    Args:
      hidden_size: H.
      start: the angles of the rotations at the start: U(-pi, pi), Henaff et al. (2016); or `cayley`, minus tan(u / 2)
        with u from U(0, pi / 2), Helfrich et al. (2017).

    Raises ValueError for an unknown `start`.
    """
    check_hidden_size(hidden_size)
    if start not in ANGLES:
        raise ValueError(f"unknown start {start!r}; allowed: {', '.join(ANGLES)}")
    return _elman(
        hidden_size,
        lambda key: {"A": blocks(ANGLES[start], key, hidden_size)},
        lambda params: exp_of_skew(skew(params["A"], hidden_size)),
        w_x=_kaiming,
        bias=uniform(0.01),
    )


@memoized
def scornn(hidden_size: int, *, rho: int | None = None) -> Cell:
    """An orthogonal network: W is the scaled Cayley transform of a skew-symmetric matrix (scoRNN).

        h_t = modrelu(W h_{t-1} + W_x x_t; b),    W = (I + S)^-1 (I - S) D,    S = A - A^T
        modrelu(s; b) = sign(s) relu(|s| + b),    D = diag(1, ..., 1, -1, ..., -1), fixed

    Helfrich, Willmott & Ye (2017), Orthogonal recurrent neural networks with scaled Cayley transform
    (arXiv:1707.09520). Without D no eigenvalue of W can be -1. A is strictly upper triangular and holds its free
    entries, row by row; S starts as 2 by 2 blocks of minus tan(u / 2) with u from U(0, pi / 2), W_x is U(-0.01, 0.01),
    b is 0, as in the authors' code. There the state is a row, h W; here W is the paper's.

    The paper trains A with a tenth to a hundredth of the learning rate of the rest: `lr_of=A:0.1`.

    Args:
      hidden_size: H.
      rho: how many entries of D are -1, the last ones; by default half of them, as for the copy task of the paper.

    Raises ValueError for a `rho` that is not in 0, ..., H.
    """
    check_hidden_size(hidden_size)
    rho = hidden_size // 2 if rho is None else rho
    if rho not in range(hidden_size + 1):
        raise ValueError(f"rho is {rho}; allowed: 0, ..., {hidden_size}")
    signs = np.where(np.arange(hidden_size) < hidden_size - rho, 1.0, -1.0)

    def matrix(params: Params) -> Array:
        S = skew(params["A"], hidden_size)
        eye = jnp.eye(hidden_size, dtype=S.dtype)
        return jnp.linalg.solve(eye + S, eye - S) * signs.astype(S.dtype)

    return _elman(
        hidden_size,
        lambda key: {"A": blocks(cayley_angles, key, hidden_size)},
        matrix,
        w_x=uniform(0.01),
        bias=zeros,
    )


@memoized
def householder(
    hidden_size: int, *, m: int | None = None, activation: Literal["leaky_relu", "modrelu"] = "leaky_relu"
) -> Cell:
    """An orthogonal network: W is a product of reflections (oRNN).

        h_t = phi(W h_{t-1} + W_x x_t + b),    W = H_1 ... H_m,    H_k = I - 2 u_k u_k^T / |u_k|^2

    Mhammedi, Hellicar, Rahman & Bailey (2016), Efficient orthogonal parametrisation of recurrent neural networks using
    Householder reflections (arXiv:1612.00188). The first k - 1 entries of u_k are 0; U holds the others, columns of a
    lower trapezoid, row by row. They start as random directions, W_x as Glorot's, b as 0. The determinant is (-1)^m:
    m = H - 1 and m = H each reach every orthogonal matrix of their sign; u_H has one entry, whose size is nothing.

    W is made in one product, I - U T U^T, with 1 / T the upper triangle of U^T U, its diagonal halved. The authors'
    code leaves out |u_k|^2 and rescales u_k at each update instead; it has OPLU, too, which mixes units in pairs, and
    a first state that is learned, where here it is 0.

    Args:
      hidden_size: H.
      m: the number of reflections, 1, ..., H; by default H. Fewer reach fewer matrices.
      activation: phi, with the slope 0.1 below 0, or modReLU: sign(s) relu(|s| + b) of s without b.

    Raises ValueError for an `m` that is not in 1, ..., H, or an unknown `activation`.
    """
    check_hidden_size(hidden_size)
    m = hidden_size if m is None else m
    if m not in range(1, hidden_size + 1):
        raise ValueError(f"m is {m}; allowed: 1, ..., {hidden_size}")
    if activation not in ("leaky_relu", "modrelu"):
        raise ValueError(f"unknown activation {activation!r}; allowed: leaky_relu, modrelu")
    trapezoid = np.tri(hidden_size, m, dtype=bool)

    def draw(key: Array) -> Params:
        U = jnp.tril(jax.random.normal(key, (hidden_size, m), jnp.float32))
        return {"U": (U / jnp.linalg.norm(U, axis=0))[np.nonzero(trapezoid)]}

    def matrix(params: Params) -> Array:
        U = place(params["U"], trapezoid)
        squared = U.T @ U
        triangle = jnp.triu(squared) - jnp.diag(jnp.diag(squared)) / 2
        return jnp.eye(hidden_size, dtype=U.dtype) - U @ jax.scipy.linalg.solve_triangular(triangle, U.T)

    phi = _leaky_relu if activation == "leaky_relu" else None
    return _elman(hidden_size, draw, matrix, w_x=glorot, bias=zeros, activation=phi)


@memoized
def nnrnn(hidden_size: int) -> Cell:
    """A non-normal network: W has eigenvalues near the unit circle and what an orthogonal matrix lacks, a triangle.

        h_t = modrelu(W h_{t-1} + W_x x_t; b),    W = P (Lambda + T) P^T,    P = exp(A - A^T)
        modrelu(s; b) = sign(s) relu(|s| + b)

    Kerg et al. (2019), Non-normal recurrent neural network (nnRNN) (arXiv:1905.12080): a real Schur form. Lambda has
    blocks of 2 by 2, gamma_k times the rotation by theta_k, and T is what lies above them, so that the eigenvalues of W
    are gamma_k exp(+-i theta_k) whatever T is. Where H is odd the last block is gamma alone. A and T hold their free
    entries row by row.

    gamma starts as 1, theta as U(0, 2 pi), T as 0: an orthogonal W. A starts as the angles U(-pi, pi) of pairs of
    units, W_x as Glorot's normal, b as U(-0.01, 0.01). The authors' code asks for this A, but passes it as an argument
    that is not read, and its T also reaches into the blocks. The paper holds gamma near 1 by a penalty,
    1e-4 (gamma - 1)^2, which is not here, and gives T a weight decay and A a learning rate of their own (see `no_decay`
    and `lr_of`).

    Args:
      hidden_size: H.

    Raises ValueError for a hidden size below 1 or not whole.
    """
    check_hidden_size(hidden_size)
    H, pairs = hidden_size, hidden_size // 2
    block = np.arange(H) // 2
    above = block > block[:, None]

    def draw(key: Array) -> Params:
        key_A, key_theta = jax.random.split(key)
        return {
            "A": blocks(henaff_angles, key_A, H),
            "gamma": jnp.ones(H - pairs, jnp.float32),
            "theta": jax.random.uniform(key_theta, (pairs,), jnp.float32, 0, 2 * math.pi),
            "T": jnp.zeros(above.sum(), jnp.float32),
        }

    def matrix(params: Params) -> Array:
        gamma, theta = params["gamma"], params["theta"]
        cos, sin = gamma[:pairs] * jnp.cos(theta), gamma[:pairs] * jnp.sin(theta)
        diagonal = jnp.concatenate([jnp.stack([cos, cos], axis=-1).ravel(), gamma[pairs:]])
        schur = place(params["T"], above) + jnp.diag(diagonal)
        first = np.arange(0, H - 1, 2)
        schur = schur.at[first, first + 1].set(-sin).at[first + 1, first].set(sin)
        P = exp_of_skew(skew(params["A"], H))
        return P @ schur @ P.T

    return _elman(H, draw, matrix, w_x=_glorot_normal, bias=uniform(0.01))


def _elman(
    hidden_size: int,
    draw: Callable[[Array], Params],
    matrix: Callable[[Params], Array],
    *,
    w_x: Initializer,
    bias: Initializer,
    activation: Activation | None = None,
) -> Cell:
    """h_t = modrelu(W h_{t-1} + W_x x_t; b) for W = `matrix(params)`, of parameters that `draw` makes.

    With another `activation` b is added before it.
    """
    if activation:
        cell = gated(hidden_size, {"h": activation}, lambda weights, carry, *, h: h)
    else:
        cell = gated(hidden_size, {"s": unsquashed}, lambda weights, carry, *, s: modrelu(s, weights["threshold"]))

    def weights(params: Params) -> Weights:
        W_h, b = in_full(matrix)(params).T, params["b"]  # the state is a row
        biases = {"b": b} if activation else {"b": jnp.zeros_like(b), "threshold": b}
        return {"W_x": params["W_x"], "W_h": W_h} | biases

    init = elman_init(hidden_size, hidden_size, draw, w_x, bias)
    return cell._replace(init=init, weights=weights)


def modrelu(s: Array, b: Array) -> Array:
    """sign(s) relu(|s| + b), Arjovsky et al. (2015) for real numbers.

    Its slope is 1 or 0 everywhere, in s = 0 too: 1 where b >= 0. So a state of zeros passes the gradient on.
    """
    return jnp.where(jnp.abs(s) + b >= 0, s + b * jnp.sign(s), 0)


def _kaiming(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
    """N(0, 2 / D): keeps the size of a signal through relu (He et al. 2015)."""
    return normal(math.sqrt(2 / max(shape[0], 1)))(key, shape, dtype)


def _glorot_normal(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
    """N(0, 2 / (D + H)), Glorot & Bengio (2010)."""
    return normal(math.sqrt(2 / sum(shape)))(key, shape, dtype)


def _leaky_relu(s: Array) -> Array:
    return jax.nn.leaky_relu(s, 0.1)
