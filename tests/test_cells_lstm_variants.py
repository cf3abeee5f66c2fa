"""Relatives of the LSTM: each against its paper's equation, and what its paper claims."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import check_equation, normal, parts, relu, sigma

from rnnjax.cells import (
    CELLS,
    LSTMCarry,
    janet,
    lstm,
    lstm_1997,
    lstm_projected,
    mi_lstm,
    mlstm_mul,
    nested_lstm,
    phased_lstm,
    qrnn,
    slstm,
    sru,
    sru_v1,
    ur_lstm,
)
from rnnjax.cells.elementwise import QRNNCarry, SRUCarry
from rnnjax.cells.lstm_maps import NestedCarry
from rnnjax.cells.phased import PhasedCarry, openness
from rnnjax.cells.slstm import SLSTMCarry
from rnnjax.engine.unroll import unroll

D, H = 3, 4


# The papers' equations, one step each.


def janet_step(p, h, x):
    """Van der Westhuizen & Lasenby (2018), eqs. 7 to 9."""
    (W_f, W_c), (U_f, U_c), (b_f, b_c) = (parts(p, name, 2) for name in ("W_x", "W_h", "b"))
    s = x @ W_f + h @ U_f + b_f
    return sigma(s) * h + (1 - sigma(s - 1.0)) * np.tanh(x @ W_c + h @ U_c + b_c)


def ur_lstm_step(p, carry, x):
    """Gu et al. (2019), eqs. 5 to 11: the effective gate as the polynomial in f that the paper gives."""
    (W_f, W_r, W_u, W_o), (U_f, U_r, U_u, U_o), (b_f, b_r, b_c, b_o) = (parts(p, n, 4) for n in ("W_x", "W_h", "b"))
    c, h = carry
    f = sigma(x @ W_f + h @ U_f + b_f + p["b_u"])
    r = sigma(x @ W_r + h @ U_r + b_r - p["b_u"])
    g = 2 * r * f + (1 - 2 * r) * f**2
    c = g * c + (1 - g) * np.tanh(x @ W_u + h @ U_u + b_c)
    return LSTMCarry(c, sigma(x @ W_o + h @ U_o + b_o) * np.tanh(c))


def lstm_of(s, c):
    """The LSTM's step from its pre-activations i, f, g, o: (c, h)."""
    i, f, g, o = s
    c = sigma(f) * c + sigma(i) * np.tanh(g)
    return c, sigma(o) * np.tanh(c)


def projected_step(p, carry, x, peepholes=False):
    """Sak et al. (2014), eqs. 1 to 6, with W_rm as W_r; r is h."""
    c, h = carry
    i, f, g, o = np.split(x @ p["W_x"] + h @ p["W_h"] + p["b"], 4, axis=-1)
    if peepholes:
        i, f = i + p["p_i"] * c, f + p["p_f"] * c
        new = sigma(f) * c + sigma(i) * np.tanh(g)
        o = o + p["p_o"] * new
    c, m = lstm_of((i, f, g, o), c)
    return LSTMCarry(c, m @ p["W_r"])


def first_lstm_step(p, carry, x, truncated=False):
    """Hochreiter & Schmidhuber (1997), section 4 and appendix A.1; the real part of h is h without its direction."""
    s_c, h = carry
    net = x @ p["W_x"] + (h.real if truncated else h) @ p["W_h"] + p["b"]
    net_in, net_c, net_out = np.split(net, 3, axis=-1)
    s_c = s_c + sigma(net_in) * (4 / (1 + np.exp(-net_c)) - 2)
    return LSTMCarry(s_c, sigma(net_out) * (2 / (1 + np.exp(-s_c)) - 1))


def slstm_step(p, carry, x, heads=2, log_f=lambda f: -np.log(1 + np.exp(-f))):
    """Beck et al. (2024), eqs. 8 to 17, head by head; the larger of a and b as b + relu(a - b)."""
    c, n, m, h = carry
    R = p["W_h"]
    units = R.shape[1]
    s = x @ p["W_x"] + p["b"]
    for k in range(heads):
        of_head = h[..., k * units : (k + 1) * units] @ R[k]
        s = s + 0 * of_head.sum()  # complex where h is
        for gate in range(4):
            first = gate * heads * units + k * units
            s[..., first : first + units] += of_head[..., gate * units : (gate + 1) * units]
    i, f, z, o = np.split(s, 4, axis=-1)
    new = i + relu(log_f(f) + m - i)
    i, f = np.exp(i - new), np.exp(log_f(f) + m - new)
    c, n = f * c + i * np.tanh(z), f * n + i
    return SLSTMCarry(c, n, new, sigma(o) * c / n)


