"""The Flax modules against Flax's own, and against layers, directions and steps put together by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest
from flax import nnx

from rnnjax.cells import LSTMCarry, gru, lstm, rnn
from rnnjax.initializers import uniform_sqrt
from rnnjax.interop import from_nnx
from rnnjax.nn import RNN, Bidirectional, SequenceModel, Stack

T, B, D, H, O = 7, 3, 2, 4, 5
LENGTHS = jnp.array([7, 3, 1])


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def assert_close(a, b, tolerance=2e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), a, b)


def valid_only(ys, lengths):
    """`[T, B, H]` with zeros past the lengths, where Flax leaves what it computed."""
    return ys if lengths is None else np.where(np.arange(len(ys))[:, None, None] < np.array(lengths)[:, None], ys, 0)


def copy_to_ours(cell, layer):
    """The weights of a Flax LSTM cell, of either kind, in our LSTM's columns i, f, g, o."""
    arrays = nnx.to_pure_dict(nnx.state(cell, nnx.Param))
    for name, value in from_nnx("lstm", arrays).items():
        assert layer.parameters[name].shape == value.shape
        layer.parameters[name][...] = value


def flax_and_ours(kind=nnx.OptimizedLSTMCell, seed=0, **options):
    cell = kind(D, H, bias_init=nnx.initializers.normal(0.5), rngs=nnx.Rngs(seed))
    ours = RNN(lstm(H), D, rngs=nnx.Rngs(seed), **options)
    copy_to_ours(cell, ours)
    return nnx.RNN(cell, **options), ours


@pytest.mark.parametrize(
    ("kind", "options", "lengths", "with_carry"),
    [
        (nnx.LSTMCell, {}, None, False),
        (nnx.OptimizedLSTMCell, {}, LENGTHS, True),
        (nnx.OptimizedLSTMCell, {"time_major": True, "reverse": True}, LENGTHS, False),
        (nnx.OptimizedLSTMCell, {"reverse": True, "keep_order": True}, LENGTHS, True),
        (nnx.OptimizedLSTMCell, {"reverse": True}, None, True),
    ],
)
def test_rnn_is_called_as_flax_rnn_is(kind, options, lengths, with_carry):
    theirs, ours = flax_and_ours(kind)
    _, set_up = flax_and_ours(kind, return_carry=True, **options)
    time_major = options.get("time_major", False)
    inputs = normal(1, T, B, D) if time_major else normal(1, B, T, D)
    carry = (normal(2, B, H), normal(3, B, H)) if with_carry else None
    ours_carry = LSTMCarry(*carry) if with_carry else None

    last, expected = theirs(inputs, initial_carry=carry, seq_lengths=lengths, return_carry=True, **options)

    @jax.jit
    def run(inputs):
        given = {"initial_carry": ours_carry, "seq_lengths": lengths}
        return (
            ours(inputs, **given, **options, return_carry=True),
            ours(inputs, **given, **options),
            set_up(inputs, **given),
        )

    (ours_last, ys), ys_alone, by_set_up = run(inputs)
    expected = expected if time_major else jnp.moveaxis(expected, 1, 0)
    assert_close(ys if time_major else jnp.moveaxis(ys, 1, 0), valid_only(expected, lengths))
    assert_close(tuple(ours_last), last)

    assert_close(ys_alone, ys)
    assert_close(by_set_up, (ours_last, ys))


def test_rnn_takes_any_batch_shape_and_a_length_of_zero():
    _, ours = flax_and_ours()
    inputs, carry = normal(1, B, T, D), LSTMCarry(normal(2, B, H), normal(3, B, H))
    assert_close(ours(inputs[0]), ours(inputs)[0])
    last, ys = ours(inputs, initial_carry=carry, seq_lengths=jnp.array([0, T, 0]), return_carry=True)
    assert_close(jax.tree.map(lambda a: a[::2], last), jax.tree.map(lambda a: a[::2], carry), 0)
    assert not np.any(ys[::2]) and np.all(ys[1] != 0)
    with pytest.raises(ValueError, match="inputs have 3 features; allowed: 2"):
        ours(normal(1, B, T, D + 1))


