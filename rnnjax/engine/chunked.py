"""The runner of a memory: within a chunk of steps by products of matrices, from chunk to chunk by a scan.

Write u_t = S_{t-1}^T q_t. Then a step adds two products, S_t = Diag(a_t) S_{t-1} + p_t u_t^T + k_t v_t^T, and

    S_t = D(0, t) S_0 + sum over s <= t of D(s, t) (p_s u_s^T + k_s v_s^T),       D(s, t) = a_{s+1} ... a_t

so that the u of a chunk solve (1 - A) u = (q D) S_0 + B v with A_ts = q_t D(s, t-1) p_s and B_ts = q_t D(s, t-1) k_s
for s < t: a triangular system, after which readings and the last S are products. For the delta rule this is the WY form
of Yang et al. (2024, arXiv:2406.06484). D is the exponential of a difference of cumulated logarithms, never a quotient.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rnnjax.cells.check import as_carry
from rnnjax.cells.memory import reads_its_memory, rescaled
from rnnjax.engine.hooks import where
from rnnjax.engine.scan import scan
from rnnjax.types import Array, Carry, Cell, Memory, Parts, Weights

ROWS = 64  # writes of a chunk by default
DELTA_ROWS = 32  # of one with p and q, whose system of equations costs the more digits the larger it is
SMALL = 4  # rows of a block that is made of all its exponentials
LONG = 64  # steps from which "auto" takes chunks
NOTHING = -1e30  # the logarithm of a strength of which nothing is left, finite so that it can be subtracted from


def chunked(
    cell: Cell,
    weights: Weights,
    carry: Carry,
    xs: Array,
    mask: Array | None,
    taps: Carry | None,
    probe: Carry | None,
    chunk: int | None = None,
) -> tuple[Carry, Array]:
    """As `scan` in values and gradients, `chunk` steps at once; the state of a chunk's start alone is stored.

    By default as many steps as write `ROWS` times, or `DELTA_ROWS` times where a row is changed by another.

    Taps and a probe ask for the gradient by every state, and so does a cell that shows more of its memory than a
    reading: these are scanned.
    """
    if taps is not None or probe is not None or not reads_its_memory(cell):
        return scan(cell, weights, carry, xs, mask, taps, probe)
    assert isinstance(cell.form, Memory)
    form, zs = cell.form, cell.project(weights, xs)
    parts, (S, m) = _masked(form.parts(weights, zs), mask), form.matrix(carry)
    start, ms = (None, None), None
    if parts.fresh is not None:
        batch_shape = parts.fresh.shape[1:]
        start = form.matrix(as_carry(cell.initial_carry(weights, batch_shape), carry, "initial_carry"))
    if m is not None:
        parts, ms = _rescaled(parts, m, start[1])
    S, o = _run(parts, S, start[0], chunk or default_chunk(parts))
    last = form.carry(S, None if ms is None else ms[-1])
    return as_carry(last, carry), form.show(weights, zs, o, ms)


def chunked_of(option: str) -> Callable:
    """The runner with chunks of `option` steps. Raises ValueError for what is no such number."""
    if not option.isdecimal() or int(option) < 1:
        raise ValueError(f"method 'chunked:{option}': the steps of a chunk are {option!r}; allowed: 1, 2, ...")
    return functools.partial(chunked, chunk=int(option))


def by_length(
    cell: Cell, weights: Weights, carry: Carry, xs: Array, mask: Array | None, taps: Carry | None, probe: Carry | None
) -> tuple[Carry, Array]:
    """As `scan` in values and gradients: in chunks where there are `LONG` steps or more, step by step elsewhere."""
    run = chunked if jax.tree.leaves(xs)[0].shape[0] >= LONG else scan
    return run(cell, weights, carry, xs, mask, taps, probe)


def default_chunk(parts: Parts) -> int:
    """The steps of a chunk where none are asked for."""
    writes = parts.k.shape[-3] if parts.k.ndim > parts.r.ndim else 1
    return max(1, (ROWS if parts.p is None else DELTA_ROWS) // writes)


def _masked(parts: Parts, mask: Array | None) -> Parts:
    """Parts that leave a memory as it is where the mask `[T, ...]` is not set."""
    if mask is None:
        return parts
    still = {"k": 0, "log_a": 0, "p": 0, "log_b": NOTHING, "fresh": False}
    fields = {name: (getattr(parts, name), value) for name, value in still.items()}
    return parts._replace(**{name: None if a is None else where(mask, a, value) for name, (a, value) in fields.items()})


def _rescaled(parts: Parts, m: Array, start: Array | None) -> tuple[Parts, Array]:
    """(the parts for S exp(-m), m after every step): m is a recurrence of the gates alone, made for all steps."""
    assert parts.log_b is not None
    b = jnp.asarray(parts.log_b)
    a = jnp.zeros_like(b) if parts.log_a is None else parts.log_a[..., 0]
    fresh = None if parts.fresh is None else parts.fresh[..., None]
    own = a if fresh is None else jnp.where(fresh, NOTHING, a)  # of what is before a new start nothing is left
    b = b if fresh is None else jnp.where(fresh, jnp.maximum(b, a + start), b)
    b = b.at[0].set(jnp.maximum(b[0], own[0] + m))

    def then(earlier, later):
        (a1, b1), (a2, b2) = earlier, later
        return a1 + a2, jnp.maximum(a2 + b1, b2)

    after = lax.associative_scan(then, (own, b))[1]
    before = jnp.concatenate([m[None].astype(after.dtype), after[:-1]])
    before = before if fresh is None else jnp.where(fresh, start, before)
    return rescaled(parts, before, after), after


def _run(parts: Parts, S: Array, start: Array | None, chunk: int) -> tuple[Array, Array]:
    """(the last S, the readings o `[T, ..., H, V]`)."""
    T = parts.r.shape[0]
    C = min(chunk, T)
    N = -(-T // C)

    def cut(a):  # a step of zeros does nothing
        return jnp.pad(a, [(0, N * C - T)] + [(0, 0)] * (a.ndim - 1)).reshape(N, C, *a.shape[1:])

    through = jax.checkpoint(functools.partial(_through, start), prevent_cse=False)
    S, o = lax.scan(through, S, jax.tree.map(cut, parts))
    return S, o.reshape(N * C, *o.shape[2:])[:T]


class _Rows(NamedTuple):
    """The R writes of a chunk's C steps as rows, heads before them."""

    r: Array  # [..., H, C, K]
    k: Array  # [..., H, R, K]
    v: Array  # [..., H, R, V]
    p: Array | None
    q: Array | None
    g: Array  # [..., H, R, K or 1], the logarithms of what is kept, summed up to and with each row
    before: Array  # the same without that row's own
    starts: Array | None  # [..., 1, R], how often the memory has started anew in this chunk
    since: Array | int  # `before` of the row at which it last did; 0 where it has not


