"""Memories against their papers' equations of one step, what the papers claim of them, and chunks against steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import Complex, absolute, check_equation, jit, relu, sigma

from rnnjax.cells import FAMILIES
from rnnjax.cells import decayed_memories as decayed
from rnnjax.cells import delta_memories as delta
from rnnjax.cells.mlstm import MLSTMCarry, mlstm
from rnnjax.cells.rwkv import rwkv7
from rnnjax.engine import chunked as engine
from rnnjax.engine.chunked import chunked
from rnnjax.engine.scan import scan

H, K, V, D = 2, 3, 4, 3  # heads; the width of a cell is H V
NAMES = [make.__name__ for make in FAMILIES["Matrix memories"]]


# The equations, each for one head at a time.


def heads(x):
    return x.reshape(*x.shape[:-1], H, -1)


def silu(s):
    return s * sigma(s)


def softplus(s):
    return np.log1p(np.exp(s))


def unit(k):
    return k / np.sqrt((k**2).sum(-1, keepdims=True))


def outer(k, v):
    return k[..., :, None] * v[..., None, :]


def read(S, q):
    return (S * q[..., :, None]).sum(-2)


def rms_norm(o, eps=1e-5):
    return o / np.sqrt((o**2).mean(-1, keepdims=True) + eps)


def layer_norm(o, eps=1e-5):
    return rms_norm(o - o.mean(-1, keepdims=True), eps)


def flat(o):
    return o.reshape(*o.shape[:-2], -1)


def elu_plus_one(x):
    return np.where(x.real > 0, x + 1, np.exp(x))


def linear_attention(p, carry, x):
    q, k, v = (heads(x @ p[f"W_{n}"]) for n in "qkv")
    S, z = carry.S + outer(elu_plus_one(k), v), carry.z + elu_plus_one(k)
    y = read(S, elu_plus_one(q)) / ((z * elu_plus_one(q)).sum(-1, keepdims=True) + 1e-6)
    return type(carry)(S, z), flat(y)


def dpfp(x, nu):
    x = relu(np.concatenate([x, -x], -1))
    n = x.shape[-1]
    return np.stack([x[..., i] * x[..., (i - j) % n] for j in range(1, nu + 1) for i in range(n)], -1)


def fast_weights(phi):
    def step(p, S, x):
        q, k, v = (heads(x @ p[f"W_{n}"]) for n in "qkv")
        q, k = (phi(a) / phi(a).sum(-1, keepdims=True) for a in (q, k))
        beta = sigma(x @ p["W_beta"])[..., None]
        S = S + outer(k, beta * (v - read(S, k)))
        return S, flat(read(S, q))

    return step


def retnet_rotary(p, S, x):
    q, k, v = (heads(x @ p[f"W_{n}"]) for n in "qkv")
    theta, gamma = 10000.0 ** (-2 * np.arange(2) / 4), (1 - 2.0 ** (-5 - np.arange(H)))[:, None]
    cos, sin = ((gamma * f(theta))[..., None] for f in (np.cos, np.sin))
    (q_re, q_im), (k_re, k_im) = np.split(q, 2, -1), np.split(k, 2, -1)
    re = cos * S.re - sin * S.im + outer(k_re, v)
    im = sin * S.re + cos * S.im - outer(k_im, v)
    o = (read(re, q_re) - read(im, q_im)) / 2  # the root of K = 4
    return Complex(re, im), flat(layer_norm(o, 1e-6))


def retnet(p, S, x):
    q, k, v = (heads(x @ p[f"W_{n}"]) for n in "qkv")
    S = (1 - 2.0 ** (-5 - np.arange(H)))[:, None, None] * S + outer(k, v)
    return S, flat(layer_norm(read(S, q) / np.sqrt(K), 1e-6))


def gla(p, S, x):
    q, k, v = (heads(x @ p[f"W_{n}"]) for n in "qkv")
    a = heads(sigma(x @ p["W_a1"] @ p["W_a2"] + p["b_a"]) ** (1 / 16))
    S = a[..., None] * S + outer(k, v)
    return S, flat(rms_norm(read(S, q) / np.sqrt(K)) * p["gain"])


def hgrn2(p, S, x):
    q, f, v = silu(heads(x @ p["W_q"])), 0.3 + 0.7 * sigma(heads(x @ p["W_f"])), heads(x @ p["W_i"])
    S = f[..., None] * S + outer(1 - f, v)
    return S, flat(read(S, q))


def mlstm_step(p, carry, x):
    q, k, v = (heads(x @ p[f"W_{n}"] / (np.sqrt(K) if n == "k" else 1) + p[f"b_{n}"]) for n in "qkv")
    i, log_f = x @ p["W_i"] + p["b_i"], -np.log1p(np.exp(-(x @ p["W_f"] + p["b_f"])))
    kept = log_f + carry.m
    m = np.where(kept.real > i.real, kept, i)
    f, i = np.exp(kept - m)[..., None], np.exp(i - m)[..., None]
    C, n = f[..., None] * carry.C + i[..., None] * outer(k, v), f * carry.n + i * k
    size, least = absolute((n * q).sum(-1)), np.exp(-m)
    h = read(C, q) / np.where(size.real > least.real, size, least)[..., None]
    return MLSTMCarry(C, n, m), flat(layer_norm(h)) * p["gain"]


def delta_step(writes, largest, gated=False, of_value=lambda v: v):
    def step(p, S, x):
        k, v, b = (np.split(x @ p[n], writes, -1) for n in ("W_k", "W_v", "W_beta"))
        if gated:
            S = np.exp(-np.exp(p["A_log"]) * softplus(x @ p["W_a"] + p["dt_bias"]))[..., None, None] * S
        for k_j, v_j, b_j in zip(k, v, b, strict=True):
            k_j, beta = unit(silu(heads(k_j))), largest * sigma(b_j)[..., None]
            S = S - beta[..., None] * outer(k_j, read(S, k_j)) + beta[..., None] * outer(k_j, of_value(heads(v_j)))
        return S, flat(rms_norm(read(S, unit(silu(heads(x @ p["W_q"]))))) * p["gain"])

    return step


def rwkv7_step(p, S, x):
    """After the authors' NumPy: their S is the transpose of ours."""
    r, k, v = x @ p["W_r"], x @ p["W_k"], x @ p["W_v"]
    w = np.exp(-sigma(np.tanh(x @ p["W_w1"]) @ p["W_w2"] + p["w0"]) / np.e**0.5)
    a = sigma(x @ p["W_a1"] @ p["W_a2"] + p["a0"])
    kk, k = unit(heads(k * p["k_k"])), k + k * (a - 1) * p["k_a"]
    r, w, k, v, a = map(heads, (r, w, k, v, a))
    S = np.swapaxes(S, -1, -2)
    S = S * w[..., None, :] - (S @ kk[..., None]) * (kk * a)[..., None, :] + outer(v, k)
    y = flat(layer_norm((S @ r[..., None])[..., 0], 64e-5)) * p["ln_w"] + p["ln_b"]
    y = y + flat((r * k * heads(p["r_k"])).sum(-1, keepdims=True) * v)
    return np.swapaxes(S, -1, -2), y