@pytest.mark.parametrize("merge", [None, jnp.add])
def test_bidirectional_is_called_as_flax_bidirectional_is(merge):
    forward, ours_forward = flax_and_ours(seed=0)
    backward, ours_backward = flax_and_ours(seed=1)
    options = {} if merge is None else {"merge_fn": merge}
    theirs = nnx.Bidirectional(forward, backward, **options)
    ours = Bidirectional(ours_forward, ours_backward, **options)
    assert ours.out_features == (2 * H if merge is None else H)
    inputs = normal(1, B, T, D)
    carry = tuple((normal(2 + i, B, H), normal(4 + i, B, H)) for i in range(2))
    ours_carry = tuple(LSTMCarry(*c) for c in carry)

    last, expected = theirs(inputs, initial_carry=carry, seq_lengths=LENGTHS, return_carry=True)
    ours_last, ys = ours(inputs, initial_carry=ours_carry, seq_lengths=LENGTHS, return_carry=True)
    assert_close(jnp.moveaxis(ys, 1, 0), valid_only(jnp.moveaxis(expected, 1, 0), LENGTHS))
    assert_close(tuple(map(tuple, ours_last)), last)

    ends = ours(inputs, initial_carry=ours_carry, seq_lengths=LENGTHS, outputs="last")
    assert_close(ends, (merge or (lambda a, b: jnp.concatenate([a, b], -1)))(last[0][1], last[1][1]))


@pytest.mark.parametrize(
    "merge",
    [
        lambda a, b: jnp.concatenate([a, b], axis=2),
        lambda a, b: (a, b),
        lambda a, b: jnp.concatenate([a[:, -1], b[:, 0]], -1),
    ],
    ids=["by axis", "a pair", "by time"],
)
def test_bidirectional_merges_what_flax_merges(merge):
    directions = [flax_and_ours(seed=seed) for seed in (0, 1)]
    (forward, ours_forward), (backward, ours_backward) = directions
    theirs = nnx.Bidirectional(forward, backward, merge_fn=merge, rngs=nnx.Rngs(0))
    ours = Bidirectional(ours_forward, ours_backward, merge_fn=merge, rngs=nnx.Rngs(0))
    inputs = normal(1, B, T, D)
    assert_close(ours(inputs), theirs(inputs))
    if isinstance(ours(inputs), tuple):
        with pytest.raises(ValueError, match="merge_fn returns a tuple; allowed in a stack: one array"):
            _ = ours.out_features
    else:
        assert ours.out_features == 2 * H


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unroll": 4}, "unroll is 4; allowed: 1"),
        ({"broadcast_rngs": "dropout"}, "broadcast_rngs is 'dropout'; allowed: None"),
        ({"cell": gru(H)._replace(output=lambda p, h, z: (h, z))}, "output returns a tuple; allowed: one array"),
    ],
)
def test_what_flax_has_and_a_layer_has_not_is_one_line(options, message):
    RNN(gru(H), D, unroll=1, broadcast_rngs=None, rngs=nnx.Rngs(0))
    with pytest.raises((TypeError, ValueError), match=message):
        RNN(**({"cell": gru(H), "in_features": D, "rngs": nnx.Rngs(0)} | options))


@pytest.mark.parametrize("time_major", [False, True])
def test_two_sequences_in_one_row_are_two_rows(time_major):
    """`resets` in a layer and in both directions at once, batch-major and time-major."""
    both = Bidirectional(
        *(RNN(gru(H), D, rngs=nnx.Rngs(n)) for n in range(2)), time_major=time_major, return_carry=False
    )
    major = (lambda a: a) if time_major else (lambda a: jnp.moveaxis(a, 0, 1))
    xs, resets = normal(0, T, B, D), jnp.zeros((T, B), bool).at[4].set(True)
    joined = major(both(major(xs), resets=major(resets)))
    apart = [major(both(major(part))) for part in (xs[:4], xs[4:])]
    assert_close(joined, jnp.concatenate(apart))
    with pytest.raises(ValueError, match="without resets; allowed: gradient='bptt'"):
        RNN(gru(H), D, gradient="rtrl", rngs=nnx.Rngs(0))(major(xs), time_major=time_major, resets=major(resets))


