"""The constructor of every cell whose state is a matrix a head that is written to and read by keys."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from rnnjax.cells.gated import check_hidden_size
from rnnjax.types import Array, Carry, Cell, Memory, Params, Parts, Weights


def memory(
    init: Callable[[Array, int], Params],
    parts: Callable[[Weights, Array], Parts],
    shape: tuple[int, int, int],
    *,
    show: Callable[[Weights, Any, Array, Array | None], Array] | None = None,
    matrix: Callable[[Carry], tuple[Array, Array | None]] | None = None,
    carry: Callable[[Array, Array | None], Carry] | None = None,
    dtype: Any = float,
    **functions: Callable,
) -> Cell:
    """A cell from what a step does to its memory, as a function of the input.

        S_t = (Diag(a_t) + p_t q_t^T) S_{t-1} + k_t v_t^T,      o_t = S_t^T r_t,      for each of H heads

    What such a cell shows are the readings of its heads side by side, H V numbers, after the norm of each head where
    its paper has one. Output gates, projections back to the width of a network and convolutions over time stand around
    a cell, and are no part of it.

    Args:
      init: as in `Cell`.
      parts: `(weights, x) -> Parts`, for any leading dimensions: all that depends on the input, which is z.
      shape: (H, K, V) of S.
      show: what is made of a reading, see `Memory`; by default nothing.
      matrix, carry: how a carry of several parts is put together and taken apart; by default it is S itself.
      dtype: of S.
      functions: the other functions of the `Cell`, such as weights.
    """
    form = Memory(_z_itself, show or side_by_side, matrix or _alone, carry or _without_scale)

    def initial_carry(weights: Weights, batch_shape: tuple[int, ...]) -> Carry:
        return form.carry(jnp.zeros((*batch_shape, *shape), dtype), jnp.zeros((*batch_shape, shape[0])))

    def project(weights: Weights, x: Array, key: Array | None = None) -> Parts:
        return parts(weights, x)

    made: dict[str, Any] = of_memory(form) | functions
    return Cell(init, initial_carry, project=project, **made)


def of_memory(form: Memory) -> dict[str, Any]:
    """The functions of a `Cell` that a form says: step and output, and the form itself."""
    step, output = (functools.partial(function, form) for function in (step_of_memory, output_of_memory))
    return {"step": step, "output": output, "form": form}


def reads_its_memory(cell: Cell) -> bool:
    """Whether what a cell shows depends on its memory through a reading alone, as `Memory.show` has it."""
    output: Any = cell.output
    return getattr(output, "func", None) is output_of_memory and output.args[0] is cell.form


def step_of_memory(form: Memory, weights: Weights, carry: Carry, z: Any) -> Carry:
    """The step that the parts of a memory make."""
    parts, (S, m) = form.parts(weights, z), form.matrix(carry)
    if parts.log_b is not None:
        after = jnp.maximum(_one_number(parts.log_a, m) + m, parts.log_b)
        parts, m = rescaled(parts, m, after), after
    for write in writes_of(parts):
        S = _written(S, write)
    return form.carry(S, m)


def output_of_memory(form: Memory, weights: Weights, carry: Carry, z: Any) -> Array:
    """What is shown of a memory."""
    S, m = form.matrix(carry)
    return form.show(weights, z, jnp.einsum("...k,...kv->...v", form.parts(weights, z).r, S), m)


def rescaled(parts: Parts, before: Array, after: Array) -> Parts:
    """The parts for S exp(-m), without b: m `[..., H]` was `before` the step, and is `after` it."""
    assert parts.log_b is not None
    kept, new = (before - after)[..., None], jnp.exp(parts.log_b - after)[..., None]
    return parts._replace(
        log_a=kept if parts.log_a is None else parts.log_a + kept,
        k=parts.k * new,
        p=None if parts.p is None else parts.p * jnp.exp(kept),
        log_b=None,
    )


def writes_of(parts: Parts) -> Iterator[Parts]:
    """The parts of each write of a step, in order; r stays with all."""
    if parts.k.ndim == parts.r.ndim:
        yield parts
        return
    fields = {name: getattr(parts, name) for name in ("k", "v", "log_a", "p", "q")}
    for w in range(parts.k.shape[-3]):
        yield parts._replace(**{name: None if a is None else a[..., w, :, :] for name, a in fields.items()})


def _written(S, parts):
    new = parts.k[..., :, None] * parts.v[..., None, :]
    if parts.p is not None:
        new = new + parts.p[..., :, None] * jnp.einsum("...k,...kv->...v", parts.q, S)[..., None, :]
    return new + (S if parts.log_a is None else jnp.exp(parts.log_a)[..., None] * S)


def _one_number(log_a, m):
    return jnp.zeros_like(m) if log_a is None else log_a[..., 0]


def side_by_side(weights: Weights, z: Any, o: Array, m: Array | None) -> Array:
    """The readings of all heads in one vector, `[..., H, V]` -> `[..., H V]`."""
    return o.reshape(*o.shape[:-2], o.shape[-2] * o.shape[-1])


def in_heads(x: Array, H: int) -> Array:
    """`[..., H K]` -> `[..., H, K]`."""
    return x.reshape(*x.shape[:-1], H, -1) if x.size else x.reshape(*x.shape[:-1], H, x.shape[-1] // H)


def sizes(
    hidden_size: int, heads: int | None, key_size: int | None, of_value: float = 1.0, multiple: int = 1
) -> tuple[int, int, int]:
    """(H, K, V) of a cell whose heads show `hidden_size` numbers.

    By default there are 4 heads, or less where 4 does not divide the hidden size or leaves them less than 4 numbers,
    and K is `of_value` V, a multiple of `multiple`.

    Raises ValueError for sizes that cannot be.
    """
    check_hidden_size(hidden_size)
    if heads is None:
        heads = next(n for n in (4, 3, 2, 1) if n == 1 or (hidden_size % n == 0 and hidden_size >= 4 * n))
    if heads < 1 or hidden_size % heads:
        raise ValueError(f"heads is {heads}; allowed: what divides the hidden size, {hidden_size}")
    V = hidden_size // heads
    K = multiple * max(1, round(of_value * V / multiple)) if key_size is None else key_size
    if K < 1 or K % multiple:
        raise ValueError(f"key_size is {K}; allowed: {multiple}, {2 * multiple}, ...")
    return heads, K, V


def unit(x: Array) -> Array:
    """x / |x| over the last dimension; 0 where x is, whose derivative is 0 there, too."""
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    zero = square < 1e-24
    return jnp.where(zero, 0, x * jax.lax.rsqrt(jnp.where(zero, 1, square)))


def rms_norm(o: Array, eps: float = 1e-5) -> Array:
    """Each head's reading `[..., H, V]` divided by the root of its mean square."""
    return o * jax.lax.rsqrt(jnp.mean(o * o, axis=-1, keepdims=True) + eps)


def layer_norm(o: Array, eps: float = 1e-5) -> Array:
    """Each head's reading less its mean, divided by its standard deviation."""
    return rms_norm(o - jnp.mean(o, axis=-1, keepdims=True), eps)


def _z_itself(weights: Weights, z: Parts) -> Parts:
    return z


def _alone(carry: Carry) -> tuple[Array, None]:
    return carry, None


def _without_scale(S: Array, m: Array | None) -> Carry:
    return S
