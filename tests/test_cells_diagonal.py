"""Cells whose recurrence is linear with a diagonal transition: equations in NumPy, and what is known of them."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from oracles import Complex, check_equation, jit, normal, parts, sigma

from rnnjax.cells import (
    GILRLSTMCarry,
    TGRUCarry,
    TLSTMCarry,
    gateloop,
    gilr,
    gilr_lstm,
    hgrn,
    lru,
    mingru,
    minlstm,
    rglru,
    s4d,
    s5,
    s6,
    t_gru,
    t_lstm,
    t_rnn,
)
from rnnjax.cells.state_space import hippo_n
from rnnjax.diagnostics.lyapunov import lyapunov_spectrum
from rnnjax.engine.unroll import unroll
from rnnjax.types import Linear

H, D = 4, 3


def g(s):
    """Feng et al. (2024), appendix B: of a candidate that must be positive."""
    return np.where(s.real >= 0, s + 0.5, sigma(s))


def minimal_gru(candidate=lambda s: s, factor=1):
    """Feng et al. (2024), section 3.1; Grazzi et al. (2024) subtract the gate twice."""

    def step(p, h, x):
        (W_z, W_n), (b_z, b_n) = parts(p, "W_x", 2), parts(p, "b", 2)
        z = sigma(x @ W_z + b_z)
        return (1 - factor * z) * h + z * candidate(x @ W_n + b_n)

    return step


def minimal_lstm(candidate=lambda s: s):
    """Feng et al. (2024), section 3.2."""

    def step(p, h, x):
        (W_f, W_i, W_n), (b_f, b_i, b_n) = parts(p, "W_x", 3), parts(p, "b", 3)
        f, i = sigma(x @ W_f + b_f), sigma(x @ W_i + b_i)
        return f / (f + i) * h + i / (f + i) * candidate(x @ W_n + b_n)

    return step


def impulse(p, h, x):
    """Martin & Cundy (2018), section 3."""
    (U, V), (b_g, b_i) = parts(p, "W_x", 2), parts(p, "b", 2)
    gate = sigma(x @ U + b_g)
    return gate * h + (1 - gate) * np.tanh(x @ V + b_i)


def surrogate_lstm(p, carry, x):
    """Martin & Cundy (2018): an LSTM whose gates read the state of a GILR of one step before."""
    U, V, *W = parts(p, "W_x", 6)
    b_g, b_j, *b = parts(p, "b", 6)
    f, i, o, z = (x @ W + carry.s @ R + b for W, R, b in zip(W, parts(p, "W_h", 4), b, strict=True))
    c = sigma(f) * carry.c + sigma(i) * np.tanh(z)
    gate = sigma(x @ U + b_g)
    return GILRLSTMCarry(gate * carry.s + (1 - gate) * np.tanh(x @ V + b_j), c, sigma(o) * c)


def times(a, b):
    return Complex(a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re)


def over(a, b):
    size = b.re**2 + b.im**2
    return Complex((a.re * b.re + a.im * b.im) / size, (a.im * b.re - a.re * b.im) / size)


def turn(size, angle):
    return Complex(size * np.cos(angle), size * np.sin(angle))


def plus(a, b):
    return Complex(a.re + b.re, a.im + b.im)


def held(A, dt):
    """exp(dt A), and the integral of exp(s A) over a step: Gu et al. (2022), zero-order hold."""
    a = turn(np.exp(dt * A.re), dt * A.im)
    return a, over(Complex(a.re - 1, a.im), A)


def trapezoid(A, dt):
    """Gu et al. (2022), bilinear: (1 - dt/2 A)^-1 times 1 + dt/2 A, and times dt."""
    half = Complex(dt / 2 * A.re, dt / 2 * A.im)
    below = Complex(1 - half.re, -half.im)
    return over(Complex(1 + half.re, half.im), below), over(Complex(dt, 0 * dt), below)


def signals(p, x):
    return x @ p["W_u"] if "W_u" in p else x


def channels_of_modes(sample):
    """Gu et al. (2022), S4D, channel by channel and mode by mode."""

    def step(p, h, x):
        u, y, re, im = signals(p, x), [], np.zeros_like(h.re + 0j), np.zeros_like(h.im + 0j)
        for j in range(u.shape[-1]):
            shown = p["D"][j] * u[:, j]
            for n in range(p["C_re"].shape[1]):
                A = Complex(-np.exp(p["log_A_real"][j, n]), p["A_imag"][j, n])
                a, b = sample(A, np.exp(p["log_dt"][j]))
                now = plus(times(a, Complex(h.re[:, j, n], h.im[:, j, n])), Complex(b.re * u[:, j], b.im * u[:, j]))
                re[:, j, n], im[:, j, n] = now
                shown = shown + 2 * (p["C_re"][j, n] * now.re - p["C_im"][j, n] * now.im)
            y.append(shown)
        return Complex(re, im), np.stack(y, axis=-1)

    return step


def channels_of_real_modes(p, h, x):
    """Gu et al. (2022), S4D-Real."""
    u, A, dt = signals(p, x), -np.exp(p["log_A_real"]), np.exp(p["log_dt"])[:, None]
    h = np.exp(dt * A) * h + (np.exp(dt * A) - 1) / A * u[..., None]
    return h, (p["C"] * h).sum(-1) + p["D"] * u


def one_system(sample, pair, ceiling=np.inf):
    """Smith et al. (2022), equations 2 to 6, in columns: x' = Lambda x + B u, y = Re(C x) + D u."""

    def step(p, h, x):
        real = p["Lambda_re"] if ceiling == np.inf else np.where(p["Lambda_re"].real > ceiling, ceiling, p["Lambda_re"])
        a, scale = sample(Complex(real, p["Lambda_im"]), np.exp(p["log_step"]))
        h = plus(times(a, h), times(scale, Complex(x @ p["B_re"], x @ p["B_im"])))
        through = x * p["D"] if p["D"].ndim == 1 else x @ p["D"]
        return h, pair * (h.re @ p["C_re"] - h.im @ p["C_im"]) + through

    return step


