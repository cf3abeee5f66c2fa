"""Truncated BPTT, RTRL, SnAp-1 and UORO by name: other gradients of an unrolled cell, to train with."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from rnnjax.cells.check import given_carry
from rnnjax.engine.steps import in_one_precision, inexact, unclipped
from rnnjax.engine.unroll import clean_lengths, last_valid, unroll, zero_past
from rnnjax.gradients import influence
from rnnjax.gradients.truncated import unroll_in_pieces
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
    gradient: str, *, method: str = "auto", segments: int | str = 1, cotangent_clip: float = 0.0, **backwards: bool
) -> None:
    """Raises ValueError in one line where `gradient` cannot be had together with the other options.

    Args:
      gradient: a method of `gradient_of`.
      method, segments: as in `unroll`.
      cotangent_clip: as in `modules.RNN`.
      backwards: by name, whether an option is set that only BPTT's backward pass can serve: reverse, bidirectional,
        taps, probe, noise, resets.
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
    if cotangent_clip and method not in ("auto", "scan"):
        raise ValueError(
            f"method={method!r} has a backward pass of its own, which cotangent_clip={cotangent_clip!r} cannot clip; "
            "allowed: method='auto' or 'scan'"
        )
    if method not in ("auto", "scan") and online:
        raise ValueError(
            f"method={method!r} is of a backward pass, and gradient={gradient!r} has none; "
            "allowed: method='auto' or 'scan'"
        )
    if segments != 1 and online:
        raise ValueError(
            f"segments={segments!r} spares a backward pass memory, and gradient={gradient!r} has none; "
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


def _bptt(cell, params, xs, carry=None, *, lengths=None, key=None, **options):
    return unroll(cell, params, xs, carry, lengths=lengths, **options)


def _truncated(K, cell, params, xs, carry=None, *, lengths=None, outputs="every", key=None, **options):
    lengths = clean_lengths(lengths, xs.shape[0], xs.shape[1:-1])
    carry, ys = unroll_in_pieces(K, cell, params, xs, carry, lengths, **options)
    return carry, _select(ys, lengths, outputs)


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