def _through(start: Array | None, S: Array, parts: Parts) -> tuple[Array, Array]:
    """(S after a chunk, the readings of its steps `[C, ..., H, V]`)."""
    dtype = jnp.promote_types(S.dtype, jnp.float32)
    rows = _rows(jax.tree.map(lambda a: a if a.dtype == bool else a.astype(dtype), parts))
    r, k, v, p, q, g, before, starts, _ = rows
    R, W = k.shape[-2], k.shape[-2] // r.shape[-2]
    earlier = jnp.tri(R, k=-1, dtype=bool)
    if starts is not None:
        earlier = earlier & (starts[..., :, None] == starts[..., None, :])
    read = slice(W - 1, None, W)  # the row after which a step is read
    until = (earlier | jnp.eye(R, dtype=bool))[..., read, :]
    states = S.astype(dtype), None if start is None else start.astype(dtype)

    o = _of_start(states, r, g[..., read, :], rows, read) + _products(r, g[..., read, :], k, g, until) @ v
    left = jnp.exp(g[..., -1:, :] - g)  # of a row at the end
    if starts is not None:
        left = left * (starts == starts[..., -1:])[..., None]
    new = jnp.swapaxes(k * left, -1, -2) @ v
    if p is not None:
        u = _of_start(states, q, before, rows, slice(None)) + _products(q, before, k, g, earlier, strict=True) @ v
        system = jnp.eye(R, dtype=dtype) - _products(q, before, p, g, earlier, strict=True)
        u = lax.linalg.triangular_solve(system, u, left_side=True, lower=True, unit_diagonal=True)
        o = o + _products(r, g[..., read, :], p, g, until) @ u
        new = new + jnp.swapaxes(p * left, -1, -2) @ u
    end = slice(-1, None)
    kept = jnp.swapaxes(jnp.exp(g[..., end, :] - _at(rows.since, end)), -1, -2)
    old = states[0] if starts is None else jnp.where((starts[..., -1] == 0)[..., None, None], *states)
    return (kept * old + new).astype(S.dtype), jnp.moveaxis(o, -2, 0).astype(S.dtype)


