"""The time mixing of RWKV: a memory whose rows fade each at its own rate, and which its step rewrites along a key."""

import jax
import jax.numpy as jnp

from rnnjax.cells.gated import memoized
from rnnjax.cells.memory import in_heads, layer_norm, memory, side_by_side, sizes, unit
from rnnjax.initializers import constant, orthogonal, uniform, zeros
from rnnjax.types import Array, Cell, Params, Parts, Weights


@memoized
def rwkv7(hidden_size: int, *, heads: int | None = None, rank: int = 32, norm: bool = True) -> Cell:
    """The recurrence of RWKV-7, Goose.

        r, k, v = x_t W_r, x_t W_k, x_t W_v                     K = V numbers of each head
        w = exp(-e^(-1/2) sigmoid(w0 + tanh(x_t W_w1) W_w2))    between 0.545 and 1
        a = sigmoid(a0 + x_t W_a1 W_a2)
        kk = unit(k k_k),      k' = k (1 + (a - 1) k_a)
        S_t = (Diag(w) - (a kk) kk^T) S_{t-1} + k' v^T
        y_t = ln_w GroupNorm(S_t^T r) + ln_b + (sum(r k' r_k)) v            each head by itself, epsilon 64e-5

    Peng et al. (2025, arXiv:2503.14456), RWKV-7 "Goose" with expressive dynamic state evolution. S is here the
    transpose of theirs. The mixing of x with the step before, of v with that of the first layer, the output gate and
    the projection stand around it. It starts as the first layer of their code does, but for ln_w, which is 1 at the
    start: W_r, W_v and W_k uniform within 0.5, 0.5 and 0.05 / sqrt(hidden_size), W_w1 and W_a1 at 0, W_w2 and W_a2
    orthogonal times 0.1, w0 from -5.5 to 0.5 over the units and 2.5 z added, a0 = -0.19 + 0.3 z + 0.4 l, k_k = 0.71 -
    0.1 l, k_a = 1.02, r_k = -0.04, with l from -1/2 to 1/2 over all units and z from -1 to 1 over those of a head,
    times its size.

    Args:
      hidden_size: H V, for H heads.
      heads: H; by default 4, or less where 4 does not divide the hidden size or leaves a head less than 4 numbers.
      rank: of the maps to w and a; theirs is 2.5 sqrt(hidden_size), rounded to a multiple of 32, and 32 or more.
      norm: False for S^T r in place of its norm.

    Raises ValueError for sizes that cannot be.
    """
    H, K, _ = shape = sizes(hidden_size, heads, None)
    if rank < 1:
        raise ValueError(f"rank is {rank}; allowed: 1, 2, ...")
    C = hidden_size

    def init(key: Array, input_size: int) -> Params:
        keys = jax.random.split(key, 5)
        place, within = jnp.arange(C) / max(C - 1, 1), 2 * (jnp.arange(C) % K) / max(K - 1, 1) - 1
        line, zigzag = place - 0.5, within * jnp.abs(within)
        params = {
            "W_r": uniform(0.5 * C**-0.5)(keys[0], (input_size, C)),
            "W_k": uniform(0.05 * C**-0.5)(keys[1], (input_size, C)),
            "W_v": uniform(0.5 * C**-0.5)(keys[2], (input_size, C)),
            "w0": -5.5 + 6 * place + 2.5 * zigzag,
            "a0": -0.19 + 0.3 * zigzag + 0.4 * line,
            "k_k": 0.71 - 0.1 * line,
            "k_a": constant(1.02)(None, (C,)),
            "r_k": constant(-0.04)(None, (C,)),
        }
        for name, k in zip("wa", keys[3:], strict=True):
            params[f"W_{name}1"] = zeros(None, (input_size, rank))
            params[f"W_{name}2"] = orthogonal(0.1 * max(rank / C, 1) ** 0.5)(k, (rank, C))
        if norm:
            params |= {"ln_w": jnp.ones(C), "ln_b": jnp.zeros(C)}
        return {name: value.astype(jnp.float32) for name, value in params.items()}

    def parts(weights: Weights, x: Array) -> Parts:
        r, k, v = (x @ weights[name] for name in ("W_r", "W_k", "W_v"))
        log_w = -(jnp.e**-0.5) * jax.nn.sigmoid(weights["w0"] + jnp.tanh(x @ weights["W_w1"]) @ weights["W_w2"])
        a = jax.nn.sigmoid(weights["a0"] + x @ weights["W_a1"] @ weights["W_a2"])
        kk = unit(in_heads(k * weights["k_k"], H))
        k = k * (1 + (a - 1) * weights["k_a"])
        r, k, v, a, log_w = (in_heads(b, H) for b in (r, k, v, a, log_w))
        return Parts(r=r, k=k, v=v, log_a=log_w, p=-a * kk, q=kk)

    def show(weights: Weights, z: Parts, o: Array, m: None) -> Array:
        own = jnp.sum(z.r * z.k * in_heads(weights["r_k"], H), axis=-1, keepdims=True) * z.v
        if not norm:
            return side_by_side(weights, z, o + own, m)
        o = side_by_side(weights, z, layer_norm(o, 64e-5), m) * weights["ln_w"] + weights["ln_b"]
        return o + side_by_side(weights, z, own, m)

    return memory(init, parts, shape, show=show)
