"""The engine: one function that runs any cell over a sequence, forwards, backwards and differentiably."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rnnjax.cells.check import given_carry, like
from rnnjax.engine.hooks import where
from rnnjax.engine.memory import segments_that_fit
from rnnjax.engine.restarts import as_resets, restarting
from rnnjax.engine.runners import check_method, runner
from rnnjax.engine.varying import all_varying
from rnnjax.types import Array, Carry, Cell, Params


def unroll(
    cell: Cell,
    params: Params,
    xs: Array,
    carry: Carry | None = None,
    *,
    lengths: Array | None = None,
    resets: Array | None = None,
    reverse: bool = False,
    outputs: str = "every",
    taps: Carry | None = None,
    probe: Carry | None = None,
    segments: int | str = 1,
    method: str = "auto",
    dtype: jnp.dtype | None = None,
    key: Array | None = None,
) -> tuple[Carry, Array]:
    """Runs `cell` over `xs`.

        w = weights(params);   z_t = project(w, x_t);   h_t = step(w, h_{t-1}, z_t) + tap_t;   y_t = output(w, h_t, z_t)

    Args:
      cell: the cell.
      params: its parameters, a flat dict.
      xs: `[T, ..., D]`; whatever stands between T and D is batch, none included.
      carry: the carry before the first step; `cell.initial_carry` by default. Cast to the kind of the cell's own.
      lengths: integers `[...]` from 0 to T, the valid steps of each sequence. The carry stops at a sequence's own
        length (so a length of 0 returns the initial carry) and outputs past it are zero.
      resets: booleans `[T, ...]`, where a new sequence begins in the same row, such as the next document: there the
        state is the cell's own initial carry again, and no gradient passes. A cell made of gates is then scanned.
      reverse: run from each sequence's own last step to its first. ys keeps the order of xs.
      outputs: "every" returns y of every step `[T, ..., O]`, "last" that of each sequence's last step in running
        order `[..., O]`, without storing the others.
      taps: zeros like the carry with a leading T (see `make_taps`). Their gradient is dL/dh_t for every t.
      probe: zeros like the carry with a leading T and without features (see `make_probe`). Their "gradient" is
        |dL/dh_t|, over features, found in the same backward pass at the price of a few numbers a step.
      segments: into how many pieces to cut time. Above 1, only the carries between pieces are kept for the backward
        pass, and each piece is run again when its turn comes (Chen et al. 2016, arXiv:1604.06174). "auto": the fewest
        for which that fits a quarter of the device's memory, one if it does (see `memory.plan_segments`).
      method: a name in `METHODS`. "scan" is `jax.lax.scan` differentiated as it stands, for any cell and any
        transformation. "deferred" takes the weight gradients in one matmul after the backward scan; it needs a `form`
        of `Gates`, and forward-mode differentiation (`jax.jvp`, `jax.jacfwd`) of the result is not defined.
        "associative" runs all steps at once; it needs a `form` of `Linear`. "chunked" runs some steps at once, those of
        "chunked:32" 32; it needs a `form` of `Memory`. "newton" and "newton:diagonal" run all
        steps of any cell at once, by iteration. "auto" chooses by the form, and by the platform that the program is
        lowered for. What a method has to choose stands behind a colon.
      dtype: what to compute in; that of `params` and `xs` by default.
      key: what `cell.project` draws its noise from, for all steps in one call; without one, nothing is drawn.

    Returns (the carry after the last step, ys).

    Raises ValueError or TypeError for an unknown `method` or `outputs`, segments that cannot be, a length that cannot
    be, resets that are not booleans, a dtype that is no float, and a carry, taps or probe that the cell cannot have.
    """
    check_method(method, cell)
    T, batch_shape = xs.shape[0], xs.shape[1:-1]
    _check(xs, outputs, segments)
    lengths = clean_lengths(lengths, T, batch_shape)

    weights = cell.weights(params)
    if segments == "auto":
        segments = segments_that_fit(cell, weights, T, batch_shape, xs.shape[-1], outputs)
    own = cell.initial_carry(weights, batch_shape)
    carry = own if carry is None else given_carry(own, carry)
    taps, probe = _given("taps", taps, _taps, own, T, batch_shape), _given("probe", probe, _probe, own, T, batch_shape)
    weights, xs, carry = _all_in_precision(dtype, weights, xs, carry)
    weights, xs, carry, lengths, resets, taps, probe = all_varying(weights, xs, carry, lengths, resets, taps, probe)
    flip = functools.partial(_flip, lengths=lengths) if reverse else lambda tree: tree
    mask = None if lengths is None else _valid(lengths, T)
    xs = zero_past(flip(xs), lengths)  # where padding is not finite, 0 times its gradient would not be either
    if key is not None:  # what is drawn is drawn for all steps at once, whatever the pieces: z stands for x from here
        xs = cell.project(weights, xs, key)
        cell = cell._replace(project=_drawn)
    if resets is not None:
        xs = xs, flip(as_resets(resets, T, batch_shape, mask, reverse))
        cell = restarting(cell)
    run = runner(method, cell)

    def piece(carry, inputs):
        xs, mask, taps, probe = inputs
        return run(cell, weights, carry, xs, mask, taps, probe)

    inputs = (xs, mask, flip(taps), flip(probe))
    if segments == 1:
        carry, ys = piece(carry, inputs)
    else:
        carry, ys = _in_segments(piece, carry, inputs, min(segments, T), T, batch_shape)

    if outputs == "last":
        last = jax.tree.map(lambda a: a[-1] if lengths is None else last_valid(a, lengths), xs)
        y = cell.output(weights, carry, cell.project(weights, last))
        return carry, y if lengths is None else jax.tree.map(lambda a: where(lengths > 0, a, 0), y)
    return carry, flip(zero_past(ys, lengths))


def clean_lengths(lengths: Array | None, T: int, batch_shape: tuple[int, ...]) -> Array | None:
    """Lengths as int32 in [0, T], so that they can be subtracted from and indexed with; None stays None.

    Args:
      lengths: integers `[...]` of any width and sign.
      T: the steps there are.
      batch_shape: the shape that `lengths` must have.

    Raises TypeError where they are no integers, ValueError for a wrong shape, and for one outside [0, T] where its
    value is known. Traced ones are clipped.
    """
    if lengths is None:
        return None
    lengths = lengths if isinstance(lengths, jax.Array) else np.asarray(lengths)
    if not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise TypeError(f"lengths are {lengths.dtype}; allowed: integers")
    if lengths.shape != tuple(batch_shape):
        raise ValueError(f"lengths have shape {lengths.shape}; allowed: {tuple(batch_shape)}, the batch shape of xs")
    if not isinstance(lengths, jax.core.Tracer):
        wrong = [length for length in np.asarray(lengths).flat if not 0 <= length <= T]
        if wrong:
            raise ValueError(f"a length is {wrong[0]}; allowed: 0 to {T}, the steps of xs")
    elif jnp.iinfo(lengths.dtype).bits >= 32:  # before the cast, or a large one would wrap
        lengths = jnp.minimum(lengths, T)
    return jnp.clip(jnp.asarray(lengths, jnp.int32), 0, T)


def zero_past(values: Array, lengths: Array | None) -> Array:
    """`[T, ..., F]`, or a tree of such arrays, with zeros past each sequence's length."""
    if lengths is None:
        return values
    return jax.tree.map(lambda a: where(_valid(lengths, a.shape[0]), a, 0), values)