def sru_step(p, carry, x):
    """Lei et al. (2018), eqs. 1 to 4, with a highway bias of 0 at the start."""
    (W, W_f, W_r), (b_f, b_r), (v_f, v_r) = parts(p, "W_x", 3), parts(p, "b", 2), parts(p, "W_h", 2)
    f = sigma(x @ W_f + v_f * carry.c + b_f)
    r = sigma(x @ W_r + v_r * carry.c + b_r)
    c = f * carry.c + (1 - f) * (x @ W)
    return SRUCarry(c, r * c + (1 - r) * (x @ p["W_s"] if "W_s" in p else 3**0.5 * x))


def sru_v1_step(p, c, x):
    """The same without v: (c, h)."""
    carry = sru_step(p | {"W_h": np.zeros(2 * c.shape[-1])}, SRUCarry(c, c), x)
    return carry.c, carry.h


def qrnn_step(p, carry, x, pooling="fo"):
    """Bradbury et al. (2016), eqs. 3 to 5, where `past` is what each earlier input adds to the next steps."""
    columns = p["b"].shape[0]
    W = np.split(p["W"], p["W"].shape[1] // columns, axis=1)
    window = len(W)
    sums = [*(carry.past[..., j * columns : (j + 1) * columns] for j in range(window - 1)), 0]
    s = [x @ W[j] + sums[j] for j in range(window)]
    z, f, *rest = np.split(s[0] + p["b"], len(pooling) + 1 if pooling != "ifo" else 4, axis=-1)
    z, f = np.tanh(z), sigma(f)
    c = f * carry.c + (sigma(rest[1]) if pooling == "ifo" else 1 - f) * z
    return QRNNCarry(c, np.concatenate(s[1:], axis=-1), c if pooling == "f" else sigma(rest[0]) * c)


def qrnn_of_one_input_step(p, c, x):
    z, f, o = np.split(x @ p["W"] + p["b"], 3, axis=-1)
    c = sigma(f) * c + (1 - sigma(f)) * np.tanh(z)
    return c, sigma(o) * c


def multiplicative_step(p, carry, x, gate_inside=False):
    """Krause et al. (2016), eqs. 9 to 14, and the earlier form with the output gate inside the tanh."""
    m = (x @ p["W_m"]) * (carry.h @ p["U_m"])
    if not gate_inside:
        return LSTMCarry(*lstm_of(np.split(x @ p["W_x"] + m @ p["W_h"] + p["b"], 4, axis=-1), carry.c))
    i, f, g, o = np.split(x @ p["W_x"] + m @ p["W_h"], 4, axis=-1)
    b_i, b_f, b, b_o = parts(p, "b", 4)
    c = sigma(f + b_f) * carry.c + sigma(i + b_i) * g
    return LSTMCarry(c, np.tanh(sigma(o + b_o) * c + b))


def mi_lstm_step(p, carry, x):
    """Wu et al. (2016), eq. 4, for each gate."""
    wx, uh = x @ p["W_x"], carry.h @ p["W_h"]
    s = p["alpha"] * wx * uh + p["beta_1"] * uh + p["beta_2"] * wx + p["b"]
    return LSTMCarry(*lstm_of(np.split(s, 4, axis=-1), carry.c))


def nested_step(p, carry, x):
    """Moniz & Krueger (2017), eqs. 6 to 17: an LSTM's step on what the outer gates let through."""
    i, f, g, o = np.split(x @ p["W_x"] + carry.h @ p["W_h"] + p["b"], 4, axis=-1)
    inner = (sigma(i) * g) @ p["W_in"] + (sigma(f) * carry.c) @ p["U_in"] + p["b_in"]
    c_in, c = lstm_of(np.split(inner, 4, axis=-1), carry.c_in)
    return NestedCarry(c_in, c, sigma(o) * np.tanh(c))


def phased_step(p, carry, x, r=0.3, leak=0.1):
    """Neil et al. (2016), eqs. 1 to 11, with the peepholes; the remainder as a - floor(a), of the real part."""
    (W_i, W_f, W_g, W_o), (U_i, U_f, U_g, U_o), (b_i, b_f, b_g, b_o) = (parts(p, n, 4) for n in ("W_x", "W_h", "b"))
    c, h, t = carry
    i = sigma(x @ W_i + h @ U_i + p["p_i"] * c + b_i)
    f = sigma(x @ W_f + h @ U_f + p["p_f"] * c + b_f)
    new = f * c + i * np.tanh(x @ W_g + h @ U_g + b_g)
    o = sigma(x @ W_o + h @ U_o + p["p_o"] * new + b_o)
    turns = (t - p["s"]) / p["tau"]
    phi = turns - np.floor(turns.real)
    k = np.where(phi.real < r / 2, 2 * phi / r, np.where(phi.real < r, 2 - 2 * phi / r, leak * phi))
    return PhasedCarry(k * new + (1 - k) * c, k * o * np.tanh(new) + (1 - k) * h, t + 1)


EQUATIONS = {
    "janet": (janet(H), janet_step),
    "ur_lstm": (ur_lstm(H), ur_lstm_step),
    "lstm_projected": (lstm_projected(H, projection_size=3), projected_step),
    "lstm_projected-peepholes": (
        lstm_projected(H, projection_size=3, peepholes=True),
        functools.partial(projected_step, peepholes=True),
    ),
    "lstm_1997": (lstm_1997(H, truncated=False), first_lstm_step),
    "lstm_1997-truncated": (lstm_1997(H), functools.partial(first_lstm_step, truncated=True)),
    "slstm": (slstm(H, heads=2), slstm_step),
    "slstm-exp": (
        slstm(H, heads=1, forget_gate="exp"),
        functools.partial(slstm_step, heads=1, log_f=lambda f: f),
    ),
    "sru": (sru(H), sru_step),
    "sru-skip": (sru(D), sru_step),
    "sru_v1": (sru_v1(D), sru_v1_step),
    "qrnn": (qrnn(H), qrnn_step),
    "qrnn-f": (qrnn(H, window=3, pooling="f"), functools.partial(qrnn_step, pooling="f")),
    "qrnn-ifo": (qrnn(H, window=3, pooling="ifo"), functools.partial(qrnn_step, pooling="ifo")),
    "qrnn-1": (qrnn(H, window=1), qrnn_of_one_input_step),
    "mlstm_mul": (mlstm_mul(H), multiplicative_step),
    "mlstm_mul-inside": (mlstm_mul(H, gate_inside=True), functools.partial(multiplicative_step, gate_inside=True)),
    "mi_lstm": (mi_lstm(H), mi_lstm_step),
    "nested_lstm": (nested_lstm(H), nested_step),
    "phased_lstm": (phased_lstm(H, open_ratio=0.3, leak=0.1), phased_step),
}


# With make test-slow: options, but for those that are most of the cell.
OPTIONS = {"lstm_1997", *(name for name in EQUATIONS if "-" in name)} - {"lstm_1997-truncated", "qrnn-ifo"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in OPTIONS)) for n in EQUATIONS])
def test_the_papers_equation(name):
    check_equation(*EQUATIONS[name])


