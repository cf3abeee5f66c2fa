"""Blocks: held to a plain NumPy loop in float64, to themselves step by step, and to sequences trimmed by hand."""

import dataclasses
import functools
import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from trials import parse_trials

import rnnjax
from rnnjax import Config
from rnnjax.cells import gru, lru, lstm, mingru, rnn
from rnnjax.nn import RNN, Bidirectional, Block, BlockParts, SequenceModel, Stack
from rnnjax.nn.block_parts import PARTS, PRESETS, inner_width
from rnnjax.nn.short_conv import BlockCarry, ConvolvedRNN
from rnnjax.reports.costs import layer_costs
from rnnjax.reports.diagnosis_page import write_page
from rnnjax.reports.diagnosis_subject import make_subject
from rnnjax.sweeps.grid import trial_id
from rnnjax.training.blocking import canonical, parts_of
from rnnjax.training.config import make_task
from rnnjax.training.dotted import changed_settings
from rnnjax.training.model import make_model
from rnnjax.training.options import options_of
from rnnjax.training.refusals import BadSetting
from rnnjax.training.settings import checked

T, B, D = 6, 3, 4
LENGTHS = np.array([T, 4, 0])
SMALL = {"seq_len": 4, "hidden_size": 4, "batch_size": 2, "steps": 2, "eval_every": 1, "eval_batch": 2}


@pytest.fixture
def in_float64():
    with jax.enable_x64(True):
        yield


def moved(module, seed=0):
    """The module in float64 with every parameter moved off its start, so that no bias is 0 and no scale 1."""
    noise = np.random.default_rng(seed)
    state = nnx.state(module, nnx.Param)
    nnx.update(module, jax.tree.map(lambda a: a.astype(float) + 0.3 * jnp.asarray(noise.normal(size=a.shape)), state))
    return module


@functools.cache
def block(parts, cell=lstm, both=False):
    made = cell(inner_width(parts, D))
    return moved(Block(made, D, parts, bidirectional=both, dtype=jnp.float64, rngs=nnx.Rngs(1)))


def draw(*shape, seed=3):
    return np.random.default_rng(seed).normal(size=shape)


# The oracle.


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def silu(a):
    return a * sigmoid(a)


def gelu(a):
    return 0.5 * a * (1 + np.tanh(np.sqrt(2 / np.pi) * (a + 0.044715 * a**3)))


