"""The spectral diagnostics against closed forms, published exponents and NumPy in float64."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnnjax.cells import CELLS
from rnnjax.cells.lstm import LSTMCarry, lstm
from rnnjax.cells.rnn import rnn
from rnnjax.diagnostics import fixed_points as points
from rnnjax.diagnostics import init_map as maps
from rnnjax.diagnostics import jacobians, lyapunov, recurrent_matrix, sensitivity
from rnnjax.engine.unroll import unroll
from rnnjax.types import Cell

KEY = jax.random.key(0)


def linear(n, matrix=None):
    """h_t = h_{t-1} W + x_t."""
    return Cell(
        init=lambda key, size: {"W": jnp.eye(n) if matrix is None else matrix},
        initial_carry=lambda weights, shape: jnp.zeros((*shape, n)),
        step=lambda params, h, z: h @ params["W"] + z,
    )


def diagonal(n):
    """h_t = lambda h_{t-1} + x_t."""
    return Cell(
        init=lambda key, size: {"lambda": jnp.ones(n)},
        initial_carry=lambda weights, shape: jnp.zeros((*shape, n)),
        step=lambda params, h, z: params["lambda"] * h + z,
    )


class Plane(NamedTuple):
    x: jax.Array
    y: jax.Array


HENON = Cell(
    init=lambda key, size: {"a": jnp.asarray(1.4), "b": jnp.asarray(0.3)},
    initial_carry=lambda weights, shape: Plane(jnp.full(shape, 0.1), jnp.full(shape, 0.1)),
    step=lambda params, c, z: Plane(1 - params["a"] * c.x**2 + c.y, params["b"] * c.x),
)


class Mixed(NamedTuple):
    """A complex state, a real one and a clock: a carry as no cell of the table has it."""

    s: jax.Array
    h: jax.Array
    t: jax.Array


MIXED = Cell(
    init=lambda key, size: {"lambda": jnp.asarray([0.5 + 0.5j, 0.9j]), "w": jnp.asarray(0.7)},
    initial_carry=lambda weights, shape: Mixed(jnp.zeros(2, complex), jnp.zeros(1), jnp.zeros((), int)),
    step=lambda p, c, z: Mixed(p["lambda"] * c.s + z[0], jnp.tanh(p["w"] * c.h + c.s[:1].imag), c.t + 1),
)


def test_tanh_jacobians_are_the_closed_form():
    cell = rnn(5, gain=1.5)
    params = cell.init(KEY, 3)
    xs = jax.random.normal(KEY, (7, 3))
    J = jax.jit(lambda p: jacobians.step_jacobians(cell, p, xs))(params)
    _, h = unroll(cell, params, xs)
    expected = (1 - np.asarray(h) ** 2)[:, :, None] * np.asarray(params["W_h"]).T
    np.testing.assert_allclose(J, expected, atol=1e-6)


@pytest.mark.parametrize("name", list(CELLS))
def test_jacobians_of_every_cell_are_its_finite_differences(name):
    T, e = 3, 1e-6
    with jax.enable_x64(True):
        whole = {"truncated": False} if name == "lstm_1997" else {}  # of the gradient, as finite differences find it
        cell = CELLS[name](2, **whole)
        noise = np.random.default_rng(0)  # away from a kink, where a ReLU of 0 is
        params = {n: np.asarray(a, float) + 0.1 * noise.normal(size=a.shape) for n, a in cell.init(KEY, 2).items()}
        xs = jax.random.normal(KEY, (T, 2), float)

        @jax.jit
        def run(params, xs):
            weights = cell.weights(params)
            zero = cell.initial_carry(weights, ())
            start = jax.tree.map(lambda a: a + 0.1 if jnp.issubdtype(a.dtype, jnp.inexact) else a, zero)
            carries, zs = [start], cell.project(weights, xs)
            differences = []
            for t in range(T):
                z = jax.tree.map(lambda a, t=t: a[t], zs)
                h, restore = jacobians.flatten(carries[-1])
                nearby = jnp.concatenate([h + e * jnp.eye(h.size), h - e * jnp.eye(h.size), h[None]])
                after = jax.vmap(lambda h, r=restore, z=z: cell.step(weights, r(h), z))(nearby)
                flat = jax.vmap(lambda carry: jacobians.flatten(carry)[0])(after)
                differences.append((flat[: h.size] - flat[h.size : -1]).T / (2 * e))
                carries.append(jax.tree.map(lambda a: a[-1], after))
            return jacobians.step_jacobians(cell, params, xs, carries[0]), jnp.stack(differences)

        J, expected = run(params, xs)
        assert J.dtype == jnp.float64
        np.testing.assert_allclose(J, expected, atol=1e-7)


def test_complex_and_integer_parts_of_a_carry():
    params = MIXED.init(KEY, 1)
    J = jax.jit(lambda p: jacobians.step_jacobians(MIXED, p, jnp.ones((3, 1))))(params)
    a = np.zeros((5, 5))
    for i, value in enumerate([0.5 + 0.5j, 0.9j]):  # rows: Re s, Im s, h
        a[i, i] = a[2 + i, 2 + i] = value.real
        a[i, 2 + i], a[2 + i, i] = -value.imag, value.imag
    np.testing.assert_allclose(J[:, :4], np.broadcast_to(a[:4], (3, 4, 5)), atol=1e-6)


def test_statistics_of_jacobians():
    J = jax.random.normal(KEY, (3, 4, 4))
    stats = jacobians.jacobian_statistics(J)
    np.testing.assert_allclose(stats.mean_square, np.sum(np.square(J), (1, 2)) / 4, rtol=1e-5)
    np.testing.assert_allclose(stats.condition, np.linalg.cond(J), rtol=1e-3)
    np.testing.assert_allclose(stats.variance_square, np.var(np.linalg.svd(J)[1] ** 2, axis=1), rtol=1e-4)
    moduli = jacobians.eigenvalue_moduli(J)
    np.testing.assert_allclose(moduli, -np.sort(-np.abs(np.linalg.eigvals(J))), rtol=1e-4)


def test_product_spectrum_of_a_normal_linear_cell():
    """sigma = |lambda|^T at T = 10^4 in float32: eigenvalues real and complex, in a random basis.
    Where all steps are equal a QR rounds each alike, and that adds up: one in ten keeps it below 1e-4."""
    n, T = 6, 10_000
    rng = np.random.default_rng(0)
    D = np.zeros((n, n))
    D[0, 0], D[1, 1] = 0.998, 1.002
    for i, (r, angle) in {2: (0.995, 0.3), 4: (1.0, 2.0)}.items():
        D[i : i + 2, i : i + 2] = r * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    Q = np.linalg.qr(rng.normal(size=(n, n)))[0]
    W = (Q @ D @ Q.T).astype(np.float32)
    cell = linear(n)
    xs = jnp.zeros((T, n))
    spectrum = jax.jit(lambda p: jacobians.product_spectrum(cell, p, xs, every=T // 2, interval=10))({"W": W})
    rates = np.sort(np.log(np.abs(np.linalg.eigvals(W.astype(float)))))[::-1]  # of W as float32 holds it
    assert list(spectrum.steps) == [T // 2, T]
    np.testing.assert_allclose(spectrum.log_singular_values[1], T * rates, atol=1e-4)
    np.testing.assert_allclose(spectrum.log_condition[1], T * (rates[0] - rates[-1]), atol=2e-4)


def test_product_spectrum_of_a_diagonal_cell_in_any_order():
    """Ascending, so that the frame would never turn to the largest by itself, and one unit that dies at once."""
    lam = jnp.asarray([0.0, 0.5, 0.875, 0.998, 1.0, 1.01])
    cell = diagonal(6)
    spectrum = jax.jit(lambda p: jacobians.product_spectrum(cell, p, jnp.zeros((10_000, 6)), interval=10))
    log_sigma = np.asarray(spectrum({"lambda": lam}).log_singular_values[0], float)
    expected = 1e4 * np.log(np.asarray(lam, float)[:0:-1])
    np.testing.assert_allclose(log_sigma[:3], expected[:3], atol=1e-4)
    np.testing.assert_allclose(log_sigma[3:5], expected[3:], rtol=1e-6)
    assert np.all(np.isfinite(log_sigma)) and log_sigma[-1] < -8e4


def test_product_spectrum_of_a_shear_is_more_than_its_rates():
    """P = [[a^T, g (a^T - b^T)], [0, b^T]], g = c / (a - b), so that for b^T << a^T, sigma_1 = a^T sqrt(1 + g^2) and
    sigma_2 = b^T / sqrt(1 + g^2): the diagonal of R alone would miss the root."""
    a, b, c, T = 0.9921875, 0.96875, 0.03125, 10_000
    g = c / (a - b)
    expected = [T * math.log(a) + 0.5 * math.log1p(g * g), T * math.log(b) - 0.5 * math.log1p(g * g)]
    run = jax.jit(functools.partial(jacobians.product_spectrum_of, interval=10))
    for A in ([[a, c], [0, b]], [[a, 0], [c, b]], [[b, c], [0, a]]):  # the frame never turns by itself in the last
        log_sigma = run(jnp.broadcast_to(jnp.asarray(A), (T, 2, 2))).log_singular_values[0]
        np.testing.assert_allclose(log_sigma, expected, atol=1e-3)


def test_product_spectrum_of_random_matrices_is_the_svd_of_their_product():
    """Of condition 4 each, so that float32 has the least of their product, by rounding alone, to about 1e-5."""
    frames = np.linalg.qr(np.random.default_rng(0).normal(size=(2, 8, 7, 7)))[0]
    J = jnp.asarray(frames[0] * np.linspace(0.5, 2, 7) @ frames[1], jnp.float32)
    spectrum = jax.jit(functools.partial(jacobians.product_spectrum_of, every=4, interval=2))(J)
    for row, t in zip(spectrum.log_singular_values, (4, 8), strict=True):
        P = functools.reduce(lambda P, J: J @ P, np.asarray(J[:t], float))
        np.testing.assert_allclose(row, np.log(np.linalg.svd(P, compute_uv=False)), atol=1e-4)
    with pytest.raises(ValueError, match="every"):
        jacobians.product_spectrum_of(J, every=3)


def test_sensitivities_are_norms_of_the_product():
    cell = rnn(3, gain=0.8)
    params = cell.init(KEY, 2)
    xs = jax.random.normal(KEY, (6, 2))
    starts = jnp.asarray([0, 2, 5])

    @jax.jit
    def run(params):
        return (
            jacobians.step_jacobians(cell, params, xs),
            sensitivity.exact_sensitivity(cell, params, xs),
            sensitivity.frobenius_sensitivity(cell, params, xs, key=KEY, probes=3),
            sensitivity.spectral_sensitivity(cell, params, xs, key=KEY, starts=starts, iterations=60),
        )

    J, exact, frobenius, spectral = run(params)
    P = [np.eye(3)]
    for J_t in np.asarray(J, float)[::-1]:
        P.append(P[-1] @ J_t)
    P = np.stack(P[::-1])  # P_{t->T} for t = 0 .. T
    log_frobenius = np.log(np.linalg.norm(P, axis=(1, 2)) / math.sqrt(3))
    log_spectral = np.log(np.linalg.norm(P, 2, axis=(1, 2)))
    np.testing.assert_allclose(exact.log_frobenius, log_frobenius, atol=1e-5)
    np.testing.assert_allclose(exact.log_spectral, log_spectral, atol=1e-5)
    np.testing.assert_allclose(frobenius.log_norm, log_frobenius, atol=1e-5)
    np.testing.assert_allclose(spectral.log_norm, log_spectral[starts], atol=1e-4)


def test_few_probes_are_unbiased_and_long_products_stay_finite():
    cell = diagonal(4)
    lam = {"lambda": jnp.asarray([0.5, 0.6, 0.9, 0.2])}
    run = jax.jit(
        jax.vmap(lambda key, T3: sensitivity.frobenius_sensitivity(cell, lam, T3, key=key, probes=1), (0, None))
    )
    gains = run(jax.random.split(KEY, 4000), jnp.zeros((3, 4))).log_norm[:, 0]
    expected = np.mean(np.asarray(lam["lambda"], float) ** 6)
    assert abs(np.mean(np.exp(2 * np.asarray(gains, float))) / expected - 1) < 0.05
    long = jax.jit(lambda xs: sensitivity.frobenius_sensitivity(cell, lam, xs, key=KEY, probes=4))(jnp.zeros((3000, 4)))
    np.testing.assert_allclose(long.log_norm[0], 3000 * np.log(0.9) - 0.5 * np.log(4), rtol=1e-5)
    with pytest.raises(ValueError, match="probes"):
        sensitivity.frobenius_sensitivity(cell, lam, jnp.zeros((3, 4)), key=KEY, probes=5)


@pytest.mark.parametrize("k, interval", [(4, 1), (2, 3)])
def test_exponents_of_a_diagonal_cell(k, interval):
    lam = np.asarray([0.9, 1.1, 0.3, 0.7], np.float32)
    run = jax.jit(
        lambda p: lyapunov.lyapunov_spectrum(
            diagonal(4), p, jnp.zeros((2000, 4)), k=k, transient=500, interval=interval
        )
    )
    spectrum = run({"lambda": jnp.asarray(lam)})
    expected = np.sort(np.log(lam.astype(float)))[::-1][:k]
    np.testing.assert_allclose(spectrum.exponents, expected, atol=1e-5)
    assert np.all(np.asarray(spectrum.standard_error) < 1e-5)
    np.testing.assert_allclose(spectrum.sum, expected.sum(), atol=1e-5)


def test_henon_map_has_its_published_exponents():
    """0.419 and -1.623 (Sprott 2003), dimension 1.258; the sum is log b exactly. Batch means know their own error."""
    params = HENON.init(KEY, 1)
    run = jax.jit(lambda xs: lyapunov.lyapunov_spectrum(HENON, params, xs, transient=1000, batches=20))
    spectrum = run(jnp.zeros((101_000, 1)))
    np.testing.assert_allclose(spectrum.exponents, [0.419, -1.623], rtol=0.01)
    np.testing.assert_allclose(spectrum.kaplan_yorke, 1.258, rtol=0.01)
    np.testing.assert_allclose(spectrum.sum, np.log(0.3), atol=1e-5)
    assert np.all(np.abs(spectrum.exponents - jnp.asarray([0.4192, -1.6232])) < 4 * spectrum.standard_error)
    assert np.all(spectrum.standard_error < 0.004)


def test_kaplan_yorke_dimension():
    """The Lorenz attractor's 2.062 among them."""
    exponents = jnp.asarray([[-0.1, -1, -2], [0.9056, 0, -14.5723], [0.5, 0, -0.1], [1, -2, -3]])
    dimensions = jax.jit(jax.vmap(lyapunov.kaplan_yorke_dimension))(exponents)
    np.testing.assert_allclose(dimensions, [0, 2.0621, 3, 1.5], rtol=1e-4)