def selective(negative=False):
    """Gu & Dao (2023), algorithm 2, and their code's B: for each channel and state."""

    def step(p, h, x):
        u = signals(p, x)
        dt = np.log(1 + np.exp((u @ p["W_r"]) @ p["W_dt"] + p["b_dt"]))
        B, C = u @ p["W_B"], u @ p["W_C"]
        a = np.exp(dt[:, :, None] * -np.exp(p["A_log"]))
        h = (2 * a - 1 if negative else a) * h + (dt * u)[:, :, None] * B[:, None, :]
        return h, (C[:, None, :] * h).sum(-1) + p["D"] * u

    return step


def real_gated(negative=False):
    """De et al. (2024), equations 1 to 4, with c = 8 and two heads."""

    def step(p, h, x):
        u = signals(p, x)
        blocks = np.split(u, 2, axis=-1)
        r, i = (
            sigma(np.concatenate([part @ W for part, W in zip(blocks, p[name], strict=True)], axis=-1) + p[b])
            for name, b in (("W_a", "b_a"), ("W_x", "b_x"))
        )
        a = sigma(-p["Lambda"]) ** (8 * r)
        a = 2 * a - 1 if negative else a
        return a * h + np.sqrt(1 - a**2) * (i * u)

    return step


def hierarchical(bound):
    """Qin et al. (2023), equations 4 to 8."""

    def step(p, h, x):
        (W_f, W_re, W_im), (b_f, b_re, b_im) = parts(p, "W_x", 3), parts(p, "b", 3)
        forget = bound + (1 - bound) * sigma(x @ W_f + b_f)
        re, im = (s * sigma(s) for s in (x @ W_re + b_re, x @ W_im + b_im))
        h = plus(times(turn(forget, p["theta"]), h), Complex((1 - forget) * re, (1 - forget) * im))
        return h, np.concatenate(h, axis=-1)

    return step


def hierarchical_real(p, h, x):
    """Qin et al. (2023), without theta."""
    (W_f, W_i), (b_f, b_i) = parts(p, "W_x", 2), parts(p, "b", 2)
    forget, i = sigma(x @ W_f + b_f), x @ W_i + b_i
    return forget * h + (1 - forget) * i * sigma(i)


def looped(p, h, x):
    """Katsch (2023), equations 3 and 4, with heads of one unit."""
    alpha, beta, k, v, q = (x @ W + b for W, b in zip(parts(p, "W_x", 5), parts(p, "b", 5), strict=True))
    h = plus(times(turn(sigma(alpha), beta), h), Complex(k * v, 0 * k))
    return h, q * h.re


