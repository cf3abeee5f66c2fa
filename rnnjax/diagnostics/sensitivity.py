"""How much of h_t is left in h_T: the size of P_{t->T} = J_T ... J_{t+1} for every t, in log space."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import logsumexp

from rnnjax.diagnostics.jacobians import step_jacobians
from rnnjax.engine.steps import flatten, pull, push, trajectory
from rnnjax.initializers import one_by_one
from rnnjax.norms import scaled_norm
from rnnjax.types import Array, Carry, Cell, Params, prepared


class FrobeniusSensitivity(NamedTuple):
    """log(|P_{t->T}|_F / sqrt(n)): the root mean square gain of a perturbation of h_t, or of a gradient at h_T."""

    log_norm: Array  # [T + 1], t = 0 .. T; 0 at t = T
    log_gains: Array  # [T + 1, k], of each probe by itself: their spread says how far to trust the mean


class SpectralSensitivity(NamedTuple):
    """log |P_{t->T}|_2: the gain of the worst perturbation of h_t."""

    starts: Array  # [S], the t of each
    log_norm: Array  # [S], never above the true one but for rounding
    change: Array  # [S], by how much the last iteration raised it


class ExactSensitivity(NamedTuple):
    """Both norms without probes or iterations."""

    log_frobenius: Array  # [T + 1], log(|P_{t->T}|_F / sqrt(n)), t = 0 .. T
    log_spectral: Array  # [T + 1], log |P_{t->T}|_2


def frobenius_sensitivity(
    cell: Cell, params: Params, xs: Array, carry: Carry | None = None, *, key: Array, probes: int = 8
) -> FrobeniusSensitivity:
    """|P_{t->T}|_F / sqrt(n) for all t, by sending random orthonormal gradients back from h_T.

        |P|_F^2 / n = E |v P|^2,    v uniform on the unit sphere of R^n

    One backward scan carries all probes, each scaled to length 1 every step, so that T may be as long as one likes.
    With `probes` = n (the length of the flattened carry) the result is exact. Costs about one gradient for each
    probe; grows as T n^2.

    Args:
      xs: `[T, D]`, one sequence; `jax.vmap` gives a batch.
      carry: what stands before the first step, without batch.
      key: draws the probes.
      probes: k, at most n.

    An exact zero, such as the gradient of dead ReLUs, has log -inf. Raises ValueError for more probes than n.
    """
    cell, weights = prepared(cell, params)
    carries, zs = trajectory(cell, weights, xs, carry)
    h, _ = flatten(jax.tree.map(lambda a: a[0], carries))
    if not 1 <= probes <= h.size:
        raise ValueError(f"probes is {probes}; the carry has {h.size} numbers, so it must be 1 to {h.size}")
    V = one_by_one(lambda key: jax.random.orthogonal(key, h.size, dtype=h.dtype))(key)[:probes]

    def back(V, inputs):
        V, log = _unit(pull(cell, weights, *inputs, V))
        return V, log

    _, logs = lax.scan(back, V, (carries, zs), reverse=True)
    gains = _sums_from_the_end(logs)
    return FrobeniusSensitivity((logsumexp(2 * gains, axis=1) - jnp.log(probes)) / 2, gains)


def spectral_sensitivity(
    cell: Cell,
    params: Params,
    xs: Array,
    carry: Carry | None = None,
    *,
    key: Array,
    starts: Array | None = None,
    iterations: int = 20,
) -> SpectralSensitivity:
    """|P_{t->T}|_2 for t in `starts`, by power iteration: v <- P^T P v, scaled to length 1 every step.

    P v is one forward-mode pass, P^T u one reverse-mode pass, for all starts at once. Costs about as much as
    `iterations` gradients of a batch of S sequences; grows as S T n^2, so at every t as T^2 n^2: pass a few starts
    of a long sequence. Where the two largest singular values nearly agree it converges slowly, but then hardly errs.

    Args:
      xs: `[T, D]`, one sequence; `jax.vmap` gives a batch.
      carry: what stands before the first step, without batch.
      key: draws the first vectors.
      starts: integers `[S]` in 0 .. T - 1; all of them by default.
      iterations: of the power method.
    """
    cell, weights = prepared(cell, params)
    carries, zs = trajectory(cell, weights, xs, carry)
    h, _ = flatten(jax.tree.map(lambda a: a[0], carries))
    t = jnp.arange(xs.shape[0])
    starts = t if starts is None else jnp.asarray(starts)

    def since_start(t, new, log, old):
        inside = t >= starts
        return jnp.where(inside[:, None], new, old), jnp.where(inside, log, 0)

    def forth(V, inputs):
        t, carry, z = inputs
        return since_start(t, *_unit(push(cell, weights, carry, z, V)[1]), V)

    def back(V, inputs):
        t, carry, z = inputs
        return since_start(t, *_unit(pull(cell, weights, carry, z, V)), V)

    def iterate(V, _):
        V, logs = lax.scan(forth, V, (t, carries, zs))
        V, _ = lax.scan(back, V, (t, carries, zs), reverse=True)
        return V, logs.sum(0)

    V, _ = _unit(jax.random.normal(key, (starts.size, h.size), h.dtype))
    _, logs = lax.scan(iterate, V, length=iterations + 1)
    change = jnp.where(jnp.isfinite(logs[-1]), logs[-1] - logs[-2], 0)  # P = 0 stays 0
    return SpectralSensitivity(starts, logs[-1], change)


def exact_sensitivity(cell: Cell, params: Params, xs: Array, carry: Carry | None = None) -> ExactSensitivity:
    """Both norms of P_{t->T} for all t, from the product itself, for a small n.

    Costs n gradients, T products of n x n matrices and T singular value decompositions; grows as T n^3.

    Args:
      xs: `[T, D]`, one sequence; `jax.vmap` gives a batch.
      carry: what stands before the first step, without batch.
    """
    J = step_jacobians(cell, params, xs, carry)
    n = J.shape[-1]

    def back(P, J):
        P, log = _unit((P @ J).reshape(1, -1))
        P = P.reshape(n, n)
        return P, (log[0], jnp.linalg.svd(P, compute_uv=False)[0])

    identity = jnp.eye(n, dtype=J.dtype) / jnp.sqrt(n).astype(J.dtype)
    _, (logs, top) = lax.scan(back, identity, J, reverse=True)
    log_frobenius = _sums_from_the_end(logs)
    # `top` is relative to a product of unit Frobenius norm
    half_log_n = jnp.log(n) / 2
    return ExactSensitivity(log_frobenius, log_frobenius + jnp.append(jnp.log(top) + half_log_n, 0))


def _unit(V):
    """(the rows at length 1, the log of what their length was); a row of zeros stays one."""
    size, scale = scaled_norm(V, 1)
    length = jnp.where(size > 0, size, 1)
    return V * (1 / scale)[:, None] / length[:, None], jnp.log(size) + jnp.log(scale)


def _sums_from_the_end(logs):
    """`[T, ...]` -> `[T + 1, ...]`, zero at the end. A sum of all, not one by one, keeps float32's last digits."""
    total = lax.associative_scan(jnp.add, logs, reverse=True)
    return jnp.concatenate([total, jnp.zeros_like(logs[:1])])
