"""Norms of what float32 can hold and the square of which it cannot, from one array up to a training run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnnjax import training
from rnnjax.cells.gated import gated
from rnnjax.diagnostics.credit import credit_matrix
from rnnjax.diagnostics.gradient_flow import gradient_flow, rms_over_batch, state_sensitivity, total_norm
from rnnjax.diagnostics.horizon import measured_horizon
from rnnjax.diagnostics.jacobians import product_spectrum
from rnnjax.diagnostics.recurrent_matrix import recurrent_matrix
from rnnjax.diagnostics.sensitivity import exact_sensitivity, frobenius_sensitivity, spectral_sensitivity
from rnnjax.engine.unroll import make_probe, make_taps, unroll
from rnnjax.gradients.compare import compare_gradients
from rnnjax.gradients.penalties import clip_cotangent, omega
from rnnjax.norms import norm, rms, scaled_norm
from rnnjax.training.config import Config, hyperparameters, make_task

T = 3
LINEAR = gated(2, {"h": lambda s: s}, lambda params, carry, *, h: h)


def linear(gain):
    """h_t = gain h_{t-1} + x_t of two units, whose |dL/dh_t| are powers of |gain|: (cell, params)."""
    complex_carry = jnp.iscomplexobj(gain)
    cell = LINEAR._replace(initial_carry=lambda weights, b: jnp.zeros((*b, 2), complex)) if complex_carry else LINEAR
    params = {"W_h": gain * jnp.eye(2), "W_x": jnp.ones((1, 2)), "b": jnp.zeros(2)}
    return cell, {name: value.astype(jnp.result_type(gain)) for name, value in params.items()}


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([3, -4], 5),
        ([3e-30, 4e-30], 5e-30),
        ([3e30, 4e30], 5e30),
        ([3e30 + 4e30j, 0], 5e30),
        ([3e-30j, 4e-30], 5e-30),
        ([1.2e-38, 0], 1.2e-38),
        ([3e38, 1e-38], 3e38),
        ([0, 0], 0),
        ([], 0),
        ([-np.inf, 1], np.inf),
        ([np.nan, 1], np.nan),
        ([np.inf, np.nan], np.nan),
    ],
)
def test_a_norm_is_0_inf_or_nan_only_where_its_entries_are(entries, expected):
    a = jnp.array(entries, jnp.complex64 if np.iscomplexobj(entries) else jnp.float32)
    np.testing.assert_allclose(jax.jit(norm)(a), expected, rtol=1e-6)


def test_norms_join_leaves_differentiate_at_zero_and_change_no_digit():
    draw = np.random.default_rng(0).normal(size=(5, 2, 37)).astype("f")
    tree = {"a": draw[:, 0], "b": draw[:, 1:]}
    plain = jax.jit(lambda a: jnp.sqrt(jnp.sum(jnp.square(a), axis=-1)))(draw[:, 0])
    np.testing.assert_array_equal(jax.jit(norm, static_argnums=1)(draw[:, 0], 1), plain)
    np.testing.assert_allclose(norm(tree, 1), np.linalg.norm(draw.reshape(5, -1), axis=1), rtol=1e-6)
    np.testing.assert_allclose(rms(3e30 * draw[0], 0), 3e30 * np.sqrt(np.mean(draw[0] ** 2, 0)), rtol=1e-6)
    size, _ = scaled_norm(jnp.full(9, 3e38))  # the norm has no float, and yet every entry is finite
    assert jnp.isfinite(size)
    np.testing.assert_allclose(norm(jnp.ones(300, jnp.bfloat16)), 300**0.5, rtol=1e-6)
    np.testing.assert_allclose(jax.jacobian(norm)(jnp.array([3e-30, 4e-30])), [0.6, 0.8], rtol=1e-6)
    np.testing.assert_array_equal(jax.grad(norm)(jnp.zeros(2)), [0, 0])


@pytest.mark.parametrize("gain", [0.5, 1e-12, 1e12, 0.5j], ids=str)
@pytest.mark.parametrize("method", ["scan", "deferred"])
def test_probe_and_taps_say_how_large_a_gradient_is_however_small_or_large(method, gain):
    """dL/dh_t = gain^(T-t) of one unit; down to 1e-24, up to 1e24, and for a complex state."""
    cell, params = linear(gain)
    taps, probe = make_taps(cell, params, T, (4,)), make_probe(cell, params, T, (4,))

    def loss(probe, taps):
        return jnp.sum(unroll(cell, params, jnp.zeros((T, 4, 1)), probe=probe, taps=taps, method=method)[0][:, 0].real)

    @jax.jit
    def measure(probe, taps):
        flow = gradient_flow(lambda taps: loss(None, taps), taps)
        return jax.grad(loss)(probe, None), flow.norm, rms_over_batch(flow.norm, 4), total_norm([flow.norm, flow.norm])

    probed, tapped, over_batch, total = measure(probe, taps)
    expected = np.abs(gain) ** np.arange(T - 1, -1, -1.0)
    for found, factor in ((probed[:, 1], 1), (tapped[:, 1], 1), (over_batch, 4), (total[:, 1], 2**0.5)):
        assert not jnp.iscomplexobj(found)
        np.testing.assert_allclose(found, factor * expected, rtol=1e-5)


@pytest.mark.parametrize("gain", [1e-12, 1e12], ids=str)
def test_credit_and_state_sensitivity_reach_as_far(gain):
    cell, params = linear(gain)
    xs = jnp.zeros((T, 1, 1))
    powers = gain ** np.arange(T, dtype=float)
    credit = jax.jit(lambda p: credit_matrix(cell, p, xs, lambda ys: ys[..., 0]))(params)
    np.testing.assert_allclose(credit.by_lag, powers, rtol=1e-5)
    found = jax.jit(
        lambda taps: state_sensitivity(lambda t: unroll(cell, params, xs, taps=t)[0], taps, jax.random.key(0), 200)
    )(make_taps(cell, params, T, (1,)))
    np.testing.assert_allclose(found[:, 0], powers[::-1], rtol=0.2)


@pytest.mark.parametrize("size", [1e-30, 1e30], ids=str)
def test_penalties_clips_and_comparisons_do_not_depend_on_the_size_of_a_loss(size):
    """omega, clip_cotangent (in proportion) and the errors of truncated BPTT are those of a loss of ordinary size."""
    cell, params = linear(0.5)
    xs = jax.random.normal(jax.random.key(0), (T, 4, 1))

    @jax.jit
    def measure(size):
        def loss(ys):
            return size * jnp.sum(ys[-1] * jnp.arange(1.0, 9).reshape(4, 2))

        clipped = clip_cotangent(cell, 5 * size)
        passed = jax.grad(lambda taps: loss(unroll(clipped, params, xs, taps=taps)[1]))(
            make_taps(cell, params, T, (4,))
        )
        errors = compare_gradients(cell, params, xs, loss, jax.random.key(0), methods=("tbptt:1",))
        return omega(cell, params, xs, jax.random.key(0), loss=loss), norm(passed, 2) / size, errors

    found, expected = measure(size), measure(1.0)
    np.testing.assert_allclose(expected[0], T * 0.25, rtol=1e-5)
    lengths = np.linalg.norm(np.arange(1.0, 9).reshape(4, 2), axis=1)
    np.testing.assert_allclose(expected[1][1], np.minimum(lengths / 2, 5), rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), found, expected)


@pytest.mark.parametrize("gain", [1e-25, 1e25], ids=str)
def test_products_and_matrices_of_any_size_have_their_logs(gain):
    """|dh_T/dh_t| = gain^(T-t), each factor of which has no square."""
    cell, params = linear(gain)
    key, xs = jax.random.key(0), jnp.zeros((T, 1))
    frobenius, spectral, exact, spectrum, matrix = jax.jit(
        lambda p: (
            frobenius_sensitivity(cell, p, xs, key=key, probes=2).log_norm,
            spectral_sensitivity(cell, p, xs, key=key, iterations=2).log_norm,
            exact_sensitivity(cell, p, xs),
            product_spectrum(cell, p, xs).log_singular_values,
            recurrent_matrix(gain * jnp.eye(2, k=1)).departure_from_normality,
        )
    )(params)
    logs = np.log(gain) * np.arange(T, -1, -1)
    for found in (frobenius, [*spectral, 0], exact.log_frobenius, exact.log_spectral):
        np.testing.assert_allclose(found, logs, rtol=1e-5)
    np.testing.assert_allclose(spectrum, [[logs[0]] * 2], rtol=1e-5)
    np.testing.assert_allclose(matrix, gain, rtol=1e-5)


def test_a_horizon_does_not_depend_on_the_size_of_outputs_and_is_nan_where_they_are():
    inputs = jax.random.normal(jax.random.key(1), (5, 4, 1))

    @jax.jit
    def change(size):
        return measured_horizon(lambda xs: size * jnp.sum(xs[-2:], axis=0), jnp.mean, inputs, jax.random.key(0))

    for size in (1e-30, 1e30):
        np.testing.assert_allclose(change(size).output_change, change(1.0).output_change, atol=1e-6)
        assert change(size).horizon == 2
    for size in (jnp.nan, jnp.inf):
        assert np.isnan(change(size).horizon)


def run_of_scaled_loss(monkeypatch, **changes):
    """`step(size, clip) -> (state before, state after, record)` of a run with `size` times its loss."""
    config = Config(seq_len=8, cell="rnn", hidden_size=3, batch_size=2, steps=1, eval_every=1, eval_batch=2, **changes)
    scale, task = [1.0], make_task(config)
    loss = lambda outputs, batch: scale[0] * task.loss(outputs, batch)  # noqa: E731
    monkeypatch.setattr("rnnjax.training.train.make_task", lambda config: task._replace(loss=loss))
    train = training.make_train(config)
    values = {name: jnp.float32(value) for name, value in hyperparameters(config).items()}
    state = jax.jit(train.init)(jax.random.key(0), values)

    @jax.jit
    def step(size, clip):
        scale[0] = size
        return state, *train.chunk(state, values | {"clip": clip})

    return step


def test_a_clipped_update_does_not_depend_on_the_size_of_the_loss(monkeypatch):
    """Finite gradients of 1e33 or 1e-20, whose squares float32 cannot hold, are clipped like any other."""
    step = run_of_scaled_loss(monkeypatch, optimizer="sgd", lr=1.0)
    before, plain, record = step(1.0, 1e-3)
    size = record["grad_norm"]
    for factor, clip in ((1e33, 1e-3), (1e20, 1e-3), (1e-20, 1e-23)):
        _, after, record = step(factor, clip)
        assert after.diverged == -1 and record["clipped"] == 1
        np.testing.assert_allclose(record["grad_norm"], factor * size, rtol=1e-4)
        if clip == 1e-3:  # what is smaller is lost in the sum with the parameters
            for a, b, start in zip(*(jax.tree.leaves(s.params) for s in (after, plain, before)), strict=True):
                np.testing.assert_allclose(a - start, b - start, rtol=1e-2, atol=1e-6)


def test_moments_that_overflow_are_a_divergence_and_not_a_silent_stop(monkeypatch):
    """Adam's second moment of a gradient of 1e25 has no float: its updates would be 0 from then on."""
    step = run_of_scaled_loss(monkeypatch, optimizer="adam")
    before, after, record = step(1e25, 0.0)
    assert np.isfinite(record["grad_norm"]) and (after.diverged, training.BLAME[int(after.blame)]) == (0, "update")
    jax.tree.map(np.testing.assert_array_equal, (before.params, before.opt_state), (after.params, after.opt_state))