def typed(p, h, x):
    """Balduzzi & Ghifary (2016), T-RNN."""
    W, V = parts(p, "W_x", 2)
    forget = sigma(x @ V + p["b"])
    return forget * h + (1 - forget) * (x @ W)


def typed_gru(p, carry, x):
    """Balduzzi & Ghifary (2016), T-GRU."""
    z, f, o = np.split(carry.past + x @ p["W_x"] + p["b"], 3, axis=-1)
    return TGRUCarry(x @ p["V_x"], sigma(f) * carry.h + z * np.tanh(o))


def typed_lstm(p, carry, x):
    """Balduzzi & Ghifary (2016), T-LSTM."""
    z, f, o = np.split(carry.past + x @ p["W_x"] + p["b"], 3, axis=-1)
    c = sigma(f) * carry.c + (1 - sigma(f)) * z
    return TLSTMCarry(x @ p["V_x"], c, c * np.tanh(o))


EQUATIONS = {
    "s4d": (s4d(2, state_size=4), channels_of_modes(held)),
    "s4d-bilinear": (
        s4d(3, state_size=4, initialization="inv", discretization="bilinear", dt_min=0.02),
        channels_of_modes(trapezoid),
    ),
    "s4d-real": (s4d(H, state_size=2, initialization="real"), channels_of_real_modes),
    "s5": (s5(H), one_system(held, 2)),
    "s5-all-modes": (
        s5(3, state_size=4, discretization="bilinear", conj_sym=False, clip_eigenvalues=True),
        one_system(trapezoid, 1, -1e-4),
    ),
    "s6": (s6(H, state_size=2), selective()),
    "s6-negative": (s6(3, state_size=2, negative_eigenvalues=True), selective(negative=True)),
    "rglru": (rglru(H, heads=2), real_gated()),
    "rglru-negative": (rglru(H, heads=2, negative_eigenvalues=True), real_gated(negative=True)),
    "hgrn": (hgrn(H, lower_bound=0.25), hierarchical(0.25)),
    "hgrn-real": (hgrn(H, complex_state=False), hierarchical_real),
    "gateloop": (gateloop(H), looped),
    "t_rnn": (t_rnn(H), typed),
    "t_gru": (t_gru(H), typed_gru),
    "t_lstm": (t_lstm(H), typed_lstm),
    "mingru": (mingru(H), minimal_gru()),
    "mingru-positive": (mingru(H, positive=True), minimal_gru(g)),
    "mingru-negative": (mingru(H, negative_eigenvalues=True), minimal_gru(factor=2)),
    "minlstm": (minlstm(H), minimal_lstm()),
    "minlstm-positive": (minlstm(H, positive=True), minimal_lstm(g)),
    "gilr": (gilr(H), impulse),
    "gilr_lstm": (gilr_lstm(H), surrogate_lstm),
}


# The forms that share most of their code with another one here.
ALIKE = {
    "s4d-real",
    "s5-all-modes",
    "s6-negative",
    "rglru-negative",
    "hgrn-real",
    "mingru-positive",
    "mingru-negative",
    "minlstm-positive",
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in ALIKE else n for n in EQUATIONS])
def test_the_papers_equation(name):
    check_equation(*EQUATIONS[name])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["scan", "associative"])
@pytest.mark.parametrize("name", [n for n in EQUATIONS if isinstance(EQUATIONS[n][0].form, Linear) and n not in ALIKE])
def test_the_papers_equation_over_4096_steps(name, method):
    """Near to where the parameters start: over so long a time what grows leaves the range of numbers."""
    check_equation(*EQUATIONS[name], T=4096, move=0.02, lengths=[4096, 3001], method=method)


def drawn(cell, size=D, seed=0):
    """Parameters away from where they start, in float64."""
    params = cell.init(jax.random.key(seed), size)
    return {n: np.asarray(a, float) + 0.4 * normal(*a.shape, seed=i) for i, (n, a) in enumerate(params.items())}


def at_start(cell, size=D):
    return {name: np.asarray(a, float) for name, a in cell.init(jax.random.key(0), size).items()}


def states(cell, params, xs, carry=None):
    """ys, in float64."""
    with jax.enable_x64(True):
        return np.asarray(jit(lambda p, xs, c: unroll(cell, p, xs, c)[1])(params, xs, carry))


# minGRU, minLSTM and GILR are one cell.


