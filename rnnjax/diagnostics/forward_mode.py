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

from rnnjax.diagnostics import influence
from rnnjax.diagnostics.jacobians import start
from rnnjax.norms import norm
from rnnjax.types import Array, Carry, Cell, Params
from rnnjax.unroll import clean_lengths, last_valid, unroll

METHODS = ("bptt", "tbptt:K", "rtrl", "snap1", "uoro")


def gradient_of(method: str) -> Callable[..., tuple[Carry, Array]]:
    """A stand-in for `unroll` with the same values and another gradient, so that any model may train on it.

    Returns `run(cell, params, xs, carry=None, *, lengths=None, outputs="every", key=None) -> (carry, ys)`, arguments
    and results as in `unroll`. Given dL/dy_t of every step, its gradients by params, xs and carry are

        bptt      exact, by the reverse pass of `unroll`
        tbptt:K   the carry's gradient is cut every K steps, counted from the end, so that a loss at the last step
                  reaches K steps back, and a loss at every step (K+1)/2 on average (Williams & Peng 1990)
        rtrl      exact, the params' in forward mode (Williams & Zipser 1989; xs and carry are left to reverse mode):
                  M_t = dh_t/dtheta = I_t + J_t M_{t-1},   dL/dtheta = sum_t (dL_t/dh_t) M_t
        snap1     M_t = I_t + P (J_t M_{t-1}), where P keeps those entries that one step can fill (Menick et al. 2021,
                  arXiv:2006.07232). xs receives dL_t/dx_t through step t alone, carry nothing: nothing runs back.
        uoro      M_t is replaced by a random outer product with the same mean (Tallec & Ollivier 2018,
                  arXiv:1702.05043), drawn from `key`. xs receives the unbiased estimate of the same draw, carry none.

    I_t = dh_t/dtheta at fixed h_{t-1}, J_t = dh_t/dh_{t-1}, dL_t/dh_t through y_t alone. With a state of n numbers and
    N parameters, a step of rtrl costs n^2 N and keeps n N numbers for each sequence. snap1 costs as much here, as P is
    applied to the full matrix: it is here for its gradient, not for its speed. Other parameters of a model, above
    and below the unrolled layer, get what these gradients bring them.

    Raises ValueError for an unknown method; `run` does for uoro without a key.
    """
    name, separator, steps = method.partition(":")
    if name == "tbptt" and steps.isdigit() and int(steps) > 0:
        return functools.partial(_truncated, int(steps))
    if separator or name not in METHODS:
        raise ValueError(f"unknown gradient {method!r}; allowed: {', '.join(METHODS)}, with K = 1, 2, ...")
    if name == "bptt":
        return _bptt
    return functools.partial(_online, getattr(influence, name), name)


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
    B = xs.shape[1]
    carry = cell.initial_carry((B,)) if carry is None else carry
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


def _bptt(cell, params, xs, carry=None, *, lengths=None, outputs="every", key=None):
    return unroll(cell, params, xs, carry, lengths=lengths, outputs=outputs)


def _truncated(K, cell, params, xs, carry=None, *, lengths=None, outputs="every", key=None):
    T = xs.shape[0]
    K = min(K, T)
    lengths = clean_lengths(lengths, T, xs.shape[1:-1])
    lead = T % K or K  # the first piece takes the remainder, so that the last has K steps
    bounded = functools.partial(_bounded, lengths)
    carry, first = unroll(cell, params, xs[:lead], carry, lengths=bounded(0, lead))
    pieces = xs[lead:].reshape(-1, K, *xs.shape[1:])

    def piece(carry, inputs):
        xs, begin = inputs
        return unroll(cell, params, xs, lax.stop_gradient(carry), lengths=bounded(begin, K))

    carry, rest = lax.scan(piece, carry, (pieces, lead + K * jnp.arange(pieces.shape[0])))
    ys = jax.tree.map(lambda a, b: jnp.concatenate([a, b.reshape(-1, *b.shape[2:])]), first, rest)
    return carry, _select(ys, lengths, outputs)


def _bounded(lengths, begin, size):
    return None if lengths is None else jnp.clip(lengths - begin, 0, size)


def _select(ys, lengths, outputs):
    """y of every step, or of each sequence's last (ys is zero past a sequence's end)."""
    if outputs == "every":
        return ys
    if lengths is None:
        return jax.tree.map(lambda a: a[-1], ys)
    return jax.tree.map(lambda a: last_valid(a, lengths), ys)


def _online(estimate, name, cell, params, xs, carry=None, *, lengths=None, outputs="every", key=None):
    """`unroll` whose backward pass is `estimate`, sequence by sequence."""
    if name == "uoro" and key is None:
        raise ValueError("gradient 'uoro' draws random signs: pass key=")
    key = jax.random.key(0) if key is None else key
    T, batch_shape = xs.shape[0], xs.shape[1:-1]
    lengths = clean_lengths(lengths, T, batch_shape)
    carry = cell.initial_carry(batch_shape) if carry is None else carry

    @jax.custom_vjp
    def run(params, xs, carry, lengths, key):
        return unroll(cell, params, xs, carry, lengths=lengths)

    def forward(*args):
        return run(*args), args

    def backward(args, cotangents):
        params, xs, carry, lengths, key = args
        dlast, dys = cotangents
        B = math.prod(batch_shape)
        lengths = jnp.full(batch_shape, T) if lengths is None else lengths

        def merge(tree, axis):  # all batch dimensions as one
            return jax.tree.map(lambda a: a.reshape(*a.shape[:axis], B, *a.shape[axis + len(batch_shape) :]), tree)

        def sequence(xs, carry, length, dys, dlast, key):
            carry, _ = start(cell, params, xs, carry)
            return estimate(cell, params, carry, xs, length, dys, dlast, key)

        inputs = (merge(xs, 1), merge(carry, 0), lengths.ravel(), merge(dys, 1))
        dlast = [d for d in jax.tree.leaves(dlast) if d.dtype != jax.dtypes.float0]
        inputs = (*inputs, merge(dlast, 0), jax.random.split(key, B))
        dparams, dxs, dcarry = jax.vmap(sequence, (1, 0, 0, 1, 0, 0), (0, 1, 0))(*inputs)
        dparams = jax.tree.map(lambda d, p: jnp.sum(d, axis=0).astype(p.dtype), dparams, params)
        return dparams, dxs.reshape(xs.shape).astype(xs.dtype), _like(carry, dcarry), None, None

    run.defvjp(forward, backward)
    carry, ys = run(params, xs, carry, lengths, key)
    return carry, _select(ys, lengths, outputs)


def _like(carry, gradients):
    """The gradients of the leaves that have one, as a carry; None stands for an integer's."""
    leaves, structure = jax.tree.flatten(carry)
    gradients = iter(gradients)
    return structure.unflatten(
        [
            next(gradients).reshape(a.shape).astype(a.dtype) if jnp.issubdtype(a.dtype, jnp.inexact) else None
            for a in leaves
        ]
    )
