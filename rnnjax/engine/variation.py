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

from rnnjax.engine.linear import as_the_platform_likes
from rnnjax.engine.varying import all_varying
from rnnjax.types import Array

product = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)


class Path(NamedTuple):
    """A trajectory, and the steps that lead along it."""

    step: Callable[[Array, Any], Array]  # (h_{t-1} [..., n], what step t takes) -> h_t
    before: Array  # [T, ..., n], the state before each step
    at: Any  # what each step takes, with a leading T

    def along(self) -> Callable[[Array], Array]:
        """`d [T, ..., n] -> J_t d_t` of every step by itself."""
        return jax.linearize(lambda h: jax.vmap(self.step)(h, self.at), self.before)[1]


def travel(path: Path, b: Array, reverse: bool = False) -> Array:
    """d_t = J_t d_{t-1} + b_t from d_0 = 0; in reverse, g_t = J_{t+1}^T g_{t+1} + b_t.

    Step by step in a program lowered for a CPU, all steps at once elsewhere.
    """
    cpu, default = (functools.partial(way, path, reverse=reverse) for way in (step_by_step, at_once))
    return lax.platform_dependent(b, cpu=cpu, default=default)


def travel_diagonally(path: Path, b: Array, reverse: bool = False) -> Array:
    """The same with the diagonals of J_t alone."""
    a = diagonals(path)
    return as_the_platform_likes(before_it(a, reverse=True) if reverse else a, b, reverse=reverse)


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
    J = before_it(J, reverse=True) if reverse else J

    def then(earlier, later):
        (A, b), (C, d) = earlier, later
        return product(C, A), product(C, b[..., None])[..., 0] + d

    return lax.associative_scan(then, (J, b), reverse=reverse)[1]


def diagonals(path: Path) -> Array:
    """dh_t,i / dh_{t-1},i `[T, ..., n]`, one derivative a unit, one after the other: no more memory than a state's."""
    column = _column(path)
    found = lax.map(lambda i: jnp.take(column(i), i, axis=-1), jnp.arange(path.before.shape[-1]))
    return jnp.moveaxis(found, 0, -1)


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