def test_a_minlstm_is_a_mingru_whose_gate_is_i_of_f_and_i():
    params, xs = drawn(minlstm(H)), normal(6, 2, D)
    W_f, W_i, W_n = parts(params, "W_x", 3)
    b_f, b_i, b_n = parts(params, "b", 3)
    f, i = sigma(xs @ W_f + b_f), sigma(xs @ W_i + b_i)
    # A gate z and a candidate n as inputs of their own: sigmoid(logit(z)), through a W_x that only picks.
    z = i / (f + i)
    inputs = np.concatenate([np.log(z / (1 - z)), xs @ W_n + b_n], axis=-1)
    as_gru = states(mingru(H), {"W_x": np.eye(2 * H), "b": np.zeros(2 * H)}, inputs)
    np.testing.assert_allclose(as_gru, states(minlstm(H), params, xs), atol=1e-12)


def test_a_gilr_is_a_mingru_with_tanh_of_its_candidate():
    params, xs = drawn(gilr(H)), normal(6, 2, D)
    (U, V), (b_g, b_i) = parts(params, "W_x", 2), parts(params, "b", 2)
    inputs = np.concatenate([-(xs @ U + b_g), np.tanh(xs @ V + b_i)], axis=-1)
    as_gru = states(mingru(H), {"W_x": np.eye(2 * H), "b": np.zeros(2 * H)}, inputs)
    np.testing.assert_allclose(as_gru, states(gilr(H), params, xs), atol=1e-12)


@pytest.mark.parametrize("make", [mingru, minlstm])
def test_the_form_in_logarithms_is_the_plain_one(make):
    """Feng et al. (2024), appendix B: h = exp(A + logcumsumexp(log v - A)), A = cumsum(log a), from h_0 > 0."""
    cell, xs, h_0 = make(H, positive=True), normal(7, D), np.abs(normal(H, seed=3)) + 0.1
    params, sp = drawn(cell), lambda s: np.logaddexp(0, s)
    gates = 3 if make is minlstm else 2
    *k, n = np.split(xs @ params["W_x"] + params["b"], gates, axis=-1)
    if make is mingru:
        log_a, log_z = -sp(k[0]), -sp(-k[0])
    else:
        more = sp(-k[0]) - sp(-k[1])
        log_a, log_z = -sp(more), -sp(-more)
    log_g = np.where(n >= 0, np.log(np.maximum(n, 0) + 0.5), -sp(-n))
    A = np.concatenate([np.zeros((1, H)), np.cumsum(log_a, axis=0)])
    log_v = np.concatenate([np.log(h_0)[None], log_z + log_g])
    expected = np.exp(A + np.logaddexp.accumulate(log_v - A, axis=0))[1:]
    np.testing.assert_allclose(states(cell, params, xs, h_0), expected, rtol=1e-12)


# Parity (Grazzi et al. 2024).

SURE = 1e3  # of a gate: its sigmoid is 0 or 1 to the last digit


def test_a_mingru_counts_parity_where_its_eigenvalues_may_be_negative():
    bits = np.random.default_rng(0).integers(2, size=(300, 1)).astype(np.float32)
    params = {"W_x": np.array([[2 * SURE, 0.0]], np.float32), "b": np.array([-SURE, 1.0], np.float32)}
    cell = mingru(1, negative_eigenvalues=True)  # h for a 0, 1 - h for a 1
    assert np.array_equal(unroll(cell, params, bits)[1], np.cumsum(bits, axis=0) % 2)


@pytest.mark.parametrize("negative", [False, True])
def test_after_ones_alone_a_positive_eigenvalue_cannot_turn_back(negative):
    """h_{t+1} - h_t = a (h_t - h_{t-1}): with a >= 0 all steps have one sign, and odd counts end beside even ones."""
    cell = mingru(32, negative_eigenvalues=negative)
    steps = np.diff(states(cell, drawn(cell, 1), np.ones((30, 1)), normal(32)), axis=0)
    turns = np.sign(steps[1:]) != np.sign(steps[:-1])
    assert turns.any() == negative


# Time that is sampled: an input that is held over a step is no approximation of itself.


@pytest.mark.parametrize("rule", ["zoh", "bilinear"])
@pytest.mark.parametrize("make", [s4d, s5])
def test_half_the_step_and_each_input_twice_change_nothing_where_the_input_is_held(make, rule):
    cell = make(3, state_size=4, discretization=rule, dt_min=0.5, dt_max=1.0)
    params, xs = at_start(cell), normal(5, D)
    log_dt = "log_dt" if make is s4d else "log_step"
    finer = params | {log_dt: params[log_dt] - np.log(2)}
    shown, twice = states(cell, params, xs), states(cell, finer, np.repeat(xs, 2, axis=0))[1::2]
    assert np.allclose(shown, twice, rtol=0, atol=1e-12) == (rule == "zoh")


