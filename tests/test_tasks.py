"""Tasks against the papers' definitions, read off the samples in numpy, and baselines against Monte Carlo."""

import collections
import hashlib
import math
import os
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnnjax.tasks import (
    TASKS,
    adding,
    check_batch,
    copy,
    decode,
    encode,
    fit_ngram,
    ngram,
    ngram_bits_per_character,
    parity,
    text,
    text_data,
)
from rnnjax.tasks.common import mean_over
from rnnjax.types import Batch

KEY = jax.random.key(7)

FORMS = [
    ("adding", 12, {"variant": "arjovsky"}),
    ("adding", 12, {"variant": "pascanu", "min_seq_len": 11}),
    ("adding", 12, {"variant": "hochreiter"}),
    ("copy", 5, {"variant": "arjovsky", "copy_length": 3}),
    ("copy", 5, {"variant": "recall", "copy_length": 3, "min_seq_len": 2}),
    ("text", 12, {"min_seq_len": 3}),
    ("parity", 9, {"modulus": 3, "min_seq_len": 2}),
    ("series", 12, {"horizon": 3}),
]


def test_every_task_of_the_table_is_tested():
    assert set(TASKS) == {name for name, *_ in FORMS}


def draw(task, batch_size, key=KEY, split="train", seq_len=None):
    sample = jax.jit(lambda key: task.sample(key, batch_size, split=split, seq_len=seq_len))
    return jax.tree.map(np.asarray, sample(key))


@pytest.mark.parametrize("name, seq_len, options", FORMS)
def test_a_task_keeps_its_promises(name, seq_len, options):
    task = TASKS[name](seq_len, **options)
    batch = draw(task, 3)
    T, B = batch.inputs.shape[:2]
    assert B == 3
    assert batch.inputs.shape[2:] == (() if task.tokens else (task.input_size,))
    answer = () if batch.targets.dtype.kind == "i" else (task.output_size,)  # a class, or as many numbers as outputs
    assert batch.targets.reshape(*batch.weights.shape, *answer).size == batch.targets.size
    assert task.readout in ("last", "every")
    if "min_seq_len" in options:
        assert batch.lengths.shape == (B,) and batch.lengths.max() <= T

    many = jax.jit(jax.vmap(lambda key: task.sample(key, 3)))(jax.random.split(KEY, 2).at[1].set(KEY))
    for a, b in zip(jax.tree.leaves(many), jax.tree.leaves(batch), strict=True):
        np.testing.assert_array_equal(a[1], b)
    assert not np.array_equal(many.inputs[0], many.inputs[1])

    shape = (T, B, task.output_size) if task.readout == "every" else (B, task.output_size)
    outputs = jax.random.normal(KEY, shape)
    loss, metrics = jax.jit(lambda *args: (task.loss(*args), task.metrics(*args)))(outputs, batch)
    assert task.score in metrics
    assert all(value.shape == () and np.isfinite(value) for value in [loss, *metrics.values()])
    better = (task.baseline < task.solved <= 1) if task.higher_is_better else (0 <= task.solved < task.baseline)
    assert better


@pytest.mark.parametrize("seq_len, lowest", [(11, None), (5, 2)])
def test_adding_arjovsky(seq_len, lowest):
    batch = draw(adding(seq_len, min_seq_len=lowest), 3000)
    value, marker = batch.inputs[..., 0].T, batch.inputs[..., 1].T
    assert (batch.lengths is None) == (lowest is None)
    lengths = np.full(3000, seq_len) if lowest is None else batch.lengths
    for v, m, target, L in zip(value, marker, batch.targets[:, 0], lengths, strict=True):
        first, second = np.flatnonzero(m)
        assert first < L // 2 <= second < L and m.sum() == 2
        assert (v[:L] > 0).all() and (v < 1).all() and not v[L:].any()
        np.testing.assert_allclose(target, v[first] + v[second], rtol=1e-6)
    assert set(lengths) == set(range(lowest or seq_len, seq_len + 1))
    if lowest is None:
        assert set(np.flatnonzero(marker.any(axis=0))) == set(range(seq_len))
        task = adding(seq_len)
        assert task.baseline == 1 / 6
        score = float(task.metrics(jnp.ones((3000, 1)), batch)["mse"])
        assert score == pytest.approx(1 / 6, rel=0.08)
        assert score == pytest.approx(np.mean((batch.targets - 1) ** 2), rel=1e-5)


