"""Noise in training and none in evaluation; wrappers as a setting of a run, through every command that reads one."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from trials import parse_trials

import rnnjax
from rnnjax import Config
from rnnjax.cells import CELLS, gru, lru, lstm, rnn
from rnnjax.cells.check import draws_noise
from rnnjax.cells.wrappers import layernorm, residual, zoneout
from rnnjax.engine.unroll import unroll
from rnnjax.nn import RNN, Bidirectional, Stack
from rnnjax.reports.diagnosis_page import write_page
from rnnjax.reports.diagnosis_subject import make_subject
from rnnjax.reports.runs_page import write_report
from rnnjax.runs.identity import changed_config
from rnnjax.sweeps.grid import bucket_id, buckets, trial_id
from rnnjax.training import outputs
from rnnjax.training.config import hyperparameters, make_cell
from rnnjax.training.dotted import changed_settings
from rnnjax.training.refusals import BadSetting
from rnnjax.training.settings import checked, parse_setting
from rnnjax.training.train import make_train

KEY = jax.random.key(0)
SMALL = {"seq_len": 4, "hidden_size": 4, "batch_size": 2, "steps": 2, "eval_every": 1, "eval_batch": 2}


def noisy(hidden_size):
    """A user's cell that draws noise, made of gates."""
    cell = rnn(hidden_size)

    def project(weights, x, key=None):
        z = cell.project(weights, x)
        return z if key is None else {"h": z["h"] + jax.random.normal(key, z["h"].shape, z["h"].dtype)}

    return cell._replace(project=project)


# The layer.


def test_noise_is_found_by_whether_the_key_is_read():
    assert draws_noise(noisy(4), 3) and draws_noise(zoneout(lstm(4), 0.1), 3) and draws_noise(residual(noisy(3)), 3)
    for cell in (rnn(4), lru(4), gru(4), layernorm(gru(4)), rnn(4)._replace(project=lambda w, x: {"h": x @ w["W_x"]})):
        assert not draws_noise(cell, 3)
    with pytest.raises(ValueError, match=r"project with a key raises TypeError"):
        draws_noise(rnn(4)._replace(project=lambda w, x, key=None: {"h": x @ w["W_x"] + key}), 3)


@pytest.mark.parametrize("method", [pytest.param("auto", marks=pytest.mark.slow), "scan"])
def test_a_layer_draws_in_training_alone(method):
    x = jnp.ones((2, 3, 3))
    layer, plain = RNN(noisy(4), 3, method=method, rngs=nnx.Rngs(1)), RNN(rnn(4), 3, rngs=nnx.Rngs(1))
    assert plain.noise is None
    jax.tree.map(np.testing.assert_array_equal, *(nnx.state(m, nnx.Param) for m in (layer, plain)))
    first, second = layer(x), layer(x)
    assert not np.allclose(first, second)
    nnx.reseed(layer, noise=KEY)
    third = layer(x)
    nnx.reseed(layer, noise=KEY)
    np.testing.assert_array_equal(layer(x), third)
    key = nnx.Rngs(noise=7).noise()
    params = {name: p[...] for name, p in layer.parameters.items()}
    expected = unroll(noisy(4), params, jnp.moveaxis(x, 1, 0), key=key)[1]
    np.testing.assert_allclose(layer(x, rngs=nnx.Rngs(noise=7)), jnp.moveaxis(expected, 0, 1), atol=1e-6)
    layer.eval()
    np.testing.assert_allclose(layer(x), plain(x), atol=1e-6)
    layer.train()
    assert not np.allclose(layer(x), plain(x))


