"""The whole run as one pure function: learning, recording, reproducing, and a cell that a user wrote."""

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from train import show

from rnnjax import runs
from rnnjax.cells import CELLS, gated, rnn
from rnnjax.diagnostics.gradient_flow import (
    gradient_fault,
    gradient_flow,
    gradient_reach,
    state_sensitivity,
    total_norm,
)
from rnnjax.engine.unroll import make_taps, unroll
from rnnjax.figures import plotting
from rnnjax.keys import Purpose, purpose_key
from rnnjax.nn import SequenceModel
from rnnjax.runs.read import recorded_reach
from rnnjax.sweeps.grid import lane_inputs, make_lanes
from rnnjax.tasks import TASKS, adding
from rnnjax.training import make_optimizer, make_train, outputs, penalty
from rnnjax.training.checks import check
from rnnjax.training.config import Config, hyperparameters
from rnnjax.training.settings import BadSetting, checked
from rnnjax.training.shards import slice_of_batch
from rnnjax.types import Cell, Report

SMALL = Config(
    task="adding", seq_len=8, cell="lstm", hidden_size=6, batch_size=4, steps=6, eval_every=3, eval_batch=8, lr=1e-2
)


def values(config, **changes):
    return {name: jnp.float32(v) for name, v in (hyperparameters(config) | changes).items()}


@pytest.fixture(scope="module")
def small_run():
    train = make_train(SMALL)
    run = jax.jit(train.run)
    return train, run, run(jax.random.key(0), values(SMALL))


def leaves_close(a, b, atol):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, atol=atol, rtol=0)


def test_same_key_same_run_bitwise_and_other_key_another(small_run):
    _, run, (state, records) = small_run
    again, records_again = run(jax.random.key(0), values(SMALL))
    leaves_close((state.params, state.opt_state, records), (again.params, again.opt_state, records_again), 0)
    other, _ = run(jax.random.key(1), values(SMALL))
    assert any(
        np.any(a != b) for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(other.params), strict=True)
    )


def test_vmap_over_keys_and_learning_rates_equals_single_runs(small_run):
    train, run, _ = small_run
    keys = jax.random.split(jax.random.key(3), 3)
    rates = jnp.array([1e-2, 3e-3, 1e-3])
    lanes = {name: jnp.broadcast_to(v, (3,)) for name, v in values(SMALL).items()} | {"lr": rates}
    together, records = jax.jit(jax.vmap(train.run))(keys, lanes)
    for k in range(3):
        alone, record = run(keys[k], values(SMALL, lr=float(rates[k])))
        leaves_close(jax.tree.map(lambda leaf, k=k: leaf[k], together.params), alone.params, 1e-5)
        leaves_close(jax.tree.map(lambda leaf, k=k: leaf[k], records["loss"]), record["loss"], 1e-5)


def test_chunks_equal_the_whole_run_and_compile_once(small_run):
    train, _, (state, records) = small_run
    traces = []

    def counted(state, hyperparameters):
        traces.append(1)
        return train.chunk(state, hyperparameters)

    chunk = jax.jit(counted)
    piece = jax.jit(train.init)(jax.random.key(0), values(SMALL))
    for k in range(2):
        piece, record = chunk(piece, values(SMALL, lr=1e-2))
        np.testing.assert_allclose(record["loss"], records["loss"][k], rtol=1e-6)
    assert len(traces) == 1
    leaves_close(piece.params, state.params, 1e-6)