# Initial values.


def test_s4d_starts_with_the_papers_eigenvalues():
    for how, expected in {
        "lin": [-0.5, -0.5 + 1j * np.pi],
        "inv": [-0.5 + 1j * 4 / np.pi * 3, -0.5 + 1j * 4 / np.pi * (4 / 3 - 1)],
        "real": [-1, -2, -3, -4],
    }.items():
        params = at_start(s4d(3, state_size=4, initialization=how))
        A = -np.exp(params["log_A_real"]) + 1j * params.get("A_imag", 0)
        np.testing.assert_allclose(A, np.tile(expected, (3, 1)), rtol=1e-6)


def test_s5_starts_with_the_eigenvalues_of_hippo_n():
    """Gu et al. (2022): HiPPO-LegS is HiPPO-N less half of an outer product; of each block s5 keeps a half."""
    n = np.arange(6)
    legs = np.array([[-np.sqrt((2 * i + 1) * (2 * j + 1)) * (i > j) - (i + 1) * (i == j) for j in n] for i in n])
    p = np.sqrt(n + 0.5)
    matrix = legs + np.outer(p, p)
    eigenvalues, V = hippo_n(6)
    np.testing.assert_allclose(V @ np.diag(eigenvalues) @ V.conj().T, matrix, atol=1e-12)
    params = at_start(s5(5, state_size=12, blocks=2))
    lam = params["Lambda_re"] + 1j * params["Lambda_im"]
    np.testing.assert_allclose(lam, np.tile(eigenvalues[eigenvalues.imag < 0], 2), rtol=1e-5)


def test_with_all_modes_s5_starts_as_a_real_system():
    """V B~ is real, and C~ V^-1 is whatever was drawn: the modes are those of a real matrix, driven by a real one."""
    params = at_start(s5(4, state_size=6, blocks=1, conj_sym=False))
    driven = (params["B_re"] + 1j * params["B_im"]) @ hippo_n(6)[1].T
    assert np.abs(driven.imag).max() < 1e-6 < np.abs(driven.real).min()


def test_clipped_eigenvalues_never_grow():
    for clip in (False, True):
        cell = s5(4, clip_eigenvalues=clip)
        params = at_start(cell) | {"Lambda_re": np.array([-0.5, 0.3])}
        with jax.enable_x64(True):
            size = np.abs(cell.weights(params).a)
        expected = np.exp(np.exp(params["log_step"]) * [-0.5, -1e-4 if clip else 0.3])
        np.testing.assert_allclose(size, expected, rtol=1e-6)


@pytest.mark.parametrize("make", [s4d, s5, s6])
def test_steps_of_time_start_between_their_bounds(make):
    params = at_start(make(64))
    dt = {
        s4d: lambda p: np.exp(p["log_dt"]),
        s5: lambda p: np.exp(p["log_step"]),
        s6: lambda p: np.log1p(np.exp(p["b_dt"])),
    }
    found = dt[make](params)
    assert found.min() * 1.0001 >= 0.001 and found.max() <= 0.1001
    assert abs(np.log(found).mean() - np.log(0.01)) < 0.5  # its geometric middle


def test_rglru_starts_between_its_bounds():
    a = np.exp(-8 * np.log1p(np.exp(at_start(rglru(200), 1)["Lambda"])))
    assert 0.9 <= a.min() < 0.91 and 0.99 < a.max() <= 0.9991
    assert abs(a.mean() - 0.9495) < 0.01


# What a unit of white input does to the size of the state: nothing.


def test_white_input_keeps_the_size_of_an_lru():
    cell, rng = lru(64, r_max=0.9), np.random.default_rng(0)
    params = at_start(cell, 64)
    xs = rng.normal(size=(40, 256, 64))
    start = (normal(256, 64, seed=1) + 1j * normal(256, 64, seed=2)) / np.sqrt(2)
    with jax.enable_x64(True):
        last = unroll(cell, params, xs, start)[0]
    assert abs(np.mean(np.abs(last) ** 2) - 1) < 0.05