def one_step(cell, params, carry, x):
    """(the carry after a step, what is shown), operation by operation: nothing is compiled for it."""
    weights = cell.weights(params)
    z = cell.project(weights, x)
    carry = cell.step(weights, carry, z)
    return carry, cell.output(weights, carry, z)


# What the authors' packages compute, see make_lstm_variants_vectors.py.

VECTORS = np.load(Path(__file__).parent / "data" / "lstm_variants_vectors.npz", allow_pickle=False)


def package_projected(v):
    """(cell, params, xs, carry) of an `nn.LSTM` with `proj_size`, from its own arrays."""
    params = {
        "W_x": v["weight_ih_l0"].T,
        "W_h": v["weight_hh_l0"].T,
        "b": v["bias_ih_l0"] + v["bias_hh_l0"],
        "W_r": v["weight_hr_l0"].T,
    }
    return lstm_projected(4, projection_size=3), params, v["xs"], LSTMCarry(v["c0"][0], v["h0"][0])


def package_slstm(v):
    """The same of xlstm's cell, whose inputs are the gates' own: W_x is the identity."""
    heads, rows, units = v["R"].shape  # [heads, gate and unit, unit of h]
    assert (rows, heads * units) == (4 * units, 4)
    zero = jnp.zeros((v["xs"].shape[1], 4))
    params = {"W_x": jnp.eye(16), "W_h": v["R"].transpose(0, 2, 1), "b": v["b"]}
    return slstm(4, heads=heads), params, v["xs"], SLSTMCarry(zero, zero, zero, zero)


