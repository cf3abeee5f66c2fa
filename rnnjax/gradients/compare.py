"""How far the gradient of each method is from that of full BPTT: direction, length, bias and noise."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from rnnjax.engine.steps import unclipped
from rnnjax.gradients.methods import gradient_of
from rnnjax.norms import norm
from rnnjax.types import Array, Carry, Cell, Params


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