def test_adding_pascanu():
    T, B = 30, 4000
    task = adding(T, variant="pascanu")
    batch = draw(task, B)
    assert batch.inputs.shape[0] == 32 and set(batch.lengths) == {30, 31, 32}  # all below 33 = 1.1 T
    firsts, seconds = set(), set()
    for x, target, L in zip(batch.inputs.swapaxes(0, 1), batch.targets[:, 0], batch.lengths, strict=True):
        marker, value = x.T
        first, second = np.flatnonzero(marker)
        assert first < 0.1 * L <= second < 0.5 * L and marker.sum() == 2
        assert (value >= 0).all() and (value < 1).all() and not x[L:].any()
        np.testing.assert_allclose(target, (value[first] + value[second]) / 2, rtol=1e-6)
        firsts.add(first)
        seconds.add(second)
    assert firsts == {0, 1, 2, 3} and seconds == set(range(3, 16))
    metrics = task.metrics(jnp.full((B, 1), 0.5), batch)
    assert metrics["mse"] == pytest.approx(1 / 24, rel=0.08)
    assert metrics["wrong"] == pytest.approx(task.baseline, rel=0.08)
    assert task.score == "wrong" and task.solved == 0.01


def test_adding_hochreiter():
    T, B = 24, 4000
    task = adding(T, variant="hochreiter")
    batch = draw(task, B)
    assert set(batch.lengths) == {24, 25, 26}
    marked_first = 0
    places = set()
    for x, target, L in zip(batch.inputs.swapaxes(0, 1), batch.targets[:, 0], batch.lengths, strict=True):
        value, marker = x.T
        assert marker[0] == marker[L - 1] == -1 and not x[L:].any()
        assert (np.abs(value) <= 1).all()
        marks = np.flatnonzero(marker == 1)
        assert (marker[1 : L - 1] >= 0).all() and set(marks) <= set(range(1, 11))  # T/2 - 1 = 11
        assert len(marks) == 2 or (len(marks) == 1 and value[0] == 0)
        assert marks[0] < 10 or value[0] == 0
        marked_first += len(marks) == 1
        places |= set(marks)
        np.testing.assert_allclose(target, 0.5 + value[marks].sum() / 4, atol=1e-6)
    assert places == set(range(1, 11))
    assert marked_first / B == pytest.approx(0.1 + 0.9 / 10, rel=0.15)
    metrics = task.metrics(jnp.full((B, 1), 0.5), batch)
    assert metrics["mse"] == pytest.approx(1 / 24, rel=0.2)
    assert metrics["wrong"] == pytest.approx(task.baseline, rel=0.03)


@pytest.mark.parametrize(
    "variant, T, lowest",
    [("arjovsky", 2, None), ("pascanu", 3, 3), ("hochreiter", 11, 11)],
)
def test_the_shortest_adding_asks_for_what_its_markers_show(variant, T, lowest):
    """The target again, from the inputs alone; a mark that nobody sees has the value 0 (hochreiter's first step)."""
    batch = draw(adding(T, variant=variant, min_seq_len=lowest), 300)
    lengths = np.full(300, T) if batch.lengths is None else batch.lengths
    assert lengths.min() >= (lowest or T) and lengths.max() <= len(batch.inputs)
    for x, target, L in zip(batch.inputs.swapaxes(0, 1), batch.targets[:, 0], lengths, strict=True):
        value, marker = x.T[::-1] if variant == "pascanu" else x.T
        marks = np.flatnonzero(marker == 1)
        assert not x[L:].any() and (marks < L).all()
        assert len(marks) == 2 or (variant == "hochreiter" and len(marks) == 1 and value[0] == 0)
        total = value[marks].sum()
        expected = {"arjovsky": total, "pascanu": total / 2, "hochreiter": 0.5 + total / 4}[variant]
        np.testing.assert_allclose(target, expected, atol=1e-6)