def test_layers_and_directions_draw_apart():
    stack = Stack([zoneout(rnn(4), 0.5)] * 2, 4, bidirectional=True, rngs=nnx.Rngs(0))
    rnns = [rnn for pair in stack.layers for rnn in (pair.forward_rnn, pair.backward_rnn)]
    for reseed in (False, True):
        if reseed:
            nnx.reseed(stack, noise=KEY)
        assert len({str(jax.random.key_data(rnn.noise.noise.key[...])) for rnn in rnns}) == 4
    both = Bidirectional(RNN(noisy(4), 3, rngs=nnx.Rngs(0)), RNN(noisy(4), 3, rngs=nnx.Rngs(0)))
    found = [both(jnp.ones((2, 3, 3)), rngs=nnx.Rngs(noise=seed)) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.allclose(found[0], found[2])


@pytest.mark.parametrize("gradient", ["tbptt:2", "rtrl", "snap1", "uoro"])
def test_another_gradient_than_bptt_is_refused(gradient):
    with pytest.raises(ValueError, match=f"gradient='{gradient}' reads forwards, without noise; allowed: gradient="):
        RNN(noisy(4), 3, gradient=gradient, rngs=nnx.Rngs(0))
    with pytest.raises(BadSetting, match=f"config.gradient='{gradient}' reads forwards, without noise; allowed"):
        checked(Config(gradient=gradient, wrap="zoneout:0.1"))
    assert checked(Config(gradient=gradient, wrap="layernorm")).wrap == "layernorm"


def test_a_run_of_a_noisy_cell_is_trained_with_noise_and_scored_without(monkeypatch):
    """The same key, the same run; and of a user's cell, too."""
    monkeypatch.setitem(CELLS, "noisy", noisy)
    ends = {}
    for name in ("noisy", "rnn"):
        config = Config(cell=name, gradient_flow=False, **SMALL)
        train, values = make_train(config), hyperparameters(config)
        run = jax.jit(train.run)
        first, again, other = (run(jax.random.key(seed), values) for seed in (0, 0, 1))
        for a, b in zip(jax.tree.leaves(first[1]), jax.tree.leaves(again[1]), strict=True):
            np.testing.assert_array_equal(a, b)
        assert not np.array_equal(first[1]["loss"], other[1]["loss"])
        ends[name] = np.asarray(first[1]["loss"])
        batch = train.task.sample(KEY, 2)
        scores = [train.model(first[0].params)(batch.inputs) for _ in range(2)]
        np.testing.assert_array_equal(*scores)
    assert not np.allclose(ends["noisy"], ends["rnn"])


# The setting.


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("", ""),
        ("none", ""),
        ("zoneout:0.1,skip", "zoneout:rate=0.1,skip"),
        ("skip+zoneout:0.10", "skip,zoneout:rate=0.1"),
        ("zoneout:0.1,layernorm", "layernorm,zoneout:rate=0.1"),
        ("recurrent_dropout:0.2,layernorm:gain=1", "layernorm,recurrent_dropout:rate=0.2"),
        ("zoneout:memory=0.5:rate=1e-1", "zoneout:rate=0.1:memory=0.5"),
        ("clockwork:4:triangular=False", "clockwork:groups=4:triangular=false"),
        ("zoneout:0.1:none", "zoneout:rate=0.1"),
        (" dilated:2 , skip", "dilated:k=2,skip"),
        ("zonout:1", "zonout:1"),
    ],
)
def test_every_spelling_is_one_setting(text, meaning):
    config = Config(wrap=text)
    assert config.wrap == meaning and Config(wrap=meaning) == config
    assert parse_setting("wrap", text) == text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"wrap": "zonout:0.1"}, "config.wrap='zonout:0.1': unknown wrapper 'zonout'; did you mean"),
        ({"wrap": "zoneout"}, "config.wrap='zoneout': zoneout needs its rate; allowed: zoneout:rate=VALUE"),
        ({"wrap": "zoneout:rat=1"}, "zoneout has no option 'rat'; did you mean 'rate'\\?"),
        ({"wrap": "skip:1:2"}, "skip has no option '2'; options: bias"),
        ({"wrap": "residual:x"}, "residual has no option 'x'; options: none"),
        ({"wrap": "zoneout:x"}, "zoneout's rate='x'; allowed: a number"),
        ({"wrap": "zoneout:nan"}, "zoneout's rate='nan'; allowed: a number"),
        ({"wrap": "dilated:2.5"}, "dilated's k='2.5'; allowed: an integer"),
        ({"wrap": "zoneout:0.1:rate=0.2"}, "zoneout's rate is given twice; allowed: once"),
        ({"wrap": "zoneout:1"}, r"config.wrap='zoneout:rate=1.0': rate=1.0; allowed: in \[0, 1\)"),
        ({"wrap": "layernorm", "cell": "lru"}, "config.wrap='layernorm': layernorm needs a cell made by cells.gated"),
        ({"wrap": "residual"}, "config.cell 'lstm' in wrap='residual': .* x has 2 features where y has 128; allowed"),
        ({"wrap": "skip", "cell": "transformer"}, "config.wrap='skip' is of a recurrence, and a transformer has none"),
        ({"wrap": "skip", "method": "deferred"}, "'lstm' in wrap='skip': method 'deferred' needs a cell made of gates"),
        ({"wrap": 3}, "config.wrap=3: allowed: a string"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(settings, message):
    with pytest.raises(BadSetting, match=message) as refused:
        checked(Config(**settings))
    assert len(str(refused.value).splitlines()) == 1


def test_the_default_is_no_part_of_an_identity():
    assert changed_settings(Config()) == {} and "wrap" not in changed_settings(Config(wrap="none"))
    old = outputs.config_dict(Config())
    stored = {"config": {name: value for name, value in old.items() if name != "wrap"}}
    assert changed_config(stored, old) == []
    assert changed_config(stored, outputs.config_dict(Config(wrap="skip"))) == ['wrap was "", now "skip"']
    ids = {(trial_id(c), bucket_id(c)) for c in (Config(), Config(wrap="skip"), Config(wrap="skip:bias=2"))}
    assert len(ids) == 3


def test_the_same_settings_make_the_very_same_cell():
    config = Config(wrap="layernorm,zoneout:0.1")
    assert make_cell(config) is make_cell(config) and make_cell(Config(wrap="zoneout:0")) is lstm(128)
    traced = []
    jax.jit(lambda bias: traced.append(make_cell(config, forget_bias=bias)))(1.0)
    assert traced[0] is not make_cell(config)


def test_a_grid_has_a_plus_where_commas_stand_between_values():
    texts = ["wrap=none,zoneout:0.1,zoneout:0.1+layernorm", "seed=0:2", "cell.forget_bias=0,1"]
    trials = parse_trials(Config(**SMALL), texts)
    assert len(trials) == 12 and len(buckets(trials)) == 3
    assert {trial.wrap for trial in trials} == {"", "zoneout:rate=0.1", "layernorm,zoneout:rate=0.1"}
    with pytest.raises(BadSetting, match=r"--grid=wrap=skip,layernrom: .*unknown wrapper 'layernrom'; did you mean"):
        parse_trials(Config(**SMALL), ["wrap=skip,layernrom"])


# Commands on such a run.


def test_a_run_in_wrappers_is_recorded_and_read(tmp_path):
    config = Config(wrap="layernorm,zoneout:0.2,clockwork:2:triangular=false,learned_start", **SMALL)
    run = rnnjax.fit(config, tmp_path / "run", progress=False)
    assert run.result["complete"] and json.loads((tmp_path / "run/config.json").read_text())["config"]["wrap"] == (
        config.wrap
    )
    again = rnnjax.load(tmp_path / "run")
    assert again.config.wrap == config.wrap
    inputs = jnp.ones((4, 2, 2))
    np.testing.assert_array_equal(again.model(inputs), run.model(inputs))
    assert [name for name in run.gradient_flow if name != "step"] == ["layer0.state_c", "layer0.state_h", "layer0.t"]
    with pytest.raises(rnnjax.runs.RunRefused, match=r"wrap was .*, now"):
        rnnjax.fit(Config(**SMALL), tmp_path / "run", progress=False)


@pytest.mark.slow
def test_a_run_in_wrappers_is_diagnosed(tmp_path):
    config = Config(wrap="layernorm,zoneout:0.2,clockwork:2:triangular=false,learned_start", **SMALL)
    rnnjax.fit(config, tmp_path / "run", progress=False)
    verdict = write_page(make_subject(config, tmp_path / "run"), tmp_path / "page", "title")
    assert verdict.verdict and "layernorm,zoneout" in (tmp_path / "page/index.html").read_text()


@pytest.mark.slow
def test_a_sweep_over_wrappers_is_reported(tmp_path):
    rnnjax.sweep(Config(**SMALL), {"wrap": ["", "skip", "dilated:2"]}, tmp_path / "sweep")
    page = write_report([str(tmp_path / "sweep")], str(tmp_path / "page")).read_text()
    assert "dilated:k=2" in page and "skip" in page


@pytest.mark.slow
def test_a_network_in_wrappers_writes_and_forecasts(tmp_path):
    (tmp_path / "own.txt").write_text("The quick brown fox jumps over the lazy dog.\n" * 20)
    small = SMALL | {"gradient_flow": False, "seq_len": 6}
    text = Config(task="text", task_options={"path": str(tmp_path / "own.txt")}, wrap="skip,zoneout:0.1", **small)
    run = rnnjax.fit(text, progress=False)
    assert len(run.write("The ", 5, seed=1)) == 9 and run.write("The ", 5, seed=1) == run.write("The ", 5, seed=1)
    rows = "\n".join(f"{np.sin(t):.4f}" for t in range(120))
    (tmp_path / "walk.csv").write_text(f"price\n{rows}\n")
    options = {"path": str(tmp_path / "walk.csv"), "season": 5, "horizon": 2}
    series = Config(task="series", task_options=options, wrap="highway,dilated:2", embedding_size=4, **small)
    assert len(rnnjax.fit(series, progress=False).forecast(3).values["price"]) == 3