@pytest.mark.parametrize("negative", [False, True])
def test_white_input_keeps_the_size_of_an_rglru(negative):
    cell = rglru(16, a_min=0.3, a_max=0.95, negative_eigenvalues=negative)
    open_gates = {name: np.zeros((4, 4, 4)) for name in ("W_a", "W_x")} | {
        "b_a": np.zeros(16),
        "b_x": np.full(16, 50.0),
    }
    xs = np.random.default_rng(0).normal(size=(8, 2000, 16))
    shown = states(cell, at_start(cell, 16) | open_gates, xs, normal(2000, 16, seed=1))
    assert abs(np.mean(shown**2) - 1) < 0.02


# The exponents of a diagonal recurrence are the means of log|a_t|.


@pytest.mark.parametrize("name", ["mingru-negative", "gateloop"])
def test_exponents(name):
    cell = EQUATIONS[name][0]
    params, xs = drawn(cell), normal(400, D)
    with jax.enable_x64(True):
        a, _ = cell.form.coefficients(params, cell.project(params, xs))
        found = jit(lambda p, xs: lyapunov_spectrum(cell, p, xs, batches=2))(params, xs)
    expected = np.sort(np.repeat(np.log(np.abs(a)).mean(0), 1 + np.iscomplexobj(a)))[::-1]
    exponents = np.asarray(found.exponents)
    np.testing.assert_allclose(exponents.sum(), expected.sum(), rtol=1e-9)
    np.testing.assert_allclose(exponents, expected, atol=0.03)


# Where a coefficient is 0 or 1 to the last digit.


@pytest.mark.parametrize("method", ["scan", "associative"])
@pytest.mark.parametrize("make", [mingru, minlstm, rglru, hgrn, gateloop])
@pytest.mark.parametrize("sign", [-1, 1])
def test_gates_that_are_shut_have_finite_gradients(make, sign, method):
    cell = make(4)
    params = cell.init(jax.random.key(0), D)
    gate = "b_a" if make is rglru else "b"
    params[gate] = params[gate] + sign * 500.0
    xs = normal(6, D).astype(np.float32)
    value, gradient = jit(jax.value_and_grad(lambda p: (unroll(cell, p, xs, method=method)[1] ** 2).sum()))(params)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves((value, gradient)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: s4d(4, state_size=3), "state_size is 3; allowed: an even number"),
        (lambda: s4d(4, initialization="legs"), "unknown initialization 'legs'; allowed: lin, inv, real"),
        (lambda: s5(4, discretization="euler"), "unknown discretization 'euler'; allowed: zoh, bilinear"),
        (lambda: s5(4, state_size=6, blocks=2), "state_size is 6 for 2 blocks; allowed: a multiple of 4"),
        (lambda: s6(4, dt_rank=0), "dt_rank is 0; allowed: more than 0"),
        (lambda: rglru(6, heads=4), "heads is 4; allowed: what divides the hidden size, 6"),
        (lambda: hgrn(4, lower_bound=1.0), "lower_bound is 1.0; allowed: from 0 to below 1"),
        (lambda: t_gru(0), "hidden_size is 0; allowed: 1, 2, ..."),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


# What the authors' own code computes (tests/make_diagonal_vectors.py).

THEIRS = np.load(Path(__file__).parent / "data" / "diagonal_vectors.npz", allow_pickle=False)
CASES = {
    "s5-zoh": (s5(H, state_size=8), 1e-10),
    "s5-bilinear": (s5(H, state_size=8, discretization="bilinear"), 1e-10),
    "rglru": (rglru(H, heads=2), 1e-5),
}


@pytest.mark.parametrize("name", CASES)
def test_the_authors_values_and_gradients(name):
    cell, tolerance = CASES[name]
    given = {n.removeprefix(f"{name}/"): THEIRS[n] for n in THEIRS.files if n.startswith(f"{name}/")}
    xs, ys, dys, start = given.pop("xs"), given.pop("ys"), given.pop("dys"), given.pop("start", None)
    slopes = {n.removeprefix("grad/"): given.pop(n) for n in list(given) if n.startswith("grad/")}

    def loss(params, xs):
        found = unroll(cell, params, xs, start)[1]
        return (dys * found).sum(), found

    with jax.enable_x64(True):
        (_, found), (by_params, by_xs) = jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(given, xs)
    for a, b in [(found, ys), *((g, slopes[n]) for n, g in (by_params | {"xs": by_xs}).items())]:
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, np.abs(b).max()))
