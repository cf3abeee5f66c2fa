"""Memories that take out what a key held before they write: the delta rule."""

from typing import Literal

import jax
import jax.numpy as jnp

from rnnjax.cells.decayed_memories import elu_plus_one, with_rms_norm
from rnnjax.cells.gated import memoized
from rnnjax.cells.memory import in_heads, memory, sizes, unit
from rnnjax.initializers import glorot
from rnnjax.types import Array, Cell, Params, Parts, Weights

sigmoid, silu = jax.nn.sigmoid, jax.nn.silu


@memoized
def fast_weights(
    hidden_size: int,
    *,
    heads: int | None = None,
    key_size: int | None = None,
    feature: Literal["dpfp", "elu"] = "dpfp",
    nu: int = 1,
) -> Cell:
    """Fast weights that a slow network programs by the delta rule.

        k' = phi(k) / sum(phi(k)),      q' = phi(q) / sum(phi(q))
        S_t = S_{t-1} + beta k' (v - S_{t-1}^T k')^T            beta = sigmoid(x_t W_beta), a number a head
        y_t = S_t^T q'

    with q, k, v = x W_q, x W_k, x W_v. phi is the deterministic parameter-free projection to 2 K nu numbers,
    relu([k, -k])_i relu([k, -k])_{i - j} for each i and j = 1 ... nu, where i - j goes round. Schlag, Irie &
    Schmidhuber (2021, arXiv:2102.11174), Linear Transformers are secretly fast weight programmers. Their code also
    divides y by sqrt(K). The matrices start as Glorot's.

    Args:
      hidden_size: H V, for H heads.
      heads: H; by default 4, or less where 4 does not divide the hidden size or leaves a head less than 4 numbers.
      key_size: K, of 2 or more for "dpfp"; V by default.
      feature: phi; "elu" for elu(k) + 1.
      nu: how wide the projection of "dpfp" is, 1 to 2 K - 1.

    Raises ValueError for sizes that cannot be, and for an unknown `feature`.
    """
    H, K, V = sizes(hidden_size, heads, key_size)
    if feature not in ("dpfp", "elu"):
        raise ValueError(f"unknown feature {feature!r}; allowed: dpfp, elu")
    if not 1 <= nu < 2 * K:
        raise ValueError(f"nu is {nu}; allowed: 1 to {2 * K - 1}, less than twice the key size")
    phi = elu_plus_one if feature == "elu" else lambda k: _dpfp(k, nu)

    def parts(weights: Weights, x: Array) -> Parts:
        q, k, v = (in_heads(x @ weights[name], H) for name in ("W_q", "W_k", "W_v"))
        beta = sigmoid(x @ weights["W_beta"])[..., None]
        q, k = _shares(phi(q)), _shares(phi(k))
        return Parts(r=q, k=beta * k, v=v, p=-beta * k, q=k)

    rows = K if feature == "elu" else 2 * K * nu
    return memory(_with_beta((H, K, V)), parts, (H, rows, V))


@memoized
def deltanet(
    hidden_size: int,
    *,
    heads: int | None = None,
    key_size: int | None = None,
    negative_eigenvalues: bool = False,
    norm: bool = True,
) -> Cell:
    """DeltaNet: fast weights of normalised keys, whose step turns or reflects the memory along the key.

        q, k = unit(silu(x_t W_q)), unit(silu(x_t W_k)),  v = x_t W_v           unit(k) = k / |k|
        S_t = (I - beta k k^T) S_{t-1} + beta k v^T             beta = sigmoid(x_t W_beta), a number a head
        o_t = S_t^T q
        y_t = gain o_t / rms(o_t)                               each head by itself

    Yang, Wang, Zhang, Shen & Kim (2024, arXiv:2406.06484), Parallelizing linear Transformers with the delta rule over
    sequence length. With keys that are not normalised S can grow without bound. Their code also has a short convolution
    before each silu, silu on v, and q / sqrt(K), which the norm takes out again. The matrices start as Glorot's, the
    gain, one for all heads, at 1.

    Args:
      hidden_size: H V, for H heads.
      heads: H; by default 4, or less where 4 does not divide the hidden size or leaves a head less than 4 numbers.
      key_size: K; V by default.
      negative_eigenvalues: beta = 2 sigmoid(.): the eigenvalue along k is then from -1 to 1 and not 0 to 1 (Grazzi et
        al. 2024, arXiv:2411.12537), and a single cell can count modulo 2.
      norm: False for y_t = o_t.

    Raises ValueError for sizes that cannot be.
    """
    return _delta(sizes(hidden_size, heads, key_size), 1, negative_eigenvalues, norm, gated=False)


@memoized
def deltaproduct(
    hidden_size: int,
    *,
    heads: int | None = None,
    key_size: int | None = None,
    writes: int = 2,
    negative_eigenvalues: bool = True,
    gated: bool = False,
    norm: bool = True,
) -> Cell:
    """DeltaProduct: several steps of the delta rule for each input, each with a key, a value and a beta of its own.

        k_j, v_j, beta_j = unit(silu(x_t W_kj)), x_t W_vj, 2 sigmoid(x_t W_betaj)           j = 1 ... n
        S <- (I - beta_j k_j k_j^T) S + beta_j k_j v_j^T        for each j, from S_{t-1} to S_t
        o_t = S_t^T q,      q = unit(silu(x_t W_q))
        y_t = gain o_t / rms(o_t)                               each head by itself

    Siems et al. (2025, arXiv:2502.10297), DeltaProduct: improving state-tracking in linear RNNs via Householder
    products. Two reflections are a rotation: with two writes a step a cell can keep track of three things that change
    places. One write is `deltanet`. The matrices start as Glorot's, the gain, one for all heads, at 1.

    Args:
      hidden_size: H V, for H heads.
      heads: H; by default 4, or less where 4 does not divide the hidden size or leaves a head less than 4 numbers.
      key_size: K; V by default.
      writes: n, how many delta steps a step makes.
      negative_eigenvalues: False for beta = sigmoid(.).
      gated: also S fades before the first write of a step, as in `gated_deltanet`.
      norm: False for y_t = o_t.

    Raises ValueError for sizes that cannot be.
    """
    if writes < 1:
        raise ValueError(f"writes is {writes}; allowed: 1, 2, ...")
    return _delta(sizes(hidden_size, heads, key_size), writes, negative_eigenvalues, norm, gated)


