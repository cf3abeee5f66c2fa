"""Memories against their papers' equations of one step, what the papers claim of them, and chunks against steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import Complex, absolute, check_equation, jit, normal, relu, sigma

from rnnjax.cells import FAMILIES, memory
from rnnjax.cells import decayed_memories as decayed
from rnnjax.cells import delta_memories as delta
from rnnjax.cells.check import check_cell
from rnnjax.cells.inside import with_output
from rnnjax.cells.mlstm import MLSTMCarry, mlstm
from rnnjax.cells.rwkv import rwkv7
from rnnjax.cells.wrappers import highway, learned_start, residual
from rnnjax.engine.chunked import chunked
from rnnjax.engine.scan import scan
from rnnjax.engine.unroll import make_probe, unroll
from rnnjax.types import Memory, Parts

H, K, V, D = 2, 3, 4, 3  # heads; the width of a cell is H V


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
QUICK = {"mlstm", "rwkv7", "deltaproduct, gated"}  # between them each part of a step and each way through a chunk


def mostly_slow(quick):
    """Every name, slow where it is not among these."""
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in EVERY]


def test_each_has_its_equation():
    assert {make.__name__ for make in FAMILIES["Matrix memories"]} == set(EQUATIONS)


@pytest.mark.parametrize("name", mostly_slow(set(EQUATIONS) - QUICK))
def test_equation_step_by_step(name):
    check_equation(*EVERY[name], method="scan", D=D)


@pytest.mark.parametrize("name", mostly_slow(QUICK))
def test_equation_in_chunks(name):
    check_equation(*EVERY[name], method="chunked:8", T=19, D=D)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n == "deltanet" else pytest.mark.slow) for n in EQUATIONS]
)
def test_equation_of_a_long_sequence(name):
    """Reflections forget no rounding error, and the more rows a chunk has, the more of it its equations make."""
    chunk = 4 if name == "deltaproduct" else 16
    check_equation(*EVERY[name], method=f"chunked:{chunk}", T=4096, B=1, D=D)


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


@pytest.mark.parametrize("name", mostly_slow(set()))
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

    by_steps, *found = jit(lambda given: [run(*given, chunk) for chunk in (0, 1, 3, 8, 11, 20)])(given)
    for values in found:
        close(values[0][0], by_steps[0][0])
        close(values[1], by_steps[1])
        close(values[0][1][0], by_steps[0][1][0])
        close(np.where(mask[..., None], values[0][1][1], 0), np.where(mask[..., None], by_steps[0][1][1], 0))


@pytest.mark.parametrize("name", mostly_slow({"mlstm"}))
def test_a_reset_inside_a_chunk(name, float64):
    """Values and gradients by steps and in chunks, where the start is learned, in both directions."""
    cell, T = learned_start(EVERY[name][0]), 11
    params, xs, carry = problem(cell, T)
    resets = np.zeros((T, 3), bool)
    resets[[0, 2, 3, 5], 0], resets[[4, 9], 1] = True, True

    def run(params, xs, carry, method, reverse):
        def loss(params, xs, carry):
            given = {"lengths": np.array([11, 10, 3]), "reverse": reverse, "method": method, "resets": resets}
            found = unroll(cell, params, xs, carry, **given)
            return loss_of(*found), found

        return jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(params, xs, carry)

    ways = [(method, reverse) for reverse in (False, True) for method in ("scan", "chunked:8")]
    one, other, one_back, other_back = jit(lambda *given: [run(*given, *way) for way in ways])(params, xs, carry)
    close(other, one)
    close(other_back, one_back)


def test_wrappers_that_leave_the_recurrence_leave_it_its_chunks(float64):
    """What the input adds to, or a gate mixes with, and what is not said to be a reading: then it is scanned."""
    plain = delta.deltanet(H * V, **SIZE)
    for wrap in (residual, lambda cell: highway(with_output(learned_start(cell), lambda w, y, z: y**2))):
        cell = wrap(plain)
        check_cell(cell, H * V)
        assert isinstance(cell.form, Memory)
        params = cell.init(jax.random.key(0), H * V)
        xs = normal(9, 2, H * V)
        run = jit(
            lambda cell=cell, params=params, xs=xs: [unroll(cell, params, xs, method=m) for m in ("scan", "chunked:4")]
        )
        close(*run())
    whole = plain._replace(output=lambda weights, S, z: S.sum(-1).reshape(*S.shape[:-3], -1))
    params, xs, _ = problem(whole, 9)
    close(*(jit(functools.partial(unroll, whole, method=m))(params, xs) for m in ("scan", "chunked:4")))


def test_chunks_keep_no_state_of_a_step():
    """The gradient's program holds no array of T states; a probe asks for the gradient by each, and then it does."""
    cell, T = delta.deltanet(32, heads=1), 256
    params, xs = cell.init(jax.random.key(0), D), jnp.zeros((T, D))

    def states(method, probe=None):
        loss = lambda p: unroll(cell, p, xs, method=method, probe=probe)[1].sum()  # noqa: E731
        return f"{T},1,32,32]" in str(jax.make_jaxpr(jax.grad(loss))(params))

    assert not states("chunked") and not states("auto")
    assert states("scan") and states("chunked", make_probe(cell, params, T))