def test_too_few_steps_or_too_many_exponents():
    with pytest.raises(ValueError, match="k is 3"):
        lyapunov.lyapunov_spectrum(HENON, HENON.init(KEY, 1), jnp.zeros((100, 1)), k=3)
    with pytest.raises(ValueError, match="batches"):
        lyapunov.lyapunov_spectrum(HENON, HENON.init(KEY, 1), jnp.zeros((100, 1)), transient=95)


@pytest.mark.parametrize("lam, T", [(0.5, 40), (0.9, 100), (0.99, 750)])
def test_curse_of_memory(lam, T):
    """E (dh_T/dlambda)^2 = sum_k k^2 lambda^(2k-2) = (1 + lambda^2) / (1 - lambda^2)^3 for white input of variance 1
    (Zucchet & Orvieto 2024, arXiv:2405.21064): once over draws, once exactly, as |d^2 h_T / dlambda dx|^2."""
    cell = diagonal(1)

    def sensitivity_to_lambda(xs):
        def last(lam):
            return unroll(cell, {"lambda": lam}, xs, method="scan", outputs="last")[1]

        return jax.jvp(last, (jnp.full(1, lam),), (jnp.ones(1),))[1]

    expected = (1 + lam**2) / (1 - lam**2) ** 3
    sampled = jax.jit(sensitivity_to_lambda)(jax.random.normal(jax.random.key(1), (T, 30_000, 1)))
    assert abs(np.mean(np.square(np.asarray(sampled, float))) / expected - 1) < 0.02
    response = jax.jit(jax.grad(lambda xs: sensitivity_to_lambda(xs)[0]))(jnp.zeros((T, 1)))
    np.testing.assert_allclose(np.sum(np.square(np.asarray(response, float))), expected, rtol=1e-4)