@memoized
def gated_deltanet(
    hidden_size: int,
    *,
    heads: int | None = None,
    key_size: int | None = None,
    negative_eigenvalues: bool = False,
    norm: bool = True,
) -> Cell:
    """Gated DeltaNet: a memory that fades as a whole, and then takes a step of the delta rule.

        a_t = exp(-exp(A_log) softplus(x_t W_a + dt_bias))      a number a head, as beta
        S_t = (I - beta k k^T) a_t S_{t-1} + beta k v^T
        o_t = S_t^T q
        y_t = gain o_t / rms(o_t)                               each head by itself

    with q, k and beta as in `deltanet`, and v = silu(x W_v). Yang, Kautz & Hatamizadeh (2024, arXiv:2412.06464), Gated
    delta networks: improving Mamba2 with delta rule. As in their code exp(A_log) starts uniform between 0 and 16,
    softplus(dt_bias) between 0.001 and 0.1, uniformly in its logarithm; K is V / 2. The matrices start as Glorot's.

    Args:
      hidden_size: H V, for H heads.
      heads: H; by default 4, or less where 4 does not divide the hidden size or leaves a head less than 4 numbers.
      key_size: K; half of V by default.
      negative_eigenvalues: beta = 2 sigmoid(.), see `deltanet`.
      norm: False for y_t = o_t.

    Raises ValueError for sizes that cannot be.
    """
    return _delta(sizes(hidden_size, heads, key_size, 0.5), 1, negative_eigenvalues, norm, gated=True, of_value=silu)


def _delta(shape, writes, negative, norm, gated, of_value=lambda v: v) -> Cell:
    """The cells of the delta rule with normalised keys."""
    H, _, V = shape
    largest = 2 if negative else 1

    def init(key: Array, input_size: int) -> Params:
        rest, gate = jax.random.split(key)
        params = _with_beta(shape, writes)(rest, input_size)
        params |= {"gain": jnp.ones(V, jnp.float32)} if norm else {}
        return params | (_decay(gate, input_size, H) if gated else {})

    def parts(weights: Weights, x: Array) -> Parts:
        def of_each_write(name):  # [..., W, H, K], or [..., H, K] where there is one
            heads = in_heads(x @ weights[name], writes * H)
            return heads.reshape(*x.shape[:-1], *((writes,) if writes > 1 else ()), H, heads.shape[-1])

        k, v, beta = unit(silu(of_each_write("W_k"))), of_value(of_each_write("W_v")), of_each_write("W_beta")
        beta = largest * sigmoid(beta)
        log_a, q = None, k
        if gated:
            log_a = -jnp.exp(weights["A_log"]) * jax.nn.softplus(x @ weights["W_a"] + weights["dt_bias"])
            log_a = log_a[..., None]
            if writes > 1:  # it fades once a step
                log_a = jnp.stack([log_a] + [jnp.zeros_like(log_a)] * (writes - 1), axis=-3)
            q = jnp.exp(log_a) * k
        r = unit(silu(in_heads(x @ weights["W_q"], H)))
        return Parts(r=r, k=beta * k, v=v, log_a=log_a, p=-beta * k, q=q)

    return memory(init, parts, shape, show=with_rms_norm if norm else None)


def _with_beta(shape, writes=1):
    H, K, V = shape

    def init(key: Array, input_size: int) -> Params:
        columns = {"W_k": H * K, "W_v": H * V, "W_beta": H}
        first, *keys = jax.random.split(key, 1 + len(columns) * writes)
        params = {"W_q": glorot(first, (input_size, H * K))}
        for i, (name, n) in enumerate(columns.items()):
            drawn = [glorot(k, (input_size, n)) for k in keys[i * writes : (i + 1) * writes]]
            params[name] = jnp.concatenate(drawn, axis=1)
        return params

    return init


def _decay(key, input_size, H):
    rate, time, matrix = jax.random.split(key, 3)
    low, high = jnp.log(0.001), jnp.log(0.1)
    dt = jnp.exp(jax.random.uniform(time, (H,), jnp.float32, low, high))
    A = jax.random.uniform(rate, (H,), jnp.float32, jnp.finfo(jnp.float32).tiny, 16)
    return {
        "W_a": glorot(matrix, (input_size, H)),
        "A_log": jnp.log(A),
        "dt_bias": dt + jnp.log(-jnp.expm1(-dt)),  # whose softplus is dt
    }


def _dpfp(k, nu):
    k = jax.nn.relu(jnp.concatenate([k, -k], axis=-1))
    return jnp.concatenate([k * jnp.roll(k, j, axis=-1) for j in range(1, nu + 1)], axis=-1)


def _shares(phi):
    """phi / sum(phi); 0 where that is."""
    total = jnp.sum(phi, axis=-1, keepdims=True)
    zero = total <= jnp.finfo(phi.dtype).tiny
    return jnp.where(zero, 0, phi / jnp.where(zero, 1, total))
