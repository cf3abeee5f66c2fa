"""Truncated BPTT, RTRL, SnAp-1 and UORO: other gradients of an unrolled cell, to compare and to train with."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from rnnjax.cells.check import given_carry
from rnnjax.engine.steps import in_one_precision, inexact, unclipped
from rnnjax.engine.unroll import clean_lengths, last_valid, unroll, zero_past
from rnnjax.gradients import influence
from rnnjax.norms import norm
from rnnjax.types import Array, Carry, Cell, Params, prepared

ONLINE = ("rtrl", "snap1", "uoro")  # without a backward pass over the parameters
GRADIENTS = ("bptt", "tbptt:K", *ONLINE)


def gradient_of(method: str) -> Callable[..., tuple[Carry, Array]]:
    """A stand-in for `unroll` with the same values and another gradient, so that any model may train on it.

    Returns `run(cell, params, xs, carry=None, *, lengths, outputs, dtype, method, segments, key) -> (carry, ys)`,
    arguments and results as in `unroll`. Given dL/dy_t of every step, its gradients by params, xs and carry are

        bptt      exact, by the reverse pass of `unroll`
        tbptt:K   the carry's gradient is cut every K steps, counted from each sequence's own end, so that a loss at
                  its last step reaches K steps back, and a loss at every step (K+1)/2 on average (Williams & Peng 1990)
        rtrl      exact, the params' in forward mode (Williams & Zipser 1989; xs and carry are left to reverse mode):
                  M_t = dh_t/dtheta = I_t + J_t M_{t-1},   dL/dtheta = sum_t (dL_t/dh_t) M_t
        snap1     M_t = I_t + P (J_t M_{t-1}), where P keeps those entries that one step can fill (Menick et al. 2021,
                  arXiv:2006.07232). xs receives dL_t/dx_t through step t alone, carry nothing: nothing runs back.
        uoro      M_t is replaced by a random outer product with the same mean (Tallec & Ollivier 2018,
                  arXiv:1702.05043), drawn from `key`. xs receives the unbiased estimate of the same draw, carry none.

    I_t = dh_t/dtheta at fixed h_{t-1}, J_t = dh_t/dh_{t-1}, dL_t/dh_t through y_t alone. With a state of n numbers and
    N parameters, a step of rtrl costs n^2 N and keeps n N numbers for each sequence. snap1 costs as much here, as P is
    applied to the full matrix: it is here for its gradient, not for its speed. Other parameters of a model, above
    and below the unrolled layer, get what these gradients bring them. The three that run forwards compute their
    influence in float32 at least, whatever the dtype of the outputs.

    Raises ValueError for an unknown method; `run` does for uoro without a key, and for what `check_gradient` refuses.
    """
    name, separator, steps = method.partition(":")
    if name == "tbptt" and steps.isdigit() and int(steps) > 0:
        return functools.partial(_truncated, int(steps))
    if separator or name not in GRADIENTS:
        raise ValueError(f"unknown gradient {method!r}; allowed: {', '.join(GRADIENTS)}, with K = 1, 2, ...")
    if name == "bptt":
        return _bptt
    return functools.partial(_online, getattr(influence, name), name)


def check_gradient(
    gradient: str, *, method: str = "auto", segments: int = 1, cotangent_clip: float = 0.0, **backwards: bool
) -> None:
    """Raises ValueError in one line where `gradient` cannot be had together with the other options.

    Args:
      gradient: a method of `gradient_of`.
      method, segments: as in `unroll`.
      cotangent_clip: as in `modules.RNN`.
      backwards: by name, whether an option is set that only BPTT's backward pass can serve: reverse, bidirectional,
        taps, probe.
    """
    gradient_of(gradient)
    online = gradient in ONLINE
    for name, is_set in backwards.items():
        if is_set and gradient != "bptt":
            raise ValueError(f"gradient={gradient!r} reads forwards, without {name}; allowed: gradient='bptt'")
    if cotangent_clip and online:
        raise ValueError(
            f"cotangent_clip={cotangent_clip!r} clips a backward pass, and gradient={gradient!r} has none; "
            "allowed: cotangent_clip=0, or a gradient of bptt or tbptt:K"
        )
    if cotangent_clip and method == "deferred":
        raise ValueError(
            f"method='deferred' has a backward pass of its own, which cotangent_clip={cotangent_clip!r} cannot clip; "
            "allowed: method='auto' or 'scan'"
        )
    if method == "deferred" and online:
        raise ValueError(
            f"method='deferred' is of a backward pass, and gradient={gradient!r} has none; "
            "allowed: method='auto' or 'scan'"
        )
    if segments > 1 and online:
        raise ValueError(
            f"segments={segments} spares a backward pass memory, and gradient={gradient!r} has none; "
            "allowed: segments=1"
        )


def gradient(
    method: str,
    cell: Cell,
    params: Params,
    xs: Array,
    loss: Callable[[Array], Array],
    carry: Carry | None = None,
    key: Array | None = None,
) -> tuple[Array, Params]:
    """(loss(ys), its gradient by params as `method` of `gradient_of` sees it), for xs `[T, ..., D]`.

    loss: ys `[T, ..., O]` -> scalar.
    """
    run = gradient_of(method)
    return jax.value_and_grad(lambda params: loss(run(cell, params, xs, carry, key=key)[1]))(params)


class GradientError(NamedTuple):
    """Each method's gradient g beside that of full BPTT g*, entries `[M]` in the order of `methods`."""

    cosine: Array  # of g and g*, mean over draws
    norm_ratio: Array  # |g| / |g*|, mean over draws
    bias: Array  # |mean g - g*| / |g*|; of n draws of an unbiased method about sqrt(draw_variance / n), not 0
    draw_variance: Array  # E|g - mean g|^2 / |g*|^2 over draws; 0 for a method that draws nothing
    batch_variance: Array  # the same over sequences, for g of one sequence alone: the noise of a batch of one


