"""Memories to which each step adds a product of key and value, and of which what is old may fade: linear attention."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from rnnjax.cells.gated import memoized
from rnnjax.cells.memory import in_heads, layer_norm, memory, rms_norm, side_by_side, sizes
from rnnjax.initializers import glorot, zeros
from rnnjax.types import Array, Carry, Cell, Params, Parts, Weights


class LinearAttentionCarry(NamedTuple):
    """The memory `[..., H, K, V]`, and the sum of all keys `[..., H, K]`."""

    S: Array
    z: Array


def elu_plus_one(x: Array) -> Array:
    """elu(x) + 1, which is above 0."""
    return jax.nn.elu(x) + 1


FEATURES = {"elu": elu_plus_one, "identity": lambda x: x}


@memoized
def linear_attention(
    hidden_size: int,
    *,
    heads: int | None = None,
    key_size: int | None = None,
    feature: Literal["elu", "identity"] = "elu",
    normalised: bool = True,
) -> Cell:
    """Linear attention: a Transformer's attention without its softmax, which a sum can then carry.

        q, k, v = x_t W_q, x_t W_k, x_t W_v             of each head
        S_t = S_{t-1} + phi(k) v^T                      [K, V]
        z_t = z_{t-1} + phi(k)                          [K]
        y_t = S_t^T phi(q) / (z_t phi(q) + 1e-6)        phi(x) = elu(x) + 1

    Katharopoulos, Vyas, Pappas & Fleuret (2020, arXiv:2006.16236), Transformers are RNNs: fast autoregressive
    transformers with linear attention; 1e-6 is in their code. The matrices start as Glorot's.

    Args:
      hidden_size: H V, for H heads.
      heads: H; by default 4, or less where 4 does not divide the hidden size or leaves a head less than 4 numbers.
      key_size: K; V by default.
      feature: phi; "identity" for none.
      normalised: False for y = S^T phi(q), without z.

    Raises ValueError for sizes that cannot be, and for an unknown `feature`.
    """
    H, K, V = shape = sizes(hidden_size, heads, key_size)
    if feature not in FEATURES:
        raise ValueError(f"unknown feature {feature!r}; allowed: {', '.join(FEATURES)}")
    phi = FEATURES[feature]

    def parts(weights: Weights, x: Array) -> Parts:
        q, k, v = (in_heads(x @ weights[name], H) for name in ("W_q", "W_k", "W_v"))
        if normalised:  # one more value, 1: what it adds up to is z
            v = jnp.concatenate([v, jnp.ones_like(v[..., :1])], axis=-1)
        return Parts(r=phi(q), k=phi(k), v=v)

    if not normalised:
        return memory(projections(shape), parts, shape)

    def show(weights: Weights, z: Parts, o: Array, m: None) -> Array:
        return side_by_side(weights, z, o[..., :V] / (o[..., V:] + 1e-6), m)

    def matrix(carry: Carry) -> tuple[Array, None]:
        return jnp.concatenate([carry.S, carry.z[..., None]], axis=-1), None

    def carry(S: Array, m: Array | None) -> LinearAttentionCarry:
        return LinearAttentionCarry(S[..., :V], S[..., V])

    return memory(projections(shape), parts, (H, K, V + 1), show=show, matrix=matrix, carry=carry)


@memoized
def retnet(
    hidden_size: int,
    *,
    heads: int | None = None,
    key_size: int | None = None,
    decay: float | Array = 5.0,
    rotary: bool = True,
    norm: bool = True,
) -> Cell:
    """Retention: linear attention whose past fades at a rate of its own in each head, and turns as it does.

        S_t = gamma_h e^(i theta) S_{t-1} + conj(k) v^T         gamma_h = 1 - 2^-(5 + h),  h = 0 ... H - 1
        o_t = Re(S_t^T q) / sqrt(K)
        y_t = GroupNorm(o_t)                                    each head by itself, without gain

    with q, k, v = x W_q, x W_k, x W_v, and q and k read as K / 2 complex numbers, first all real parts, with
    theta_j = 10000^(-2j / K): q_t . k_s turned by the angles of t - s, as rotary positions are. Sun et al. (2023,
    arXiv:2307.08621), Retentive network: a successor to Transformer for large language models. Their code divides the
    scores by sums that the norm takes out again, and spaces the angles from 1 to 1 / 10000. As there K is V / 2 and the
    matrices start as Glorot's, W_q, W_k and W_v times 2^-2.5.

    Args:
      hidden_size: H V, for H heads.
      heads: H; by default 4, or less where 4 does not divide the hidden size or leaves a head less than 4 numbers.
      key_size: K, even where `rotary`; half of V by default.
      decay: 5 of gamma_h; infinity for gamma = 1.
      rotary: False for theta = 0, and a real S.
      norm: False for y_t = o_t.

    Raises ValueError for sizes that cannot be.
    """
    H, K, V = sizes(hidden_size, heads, key_size, 0.5, 2 if rotary else 1)
    init = projections((H, K, V), 2**-2.5)

    def weights(params: Params) -> Weights:
        dtype = jnp.result_type(*params.values())
        log_a = jnp.log1p(-jnp.exp2(-jnp.asarray(decay, dtype) - jnp.arange(H, dtype=dtype)))[:, None]
        if rotary:
            log_a = jax.lax.complex(*jnp.broadcast_arrays(log_a, 10000 ** (-jnp.arange(0, K, 2, dtype=dtype) / K)))
        return params | {"log_a": log_a}

    def parts(weights: Weights, x: Array) -> Parts:
        q, k, v = (in_heads(x @ weights[name], H) for name in ("W_q", "W_k", "W_v"))
        q = q * K**-0.5
        if rotary:
            wide = weights["log_a"].real.dtype  # there is no complex number of 16 bits
            q, k = (jax.lax.complex(*jnp.split(a.astype(wide), 2, axis=-1)) for a in (q, k))
        log_a = jnp.broadcast_to(weights["log_a"], (*x.shape[:-1], *weights["log_a"].shape))
        return Parts(r=q, k=k.conj(), v=v, log_a=log_a)

    def show(weights: Weights, z: Parts, o: Array, m: None) -> Array:
        o = o.real.astype(z.v.dtype)
        return side_by_side(weights, z, layer_norm(o, 1e-6) if norm else o, m)

    shape = (H, K // 2, V) if rotary else (H, K, V)
    return memory(init, parts, shape, show=show, dtype=complex if rotary else float, weights=weights)


@memoized
def gla(
    hidden_size: int,
    *,
    heads: int | None = None,
    key_size: int | None = None,
    rank: int = 16,
    tau: float | Array = 16.0,
    norm: bool = True,
) -> Cell:
    """Gated linear attention (GLA): each row of the memory fades at a rate that depends on the input.

        a_t = sigmoid(x_t W_a1 W_a2 + b_a)^(1 / tau)            [K], of each head
        S_t = Diag(a_t) S_{t-1} + k v^T
        o_t = S_t^T q / sqrt(K)
        y_t = gain o_t / rms(o_t)                               each head by itself

    with q, k, v = x W_q, x W_k, x W_v. Yang, Wang, Shen, Panda & Kim (2023, arXiv:2312.06635), Gated linear attention
    transformers with hardware-efficient training. The norm's gain is one for all heads, as in their code. The matrices
    start as Glorot's, b_a at 0, the gain at 1.

    Args:
      hidden_size: H V, for H heads.
      heads: H; by default 4, or less where 4 does not divide the hidden size or leaves a head less than 4 numbers.
      key_size: K; half of V by default.
      rank: of the map to the gates.
      tau: what makes gates near 1 of those near 1/2.
      norm: False for y_t = o_t.

    Raises ValueError for sizes that cannot be.
    """
    H, K, V = shape = sizes(hidden_size, heads, key_size, 0.5)
    if rank < 1:
        raise ValueError(f"rank is {rank}; allowed: 1, 2, ...")
    qkv = projections(shape)

    def init(key: Array, input_size: int) -> Params:
        one, two, rest = jax.random.split(key, 3)
        gate = {
            "W_a1": glorot(one, (input_size, rank)),
            "W_a2": glorot(two, (rank, H * K)),
            "b_a": zeros(None, (H * K,)),
        }
        return qkv(rest, input_size) | gate | ({"gain": jnp.ones(V, jnp.float32)} if norm else {})

    def parts(weights: Weights, x: Array) -> Parts:
        q, k, v = (in_heads(x @ weights[name], H) for name in ("W_q", "W_k", "W_v"))
        s = in_heads(x @ weights["W_a1"] @ weights["W_a2"] + weights["b_a"], H)
        return Parts(r=q * K**-0.5, k=k, v=v, log_a=jax.nn.log_sigmoid(s) / jnp.asarray(tau, s.dtype))

    return memory(init, parts, shape, show=with_rms_norm if norm else None)


@memoized
def hgrn2(
    hidden_size: int, *, heads: int | None = None, key_size: int | None = None, lower_bound: float | Array = 0.0
) -> Cell:
    """HGRN2: gated linear attention whose keys are what its gates let go.

        f_t = lower + (1 - lower) sigmoid(x_t W_f)              [K], of each head
        S_t = Diag(f_t) S_{t-1} + (1 - f_t) v^T                 v = x_t W_i
        y_t = S_t^T q                                           q = silu(x_t W_q)

    Qin et al. (2024, arXiv:2404.07904), HGRN2: gated linear RNNs with state expansion. Each row of S is an average of
    past values. The norm that follows is over all heads at once, and no part of the cell. In a stack of layers the
    bound is learned, 0 in the first and higher above; here it is an option. The matrices start as Glorot's.

    Args:
      hidden_size: H V, for H heads.
      heads: H; by default 4, or less where 4 does not divide the hidden size or leaves a head less than 4 numbers.
      key_size: K, V by default.
      lower_bound: `lower`, from 0 to below 1.

    Raises ValueError for sizes that cannot be.
    """
    shape = sizes(hidden_size, heads, key_size)
    H = shape[0]

    def init(key: Array, input_size: int) -> Params:
        made = projections(shape)(key, input_size)
        return {"W_q": made["W_q"], "W_f": made["W_k"], "W_i": made["W_v"]}

    def parts(weights: Weights, x: Array) -> Parts:
        q, s, v = (in_heads(x @ weights[name], H) for name in ("W_q", "W_f", "W_i"))
        lower = jnp.asarray(lower_bound, s.dtype)
        floor = jnp.log(jnp.maximum(lower, jnp.finfo(s.dtype).tiny))
        log_f = jnp.logaddexp(floor, jnp.log1p(-lower) + jax.nn.log_sigmoid(s))
        return Parts(r=jax.nn.silu(q), k=(1 - lower) * jax.nn.sigmoid(-s), v=v, log_a=log_f)

    return memory(init, parts, shape)


def projections(shape: tuple[int, int, int], gain: float = 1.0) -> Callable[[Array, int], Params]:
    """An `init` of W_q and W_k `[D, H K]` and W_v `[D, H V]`, each Glorot's times `gain`."""
    H, K, V = shape

    def init(key: Array, input_size: int) -> Params:
        columns = {"W_q": H * K, "W_k": H * K, "W_v": H * V}
        keys = jax.random.split(key, 3)
        return {name: gain * glorot(k, (input_size, n)) for (name, n), k in zip(columns.items(), keys, strict=True)}

    return init


def with_rms_norm(weights: Weights, z: Parts, o: Array, m: None) -> Array:
    """The readings of all heads, each divided by its root mean square, times the parameter `gain` `[V]`."""
    return side_by_side(weights, z, rms_norm(o) * weights["gain"], m)