@pytest.mark.parametrize("T, lowest", [(1, None), (2, 1)])
def test_the_shortest_copy_spells_the_word_that_it_was_shown(T, lowest):
    batch = draw(copy(T, symbols=2, copy_length=1, min_seq_len=lowest), 40)
    lengths = np.full(40, T + 2) if batch.lengths is None else batch.lengths
    assert set(lengths) == set(range((lowest or T) + 2, T + 3))
    for x, target, L in zip(batch.inputs.swapaxes(0, 1), batch.targets.T, lengths, strict=True):
        word = int(x[0].argmax())
        assert x[:L].argmax(1).tolist() == [word, *[2] * (L - 3), 3, 2] and not x[L:].any()
        assert target[:L].tolist() == [*[2] * (L - 1), word]


def test_variable_adding_draws_T_and_then_the_length():
    lengths = draw(adding(40, variant="hochreiter", min_seq_len=20), 4000).lengths
    assert lengths.min() == 20 and lengths.max() == 44


@pytest.mark.parametrize("variant, right", [("pascanu", 0.19), ("hochreiter", 0.039)])
def test_the_papers_rule_of_a_wrong_answer(variant, right):
    task = adding(20, variant=variant)
    batch = Batch(None, jnp.full((4, 1), 0.5), None, jnp.ones(4, bool))
    limit = 0.2 if variant == "pascanu" else 0.04
    outputs = jnp.array([[0.5 + right], [0.5 - right], [0.5 + 1.01 * limit], [0.5 - 1.01 * limit]])
    assert task.metrics(outputs, batch)["wrong"] == 0.5
    assert task.metrics(jnp.full((4, 1), jnp.nan), batch)["wrong"] == 1  # a diverged network solves nothing


@pytest.mark.parametrize("lowest", [None, 1])
@pytest.mark.parametrize("variant", ["arjovsky", "recall"])
def test_copy(variant, lowest):
    T, K, M, B = 4, 5, 3, 600
    task = copy(T, variant=variant, symbols=K, copy_length=M, min_seq_len=lowest)
    assert (task.input_size, task.output_size) == (K + 2, K + 1)
    batch = draw(task, B)
    assert batch.inputs.shape == (T + 2 * M, B, K + 2)
    lengths = np.full(B, T + 2 * M) if lowest is None else batch.lengths
    assert set(lengths - 2 * M) == set(range(lowest or T, T + 1))
    log_p = np.full((T + 2 * M, B, K + 1), -50.0)  # the best without memory: blanks, then a uniform guess
    perfect = np.full_like(log_p, -50.0)
    for b, L in enumerate(lengths):
        x = batch.inputs[:, b]
        assert (x[:L].sum(1) == 1).all() and not x[L:].any()
        tokens, word = x[:L].argmax(1), x[:M].argmax(1)
        delay = L - 2 * M
        assert (word < K).all()
        np.testing.assert_array_equal(tokens, [*word, *[K] * (delay - 1), K + 1, *[K] * M])
        np.testing.assert_array_equal(batch.targets[:L, b], [*[K] * (delay + M), *word])
        log_p[: L - M, b, K] = 0
        log_p[L - M : L, b, :K] = -math.log(K)
        perfect[np.arange(L), b, batch.targets[:L, b]] = 0
        log_p[L:, b] = perfect[L:, b] = np.nan  # padding never counts
    assert set(batch.inputs[:M].argmax(-1).ravel()) == set(range(K))
    score = task.metrics(jnp.asarray(log_p), batch)
    assert score["cross_entropy"] == pytest.approx(task.baseline, rel=1e-4 if lowest is None else 0.05)
    assert task.metrics(jnp.asarray(perfect), batch)["accuracy"] == 1
    assert task.loss(jnp.asarray(perfect), batch) < 1e-6
    # Blanks everywhere are mostly right and remember nothing.
    assert task.metrics(jax.nn.one_hot(jnp.full_like(batch.targets, K), K + 1), batch)["accuracy"] == 0


@pytest.mark.parametrize("T, published", [(100, 0.1733), (200, 0.0945), (500, 0.0400), (1000, 0.0204), (2000, 0.0103)])
def test_copy_baselines_as_published(T, published):
    assert copy(T).baseline == pytest.approx(published, abs=5e-5)
    assert copy(T, variant="recall").baseline == pytest.approx(math.log(8))


