"""Step Jacobians of any cell, and the singular values of their long products in log space."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import lax

from rnnjax.diagnostics import scaled_product
from rnnjax.engine.steps import flatten, push, start, trajectory
from rnnjax.types import Array, Carry, Cell, Params, prepared


class JacobianStatistics(NamedTuple):
    """How a step stretches perturbations. An isometry has `mean_square` 1 and `variance_square` 0."""

    singular_values: Array  # [..., n], largest first
    mean_square: Array  # [...], mean of sigma^2 = |J|_F^2 / n
    variance_square: Array  # [...], variance of sigma^2 over the n of them
    condition: Array  # [...], sigma_max / sigma_min


class ProductSpectrum(NamedTuple):
    """The singular values of P_{0->t}, in log space."""

    steps: Array  # [S], the t of each row
    log_singular_values: Array  # [S, n], natural log, largest first
    log_condition: Array  # [S], log(sigma_max / sigma_min)


def step_jacobians(cell: Cell, params: Params, xs: Array, carry: Carry | None = None) -> Array:
    """J_t = dh_t/dh_{t-1} `[T, n, n]` along the trajectory driven by `xs`, in one batched call.

    h is the carry of one sequence as a vector `[n]` (see `flatten`); row i of J_t is the gradient of unit i of h_t.
    `jax.vmap` gives a batch. Costs n forward derivatives of a step at each t, about n/3 gradients of the sequence,
    and memory T n^2; `product_spectrum` needs no such memory.

    Args:
      xs: `[T, D]`, one sequence.
      carry: what stands before the first step, without batch; that of the cell by default.
    """
    cell, weights = prepared(cell, params)
    carries, zs = trajectory(cell, weights, xs, carry)

    def one(carry, z):
        h, _ = flatten(carry)
        return push(cell, weights, carry, z, jnp.eye(h.size, dtype=h.dtype))[1].T

    return jax.vmap(one)(carries, zs)


def jacobian_statistics(J: Array) -> JacobianStatistics:
    """Singular values, isometry and condition number of each matrix of J `[..., n, n]`.

    Dynamical isometry, all singular values near 1, is what lets a gradient pass unchanged (Saxe et al. 2014; Pennington
    et al. 2017; for recurrent nets Chen, Pennington & Schoenholz 2018, arXiv:1806.05394). Costs n^3 a matrix.
    """
    sigma = jnp.linalg.svd(J, compute_uv=False)
    square = jnp.square(sigma)
    return JacobianStatistics(sigma, square.mean(-1), square.var(-1), sigma[..., 0] / sigma[..., -1])


def eigenvalue_moduli(J: Array) -> Array:
    """|lambda| `[..., n]`, largest first, of each matrix of J `[..., n, n]`.

    The eigenvalues of a general matrix are a LAPACK routine: run it on the CPU. Costs n^3 a matrix.
    """
    return -jnp.sort(-jnp.abs(jnp.linalg.eigvals(J)), axis=-1)


def product_spectrum(
    cell: Cell, params: Params, xs: Array, carry: Carry | None = None, *, every: int | None = None, interval: int = 1
) -> ProductSpectrum:
    """log singular values of P_{0->t} = J_t ... J_1, at t = every, 2 every, ..., T.

        J_t Q_{t-1} = Q_t R_t,      P_{0->t} = Q_t R_t ... R_1 = Q_t diag(e^s) U

    The growth stands in s alone, so that nothing under- or overflows at any T, and the singular values of diag(e^s) U
    are found in log space, where the diagonal of R alone would give only their rates (see `scaled_product`).

    The Jacobians are made and used inside the scan, so memory does not grow with T. Costs n forward derivatives and,
    every `interval` steps, n^3: grows as T n^3, against T n^2 of a gradient. A sigma that is exactly zero shows
    as a finite, very negative log; one that is zero up to rounding is known to be small, and no more.

    Args:
      xs: `[T, D]`, one sequence.
      carry: what stands before the first step, without batch.
      every: a divisor of T; T itself by default, the spectrum of the whole product alone.
      interval: steps between two QRs, a divisor of `every`. The product over one interval must not exhaust the
        dtype's precision; within that, more is cheaper, and rounds less often.

    Raises ValueError where the divisors do not divide.
    """
    cell, weights = prepared(cell, params)
    carry, zs = start(cell, weights, xs, carry)
    h, _ = flatten(carry)

    def advance(carry, z, V):
        return push(cell, weights, carry, z, V)

    return _spectra(advance, carry, zs, xs.shape[0], h, every, interval)


def product_spectrum_of(J: Array, *, every: int | None = None, interval: int = 1) -> ProductSpectrum:
    """`product_spectrum` of Jacobians `[T, n, n]` that are there already."""
    chex.assert_rank(J, 3)
    return _spectra(lambda _, J, V: (None, V @ J.T), None, J, J.shape[0], J[0, 0], every, interval)


def _spectra(advance, carry, inputs, T, h, every, interval):
    every = T if every is None else every
    if T % every or every % interval:
        raise ValueError(f"every ({every}) must divide T ({T}), and interval ({interval}) must divide every")
    product = scaled_product.identity(h.size, h.dtype)

    def step(state, input):
        return advance(state[0], input, state[1]), None

    def stretch(state, inputs):
        carry, product = state
        (carry, W), _ = lax.scan(step, (carry, product.Q.T), inputs)
        return (carry, scaled_product.extend(product, W.T)), None

    def mark(state, inputs):
        state, _ = lax.scan(stretch, state, inputs)
        return state, scaled_product.log_singular_values(state[1])

    shape = (T // every, every // interval, interval)
    inputs = jax.tree.map(lambda a: a.reshape(*shape, *a.shape[1:]), inputs)
    _, log_sigma = lax.scan(mark, (carry, product), inputs)
    return ProductSpectrum(every * jnp.arange(1, T // every + 1), log_sigma, log_sigma[:, 0] - log_sigma[:, -1])
