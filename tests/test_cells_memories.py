"""LMU and HiPPO-LegS: the papers' equations in NumPy, and what their memories keep of a signal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial.legendre import legvander
from oracles import check_equation, jit, normal, sigma
from scipy.signal import cont2discrete

from rnnjax.cells.memories import LegSCarry, LMUCarry, held, legs, lmu
from rnnjax.engine.unroll import unroll

H, N, THETA = 4, 3, 5.0


def window(order, theta):
    """A and B of the delay network, eq. 2, entry by entry."""
    A = np.zeros((order, order))
    for i in range(order):
        for j in range(order):
            A[i, j] = (2 * i + 1) / theta * (-1 if i < j else (-1) ** (i - j + 1))
    return A, np.array([(2 * i + 1) * (-1) ** i / theta for i in range(order)])


def scaled(order):
    """A and B of LegS, eq. 4 and theorem 2, with A > 0 as there."""
    A = np.zeros((order, order))
    for n in range(order):
        for k in range(n + 1):
            A[n, k] = n + 1 if n == k else np.sqrt((2 * n + 1) * (2 * k + 1))
    return A, np.sqrt(2 * np.arange(order) + 1)


def by_scipy(A, B):
    Abar, Bbar, *_ = cont2discrete((A, B[:, None], np.eye(len(B)), np.zeros((len(B), 1))), dt=1.0, method="zoh")
    return Abar, Bbar[:, 0]


def legendre_unit(order):
    Abar, Bbar = by_scipy(*window(order, THETA))

    def step(p, carry, x):
        u = x @ p["e_x"] + carry.h @ p["e_h"] + carry.m @ p["e_m"]
        m = carry.m @ Abar.T + u[:, None] * Bbar
        return LMUCarry(np.tanh(x @ p["W_x"] + carry.h @ p["W_h"] + m @ p["W_m"]), m)

    return step


def legs_network(order):
    A, B = scaled(order)

    def step(p, carry, x):
        u = (x @ p["e_x"] + carry.h @ p["e_h"] + p["b_u"])[:, None]
        t = carry.t[0, 0]
        if t == 0:
            m = np.concatenate([u, np.zeros((len(u), order - 1))], axis=1)
        else:
            m = np.linalg.solve(
                np.eye(order) + A / t / 2, ((np.eye(order) - A / t / 2) @ carry.m.T + np.outer(B / t, u))
            )
            m = m.T
        (W_g, W_n), (V_g, V_n), (b_g, b_n) = (np.split(p[name], 2, axis=-1) for name in ("W", "V", "b"))
        g = sigma(x @ W_g + m @ V_g + b_g)
        return LegSCarry((1 - g) * carry.h + g * np.tanh(x @ W_n + m @ V_n + b_n), m, carry.t + 1)

    return step


EQUATIONS = {
    "lmu of order H": (lmu(H, theta=THETA), legendre_unit(H)),
    "lmu of order N": (lmu(H, order=N, theta=THETA), legendre_unit(N)),
    "legs of order H": (legs(H), legs_network(H)),
    "legs of order N": (legs(H, order=N), legs_network(N)),
    "legs of order 1": (legs(H, order=1), legs_network(1)),
}


SLOW = ("lmu of order H", "legs of order H", "legs of order 1")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in EQUATIONS])
def test_the_papers_equation(name):
    check_equation(*EQUATIONS[name])


@pytest.mark.parametrize(("order", "theta"), [(1, 3.0), (6, 4.0), (40, 100.0), (40, 5.0)])
def test_what_is_held_over_a_step_is_what_scipy_finds(order, theta):
    for found, expected in zip(held(*window(order, theta)), by_scipy(*window(order, theta)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * max(1, np.abs(expected).max()))


def driven(cell, signal):
    """The memory after each number of a signal, which alone drives it."""
    params = cell.init(jax.random.key(0), 1)
    params |= {"e_x": jnp.ones(1), "e_h": jnp.zeros(H)}
    taken = cell._replace(output=lambda weights, carry, z: carry.m)
    return np.asarray(jit(lambda p, xs: unroll(taken, p, xs)[1])(params, signal[:, None].astype(np.float32)))


def test_the_lmus_memory_holds_a_window_of_its_signal():
    T, order, theta = 300, 16, 80.0
    signal = np.sin(np.arange(T) / 9) + 0.5 * np.cos(np.arange(T) / 17)
    m = driven(lmu(H, order=order, theta=theta), signal)
    for t in (150, 299):
        delay = np.arange(0, int(theta) + 1)
        past = legvander(2 * delay / theta - 1, order - 1) @ m[t]
        # A held number stands for a step of length 1: it is half a step late.
        np.testing.assert_allclose(past, np.interp(t - delay + 0.5, np.arange(T), signal), atol=0.08)
        np.testing.assert_allclose(past[5:-5], np.interp(t - delay + 0.5, np.arange(T), signal)[5:-5], atol=0.01)


def test_the_legs_memory_holds_all_of_its_past():
    T, order = 400, 24
    signal = np.sin(np.arange(T) / 20) + 0.5 * np.cos(np.arange(T) / 33)
    m = driven(legs(H, order=order), signal)
    for t in (100, 399):
        # To half a step, again: the last number stands where t is.
        basis = legvander(2 * np.arange(t + 1) / (t + 0.5) - 1, order - 1) * np.sqrt(2 * np.arange(order) + 1)
        error = basis @ m[t] - signal[: t + 1]
        assert np.sqrt(np.mean(error**2)) < 2e-3 and np.abs(error).max() < 0.01


def test_legs_clock_counts_and_goes_on_with_the_carry():
    cell = legs(H, order=N)
    params = cell.init(jax.random.key(0), 2)
    xs = normal(9, 3, 2).astype(np.float32)

    @jit
    def run(params, xs):
        whole = unroll(cell, params, xs)
        half, first = unroll(cell, params, xs[:4])
        return whole, (unroll(cell, params, xs[4:], half), first)

    (last, ys), ((joined, second), first) = run(params, xs)
    assert last.t.tolist() == [[9]] * 3
    np.testing.assert_allclose(ys, np.concatenate([first, second]), atol=1e-6)
    np.testing.assert_allclose(joined.m, last.m, atol=1e-6)


def test_initial_values():
    D, H = 3, 64
    p, p_legs = jit(lambda key: (lmu(H, order=8).init(key, D), legs(H).init(key, D)))(jax.random.key(0))
    assert {name: a.shape for name, a in p.items()} == {
        "e_x": (D,), "e_h": (H,), "e_m": (8,), "W_x": (D, H), "W_h": (H, H), "W_m": (8, H),
    }  # fmt: skip
    assert not np.any(p["e_m"])
    assert 0.9 * np.sqrt(3 / H) < np.abs(p["e_h"]).max() <= np.sqrt(3 / H)
    assert 0.9 * np.sqrt(3 / H) < np.abs(p["W_h"]).max() <= np.sqrt(3 / H)  # Glorot's of a square one
    p = p_legs
    assert not np.any(p["b"]) and not np.any(p["b_u"])
    assert 0.9 * np.sqrt(3 / (H + D)) < np.abs(p["e_h"]).max() <= np.sqrt(3 / (H + D))
    bound = np.sqrt(6 / (D + H + H))
    for name in ("W", "V"):
        assert 0.9 * bound < np.abs(p[name]).max() <= bound
        assert not np.allclose(*np.split(p[name], 2, axis=1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lmu(H, order=0), "order is 0; allowed: 1, 2, ..."),
        (lambda: legs(H, order=2.5), "order is 2.5; allowed: 1, 2, ..."),
        (lambda: lmu(H, theta=0.0), "theta is 0.0; allowed: a number above 0"),
    ],
)
def test_options_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_step_by_hand():
    """The first numbers of LegS, by hand: u_0 = 2 and u_1 = 4, then t = 1."""
    m = driven(legs(H, order=2), np.array([2.0, 4.0]))
    np.testing.assert_allclose(m[0], [2, 0])
    r = np.sqrt(3)  # (1 + 1/2) m_0 = (1 - 1/2) 2 + 4;  (1 + 1) m_1 = - r/2 (2 + m_0) + 4 r
    np.testing.assert_allclose(m[1], [10 / 3, (-r / 2 * (2 + 10 / 3) + 4 * r) / 2], rtol=1e-6)