def compare_gradients(
    cell: Cell,
    params: Params,
    xs: Array,
    loss: Callable[[Array], Array],
    key: Array,
    *,
    methods: tuple[str, ...] = ("tbptt:1", "tbptt:8", "tbptt:32", "snap1", "uoro"),
    draws: int = 16,
    carry: Carry | None = None,
) -> GradientError:
    """How far the gradient of each method is from that of full BPTT.

    Args:
      cell, params: the cell and its parameters.
      xs: `[T, B, D]`.
      loss: ys `[T, B, O]` -> scalar, a mean or sum over the B sequences.
      key: for the draws of uoro.
      methods: as in `gradient_of`; rtrl is left out by default, as it is BPTT's gradient at a high price.
      draws: how often uoro draws.
      carry: the carry before the first step.
    """
    chex.assert_rank(xs, 3)
    cell, B = unclipped(cell), xs.shape[1]
    carry = cell.initial_carry(cell.weights(params), (B,)) if carry is None else carry
    copies = jax.tree.map(lambda p: jnp.broadcast_to(p, (B, *p.shape)), params)

    def of_sequences(method, key):  # [B, N], whose sum is the gradient
        def batch_loss(copies):
            def one(params, xs, carry, key):
                return gradient_of(method)(cell, params, xs, carry, key=key)[1]

            return loss(jax.vmap(one, (0, 1, 0, 0), 1)(copies, xs, carry, jax.random.split(key, B)))

        return jax.vmap(lambda g: ravel_pytree(g)[0])(jax.grad(batch_loss)(copies))

    exact = jnp.sum(of_sequences("bptt", key), axis=0)
    keys = jax.random.split(key, draws)
    errors = []
    for method in methods:
        g = lax.map(functools.partial(of_sequences, method), keys if method == "uoro" else keys[:1])
        errors.append(_error(g, exact))
    return GradientError(*map(jnp.stack, zip(*errors, strict=True)))


def _error(g, exact):
    draws, B, _ = g.shape
    g, exact = g / norm(exact), exact / norm(exact)  # all is relative to |g*|
    total = jnp.sum(g, axis=1)
    mean = jnp.mean(total, axis=0)
    norms = norm(total, 1)
    return (
        jnp.mean(total / norms[:, None] @ exact),
        jnp.mean(norms),
        norm(mean - exact),
        jnp.sum(jnp.square(total - mean)) / max(draws - 1, 1),
        jnp.mean(jnp.sum(jnp.square(B * g - total[:, None]), axis=(1, 2))) / max(B - 1, 1),
    )


def _bptt(cell, params, xs, carry=None, *, lengths=None, key=None, **options):
    return unroll(cell, params, xs, carry, lengths=lengths, **options)