@pytest.mark.parametrize("K, lowest", [(2, None), (5, 2)])
def test_parity(K, lowest):
    """Targets by a plain loop; the baseline is what the digit itself scores, and better than any other table."""
    T, B = 7, 3000
    task = parity(T, modulus=K, min_seq_len=lowest)
    batch = draw(task, B)
    lengths = np.full(B, T) if lowest is None else batch.lengths
    assert (batch.lengths is None) == (lowest is None) and set(lengths) == set(range(lowest or T, T + 1))
    assert set(batch.inputs[: lowest or T].argmax(-1).ravel()) == set(range(K))
    right = []
    for b, L in enumerate(lengths):
        x, total = batch.inputs[:, b], 0
        assert (x[:L].sum(1) == 1).all() and not x[L:].any()
        assert batch.weights[:, b].tolist() == [True] * L + [False] * (T - L)
        for t, digit in enumerate(x[:L].argmax(1)):
            total = (total + int(digit)) % K
            assert batch.targets[t, b] == total
        right.append(np.mean(batch.targets[:L, b] == x[:L].argmax(1)))
    assert np.mean(right) == pytest.approx(task.baseline, abs=0.015)  # four standard errors
    scores = task.metrics(jnp.where(batch.weights[..., None], batch.inputs, jnp.nan), batch)
    assert scores["accuracy"] == pytest.approx(np.mean(right), rel=1e-5)
    assert scores["scaled_accuracy"] == pytest.approx((np.mean(right) - 1 / K) / (1 - 1 / K), rel=1e-4)
    shifted = task.metrics(jnp.roll(batch.inputs, 1, axis=-1), batch)["accuracy"]
    assert shifted < task.baseline - 0.1 / K
    rule = task.metrics(jax.nn.one_hot(batch.targets, K), batch)
    assert rule["accuracy"] == rule["scaled_accuracy"] == 1 and rule["accuracy"] >= task.solved


def test_parity_asked_after_the_last_digit_is_the_sum_of_all():
    task = parity(7, modulus=3, min_seq_len=2, last=True)
    batch = draw(task, 200)
    for b, L in enumerate(batch.lengths):
        assert batch.targets[b] == batch.inputs[:L, b].argmax(1).sum() % 3
    assert (task.readout, task.baseline) == ("last", 1 / 3)
    assert task.metrics(jax.nn.one_hot(batch.targets, 3), batch)["accuracy"] == 1
    right = np.mean(batch.targets == 0)
    assert task.metrics(jax.nn.one_hot(np.zeros(200, int), 3), batch)["accuracy"] == pytest.approx(right, rel=1e-5)


def test_losses_weigh_each_sequence_alike():
    """The mean over a batch is the mean over its parts, which micro-batches rely on."""
    task = copy(6, copy_length=2, min_seq_len=1)
    batch = draw(task, 4)
    outputs = jax.random.normal(KEY, (10, 4, 9))
    loss = jax.jit(task.loss)
    parts = [loss(outputs[:, [b]], Batch(None, *one_sequence(batch, b))) for b in range(4)]
    assert loss(outputs, batch) == pytest.approx(np.mean(parts), rel=1e-5)


def one_sequence(batch, b):
    return batch.targets[:, [b]], batch.lengths[[b]], batch.weights[:, [b]]


VALUES = {  # place in FORMS -> loss and metrics of outputs drawn from KEY, as they were before a batch had weights
    0: (0.16138938, {"mse": 0.16138938}),
    1: (0.28111160, {"mse": 0.28111160, "wrong": 2 / 3}),
    2: (0.30801183, {"mse": 0.30801183, "wrong": 1.0}),
    3: (2.19080639, {"cross_entropy": 2.19080639, "accuracy": 0.0}),
    4: (2.36725020, {"cross_entropy": 2.36725020, "accuracy": 2 / 9}),
}