def package_sru(v):
    """The same of the sru package, whose columns are unit by unit: z, f, r and, where D is not H, what skips c."""
    W = v["weight"].reshape(v["weight"].shape[0], 4, -1)
    params = {"W_x": jnp.concatenate([W[..., k] for k in range(3)], axis=1), "b": v["bias"]}
    params |= {"W_s": W[..., 3]} if W.shape[2] == 4 else {}
    if "weight_c" not in v:
        return sru_v1(4, highway_bias=-1.0), params, v["xs"], v["c0"]
    return sru(4, highway_bias=-1.0), params | {"W_h": v["weight_c"]}, v["xs"], SRUCarry(v["c0"], v["c0"])


PACKAGES = {
    "lstm_projected": package_projected,
    "slstm": package_slstm,
    "sru": package_sru,
    "sru_skip": package_sru,
    "sru_v1": package_sru,
}


@pytest.mark.parametrize(("prefix", "package"), PACKAGES.items(), ids=PACKAGES)
def test_stored_vectors_of_a_package(prefix, package):
    v = {name.removeprefix(f"{prefix}/"): VECTORS[name] for name in VECTORS.files if name.startswith(f"{prefix}/")}

    def loss(given):
        carry, ys = unroll(*package(v | given))
        return jnp.sum(v["dys"] * ys), (carry, ys)

    given = {name.removeprefix("grad/"): v[name.removeprefix("grad/")] for name in v if name.startswith("grad/")}
    assert len(given) >= 3  # weights and inputs
    gradient, (carry, ys) = jax.jit(jax.grad(loss, has_aux=True))(given)
    np.testing.assert_allclose(ys, v["ys"], atol=1e-5)
    last = {"h_n": getattr(carry, "h", None), "c_n": getattr(carry, "c", carry)}
    last |= {"state": [carry.h, *carry[:3]]} if prefix == "slstm" else {}
    for name, value in ((name, value) for name, value in last.items() if name in v):
        np.testing.assert_allclose(np.asarray(value), v[name].reshape(np.shape(value)), atol=1e-5)
    for name, value in gradient.items():
        np.testing.assert_allclose(value, v[f"grad/{name}"], atol=1e-5 * max(1, np.abs(value).max()), err_msg=name)


# JANET.


def test_janet_lets_in_more_than_it_forgets_by_beta_alone():
    x, h = jnp.zeros(D), jnp.full(H, 0.5)
    p = janet(H).init(jax.random.key(0), D)
    p = p | {"W_h": jnp.zeros((H, 2 * H)), "b": jnp.concatenate([jnp.full(H, 1.0), jnp.full(H, 100.0)])}
    for beta, let_in in ((0.0, 1 - sigma(1.0)), (1.0, 0.5), (100.0, 1.0)):
        new, _ = one_step(janet(H, beta=beta), p, h, x)
        np.testing.assert_allclose(new, 0.5 * sigma(1.0) + let_in, rtol=1e-5)


def test_janet_starts_with_its_forget_bias():
    for options, lower, upper in (({}, 1, 1), ({"forget_bias": 2.0}, 2, 2), ({"chrono_t_max": 50}, 0, np.log(49))):
        b_f, b_c = np.split(janet(64, **options).init(jax.random.key(0), D)["b"], 2)
        assert (b_c == 0).all() and (b_f >= lower).all() and (b_f <= upper).all()
    assert np.ptp(np.exp(b_f)) > 40
    with pytest.raises(ValueError, match=r"forget_bias=1.0 and chrono_t_max=9 both set b_f; allowed: one of them"):
        janet(H, forget_bias=1.0, chrono_t_max=9)
    with pytest.raises(ValueError, match=r"chrono_t_max=2; allowed: more than 2"):
        janet(H, chrono_t_max=2)