def test_recorded_flow_is_that_of_the_taps():
    """One step of a run that does not move: what it records is the exact gradient of that very batch."""
    config = dataclasses.replace(SMALL, cell="rnn", num_layers=2, jacobian=1.0)  # no penalty's gradient
    config = dataclasses.replace(config, steps=1, eval_every=1)
    train = make_train(config)
    state = jax.jit(train.init)(jax.random.key(5), values(config))
    _, record = jax.jit(train.chunk)(state, values(config))

    @jax.jit
    def flow_of_the_taps(state):
        data_key, _ = jax.random.split(jax.random.fold_in(state.key, 0))
        batch = train.task.sample(data_key, config.batch_size, split="train")
        model = train.model(state.params)
        taps = model.make_taps(8, (config.batch_size,))
        return gradient_flow(lambda taps: train.task.loss(model(batch.inputs, taps=taps), batch), taps)

    flow = flow_of_the_taps(state)
    expected = jax.tree.map(lambda n: jnp.sqrt(jnp.mean((config.batch_size * n) ** 2, axis=1)), flow.norm)
    assert len(record["flow"]) == 2 and record["flow"][0].shape == (8,)
    leaves_close(record["flow"], expected, 1e-6)
    np.testing.assert_allclose(record["loss"], flow.loss, rtol=1e-6)


def test_a_cell_that_a_user_wrote_trains_on_adding_and_has_its_gradient_map(monkeypatch):
    """A leaky integrator (Jaeger et al. 2007) in a user's own file: nothing of the package changes."""

    class Leaky(NamedTuple):
        h: jax.Array

    def leaky(hidden_size):
        def init(key, input_size):
            k1, k2 = jax.random.split(key)
            return {
                "W_x": jax.random.normal(k1, (input_size, hidden_size)) / math.sqrt(input_size),
                "W_h": jax.random.normal(k2, (hidden_size, hidden_size)) / math.sqrt(hidden_size),
                "a": jnp.full(hidden_size, 2.0),
            }

        def initial_carry(weights, batch_shape):
            return Leaky(jnp.zeros((*batch_shape, hidden_size)))

        def step(params, carry, z):
            keep = jax.nn.sigmoid(params["a"])
            return Leaky(keep * carry.h + (1 - keep) * jnp.tanh(z @ params["W_x"] + carry.h @ params["W_h"]))

        return Cell(init, initial_carry, step)

    monkeypatch.setitem(CELLS, "leaky", leaky)
    config = Config(
        cell="leaky", seq_len=6, hidden_size=16, batch_size=32, steps=400, eval_every=200, eval_batch=64, lr=1e-2
    )
    check(config)
    train = make_train(config)
    _, records = jax.jit(train.run)(jax.random.key(0), values(config))
    assert records["eval_mse"][-1] < 0.5 * train.task.baseline
    (flow,) = records["flow"]
    assert flow.h.shape == (2, 6) and np.all(np.asarray(flow.h) > 0)


def test_a_penalty_is_of_what_each_layer_reads():
    """Two residual layers put together by hand: the second reads y + x, and nothing past a sequence's end counts."""
    config = dataclasses.replace(SMALL, num_layers=2, residual=True, jacobian=1.0)
    lengths, key = jnp.array([5, 2]), jax.random.key(1)
    model = SequenceModel([rnn(2, gain=2.0)] * 2, input_size=2, output_size=1, residual=True, rngs=nnx.Rngs(0))
    x = 3 * jax.random.normal(jax.random.key(2), (5, 2, 2))

    @jax.jit
    def by_hand(x):
        errors, ys = [], x
        for number, layer in enumerate(model.stack.layers):
            W_x, W_h, b = (layer.parameters[name][...] for name in ("W_x", "W_h", "b"))
            h, new = jnp.zeros((2, 2)), []
            keys = jax.random.split(jax.random.split(jax.random.fold_in(key, number), 1)[0], 5)
            for t in range(5):
                v = jax.random.normal(jax.random.split(keys[t], 1)[0], (2, 2))
                h = jnp.tanh(ys[t] @ W_x + h @ W_h + b)
                stretched = jnp.linalg.norm((1 - h**2) * (v @ W_h), axis=-1) / jnp.linalg.norm(v, axis=-1)
                errors.append(jnp.where(t < lengths, (stretched - 1) ** 2 / lengths, 0))
                new.append(h)
            ys = ys + jnp.stack(new)
        return sum(map(jnp.mean, errors))

    found = jax.jit(lambda x: penalty(config, model, x, key, lengths))(x.at[2:, 1].set(jnp.nan))
    np.testing.assert_allclose(found, by_hand(x), rtol=1e-4)


