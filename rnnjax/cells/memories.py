"""Memories that keep their past as coefficients of Legendre polynomials: a sliding window of it, or all of it."""

import math
import numbers
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rnnjax.cells.gated import check_hidden_size, gated, memoized, unsquashed
from rnnjax.initializers import glorot, zeros
from rnnjax.types import Array, Cell, Params, Weights


class LMUCarry(NamedTuple):
    """The shown state h `[..., H]`, and the memory m `[..., N]`."""

    h: Array
    m: Array


@memoized
def lmu(hidden_size: int, *, order: int | None = None, theta: float = 100.0) -> Cell:
    """Legendre memory unit (LMU): a linear memory of the last theta steps of one signal u, and a state that reads it.

        u_t = e_x x_t + e_h h_{t-1} + e_m m_{t-1}               one number
        m_t = Abar m_{t-1} + Bbar u_t                           [N]
        h_t = tanh(W_x x_t + W_h h_{t-1} + W_m m_t)

    Abar = exp(A), Bbar = A^-1 (exp(A) - I) B hold u over a step of length 1, for
    A_ij = (2i + 1) / theta * (-1 if i < j else (-1)^(i-j+1)) and B_i = (2i + 1) (-1)^i / theta. Then
    u_{t-r} = sum_i P_i(2r / theta - 1) m_i as nearly as N polynomials can, for 0 <= r <= theta, to half a step.

    Voelker, Kajic & Eliasmith (2019), Legendre memory units: continuous-time representation in recurrent neural
    networks. h reads the new memory. Abar and Bbar are constants; e_x and e_h start as LeCun's uniform, e_m as zero,
    the matrices as Glorot's. keras-lmu leaves out W_h, e_h and e_m unless asked, and its memory is then linear in x.

    Args:
      hidden_size: H.
      order: N, the number of polynomials; H by default.
      theta: the length of the window in steps, usually T.

    Raises ValueError for an order below 1 or not whole, and for a theta that is not above 0.
    """
    check_hidden_size(hidden_size)
    H, N = hidden_size, _order(order, hidden_size)
    if not theta > 0:
        raise ValueError(f"theta is {theta}; allowed: a number above 0")
    i, j = np.mgrid[:N, :N]
    A = (2 * i + 1) / theta * np.where(i < j, -1.0, (-1.0) ** (i - j + 1))
    B = (2 * np.arange(N) + 1) / theta * (-1.0) ** np.arange(N)
    Abar, Bbar = held(A, B)

    def init(key: Array, input_size: int) -> Params:
        keys = jax.random.split(key, 5)
        return {
            "e_x": _lecun(keys[0], input_size, input_size),
            "e_h": _lecun(keys[1], H, H),
            "e_m": zeros(None, (N,)),
            "W_x": glorot(keys[2], (input_size, H)),
            "W_h": glorot(keys[3], (H, H)),
            "W_m": glorot(keys[4], (N, H)),
        }

    def weights(params: Params) -> Weights:
        """[h, m] W_h + x W_x, in one product each, where the new m is put in the place of m_t."""
        A, B = (jnp.asarray(a, params["W_m"].dtype) for a in (Abar, Bbar))
        from_x, from_h, from_m = (jnp.outer(params[e], B) for e in ("e_x", "e_h", "e_m"))
        from_m = from_m + A.T
        of_h = jnp.concatenate([params["W_h"] + from_h @ params["W_m"], from_m @ params["W_m"]])
        return {
            "W_x": jnp.concatenate([params["W_x"] + from_x @ params["W_m"], from_x], axis=1),
            "W_h": jnp.concatenate([of_h, jnp.concatenate([from_h, from_m])], axis=1),
            "b": jnp.zeros(H + N, A.dtype),
        }

    def initial_carry(weights: Weights, batch_shape: tuple[int, ...]) -> LMUCarry:
        return LMUCarry(jnp.zeros((*batch_shape, H)), jnp.zeros((*batch_shape, N)))

    def update(weights: Weights, carry: LMUCarry, *, s: Array) -> LMUCarry:
        return LMUCarry(jnp.tanh(s[..., :H]), s[..., H:])

    cell = gated(
        H + N,
        {"s": unsquashed},
        update,
        carry=LMUCarry,
        state=lambda c: jnp.concatenate([c.h, c.m], axis=-1),
    )
    return cell._replace(init=init, weights=weights, initial_carry=initial_carry)


class LegSCarry(NamedTuple):
    """The shown state h `[..., H]`, the memory m `[..., N]`, and the steps so far `[..., 1]`, integers."""

    h: Array
    m: Array
    t: Array


class LegSInput(NamedTuple):
    """What a step needs of its input."""

    u: Array  # [..., 1]
    s: Array  # [..., 2 H]


