"""Planted ills get their verdict, and the page about a run is written or refused in one line."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from diagnose import read_run_config
from flax import nnx

from rnnjax import runs
from rnnjax.cells import gru, irnn, lstm, rnn
from rnnjax.diagnostics.evidence import gather, stack_layers
from rnnjax.diagnostics.triage import diagnose
from rnnjax.diagnostics.verdict import VERDICTS, judge
from rnnjax.engine.unroll import make_taps, unroll
from rnnjax.initializers import constant
from rnnjax.nn import Stack
from rnnjax.reports.diagnosis_subject import make_subject
from rnnjax.training import make_train, outputs
from rnnjax.training.config import Config, hyperparameters

T, B, D, H = 30, 6, 3, 8
ROOT = Path(__file__).parents[1]


def gate_bias(*values):
    """Sets the biases of a cell's gates, in the order of b's blocks; None leaves one alone."""

    def set_blocks(params):
        blocks = jnp.split(params["b"], len(values))
        b = [a if v is None else jnp.full_like(a, v) for a, v in zip(blocks, values, strict=True)]
        return params | {"b": jnp.concatenate(b)}

    return set_blocks


def add(name, value):
    return lambda params: params | {name: params[name] + value}


def at_step(step, value):
    return lambda xs: xs.at[step, 1, 0].set(value)


def scaled(factor):
    return lambda a: factor * a


def same(params):
    return params


REMEMBER = gate_bias(None, 4.0, None, None)
KEEP = gate_bias(None, 3.0, None)  # of a GRU; at init it forgets in a few steps
# name: (cells and what is done to the fresh parameters of each, to the inputs; verdict, layer, step)
PLANTED = {
    "large gain": ([(rnn(H, gain=4.0), same)], scaled(0.1), "exploding", 0, None),
    "tiny gain": ([(rnn(H, gain=0.2), same)], same, "vanishing", 0, None),
    "gain 1.5 of an IRNN": ([(irnn(H, gain=1.5), same)], same, "exploding", 0, None),
    "a ReLU net that overflows": ([(irnn(H, gain=100.0), same)], same, "exploding", 0, None),
    "dead ReLUs": ([(irnn(H), add("b", -5))], same, "dead", 0, 0),
    "a memory that nothing enters or leaves": ([(lstm(H), gate_bias(-30, 9, None, -30))], same, "dead", 0, 0),
    "all gates closed": ([(lstm(H), gate_bias(-6, -6, None, -6))], same, "saturated", 0, None),
    "a forget gate stuck at 0": ([(lstm(H), gate_bias(None, -20, None, None))], same, "saturated", 0, None),
    "an update gate stuck at 0": ([(gru(H, gain=0.3), gate_bias(None, -20, None))], same, "saturated", 0, None),
    "tanh under huge input weights": ([(rnn(H, w_x=constant(300.0)), same)], same, "saturated", 0, None),
    "half-open forget gates": ([(lstm(H, forget_bias=0.0), same)], same, "vanishing", 0, None),
    "NaN in an input": ([(rnn(H), same)], at_step(7, jnp.nan), "NaN", 0, 7),
    "inf in an input": ([(lstm(H), same)], at_step(4, jnp.inf), "NaN", 0, 4),
    "inf in a weight": ([(gru(H), add("W_h", jnp.inf))], same, "NaN", 0, 0),
    "NaN in the second layer": ([(rnn(H), same), (irnn(H), add("b", jnp.nan))], same, "NaN", 1, 0),
    "a dead second layer": ([(rnn(H), same), (irnn(H), add("b", -50))], scaled(0.1), "dead", 1, 0),
    "a forgetful second layer": ([(lstm(H), REMEMBER), (rnn(H, gain=0.1), same)], same, "vanishing", 1, None),
    "a healthy LSTM": ([(lstm(H), REMEMBER)], same, "healthy", None, None),
    "an LSTM that never forgets": ([(lstm(H), gate_bias(None, 20, None, None))], same, "healthy", None, None),
    "a healthy orthogonal RNN": ([(rnn(H), same)], scaled(0.1), "healthy", None, None),
    "a healthy GRU": ([(gru(H), KEEP)], same, "healthy", None, None),
    "a healthy IRNN": ([(irnn(H), same)], same, "healthy", None, None),
    "a healthy stack": ([(lstm(H), REMEMBER), (rnn(H), same)], scaled(0.1), "healthy", None, None),
}


@functools.cache
def compiled(kinds):
    """A program for stacks of these kinds of cells: (params, xs) -> what `gather` collects."""
    cells = [{"rnn": rnn, "irnn": irnn, "lstm": lstm, "gru": gru}[kind](H) for kind in kinds]

    def collect(params, xs):
        loss = last_step_loss(cells, params, xs)
        taps = [make_taps(cell, p, T, (B,)) for cell, p in zip(cells, params, strict=True)]
        return gather(loss, taps, layers_with(cells, params, xs), jax.random.key(0))

    return jax.jit(collect)


def layers_with(cells, params, xs):
    stack = Stack(cells, D, rngs=nnx.Rngs(0))
    for layer, p in zip(stack.layers, params, strict=True):
        for name, value in p.items():
            layer.parameters[name][...] = value
    return stack_layers(stack, xs)


def last_step_loss(cells, params, xs):
    def loss(taps):
        ys = xs
        for cell, p, tap in zip(cells, params, taps, strict=True):
            _, ys = unroll(cell, p, ys, taps=tap)
        return jnp.mean(jnp.sum(jnp.square(ys[-1] - 1), axis=-1))

    return loss


def kind_of(cell):
    names = tuple(cell.form.activations)
    return {("i", "f", "g", "o"): "lstm", ("r", "z", "n_x", "n_h"): "gru"}.get(names) or (
        "irnn" if cell.form.activations["h"] is jax.nn.relu else "rnn"
    )


def fresh(planted):
    keys = jax.random.split(jax.random.key(1), len(planted))
    widths = [D, *[H] * (len(planted) - 1)]
    return [change(cell.init(key, width)) for (cell, change), key, width in zip(planted, keys, widths, strict=True)]


@functools.cache
def inputs():
    return jax.random.normal(jax.random.key(0), (T, B, D))


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_ill_gets_its_verdict(name):
    planted, change, verdict, layer, step = PLANTED[name]
    collect = compiled(tuple(kind_of(cell) for cell, _ in planted))
    found = judge(*collect(fresh(planted), change(inputs())))
    assert (found.verdict, found.layer) == (verdict, layer), str(found)
    assert step is None or found.step == step
    assert found.verdict in VERDICTS and str(found).lower().startswith(verdict.lower()) and "\n" not in str(found)


def test_diagnose_agrees_with_gather_and_counts_steps_back():
    cell = rnn(H, gain=0.2)
    params = fresh([(cell, same)])
    taps = [make_taps(cell, params[0], T, (B,))]
    found = diagnose(last_step_loss([cell], params, inputs()), taps, layers_with([cell], params, inputs()))
    other = judge(*compiled(("rnn",))(params, inputs()))
    assert (found.verdict, found.step, found.cure) == (other.verdict, other.step, other.cure)
    # |dh_T/dh_t| <= 0.2^(T-t), so that it is below 1e-3 five steps back at the latest, and not one step back
    assert T - 6 <= found.step < T - 2
    with pytest.raises(ValueError, match="taps of 2 layers, and 1 layers"):
        diagnose(lambda taps: 0.0, taps * 2, layers_with([cell], params, inputs()))


def test_a_loss_that_is_not_finite_is_blamed_on_what_lies_above():
    _, evidence = compiled(("rnn",))(fresh([(rnn(H), same)]), 0.1 * inputs())
    found = judge(np.float32("nan"), evidence)
    assert (found.verdict, found.layer) == ("NaN", None) and "readout" in str(found)


def test_nan_anywhere_is_never_called_another_ill_and_what_is_gone_is_said_to_be():
    loss, (evidence,) = jax.device_get(compiled(("rnn",))(fresh([(rnn(H, gain=0.01), same)]), inputs()))
    found = judge(loss, [evidence])
    assert found.verdict == "vanishing" and "0 (below 1e-38) at the first step" in str(found)
    assert judge(np.float32("nan"), [evidence]).verdict == "NaN"
    assert judge(np.float32("inf"), [evidence]).verdict == "NaN"
    for bad in (np.nan, np.inf):
        logs = np.where(np.arange(T + 1) < 4, bad, evidence.log_sensitivity)
        found = judge(loss, [evidence._replace(log_sensitivity=logs)])
        assert (found.verdict, found.step) == ("NaN", 3)


def test_states_whose_squares_have_no_float_are_measured():
    params, xs = fresh([(irnn(H, gain=1.0), same)]), inputs()
    _, (plain,) = compiled(("irnn",))(params, xs)
    for size in (1e25, 1e-25):
        _, (evidence,) = compiled(("irnn",))(params, size * xs)
        np.testing.assert_allclose(evidence.movement, size * plain.movement, rtol=1e-4)
        np.testing.assert_allclose(evidence.state_size, size * plain.state_size, rtol=1e-4)


@pytest.mark.parametrize(("bias", "share"), [(20.0, 0.0), (-20.0, 1.0)])
def test_a_gate_is_not_saturated_where_it_remembers(bias, share):
    _, (evidence,) = compiled(("lstm",))(fresh([(lstm(H), gate_bias(None, bias, None, None))]), inputs())
    assert float(evidence.saturated["f"]) == share


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory):
    """A finished run as far as diagnose.py reads one, of fresh parameters, under a hostile name."""
    config = Config(task="copy", seq_len=2, cell="lstm", hidden_size=3, batch_size=4, steps=1, eval_every=1)
    path = tmp_path_factory.mktemp("runs") / "<b>run & co"
    train = make_train(config)
    values = {name: jnp.float32(value) for name, value in hyperparameters(config).items()}
    params = train.init(jax.random.key(5), values).params
    with runs.open_run(path, outputs.config_dict(config), {}) as run:
        runs.save_params(run, params)
    return path


def command(*args):
    environment = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}  # it compiles for most of its time
    script = [sys.executable, ROOT / "experiments/diagnose.py"]
    return subprocess.run([*script, *args], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_run_gets_its_page(run_directory):
    done = command(f"--workdir={run_directory}")
    assert done.returncode == 0, done.stderr
    page = (run_directory / "diagnostics/index.html").read_text()
    assert "&lt;b&gt;run &amp; co" in page and "<b>run" not in page and "http:" not in page and "https:" not in page
    assert page.count("<figure>") >= 11
    record = json.loads((run_directory / "diagnostics/diagnostics.json").read_text())
    assert record["verdict"] in VERDICTS and record["verdict"].lower() in done.stdout.lower()
    assert np.shape(record["measures"]["jacobians"]["mean_square"]) == (20,)  # of 22 steps, in quarters
    profile = np.asarray(record["measures"]["gradient"]["layer 0 h"])
    assert profile.shape == (22,) and (profile > 0).all()
    sensitivity = record["measures"]["sensitivity"]  # at n = 6 the probes span the state, so the norm is exact
    assert np.max(sensitivity["log_spectral"][-1]) >= sensitivity["log_frobenius"][sensitivity["starts"][-1]] - 1e-4


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--workdir=/nowhere",), "/nowhere/config.json is missing"),
        (("--cell=lstm",), "did you mean '--config.cell'?"),
    ],
)
def test_what_cannot_be_diagnosed_is_one_line_and_2(args, said, tmp_path):
    done = command(*args, f"--out={tmp_path / 'out'}")
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_damaged_parameters_are_one_line(run_directory, tmp_path):
    (tmp_path / "config.json").write_bytes((run_directory / "config.json").read_bytes())
    (tmp_path / "params.npz").write_bytes((run_directory / "params.npz").read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"params\.npz"):
        make_subject(read_run_config(tmp_path), tmp_path)
