"""Attention: held to a plain NumPy one in float64, to its own past through the cache, and to what it may not see."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rnnjax import Config, load
from rnnjax.cells import lstm
from rnnjax.engine.steps import layer_names
from rnnjax.nn import SequenceModel, Stack, TransformerBlock, transformer
from rnnjax.nn.attention import Residual
from rnnjax.nn.positions import POSITIONS, turned
from rnnjax.reports.diagnosis_page import write_page
from rnnjax.reports.diagnosis_subject import make_subject
from rnnjax.sweeps.grid import grid
from rnnjax.tasks.language import bits_per_character, generate
from rnnjax.training import make_train
from rnnjax.training.fit import train_on
from rnnjax.training.settings import checked
from rnnjax.training.tracing import run_inputs, traced_run

T, B, D, H = 6, 3, 2, 8
TINY = Config(cell="transformer", cell_options={"heads": 2}, task="adding", seq_len=6, hidden_size=8, batch_size=4)
TINY = dataclasses.replace(TINY, steps=6, eval_every=2, eval_batch=4)


@pytest.fixture
def in_float64():
    with jax.enable_x64(True):
        yield


def moved(module, seed=0):
    """The module with every parameter moved off its start, so that no bias is 0 and no scale 1."""
    noise = np.random.default_rng(seed)
    state = nnx.state(module, nnx.Param)
    nnx.update(module, jax.tree.map(lambda a: a + 0.3 * jnp.asarray(noise.normal(size=a.shape), a.dtype), state))
    return module


@functools.cache
def block(in_features=D, dtype=jnp.float64, bidirectional=False, **options):
    spec = transformer(H, heads=2, **options)
    return moved(TransformerBlock(spec, in_features, dtype=dtype, bidirectional=bidirectional, rngs=nnx.Rngs(1)))


@functools.cache
def model(layers=2, tokens=False, dtype=jnp.float64, bidirectional=False, **options):
    made = SequenceModel(
        [transformer(H, heads=2, **options)] * layers,
        input_size=5 if tokens else D,
        output_size=5,
        tokens=tokens,
        readout="every",
        bidirectional=bidirectional,
        dtype=dtype,
        rngs=nnx.Rngs(2),
    )
    return moved(made)


def draw(*shape, seed=3):
    return np.random.default_rng(seed).normal(size=shape)


def in_numpy(layer, xs, positions, context, both):
    """One sequence `[T, D]` through a block, a number at a time."""
    spec, d = layer.spec, H // layer.spec.heads
    weights = {name: (np.asarray(part.kernel[...]), np.asarray(part.bias[...])) for name, part in (
        ("entrance", layer.entrance), ("q", layer.query), ("kv", layer.key_value), ("mix", layer.mix),
        ("widen", layer.widen), ("narrow", layer.narrow))}  # fmt: skip

    def linear(name, a):
        return a @ weights[name][0] + weights[name][1]

    def norm(part, a):
        centred = a - a.mean()
        return centred / np.sqrt((centred**2).mean() + 1e-6) * np.asarray(part.scale[...]) + np.asarray(part.bias[...])

    def turn(a, t):
        if positions != "rotary":
            return a
        z = (a[: d // 2] + 1j * a[d // 2 :]) * np.exp(1j * t * 10000.0 ** (-2 * np.arange(d // 2) / d))
        return np.concatenate([z.real, z.imag])

    x = [linear("entrance", a) for a in xs]
    if positions == "sinusoidal":
        angles = [t * 10000.0 ** (-2 * np.arange(H // 2) / H) for t in range(len(x))]
        x = [a + np.concatenate([np.sin(angle), np.cos(angle)]) for a, angle in zip(x, angles, strict=True)]
    h = [norm(layer.attention_norm, a) for a in x]
    out = []
    for t in range(len(x)):
        gathered = []
        for n in range(spec.heads):
            of_head, scores, values = slice(n * d, (n + 1) * d), [], []
            for s in range(len(x)):
                if (s > t and not both) or (context is not None and abs(t - s) >= context):
                    continue
                q, k = linear("q", h[t])[of_head], linear("kv", h[s])[:H][of_head]
                far = 2.0 ** (-8 * (n + 1) / spec.heads) * abs(t - s) if positions == "alibi" else 0
                scores.append(turn(q, t) @ turn(k, s) / np.sqrt(d) - far)
                values.append(linear("kv", h[s])[H:][of_head])
            weight = np.exp(scores) / np.exp(scores).sum()
            gathered.append(weight @ np.stack(values))
        y = x[t] + linear("mix", np.concatenate(gathered))
        u = linear("widen", norm(layer.mlp_norm, y))
        gelu = 0.5 * u * (1 + np.tanh(np.sqrt(2 / np.pi) * (u + 0.044715 * u**3)))
        out.append(y + linear("narrow", gelu))
    return np.array(out)


@pytest.mark.parametrize(
    ("positions", "context", "both"),
    [*((name, None, False) for name in POSITIONS), ("rotary", 2, False), ("alibi", None, True), ("none", 3, True)],
)
def test_a_block_is_a_plain_numpy_one(positions, context, both, in_float64):
    layer, xs, lengths = block(positions=positions, context=context, bidirectional=both), draw(T, B, D), [T, 4, 0]
    xs[4:, 1] = xs[:, 2] = np.nan  # past the lengths
    run = jax.jit(lambda xs, n: [layer(xs, seq_lengths=n, outputs=which) for which in ("every", "last")])
    ys, last = run(xs, np.array(lengths))
    for b, length in enumerate(lengths):
        expected = in_numpy(layer, xs[:length, b], positions, context, both)
        np.testing.assert_allclose(ys[:length, b], expected.reshape(length, H), rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(last[b], expected[-1] if length else 0, rtol=1e-10, atol=1e-10)
        assert not np.any(ys[length:, b])
    if positions == "rotary":  # no batch dimension, no lengths; two batch dimensions
        alone, many = jax.jit(lambda xs: (layer(xs[:, 0]), layer(xs[:, None])))(xs)
        np.testing.assert_allclose(alone, ys[:, 0], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(many[:, 0, 0], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("context", "both"), [(None, False), (2, False), (None, True)])
def test_no_step_sees_more_than_it_may(context, both, in_float64):
    """d output_t / d input_s: exactly 0 for s > t, and beyond what two layers of the context reach."""
    net = model(context=context, bidirectional=both)
    slopes = jax.jit(jax.jacrev(lambda xs: net(xs)))(jnp.asarray(draw(T, D)))
    reached = np.any(slopes != 0, axis=(1, 3))
    t, s = np.indices((T, T))
    allowed = np.full((T, T), True) if both else (s <= t) & (t - s <= (T if context is None else 2 * (context - 1)))
    np.testing.assert_array_equal(reached, allowed)


@pytest.mark.parametrize("both", [False, True])
def test_what_lies_past_a_length_changes_nothing(both):
    net, lengths = model(dtype=jnp.float32, bidirectional=both), jnp.array([T, 3, 0])
    graphdef, params = nnx.split(net)
    padding = np.arange(T)[:, None, None] >= np.asarray(lengths)[:, None]
    valid = jnp.asarray(~padding)

    @jax.jit
    def run(params, xs):
        def loss(params):
            ys = nnx.merge(graphdef, params)(xs, lengths=lengths)
            return jnp.sum(jnp.where(valid, ys, 0) ** 2), ys

        return jax.grad(loss, has_aux=True)(params)

    clean = draw(T, B, D).astype("f")
    found = [run(params, np.where(padding, fill, clean)) for fill in (0, np.nan)]
    for a, b in zip(*map(jax.tree.leaves, found), strict=True):
        assert np.isfinite(a).all()
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("positions", "room", "context"),
    [*((name, 3, None) for name in POSITIONS), ("rotary", T, None), ("rotary", T, 3), ("alibi", 1, None)],
)
def test_reading_on_from_a_cache_is_reading_all_at_once(positions, room, context, in_float64):
    """One step a call and several, the ring full or not: as attention whose context is the room."""
    net = model(positions=positions, context=context)
    whole = model(positions=positions, context=min(room, context or T))
    xs, expected = draw(T, B, D), jax.jit(whole)(draw(T, B, D))
    step = jax.jit(lambda xs, carry: net(xs, initial_carry=carry, return_carry=True))
    for pieces in ((1,) * T, (1, 4, 1), (4, 1, 1)):
        carry, found, at = net.initial_carry((B,), steps=room), [], 0
        for n in pieces:
            carry, ys = step(xs[at : at + n], carry)
            found, at = [*found, ys], at + n
        np.testing.assert_allclose(np.concatenate(found), expected, rtol=1e-11, atol=1e-11)
    assert step._cache_size() == 2  # of pieces with 1 step and with 4


def test_long_sequences_are_computed_in_pieces_and_are_the_same(in_float64):
    """130 steps in three pieces, without and with a context; the cache takes them all at once."""
    for context in (None, 70):
        net, xs = model(layers=1, context=context), draw(130, D)
        carry = net.initial_carry((), steps=130)
        run = jax.jit(lambda xs, net=net, carry=carry: (net(xs), net(xs, initial_carry=carry)))
        np.testing.assert_allclose(*run(xs), rtol=1e-10, atol=1e-10)


def test_each_sequence_has_its_own_place_in_the_cache(in_float64):
    """Pieces of unequal lengths, none among them, are each sequence's own valid steps in a row; zeros mean empty."""
    net, xs = model(positions="rotary"), draw(3, 2, B, D)  # three calls of two steps
    lengths = np.array([[2, 1, 0], [1, 0, 2], [2, 2, 1]])
    step = jax.jit(lambda xs, n, carry: net(xs, lengths=n, initial_carry=carry, return_carry=True))
    carry, found = net.initial_carry((B,), steps=4), []
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(carry))
    for piece, n in zip(xs, lengths, strict=True):
        carry, ys = step(jnp.asarray(piece), jnp.asarray(n), carry)
        found.append(ys)
    whole = jax.jit(model(positions="rotary", context=4))
    for b in range(B):
        mine = np.concatenate([piece[:n, b] for piece, n in zip(xs, lengths[:, b], strict=True)])
        expected = whole(np.pad(mine, [(0, T - len(mine)), (0, 0)]))[: len(mine)]
        got = np.concatenate([ys[:n, b] for ys, n in zip(found, lengths[:, b], strict=True)])
        np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-11)
    np.testing.assert_array_equal(carry[0].count, lengths.sum(0))