def test_the_option_of_a_chunk_is_checked():
    cell = delta.deltanet(4)
    params, xs = cell.init(jax.random.key(0), D), jnp.zeros((5, D))
    for option in ("0", "half", "-1"):
        with pytest.raises(ValueError, match=f"method 'chunked:{option}': the steps of a chunk are '{option}'"):
            unroll(cell, params, xs, method=f"chunked:{option}")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"k": (H, K + 1)}, r"form.parts returns 'k' of shape \(2, 4\); allowed: \(2, 3\)"),
        ({"log_a": (H,)}, r"form.parts returns 'log_a' of shape \(2,\); allowed: \(2, 3\)"),
        ({"p": (H, K)}, "form.parts returns one of p and q, or b without m in the carry; allowed: both or none"),
        ({"log_b": (H,)}, "form.parts returns one of p and q, or b without m"),
        ({"k": (1, 1, H, K), "v": (1, 1, H, V)}, "allowed: one dimension of writes, none with b"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changed, message):
    shapes = {"r": (H, K), "k": (H, K), "v": (H, V)} | changed

    def parts(weights, x):
        return Parts(**{name: jnp.zeros((*x.shape[:-1], *shape)) for name, shape in shapes.items()})

    with pytest.raises(ValueError, match=message):
        check_cell(memory(lambda key, size: {"W": jnp.zeros(1)}, parts, (H, K, V)), D)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: delta.deltanet(6, heads=4), "heads is 4; allowed: what divides the hidden size, 6"),
        (lambda: delta.deltanet(6, key_size=0), "key_size is 0; allowed: 1, 2, ..."),
        (lambda: decayed.retnet(6, key_size=3), "key_size is 3; allowed: 2, 4, ..."),
        (lambda: decayed.gla(6, rank=0), "rank is 0; allowed: 1, 2, ..."),
        (lambda: delta.deltaproduct(6, writes=0), "writes is 0; allowed: 1, 2, ..."),
        (lambda: delta.fast_weights(6, key_size=2, nu=4), "nu is 4; allowed: 1 to 3"),
        (lambda: decayed.linear_attention(6, feature="relu"), "unknown feature 'relu'; allowed: elu, identity"),
        (lambda: mlstm(6, forget_gate="tanh"), "unknown forget_gate 'tanh'; allowed: sigmoid, exp"),
        (lambda: rwkv7(0), "hidden_size is 0; allowed: 1, 2, ..."),
    ],
)
def test_options_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_initial_values():
    """As stated: what forgets how fast, in what the papers' code draws."""
    key = jax.random.key(0)
    gdn = delta.gated_deltanet(256, heads=128).init(key, D)
    assert 0 < np.exp(gdn["A_log"]).min() < 1 and 15 < np.exp(gdn["A_log"]).max() <= 16
    dt = np.log1p(np.exp(gdn["dt_bias"]))
    assert 0.00099 < dt.min() < 0.0015 and 0.07 < dt.max() < 0.1001
    np.testing.assert_allclose(np.log(dt).mean(), np.log(0.01), atol=0.4)
    lstm = mlstm(16, heads=4).init(key, D)
    np.testing.assert_allclose(lstm["b_f"], [3, 4, 5, 6])
    assert not lstm["W_i"].any() and not lstm["W_f"].any()
    np.testing.assert_allclose(mlstm(256).init(key, 10)["W_q"].std(), np.sqrt(2 / 50), rtol=0.05)
    rwkv = jax.tree.map(np.asarray, rwkv7(16, heads=2).init(key, D))
    np.testing.assert_allclose(rwkv["w0"][[0, -1]], [-8, 3])
    np.testing.assert_allclose(rwkv["k_k"][[0, -1]], [0.76, 0.66], atol=1e-6)
    assert np.abs(rwkv["W_k"]).max() <= 0.05 / 4 < 0.4 / 4 < np.abs(rwkv["W_v"]).max() <= 0.5 / 4
    np.testing.assert_allclose(np.linalg.svd(rwkv["W_a2"])[1], 0.1 * np.sqrt(2), rtol=1e-5)