@pytest.mark.parametrize("form", VALUES)
def test_losses_are_what_they_were(form):
    name, seq_len, options = FORMS[form]
    task = TASKS[name](seq_len, **options)
    batch = draw(task, 3)
    outputs = 0.5 + 0.3 * jax.random.normal(KEY, (*batch.weights.shape, task.output_size))
    loss, metrics = VALUES[form]
    assert task.loss(outputs, batch) == pytest.approx(loss, rel=1e-6)
    assert task.metrics(outputs, batch) == pytest.approx(metrics, rel=1e-6)


@pytest.mark.parametrize("name, seq_len, options", FORMS)
def test_weights_say_which_outputs_count(name, seq_len, options):
    """What has a weight of 0 may be anything; a weight of 2 everywhere changes nothing."""
    task = TASKS[name](seq_len, **options)
    batch = draw(task, 4)
    check_batch(task, name, batch)
    outputs = jax.random.normal(KEY, (*batch.weights.shape, task.output_size))
    score = lambda outputs, weights: task.metrics(outputs, batch._replace(weights=weights))[task.score]  # noqa: E731
    spoilt = jnp.where(batch.weights[..., None], outputs, jnp.nan)
    assert score(spoilt, batch.weights) == score(outputs, batch.weights)
    assert score(outputs, 2.0 * batch.weights) == pytest.approx(float(score(outputs, batch.weights)), rel=1e-6)
    place = (0,) if task.readout == "last" else (int(np.flatnonzero(batch.weights[:, 0])[0]), 0)
    without = batch.weights.copy()
    without[place] = False
    assert score(outputs.at[place].set(jnp.nan), without) == score(outputs, without)


def test_the_mean_over_weights_is_numpy_s():
    values, rng = np.random.default_rng(0).normal(size=(5, 3)).astype("f"), np.random.default_rng(1)
    weights = rng.uniform(0, 0.3, size=(5, 3)).astype("f") * (rng.uniform(size=(5, 3)) < 0.7)
    expected = np.mean([np.average(v, weights=w) for v, w in zip(values.T, weights.T, strict=True)])
    assert mean_over(jnp.asarray(weights), values) == pytest.approx(expected, rel=1e-5)
    assert mean_over(jnp.asarray(weights[:, 0]), values[:, 0]) == pytest.approx(
        np.average(values[:, 0], weights=weights[:, 0]), rel=1e-5
    )
    assert mean_over(jnp.zeros((5, 3), bool), values * jnp.nan) == 0


@pytest.mark.parametrize(
    "change, message",
    [
        ({"weights": None}, r"^task 'mine': Batch.weights is missing; with readout 'last' it must be \[B\] = \(3,\)$"),
        (
            {"weights": jnp.ones((4, 3))},
            r"weights is of the shape \(4, 3\); with readout 'last' it must be \[B\] = \(3,",
        ),
        (
            {"targets": jnp.ones((4, 3))},
            r"targets is of the shape \(4, 3\); with weights \(3,\) it must begin with \(3,",
        ),
    ],
)
def test_a_batch_whose_weights_are_not_those_of_its_outputs_is_refused(change, message):
    task = adding(4)
    with pytest.raises(ValueError, match=message):
        check_batch(task, "mine", draw(task, 3)._replace(**change))


@pytest.mark.parametrize("name, seq_len, options", FORMS)
def test_a_sample_of_another_length_is_that_of_a_task_of_that_length(name, seq_len, options):
    """Twice the trained length, all sequences of that one length; without it, nothing changes."""
    fixed = {key: value for key, value in options.items() if key != "min_seq_len"}
    longer, trained = TASKS[name](2 * seq_len, **fixed), TASKS[name](seq_len, **options)
    mine, theirs = draw(trained, 3, seq_len=2 * seq_len), draw(longer, 3)
    assert jax.tree.structure(mine) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)
    outputs = jax.random.normal(KEY, (*mine.weights.shape, trained.output_size))
    assert trained.loss(outputs, mine) == longer.loss(outputs, theirs)