def test_beta_may_be_traced():
    xs = np.random.default_rng(0).normal(size=(4, D)).astype(np.float32)
    p = janet(H).init(jax.random.key(0), D)
    gradient = lambda beta: jax.grad(lambda p: unroll(janet(H, beta=beta), p, xs)[1].sum())(p)  # noqa: E731
    lanes = jax.jit(jax.vmap(gradient))(jnp.array([0.5, 1.0]))
    for name, expected in gradient(0.5).items():
        np.testing.assert_allclose(lanes[name][0], expected, rtol=1e-4, atol=1e-6)


# UR-LSTM.


def test_the_gate_of_ur_lstm_starts_uniform():
    H = 200
    f = sigma(np.asarray(ur_lstm(H).init(jax.random.key(0), D)["b_u"]))
    counts, _ = np.histogram(f, bins=10, range=(0, 1))
    assert counts.min() > 8 and counts.max() < 35 and f.min() >= 1 / H and f.max() <= 1 - 1 / H
    assert np.isfinite(ur_lstm(1).init(jax.random.key(0), D)["b_u"]).all()


def test_the_gate_of_ur_lstm_is_refined_by_up_to_f_times_1_minus_f():
    """With c = 1 and u = 0 the new memory is the effective gate itself; b_r opens and closes the refinement."""
    H = 50
    cell = ur_lstm(H)
    p = cell.init(jax.random.key(0), D)
    p = p | {"W_h": jnp.zeros((H, 4 * H)), "b_u": jnp.linspace(-4, 4, H)}
    f, start = sigma(np.linspace(-4, 4, H)), LSTMCarry(jnp.ones(H), jnp.zeros(H))
    for b_r, expected in ((-99.0, f - f * (1 - f)), (99.0, f + f * (1 - f))):
        shifted = p | {"b": p["b"].at[H : 2 * H].set(b_r)}
        carry, _ = one_step(cell, shifted, start, jnp.zeros(D))
        np.testing.assert_allclose(carry.c, expected, atol=1e-6)
    carry, _ = one_step(cell, p, start, jnp.zeros(D))  # r = 1 - f: nearer to 1/2 where f is saturated
    np.testing.assert_allclose(carry.c, f + (1 - 2 * f) * f * (1 - f), atol=1e-6)
    assert (np.abs(np.asarray(carry.c) - 0.5) <= np.abs(f - 0.5) + 1e-6).all()


# The LSTM of 1997.


def jacobian(cell, xs, last):
    """`(params, carry at the start) -> the Jacobian of last(carry at the end) by that at the start`."""
    return jax.jit(jax.jacrev(lambda p, carry: last(unroll(cell, p, xs, carry)[0]), argnums=1))


def test_an_error_stays_in_the_carousel_as_it_is():
    """Truncated, dc_100 / dc_0 is exactly the identity, whatever the gates do; so it is where they are shut."""
    xs = normal(100, D).astype(np.float32)
    start = LSTMCarry(jnp.full(H, 0.5), jnp.full(H, 0.2))
    p = lstm_1997(H).init(jax.random.key(0), D)
    p = {n: a + normal(*a.shape).astype(np.float32) for n, a in p.items()}
    cut = jacobian(lstm_1997(H), xs, lambda carry: carry.c)(p, start)
    assert (cut.c == np.eye(H)).all() and (cut.h == 0).all()
    whole = jacobian(lstm_1997(H, truncated=False), xs, lambda carry: carry.c)
    assert np.abs(whole(p, start).c - np.eye(H)).max() > 0.1
    shut = p | {"b": p["b"].at[:H].set(-1e4)}  # y_in is exactly 0
    assert (whole(shut, start).c == np.eye(H)).all()


