"""The matrix LSTM of xLSTM: a memory with exponential gates, and a normaliser that divides by what they have let in."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from rnnjax.cells.gated import memoized
from rnnjax.cells.memory import in_heads, layer_norm, memory, side_by_side, sizes
from rnnjax.cells.slstm import FORGET
from rnnjax.initializers import normal, zeros
from rnnjax.types import Array, Cell, Params, Parts, Weights


class MLSTMCarry(NamedTuple):
    """Memory `[..., H, K, V]`, normaliser `[..., H, K]`, and the logarithm of the scale of both `[..., H]`."""

    C: Array
    n: Array
    m: Array


@memoized
def mlstm(
    hidden_size: int,
    *,
    heads: int | None = None,
    key_size: int | None = None,
    forget_gate: Literal["sigmoid", "exp"] = "sigmoid",
    norm: bool = True,
) -> Cell:
    """The mLSTM of xLSTM.

        i~, f~ = W_i x_t + b_i, W_f x_t + b_f                   a number a head
        q, k, v = W_q x_t + b_q, W_k x_t / sqrt(K) + b_k, W_v x_t + b_v
        m_t = max(log f + m_{t-1}, i~)                          f = sigmoid(f~) or exp(f~)
        i' = exp(i~ - m_t)                                      f' = exp(log f + m_{t-1} - m_t)
        C_t = f' C_{t-1} + i' k v^T                             n_t = f' n_{t-1} + i' k
        h_t = C_t^T q / max(|n_t q|, exp(-m_t))
        y_t = gain LayerNorm(h_t)                               each head by itself

    Beck et al. (2024, arXiv:2405.04517), xLSTM: extended long short-term memory. m keeps the exponentials below 1, and
    changes no h: for C and n times exp(m) the divisor is the paper's max(|n q|, 1). Their code adds 1e-6 to it, which
    breaks that by as much; its gates read q, k and v instead of x; and its step form scales k as here, its parallel
    ones q, so that their memories differ by sqrt(K). The output gate, the convolution and the projections around it are
    no part of the cell. As in their code W_i and W_f start at 0, b_f goes from 3 to 6 over the heads, b_i is
    N(0, 0.1^2), and the other matrices are N(0, 2 / (5 D)).

    Args:
      hidden_size: H V, for H heads.
      heads: H; by default 4, or less where 4 does not divide the hidden size or leaves a head less than 4 numbers.
      key_size: K; V by default.
      forget_gate: how f is made of f~.
      norm: False for y_t = h_t.

    Raises ValueError for sizes that cannot be, and for an unknown `forget_gate`.
    """
    H, K, V = sizes(hidden_size, heads, key_size)
    if forget_gate not in FORGET:
        raise ValueError(f"unknown forget_gate {forget_gate!r}; allowed: {', '.join(FORGET)}")
    log_f = FORGET[forget_gate]

    def init(key: Array, input_size: int) -> Params:
        first, *keys = jax.random.split(key, 4)
        columns = {"q": H * K, "k": H * K, "v": H * V}
        small = normal((2 / (5 * max(input_size, 1))) ** 0.5)
        params = {f"W_{name}": small(k, (input_size, n)) for (name, n), k in zip(columns.items(), keys, strict=True)}
        params |= {f"b_{name}": zeros(None, (n,)) for name, n in columns.items()}
        params |= {name: zeros(None, (input_size, H)) for name in ("W_i", "W_f")}
        params |= {"b_i": normal(0.1)(first, (H,)), "b_f": jnp.linspace(3.0, 6.0, H, dtype=jnp.float32)}
        return params | ({"gain": jnp.ones(H * V, jnp.float32)} if norm else {})

    def parts(weights: Weights, x: Array) -> Parts:
        scales = {"q": 1.0, "k": K**-0.5, "v": 1.0}
        q, k, v = (in_heads(x @ weights[f"W_{n}"] * s + weights[f"b_{n}"], H) for n, s in scales.items())
        i, f = (x @ weights[f"W_{name}"] + weights[f"b_{name}"] for name in ("i", "f"))
        v = jnp.concatenate([v, jnp.ones_like(v[..., :1])], axis=-1)  # n is one more column of C, whose value is 1
        return Parts(r=q, k=k, v=v, log_a=log_f(f)[..., None], log_b=i)

    def show(weights: Weights, z: Parts, o: Array, m: Array | None) -> Array:
        assert m is not None
        h = o[..., :V] / jnp.maximum(jnp.abs(o[..., V:]), jnp.exp(-m)[..., None])
        y = side_by_side(weights, z, layer_norm(h) if norm else h, m)
        return y * weights["gain"] if norm else y

    def matrix(carry: MLSTMCarry) -> tuple[Array, Array]:
        return jnp.concatenate([carry.C, carry.n[..., None]], axis=-1), carry.m

    def carry(S: Array, m: Array | None) -> MLSTMCarry:
        assert m is not None
        return MLSTMCarry(S[..., :V], S[..., V], m)

    return memory(init, parts, (H, K, V + 1), show=show, matrix=matrix, carry=carry)