@pytest.mark.parametrize("gradient", ["tbptt:2", "rtrl"])
def test_an_integer_carry_a_plain_tuple_and_padding_that_is_not_finite(gradient):
    graphdef, state = nnx.split(RNN(lstm(H), D, gradient=gradient, rngs=nnx.Rngs(0)))
    x, lengths = normal(1, B, T, D), jnp.array([0, T, 2])

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def run(carry, padding):
        def loss(state):
            inputs = jnp.where((jnp.arange(T) < lengths[:, None])[..., None], x, padding)
            return jnp.sum(nnx.merge(graphdef, state)(inputs, initial_carry=carry, seq_lengths=lengths) ** 2)

        return jax.value_and_grad(loss)(state)

    integers, floats = (jnp.ones((B, H), dtype) for dtype in (int, float))
    ours = run((integers, integers), np.nan)
    assert ours[0] > 1
    assert_close(ours, run(LSTMCarry(floats, floats), 0.0), 0)


def test_the_carry_a_call_starts_from_has_the_precision_it_computes_in():
    with jax.enable_x64(True):
        layer = RNN(lstm(H), D, rngs=nnx.Rngs(0))
        x = normal(1, B, T, D).astype(jnp.float32)
        last, _ = layer(x, return_carry=True)
        assert jax.tree.map(jnp.shape, last) == jax.tree.map(jnp.shape, layer.initial_carry((B,)))
        assert {a.dtype for a in (*last, *layer.initial_carry((B,)))} == {jnp.dtype("float32")}
    clock = gru(H)._replace(
        initial_carry=lambda weights, shape: (jnp.zeros((*shape, H)), jnp.zeros(shape, int)),
        step=lambda p, c, z: (gru(H).step(p, c[0], z), c[1] + 1),
        output=lambda p, c, z: c[0],
        form=None,
    )
    h, t = RNN(clock, D, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)).initial_carry((B,))
    assert (h.dtype, t.dtype) == (jnp.bfloat16, jnp.int32)


class Tagger(nnx.Module):
    """What a user of Flax would write, with our layer where Flax's would be."""

    def __init__(self, rngs):
        self.rnn = Bidirectional(RNN(gru(H), D, rngs=rngs), RNN(lstm(H), D, rngs=rngs))
        self.head = nnx.Linear(2 * H, 1, rngs=rngs)

    def __call__(self, x):
        return self.head(self.rnn(x))


def test_a_users_model_trains_without_a_second_trace_and_is_saved_and_restored(tmp_path):
    model = Tagger(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(0.05), wrt=nnx.Param)
    x = normal(1, B, T, D)
    target = jnp.cumsum(x[..., :1], axis=1)
    traces = []

    @nnx.jit
    def train_step(model, optimizer):
        traces.append(1)
        loss, gradient = nnx.value_and_grad(lambda m: jnp.mean((m(x) - target) ** 2))(model)
        optimizer.update(model, gradient)
        return loss

    losses = [float(train_step(model, optimizer)) for _ in range(40)]
    assert losses[-1] < 0.3 * losses[0]
    assert len(traces) == 1
    merged, again = nnx.merge(*nnx.split((model, optimizer)))
    train_step(merged, again)
    assert len(traces) == 1

    path = tmp_path / "params"
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    fresh = Tagger(nnx.Rngs(7))
    state = nnx.state(fresh, nnx.Param)
    apply = nnx.jit(lambda model, x: model(x))
    assert not np.allclose(apply(fresh, x), apply(model, x))
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        nnx.replace_by_pure_dict(state, checkpointer.restore(path, nnx.to_pure_dict(state)))
    nnx.update(fresh, state)
    assert_close(apply(fresh, x), apply(model, x), 0)
    assert set(nnx.to_pure_dict(state)["rnn"]["forward_rnn"]["parameters"]) == {"W_x", "W_h", "b", "b_h"}


def counted(cell, traces):
    """The cell, which notes each time that JAX traces it."""
    return cell._replace(step=lambda *args: traces.append(1) or cell.step(*args), form=None)


def test_what_was_traced_is_not_traced_again():
    """Eager calls, layers of one cell, and a model made again from the same settings."""
    traces = []
    cell, x = counted(gru(H), traces), normal(1, B, T, D)
    layers = [RNN(cell, D, rngs=nnx.Rngs(seed)) for seed in range(3)]
    first = layers[0](x)
    seen = len(traces)
    second, _, again = layers[1](x), layers[2](x), layers[0](x)
    assert len(traces) == seen
    assert_close(first, again, 0)
    assert not np.allclose(first, second)
    calls = []

    @nnx.jit
    def apply(model, x):
        calls.append(1)
        return model(x)

    for seed in range(3):
        apply(RNN(lstm(H, forget_bias=2.0), D, rngs=nnx.Rngs(seed)), x)
    assert len(calls) == 1
    for seed in range(2):
        cells = [lstm(H), gru(hidden_size=H)]
        options = {"dropout": 0.1, "residual": True, "bidirectional": True}
        apply(SequenceModel(cells, input_size=D, output_size=O, **options, rngs=nnx.Rngs(seed)), x)
    assert len(calls) == 2