@memoized
def legs(hidden_size: int, *, order: int | None = None) -> Cell:
    """A gated network with a HiPPO-LegS memory: of all its past, at a resolution that grows coarser as it grows longer.

        u_t = e_x x_t + e_h h_{t-1} + b_u                       one number
        m_t = (I + A / 2t)^-1 ((I - A / 2t) m_{t-1} + B u_t / t),    t = 1, 2, ...; before them m_0 = [u_0, 0, ...]
        g_t = sigmoid(W_g x_t + V_g m_t + b_g)
        h_t = (1 - g_t) h_{t-1} + g_t tanh(W_n x_t + V_n m_t + b_n)

    A_nk = sqrt((2n + 1) (2k + 1)) for n > k, n + 1 for n = k, else 0; B_n = sqrt(2n + 1). Then
    u_s = sum_n sqrt(2n + 1) P_n(2s / t - 1) m_n as nearly as N polynomials can, for 0 <= s <= t, to half a step.

    Gu, Dao, Ermon, Rudra & Ré (2020), HiPPO: recurrent memory with optimal polynomial projections (arXiv:2008.07669).
    The clock t is in the carry. The equation in m is solved anew at each step, in O(N log N), as A is made of two
    vectors; the authors' code stores the matrices of 1024 steps, and goes on with the last. e starts as LeCun's
    uniform, the matrices gate by gate as Glorot's, the biases as zero.

    Args:
      hidden_size: H.
      order: N, the number of polynomials; H by default.

    Raises ValueError for an order below 1 or not whole.
    """
    check_hidden_size(hidden_size)
    H, N = hidden_size, _order(order, hidden_size)

    def init(key: Array, input_size: int) -> Params:
        key, *gates = jax.random.split(key, 3)
        e = _lecun(key, input_size + H, input_size + H)
        blocks = [glorot(k, (input_size + N, H)) for k in gates]
        return {
            "e_x": e[:input_size],
            "e_h": e[input_size:],
            "b_u": zeros(None, (1,)),
            "W": jnp.concatenate([block[:input_size] for block in blocks], axis=1),
            "V": jnp.concatenate([block[input_size:] for block in blocks], axis=1),
            "b": zeros(None, (2 * H,)),
        }

    def initial_carry(weights: Weights, batch_shape: tuple[int, ...]) -> LegSCarry:
        h, m = (jnp.zeros((*batch_shape, size)) for size in (H, N))
        return LegSCarry(h, m, jnp.zeros((*batch_shape, 1), jnp.int32))

    def project(weights: Weights, x: Array, key: Array | None = None) -> LegSInput:
        return LegSInput(x @ weights["e_x"][:, None] + weights["b_u"], x @ weights["W"] + weights["b"])

    def step(weights: Weights, carry: LegSCarry, z: LegSInput) -> LegSCarry:
        u = z.u + carry.h @ weights["e_h"][:, None]
        m = _legs_step(carry.m, u, carry.t)
        g, n = jnp.split(z.s + m @ weights["V"], 2, axis=-1)
        g = jax.nn.sigmoid(g)
        return LegSCarry((1 - g) * carry.h + g * jnp.tanh(n), m, carry.t + 1)

    return Cell(init, initial_carry, step, project)


def _legs_step(m: Array, u: Array, t: Array) -> Array:
    """The memory m `[..., N]` after u `[..., 1]`, the t-th number since the first."""
    n = jnp.arange(m.shape[-1], dtype=m.dtype)
    d = jnp.sqrt(2 * n + 1)
    half = 0.5 / jnp.maximum(t, 1).astype(m.dtype)
    below = jnp.cumsum(d * m, axis=-1) - d * m  # A m = d (sum of d_k m_k below n) + (n + 1) m
    right = m - half * (d * below + (n + 1) * m) + 2 * half * d * u
    # (I + A / 2t) m = right, solved from the top for the sums s_n of d_k m_k below n: s_{n+1} = keep s_n + add.
    scale = 1 + half * (n + 1)
    keep, add = (1 - half * n) / scale, d * right / scale

    def then(first, second):
        return first[0] * second[0], second[0] * first[1] + second[1]

    _, through = lax.associative_scan(then, (jnp.broadcast_to(keep, add.shape), add), axis=-1)
    below = jnp.concatenate([jnp.zeros_like(u), through[..., :-1]], axis=-1)
    return jnp.where(t == 0, u * (n == 0), (right - half * d * below) / scale)


def held(A: np.ndarray, B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """m' = A m + B u over a step of length 1 through which u is held: (exp(A), the integral of exp(A s) B).

    In float64, both from the exponential of [[A, B], [0, 0]], by its series and squaring.
    """
    N = len(B)
    M = np.zeros((N + 1, N + 1))
    M[:N, :N], M[:N, N] = A, B
    squarings = 1 + max(0, math.ceil(math.log2(np.linalg.norm(M, 1))))
    M = M / 2**squarings
    total = term = np.eye(N + 1)
    for k in range(1, 19):  # a norm of 1/2: 0.5^19 / 19! is below the rounding
        term = term @ M / k
        total = total + term
    for _ in range(squarings):
        total = total @ total
    return total[:N, :N], total[:N, N]


def _order(order: int | None, hidden_size: int) -> int:
    if order is not None and (not isinstance(order, numbers.Integral) or order < 1):
        raise ValueError(f"order is {order}; allowed: 1, 2, ...")
    return hidden_size if order is None else order


def _lecun(key: Array, size: int, fan_in: int) -> Array:
    """U(-a, a), a^2 = 3 / fan_in: what it is multiplied with keeps its variance (LeCun et al. 1998)."""
    bound = math.sqrt(3 / max(fan_in, 1))
    return jax.random.uniform(key, (size,), jnp.float32, -bound, bound)
