"""Text that is read on from window to window, its state kept: where windows lie, what is carried over, and what not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnjax
from rnnjax.keys import Purpose, purpose_key
from rnnjax.tasks import SPLITS, text, text_data
from rnnjax.training import make_train
from rnnjax.training.checks import check
from rnnjax.training.config import Config, hyperparameters
from rnnjax.training.fit import find_shards
from rnnjax.training.settings import BadSetting

LINES = [f"line {i} says that it is number {i * i} of them{'!' * (i % 3)}\n" for i in range(24)]


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("".join(LINES))
    return str(path)


def config_of(path, **change):
    small = {"cell": "rnn", "hidden_size": 4, "batch_size": 3, "eval_batch": 4, "eval_every": 2, "steps": 6}
    return Config(
        **({"task": "text", "task_options": {"path": path}, "stateful": True, "seq_len": 7, **small} | change)
    )


def values(config):
    return {name: jnp.float32(v) for name, v in hyperparameters(config).items()}


@pytest.mark.parametrize("separator, T, seed", [(None, 7, 0), ("\\n", 7, 1), ("\\n", 50, 2), ("!", 1, 3)])
def test_a_sequence_reads_every_pair_once_a_pass_each_window_within_a_document(lines, separator, T, seed):
    task, B = text(T, path=lines, separator=separator), 3
    data = text_data(lines, separator)
    N, starts = len(data.train), data.starts["train"]
    ends = np.append(starts[1:], N)
    pairs = {t for a, b in zip(starts, ends, strict=True) for t in range(a, b - 1)}  # that have their target
    firsts = {a for a, b in zip(starts, ends, strict=True) if b - a >= 2}
    read = jax.jit(lambda place: task.stream.read(place, data=task.data))
    place = task.stream.begin(jax.random.key(seed), B, data=task.data)
    np.testing.assert_allclose(np.diff(np.sort(place)), N / B, atol=1)
    seen = [[] for _ in range(B)]
    while min(map(len, seen)) < 2 * len(pairs):
        batch, fresh, place = jax.tree.map(np.asarray, read(place))
        for b, n in enumerate(batch.lengths):
            at = place[b] - n
            assert 1 <= n <= T and batch.weights[:, b].tolist() == [True] * n + [False] * (T - n)
            assert batch.inputs[:n, b].tolist() == data.train[at : at + n].tolist()
            assert batch.targets[:n, b].tolist() == data.train[at + 1 : at + n + 1].tolist()
            assert not batch.inputs[n:, b].any() and fresh[b] == (at in firsts)
            assert n == T or at + n + 1 in ends  # cut by nothing else than its document's end
            seen[b] += range(at, at + n)
    for sequence in seen:
        assert set(sequence[: len(pairs)]) == pairs  # as many as there are, so each of them once
        assert sequence[len(pairs) : 2 * len(pairs)] == sequence[: len(pairs)]


def test_a_folder_is_a_document_a_file(tmp_path):
    for name, content in (("b.txt", "second " * 9), ("a.txt", "first\n" * 9), ("c.md", "not a text")):
        (tmp_path / name).write_text(content)
    data = text_data(tmp_path)
    assert "".join(data.vocabulary[i] for i in data.train).startswith("first\n" * 9 + "second second")
    assert data.starts["train"].tolist() == [0, 54]
    with pytest.raises(ValueError, match=r"^task.separator='#' does not occur in the text; allowed: one that does"):
        text_data(tmp_path, "#")


def one_step(config, state=None):
    """(train, the state before, the batch that its next step reads, which begin a document)"""
    train = make_train(config)
    state = jax.jit(train.init)(jax.random.key(config.seed), values(config)) if state is None else state
    batch, fresh, _ = jax.jit(lambda place: train.task.stream.read(place, data=train.task.data))(state.stream.place)
    return train, state, batch, fresh


@pytest.mark.slow
def test_a_transformer_sees_the_last_window_s_steps_whichever_window_they_were_in(lines):
    options = {"cell": "transformer", "cell_options": {"heads": 2}, "gradient_flow": False}
    config = config_of(lines, steps=3, eval_every=1, lr=1e-30, optimizer="sgd", **options)
    train, state, _, _ = one_step(config)
    chunk, first = jax.jit(train.chunk), np.asarray(state.stream.place)
    whole = np.stack([train.task.data["train"][p : p + 22] for p in first], 1)
    within = make_train(dataclasses.replace(config, stateful=False, cell_options={"heads": 2, "context": 7}))
    log_p = np.asarray(jax.nn.log_softmax(within.model(state.params)(jnp.asarray(whole[:21]))), np.float64)
    nats = -np.take_along_axis(log_p, whole[1:, :, None], -1)[..., 0]
    for k in range(3):
        state, record = chunk(state, values(config))
        assert record["loss"] == pytest.approx(nats[7 * k : 7 * k + 7].mean(), rel=1e-4)
        assert np.isfinite(record["eval_loss"])


def test_windows_with_the_state_kept_are_the_whole_document(lines):
    """Parameters that stand: windows one after the other say what one unroll says; their gradient is each one's own."""
    config = config_of(lines, steps=3, eval_every=1, lr=1e-30, optimizer="sgd", clip=0.0)
    train, state, batch, _ = one_step(config)
    model, chunk = train.model(state.params), jax.jit(train.chunk)
    first = np.asarray(state.stream.place)
    whole = np.stack([np.take(train.task.data["train"], np.arange(p, p + 22), mode="wrap") for p in first], 1)
    carry, outputs = jax.jit(lambda tokens: model(tokens, return_carry=True))(jnp.asarray(whole[:21]))
    assert (first + 22 < len(train.task.data["train"])).all(), "no sequence wraps in this test"
    log_p = np.asarray(jax.nn.log_softmax(outputs), np.float64)
    nats = -np.take_along_axis(log_p, whole[1:, :, None], -1)[..., 0]

    def of_window(params, before, inputs, targets):  # the state before it is a constant
        _, outputs = train.model(params)(inputs, initial_carry=before, return_carry=True)
        return train.task.loss(outputs, batch._replace(targets=targets, lengths=None))

    slope = jax.jit(jax.grad(of_window))
    for k in range(3):
        before, t = state.stream.carry, 7 * k
        state, record = chunk(state, values(config))
        assert record["loss"] == pytest.approx(nats[t : t + 7].mean(), rel=1e-4)
        gradient = slope(state.params, before, whole[t : t + 7], whole[t + 1 : t + 8])
        norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(gradient)))
        assert record["grad_norm"] == pytest.approx(norm, rel=1e-4)
    for a, b in zip(jax.tree.leaves(state.stream.carry), jax.tree.leaves(carry), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert record["flow"][0].shape == (7,) and np.all(record["flow"][0] > 0)


def test_a_document_starts_with_the_initial_state_and_each_step_weighs_the_same(lines):
    config = config_of(lines, task_options={"path": lines, "separator": "\\n"}, seq_len=50, steps=2, eval_every=1)
    config = dataclasses.replace(config, gradient_flow=False)
    train, state, _, _ = one_step(config)
    chunk = jax.jit(train.chunk)
    state, _ = chunk(state, values(config))
    _, _, batch, fresh = one_step(config, state)
    assert fresh.all() and len(set(np.asarray(batch.lengths))) > 1
    outputs = jax.jit(lambda b: train.model(state.params)(b.inputs, lengths=b.lengths))(batch)
    nats = -np.take_along_axis(np.asarray(jax.nn.log_softmax(outputs)), np.asarray(batch.targets)[..., None], -1)[
        ..., 0
    ]
    _, record = chunk(state, values(config))
    assert record["loss"] == pytest.approx(nats[np.asarray(batch.weights)].mean(), rel=1e-5)


def test_validation_reads_on_too(lines):
    config = config_of(lines, lr=1e-30, optimizer="sgd", eval_batch=64)
    train, state, _, _ = one_step(config)
    key, model = purpose_key(Purpose.EVALUATION), train.model(state.params)
    _, record = jax.jit(train.chunk)(state, values(config))
    place, nats = train.task.stream.begin(key, 32, split="validation", data=train.task.data), []
    part, once = train.task.data["validation"], jax.jit(lambda tokens: jax.nn.log_softmax(model(tokens)))
    for first in np.asarray(place):  # 64 windows: two a sequence
        at = np.arange(first, first + 14)
        ends = [*np.flatnonzero(at == len(part) - 1), 14]
        if ends[0] == 0:
            at, ends = np.arange(14), [14]
        if ends[0] == 14:
            log_p, due = np.asarray(once(part[at][:, None]))[:, 0], part[at + 1]
            nats += [-log_p[t, due[t]] for t in range(14)]
        else:  # its window ends with the part, and what is left of the two is read from its beginning
            n = ends[0]
            log_p = np.asarray(once(np.pad(part[at[:n]], (0, 14 - n))[:, None]))[:n, 0]
            nats += [-log_p[t, part[first + t + 1]] for t in range(n)]
            log_p = np.asarray(once(part[:14][:, None]))[:7, 0]
            nats += [-log_p[t, part[t + 1]] for t in range(7)] if n <= 7 else []
    assert record["eval_loss"] == pytest.approx(np.mean(nats), rel=1e-5)
    assert record["eval_bits_per_character"] == pytest.approx(np.mean(nats) / np.log(2), rel=1e-5)


@pytest.mark.slow
def test_a_trained_run_is_evaluated_on_streams(lines):
    run = rnnjax.fit(config_of(lines, cell="rnn", gradient_flow=False, steps=1), progress=False)
    found = run.evaluate("train", batch_size=32, batches=2)
    key, task, model = purpose_key(Purpose.TESTING, SPLITS.index("train")), run.train.task, run.model
    place, carry = task.stream.begin(jax.random.split(key, 2)[0], 32, data=task.data), model.initial_carry((32,))
    nats, count = 0.0, 0
    for _ in range(2):
        batch, fresh, place = task.stream.read(place, data=task.data)
        new = model.initial_carry((32,))
        start = jax.tree.map(lambda n, c, f=fresh: jnp.where(f[:, None], n, c), new, carry)
        carry, outputs = model(batch.inputs, lengths=batch.lengths, initial_carry=start, return_carry=True)
        log_p = np.take_along_axis(np.asarray(jax.nn.log_softmax(outputs)), np.asarray(batch.targets)[..., None], -1)
        nats, count = nats - log_p[np.asarray(batch.weights)].sum(), count + int(batch.weights.sum())
    assert found["loss"] == pytest.approx(nats / count, rel=1e-5)
    assert run.evaluate("test", seq_len=5, batch_size=4, batches=1)["loss"] > 0


def test_it_is_compiled_once_and_goes_on_bit_for_bit(lines, tmp_path):
    config = config_of(lines, gradient_flow=False)
    train, state, _, _ = one_step(config)
    traces = []
    chunk = jax.jit(lambda s, v: (traces.append(1), train.chunk(s, v))[1])
    for _ in range(3):
        state, _ = chunk(state, values(config))
    assert len(traces) == 1

    class Stop:
        left = 1

        @property
        def requested(self):
            self.left -= 1
            return self.left < 0

    whole = rnnjax.fit(config, progress=False)
    first = rnnjax.fit(config, tmp_path / "run", progress=False, stop=Stop())
    assert first.steps == 2
    second = rnnjax.load(tmp_path / "run").resume(progress=False)
    for run in (second, rnnjax.fit(dataclasses.replace(config, steps=4), progress=False).resume(2, progress=False)):
        for name in ("params", "metrics"):
            for a, b in zip(jax.tree.leaves(getattr(run, name)), jax.tree.leaves(getattr(whole, name)), strict=True):
                np.testing.assert_array_equal(a, b)
    for a, b in zip(jax.tree.leaves(second.state.stream), jax.tree.leaves(whole.state.stream), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_that_diverged_keeps_the_stream_of_before(lines):
    config = config_of(lines, lr=1e38, clip=0.0, optimizer="sgd", cell="rnn")
    train, state, _, _ = one_step(config)
    chunk = jax.jit(train.chunk)
    for _ in range(2):
        state, record = chunk(state, values(config))
    assert record["diverged"] >= 0 and all(np.isfinite(a).all() for a in jax.tree.leaves(state.stream))
    after, _ = chunk(state, values(config))
    for a, b in zip(jax.tree.leaves(after.stream), jax.tree.leaves(state.stream), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_cannot_be_read_on_is_refused(lines):
    for change, message in (
        (
            {"task": "adding", "task_options": {}},
            r"^stateful=True reads on .* of task 'adding' stand alone; allowed: sta",
        ),
        ({"min_seq_len": 3}, r"^min_seq_len=3 draws windows, and stateful=True reads on; allowed: no min_seq_len$"),
        ({"bidirectional": True}, r"^bidirectional=True reads"),
    ):
        with pytest.raises(ValueError, match=message):
            check(config_of(lines, **change))
    with pytest.raises(BadSetting, match=r"^shards=3: stateful=True keeps"):
        find_shards(config_of(lines), None, 3)
    assert find_shards(config_of(lines), None, 0) == 1