@pytest.mark.parametrize("method", ["rtrl", "tbptt:8"])
def test_other_gradients_that_are_exact_train_alike(method):
    config = dataclasses.replace(SMALL, cell="rnn", hidden_size=3, eval_every=6, gradient_flow=False)
    key = jax.random.key(0)
    exact, _ = jax.jit(make_train(config).run)(key, values(config))
    other = dataclasses.replace(config, gradient=method)
    check(other)
    found, _ = jax.jit(make_train(other).run)(key, values(other))
    leaves_close(found.params, exact.params, 1e-5)


@pytest.mark.slow
def test_noisy_gradients_and_penalties_change_what_is_learned_and_stay_finite():
    plain = dataclasses.replace(SMALL, cell="rnn", hidden_size=3, eval_every=6, cell_options={"gain": 1.5})
    exact, _ = jax.jit(make_train(plain).run)(jax.random.key(0), values(plain))
    for change in ({"gradient": "uoro"}, {"omega": 1.0, "flossing": 1.0, "jacobian": 1.0}, {"cotangent_clip": 1e-3}):
        config = dataclasses.replace(plain, **change)
        check(config)
        state, _ = jax.jit(make_train(config).run)(jax.random.key(0), values(config))
        pairs = list(zip(jax.tree.leaves(state.params), jax.tree.leaves(exact.params), strict=True))
        assert all(np.all(np.isfinite(a)) for a, _ in pairs) and any(np.any(a != b) for a, b in pairs)


def test_the_orthogonality_penalty_makes_the_recurrent_matrix_orthogonal():
    config = dataclasses.replace(
        SMALL, cell="rnn", cell_options={"gain": 2.0}, orthogonality=1.0, steps=300, eval_every=300, lr=3e-2
    )
    config = dataclasses.replace(config, gradient_flow=False)
    state, _ = jax.jit(make_train(config).run)(jax.random.key(0), values(config))
    W = state.params["stack"]["layers"][0]["parameters"]["W_h"][...]
    assert np.linalg.norm(W.T @ W - np.eye(6)) < 0.5  # from |4 I - I| = 7.3


def test_elementwise_vectors_of_a_user_s_gated_cell_learn():
    """A cell from `gated` with a vector of its own gets that vector's gradient (here against finite differences)."""
    with jax.enable_x64(True):
        cell = gated(
            3,
            {"h": jnp.tanh},
            lambda params, carry, *, h: params["d"] * carry + h,
            vectors={"d": lambda key, shape, dtype: jax.random.uniform(key, shape, jnp.float64)},
        )
        params = jax.tree.map(lambda a: a.astype(jnp.float64), cell.init(jax.random.key(0), 2))
        xs = jax.random.normal(jax.random.key(1), (5, 2, 2), jnp.float64)
        loss = jax.jit(lambda p: jnp.sum(unroll(cell, p, xs, method="deferred")[1] ** 3))
        gradient = jax.grad(loss)(params)["d"]
        eps = 1e-6
        for k in range(3):
            up, down = (dict(params, d=params["d"].at[k].add(s * eps)) for s in (1, -1))
            np.testing.assert_allclose(gradient[k], (loss(up) - loss(down)) / (2 * eps), rtol=1e-6)


