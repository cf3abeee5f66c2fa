"""Cells of one state and few gates: the papers' equations in NumPy, and what the papers say of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import absolute, check_equation, parts, relu, sigma

from rnnjax.cells import fastgrnn, fastrnn, indrnn, ligru
from rnnjax.engine.unroll import unroll

H = 4


def independent(bound):
    """Li et al. (2018): column form, unit by unit; u beyond the bound comes back as far as it went out."""

    def step(p, h, x):
        u = [v if abs(v.real) <= bound else np.sign(v.real) * (2 * bound - absolute(v)) for v in p["u"]]
        rows = [relu(p["W_x"][:, k] @ x.T + u[k] * h[:, k] + p["b"][k]) for k in range(H)]
        return np.stack(rows, axis=1)

    return step


def fast(p, h, x):
    """Kusupati et al. (2018), eq. 1-2."""
    candidate = np.tanh(p["W_x"].T @ x.T + p["W_h"].T @ h.T + p["b"][:, None])
    return (sigma(p["alpha"]) * candidate + sigma(p["beta"]) * h.T).T


def fast_gated(p, h, x):
    """Kusupati et al. (2018), eq. 4-6: W and U serve both, and may be products."""
    W = p["W_x"] if "W_x" in p else p["W_x_1"] @ p["W_x_2"]
    U = p["W_h"] if "W_h" in p else p["W_h_1"] @ p["W_h_2"]
    z = sigma(x @ W + h @ U + p["b_z"])
    candidate = np.tanh(x @ W + h @ U + p["b_n"])
    return (sigma(p["zeta"]) * (1 - z) + sigma(p["nu"])) * candidate + z * h


def light(p, h, x):
    """Ravanelli et al. (2018), without batch norm."""
    (W_z, W_a), (U_z, U_a), (b_z, b_a) = (parts(p, name, 2) for name in ("W_x", "W_h", "b"))
    z = sigma(x @ W_z + h @ U_z + b_z)
    return z * h + (1 - z) * relu(x @ W_a + h @ U_a + b_a)


EQUATIONS = {
    "indrnn": (indrnn(H), independent(1)),
    "indrnn-bound": (indrnn(H, t_max=2.0, growth=1.2, long_memory=True), independent(1.2**0.5)),
    "fastrnn": (fastrnn(H), fast),
    "fastgrnn": (fastgrnn(H), fast_gated),
    "fastgrnn-factors": (fastgrnn(H, rank_x=2, rank_h=1), fast_gated),
    "ligru": (ligru(H), light),
}


@pytest.mark.parametrize(("cell", "step"), EQUATIONS.values(), ids=EQUATIONS)
def test_the_papers_equation(cell, step):
    check_equation(cell, step)


def begun(cell, D=3):
    """The parameters of a cell at the start."""
    return {name: np.asarray(a) for name, a in cell.init(jax.random.key(0), D).items()}


def without_input(cell, params, start, T):
    """The states [T, ...] of a cell whose inputs are zero."""
    D = params["W_x"].shape[0]
    return np.asarray(unroll(cell, params, jnp.zeros((T, *start.shape[:-1], D)), jnp.asarray(start))[1])


# IndRNN: the bound, and what becomes of a u that training has moved beyond it.


def test_an_indrnn_grows_no_further_than_its_bound():
    cell = indrnn(H, t_max=10.0, growth=3.0)
    u = np.array([3.0**0.1, 0.5, *np.linspace(-9, 9, H - 2)], np.float32)
    assert jnp.abs(cell.weights({"u": u})["W_h"]).max() <= 3**0.1 + 1e-6
    hs = without_input(cell, begun(cell) | {"u": u}, np.ones(H, np.float32), 10)
    np.testing.assert_allclose(hs[-1, :2], [3, 0.5**10], rtol=1e-5)
    assert hs.max() <= 3 + 1e-5


def test_descent_holds_u_at_its_bound():
    cell = indrnn(1)
    u = np.float32(0.9)
    for _ in range(20):
        u += 0.1 * jax.grad(lambda u: cell.weights({"u": u})["W_h"])(u)
    assert abs(u - 1) <= 0.11
    assert 0.89 <= cell.weights({"u": u})["W_h"] <= 1


@pytest.mark.parametrize(
    ("options", "low", "high"),
    [
        ({}, 0, 1),
        ({"t_max": 10.0}, 0, 5**0.1),
        ({"t_max": 10.0, "growth": 2.0, "long_memory": True}, 2**-0.1, 2**0.1),
        ({"long_memory": True}, 1, 1),
    ],
)
def test_u_starts_between_the_timescales(options, low, high):
    u = begun(indrnn(1000, **options), 1)["u"]
    assert low - 1e-6 <= u.min() <= low + 0.01 * (high - low) + 1e-6
    assert high - 0.01 * (high - low) - 1e-6 <= u.max() <= high + 1e-6


# FastRNN and FastGRNN: what they start as.


def test_fast_cells_start_by_keeping_their_state():
    for cell, kept, taken in ((fastrnn(50), "beta", "alpha"), (fastgrnn(50), "zeta", "nu")):
        params = begun(cell, 40)
        assert params[kept].shape == params[taken].shape == ()
        assert params[kept] > 0 > params[taken]
        for name in ("W_x", "W_h"):
            np.testing.assert_allclose(params[name].std(), 0.1, rtol=0.1)
    cell = fastrnn(H)
    still = begun(cell) | {name: np.zeros_like(begun(cell)[name]) for name in ("W_x", "W_h", "b")}
    hs = without_input(cell, still, np.ones(H, np.float32), 3)
    np.testing.assert_allclose(hs[-1], np.full(H, sigma(3.0) ** 3), rtol=1e-5)


def test_factors_have_their_rank():
    params = begun(fastgrnn(H, rank_x=2, rank_h=1))
    shapes = {name: params[name].shape for name in params if name.startswith("W")}
    assert shapes == {"W_x_1": (3, 2), "W_x_2": (2, H), "W_h_1": (H, 1), "W_h_2": (1, H)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: indrnn(0), "hidden_size is 0; allowed: 1, 2, "),
        (lambda: indrnn(H, t_max=0.0), "t_max=0.0; allowed: more than 0, or None"),
        (lambda: indrnn(H, growth=0.5), "growth=0.5; allowed: 1 or more"),
        (lambda: fastgrnn(H, rank_h=0), "rank_h is 0; allowed: 1, 2, ..., or None"),
    ],
)
def test_options_that_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