def test_text_is_split_by_position():
    from pydoc_data.topics import topics

    whole = "".join(value for _, value in sorted(topics.items()))
    data = text_data()
    assert data.sha256 == hashlib.sha256(whole.encode()).hexdigest()
    train, validation, test = (decode(ids, data.vocabulary) for ids in (data.train, data.validation, data.test))
    assert train == whole[: len(train)]
    assert len(validation + test) + len(train) == len(whole)
    assert len(train) / len(whole) == pytest.approx(0.9, abs=1e-4)
    assert len(validation) / len(whole) == pytest.approx(0.05, abs=1e-4)
    known = set(train)
    assert validation + test == "".join(c if c in known else "\ufffd" for c in whole[len(train) :])


def test_text_windows_come_from_their_split():
    task, data = text(20), text_data()
    for split in ("train", "validation", "test"):
        batch = draw(task, 8, split=split)
        np.testing.assert_array_equal(batch.inputs[1:], batch.targets[:-1])
        part = decode(getattr(data, split), data.vocabulary)
        for b in range(8):
            assert decode([*batch.inputs[:, b], batch.targets[-1, b]], data.vocabulary) in part
    single = draw(text(1), 1)
    assert single.inputs.shape == single.targets.shape == (1, 1)
    short = draw(text(np.int64(20), min_seq_len=5), 200)  # as a grid of numpy's has it
    assert set(short.lengths) == set(range(5, 21))
    past = np.arange(20)[:, None] >= short.lengths
    assert not short.inputs[past].any() and not short.targets[past].any()


def test_every_window_of_a_split_can_be_drawn(tmp_path):
    path = tmp_path / "letters.txt"
    path.write_text("".join(chr(200 + i) for i in range(60)), encoding="utf-8")  # 54, 3 and 3 characters
    batch = draw(text(2, path=path), 2000)
    assert set(batch.inputs[0]) == set(range(52)) and set(batch.targets[-1]) == set(range(2, 54))
    assert set(draw(text(2, path=path), 8, split="test").inputs.ravel()) == {54}  # all unknown


def test_text_score_in_bits_per_character():
    task = text(6, min_seq_len=3)
    batch = draw(task, 4)
    logits = jax.random.normal(KEY, (6, 4, task.output_size))
    p = np.asarray(jax.nn.softmax(logits), np.float64)
    bits = [np.mean([-math.log2(p[t, b, batch.targets[t, b]]) for t in range(batch.lengths[b])]) for b in range(4)]
    assert task.metrics(logits, batch)["bits_per_character"] == pytest.approx(np.mean(bits), rel=1e-5)
    assert task.loss(logits, batch) == pytest.approx(np.mean(bits) * math.log(2), rel=1e-5)


def test_encode_and_decode():
    vocabulary = "abé\ufffd"
    assert encode("aébz\ufffd", vocabulary).tolist() == [0, 2, 1, 3, 3]
    assert decode([0, 2, 1, 3], vocabulary) == "aéb\ufffd"
    assert encode("", vocabulary).size == 0


def test_five_gram_beats_unigram_on_both_held_out_parts():
    data, task = text_data(), text(10)
    for split in ("validation", "test"):
        assert ngram_bits_per_character(data, 5, split) < ngram_bits_per_character(data, 1, split) / 2
    assert task.baseline == ngram_bits_per_character(data, 1, "validation")
    assert task.solved == ngram_bits_per_character(data, 5, "validation")
    # The unigram needs no more than the training part's frequencies, smoothed by a count or so a character.
    p = (np.bincount(data.train, minlength=104) + 0.5) / len(data.train)
    assert task.baseline == pytest.approx(-np.log2(p)[data.validation].mean(), rel=1e-3)


def test_text_tasks_share_one_fit(monkeypatch):
    text(10)
    monkeypatch.setitem(text.__globals__, "fit_ngram", lambda *_: pytest.fail("fitted again"))
    text(20)


def test_ngram_probabilities_sum_to_one():
    data = text_data()
    size = len(data.vocabulary)
    probability = fit_ngram(data.train, 5, size)
    for context in ("stat", "zqzq", "the ", "q\ufffd(", "e", ""):
        prefix = encode(context, data.vocabulary)
        p = [probability(np.append(prefix, w))[-1] for w in range(size)]
        assert min(p) > 0 and sum(p) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("size", [5, 2**21])  # of the second, three do not fit into 64 bits
