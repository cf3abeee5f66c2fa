"""Cells that are differential equations: against the papers' equations in NumPy, and what the papers say of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import check_equation, jit, normal, parts, sigma

from rnnjax.cells import CELLS, cornn, lem, unicornn
from rnnjax.engine.unroll import unroll

D, H = 3, 4


def lem_step(p, carry, x, old=False):
    """Rusch et al. (2021), eq. 3."""
    (V_1, V_2, V_z, V_y), (b_1, b_2, b_z, b_y) = parts(p, "W_x", 4), parts(p, "b", 4)
    W_1, W_2, W_z = parts(p, "W_h", 3)
    y, z = carry
    d_1 = 0.7 * sigma(y @ W_1 + x @ V_1 + b_1)
    d_2 = 0.7 * sigma(y @ W_2 + x @ V_2 + b_2)
    z_new = (1 - d_1) * z + d_1 * np.tanh(y @ W_z + x @ V_z + b_z)
    y_new = (1 - d_2) * y + d_2 * np.tanh((z if old else z_new) @ p["W_y"] + x @ V_y + b_y)
    return type(carry)(y_new, z_new), y_new


def cornn_step(p, carry, x, old=False):
    """Rusch & Mishra (2020), eq. 3."""
    y, z = carry
    W_y, W_z = p["W_h"][:H], p["W_h"][H:]
    force = np.tanh(y @ W_y + z @ W_z + x @ p["W_x"] + p["b"])
    z_new = z + 0.3 * force - 0.3 * 2.7 * y - 0.3 * 1.2 * z
    y_new = y + 0.3 * (z if old else z_new)
    return type(carry)(y_new, z_new), y_new


def unicornn_step(p, carry, x):
    """Rusch & Mishra (2021), eq. 3."""
    y, z = carry
    dt = 0.3 * sigma(p["c"])
    z = z - dt * (np.tanh(p["W_h"] * y + x @ p["W_x"] + p["b"]) + 2.0 * y)
    y = y + dt * z
    return type(carry)(y, z), y


EQUATIONS = {
    "lem": (lem(H, dt=0.7), lem_step),
    "cornn": (cornn(H, dt=0.3, gamma=2.7, epsilon=1.2), cornn_step),
    "unicornn": (unicornn(H, dt=0.3, alpha=2.0), unicornn_step),
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


TRACED = {
    "lem": ("dt", 0.2, 0.5),
    "cornn": ("epsilon", 3.0, 8.0),
    "unicornn": ("alpha", 2.0, 30.0),
}


def test_an_option_may_be_traced():
    """Two values in one program give what each gives alone, gradients too."""
    xs = normal(4, 2, D).astype(np.float32)
    params = {name: CELLS[name](H).init(jax.random.key(0), D) for name in TRACED}

    def gradient(i, traced):
        def loss(params):
            total = 0.0
            for name, (option, *values) in TRACED.items():
                value = jnp.array(values)[i] if traced else values[i]
                total += jnp.sum(unroll(CELLS[name](H, **{option: value}), params[name], xs)[1] ** 2)
            return total

        return jax.grad(loss)(params)

    both, alone = jit(lambda: (jax.vmap(lambda i: gradient(i, True))(jnp.arange(2)), gradient(1, False)))()
    for name in TRACED:
        for n, a in both[name].items():
            np.testing.assert_allclose(a[1], alone[name][n], atol=1e-6)
        assert any(np.abs(a[0] - a[1]).max() > 1e-3 * np.abs(a).max() for a in both[name].values())


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


@pytest.mark.parametrize("name", ["lem", "cornn", "unicornn"])
def test_a_step_of_time_that_cannot_be_is_refused(name):
    with pytest.raises(ValueError, match=r"dt is 0.0; allowed: more than 0"):
        CELLS[name](H, dt=0.0)