def test_a_text_is_written_and_scored_with_the_last_steps_in_view(in_float64):
    net, whole = model(tokens=True), model(tokens=True, context=3)
    written = jax.jit(lambda: generate(net, np.array([1, 4]), 5, jax.random.key(0), 0.0, context=3))()
    tokens, read = [1, 4], jax.jit(whole)
    for _ in range(5):  # all of it read again for each token
        padded = jnp.array(tokens + [0] * (7 - len(tokens)))[:, None]
        tokens.append(int(jnp.argmax(read(padded)[len(tokens) - 1, 0])))
    assert written.tolist() == tokens[2:]
    log_p = jax.nn.log_softmax(read(jnp.array(tokens)[:, None])[:-1, 0])
    expected = -np.mean([log_p[t, token] for t, token in enumerate(tokens[1:])]) / np.log(2)
    bits = jax.jit(lambda: bits_per_character(net, np.array(tokens), streams=1, piece=2, context=3))()
    np.testing.assert_allclose(bits, expected, rtol=1e-10)


def test_taps_and_probes_tell_the_gradient_by_the_residual_stream(in_float64):
    net, xs, lengths = model(), jnp.asarray(draw(T, B, D)), jnp.array([T, 4, 0])

    @jax.jit
    def loss(taps, probe=None):
        return jnp.sum(net(xs, lengths=lengths, taps=taps, probe=probe) ** 2)

    taps, probe = net.make_taps(T, (B,)), net.make_probe(T, (B,))
    by_taps, by_probe = jax.jit(jax.grad(loss, argnums=(0, 1)))(taps, probe)
    for tap, norms in zip(by_taps, by_probe, strict=True):
        np.testing.assert_allclose(np.linalg.norm(tap.x, axis=-1), norms.x, rtol=1e-10)
        assert not np.any(norms.x[4:, 1]) and not np.any(norms.x[:, 2])
    for layer, t in ((0, 0), (1, 3)):
        nudge = jnp.zeros((T, B, H)).at[t, 0, 5].set(1e-5)
        either = [loss(tuple(a._replace(x=a.x + sign * nudge * (k == layer)) for k, a in enumerate(taps)))
                  for sign in (1, -1)]  # fmt: skip
        np.testing.assert_allclose((either[0] - either[1]) / 2e-5, by_taps[layer].x[t, 0, 5], rtol=1e-6)