def test_ngram_against_the_formula_with_dictionaries(size):
    rng = np.random.default_rng(0)
    tokens, held_out, order = rng.integers(0, 4, 200), rng.integers(0, 5, 60), 3

    def grams(k):
        return [tuple(tokens[i : i + k]) for i in range(len(tokens) - k + 1)]

    counts = {order: collections.Counter(grams(order))}
    for k in range(1, order):
        counts[k] = collections.Counter(longer[1:] for longer in set(grams(k + 1)))

    def p(context, w):
        if context is None:
            return 1 / size
        c = counts[len(context) + 1]
        follow = {g[-1]: n for g, n in c.items() if g[:-1] == context}
        shorter = p(context[1:] if context else None, w)
        total = sum(follow.values())
        if not total:
            return shorter
        if not context:
            return (follow.get(w, 0) + len(follow) * shorter) / (total + len(follow))
        once, twice = (sum(n == i for n in c.values()) for i in (1, 2))
        D = (once + 1) / (once + 2 * twice + 2)
        return (max(follow.get(w, 0) - D, 0) + D * len(follow) * shorter) / total

    expected = [p(tuple(held_out[max(0, t - order + 1) : t]), w) for t, w in enumerate(held_out)]
    np.testing.assert_allclose(fit_ngram(tokens, order, size)(held_out), expected, rtol=1e-12)


@pytest.mark.parametrize("N, order, size", [(300, 5, 7), (300, 1, 7), (5, 5, 3), (9, 4, 1), (200, 2, 4000)])
def test_ngrams_are_counted_the_same_packed_or_numbered(N, order, size):
    tokens = np.random.default_rng(1).integers(0, size, N).astype(np.int32)
    found = [count(tokens, order, size) for count in (ngram._by_packing, ngram._by_numbering)]
    for a, b in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "own.txt"
    path.write_bytes("naïve \n".encode() * 40)
    data = text_data(path)
    assert data.vocabulary == "\n aenvï\ufffd"
    assert data.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(data.train) == 252 and len(data.validation) == len(data.test) == 14
    assert text(5, path=str(path)).solved < 0.7  # it repeats itself, but for the first characters of a part


def test_a_text_is_the_same_whatever_system_it_was_written_on(tmp_path):
    """A byte order mark, CRLF and the lone CR of old are no characters of it; a mark further on and a NUL are."""
    lines = ["one", "", "two", "\ufeffthree\0", *map(str, range(30))]
    files = {}
    for name, end, start in (("unix", "\n", ""), ("dos", "\r\n", "\ufeff"), ("mac", "\r", "")):
        files[name] = tmp_path / name
        files[name].write_bytes((start + end.join(lines)).encode())
    found = {name: text_data(path) for name, path in files.items()}
    whole = "\n".join(lines)
    for name, data in found.items():
        ids = np.concatenate([data.train, data.validation, data.test])
        assert decode(ids, data.vocabulary) == whole
        assert data.sha256 == hashlib.sha256(files[name].read_bytes()).hexdigest()
    assert len({data.vocabulary for data in found.values()}) == 1
    assert not set("\r") & set(found["dos"].vocabulary) and "\0" in found["dos"].vocabulary


def test_a_large_text_is_taken_apart_once_and_its_ngrams_are_fitted_once_until_it_changes(tmp_path, monkeypatch):
    path, fits = tmp_path / "own.txt", []

    def counted(*args):
        fits.append(args[1])
        return fit_ngram(*args)

    monkeypatch.setattr(sys.modules[text.__module__], "fit_ngram", counted)
    path.write_text("to be or not to be" * 20)
    first = text_data(path)
    for _ in range(3):
        text(4, path=path)
        ngram_bits_per_character(text_data(path), 5, "test")
    assert text_data(path).train is first.train and sorted(fits) == [1, 5]
    with pytest.raises(ValueError, match="read-only"):
        first.train[0] = 0
    stat = path.stat()
    path.write_text("or be to not be to" * 20)  # as long
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert decode(text_data(path).train[:5], text_data(path).vocabulary) == "or be"
    text(4, path=path)
    assert sorted(fits) == [1, 1, 5, 5]