def test_recurrent_matrices():
    c, s = math.cos(0.4), math.sin(0.4)
    jordan = [[0.5, 3.0], [0.0, 0.5]]
    W = jnp.asarray([[[0.9 * c, -0.9 * s], [0.9 * s, 0.9 * c]], jordan])
    report = jax.jit(recurrent_matrix.recurrent_matrix)(W)
    np.testing.assert_allclose(report.spectral_radius, [0.9, 0.5], rtol=1e-5)
    np.testing.assert_allclose(report.departure_from_normality, [0, 3], atol=1e-3)
    np.testing.assert_allclose(report.orthogonality_error[0], 0.19 * math.sqrt(2), rtol=1e-5)
    np.testing.assert_allclose(report.singular_values, np.linalg.svd(W)[1], rtol=1e-5)
    W_h = np.arange(16).reshape(2, 8)
    np.testing.assert_array_equal(recurrent_matrix.gate_blocks(W_h)[2], W_h[:, 4:6])
    with pytest.raises(ValueError, match="W_h"):
        recurrent_matrix.gate_blocks(W_h.T)


def test_fisher_memory_curves_of_the_paper():
    """Normal: sum_i v_i^2 |lambda_i|^2k (1 - |lambda_i|^2), total 1. Delay line: a^k (1 - a) / (1 - a^(k+1))."""
    n = 6
    lam, v = np.array([0.9, 0.5, -0.3, 0.0, 0.8, -0.8]), np.array([2, 1, 2, 0, 4, 0]) / 5
    k = np.arange(n)
    run = jax.jit(functools.partial(recurrent_matrix.fisher_memory, lags=n))
    memory = run(np.diag(lam), v)
    expected = ((v**2 * (1 - lam**2))[None] * lam[None] ** (2 * k[:, None])).sum(1)
    np.testing.assert_allclose(memory.curve, expected, rtol=1e-5)
    np.testing.assert_allclose(memory.total, 1, rtol=1e-5)

    a = 1.5
    line = np.diag(np.full(n - 1, a**0.5), 1)  # unit i feeds unit i + 1
    memory = run(line, np.eye(n)[0], noise=0.5)
    np.testing.assert_allclose(memory.curve, 2 * a**k * (1 - a) / (1 - a ** (k + 1)), rtol=1e-5)
    np.testing.assert_allclose(memory.total, np.sum(memory.curve), rtol=1e-5)
    assert np.isnan(run(np.eye(n) * 1.01, v).total)