def test_to_linen_gives_a_layer_of_flax_linen():
    layer, x = nnx.bridge.to_linen(RNN, lstm(H), D), normal(1, B, T, D)
    variables = layer.init(jax.random.key(0), x)
    weights = {name: np.shape(a) for name, a in variables["params"]["parameters"].items()}
    assert weights == {"W_x": (D, 4 * H), "W_h": (H, 4 * H), "b": (4 * H,)}
    ours = RNN(lstm(H), D, rngs=nnx.Rngs(0))
    for name, value in variables["params"]["parameters"].items():
        ours.parameters[name][...] = value
    assert_close(layer.apply(variables, x), ours(x), 0)
    model = nnx.bridge.to_linen(SequenceModel, [lstm(H)] * 2, input_size=D, output_size=O)
    assert model.apply(model.init(jax.random.key(0), x), x).shape == (T, O)


def trimmed(layer, x, lengths, reverse=False):
    """Each sequence of `x` `[T, B, D]` run by itself, cut to its length and turned round by hand."""
    turn = slice(None, None, -1 if reverse else 1)
    ys, last = jnp.zeros((*x.shape[:2], layer.out_features)), jnp.zeros((x.shape[1], layer.out_features))
    for b, length in enumerate(lengths):
        if length:
            y = layer(x[:length, b][turn], time_major=True)
            ys, last = ys.at[:length, b].set(y[turn]), last.at[b].set(y[-1])
    return ys, last


def test_bidirectional_stack_with_lengths_equals_layers_run_by_hand():
    lengths = (7, 3, 0)
    stack = Stack([lstm(H), gru(3)], D, bidirectional=True, rngs=nnx.Rngs(0))
    x = normal(1, T, B, D)

    @jax.jit
    def by_hand(ys):
        for layer in stack.layers:
            forward, forward_last = trimmed(layer.forward_rnn, ys, lengths)
            backward, backward_last = trimmed(layer.backward_rnn, ys, lengths, reverse=True)
            ys = jnp.concatenate([forward, backward], axis=-1)
        return ys, jnp.concatenate([forward_last, backward_last], -1)

    @jax.jit
    def by_stack(x):
        carry, ys = stack(x, lengths=jnp.array(lengths))
        return carry, (ys, stack(x, lengths=jnp.array(lengths), outputs="last")[1])

    carry, got = by_stack(x)
    assert_close(got, by_hand(x))
    assert [type(c) for c in carry[0]] == [LSTMCarry, LSTMCarry]
    two = [half.parameters["W_x"][...] for half in (stack.layers[0].forward_rnn, stack.layers[0].backward_rnn)]
    assert not np.allclose(*two), "the two directions have parameters of their own"


@pytest.mark.parametrize("bidirectional", [False, True])
def test_residual_adds_where_widths_agree(bidirectional):
    width = 2 * H if bidirectional else H
    lengths = jnp.array([7, 3, 0])
    stack = Stack([gru(H), gru(H)], width, residual=True, bidirectional=bidirectional, rngs=nnx.Rngs(0))
    x = normal(1, T, B, width)
    valid = (np.arange(T)[:, None] < np.array(lengths))[..., None]

    @jax.jit
    def by_hand(x):
        ys = jnp.where(valid, x, 0)
        for layer in stack.layers:
            ys = ys + layer(ys, seq_lengths=lengths, time_major=True)
        return ys

    ys = np.array(by_hand(x))

    @jax.jit
    def by_stack(x):
        _, got, read = stack(x, lengths=lengths, return_inputs=True)
        shown = stack.layers[0](x, seq_lengths=lengths, time_major=True)
        again = [stack(x, lengths=lengths, outputs=o, first_outputs=shown)[1] for o in ("every", "last")]
        return got, read, stack(x, lengths=lengths, outputs="last")[1], again, read[0] + shown

    got, read, last, again, second = by_stack(x)
    assert_close(read, (np.where(valid, x, 0), second))
    assert_close(again, [got, last])
    assert_close(got, ys)
    assert not np.any(np.where(valid, 0, got))
    ends = np.where(lengths[:, None] > 0, ys[np.maximum(lengths - 1, 0), np.arange(B)], 0)
    if bidirectional:
        ends[:, H:] = ys[0][:, H:]
    assert_close(last, ends)

    wider = Stack([gru(3)], width, residual=True, rngs=nnx.Rngs(0))
    assert_close(*jax.jit(lambda x: (wider(x)[1], wider.layers[0](x, time_major=True)))(x), 0)