def lstm_in_numpy(parameters, vs):
    """What an LSTM shows of one sequence `[T, D]`."""
    w = {name: np.asarray(value[...]) for name, value in parameters.items()}
    H = w["W_h"].shape[0]
    h, c, shown = np.zeros(H), np.zeros(H), []
    for v in vs:
        i, f, g, o = np.split(v @ w["W_x"] + h @ w["W_h"] + w["b"], 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        shown.append(h)
    return np.array(shown).reshape(len(vs), H)


def in_numpy(layer, xs, recurrence=lstm_in_numpy):
    """One sequence `[T, D]` through a block of one direction, a step at a time."""
    parts, activations = layer.parts, {"none": lambda a: a, "silu": silu, "gelu": gelu, "sigmoid": sigmoid}

    def linear(part, a):
        return a @ np.asarray(part.kernel[...]) + np.asarray(part.bias[...])

    def norm(part, kind, a):
        if kind == "none":
            return a
        scale = np.asarray(part.scale[...])
        if kind == "rms":
            return a / np.sqrt((a**2).mean() + 1e-6) * scale
        centred = a - a.mean()
        return centred / np.sqrt((centred**2).mean() + 1e-6) * scale + np.asarray(part.bias[...])

    us = [norm(layer.norm, parts.norm, x) for x in xs]
    vs = [linear(layer.up, u) if parts.up else u for u in us]
    if parts.conv:
        kernel, bias = np.asarray(layer.layer.kernel[...]), np.asarray(layer.layer.bias[...])
        seen = [sum(kernel[-1 - s] * vs[t - s] for s in range(parts.conv) if t >= s) + bias for t in range(len(vs))]
        vs = [activations[parts.conv_activation](a) for a in seen]
    out = []
    for x, u, r in zip(xs, us, recurrence(layer.parameters, vs), strict=True):
        if parts.inner_norm != "none":
            r = np.concatenate([norm(layer.inner_norm, parts.inner_norm, h) for h in np.split(r, parts.heads)])
        if parts.gate != "none":
            r = r * activations[parts.gate](linear(layer.gate, u))
        r = activations[parts.out_activation](r)
        if parts.out == "linear":
            r = linear(layer.out, r)
        elif parts.out == "glu":
            value, share = np.split(linear(layer.out, r), 2)
            r = value * sigmoid(share)
        elif parts.out == "half_glu":
            r = r * sigmoid(linear(layer.out, r))
        y = x + r if parts.residual else r
        if parts.mlp:
            a = linear(layer.widen, norm(layer.mlp_norm, parts.norm, y))
            if parts.mlp_kind == "gelu":
                a = gelu(a)
            else:
                value, share = np.split(a, 2)
                a = value * (silu if parts.mlp_kind == "swiglu" else gelu)(share)
            y = y + linear(layer.narrow, a)
        out.append(y)
    return np.array(out)


# Each kind of each part at least once, and what papers put together.
TEXTS = {
    "residual": "residual",
    "conv": "conv:3,norm",
    "norm": "norm,inner_norm,gate",
    "wide": "expand:1.5,conv:2,gate:gelu,residual:false",
    "direct": "expand:1.5:false,conv:4:none,gate:sigmoid,inner_norm:rms:3",
    "half": "norm:layer,out:half_glu:gelu,mlp:2:geglu",
    "glu": "inner_norm:layer:2,out:glu:silu,mlp:1.5:swiglu",
    "mlp": "out:none,mlp:3",
} | {name: name for name in PRESETS}


SLOW = [pytest.param(name, marks=pytest.mark.slow) if name in PRESETS else name for name in TEXTS]


@pytest.mark.parametrize("name", SLOW)
def test_a_block_is_a_plain_numpy_one(name, in_float64):
    layer, xs = block(parts_of(TEXTS[name])), draw(T, B, D)
    xs[4:, 1] = xs[:, 2] = np.nan  # past the lengths
    ys, last = jax.jit(lambda xs: [layer(xs, seq_lengths=LENGTHS, outputs=which) for which in ("every", "last")])(xs)
    for b, length in enumerate(LENGTHS):
        expected = in_numpy(layer, xs[:length, b])
        np.testing.assert_allclose(ys[:length, b], expected.reshape(length, D), rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(last[b], expected[-1] if length else 0, rtol=1e-10, atol=1e-10)
        assert not np.any(ys[length:, b])


def test_what_lies_past_a_length_reaches_no_gradient(in_float64):
    layer, xs = block(parts_of(TEXTS["norm"])), draw(T, B, D)
    graphdef, state = nnx.split(layer)

    @jax.jit
    @jax.grad
    def gradient(state, xs):
        return jnp.sum(nnx.merge(graphdef, state)(xs, seq_lengths=LENGTHS) ** 2)

    found = gradient(state, xs)
    xs[4:, 1] = xs[:, 2] = np.nan
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(gradient(state, xs)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_every_part_and_preset_is_held():
    assert all(any(part in text for text in TEXTS.values()) for part in PARTS)
    assert set(PRESETS) <= set(TEXTS)


def test_a_block_of_no_parts_is_the_layer_itself(in_float64):
    nothing = BlockParts(out="none", residual=False)
    for both in (False, True):
        layer, xs = block(nothing, both=both), draw(T, B, D)
        rnns = [RNN(lstm(D), D, time_major=True, rngs=nnx.Rngs(0)) for _ in range(1 + both)]
        directions = [layer.layer.forward_rnn, layer.layer.backward_rnn] if both else [layer.layer]
        for own, alone in zip(directions, rnns, strict=True):
            nnx.update(alone, nnx.state(own.rnn, nnx.Param))
        plain = Bidirectional(*rnns, time_major=True) if both else rnns[0]
        np.testing.assert_array_equal(layer(xs, seq_lengths=LENGTHS), plain(xs, seq_lengths=LENGTHS))


# Steps, lengths, directions.

FULL = parts_of("norm,expand:1.5,conv:3,inner_norm,gate,mlp:2")


@pytest.mark.parametrize("cell", [lstm, lru, mingru], ids=["lstm", "lru", "mingru"])
def test_all_steps_at_once_are_step_by_step_with_the_carry(cell, in_float64):
    layer, xs = block(FULL, cell), draw(T, B, D)

    @jax.jit
    def run(xs):
        whole = layer(xs, return_carry=True)
        carry, steps = layer.initial_carry((B,)), []
        for t in range(T):
            carry, y = layer(xs[t : t + 1], initial_carry=carry, return_carry=True)
            steps.append(y)
        first, head = layer(xs[:2], return_carry=True, seq_lengths=jnp.array([2, 1, 0]))
        # Each goes on where it stopped, in windows that begin elsewhere.
        later = jnp.stack([jnp.roll(xs[:, b], -done, axis=0) for b, done in enumerate((2, 1, 0))], axis=1)
        _, tail = layer(later, initial_carry=first, return_carry=True, seq_lengths=jnp.array([T - 2, T - 1, T]))
        return whole, (carry, jnp.concatenate(steps)), (head, tail)

    (carry, ys), (end, steps), (head, tail) = run(xs)
    for a, b in zip(jax.tree.leaves((carry, ys)), jax.tree.leaves((end, steps)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    assert isinstance(carry, BlockCarry) and carry.conv.shape == (B, 2, 6)
    for b, done in enumerate((2, 1, 0)):
        np.testing.assert_allclose(head[:done, b], ys[:done, b], rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(tail[: T - done, b], ys[done:, b], rtol=1e-10, atol=1e-12)


def test_a_carry_stops_at_a_sequences_end(in_float64):
    layer, xs = block(FULL), draw(T, B, D)
    start = jax.tree.map(lambda a: a + 0.5, layer.initial_carry((B,)))

    @jax.jit
    def run():
        carry, _ = layer(xs, seq_lengths=LENGTHS, initial_carry=start, return_carry=True)
        return carry, [layer(xs[:n], initial_carry=start, return_carry=True)[0] if n else start for n in LENGTHS]

    carry, trimmed = run()
    for b in range(B):
        for found, expected in zip(jax.tree.leaves(carry), jax.tree.leaves(trimmed[b]), strict=True):
            np.testing.assert_allclose(found[b], expected[b], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("both", [False, True])
def test_directions_run_inside_each_sequences_own_length(both, in_float64):
    parts = parts_of("norm,conv:3,gate,out:glu")
    layer, xs = block(parts, both=both), draw(T, B, D)
    one = layer.layer.backward_rnn if both else layer.layer

    @jax.jit
    def run(xs, lengths):
        ys, last = (layer(xs, seq_lengths=lengths, outputs=which) for which in ("every", "last"))
        return ys, last, one(xs, seq_lengths=lengths, reverse=True, return_carry=True)

    @jax.jit
    def run_alone(xs):
        return layer(xs), layer(xs, outputs="last"), one(xs[::-1], return_carry=True)

    ys, last, (carry, back) = run(xs, LENGTHS)
    for b, length in enumerate(LENGTHS[:2]):
        y, end, (turned, expected) = run_alone(xs[:length, b])
        pairs = [(ys[:length, b], y), (last[b], end), (back[:length, b], expected[::-1])]
        pairs += [(a[b], wanted) for a, wanted in zip(jax.tree.leaves(carry), jax.tree.leaves(turned), strict=True)]
        pairs += [] if both else [(end, y[-1])]
        for found, wanted in pairs:
            np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12)


def test_the_convolution_sees_its_last_steps_and_no_later_one(in_float64):
    rnn_layer = RNN(rnn(3), 2, time_major=True, rngs=nnx.Rngs(0))
    layer = moved(ConvolvedRNN(rnn_layer, 3, "silu", rngs=nnx.Rngs(0)))
    for reverse in (False, True):
        J = jax.jacobian(lambda x, r=reverse: layer.convolved(x, None, None, r)[0].sum(-1))(draw(T, 2))
        seen = np.subtract.outer(np.arange(T), np.arange(T)) * (-1) ** reverse
        np.testing.assert_array_equal(np.abs(np.asarray(J)).sum(-1) > 0, (seen >= 0) & (seen < 3))


# Diagnostics ask a block of its recurrence.


@pytest.mark.parametrize("both", [False, True])
def test_taps_and_probe_are_of_the_cells_state(both, in_float64):
    layer, xs = block(parts_of("norm,conv:2,gate,mlp:2"), both=both), draw(T, B, D)

    def loss(taps, probe=None):
        return jnp.sum(jnp.sin(layer(xs, seq_lengths=LENGTHS, taps=taps, probe=probe)))

    taps, probe = layer.make_taps(T, (B,)), layer.make_probe(T, (B,))
    by_taps, by_probe = jax.jit(jax.grad(loss))(taps), jax.jit(jax.grad(lambda p: loss(None, p)))(probe)
    pairs = list(zip(jax.tree.leaves(by_taps), jax.tree.leaves(by_probe), strict=True))
    assert len(pairs) == 2 * (1 + both) and (by_taps[0].conv if both else by_taps.conv) is None
    for gradient, norm in pairs:
        np.testing.assert_allclose(np.linalg.norm(gradient, axis=-1), norm, rtol=1e-9, atol=1e-12)
    if not both:
        small = 1e-6
        bumped = jax.tree.map(lambda a: a.at[2, 0, 1].add(small), taps)
        for name, change in (("c", bumped.cell._replace(h=taps.cell.h)), ("h", bumped.cell._replace(c=taps.cell.c))):
            slope = (loss(BlockCarry(None, change)) - loss(taps)) / small
            np.testing.assert_allclose(getattr(by_taps.cell, name)[2, 0, 1], slope, rtol=1e-4)


def test_a_stack_says_what_its_recurrences_read_and_takes_what_the_first_shows(in_float64):
    stack = moved(Stack([lru(6)] * 2, D, block=FULL, rngs=nnx.Rngs(0)))
    xs = draw(T, B, D)

    @functools.partial(jax.jit, static_argnums=0)
    def run(outputs):
        _, ys, read = stack(xs, lengths=LENGTHS, outputs=outputs, return_inputs=True)
        shown = stack.layers[0].layer.rnn(read[0], seq_lengths=LENGTHS)
        others = [stack(xs, lengths=LENGTHS, outputs=outputs, first_outputs=shown + a)[1] for a in (0, 1)]
        return ys, read, *others

    for outputs in ("every", "last"):
        ys, read, again, other = run(outputs)
        assert [a.shape for a in read] == [(T, B, 6)] * 2 and not np.any(read[0][4:, 1])
        np.testing.assert_allclose(again, ys, rtol=1e-10, atol=1e-12)
        assert not np.allclose(other, ys)


def test_dropout_acts_on_what_is_added_alone():
    parts = parts_of("norm,gate,mlp:2")
    layer = Block(gru(8), 8, parts, dropout=0.5, rngs=nnx.Rngs(0))
    xs = jnp.asarray(draw(T, B, 8), jnp.float32)

    graphdef, state = nnx.split(layer)

    @jax.jit
    def run(state, key):
        again = nnx.merge(graphdef, state)
        nnx.reseed(again, dropout=key)
        drawn = again(xs)
        again.eval()
        return drawn, again(xs)

    (first, still), (second, same) = (run(state, jax.random.key(seed)) for seed in (1, 2))
    assert np.asarray(first == xs).mean() > 0.15 and not np.allclose(first, second)  # a quarter gets nothing added
    np.testing.assert_array_equal(still, same)


def test_what_a_layer_cannot_take_is_refused():
    layer = Block(gru(D), D, parts_of("norm,conv:3"), rngs=nnx.Rngs(0))
    xs = jnp.ones((T, B, D))
    for call, message in (
        (lambda: layer(xs[..., :2]), "inputs have 2 features; allowed: 4"),
        (lambda: layer(xs, initial_carry=jnp.ones((B, D))), r"the carry of a block is a ArrayImpl; allowed: a BlockC"),
        (lambda: layer(xs, initial_carry=BlockCarry(jnp.ones((B, 3, D)), jnp.ones((B, D)))), "the carry's conv"),
        (lambda: layer.layer(xs, resets=jnp.ones((T, B), bool)), "resets in a block; allowed: one sequence a row"),
        (lambda: Stack([gru(D)], D, block=BlockParts(), residual=True, rngs=nnx.Rngs(0)), "residual=True adds"),
        (lambda: Block(gru(3), D, BlockParts(out="none"), rngs=nnx.Rngs(0)), "out's kind='none' with 3 features shown"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            call()


# The setting.


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("", ""),
        ("none", ""),
        ("residual", "residual"),
        ("out", "residual"),
        ("mlp:2,gate+conv:4,norm", "norm:rms,conv:4,gate:silu,mlp:2"),
        ("norm,out:linear,residual:true", "norm:rms"),
        ("mamba", "norm:rms,expand:2,conv:4,gate:silu"),
        ("mamba,mlp:2:swiglu,norm:layer", "norm:layer,expand:2,conv:4,gate:silu,mlp:2:swiglu"),
        ("inner_norm:heads=2", "inner_norm:rms:2"),
        ("expand:1.5:up=false", "expand:1.5:false"),
        ("nrom", "nrom"),
    ],
)
def test_every_spelling_is_one_setting(text, meaning):
    config = Config(block=text)
    assert config.block == meaning and Config(block=meaning) == config
    assert canonical(config.block) == config.block


def test_every_preset_says_its_paper_and_is_read_back():
    for name, preset in PRESETS.items():
        assert "arXiv:" in preset.source
        assert parts_of(name) == parts_of(canonical(name)) and canonical(name) == preset.parts


def test_a_block_is_no_part_of_an_identity_without_one():
    assert changed_settings(Config()) == {} and "block" not in changed_settings(Config(block="none"))
    assert len({trial_id(config) for config in (Config(), Config(block="lru"), Config(block="mamba"))}) == 3
    assert trial_id(Config(block="lru")) == trial_id(Config(block=PRESETS["lru"].parts))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"block": "lur"}, "config.block='lur': unknown part or preset of a block 'lur'; did you mean 'lru'"),
        ({"block": "norm:batch"}, "config.block='norm:batch': unknown norm's kind 'batch';? .*allowed: rms, layer"),
        ({"block": "conv:1"}, "config.block='conv:1': conv's steps=1; allowed: 2 or more"),
        ({"block": "conv:x"}, "conv's steps='x'; allowed: an integer"),
        ({"block": "expand"}, "expand needs its ratio; allowed: expand:ratio=VALUE"),
        ({"block": "expand:0"}, "expand's ratio=0.0; allowed: a number above 0"),
        ({"block": "mlp:-1"}, "mlp's ratio=-1.0; allowed: a number above 0"),
        ({"block": "inner_norm:rms:3"}, "config.block='inner_norm:rms:3': inner_norm's heads=3; allowed: a divisor of"),
        ({"block": "expand:2,out:none"}, "out's kind='none' with 256 features shown in a model 128 wide; allowed: li"),
        ({"block": "lru", "residual": True}, "config.residual=True with block='norm:layer,out:glu:gelu', which adds"),
        ({"block": "lru", "cell": "transformer"}, "config.block='norm:layer,out:glu:gelu' is of a recurrence, and"),
        ({"block": "lru", "embedding_size": 64}, "config.embedding_size=64 with block=.* allowed: 128, or none"),
        ({"block": 3}, "config.block=3: allowed: a string"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(settings, message):
    with pytest.raises(BadSetting, match=message) as refused:
        checked(Config(**settings))
    assert len(str(refused.value).splitlines()) == 1


def test_dropout_of_one_layer_changes_something_in_a_block():
    with pytest.raises(BadSetting, match=r"dropout=0\.5 changes nothing"):
        checked(Config(dropout=0.5))
    assert checked(Config(dropout=0.5, block="lru")).dropout == 0.5


def test_a_grid_has_a_plus_where_commas_stand_between_values():
    trials = parse_trials(Config(**SMALL), ["block=none,lru,norm+conv:4+gate", "seed=0:2"])
    assert len(trials) == 6
    assert {trial.block for trial in trials} == {"", "norm:layer,out:glu:gelu", "norm:rms,conv:4,gate:silu"}
    with pytest.raises(BadSetting, match=r"--grid=block=lru,nrom: .*unknown part or preset of a block 'nrom'"):
        parse_trials(Config(**SMALL), ["block=lru,nrom"])


def test_the_model_is_as_wide_as_the_hidden_size():
    config = Config(block="mamba", cell="gru", num_layers=2, hidden_size=6)
    model = make_model_of(config)
    assert isinstance(model.encoder, nnx.Linear) and isinstance(model.norm, nnx.RMSNorm)
    assert [layer.out_features for layer in model.stack.layers] == [6, 6]
    assert model.stack.layers[1].parameters["W_h"].shape[0] == 12
    assert make_model_of(Config(block="residual", hidden_size=6)).norm is None
    for tokens, encoder in ((False, "kernel"), (True, "embedding")):
        made = nnx.eval_shape(
            lambda t=tokens: SequenceModel(
                [gru(6)], input_size=2, output_size=1, tokens=t, block=parts_of("mamba"), rngs=nnx.Rngs(0)
            )
        )
        assert getattr(made.encoder, encoder).shape == (2, 3)


def test_a_blocks_costs_are_those_of_its_products():
    config = Config(cell="gru", hidden_size=8, block="norm,expand:2,conv:4,gate,mlp:2")
    costs, H, E = layer_costs(config, 4), 8, 16
    products = H * E + 3 * E * E * 2 + H * E + E * H + 2 * (2 * H * H)  # up, GRU, gate, out, MLP
    assert costs.flops == 2 * products
    assert costs.state == E + 3 * E
    norms, biases = 2 * H, E + E + H + 2 * H + H
    gru_biases = layer_costs(dataclasses.replace(config, block="", hidden_size=E), 4).parameters - 6 * E * E
    assert costs.parameters == products + norms + biases + gru_biases + 5 * E


def make_model_of(config):
    config = checked(config)
    return nnx.eval_shape(lambda: make_model(config, make_task(config), jax.random.key(0)))


# Commands on such a run.


def test_a_run_in_blocks_is_recorded_written_and_read(tmp_path):
    (tmp_path / "own.txt").write_text("The quick brown fox jumps over the lazy dog.\n" * 20)
    text = {"task": "text", "task_options": {"path": str(tmp_path / "own.txt")}, **SMALL, "seq_len": 6}
    config = Config(cell="mingru", block="mingru", num_layers=2, stateful=True, dropout=0.1, **text)
    run = rnnjax.fit(config, tmp_path / "run", progress=False)
    recorded = json.loads((tmp_path / "run/config.json").read_text())["config"]
    assert recorded["block"] == "norm:rms,conv:4:none,mlp:4"
    assert [name for name in run.gradient_flow if name != "step"] == ["layer0.cell", "layer1.cell"]
    again = rnnjax.load(tmp_path / "run")
    written = run.write("The ", 5, seed=1)
    assert len(written) == 9 and again.write("The ", 5, seed=1) == written
    with pytest.raises(rnnjax.runs.RunRefused, match=r"block was .*, now"):
        rnnjax.fit(dataclasses.replace(config, block=""), tmp_path / "run", progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lru", "mingru"])
def test_a_run_in_blocks_goes_on_as_if_it_had_never_stopped(name, tmp_path):
    (tmp_path / "own.txt").write_text("The quick brown fox jumps over the lazy dog.\n" * 20)
    text = {"task": "text", "task_options": {"path": str(tmp_path / "own.txt")}, "stateful": True}
    config = Config(cell=name, block=name, num_layers=2, **(SMALL | text))
    rnnjax.fit(config, tmp_path / "run", progress=False)
    longer = rnnjax.load(tmp_path / "run").resume(steps=2, progress=False)
    fresh = rnnjax.fit(dataclasses.replace(config, steps=4), progress=False)
    for a, b in zip(jax.tree.leaves(longer.state.params), jax.tree.leaves(fresh.state.params), strict=True):
        np.testing.assert_array_equal(a, b)
    carries = [jax.tree.leaves(run.state.stream.carry) for run in (longer, fresh)]
    assert len(carries[0]) == 2 * (1 + (name == "mingru"))
    for a, b in zip(*carries, strict=True):
        np.testing.assert_array_equal(a, b)


DIAGNOSED = {
    "both": {"cell": "lstm", "block": "mamba", "bidirectional": True},
    "penalty": {"cell": "gru", "block": "griffin", "jacobian": 0.1, "min_seq_len": 2, "num_layers": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DIAGNOSED)
def test_a_run_in_blocks_is_diagnosed_and_scored_at_other_lengths(name, tmp_path):
    config = Config(**(SMALL | {"eval_lengths": (4, 8)} | DIAGNOSED[name]))
    run = rnnjax.fit(config, tmp_path / "run", progress=False)
    assert run.result["complete"] and math.isfinite(run.evaluate(seq_len=6)["loss"])
    assert write_page(make_subject(config, tmp_path / "run"), tmp_path / "page", "title").verdict


def test_the_page_has_the_presets_and_parts():
    page = (pathlib.Path(__file__).parents[1] / "docs/blocks.md").read_text("utf-8")
    for name, preset in PRESETS.items():
        assert f"| `{name}` | `{preset.parts}` | {preset.source} |" in page
    for name, part in PARTS.items():
        line = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        assert all(f"`{option}`" in line for option in options_of(part)), name