SIZE = {"heads": H, "key_size": K}
EQUATIONS = {
    "linear_attention": (decayed.linear_attention(H * V, **SIZE), linear_attention),
    "fast_weights": (delta.fast_weights(H * V, nu=2, **SIZE), fast_weights(lambda k: dpfp(k, 2))),
    "retnet": (decayed.retnet(H * V, heads=H, key_size=4), retnet_rotary),
    "gla": (decayed.gla(H * V, rank=2, **SIZE), gla),
    "hgrn2": (decayed.hgrn2(H * V, lower_bound=0.3, **SIZE), hgrn2),
    "mlstm": (mlstm(H * V, **SIZE), mlstm_step),
    "deltanet": (delta.deltanet(H * V, **SIZE), delta_step(1, 1)),
    "gated_deltanet": (delta.gated_deltanet(H * V, **SIZE), delta_step(1, 1, gated=True, of_value=silu)),
    "deltaproduct": (delta.deltaproduct(H * V, **SIZE), delta_step(2, 2)),
    "rwkv7": (rwkv7(H * V, heads=H, rank=2), rwkv7_step),
}
OTHERS = {
    "fast_weights, elu": (delta.fast_weights(H * V, feature="elu", **SIZE), fast_weights(elu_plus_one)),
    "retnet, real": (decayed.retnet(H * V, rotary=False, **SIZE), retnet),
    "deltanet, negative": (delta.deltanet(H * V, negative_eigenvalues=True, **SIZE), delta_step(1, 2)),
    "deltaproduct, gated": (delta.deltaproduct(H * V, gated=True, **SIZE), delta_step(2, 2, gated=True)),
}
EVERY = EQUATIONS | OTHERS
QUICK = {"mlstm", "rwkv7", "deltaproduct, gated"}  # each part of a step, and each way through a chunk
SLOW = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in EVERY]