def test_bfloat16_computes_in_it_and_stays_near():
    xs = jnp.asarray(draw(T, B, D), jnp.float32)
    exact = jax.jit(block(dtype=None))(xs)
    carry, rough = jax.jit(lambda xs: block(dtype=jnp.bfloat16)(xs, return_carry=True))(xs)
    assert rough.dtype == carry.keys.dtype == jnp.bfloat16
    np.testing.assert_allclose(rough.astype("f"), exact, atol=0.15)


def test_the_code_of_a_far_position_is_as_exact_as_that_of_a_near_one():
    a, t, d = draw(1, H).astype("f"), 2_000_000_003, H
    angles = (t * 10000.0 ** (-2 * np.arange(d // 2) / d)) % (2 * np.pi)
    z = (a[..., : d // 2] + 1j * a[..., d // 2 :]) * np.exp(1j * angles)
    found = jax.jit(turned)(a, jnp.array([t], jnp.int32))[0]
    np.testing.assert_allclose(found, np.concatenate([z.real, z.imag], -1), atol=2e-4)


def test_a_stack_may_hold_both_kinds_of_layer():
    stack = Stack([lstm(4), transformer(H, heads=2)], D, bidirectional=True, rngs=nnx.Rngs(0))
    carry, ys = jax.eval_shape(lambda: stack(jnp.zeros((T, B, D)), initial_carry=stack.initial_carry((B,), steps=T)))
    assert ys.shape == (T, B, H) and stack.layers[1].in_features == 8
    assert type(carry[0]) is tuple and carry[1].keys.shape == (B, 2, T, H // 2)


def test_a_run_learns_with_one_trace_and_is_read_back(tmp_path, monkeypatch):
    config = dataclasses.replace(TINY, task="copy", task_options={"symbols": 2, "copy_length": 2}, seq_len=2)
    config = dataclasses.replace(config, hidden_size=16, batch_size=32, lr=1e-2, steps=60, eval_every=10)
    traced, called = traced_run(config), []
    monkeypatch.setattr(TransformerBlock, "__call__", lambda *_, **__: called.append(1))
    run = train_on(config, traced, 1, progress=False)
    assert not called  # all six chunks run what was traced before the first of them
    assert run.metrics[-1]["eval_accuracy"] > 0.9 > run.metrics[0]["eval_accuracy"]
    assert set(run.gradient_flow) == {"step", "layer0.x"} and run.result["gradient_reach"] >= 1
    again = load(run.save(tmp_path / "run"))
    for a, b in zip(*(map(jax.tree.leaves, ((r.params, r.state.opt_state) for r in (run, again)))), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_layer_that_attends_to_both_sides_is_one_layer():
    bidirectional = (Residual(np.zeros(T)), (np.zeros(T), np.zeros(T)))
    assert layer_names(bidirectional, bidirectional=True) == ("layer0.x", "layer1.forward.h", "layer1.backward.h")


@pytest.mark.slow
def test_the_page_of_a_diagnosis_shows_what_applies(tmp_path):
    verdict = write_page(make_subject(TINY), tmp_path / "page", "title")
    record = json.loads((tmp_path / "page/diagnostics.json").read_text())
    assert str(verdict).startswith("No verdict: mse ") and "parameters; a transformer has no recurrence" in str(verdict)
    assert set(record["measures"]) == {"gradient", "horizon"} and record["measures"]["gradient"].keys() == {"layer 0 x"}
    assert "What is of a recurrence alone was left out" in (tmp_path / "page/index.html").read_text()


def test_an_option_of_one_cell_is_an_axis_for_it_alone():
    trials = grid(dataclasses.replace(TINY, cell_options={}), {"cell": ["lstm", "transformer"], "cell.heads": [2, 4]})
    assert [(t.cell, dict(t.cell_options)) for t in trials] == [
        ("lstm", {}),
        ("transformer", {"heads": 2}),
        ("transformer", {"heads": 4}),
    ]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"residual": True, "num_layers": 2}, "config.residual=True is of a recurrence, and a transformer has none"),
        ({"segments": 2}, "config.segments=2 is of a recurrence"),
        ({"method": "scan"}, "config.method='scan' is of a recurrence"),
        ({"gradient": "tbptt:3"}, "config.gradient='tbptt:3' is of a recurrence"),
        ({"cotangent_clip": 1.0}, "config.cotangent_clip=1.0 is of a recurrence"),
        ({"jacobian": 0.5}, "config.jacobian=0.5 is of a recurrence, and a transformer has none; allowed: 0.0"),
        ({"cell_options": {"heads": 3}}, "heads=3; allowed: a divisor of hidden_size=8"),
        ({"cell_options": {"heads": 8}}, "positions='rotary' turns pairs, and hidden_size=8 with heads=8 has 1 units"),
        ({"cell_options": {"context": 0}}, "context=0; allowed: an integer, 1 or more"),
        ({"cell_options": {"positions": "rotery"}}, "unknown config.cell.positions 'rotery'; did you mean 'rotary'?"),
        ({"cell_options": {"gain": 1.0}}, "config.cell 'transformer' has no option 'gain'; options: heads, positions"),
        ({"cell": "transfromer"}, "unknown config.cell 'transfromer'; did you mean 'transformer'?"),
    ],
)
def test_what_makes_no_sense_is_one_line(changes, line):
    with pytest.raises(ValueError) as caught:
        checked(dataclasses.replace(TINY, **changes))
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)


def test_the_library_refuses_in_one_line():
    layer = block(dtype=None)
    xs = jnp.zeros((T, B, D))
    with pytest.raises(ValueError, match=r"steps=None; allowed: 1 or more, how many steps"):
        layer.initial_carry((B,))
    with pytest.raises(ValueError, match=r"the carry's part .keys has shape"):
        layer(xs, initial_carry=layer.initial_carry((B + 1,), steps=2))
    with pytest.raises(TypeError, match="the carry has structure"):
        layer(xs, initial_carry=jnp.zeros((B, H)))
    with pytest.raises(ValueError, match="inputs have 2 features; allowed: 3"):
        block(3, dtype=None)(xs)
    with pytest.raises(TypeError, match="cells is one Transformer; allowed: a sequence"):
        Stack(transformer(H), D, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="residual=True is of a recurrence"):
        Stack([transformer(H)], D, residual=True, rngs=nnx.Rngs(0))


def test_a_stateful_run_keeps_the_last_window_in_view(tmp_path):
    (tmp_path / "book.txt").write_text("a text of few letters " * 30)
    config = dataclasses.replace(TINY, task="text", task_options={"path": str(tmp_path / "book.txt")}, stateful=True)
    state, record = jax.eval_shape(lambda: make_train(config).run(*run_inputs(config)))
    assert state.stream.carry[0].keys.shape == (config.batch_size, 2, config.seq_len, 4)
    assert "eval_bits_per_character" in record
