"""Cells whose recurrence is linear with a diagonal transition: equations in NumPy, and what is known of them."""

import jax
import numpy as np
import pytest
from oracles import check_equation, jit, normal, parts, sigma

from rnnjax.cells import GILRLSTMCarry, gilr, gilr_lstm, mingru, minlstm
from rnnjax.engine.unroll import unroll

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


EQUATIONS = {
    "mingru": (mingru(H), minimal_gru()),
    "mingru-positive": (mingru(H, positive=True), minimal_gru(g)),
    "mingru-negative": (mingru(H, negative_eigenvalues=True), minimal_gru(factor=2)),
    "minlstm": (minlstm(H), minimal_lstm()),
    "minlstm-positive": (minlstm(H, positive=True), minimal_lstm(g)),
    "gilr": (gilr(H), impulse),
    "gilr_lstm": (gilr_lstm(H), surrogate_lstm),
}


@pytest.mark.parametrize("name", EQUATIONS)
def test_the_papers_equation(name):
    check_equation(*EQUATIONS[name])


def drawn(cell, size=D, seed=0):
    """Parameters away from where they start, in float64."""
    params = cell.init(jax.random.key(seed), size)
    return {n: np.asarray(a, float) + 0.4 * normal(*a.shape, seed=i) for i, (n, a) in enumerate(params.items())}


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