def test_truncation_cuts_the_gates_and_not_the_weights():
    xs = normal(3, D).astype(np.float32)
    cells = [lstm_1997(H, truncated=truncated) for truncated in (True, False)]
    p = lstm_1997(H).init(jax.random.key(0), D)

    @jax.jit
    def run(p):
        losses = {
            m: [jax.value_and_grad(lambda p, c=c, m=m: unroll(c, p, xs, method=m)[1].sum())(p) for c in cells]
            for m in ("scan", "deferred")
        }
        return losses, [jax.grad(lambda p, c=c: unroll(c, p, xs[:1])[1].sum())(p) for c in cells]

    losses, (cut, whole) = run(p)
    jax.tree.map(np.testing.assert_array_equal, cut, whole)  # of one step: there is nothing to cut
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), *losses.values())
    (cut, cut_gradient), (whole, whole_gradient) = losses["scan"]
    assert cut == whole  # the forward pass is the same
    for name in ("W_x", "W_h", "b"):
        assert (cut_gradient[name] != 0).any() and (cut_gradient[name] != whole_gradient[name]).any()


def test_the_first_lstm_starts_as_in_its_experiments():
    p = lstm_1997(2).init(jax.random.key(0), D)
    np.testing.assert_allclose(p["b"], [-3, -6, 0, 0, 0, 0])  # adding
    np.testing.assert_allclose(lstm_1997(4, output_bias=-4.0).init(jax.random.key(0), D)["b"][-4:], [-1, -2, -3, -4])
    W = np.concatenate([a.ravel() for n, a in lstm_1997(64).init(jax.random.key(0), 64).items() if n != "b"])
    assert np.abs(W).max() <= 0.1 and np.abs(W.mean()) < 1e-3 and abs(W.std() - 0.2 / np.sqrt(12)) < 1e-3


# The LSTM with a projection.


def test_a_projection_shows_and_feeds_back_fewer_units():
    cell = lstm_projected(5)
    p = cell.init(jax.random.key(0), D)
    carry, y = one_step(cell, p, cell.initial_carry(p, ()), normal(D))
    assert carry.c.shape == (5,) and carry.h.shape == (3,) and y.shape == (3,)
    for size in (0, 6, 2.5):
        with pytest.raises(ValueError, match=rf"projection_size is {size}; allowed: 1, \.\.\., 5, the hidden size"):
            lstm_projected(5, projection_size=size)


# sLSTM.


def test_the_stabiliser_of_slstm_changes_no_output():
    """c and n times e^-d, m plus d: the same state. And where nothing was let in yet, m_0 is not looked at."""
    cell, xs = slstm(H, heads=2), normal(6, D).astype(np.float32)
    p = cell.init(jax.random.key(0), D)
    p = {n: a + normal(*a.shape).astype(np.float32) for n, a in p.items()}
    run = jax.jit(lambda carry: unroll(cell, p, xs, carry)[1])
    c, n, m, h = (jnp.abs(normal(H, seed=i)).astype(np.float32) for i in range(4))
    for d in (-3.0, 3.0):
        moved = run(SLSTMCarry(c * np.exp(-d), n * np.exp(-d), m + d, h))
        np.testing.assert_allclose(moved, run(SLSTMCarry(c, n, m, h)), atol=1e-5)
    zero = jnp.zeros(H)
    for m_0 in (-50.0, 50.0):
        np.testing.assert_allclose(run(SLSTMCarry(zero, zero, zero + m_0, h)), run(SLSTMCarry(zero, zero, zero, h)))


def test_slstm_stays_finite_where_its_gates_are_open_wide():
    cell, xs = slstm(H), jnp.full((50, D), 1e3)
    p = cell.init(jax.random.key(0), D) | {"W_x": jnp.ones((D, 4 * H))}
    ys, gradient = jax.jit(jax.value_and_grad(lambda p: unroll(cell, p, xs)[1].sum()))(p)
    assert np.isfinite(ys) and all(np.isfinite(g).all() for g in gradient.values())


def test_slstm_starts_as_its_authors_code():
    p = slstm(12, heads=4).init(jax.random.key(0), 1000)
    b_i, b_f, b_z, b_o = np.split(p["b"], 4)
    np.testing.assert_allclose(b_f, np.tile([5, 5 - 12 * 0.5**0.3, -7], 4), atol=1e-5)
    assert (b_i == 0).all() and (b_z == 0).all() and (b_o == 0).all() and (p["W_h"] == 0).all()
    assert abs(np.std(p["W_x"]) - np.sqrt(2 / 5000)) < 5e-4 and p["W_h"].shape == (4, 3, 12)
    for heads in (0, 3):
        with pytest.raises(ValueError, match=rf"heads is {heads}; allowed: what divides the hidden size, 4"):
            slstm(4, heads=heads)
    with pytest.raises(ValueError, match="unknown forget_gate 'tanh'; allowed: sigmoid, exp"):
        slstm(4, forget_gate="tanh")