@pytest.mark.parametrize("name", EVERY)
def test_equation_step_by_step(name):
    check_equation(*EVERY[name], method="scan", D=D)


@pytest.mark.parametrize("name", SLOW)
def test_equation_in_chunks(name, monkeypatch):
    """Of 8 steps, and one of 3."""
    monkeypatch.setattr(engine, "default_chunk", lambda parts: 8)
    check_equation(*EVERY[name], method="chunked", T=19, D=D)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n == "deltanet" else pytest.mark.slow) for n in EQUATIONS]
)
def test_equation_of_a_long_sequence(name, monkeypatch):
    monkeypatch.setattr(engine, "default_chunk", lambda parts: 16)
    check_equation(*EVERY[name], method="chunked", T=4096, B=1, D=D)


# Chunks against steps.


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def problem(cell, T, B=3, seed=0):
    """(params, xs, carry), none at its start."""
    rng = np.random.default_rng(seed)
    move = lambda a: np.asarray(a) + 0.4 * rng.normal(size=a.shape)  # noqa: E731
    params = jax.tree.map(move, cell.init(jax.random.key(seed), D))
    carry = jax.tree.map(move, cell.initial_carry(cell.weights(params), (B,)))
    return params, rng.normal(size=(T, B, D)), carry


def loss_of(carry, ys):
    return sum(jnp.sum(jnp.sin(jnp.abs(a) + 1.0)) for a in jax.tree.leaves((carry, ys)))


def close(found, expected, tolerance=1e-10):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, np.abs(b).max(initial=0)))


@pytest.mark.parametrize("name", SLOW)
def test_any_chunk_is_the_scan(name, float64):
    """Values and gradients, with lengths, for chunks that divide T or not, are longer than it, or of a single step."""
    cell, T = EVERY[name][0], 11
    given, mask = problem(cell, T), np.arange(T)[:, None] < np.array([11, 4, 0])

    def run(params, xs, carry, chunk):
        def loss(params, xs, carry):
            weights = cell.weights(params)
            run = functools.partial(chunked, chunk=chunk) if chunk else scan
            carry, ys = run(cell, weights, carry, xs, mask, None, None)
            return loss_of(carry, jnp.where(mask[..., None], ys, 0)), (carry, ys)

        return jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(params, xs, carry)

    chunks = (3, 20) if name in QUICK else (3,)
    by_steps, *found = jit(lambda given: [run(*given, chunk) for chunk in (0, *chunks)])(given)
    for values in found:
        close(values[0][0], by_steps[0][0])
        close(values[1], by_steps[1])
        close(values[0][1][0], by_steps[0][1][0])
        close(np.where(mask[..., None], values[0][1][1], 0), np.where(mask[..., None], by_steps[0][1][1], 0))