def _truncated(K, cell, params, xs, carry=None, *, lengths=None, outputs="every", key=None, **options):
    T, K = xs.shape[0], min(K, xs.shape[0])
    cell, weights = prepared(cell, params)
    lengths = clean_lengths(lengths, T, xs.shape[1:-1])
    # The first piece of each sequence takes the remainder, so that its last one has K steps.
    if lengths is None:
        lead, size, count = T % K or K, T % K or K, T // K - (T % K == 0)
    else:
        lead, size, count = jnp.where(lengths % K, lengths % K, K), K, -(-(T - 1) // K)
    ends = None if lengths is None else _bounded(lengths, 0, lead)
    carry, first = unroll(cell, weights, xs[:size], carry, lengths=ends, **options)

    def piece(carry, begin):
        if lengths is None:
            steps, carry, left = lax.dynamic_slice_in_dim(xs, begin, K), lax.stop_gradient(carry), None
        else:
            left = _bounded(lengths, begin, K)
            steps, carry = _steps(xs, begin, K), _cut(carry, left)
        return unroll(cell, weights, steps, carry, lengths=left, **options)

    begins = jnp.arange(count).reshape(-1, *[1] * jnp.ndim(lead)) * K + lead
    carry, rest = lax.scan(piece, carry, begins)

    def join(first, rest):
        ys = jnp.concatenate([first, rest.reshape(-1, *rest.shape[2:])])
        if lengths is None:
            return ys
        t = jnp.arange(T).reshape(-1, *[1] * lengths.ndim)  # the rest begins at row K, whatever the lead
        rows = jnp.where(t < lead, t, t - lead + K)
        return jnp.take_along_axis(ys, rows.reshape(*rows.shape, *[1] * (ys.ndim - rows.ndim)), axis=0)

    return carry, _select(jax.tree.map(join, first, rest), lengths, outputs)


def _steps(xs, begin, size):
    """`size` steps of xs `[T, ..., D]` from each sequence's `begin` `[...]`; those past T repeat the last."""
    t = jnp.minimum(begin + jnp.arange(size).reshape(-1, *[1] * begin.ndim), xs.shape[0] - 1)
    return jnp.take_along_axis(xs, t[..., None], axis=0)


def _cut(carry, left):
    """`carry` without a gradient, but for those sequences that have no steps left: theirs is their last carry."""

    def cut(a):
        goes_on = (left > 0).reshape(*left.shape, *[1] * (a.ndim - left.ndim))
        return jnp.where(goes_on, lax.stop_gradient(a), a)

    return jax.tree.map(cut, carry)


def _bounded(lengths, begin, size):
    return jnp.clip(lengths - begin, 0, size)


def _select(ys, lengths, outputs):
    """y of every step, or of each sequence's last (ys is zero past a sequence's end)."""
    if outputs == "every":
        return ys
    if lengths is None:
        return jax.tree.map(lambda a: a[-1], ys)
    return jax.tree.map(lambda a: last_valid(a, lengths), ys)


def _online(estimate, name, cell, params, xs, carry=None, *, lengths=None, outputs="every", key=None, **options):
    """`unroll` whose backward pass is `estimate`, sequence by sequence."""
    if name == "uoro" and key is None:
        raise ValueError("gradient 'uoro' draws random signs: pass key=")
    clipped = unclipped(cell) is not cell
    check_gradient(name, cotangent_clip=clipped, **{n: options[n] for n in ("method", "segments") if n in options})
    key = jax.random.key(0) if key is None else key
    T, batch_shape = xs.shape[0], xs.shape[1:-1]
    lengths = clean_lengths(lengths, T, batch_shape)
    xs = zero_past(xs, lengths)
    cell, weights = prepared(cell, params)  # the estimates are of their gradient: params get theirs through it
    own = cell.initial_carry(weights, batch_shape)
    carry = own if carry is None else given_carry(own, carry)

    @jax.custom_vjp
    def run(weights, xs, carry, lengths, key):
        return unroll(cell, weights, xs, carry, lengths=lengths, **options)

    def forward(*args):
        return run(*args), args

    def backward(args, cotangents):
        weights, xs, carry, lengths, key = args
        dlast, dys = cotangents
        B = math.prod(batch_shape)
        lengths = jnp.full(batch_shape, T) if lengths is None else lengths

        def merge(tree, axis):  # all batch dimensions as one
            return jax.tree.map(lambda a: a.reshape(*a.shape[:axis], B, *a.shape[axis + len(batch_shape) :]), tree)

        wide, *sequences = in_one_precision(weights, xs, carry)
        inputs = (merge(sequences[0], 1), merge(sequences[1], 0), lengths.ravel(), merge(dys, 1))
        dlast = [d for d in jax.tree.leaves(dlast) if d.dtype != jax.dtypes.float0]
        inputs = (*inputs, merge(dlast, 0), jax.random.split(key, B))
        sequence = functools.partial(_sequence, estimate, cell, wide)
        dweights, dxs, dcarry = jax.vmap(sequence, (1, 0, 0, 1, 0, 0), (0, 1, 0))(*inputs)
        dweights = [jnp.sum(d, axis=0) for d in dweights]
        return _like(weights, dweights), _like(xs, dxs), _like(carry, dcarry), None, None

    run.defvjp(forward, backward)
    carry, ys = run(weights, xs, carry, lengths, key)
    return carry, _select(ys, lengths, outputs)


def _sequence(estimate, cell, weights, xs, carry, length, dys, dlast, key):
    """`estimate` of one sequence, given the cotangents in the precision of what it computes."""
    shown = jax.eval_shape(lambda: (cell.output(weights, carry, cell.project(weights, xs[0])), inexact(carry)))
    dys, dlast = jax.tree.map(lambda d, like: d.astype(like.dtype), (dys, dlast), shown)
    return estimate(cell, weights, carry, xs, length, dys, dlast, key)


def _like(tree, gradients):
    """The gradients of the leaves that have one, as `tree`; None stands for an integer's."""
    leaves, structure = jax.tree.flatten(tree)
    gradients = iter(gradients)
    return structure.unflatten(
        [
            next(gradients).reshape(a.shape).astype(a.dtype) if jnp.issubdtype(a.dtype, jnp.inexact) else None
            for a in leaves
        ]
    )
