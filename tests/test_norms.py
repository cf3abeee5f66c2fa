"""Norms of what float32 can hold and the square of which it cannot, from one array up to a training run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnnjax.cells.gated import gated
from rnnjax.diagnostics.credit import credit_matrix
from rnnjax.diagnostics.gradient_flow import gradient_flow, rms_over_batch, state_sensitivity, total_norm
from rnnjax.norms import norm, rms, scaled_norm
from rnnjax.unroll import make_probe, make_taps, unroll

T = 3
LINEAR = gated(2, {"h": lambda s: s}, lambda params, carry, *, h: h)


def linear(gain):
    """h_t = gain h_{t-1} + x_t of two units, whose |dL/dh_t| are powers of |gain|: (cell, params)."""
    complex_carry = jnp.iscomplexobj(gain)
    cell = LINEAR._replace(initial_carry=lambda b: jnp.zeros((*b, 2), complex)) if complex_carry else LINEAR
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
    taps, probe = make_taps(cell, T, (4,)), make_probe(cell, T, (4,))

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
    )(make_taps(cell, T, (1,)))
    np.testing.assert_allclose(found[:, 0], powers[::-1], rtol=0.2)