# What the papers claim, and what follows from the equations.


def run_parts(shape, parts, **options):
    """o of a memory `[T, B, H, V]`, without anything around it, from parts `[T, B, ...]`."""
    cell = memory(lambda key, size: {}, lambda w, x: x, shape)
    carry, weights = cell.initial_carry({}, parts.r.shape[1:2]), {}
    return scan(cell, weights, carry, parts, None, None, None)[1].reshape(*parts.r.shape[:-1], -1)


def parts_of(name, T=7, **changed):
    """(parts, params, xs) of a cell at moved parameters."""
    cell = EVERY[name][0]
    params, xs, _ = problem(cell, T)
    params |= changed
    return cell.project(cell.weights(params), xs), params, xs


@pytest.mark.usefixtures("float64")
class TestIdentities:
    def test_without_forgetting_all_are_linear_attention(self):
        """RetNet at gamma = 1, GLA at open gates, and DeltaNet without what it takes out, of the same q, k and v."""
        plain = decayed.linear_attention(H * V, feature="identity", normalised=False, **SIZE)
        params, xs, carry = problem(plain, 7)
        expected = unroll(plain, params, xs, carry)[1]
        still = decayed.retnet(H * V, decay=np.inf, rotary=False, norm=False, **SIZE)
        close(unroll(still, params, xs, carry)[1] * K**0.5, expected)
        open_gates = {"W_a1": np.zeros((D, 2)), "W_a2": np.zeros((2, H * K)), "b_a": np.full(H * K, 1e4)}
        gated = decayed.gla(H * V, rank=2, norm=False, **SIZE)
        close(unroll(gated, params | open_gates, xs, carry)[1] * K**0.5, expected)
        z = plain.project(params, xs)
        subtracting = z._replace(p=-z.k, q=z.k)
        close(run_parts((H, K, V), subtracting._replace(p=0 * z.k)), run_parts((H, K, V), z))
        assert np.abs(run_parts((H, K, V), subtracting) - run_parts((H, K, V), z)).max() > 0.1

    def test_hgrn2_is_gla_with_the_gate_for_a_key(self):
        z, params, xs = parts_of("hgrn2")
        np.testing.assert_allclose(z.k, 1 - np.exp(z.log_a), rtol=1e-12)
        np.testing.assert_allclose(np.exp(z.log_a), 0.3 + 0.7 * sigma(heads(xs @ params["W_f"])), rtol=1e-12)

    def test_gated_deltanet_without_decay_is_deltanet(self):
        """And DeltaProduct with one write is."""
        z, params, xs = parts_of("gated_deltanet", A_log=np.full(H, -np.inf))
        assert not np.any(z.log_a)
        linear_v = z._replace(v=heads(xs @ params["W_v"]))
        own = {name: params[name] for name in ("W_q", "W_k", "W_v", "W_beta", "gain")}
        plain = delta.deltanet(H * V, norm=False, **SIZE)
        expected = unroll(plain, own, xs)[1]
        close(flat(run_parts((H, K, V), linear_v)), expected)
        one = delta.deltaproduct(H * V, writes=1, negative_eigenvalues=False, norm=False, **SIZE)
        close(unroll(one, own, xs)[1], expected)

    def test_rwkv7_with_a_rate_of_0_is_a_linear_attention_that_decays(self):
        z, _, _ = parts_of("rwkv7", a0=np.full(H * V, -1e4))
        assert not np.any(z.p) and np.all(np.exp(z.log_a) > np.exp(-np.exp(-0.5)))
        S, expected = np.zeros((3, H, V, V)), []
        for w, k, v, r in zip(np.exp(z.log_a), z.k, z.v, z.r, strict=True):
            S = w[..., None] * S + outer(k, v)
            expected.append(read(S, r))
        close(run_parts((H, V, V), z), np.stack(expected))

    def test_mlstm_does_not_depend_on_its_scale(self):
        """From another m_0 with C_0 and n_0 rescaled: the same outputs, step by step and in chunks; C exp(m) is one."""
        cell = EVERY["mlstm"][0]
        params, xs, carry = problem(cell, 9)
        shift = normal(3, H, seed=5) * 3
        C, n, m = carry
        other = MLSTMCarry(C * np.exp(-shift)[..., None, None], n * np.exp(-shift)[..., None], m + shift)
        for method in ("scan", "chunked:4"):
            (last, ys), (last_2, ys_2) = (unroll(cell, params, xs, c, method=method) for c in (carry, other))
            close(ys_2, ys)
            close(*(c.C * np.exp(c.m)[..., None, None] for c in (last_2, last)))

    def test_mlstm_survives_gates_that_no_exponential_does(self):
        cell = EVERY["mlstm"][0]
        params, xs, _ = problem(cell, 9)
        params = {name: a.astype(np.float32) for name, a in params.items()} | {"b_i": np.float32([500.0, -500.0])}
        for method in ("scan", "chunked:4"):
            loss = lambda p, method=method: unroll(cell, p, xs.astype(np.float32), method=method)[1].sum()  # noqa: E731
            assert all(np.all(np.isfinite(a)) for a in jax.tree.leaves(jit(jax.value_and_grad(loss))(params)))

    def test_the_delta_rule_recalls_every_value_of_orthonormal_keys(self):
        """And a key that comes again gives its new value alone, where a sum would give both."""
        keys = np.linalg.qr(normal(4, 4))[0]
        k = np.concatenate([keys, keys[:1]])[:, None, None]
        v = normal(5, 1, 1, 3)
        write = Parts(r=k, k=k, v=v, p=-k, q=k)
        queries = np.concatenate([k, keys[:, None, None]])
        ask = jax.tree.map(lambda a: np.concatenate([a, 0 * a[:4]]), write)._replace(r=queries)
        np.testing.assert_allclose(
            run_parts((1, 4, 3), ask)[5:, 0, 0], np.concatenate([v[4:], v[1:4]])[:, 0, 0], atol=1e-14
        )

    def test_a_reflection_counts_parity_and_two_of_them_turn(self):
        """Exactly at any length: beta = 2 where a bit is 1, and 0 elsewhere; three turns of a third are none."""
        bits = np.random.default_rng(0).integers(0, 2, 5000)
        k = np.broadcast_to([1.0, 0.0], (5000, 1, 1, 2))
        first = np.arange(5000)[:, None, None, None] == 0
        beta = np.where(first, 0, 2.0 * bits[:, None, None, None])
        parts = Parts(r=k, k=k * first, v=np.ones((5000, 1, 1, 1)), p=-beta * k, q=k)
        for method in (scan, functools.partial(chunked, chunk=64)):
            cell = memory(lambda key, size: {}, lambda w, x: x, (1, 2, 1))
            ys = method(cell, {}, cell.initial_carry({}, (1,)), parts, None, None, None)[1][:, 0, 0]
            np.testing.assert_array_equal(ys, (-1.0) ** np.cumsum(np.where(np.arange(5000) == 0, 0, bits)))
        angle = np.pi / 3
        two = np.stack([[1.0, 0.0], [np.cos(angle), np.sin(angle)]])[None, None, :, None]
        two = np.broadcast_to(two, (6, 1, 2, 1, 2))
        turn = Parts(
            r=np.broadcast_to([1.0, 0.0], (6, 1, 1, 2)), k=0 * two, v=np.zeros((6, 1, 2, 1, 1)), p=-2 * two, q=two
        )
        start = np.array([1.0, 0.0]).reshape(1, 1, 2, 1)
        cell = memory(lambda key, size: {}, lambda w, x: x, (1, 2, 1))
        ys = chunked(cell, {}, jnp.asarray(start), turn, None, None, None, chunk=4)[1][:, 0, 0]
        np.testing.assert_allclose(ys, np.cos(2 * angle * np.arange(1, 7)), atol=1e-12)