def _rows(parts: Parts) -> _Rows:
    """Time first -> heads first. Where nothing is forgotten, the logarithm of what is kept is 0."""
    several = parts.k.ndim > parts.r.ndim

    def row(a):  # [C, ..., W, H, K] -> [..., H, C W, K]
        if a is None:
            return None
        a = jnp.moveaxis(a if several else a[..., None, :, :], (0, -3), (-3, -2))
        return a.reshape(*a.shape[:-3], a.shape[-3] * a.shape[-2], a.shape[-1])

    k, v, p, q = map(row, (parts.k, parts.v, parts.p, parts.q))
    log_a = jnp.zeros_like(k[..., :1]) if parts.log_a is None else row(parts.log_a)
    g = jnp.cumsum(log_a, axis=-2)
    before = jnp.concatenate([jnp.zeros_like(g[..., :1, :]), g[..., :-1, :]], axis=-2)
    starts, since = None, 0
    if parts.fresh is not None:
        W = k.shape[-2] // parts.r.shape[0]
        fresh = jnp.moveaxis(parts.fresh, 0, -1)[..., None, :, None]  # a step starts anew before its first write
        fresh = (fresh & (jnp.arange(W) == 0)).reshape(*fresh.shape[:-2], -1)
        starts = jnp.cumsum(fresh, axis=-1)
        at = lax.cummax(jnp.where(fresh, jnp.arange(k.shape[-2]), 0), axis=fresh.ndim - 1)
        since = jnp.where(starts[..., None] > 0, jnp.take_along_axis(before, at[..., None], axis=-2), 0)
    return _Rows(jnp.moveaxis(parts.r, 0, -2), k, v, p, q, g, before, starts, since)


def _of_start(states: tuple[Array, Array | None], x: Array, g: Array, rows: _Rows, at: slice) -> Array:
    """What x `[..., H, R, K]` reads, after the decays g, of the S before the chunk, or of the start that came since."""
    x = x * jnp.exp(g - _at(rows.since, at))
    if rows.starts is None:
        return x @ states[0]
    return jnp.where((rows.starts[..., at] == 0)[..., None], x @ states[0], x @ states[1])


def _products(x: Array, gx: Array, y: Array, gy: Array, seen: Array, strict: bool = False) -> Array:
    """sum over k of x_ik y_jk exp(gx_ik - gy_jk) `[..., H, I, J]`, and 0 where i does not see j.

    Nothing is seen above the diagonal, nor on it where `strict`. Where each k fades at a rate of its own, small blocks
    at the diagonal are made of all their exponentials. Then two neighbours and what the second sees of the first are
    one block, and so on: what fades between i and j is cut at the border, so that neither part grows.
    """
    if gx.shape[-1] == 1:
        kept = jnp.exp(jnp.where(seen, gx - jnp.swapaxes(gy, -1, -2), 0))
        return jnp.where(seen, kept, 0) * (x @ jnp.swapaxes(y, -1, -2))
    rows = size = y.shape[-2]
    if x.shape[-2] < rows:  # several writes a step
        return _all_pairs(x, gx, y, gy, seen)
    while size % 2 == 0 and size > SMALL:
        size //= 2
    x_near, gx_near, y_near, gy_near = (a.reshape(*a.shape[:-2], -1, size, a.shape[-1]) for a in (x, gx, y, gy))
    found = _all_pairs(x_near, gx_near, y_near, gy_near, jnp.tri(size, k=-strict, dtype=bool))
    while size < rows:
        (_, x2), (_, gx2), (y1, _), (gy1, _) = (_halves(a, size) for a in (x, gx, y, gy))
        border = gy1[..., -1:, :]
        lower = (x2 * jnp.exp(gx2 - border)) @ jnp.swapaxes(y1 * jnp.exp(border - gy1), -1, -2)
        upper = jnp.concatenate([found[..., ::2, :, :], jnp.zeros_like(lower)], axis=-1)
        found = jnp.concatenate([upper, jnp.concatenate([lower, found[..., 1::2, :, :]], axis=-1)], axis=-2)
        size *= 2
    return jnp.where(seen, found[..., 0, :, :], 0)


def _all_pairs(x: Array, gx: Array, y: Array, gy: Array, seen: Array) -> Array:
    difference = jnp.where(seen[..., None], gx[..., :, None, :] - gy[..., None, :, :], 0)
    return jnp.where(seen, jnp.einsum("...ik,...jk,...ijk->...ij", x, y, jnp.exp(difference)), 0)


def _halves(a: Array, size: int) -> tuple[Array, Array]:
    """The first and the second of each two blocks of so many rows."""
    pairs = a.reshape(*a.shape[:-2], -1, 2, size, a.shape[-1])
    return pairs[..., 0, :, :], pairs[..., 1, :, :]


def _at(since: Array | int, at: slice) -> Array | int:
    return since if isinstance(since, int) else since[..., at, :]