def last_valid(values: Array, lengths: Array) -> Array:
    """`[T, ..., F]` at each sequence's last valid step, `[..., F]`; the first step where a length is 0."""
    index = jnp.maximum(lengths - 1, 0)[None]
    return jnp.take_along_axis(values, index.reshape(*index.shape, *[1] * (values.ndim - index.ndim)), axis=0)[0]


def make_taps(cell: Cell, params: Params, T: int, batch_shape: tuple[int, ...] = ()) -> Carry:
    """Zeros `[T, ..., H]` for each part of the carry: differentiate by them to get dL/dh_t for every t."""
    return _taps(jax.eval_shape(lambda p: cell.initial_carry(cell.weights(p), batch_shape), params), T, batch_shape)


def make_probe(cell: Cell, params: Params, T: int, batch_shape: tuple[int, ...] = ()) -> Carry:
    """Zeros `[T, ...]` for each part of the carry: differentiate by them to get |dL/dh_t| for every t."""
    return _probe(jax.eval_shape(lambda p: cell.initial_carry(cell.weights(p), batch_shape), params), T, batch_shape)


def _taps(carry, T, batch_shape):
    def zeros(leaf):  # an integer has no gradient, but its tap must be something to differentiate by
        return jnp.zeros((T, *leaf.shape), leaf.dtype if jnp.issubdtype(leaf.dtype, jnp.inexact) else float)

    return jax.tree.map(zeros, carry)