def test_a_run_that_diverges_stops_where_it_was(small_run):
    _, run, _ = small_run
    state, records = run(jax.random.key(0), values(SMALL, lr=1e30))
    assert int(state.diverged) >= 0 and int(state.blame) > 0
    assert int(records["diverged"][-1]) == int(state.diverged)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state.params))


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_named_parameters_have_a_learning_rate_of_their_own_and_no_decay(name):
    """Groups as one writes them with optax by hand: W_h at a tenth of the rate, the first layer's b at half, b without
    decay; the factors multiply decoupled decay, too."""
    lr_of, no_decay = "W_h:0.1,layers.0.parameters.b:0.5,b:1", "b,readout.bias"
    config = dataclasses.replace(SMALL, optimizer=name, num_layers=2, lr_of=lr_of, no_decay=no_decay, weight_decay=0.1)
    check(config)
    mine = make_optimizer(config, {"lr": jnp.float32(1e-2), "weight_decay": jnp.float32(0.1)})
    of_layer = {"W_x": jnp.ones((2, 3)), "W_h": jnp.ones((3, 3)), "b": jnp.ones(3)}
    layers = {k: {"parameters": dict(of_layer)} for k in (0, 1)}
    params = {"stack": {"layers": layers}, "readout": {"bias": jnp.ones(1)}}
    keys = jax.tree.unflatten(jax.tree.structure(params), list(jax.random.split(jax.random.key(0), 7)))
    layers = {k: {"parameters": {"W_x": "1+", "W_h": "0.1+", "b": b}} for k, b in ((0, "0.5"), (1, "1"))}
    labels = {"stack": {"layers": layers}, "readout": {"bias": "1"}}

    def by_hand(label):
        lr, decay = 1e-2 * float(label.strip("+")), 0.1 if "+" in label else 0.0
        if name == "adamw":
            return optax.adamw(lr, weight_decay=decay)
        return optax.chain(optax.add_decayed_weights(decay), optax.adam(lr) if name == "adam" else optax.sgd(lr))

    theirs = optax.multi_transform({label: by_hand(label) for label in ("1+", "0.1+", "0.5", "1")}, labels)
    states, found = [mine.init(params), theirs.init(params)], [params, params]
    for t in range(3):
        slopes = jax.tree.map(lambda k, p, t=t: jax.random.normal(jax.random.fold_in(k, t), p.shape), keys, params)
        for k, optimizer in enumerate((mine, theirs)):
            updates, states[k] = optimizer.update(slopes, states[k], found[k])
            found[k] = optax.apply_updates(found[k], updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), *found)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "momentum"])
def test_weight_decay_leaves_a_reservoir_as_it_is(optimizer):
    config = dataclasses.replace(SMALL, cell="esn", optimizer=optimizer, weight_decay=0.1, steps=2, eval_every=2)
    train = make_train(config)
    before = jax.jit(train.init)(jax.random.key(0), values(config))
    after, _ = jax.jit(train.chunk)(before, values(config))
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), before.params, after.params)
    assert not any(jax.tree.leaves(moved["stack"])) and all(jax.tree.leaves(moved["readout"]))


def test_settings_of_named_parameters():
    assert Config(lr_of="b:.5+W_h:0.1") == Config(lr_of="W_h:0.1,b:0.5") and Config(lr_of="none") == Config()
    assert Config(no_decay="theta+ b") == Config(no_decay="b,theta")
    for settings, reason in (
        (
            {"lr_of": "theta:0.1"},
            "config.lr_of='theta:0.1': the model has no parameter 'theta'; parameters: bias, kernel, W_h",
        ),
        ({"lr_of": "W_hh:0.1"}, "has no parameter 'W_hh'; did you mean 'W_h'"),
        ({"lr_of": "W_h"}, "config.lr_of='W_h': 'W_h'; allowed: NAME:FACTOR, a finite factor of 0 or more"),
        ({"lr_of": "W_h:-1"}, "'W_h:-1'; allowed: NAME:FACTOR"),
        ({"lr_of": "W_h:nan"}, "'W_h:nan'; allowed: NAME:FACTOR"),
        ({"lr_of": "W_h:1,W_h:2"}, "W_h is given twice"),
        ({"no_decay": "c", "weight_decay": 0.1}, "config.no_decay='c': the model has no parameter 'c'"),
        ({"no_decay": "b"}, "config.no_decay='b' changes nothing with weight_decay=0.0; allowed: weight_decay=above 0"),
    ):
        with pytest.raises(BadSetting, match=re.escape(reason)) as error:
            checked(dataclasses.replace(SMALL, **settings))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["sgd", "momentum", "rmsprop", "adam", "adamw"])
