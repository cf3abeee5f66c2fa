"""The readout in one solve: against NumPy's least squares, a penalised solution by hand, and on two tasks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnnjax import TASKS, ridge_readout, unroll
from rnnjax.cells import esn, gru, lstm
from rnnjax.tasks.signals import signal

T, B, D, H, O = 30, 4, 2, 5, 3
CELL = lstm(H)
PARAMS = CELL.init(jax.random.key(0), D)
NOISE = np.random.default_rng(0)
XS = NOISE.normal(size=(T, B, D)).astype(np.float32)
YS = NOISE.normal(size=(T, B, O))
LENGTHS = np.array([30, 7, 0, 20])


def states():
    return np.asarray(unroll(CELL, PARAMS, XS, lengths=LENGTHS)[1], float)


def with_ones(X):
    return np.concatenate([X, np.ones((*X.shape[:-1], 1))], axis=-1)


def by_hand(X, Y, penalty):
    """The normal equations, with a column of ones that has no price."""
    X, price = with_ones(X), np.diag([penalty] * X.shape[1] + [0])
    return np.linalg.solve(X.T @ X + price, X.T @ Y)


def test_without_a_penalty_it_is_least_squares():
    found = ridge_readout(CELL, PARAMS, XS, YS, penalty=0)
    X = np.asarray(unroll(CELL, PARAMS, XS)[1], float).reshape(-1, H)
    expected = np.linalg.lstsq(with_ones(X), YS.reshape(-1, O), rcond=None)[0]
    np.testing.assert_allclose(np.vstack([found.W, found.b]), expected, atol=1e-5)
    assert found.W.dtype == found.b.dtype == jnp.float32


@pytest.mark.parametrize("penalty", [1e-3, 2.0])
def test_a_penalty_lengths_and_a_washout(penalty):
    found = ridge_readout(CELL, PARAMS, XS, jnp.asarray(YS), penalty, lengths=LENGTHS, washout=5)
    counted = (np.arange(T)[:, None] >= 5) & (np.arange(T)[:, None] < LENGTHS)
    X = states()
    assert counted.sum() == 25 + 2 + 0 + 15
    expected = by_hand(X[counted], YS[counted], penalty)
    np.testing.assert_allclose(np.vstack([found.W, found.b]), expected, atol=2e-5)
    np.testing.assert_allclose(found(X), with_ones(X) @ expected, atol=1e-4)


def test_one_target_a_sequence_is_read_from_its_last_step():
    found = ridge_readout(CELL, PARAMS, XS, YS[0], 0.1, lengths=LENGTHS)
    last = states()[LENGTHS[[0, 1, 3]] - 1, [0, 1, 3]]
    expected = by_hand(last, YS[0][[0, 1, 3]], 0.1)
    np.testing.assert_allclose(np.vstack([found.W, found.b]), expected, atol=1e-5)


def test_a_batch_is_not_needed():
    found = ridge_readout(CELL, PARAMS, XS[:, 0], YS[:, 0])
    expected = ridge_readout(CELL, PARAMS, XS[:, :1], YS[:, :1])
    np.testing.assert_allclose(found.W, expected.W, rtol=1e-3)


@pytest.mark.slow  # docs/cells.md does the same
def test_an_echo_state_network_forecasts_mackey_glass():
    """Ten steps ahead, on steps that it was not fitted to, within a hundredth of the series' deviation."""
    series = signal("mackey_glass", steps=1600).columns["x"].astype(np.float32)[:, None]
    xs, ys = series[:-10], series[10:]
    cell = esn(150, spectral_radius=0.95, leak=0.5, bias_scale=0.5)
    params = cell.init(jax.random.key(0), 1)
    readout = ridge_readout(cell, params, xs[:1100], ys[:1100], 1e-8, washout=100)
    expected = readout(unroll(cell, params, xs)[1])[1100:]

    def error(forecast):
        return np.sqrt(np.mean((forecast - ys[1100:]) ** 2)) / np.std(ys)

    assert error(xs[1100:]) > 1  # the last value
    assert error(expected) < 0.015


@pytest.mark.parametrize("cell", [esn(60), gru(60)], ids=["esn-60", "gru-60"])
def test_any_untrained_cell_holds_a_sum_of_its_last_inputs(cell):
    xs = np.random.default_rng(0).uniform(-0.5, 0.5, size=(600, 1)).astype(np.float32)
    ys = xs + np.roll(xs, 1, axis=0) + np.roll(xs, 2, axis=0)
    params = cell.init(jax.random.key(0), 1)
    readout = ridge_readout(cell, params, xs[:400], ys[:400], washout=50)
    left = readout(unroll(cell, params, xs)[1])[400:] - ys[400:]
    assert np.std(left) < 0.2 * np.std(ys)


@pytest.mark.slow
def test_a_task_s_batch():
    """On adding, whose sum of products no linear readout of the inputs has, from one batch."""
    task = TASKS["adding"](6)
    cell = esn(100, spectral_radius=0.99, bias_scale=0.5)
    params = cell.init(jax.random.key(0), task.input_size)
    batch, test = (task.sample(jax.random.key(seed), 1000) for seed in (0, 1))
    readout = ridge_readout(cell, params, batch.inputs, batch.targets, 1e-3, lengths=batch.lengths)
    outputs = readout(unroll(cell, params, test.inputs, lengths=test.lengths, outputs="last")[1])
    assert task.metrics(outputs, test)[task.score] < 0.1 * task.baseline


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"targets": YS[1:]}, r"targets have shape \(29, 4, 3\); allowed: \[30, 4, O\], or \[4, O\]"),
        ({"targets": YS[0, 0]}, r"targets have shape \(3,\); allowed: \[30, 4, O\], or \[4, O\]"),
        ({"penalty": -1.0}, "penalty is -1.0; allowed: 0 or more"),
        ({"washout": 30}, "washout is 30; allowed: 0 to 29, of 30 steps"),
        ({"targets": YS[0], "washout": 1}, "washout is 1; allowed: 0"),
        ({"lengths": np.array([2, 0, 1, 2]), "washout": 2}, "no step counts; allowed: a length above the washout"),
        ({"targets": np.full_like(YS, np.nan)}, "states or targets are not finite"),
    ],
)
def test_what_cannot_be_fitted_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ridge_readout(CELL, PARAMS, XS, **({"targets": YS} | arguments))