@pytest.mark.parametrize("content", ["a" * 60, "\ufffd" * 60, "a\ufffd" * 30], ids=["a", "unknown", "both"])
def test_ngrams_of_a_text_that_says_nothing_are_finite(content, tmp_path):
    path = tmp_path / "own.txt"
    path.write_text(content, encoding="utf-8")
    task = text(2, path=path)
    assert 0 <= task.solved <= task.baseline < 2
    assert math.copysign(1, task.baseline) == 1  # no "-0"


def bad_file(tmp_path, content):
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda _: adding(10, variant="arjovski"), "unknown adding variant 'arjovski'; did you mean 'arjovsky'?"),
        (lambda _: copy(10, variant="recal"), "unknown copy variant 'recal'; did you mean 'recall'?"),
        (lambda _: adding(1), r"'adding \(arjovsky\)': seq_len is 1; it must be an integer, 2 or more"),
        (lambda _: adding(2, variant="pascanu"), "seq_len is 2; it must be an integer, 3 or more"),
        (lambda _: adding(10, variant="hochreiter"), "seq_len is 10; it must be an integer, 11 or more"),
        (lambda _: adding(10.5), "seq_len is 10.5; it must be an integer"),
        (lambda _: adding(10, min_seq_len=11), "min_seq_len is 11; it must be an integer from 2 to 10"),
        (lambda _: copy(0), "'copy': seq_len is 0; it must be an integer, 1 or more"),
        (lambda _: copy(5, symbols=1), "symbols is 1; it must be an integer, 2 or more"),
        (lambda _: copy(5, copy_length=0), "copy_length is 0; it must be an integer, 1 or more"),
        (lambda _: parity(1), "'parity': seq_len is 1; it must be an integer, 2 or more"),
        (lambda _: parity(5, modulus=1), "'parity': modulus is 1; it must be an integer, 2 or more"),
        (lambda _: text(0), "'text': seq_len is 0"),
        (lambda _: text(10**6), "seq_len is 1000000, but the train part of the text of pydoc_data.topics has"),
        (lambda _: text(5).sample(KEY, 2, split="tset"), "unknown split 'tset'; did you mean 'test'?"),
        (lambda _: text(5).sample(KEY, 2, seq_len=10**6), "seq_len is 1000000, but the train part of the text of py"),
        (
            lambda _: adding(5).sample(KEY, 2, seq_len=1),
            r"'adding \(arjovsky\)': seq_len is 1; it must be an integer, 2",
        ),
        (lambda _: copy(5).sample(KEY, 2, seq_len=2.5), "'copy': seq_len is 2.5; it must be an integer, 1 or more"),
        (lambda d: text(5, path=d / "none.txt"), r"text file '.*none.txt' cannot be read: No such file or directory"),
        (lambda d: text(5, path=d), r"has no text in it; allowed: a text file, or a folder with \*.txt$"),
        (
            lambda d: text(5, path=bad_file(d, b"\xff\xfea\0b")),
            "is not UTF-16 text: byte 4 is 0x62; allowed: UTF-8, or UTF-16",
        ),
        (lambda d: text(5, path=bad_file(d, b"")), r"'.*bad.txt' has 0 characters; it must have 20 or more"),
        (
            lambda d: text(5, path=bad_file(d, b"x" * 99)),
            "the validation part of .* has 5 characters; it must be",
        ),
        (lambda d: text(5, path=bad_file(d, b"caf\xe9" * 9)), "is not UTF-8 text: byte 3 is 0xe9"),
        (lambda d: text(5, path=bad_file(d, b"\xef\xbb\xbf" + b"\xff" * 30)), "is not UTF-8 text: byte 3 is 0xff"),
        (lambda d: text(5, path=bad_file(d, b"a" * 30 + b"\xed\xa0\x80")), "is not UTF-8 text: byte 30 is 0xed"),
        (lambda d: text(1, path=bad_file(d, b"\r\n" * 19)), r"has 19 characters; it must have 20 or more"),
        (lambda _: fit_ngram(np.zeros(3, int), 4, 2), "order is 4; it must be 1 to 3"),
    ],
)
def test_bad_values_are_refused_in_one_line(make, message, tmp_path):
    with pytest.raises(ValueError, match=message) as error:
        make(tmp_path)
    assert "\n" not in str(error.value)