def test_optimisers_are_optax_s_with_traced_settings(name):
    config = dataclasses.replace(SMALL, optimizer=name, weight_decay=0.1 if name == "adamw" else 0.0)
    mine = make_optimizer(config, {"lr": jnp.float32(1e-2), "weight_decay": jnp.float32(config.weight_decay)})
    theirs = {
        "sgd": optax.sgd(1e-2),
        "momentum": optax.sgd(1e-2, momentum=0.9),
        "rmsprop": optax.rmsprop(1e-2, decay=0.9),
        "adam": optax.adam(1e-2),
        "adamw": optax.adamw(1e-2, weight_decay=0.1),
    }[name]
    w = jnp.array([1.0, -2.0])
    a, b = mine.init(w), theirs.init(w)
    u = v = w
    for k in range(3):
        g = jnp.array([0.3, -0.1]) * (k + 1)
        du, a = mine.update(g, a, u)
        dv, b = theirs.update(g, b, v)
        u, v = u + du, v + dv
        np.testing.assert_allclose(u, v, rtol=1e-6)


def test_schedules_end_where_they_say():
    for schedule, middle in (("cosine", 0.55), ("exponential", math.sqrt(0.1)), ("constant", 1.0)):
        config = dataclasses.replace(SMALL, optimizer="sgd", schedule=schedule, steps=100)
        optimizer = make_optimizer(config, {"lr": 1.0, "weight_decay": 0.0})
        state = optimizer.init(jnp.ones(()))
        sizes = []
        for _ in range(101):
            update, state = optimizer.update(jnp.ones(()), state, jnp.ones(()))
            sizes.append(-float(update))
        np.testing.assert_allclose([sizes[0], sizes[50]], [1.0, middle], rtol=1e-5)
        np.testing.assert_allclose(sizes[100], 1.0 if schedule == "constant" else 0.1, rtol=1e-5)


def test_clipping_bounds_the_update_and_is_counted():
    config = dataclasses.replace(SMALL, cell="rnn", optimizer="sgd", lr=1.0, steps=1, eval_every=1, gradient_flow=False)
    train = make_train(config)
    chunk = jax.jit(train.chunk)
    state = jax.jit(train.init)(jax.random.key(0), values(config))

    def moved(clip):
        new, record = chunk(state, values(config, clip=clip))
        return optax.tree.norm(jax.tree.map(jnp.subtract, new.params, state.params)), record

    free, record = moved(0.0)
    np.testing.assert_allclose(free, record["grad_norm"], rtol=1e-4)
    assert record["clipped"] == 0
    bound, record = moved(float(free) / 10)
    np.testing.assert_allclose(bound, free / 10, rtol=1e-4)
    assert record["clipped"] == 1


def test_sensitivity_of_a_scaled_rotation_is_a_power():
    """h_t = g Q h_{t-1} has |dh_T/dh_t|_F / sqrt(n) = g^(T-t) exactly."""
    n, T, g = 16, 12, 0.8
    q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(n, n)))
    cell = Cell(lambda key, d: {}, lambda w, b: jnp.zeros((*b, n)), lambda p, h, z: h @ p["W"])
    params = {"W": jnp.asarray(g * q, jnp.float32)}
    xs = jnp.zeros((T, 3, 1))
    found = jax.jit(
        lambda taps: state_sensitivity(lambda t: unroll(cell, params, xs, taps=t)[0], taps, jax.random.key(0), 400)
    )(make_taps(cell, params, T, (3,)))
    np.testing.assert_allclose(found[:, 0], g ** np.arange(T - 1, -1, -1.0), rtol=0.05)