@pytest.mark.parametrize("seed", range(3))
def test_fisher_memory_at_the_edge_does_not_depend_on_rounding(seed):
    """Orthogonal: NaN, whichever side of radius 1 its rounding lies on. Just inside: v . v (1 - r^2) r^2k."""
    n, r = 5, 1 - 1e-4
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.normal(size=(n, n)))[0]
    v = rng.normal(size=n)
    run = jax.jit(functools.partial(recurrent_matrix.fisher_memory, lags=3))
    for W in (Q, Q * (1 + 1e-7), Q * (1 - 1e-7), np.eye(n)):
        memory = run(W.astype(np.float32), v)
        assert np.all(np.isnan(memory.curve)) and np.isnan(memory.total)
    inside = run((r * Q).astype(np.float32), v)
    np.testing.assert_allclose(inside.curve, v @ v * (1 - r**2) * r ** (2 * np.arange(3)), rtol=5e-3)


def bisect(f, low, high):
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if f(middle) * f(low) > 0 else (low, middle)
    return low


def test_fixed_points_of_two_bistable_units():
    """h = tanh(w h), w = 2 and 1.5: 3 x 3 points, those with no unit at 0 stable, eigenvalues w (1 - h^2)."""
    w = np.array([2.0, 1.5])
    cell = rnn(2)
    params = {"W_x": jnp.zeros((1, 2)), "W_h": jnp.diag(jnp.asarray(w)), "b": jnp.zeros(2)}
    starts = jax.random.uniform(KEY, (60, 2), minval=-1.2, maxval=1.2)
    found = jax.jit(lambda s: points.fixed_points(cell, params, jnp.zeros(1), s))(starts)
    keep = np.asarray(found.distinct & found.fixed)
    h = np.asarray(found.carry)[keep]
    roots = [bisect(lambda x, g=g: math.tanh(g * x) - x, 0.1, 1) for g in w]
    expected = {(round(a * roots[0], 3), round(b * roots[1], 3)) for a in (-1, 0, 1) for b in (-1, 0, 1)}
    assert {(round(float(a), 3) + 0.0, round(float(b), 3) + 0.0) for a, b in h} == expected
    assert len(h) == 9
    np.testing.assert_allclose(found.eigenvalues[keep].real, -np.sort(-w * (1 - h**2), axis=1), atol=1e-4)
    np.testing.assert_array_equal(found.stable[keep], (np.abs(h) > 0.1).all(1))


