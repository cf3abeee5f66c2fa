"""How small changes of a trajectory travel along it: d_t = J_t d_{t-1} + b_t, J_t = dh_t/dh_{t-1}, and the transpose.

Step by step it takes one derivative of a step each. All at once the matrices J_t `[T, ..., n, n]` are made first, by n
derivatives of all steps, and combined in pairs, pairs of pairs, and so on.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rnnjax.engine.varying import all_varying
from rnnjax.types import Array


class Path(NamedTuple):
    """A trajectory, and the steps that lead along it."""

    step: Callable[[Array, Any], Array]  # (h_{t-1} [..., n], what step t takes) -> h_t
    before: Array  # [T, ..., n], the state before each step
    at: Any  # what each step takes, with a leading T
    parts: int  # the numbers of a unit: h is [parts, H] laid flat

    def along(self) -> Callable[[Array], Array]:
        """`d [T, ..., n] -> J_t d_t` of every step by itself."""
        return jax.linearize(lambda h: jax.vmap(self.step)(h, self.at), self.before)[1]


def travel(path: Path, b: Array, reverse: bool = False) -> Array:
    """d_t = J_t d_{t-1} + b_t from d_0 = 0; in reverse, g_t = J_{t+1}^T g_{t+1} + b_t.

    Step by step in a program lowered for a CPU, all steps at once elsewhere.
    """
    cpu, default = (functools.partial(way, path, reverse=reverse) for way in (step_by_step, at_once))
    return lax.platform_dependent(b, cpu=cpu, default=default)


def travel_by_units(path: Path, b: Array, reverse: bool = False) -> Array:
    """The same with what each unit makes of itself alone: a block of J_t `[parts, parts]` a unit.

    Step by step in a program lowered for a CPU, all steps at once elsewhere.
    """
    A, shape = blocks(path), (*b.shape[:-1], path.parts, -1)
    A = before_it(jnp.swapaxes(A, -1, -2), reverse=True) if reverse else A
    cpu, default = (functools.partial(way, product=_small_product, reverse=reverse) for way in (_one_by_one, _in_pairs))
    d = lax.platform_dependent(A, jnp.swapaxes(b.reshape(shape), -1, -2), cpu=cpu, default=default)
    return jnp.swapaxes(d, -1, -2).reshape(b.shape)


def step_by_step(path: Path, b: Array, reverse: bool) -> Array:
    """`travel` by a scan."""

    def forwards(d, inputs):
        h, at, b = inputs
        d = jax.jvp(lambda h: path.step(h, at), (h,), (d,))[1] + b
        return d, d

    def backwards(pulled, inputs):
        h, at, b = inputs
        g = pulled + b
        return jax.vjp(lambda h: path.step(h, at), h)[1](g)[0], g

    body = backwards if reverse else forwards
    start = all_varying(jnp.zeros_like(b[0]), path.before, b)[0]
    return lax.scan(body, start, (path.before, path.at, b), reverse=reverse)[1]


def at_once(path: Path, b: Array, reverse: bool) -> Array:
    """`travel` by an associative scan of matrices."""
    columns = jax.vmap(_column(path))(jnp.arange(b.shape[-1]))
    J = jnp.moveaxis(columns, 0, -2 if reverse else -1)  # transposed in reverse
    return _in_pairs(before_it(J, reverse=True) if reverse else J, b, _product, reverse)


def blocks(path: Path) -> Array:
    """`[T, ..., H, parts, parts]`, dh_t,i / dh_{t-1},j of the parts i and j of one unit.

    One derivative a number of the state, one after the other: no more memory than a few states'.
    """
    n, column = path.before.shape[-1], _column(path)
    units = n // path.parts

    def own(i):
        found = column(i)
        return jnp.take(found.reshape(*found.shape[:-1], path.parts, units), i % units, axis=-1)

    found = lax.map(own, jnp.arange(n)).reshape(path.parts, units, *path.before.shape[:-1], path.parts)
    return jnp.moveaxis(found, (0, 1), (-1, -3))


def _in_pairs(A, b, product, reverse):
    def then(earlier, later):
        (A, b), (C, d) = earlier, later
        return product(C, A), product(C, b[..., None])[..., 0] + d

    return lax.associative_scan(then, (A, b), reverse=reverse)[1]


def _one_by_one(A, b, product, reverse):
    def body(d, inputs):
        A, b = inputs
        d = product(A, d[..., None])[..., 0] + b
        return d, d

    return lax.scan(body, jnp.zeros_like(b[0]), (A, b), reverse=reverse)[1]


def _small_product(A, B):
    """A B of few rows and columns, without the call of a matrix product."""
    return jnp.sum(A[..., :, :, None] * B[..., None, :, :], axis=-2)


def _product(A, B):
    return jnp.matmul(A, B, precision=lax.Precision.HIGHEST)


def _column(path):
    """`i -> dh_t / dh_{t-1},i [T, ..., n]` of every step."""
    along, n = path.along(), path.before.shape[-1]

    def column(i):
        e = jnp.broadcast_to(jax.nn.one_hot(i, n, dtype=path.before.dtype), path.before.shape)
        return along(all_varying(e, path.before)[0])

    return column


def before_it(d: Array, reverse: bool = False) -> Array:
    """d of the step before each one, zero at the first; in reverse, of the step after it, zero at the last."""
    zero = jnp.zeros_like(d[:1])
    return jnp.concatenate([d[1:], zero] if reverse else [zero, d[:-1]])
