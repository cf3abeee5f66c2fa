"""Lyapunov exponents of a driven recurrent network."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rnnjax.engine.steps import flatten, push, start
from rnnjax.initializers import one_by_one
from rnnjax.keys import Purpose, purpose_key
from rnnjax.types import Array, Carry, Cell, Params, prepared


class LyapunovSpectrum(NamedTuple):
    """Rates at which perturbations grow, natural log per step. Positive: gradients explode and the net is chaotic."""

    exponents: Array  # [k], largest first
    standard_error: Array  # [k], by batch means
    kaplan_yorke: Array  # [], dimension of the attractor; with k < n a lower bound of it where it reaches k
    sum: Array  # [], growth rate of a k-volume; with k = n that of phase space, mean log|det J|


def lyapunov_spectrum(
    cell: Cell,
    params: Params,
    xs: Array,
    carry: Carry | None = None,
    *,
    k: int | None = None,
    transient: int = 0,
    interval: int = 1,
    batches: int = 10,
    key: Array | None = None,
) -> LyapunovSpectrum:
    """The k largest Lyapunov exponents along the trajectory driven by `xs`.

        J_t ... J_{t-interval+1} Q_{t-interval} = Q_t R_t,      lambda_i = < log |R_t,ii| > / interval

    Benettin et al. (1980); for recurrent networks Engelken, Wolf & Abbott (2023, arXiv:2006.02427) and Vogt et al.
    (2022). The frame Q is started at random and turns with the trajectory during the transient, too. Costs k forward
    derivatives a step, about k/3 gradients, and n k^2 every `interval` steps; grows as T k n^2.

    Args:
      xs: `[T, D]`, one sequence; `jax.vmap` gives a batch.
      carry: what stands before the first step, without batch.
      k: how many exponents; all n by default.
      transient: steps left out of the mean, rounded up so that whole intervals remain.
      interval: steps between two re-orthonormalisations. 1 is always right; more is cheaper, while R stays well
        conditioned.
      batches: pieces of time whose means give the standard error; the steps that do not fill one join the transient.
        Each must last longer than the trajectory's memory.
      key: draws the first frame; a fixed one by default.

    Raises ValueError where k is not in 1 .. n, or fewer than `batches` intervals are left.
    """
    cell, weights = prepared(cell, params)
    carry, zs = start(cell, weights, xs, carry)
    h, _ = flatten(carry)
    k = h.size if k is None else k
    T = xs.shape[0]
    count = (T - transient) // interval // batches * batches
    if not 1 <= k <= h.size:
        raise ValueError(f"k is {k}; the carry has {h.size} numbers, so it must be 1 to {h.size}")
    if batches < 2 or count <= 0:
        raise ValueError(f"{T - transient} steps after the transient are no {batches} batches of {interval} or more")

    def step(state, z):
        carry, V = state
        return push(cell, weights, carry, z, V), None

    def stretch(state, zs):
        (carry, V), _ = lax.scan(step, state, zs)
        Q, R = jnp.linalg.qr(V.T)
        growth = jnp.maximum(jnp.abs(jnp.diagonal(R)), jnp.finfo(R.dtype).tiny)
        return (carry, Q.T), jnp.log(growth)

    key = purpose_key(Purpose.PROBES) if key is None else key
    V = one_by_one(lambda key: jax.random.orthogonal(key, h.size, dtype=h.dtype))(key)[:k]
    lead = T % interval
    state, _ = stretch((carry, V), jax.tree.map(lambda z: z[:lead], zs))
    blocks = jax.tree.map(lambda z: z[lead:].reshape(T // interval, interval, *z.shape[1:]), zs)
    _, growth = lax.scan(stretch, state, blocks)

    means = growth[-count:].reshape(batches, -1, k).mean(1) / interval
    exponents = means.mean(0)
    order = jnp.argsort(-exponents)  # uncoupled units keep the order in which the frame met them
    exponents, error = exponents[order], means.std(0, ddof=1)[order] / batches**0.5
    return LyapunovSpectrum(exponents, error, kaplan_yorke_dimension(exponents), exponents.sum())


def kaplan_yorke_dimension(exponents: Array) -> Array:
    """j + (lambda_1 + ... + lambda_j) / |lambda_{j+1}|, j the most exponents whose sum is not negative.

    Kaplan & Yorke (1979). `exponents` `[k]` are sorted, largest first. 0 where the first is negative, k if no sum is.
    """
    sums = jnp.append(0.0, jnp.cumsum(exponents))
    j = jnp.sum(jnp.cumprod(sums[1:] >= 0))
    beyond = jnp.append(exponents, -jnp.inf)[j]
    return j + sums[j] / jnp.abs(beyond)
