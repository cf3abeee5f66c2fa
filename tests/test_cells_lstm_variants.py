"""Relatives of the LSTM: each against its paper's equation, and what its paper claims."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import check_equation, parts, sigma

from rnnjax.cells import LSTMCarry, janet, ur_lstm
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


EQUATIONS = {
    "janet": (janet(H), janet_step),
    "ur_lstm": (ur_lstm(H), ur_lstm_step),
}


@pytest.mark.parametrize("name", EQUATIONS)
def test_the_papers_equation(name):
    check_equation(*EQUATIONS[name])


# JANET.


def test_janet_lets_in_more_than_it_forgets_by_beta_alone():
    x, h = jnp.zeros((1, 1, D)), jnp.full((1, H), 0.5)
    p = janet(H).init(jax.random.key(0), D)
    p = p | {"W_h": jnp.zeros((H, 2 * H)), "b": jnp.concatenate([jnp.full(H, 1.0), jnp.full(H, 100.0)])}
    for beta, let_in in ((0.0, 1 - sigma(1.0)), (1.0, 0.5), (100.0, 1.0)):
        _, ys = unroll(janet(H, beta=beta), p, x, h)
        np.testing.assert_allclose(ys[0, 0], 0.5 * sigma(1.0) + let_in, rtol=1e-5)


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
    H = 400
    f = sigma(np.asarray(ur_lstm(H).init(jax.random.key(0), D)["b_u"]))
    counts, _ = np.histogram(f, bins=10, range=(0, 1))
    assert counts.min() > 20 and counts.max() < 60 and f.min() >= 1 / H and f.max() <= 1 - 1 / H
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
        carry, _ = unroll(cell, shifted, jnp.zeros((1, D)), start)
        np.testing.assert_allclose(carry.c, expected, atol=1e-6)
    carry, _ = unroll(cell, p, jnp.zeros((1, D)), start)  # r = 1 - f: nearer to 1/2 where f is saturated
    np.testing.assert_allclose(carry.c, f + (1 - 2 * f) * f * (1 - f), atol=1e-6)
    assert (np.abs(np.asarray(carry.c) - 0.5) <= np.abs(f - 0.5) + 1e-6).all()
