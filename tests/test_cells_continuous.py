"""Cells that are differential equations: against the papers' equations in NumPy, and what the papers say of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import check_equation, jit, normal, parts, relu, sigma

from rnnjax.cells import CELLS, antisymmetric, antisymmetric_gated, cornn, lem, lipschitz, unicornn, wrnn
from rnnjax.engine.unroll import unroll

D, H = 3, 4


def lem_step(p, carry, x, old=False):
    """Rusch et al. (2021)."""
    (V_1, V_2, V_z, V_y), (b_1, b_2, b_z, b_y) = parts(p, "W_x", 4), parts(p, "b", 4)
    W_1, W_2, W_z = parts(p, "W_h", 3)
    y, z = carry
    d_1 = 0.7 * sigma(y @ W_1 + x @ V_1 + b_1)
    d_2 = 0.7 * sigma(y @ W_2 + x @ V_2 + b_2)
    z_new = (1 - d_1) * z + d_1 * np.tanh(y @ W_z + x @ V_z + b_z)
    y_new = (1 - d_2) * y + d_2 * np.tanh((z if old else z_new) @ p["W_y"] + x @ V_y + b_y)
    return type(carry)(y_new, z_new), y_new


def cornn_step(p, carry, x, old=False):
    """Rusch & Mishra (2020)."""
    y, z = carry
    W_y, W_z = p["W_h"][:H], p["W_h"][H:]
    force = np.tanh(y @ W_y + z @ W_z + x @ p["W_x"] + p["b"])
    z_new = z + 0.3 * force - 0.3 * 2.7 * y - 0.3 * 1.2 * z
    y_new = y + 0.3 * (z if old else z_new)
    return type(carry)(y_new, z_new), y_new


def unicornn_step(p, carry, x):
    """Rusch & Mishra (2021)."""
    y, z = carry
    dt = 0.3 * sigma(p["c"])
    z = z - dt * (np.tanh(p["W_h"] * y + x @ p["W_x"] + p["b"]) + 2.0 * y)
    y = y + dt * z
    return type(carry)(y, z), y


def wrnn_step(p, h, x):
    """Keller et al. (2023), two rings of three units: unit by unit."""
    u, h = p["u"], h.reshape(*h.shape[:-1], 2, 3)
    s = (x @ p["W_x"] + p["b"]).reshape(h.shape)
    for c, d, i, j in np.ndindex(2, 2, 3, 3):
        s[..., c, i] += u[c, d, j] * h[..., d, (i + j - 1) % 3]
    return relu(s).reshape(*s.shape[:-2], 6)


def antisymmetric_step(p, h, x):
    """Chang et al. (2019)."""
    A = p["W_h"] - p["W_h"].T - 0.4 * np.eye(H)
    return h + 0.3 * np.tanh(h @ A + x @ p["W_x"] + p["b"])


def antisymmetric_gated_step(p, h, x):
    """Chang et al. (2019)."""
    (V_z, V_h), (b_z, b_h) = parts(p, "W_x", 2), parts(p, "b", 2)
    A = p["W_h"] - p["W_h"].T - 0.4 * np.eye(H)
    return h + 0.3 * sigma(h @ A + x @ V_z + b_z) * np.tanh(h @ A + x @ V_h + b_h)


def lipschitz_step(p, h, x):
    """Erichson et al. (2020), by Euler."""
    A, W = (0.2 * (M + M.T) + 0.8 * (M - M.T) - 0.1 * np.eye(H) for M in (p["M_A"], p["M_W"]))
    return h + 0.3 * (h @ A + np.tanh(h @ W + x @ p["W_x"] + p["b"]))


EQUATIONS = {
    "lem": (lem(H, dt=0.7), lem_step),
    "cornn": (cornn(H, dt=0.3, gamma=2.7, epsilon=1.2), cornn_step),
    "unicornn": (unicornn(H, dt=0.3, alpha=2.0), unicornn_step),
    "wrnn": (wrnn(6, channels=2), wrnn_step),
    "antisymmetric": (antisymmetric(H, epsilon=0.3, gamma=0.4), antisymmetric_step),
    "antisymmetric_gated": (antisymmetric_gated(H, epsilon=0.3, gamma=0.4), antisymmetric_gated_step),
    "lipschitz": (lipschitz(H, epsilon=0.3, beta=0.8, gamma=0.1), lipschitz_step),
}


@pytest.mark.parametrize("name", EQUATIONS)
def test_the_papers_equation(name):
    check_equation(*EQUATIONS[name])


@pytest.mark.parametrize("name", ["lem", "cornn"])
def test_y_sees_the_new_z(name):
    cell, step = EQUATIONS[name]
    p, x = cell.init(jax.random.key(0), D), normal(D).astype(np.float32)
    weights = cell.weights(p)
    carry = type(cell.initial_carry(weights, ()))(normal(H, seed=1), normal(H, seed=2))
    y = cell.step(weights, carry, cell.project(weights, x)).y
    p = {n: np.asarray(a, float) for n, a in p.items()}
    np.testing.assert_allclose(y, step(p, carry, x)[1], atol=1e-5)
    assert np.abs(y - step(p, carry, x, old=True)[1]).max() > 0.01


def test_unicornn_keeps_volume_and_can_be_undone():
    cell = unicornn(H, dt=0.5, alpha=3.0)
    p, x = cell.init(jax.random.key(1), D), normal(D).astype(np.float32)
    weights = cell.weights(p)
    carry = type(cell.initial_carry(weights, ()))(normal(H, seed=2), normal(H, seed=3))

    def move(carry):
        return cell.step(weights, carry, cell.project(weights, x))

    blocks = jax.tree.map(np.diagonal, jit(jax.jacobian(move))(carry))
    determinant = blocks.y.y * blocks.z.z - blocks.y.z * blocks.z.y
    np.testing.assert_allclose(determinant, 1, atol=1e-5)
    y, z = move(carry)
    step = 0.5 * jax.nn.sigmoid(p["c"])
    y = y - step * z
    np.testing.assert_allclose(y, carry.y, atol=1e-5)
    np.testing.assert_allclose(z + step * (np.tanh(p["W_h"] * y + x @ p["W_x"]) + 3 * y), carry.z, atol=1e-5)


@pytest.mark.parametrize("name", ["antisymmetric", "antisymmetric_gated"])
def test_antisymmetric_eigenvalues_lie_on_one_line(name):
    cell = CELLS[name](6, gamma=0.3, sigma_w=2.0)
    W_h = np.asarray(cell.weights(cell.init(jax.random.key(0), D))["W_h"], float)
    for A in np.split(W_h, W_h.shape[1] // 6, axis=1):
        eigenvalues = np.linalg.eigvals(A)
        np.testing.assert_allclose(eigenvalues.real, -0.3, atol=1e-5)
        assert np.abs(eigenvalues.imag).max() > 0.5


@pytest.mark.parametrize("beta", [0.0, 0.75, 1.0])
def test_lipschitz_matrices_are_as_skew_as_beta_says(beta):
    cell = lipschitz(6, beta=beta, gamma=0.3)
    params = cell.init(jax.random.key(0), D)
    made = np.split(np.asarray(cell.weights(params)["W_h"], float), 2, axis=1)
    for A, M in zip(made, (params["M_A"], params["M_W"]), strict=True):
        symmetric, skew = (A + A.T) / 2, (A - A.T) / 2
        np.testing.assert_allclose(symmetric, (1 - beta) * (M + M.T) - 0.3 * np.eye(6), atol=1e-6)
        np.testing.assert_allclose(skew, beta * (M - M.T), atol=1e-6)


def test_a_wave_travels():
    """An impulse moves on by one place a step, around its ring and in its own channel."""
    N, T = 5, 7
    xs = np.zeros((T, 1), np.float32)
    xs[0] = 1
    fwd, eye = (wrnn(2 * N, channels=2, start=start) for start in ("fwd", "eye"))
    params = [cell.init(jax.random.key(0), 1) for cell in (fwd, eye)]
    params[0]["W_x"] = params[0]["W_x"].at[:, N:].multiply(3.0)
    moving, still = jit(lambda a, b: (unroll(fwd, a, xs)[1], unroll(eye, b, xs)[1]))(*params)
    expected = np.zeros((T, 2, N))
    expected[range(T), :, -np.arange(T) % N] = [1, 3]
    np.testing.assert_array_equal(moving.reshape(T, 2, N), expected)
    np.testing.assert_array_equal(still, np.tile(np.arange(2 * N) % N == 0, (T, 1)))


TRACED = {
    "lem": ("dt",),
    "cornn": ("dt", "gamma", "epsilon"),
    "unicornn": ("dt", "alpha"),
    "antisymmetric": ("epsilon", "gamma", "sigma_w"),
    "antisymmetric_gated": ("epsilon", "gamma", "sigma_w"),
    "lipschitz": ("epsilon", "beta", "gamma", "init_std"),
}


@pytest.mark.parametrize("name", TRACED)
def test_options_may_be_traced(name):
    """A program for many values can be made of the gradient, by the options too."""

    def loss(options):
        cell = CELLS[name](H, **options)
        return jnp.sum(unroll(cell, cell.init(jax.random.key(0), D), jnp.ones((4, 2, D)))[1] ** 2)

    options = dict.fromkeys(TRACED[name], jnp.array([0.2, 0.5]))
    jax.jit(jax.vmap(jax.grad(loss))).lower(options)


# Initial values.


def test_initial_values_of_oscillators():
    p = cornn(64).init(jax.random.key(0), 8)
    bound = (8 + 2 * 64) ** -0.5
    for a in p.values():
        assert 0.9 * bound < np.abs(a).max() <= bound
    p = unicornn(64).init(jax.random.key(0), 8)
    assert 0 <= p["W_h"].min() < 0.1 and 0.9 < p["W_h"].max() <= 1
    assert 0.08 < np.abs(p["c"]).max() <= 0.1 and not p["b"].any()
    bound = (6 / (65 * 8)) ** 0.5
    assert 0.95 * bound < np.abs(p["W_x"]).max() <= bound
    p = lem(64).init(jax.random.key(0), 8)
    for a in p.values():
        assert 0.9 / 8 < np.abs(a).max() <= 1 / 8


def test_initial_values_of_first_order_cells():
    p = antisymmetric(64, sigma_w=2.0).init(jax.random.key(0), 16)
    np.testing.assert_allclose([p["W_x"].std(), p["W_h"].std()], [1 / 4, 2 / 8], rtol=0.1)
    assert not p["b"].any()
    p = lipschitz(64, init_std=0.5).init(jax.random.key(0), 16)
    np.testing.assert_allclose([p["M_A"].std(), p["M_W"].std()], 0.5 / 64, rtol=0.1)
    for a in (p["W_x"], p["b"]):
        assert 0.9 / 4 < np.abs(a).max() <= 1 / 4


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        *((name, {"dt": 0.0}, "dt is 0.0; allowed: more than 0") for name in ("lem", "cornn", "unicornn")),
        *((name, {"epsilon": -1}, "epsilon is -1; allowed: mo") for name in ("antisymmetric_gated", "lipschitz")),
        ("lipschitz", {"beta": 1.5}, "beta is 1.5; allowed: 0 to 1"),
        ("wrnn", {"channels": 3}, "channels is 3; allowed: the divisors of hidden_size, 4"),
        ("wrnn", {"kernel_size": 4}, "kernel_size is 4; allowed: 3, 5, 7, ..."),
        ("wrnn", {"start": "rand"}, "unknown start 'rand'; allowed: fwd, eye"),
    ],
)
def test_options_that_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        CELLS[name](H, **options)
