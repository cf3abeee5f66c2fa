"""A long product of matrices as Q diag(e^s) U, whose size stands in s alone, and its singular values as logs."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from rnnjax.norms import norm
from rnnjax.types import Array


class ScaledProduct(NamedTuple):
    """P = Q diag(e^s) U, s = log + low."""

    Q: Array  # [n, n], orthogonal
    log: Array  # [n]
    low: Array  # [n], what `log` lost to rounding: without it the error would grow with the number of factors
    U: Array  # [n, n], rows of length 1


def identity(n: int, dtype: jnp.dtype) -> ScaledProduct:
    """The product of no matrices."""
    return ScaledProduct(jnp.eye(n, dtype=dtype), jnp.zeros(n, dtype), jnp.zeros(n, dtype), jnp.eye(n, dtype=dtype))


def extend(product: ScaledProduct, W: Array) -> ScaledProduct:
    """J P, given W = J Q `[n, n]`. Costs n^3.

    W = Q' R with the columns sorted by their size in the product, the largest first, and R diag(e^s) U brought to rows
    of length 1 again. The order keeps U well conditioned (stratification, Loh et al. 1989; sorting once instead of
    pivoting, Tomas et al. 2012).
    """
    tiny = jnp.finfo(W.dtype).tiny
    order = jnp.argsort(-(product.log + jnp.log(jnp.maximum(norm(W.T, 1), tiny))))
    log, low, U = product.log[order], product.low[order], product.U[order]
    Q, R = jnp.linalg.qr(W[:, order])
    # R_ij e^(s_j - s_i) is at most the length of column i of W, thanks to the order; its factors may overflow.
    gap = (log[None] - log[:, None]) + (low[None] - low[:, None])
    U = jnp.sign(R) * jnp.exp(jnp.where(R == 0, -jnp.inf, jnp.log(jnp.abs(R)) + gap)) @ U
    length = jnp.maximum(norm(U, 1), tiny)
    new = log + (add := jnp.log(length) + low)
    return ScaledProduct(Q, new, add - (new - log), U / length[:, None])  # `log` dwarfs `add` once rounding matters


def log_singular_values(product: ScaledProduct, sweeps: int = 10) -> Array:
    """log sigma of P `[n]`, largest first, each to its own relative precision however far apart they are.

    One-sided Jacobi (Hestenes 1958; Demmel & Veselic 1992): rotates pairs of rows of diag(e^s) U until all are
    orthogonal, their lengths kept as logs. Costs `sweeps` n^3.
    """
    n = product.log.size
    m = n + n % 2  # an odd count gets one more row, orthogonal to all
    U = jnp.eye(m, dtype=product.U.dtype).at[:n, :n].set(product.U)
    s = jnp.zeros(m, U.dtype).at[:n].set(product.log)
    tiny = jnp.finfo(U.dtype).tiny

    def rotate(state, pairs):
        # Of rows a = u_i and b = rho u_j, the longer first, makes a + t b and b - t a, t the small root of
        # t / (1 - t^2) = a.b / (|a|^2 - |b|^2), and keeps tau = t / rho, which stays finite.
        s, change, U = state
        i, j = pairs
        gap = (s[j] - s[i]) + (change[j] - change[i])
        i, j = jnp.where(gap <= 0, i, j), jnp.where(gap <= 0, j, i)
        rho2 = jnp.exp(-2 * jnp.abs(gap))
        cos = jnp.sum(U[i] * U[j], axis=1)
        width = (1 - rho2) + jnp.sqrt(jnp.square(1 - rho2) + 4 * jnp.square(cos) * rho2)
        tau = jnp.where(width > 0, 2 * cos / jnp.where(width > 0, width, 1), 0)
        a, b = U[i] + (rho2 * tau)[:, None] * U[j], U[j] - tau[:, None] * U[i]
        shrink = -0.5 * jnp.log1p(rho2 * jnp.square(tau))
        for k, row in ((i, a), (j, b)):
            length = jnp.maximum(norm(row, 1), tiny)
            U = U.at[k].set(row / length[:, None])
            change = change.at[k].add(jnp.log(length) + shrink)
        return (s, change, U), None

    state = (s, jnp.zeros(m, U.dtype).at[:n].set(product.low), U)
    if n > 1:
        state, _ = lax.scan(rotate, state, jnp.tile(_tournament(m), (sweeps, 1, 1)))
    s, change, _ = state
    return -jnp.sort(-(s + change)[:n])


def _tournament(m):
    """`[m-1, 2, m/2]`: rounds in which everyone meets someone and, in the end, everyone (the circle method)."""
    others = np.arange(1, m)
    rounds = [np.append(0, np.roll(others, r)) for r in range(m - 1)]
    return np.stack([np.stack([r[: m // 2], r[m // 2 :][::-1]]) for r in rounds])