@pytest.mark.parametrize(
    "options",
    [
        {"residual": True},
        {"bidirectional": True, "residual": True, "readout": "mean"},
        {"gradient": "tbptt:2", "embedding_size": H},
    ],
)
def test_unsigned_lengths_with_a_zero_and_padding_that_is_not_finite(options):
    """Outputs and gradients are finite, and as for signed ones and zeros; a length past T or below 0 is refused."""
    width = 2 * H if "bidirectional" in options else H
    model = SequenceModel([gru(H)] * 2, input_size=width, output_size=O, **options, rngs=nnx.Rngs(0))
    x = normal(1, T, B, width)
    graphdef, state = nnx.split(model)

    @jax.jit
    def run(lengths, x):
        return jax.value_and_grad(lambda state: jnp.sum(nnx.merge(graphdef, state)(x, lengths=lengths) ** 2))(state)

    def padded(value):
        return jnp.where((jnp.arange(T)[:, None] < jnp.array([0, T, 2]))[..., None], x, value)

    unsigned = run(jnp.array([0, T, 2], jnp.uint8), padded(np.nan))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(unsigned))
    assert_close(unsigned, run(jnp.array([0, T, 2]), padded(0.0)), 0)
    for impossible in (T + 1, -1):
        with pytest.raises(ValueError, match=f"a length is {impossible}; allowed: 0 to {T}"):
            model(x, lengths=jnp.array([0, impossible, 2]))


def test_dropout_acts_between_layers_and_only_in_training():
    stack = Stack([gru(H), gru(H), gru(H)], D, dropout=0.5, rngs=nnx.Rngs(0))
    x = normal(1, T, B, D)
    ys = x
    for layer in stack.layers:
        ys = layer(ys, time_major=True)

    stack.eval()
    assert_close(stack(x)[1], ys)
    stack.train()
    seen = []
    for i, layer in enumerate(stack.layers):
        original = layer.cell.project
        see = functools.partial(jax.debug.callback, lambda a, i=i: seen.append((i, np.array(a))))
        layer.cell = nnx.static(
            layer.cell._replace(project=lambda p, a, see=see, f=original: see(a) or f(p, a), form=None)
        )
    _, _, read = stack(x, return_inputs=True)
    jax.effects_barrier()
    inputs = dict(seen)
    assert_close(dict(enumerate(read)), inputs, 0)  # of the very pass, with its masks
    assert_close(inputs[0], x, 0)
    drops = [np.array(inputs[i] == 0) for i in (1, 2)]
    assert all(0.25 < d.mean() < 0.75 for d in drops)
    assert not np.array_equal(*drops), "each gap draws for itself"
    first = stack.layers[0](x, time_major=True)
    assert_close(inputs[1], np.where(drops[0], 0, 2 * first))
    assert nnx.state(Stack([gru(H)] * 2, D, rngs=nnx.Rngs(0)), nnx.RngState) == nnx.State({})


def test_what_cannot_be_stacked_is_refused():
    with pytest.raises(TypeError, match=r"\[cell\]"):
        Stack(gru(H), D, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="empty"):
        Stack([], D, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="unknown readout 'lats'; allowed: last, every, mean"):
        SequenceModel([gru(H)], input_size=D, output_size=O, readout="lats", rngs=nnx.Rngs(0))