def _probe(carry, T, batch_shape):
    def zeros(leaf):  # real, whatever the part is: a complex number has a real norm, and an integer's stays 0
        kind = jnp.finfo(leaf.dtype).dtype if jnp.issubdtype(leaf.dtype, jnp.inexact) else float
        return jnp.zeros((T, *batch_shape), kind)

    return jax.tree.map(zeros, carry)


def _check(xs, outputs, segments):
    if outputs not in ("every", "last"):
        raise ValueError(f"outputs is {outputs!r}; allowed: 'every', 'last'")
    if xs.shape[0] == 0:
        raise ValueError(f"xs has no steps: shape {xs.shape}")
    if segments != "auto" and (isinstance(segments, str) or segments < 1):
        raise ValueError(f"segments is {segments!r}; allowed: 'auto', or 1 or more")


def _given(name, dummy, make, carry, T, batch_shape):
    """What was given as taps or probe, in the structure that `make` would make it in."""
    return dummy if dummy is None else like(name, dummy, jax.eval_shape(lambda: make(carry, T, batch_shape)))


def _drawn(weights, z, key=None):
    """The projection of a cell that is given z, as its noise is drawn already."""
    return z


def _in_segments(piece, carry, inputs, segments, T, batch_shape):
    length = -(-T // segments)
    segments = -(-T // length)
    xs, mask, taps, probe = inputs
    padding = segments * length - T
    if padding and mask is None:  # the last piece is shorter: its carry stops where time ends
        mask = jnp.ones((T, *batch_shape), bool)

    def cut(a):
        a = jnp.pad(a, [(0, padding)] + [(0, 0)] * (a.ndim - 1)) if padding else a
        return a.reshape(segments, length, *a.shape[1:])

    carry, ys = lax.scan(jax.checkpoint(piece), carry, jax.tree.map(cut, (xs, mask, taps, probe)))
    return carry, jax.tree.map(lambda a: a.reshape(segments * length, *a.shape[2:])[:T], ys)


def _flip(tree, lengths):
    """Reverses time, each sequence inside its own length; what lies past it stays where it is."""
    if lengths is None:
        return jax.tree.map(lambda a: jnp.flip(a, 0), tree)

    def flip(a):
        t = jnp.arange(a.shape[0]).reshape(-1, *[1] * lengths.ndim)
        index = jnp.where(t < lengths, lengths - 1 - t, t)
        return jnp.take_along_axis(a, index.reshape(*index.shape, *[1] * (a.ndim - index.ndim)), axis=0)

    return jax.tree.map(flip, tree)


def _valid(lengths, T):
    """Whether each step `[T, ...]` lies inside its sequence's length."""
    return jnp.arange(T).reshape(T, *[1] * lengths.ndim) < lengths


def _all_in_precision(dtype, weights, xs, carry):
    """All three cast to `dtype`, or to what weights and xs are in together; where they are integers, the default."""
    if dtype is not None and not jnp.issubdtype(dtype, jnp.inexact):
        raise TypeError(f"dtype is {jnp.dtype(dtype)}; allowed: a floating or complex one")
    if dtype is None:
        dtype = jnp.result_type(xs, *jax.tree.leaves(weights))
        dtype = dtype if jnp.issubdtype(dtype, jnp.inexact) else jnp.result_type(dtype, float)
    return jax.tree.map(lambda a: in_precision(a, dtype), (weights, xs, carry))


def in_precision(a: Array, dtype: Any) -> Array:
    """`a` in the precision of `dtype`; what is complex stays complex, what is real real, integers as they are."""
    if jnp.iscomplexobj(a):
        return a.astype(jnp.result_type(dtype, jnp.complex64))
    real = jnp.finfo(dtype).dtype if jnp.issubdtype(dtype, jnp.complexfloating) else dtype
    return a.astype(real) if jnp.issubdtype(a.dtype, jnp.inexact) else a