def test_heads_of_slstm_do_not_see_each_other():
    cell = slstm(H, heads=2)
    p = {n: a + 1.0 for n, a in cell.init(jax.random.key(0), D).items()}
    start = jax.tree.map(lambda a: a + 0.5, cell.initial_carry(p, ()))
    J = jacobian(cell, normal(2, D).astype(np.float32), lambda carry: carry.h)(p, start).h
    assert (J[:2, 2:] == 0).all() and (J[2:, :2] == 0).all() and (J[:2, :2] != 0).all() and (J[2:, 2:] != 0).all()


# SRU and QRNN.


def test_sru_keeps_the_size_of_its_input_at_the_start():
    """Lei et al. (2018), section 3.2: alpha makes up for what the highway connection takes."""
    x = normal(2000, 64).astype(np.float32)
    for bias in (0.0, -2.0):
        stds = {}
        for rescale in (True, False):
            cell = sru_v1(64, highway_bias=bias, rescale=rescale)
            stds[rescale] = float(np.std(one_step(cell, cell.init(jax.random.key(0), 64), jnp.zeros(64), x)[1]))
        assert abs(stds[True] - 1) < 0.15 and abs(stds[True] - 1) < abs(stds[False] - 1)
    p = sru(300).init(jax.random.key(0), 200)
    W, W_f, W_r = np.split(p["W_x"], 3, axis=1)
    for a, variance in ((W, 1 / 200), (W_f, 0.5 / 200), (W_r, 0.5 / 200), (p["W_h"], 0.5), (p["W_s"], 3 / 200)):
        assert abs(np.var(a) / variance - 1) < 0.1
    assert abs(np.var(sru_v1(300).init(jax.random.key(0), 200)["W_x"]) * 200 - 1) < 0.02
    assert "W_s" not in sru(200).init(jax.random.key(0), 200) and (p["b"] == 0).all()


def test_qrnn_is_a_convolution_and_then_a_linear_memory():
    """All steps at once in NumPy, and the same network with a window of 1 on the last three inputs side by side."""
    xs = normal(6, D).astype(np.float32)
    wide, narrow = qrnn(H, window=3), qrnn(H, window=1)
    p = wide.init(jax.random.key(0), D)
    padded = np.concatenate([np.zeros((2, D), np.float32), xs])
    W = np.split(np.asarray(p["W"]), 3, axis=1)
    s = sum(padded[2 - j : 8 - j] @ W[j] for j in range(3))
    z, f, o = np.tanh(s[:, :H]), sigma(s[:, H : 2 * H]), sigma(s[:, 2 * H :])
    c, expected = np.zeros(H), []
    for t in range(6):
        c = f[t] * c + (1 - f[t]) * z[t]
        expected.append(o[t] * c)
    np.testing.assert_allclose(unroll(wide, p, xs)[1], expected, atol=1e-6)
    side_by_side = np.concatenate([padded[2 - j : 8 - j] for j in range(3)], axis=-1)
    joined = p | {"W": np.concatenate(W)}
    for method in ("scan", "associative"):
        ys = unroll(narrow, joined, side_by_side, method=method)[1]
        np.testing.assert_allclose(ys, expected, atol=1e-6)


def test_qrnn_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match=r"window is 0; allowed: 1, 2, \.\.\."):
        qrnn(H, window=0)
    with pytest.raises(ValueError, match="unknown pooling 'max'; allowed: f, fo, ifo"):
        qrnn(H, pooling="max")


# Multiplicative, multiplicatively integrated and nested LSTMs.