def test_gradient_reach_counts_steps_back():
    profile = 10.0 ** (-0.5 * np.arange(20)[::-1])  # a factor sqrt(10) a step: 1e-3 is passed at the 7th
    assert gradient_reach(jnp.asarray(profile)) == 7
    assert gradient_reach(jnp.ones(20)) == 20
    assert gradient_reach(jnp.asarray(np.append(profile, 0.0))) == 7  # the last step with a gradient counts
    np.testing.assert_allclose(total_norm((jnp.array([3.0]), jnp.array([4.0]))), [5.0])
    tiny = np.where(np.arange(20) < 5, 2e-38, 1e-36).astype("f")  # a thousandth of its last value has no float
    assert gradient_reach(jnp.asarray(tiny) * jnp.where(jnp.arange(20) == 19, 1e5, 1)) == 1


@pytest.mark.parametrize(
    ("profile", "fault"),
    [
        ([np.nan] * 4, "not finite"),
        ([0.1, np.nan, 1, 1], "not finite"),
        ([np.inf, 1, 1, 1], "not finite"),
        ([0.0] * 4, "no gradient"),
        ([0.0, 0, 0, 1], None),
    ],
)
def test_a_gradient_that_is_not_finite_or_nowhere_has_no_reach(profile, fault):
    assert gradient_fault(profile) == fault
    np.testing.assert_equal(float(gradient_reach(jnp.array(profile))), np.nan if fault else 1)


def test_an_evaluation_is_the_mean_over_exactly_its_sequences_and_none_that_was_trained_on(monkeypatch):
    """The task itself notes what it is asked to draw and to score."""
    monkeypatch.setattr("rnnjax.training.scoring.EVALUATION_CHUNK", 4)
    task, drawn, scored = adding(4, min_seq_len=2), [], []

    def sample(key, batch_size, *, split="train"):
        jax.debug.callback(lambda k: drawn.append((split, bytes(np.asarray(k)))), jax.random.key_data(key))
        return task.sample(key, batch_size, split=split)

    def metrics(outputs, batch):
        sums = batch.inputs[:, :, 0].sum(0)
        jax.debug.callback(lambda x: scored.extend(np.asarray(x)), sums)
        return {"mse": jnp.mean(sums)}

    monkeypatch.setitem(TASKS, "watched", lambda seq_len: task._replace(sample=sample, metrics=metrics))
    config = Config(task="watched", seq_len=4, cell="rnn", hidden_size=2, batch_size=2, steps=2, eval_every=2)
    config = dataclasses.replace(config, eval_batch=10, gradient_flow=False, optimizer="sgd")
    train = make_train(config)
    root = jax.random.key(0)
    _, record = jax.jit(train.run)(root, values(config))
    jax.effects_barrier()
    assert len(scored) == 10
    np.testing.assert_allclose(record["eval_mse"][0], np.mean(scored), rtol=1e-5)
    trained, evaluated = ({k for split, k in drawn if split == name} for name in ("train", "validation"))
    roots = {bytes(np.asarray(jax.random.key_data(k))) for k in (root, *jax.random.split(root, 8))}
    assert len(trained) == 2 and len(evaluated) == 3
    assert not evaluated & (trained | roots)


def test_no_two_purposes_share_a_key():
    """JAX's i-th split of a key is fold_in(key, i): the roots of a run, its steps and every other draw lie apart."""
    keys = []
    for seed in (0, 1):
        root = jax.random.key(seed)
        _, run_key = jax.random.split(root)
        keys += [root, *jax.random.split(root, 8), *(jax.random.fold_in(run_key, t) for t in range(8))]
        keys += [purpose_key(purpose, seed) for purpose in Purpose]
        keys += [key for purpose in Purpose for key in jax.random.split(purpose_key(purpose, seed), 4)]
    numbers = {bytes(jax.random.key_data(key)) for key in keys}
    assert len(numbers) == len(keys)