def test_slow_point_of_a_ghost():
    """h = tanh(2 h + b) just past the fold has one fixed point left, and a ghost where q is small but not zero."""
    root = -math.sqrt(0.5)  # the fold: 2 (1 - h^2) = 1
    b = math.atanh(root) - 2 * root + 0.01
    params = {"W_x": jnp.ones((1, 1)), "W_h": jnp.full((1, 1), 2.0), "b": jnp.zeros(1)}
    run = jax.jit(lambda x, s: points.fixed_points(rnn(1), params, x, s))
    found = run(jnp.full(1, b), jnp.asarray([[-0.7], [0.9], [-0.75]]))
    assert found.distinct.sum() == 2 and list(found.fixed) == [True, False, False]
    np.testing.assert_allclose(found.carry[1, 0], root, atol=0.02)
    assert 1e-7 < found.q[1] < 1e-3


def test_fixed_points_of_a_carry_with_parts():
    cell = lstm(2, forget_bias=2.0, gain=3.0)
    params = cell.init(KEY, 1)
    start = jax.random.normal(KEY, (20, 2))

    @jax.jit
    def run(starts):
        found = points.fixed_points(cell, params, jnp.zeros(1), starts)
        return found, cell.step(params, found.carry, cell.project(params, jnp.zeros((20, 1))))

    found, again = run(LSTMCarry(start, start))
    assert found.fixed.sum() >= 5  # the other starts end in slow points
    assert np.all(np.abs(again.c - found.carry.c)[found.fixed] < 1e-4)
    assert found.eigenvalues.shape == (20, 4)