def test_mi_lstm_without_its_product_is_an_lstm():
    cell = mi_lstm(H, alpha=0.0, beta=1.0, forget_bias=1.0)
    p, x, carry = cell.init(jax.random.key(0), D), normal(D), LSTMCarry(jnp.ones(H), jnp.linspace(-1, 1, H))
    plain = {name: p[name] for name in ("W_x", "W_h", "b")}
    np.testing.assert_allclose(one_step(cell, p, carry, x)[0], one_step(lstm(H), plain, carry, x)[0], atol=1e-6)
    np.testing.assert_array_equal(p["b"], np.repeat([0, 1, 0, 0], H))


def test_each_input_of_mlstm_mul_has_its_own_transition_matrix():
    """m depends on h through U_m diag(W_m x): of x = 0 it forgets h, of -x its sign is the other."""
    cell = mlstm_mul(H)
    p = cell.init(jax.random.key(0), D) | {"W_x": jnp.zeros((D, 4 * H))}
    x, h = normal(D), LSTMCarry(jnp.ones(H), jnp.ones(H))
    plus, minus, zero = (one_step(cell, p, h, sign * x)[0].c for sign in (1, -1, 0))
    assert not np.allclose(plus, minus)
    np.testing.assert_allclose(zero, np.full(H, sigma(1.0)), rtol=1e-6)


def test_the_inner_memory_of_a_nested_lstm_may_stay_where_the_outer_one_is_rewritten():
    """Its inner gates shut but for the forget gate: c_in is kept exactly, whatever the outer gates do."""
    cell = nested_lstm(H)
    b_in = np.repeat([-1e4, 1e4, 0, 0], H).astype(np.float32)
    p = cell.init(jax.random.key(0), D) | {"b_in": jnp.asarray(b_in)}
    start = NestedCarry(jnp.linspace(-1, 1, H), jnp.zeros(H), jnp.zeros(H))
    carry, _ = unroll(cell, p, normal(50, D), start)
    np.testing.assert_array_equal(carry.c_in, start.c_in)


def test_all_start_with_their_forget_bias():
    for name in ("lstm_projected", "mlstm_mul", "mi_lstm", "nested_lstm"):
        p = CELLS[name](H, forget_bias=3.0).init(jax.random.key(0), D)
        for b in (b for n, b in p.items() if n.startswith("b") and not n.startswith("beta")):
            np.testing.assert_array_equal(b, np.repeat([0, 3, 0, 0], H))


# The phased LSTM.


def test_a_phased_unit_opens_once_in_a_period_and_keeps_its_state_while_shut():
    t, tau, s = np.arange(60.0), np.array([6.0, 10.0, 30.0]), np.array([0.5, 2.5, 29.0])
    k = np.asarray(openness(t[:, None], tau, s, 0.5, 0.0))
    assert k.max() <= 1 and k.min() >= 0
    np.testing.assert_allclose((k > 0).mean(axis=0), 0.5, atol=0.1)
    np.testing.assert_allclose(k.mean(axis=0), 0.25, atol=0.05)  # a triangle of height 1 over half a period
    np.testing.assert_allclose(k[30:], k[:30], atol=1e-6)
    phi = ((t[:, None] - s) / tau) % 1
    np.testing.assert_allclose(openness(t[:, None], tau, s, 0.5, 0.1)[phi >= 0.5], 0.1 * phi[phi >= 0.5], atol=1e-6)

    cell = phased_lstm(3, open_ratio=0.5, leak=0.0)
    p = cell.init(jax.random.key(0), D) | {"tau": jnp.asarray(tau, jnp.float32), "s": jnp.asarray(s, jnp.float32)}
    carry, hs = unroll(cell, p, normal(60, D).astype(np.float32))
    assert carry.t.tolist() == [60]
    moved = np.diff(np.asarray(hs), axis=0) != 0
    np.testing.assert_array_equal(moved, k[1:] > 0)


def test_phased_periods_start_log_uniform_and_shifts_within_them():
    p = phased_lstm(300).init(jax.random.key(0), D)
    log_tau = np.log(p["tau"])
    assert log_tau.min() >= 1 and log_tau.max() <= 5 and abs(log_tau.mean() - 3) < 0.2 and log_tau.std() > 1
    assert (p["s"] >= 0).all() and (p["s"] <= p["tau"]).all()
    with pytest.raises(ValueError, match="open_ratio is 0; allowed: more than 0"):
        phased_lstm(H, open_ratio=0)