@pytest.mark.parametrize(("value", "said"), [(np.nan, "not finite"), (0.0, "no gradient"), (1.0, "over all 5 steps")])
def test_a_run_says_whether_its_gradient_was_finite_or_nowhere(value, said, capsys):
    row = {"step": 3, "eval_mse": 0.5, "diverged": -1, "blame": "nothing"}
    flow = {"step": np.array([3]), "layer0.h": np.full((1, 5), value, "f")}
    result = outputs.summary(SMALL, make_train(SMALL), [row], flow, 1.0)
    assert result["gradient_reach"] == (5 if value == 1 else None) == json.loads(json.dumps(result))["gradient_reach"]
    assert np.isnan(recorded_reach(result)) == (value != 1)
    show(result, Path("runs/x"))
    assert said in capsys.readouterr().out


def test_a_task_of_one_s_own_brings_its_references_and_its_report(monkeypatch, tmp_path, capsys):
    """Shared code knows no task: what it draws and prints is what the task says."""

    def report(model, params, key):
        again = model(params).stack.layers[0].parameters["W_h"][...]
        return Report("it \x1b waits", {"test_waits": float(again.sum())}, {"sample.txt": "so\x1b\nlong"})

    task = adding(4)._replace(references=lambda: {"no ears": 0.5, "one ear": 0.25, "perfect": 0.0}, report=report)
    monkeypatch.setitem(TASKS, "own", lambda seq_len: task)
    config = Config(task="own", seq_len=4, cell="rnn", hidden_size=2, batch_size=2, steps=1, eval_every=1, eval_batch=2)
    train = make_train(config)
    params = train.init(jax.random.key(0), values(config)).params
    row = {"step": 1, "loss": 0.3, "eval_mse": 0.3, "diverged": -1, "blame": "nothing"}
    with runs.open_run(tmp_path / "run", outputs.config_dict(config), {"versions": {}, "devices": {}}) as run:
        runs.append_rows(run, [row])
        result = outputs.finish(run, config, train, params, [row], {}, 1.0)
    (weight,) = [leaf for path, leaf in jax.tree.leaves_with_path(params) if "W_h" in jax.tree_util.keystr(path)]
    assert result["test_waits"] == pytest.approx(float(weight.sum())) and result["complete"]
    assert (run.path / "sample.txt").read_text() == "so\x1b\nlong"
    labels = {text.get_text() for text in plotting.learning_curve([run.path]).axes[0].texts}
    assert labels == {"no ears 0.5", "one ear 0.25", "perfect 0"}
    show(result, run.path)
    said = capsys.readouterr().out
    assert "it \\x1b waits\nso\\x1b\nlong\n" in said and "\x1b" not in said


@pytest.mark.parametrize("name", TASKS)
def test_a_device_s_share_of_a_batch_is_some_of_its_sequences(name):
    """The losses of the shares, averaged, are that of the batch; nothing is asked but the batch."""
    task = TASKS[name](4)
    batch = task.sample(jax.random.key(0), 6)
    outputs = jax.random.normal(jax.random.key(1), (*batch.weights.shape, task.output_size))
    shares = [slice_of_batch(batch, start, 2) for start in (0, 2, 4)]
    for part in zip(*shares, strict=True):
        if part[0] is not None:
            assert 2 in part[0].shape[:2]
    parts = jnp.split(outputs, 3, axis=batch.weights.ndim - 1)
    losses = [task.loss(part, share) for part, share in zip(parts, shares, strict=True)]
    np.testing.assert_allclose(np.mean(losses), task.loss(outputs, batch), rtol=1e-6)


