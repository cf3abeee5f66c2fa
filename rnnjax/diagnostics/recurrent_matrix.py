"""What a recurrent matrix does by itself: its spectrum, its distance from normal and orthogonal, its memory."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import lax

from rnnjax.norms import norm, scaled_norm
from rnnjax.types import Array


class RecurrentMatrix(NamedTuple):
    """Each `[...]` as the matrices were stacked. An orthogonal matrix has radius 1, singular values 1 and two zeros."""

    eigenvalues: Array  # [..., H], complex, largest modulus first
    spectral_radius: Array  # [...], max |lambda|
    singular_values: Array  # [..., H], largest first
    departure_from_normality: Array  # [...], sqrt(|W|_F^2 - sum |lambda|^2)
    orthogonality_error: Array  # [...], |W^T W - I|_F


class FisherMemory(NamedTuple):
    """How much a noisy linear network's state tells of an input of k steps ago."""

    curve: Array  # [k], J(0) .. J(k - 1)
    total: Array  # [], the sum over all lags: 1 / noise for a normal W and unit v, up to H times that otherwise


def gate_blocks(W_h: Array) -> Array:
    """`[H, G H]` -> `[G, H, H]`, one matrix a gate, in the order of `cell.form.of_state`."""
    H, columns = W_h.shape
    if columns % H:
        raise ValueError(f"W_h has shape {W_h.shape}; it must be [H, G H]")
    return jnp.moveaxis(W_h.reshape(H, columns // H, H), 1, 0)


def recurrent_matrix(W: Array) -> RecurrentMatrix:
    """Spectral measures of each matrix of W `[..., H, H]`, such as `gate_blocks(params["W_h"])`.

    The departure from normality is Henrici's (1962), the Frobenius norm of the strictly upper part of the Schur form:
    where it is large, powers of W grow before they decay, whatever the spectral radius. It is a root of a
    difference, good to sqrt(eps) |W|_F. The eigenvalues need a CPU. Costs H^3, and no gradient.
    """
    chex.assert_equal(*W.shape[-2:])
    eigenvalues = jnp.linalg.eigvals(W)
    order = jnp.argsort(-jnp.abs(eigenvalues), axis=-1)
    eigenvalues = jnp.take_along_axis(eigenvalues, order, axis=-1)
    moduli = jnp.abs(eigenvalues)
    size, scale = scaled_norm(W, W.ndim - 2)
    excess = jnp.square(size) - jnp.sum(jnp.square(moduli / scale[..., None]), axis=-1)
    gram = jnp.swapaxes(W, -2, -1) @ W - jnp.eye(W.shape[-1], dtype=W.dtype)
    return RecurrentMatrix(
        eigenvalues=eigenvalues,
        spectral_radius=moduli[..., 0],
        singular_values=jnp.linalg.svd(W, compute_uv=False),
        departure_from_normality=scale * jnp.sqrt(jnp.maximum(excess, 0)),
        orthogonality_error=norm(gram, W.ndim - 2),
    )


def fisher_memory(W: Array, v: Array, lags: int, noise: float | Array = 1.0) -> FisherMemory:
    """The Fisher memory curve of h_t = h_{t-1} W + v s_t + noise of variance `noise` in each unit.

        J(k) = v W^k C^{-1} (v W^k)^T,      C = noise sum_j (W^j)^T W^j

    Ganguli, Huh & Sompolinsky (2008), Memory traces in dynamical systems. It is the signal-to-noise ratio of the input
    of k steps ago in the state. Costs some twenty products of H x H matrices and `lags` of a vector; grows as
    H^3 + lags H^2.

    Args:
      W: `[H, H]` of spectral radius below 1; NaN otherwise, where the noise adds up without end. A radius within H eps
        of 1 counts as 1: on which side of it W lies, its rounding decides.
      v: `[H]`, how the input enters, such as a row of W_x.
      lags: how many J(k).
      noise: variance of the white noise.
    """
    chex.assert_shape(W, (v.size, v.size))
    C = noise * _sum_of_powers(W, jnp.eye(v.size, dtype=W.dtype))
    information = jnp.linalg.inv(C)
    total = v @ _sum_of_powers(W.T, information) @ v

    def lag(u, _):
        return u @ W, u @ information @ u

    _, curve = lax.scan(lag, v, length=lags)
    finite = _log_spectral_radius(W) < -v.size * jnp.finfo(C.dtype).eps
    return jax.tree.map(lambda a: jnp.where(finite, a, jnp.nan), FisherMemory(curve, total))


def _sum_of_powers(W, M, doublings=30):
    """sum_j (W^j)^T M W^j, by doubling the number of terms."""

    def double(_, state):
        total, W = state
        return total + W.T @ total @ W, W @ W

    return lax.fori_loop(0, doublings, double, (M, W))[0]


def _log_spectral_radius(W, doublings=30):
    """log |W^m|_F / m at m = 2^doublings (Gelfand 1941), by squaring; the errors of late squarings count 1/m."""

    def double(k, state):
        rate, W = state
        W = W @ W
        size = norm(W)
        return rate + jnp.log(size) / 2.0 ** (k + 1), W / jnp.where(size > 0, size, 1)

    size = norm(W)
    return lax.fori_loop(0, doublings, double, (jnp.log(size), W / jnp.where(size > 0, size, 1)))[0]