def test_map_of_an_orthogonal_linear_cell_is_log_gain():
    gains, biases = jnp.asarray([0.5, 1.0, 1.5]), jnp.asarray([0.0, 3.0])

    def make_cell(gain, bias):
        return linear(4, gain * jax.nn.initializers.orthogonal()(KEY, (4, 4)))

    run = jax.jit(functools.partial(maps.init_map, make_cell, batch_size=2))
    grid = run(gains, biases, jnp.zeros((500, 4)), key=KEY)
    expected = np.broadcast_to(np.log(gains)[:, None], (3, 2))
    np.testing.assert_allclose(grid.gradient_exponent, expected, atol=1e-5)
    np.testing.assert_allclose(grid.lyapunov, expected, atol=1e-5)


def test_edge_of_chaos_of_a_random_tanh_network():
    """W ~ N(0, g^2 / n), undriven: order below g = 1, where h = 0 and the exponent is log g at large n, chaos well
    above (Sompolinsky, Crisanti & Sommers 1988). A strong input ends the chaos (Molgedey et al. 1992)."""
    n = 48

    def make_cell(gain, scale):
        cell = rnn(n, w_h=lambda key, shape, dtype: gain * jax.random.normal(key, shape, dtype) / n**0.5)
        return cell._replace(
            initial_carry=lambda weights, shape: jnp.full((*shape, n), 0.5).at[: n // 2].set(-0.5),
            project=lambda params, x: {"h": scale * cell.project(params, x)["h"]},
        )

    xs = jax.random.normal(KEY, (400, 4))
    run = jax.jit(functools.partial(maps.init_map, make_cell, transient=200))
    grid = run(jnp.asarray([0.7, 2.5]), jnp.asarray([0.0, 30.0]), xs, key=KEY)
    assert grid.lyapunov[0, 0] < -0.2 and abs(grid.lyapunov[0, 0] - np.log(0.7)) < 0.15
    assert grid.lyapunov[1, 0] > 0.1
    assert grid.lyapunov[1, 1] < 0
    assert np.all(np.abs(grid.gradient_exponent - grid.lyapunov) < 0.1)