def test_a_task_whose_batch_has_no_weights_is_refused(monkeypatch):
    task = adding(4)
    bare = task._replace(sample=lambda *args, **options: task.sample(*args, **options)._replace(weights=None))
    monkeypatch.setitem(TASKS, "bare", lambda seq_len: bare)
    with pytest.raises(
        ValueError, match=r"^task 'bare': Batch.weights is missing; with readout 'last' it must be \[B\]"
    ):
        make_train(dataclasses.replace(SMALL, task="bare", seq_len=4))


@pytest.mark.parametrize("shards", [1, 2])
def test_a_task_s_data_are_an_argument_of_the_program_and_not_written_out_in_it(shards):
    """The text has 465,000 characters, 9 digits each where a program holds them."""
    config = dataclasses.replace(SMALL, task="text", seq_len=4, steps=1, eval_every=1, gradient_flow=False)
    train = make_train(config, shards)
    state = jax.eval_shape(train.init, jax.random.key(0), values(config))
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), train.task.data)
    assert len(jax.jit(train.chunk).lower(state, values(config), shapes).as_text()) < 1_000_000
    assert len(jax.jit(train.chunk).lower(state, values(config)).as_text()) > 3_000_000  # so the measure measures


def test_the_lanes_of_a_sweep_share_one_copy_of_their_task_s_data():
    config = dataclasses.replace(SMALL, task="text", seq_len=4, steps=1, eval_every=1, gradient_flow=False)
    lanes = make_lanes(config)
    inputs = lanes.place(lane_inputs([config] * len(jax.devices())))
    states = jax.eval_shape(lanes.init, *inputs)
    assert len(lanes.chunk.lower(states, inputs[1], lanes.data).as_text()) < 1_000_000
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(lanes.data))


def test_what_is_drawn_from_data_that_are_given_is_what_is_drawn_from_one_s_own():
    task = TASKS["text"](6, min_seq_len=2)
    given, own = (task.sample(jax.random.key(1), 3, **how) for how in ({"data": task.data}, {}))
    jax.tree.map(np.testing.assert_array_equal, given, own)
    other = {split: np.flip(part) for split, part in task.data.items()}
    assert not np.array_equal(task.sample(jax.random.key(1), 3, data=other).inputs, own.inputs)


@pytest.fixture(scope="module")
def one_by_one():
    """A run of five steps with an evaluation after each: the state and the record of every step."""
    config = dataclasses.replace(SMALL, cell="rnn", steps=5, eval_every=1, schedule="constant")
    train = make_train(config)
    chunk, state = jax.jit(train.chunk), jax.jit(train.init)(jax.random.key(0), values(config))
    found = []
    for _ in range(5):
        state, record = chunk(state, values(config))
        found.append((state, record))
    return found


@pytest.mark.parametrize(("steps", "eval_every", "ends"), [(5, 2, [2, 4, 5]), (2, 7, [2])])
def test_a_run_has_exactly_its_steps(steps, eval_every, ends, one_by_one):
    """Whatever eval_every is; and each record is the mean over its own steps, as those taken one by one have it."""
    config = dataclasses.replace(SMALL, cell="rnn", steps=steps, eval_every=eval_every, schedule="constant")
    state, records = jax.jit(make_train(config).run)(jax.random.key(0), values(config))
    expected, _ = one_by_one[steps - 1]
    assert records["step"].tolist() == ends and int(state.step) == steps
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(expected.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)
    starts = [0, *ends[:-1]]
    losses, flows = zip(*[(r["loss"], jax.tree.leaves(r["flow"])[0]) for _, r in one_by_one], strict=True)
    means = [np.mean(losses[a:b]) for a, b in zip(starts, ends, strict=True)]
    np.testing.assert_allclose(records["loss"], means, rtol=1e-6)
    rms = [np.sqrt(np.mean(np.square(flows[a:b]), axis=0)) for a, b in zip(starts, ends, strict=True)]
    np.testing.assert_allclose(jax.tree.leaves(records["flow"])[0], rms, rtol=1e-5)