def test_carries_taps_and_probes_have_one_entry_a_layer_and_direction():
    stack = Stack([gru(H)] * 2, D, bidirectional=True, rngs=nnx.Rngs(0))
    x, carry, probe = normal(1, T, B, D), stack.initial_carry((B,)), stack.make_probe(T, (B,))
    for options, message in (
        ({"probe": probe[:1]}, "probe has 1 entries; allowed: a tuple with 2, one a layer"),
        ({"taps": {"h": x}}, "taps is a dict; allowed: a tuple with 2, one a layer"),
        ({"initial_carry": (carry[0], carry[1][:1])}, "initial_carry has 1 entries; .* one a direction"),
        ({"initial_carry": stack.initial_carry((B + 1,))}, r"the carry's part has shape \(4, 4\); allowed: \(3, 4\)"),
        ({"probe": stack.make_probe(T, (1,))}, r"probe's part has shape \(7, 1\); allowed: \(7, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            stack(x, **options)


def test_readouts_of_last_every_and_mean_step():
    lengths = jnp.array([7, 3, 0])
    x = normal(1, T, B, D)
    models = {
        readout: SequenceModel(
            [gru(H), lstm(3)], input_size=D, output_size=O, embedding_size=4, readout=readout, rngs=nnx.Rngs(0)
        )
        for readout in ("last", "every", "mean")
    }
    for model in models.values():
        model.readout.bias[...] = bias = jnp.arange(O) * 1.0
    model = models["every"]
    kernel = np.array(model.readout.kernel[...])

    @jax.jit
    def run(x):
        ys = model.stack(x @ model.encoder.kernel[...] + model.encoder.bias[...], lengths=lengths)[1]
        read = {name: m(x, lengths=lengths) for name, m in models.items()}
        return ys, read, {name: m(x) for name, m in models.items()}, model(x, return_carry=True)[0]

    ys, read, whole, carry = run(x)
    ys = np.array(ys)
    assert_close(read["every"], ys @ kernel + bias)
    means = np.stack([ys[:7, 0].mean(0), ys[:3, 1].mean(0), np.zeros(3)])
    assert_close(read["mean"], means @ kernel + bias)
    assert_close(read["last"], np.stack([ys[6, 0], ys[2, 1], np.zeros(3)]) @ kernel + bias)
    assert_close(whole["last"], whole["every"][-1])
    assert_close(whole["mean"], whole["every"].mean(0))
    assert carry[0].shape == (B, H) and isinstance(carry[1], LSTMCarry)


def test_last_readout_stores_no_sequence_of_outputs():
    def compiled(readout):
        model = SequenceModel([lstm(H)], input_size=D, output_size=O, readout=readout, rngs=nnx.Rngs(0))
        return jax.jit(model).lower(normal(1, T, B, D)).compile().as_text()

    every_step = f"f32[{T},{B},{H}]"
    assert every_step in compiled("every")
    assert every_step not in compiled("last")


def test_taps_and_probe_have_one_entry_a_layer_and_agree():
    model = SequenceModel(
        [lstm(H), gru(3)], input_size=D, output_size=O, bidirectional=True, readout="mean", rngs=nnx.Rngs(0)
    )
    x = normal(1, T, B, D)
    taps, probe = model.make_taps(T, (B,)), model.make_probe(T, (B,))
    assert jax.tree.map(jnp.shape, taps) == ((LSTMCarry((T, B, H), (T, B, H)),) * 2, ((T, B, 3),) * 2)
    assert {leaf.shape for leaf in jax.tree.leaves(probe)} == {(T, B)}

    @jax.jit
    def gradients(taps, probe):
        return jax.grad(lambda *a: jnp.sum(model(x, taps=a[0], probe=a[1]) ** 2), argnums=(0, 1))(taps, probe)

    dh, norms = gradients(taps, probe)
    assert_close(jax.tree.map(lambda g: jnp.linalg.norm(g, axis=-1), dh), norms, 1e-5)
    # the top layer's dL/dh_T of the forward direction, which only the readout sees, in closed form
    y, kernel = jax.jit(model)(x), model.readout.kernel[...]
    assert_close(dh[1][0][-1], (2 * y @ kernel.T / T)[:, :3], 1e-5)
    assert_close(dh[1][1][0], (2 * y @ kernel.T / T)[:, 3:], 1e-5)


def test_one_step_a_call_inside_scan_equals_the_whole_run():
    model = SequenceModel([lstm(H), gru(H)], input_size=6, output_size=O, tokens=True, residual=True, rngs=nnx.Rngs(0))
    assert model.encoder.embedding.shape == (6, H)
    every = SequenceModel(
        [lstm(H), gru(H)], input_size=6, output_size=O, tokens=True, residual=True, readout="every", rngs=nnx.Rngs(0)
    )
    tokens = jax.random.randint(jax.random.key(1), (T, B), 0, 6)

    def step(carry, token):
        return model(token[None], initial_carry=carry, return_carry=True)

    last, ys = jax.jit(lambda: jax.lax.scan(step, model.initial_carry((B,)), tokens))()
    expected_last, expected = jax.jit(lambda: every(tokens, return_carry=True))()
    assert_close(ys, expected)
    assert_close(last, expected_last)


def test_bfloat16_computes_the_recurrence_and_keeps_float32_weights_and_outputs():
    options = dict(input_size=D, output_size=O, embedding_size=H, readout="mean", rngs=nnx.Rngs(0))
    half = SequenceModel([lstm(H)], dtype=jnp.bfloat16, **options)
    full = SequenceModel([lstm(H)], **(options | {"rngs": nnx.Rngs(0)}))
    x = normal(1, T, B, D)
    carry, y = jax.jit(lambda x: half(x, initial_carry=half.initial_carry((B,)), return_carry=True))(x)
    expected = jax.jit(full)(x)
    assert {leaf.dtype for leaf in jax.tree.leaves((carry, half.initial_carry(())))} == {jnp.dtype(jnp.bfloat16)}
    assert y.dtype == jnp.float32 and {p.dtype for p in jax.tree.leaves(nnx.state(half))} == {jnp.dtype("float32")}
    assert_close(y, expected, 2e-2)
    assert not np.array_equal(y, expected)


def test_functional_use_under_jit_and_vmap_over_keys_with_dropout():
    """Seeds as one vmap: parameters drawn, dropout reseeded and a gradient step taken inside; equal to single runs."""
    x = normal(1, T, B, D)
    traces = []

    def build(key):
        cells = [rnn(H, w_h=uniform_sqrt(H))] * 2
        return SequenceModel(cells, input_size=D, output_size=O, dropout=0.5, rngs=nnx.Rngs(key))

    graphdef, _, rest = nnx.split(build(jax.random.key(0)), nnx.Param, ...)

    def run(key):
        traces.append(1)
        params = nnx.state(build(key), nnx.Param)

        def loss(params, step):
            model = nnx.merge(graphdef, params, rest, copy=True)  # the streams are of this trace
            nnx.reseed(model, dropout=jax.random.fold_in(key, step))
            return jnp.mean(model(x) ** 2)

        first, gradient = jax.value_and_grad(loss)(params, 0)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)
        return jnp.stack([first, loss(params, 0)])

    keys = jax.random.split(jax.random.key(3), 3)
    batched = jax.jit(jax.vmap(run))
    losses = batched(keys)
    batched(keys[::-1])
    assert len(traces) == 1
    single = jax.jit(run)
    assert_close(losses, jnp.stack([single(key) for key in keys]), 1e-5)
    before, after = losses.T
    assert np.all(after < before), "a step along the gradient of the very same mask"
    assert len(np.unique(before)) == 3, "each seed has its own weights and masks"

    model = nnx.merge(graphdef, nnx.state(build(keys[0]), nnx.Param), rest)
    model.eval()
    assert_close(model(x), model(x), 0)
    model.train()
    assert not np.array_equal(model(x), model(x))

    def seeded(seed):
        nnx.reseed(model, dropout=seed)
        return model(x)

    assert_close(seeded(1), seeded(1), 0)
    assert not np.array_equal(seeded(1), seeded(2))


def test_the_cells_initialisation_can_be_traced():
    """A forget bias that is an axis of a sweep: the cell closes over a tracer, the structure comes from outside."""

    def build(forget_bias):
        return SequenceModel([lstm(H, forget_bias=forget_bias)], input_size=D, output_size=O, rngs=nnx.Rngs(0))

    graphdef = nnx.graphdef(build(0.0))
    x = normal(1, T, B, D)
    biases = jnp.array([-1.0, 2.0])
    outputs = jax.jit(jax.vmap(lambda b: nnx.merge(graphdef, nnx.state(build(b)))(x)))(biases)
    assert_close(outputs, jnp.stack([jax.jit(build(b))(x) for b in (-1.0, 2.0)]))
