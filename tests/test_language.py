"""A character model read and written, against a plain loop over the text in float64."""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import rnnjax
from rnnjax.cells import gru, lstm
from rnnjax.nn import SequenceModel
from rnnjax.tasks import text, text_data
from rnnjax.tasks.language import bits_per_character, generate
from rnnjax.tasks.text import SAMPLE_LENGTH
from rnnjax.tasks.units import UNKNOWN
from rnnjax.training import make_train
from rnnjax.training.checks import check
from rnnjax.training.config import Config, hyperparameters
from rnnjax.training.settings import BadSetting
from rnnjax.training.tracing import check_vocabulary

V = 5
TOKENS = np.random.default_rng(0).integers(0, V, 300)


def make(cell=gru, **options):
    options = {"readout": "every"} | options
    return SequenceModel([cell(6)], input_size=V, output_size=V, tokens=True, rngs=nnx.Rngs(0), **options)


@pytest.fixture(scope="module")
def model():
    return make()


def plain_loop(model, tokens, starts):
    """-log2 p of each token but the first, one step after the other; the state is new at each of `starts`."""

    @jax.jit
    def step(carry, token):
        return model(token[None, None], initial_carry=carry, return_carry=True)

    bits = []
    for t, (read, due) in enumerate(itertools.pairwise(tokens)):
        if t in starts:
            carry = model.initial_carry((1,))
        carry, logits = step(carry, jnp.asarray(read))
        p = np.asarray(logits[0, 0], np.float64)
        bits.append(math.log2(np.exp(p).sum()) - p[due] / math.log(2))
    return bits


@pytest.mark.parametrize(
    "N, streams, piece, starts",
    [
        (300, 1, 128, {0}),
        (300, 4, 16, {0, 75, 150, 225}),  # 299 = 75 + 75 + 75 + 74
        (50, 4, 16, {0, 17, 34}),  # three streams of at least a piece
        (20, 16, 128, {0}),
        (2, 16, 128, {0}),
    ],
)
def test_every_character_but_the_first_is_scored_once(model, N, streams, piece, starts):
    found = jax.jit(lambda tokens: bits_per_character(model, tokens, streams, piece))(TOKENS[:N])
    assert found == pytest.approx(np.mean(plain_loop(model, TOKENS[:N], starts)), rel=1e-5)


def test_a_model_that_writes_its_likeliest_token_goes_on_from_the_prompt(model):
    prompt = jnp.array([3, 1, 4])
    written = np.asarray(generate(model, prompt, 4, jax.random.key(0), 0.0))
    expected = list(np.asarray(prompt))
    for _ in range(4):
        expected.append(int(jnp.argmax(model(jnp.array(expected)[:, None])[-1, 0])))
    assert written.tolist() == expected[3:]
    assert generate(model, prompt, 0, jax.random.key(0)).shape == (0,)


class Forgetful:
    """A model that expects the same whatever it reads."""

    steps_read, reads_ahead, output_size = "every", False, V
    logits = np.log([0.3, 0.05, 0.25, 0.3, 0.1]).astype(np.float32)

    def initial_carry(self, batch_shape=(), steps=None):
        return jnp.zeros(batch_shape)

    def __call__(self, inputs, *, initial_carry=None, return_carry=False):
        return initial_carry, jnp.tile(self.logits, (*inputs.shape, 1))


def nucleus(p, top_p):
    """{token: its probability}, found by taking the likeliest one after the other."""
    kept, left = {}, dict(enumerate(p))
    while left and sum(kept.values()) < top_p - 1e-9:
        most = max(left.values())
        kept |= {token: left.pop(token) for token in list(left) if left[token] == most}
    return {token: value / sum(kept.values()) for token, value in kept.items()}


SAMPLERS = {
    forbidden: functools.partial(generate, Forgetful(), TOKENS[:1], 4000, forbidden=forbidden)
    for forbidden in (None, 0)
}
WRITE = {forbidden: jax.jit(write) for forbidden, write in SAMPLERS.items()}


@pytest.mark.parametrize("forbidden", [None, 0])
@pytest.mark.parametrize(
    "temperature, top_p", [(1.0, 1.0), (1.0, 0.5), (1.0, 0.61), (1.0, 0.9), (2.0, 0.6), (1.0, 1e-6), (0.0, 1.0)]
)
def test_no_token_outside_the_nucleus_is_written_and_those_in_it_by_their_share(temperature, top_p, forbidden):
    p = np.exp(Forgetful.logits.astype(np.float64))
    if forbidden is not None:
        p[forbidden] = 0.0
    p = p ** (1 / temperature) if temperature else p * (p == p.max())
    p = nucleus(p / p.sum(), top_p)
    written = np.asarray(WRITE[forbidden](key=jax.random.key(1), temperature=temperature, top_p=top_p))
    found = np.bincount(written, minlength=V) / len(written)
    if temperature == 0:  # of several, the first
        assert set(written) == {min(p)}
        return
    assert set(written) == {token for token in p if p[token] > 0}
    np.testing.assert_allclose([found[token] for token in p], list(p.values()), atol=0.03)


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda m, key: generate(m, np.array([1]), 3, key, top_p=0.0),
            r"^top_p is 0.0; it must be a number above 0, up to 1$",
        ),
        (lambda m, key: generate(m, np.array([1]), 3, key, top_p=math.nan), r"^top_p is nan; it must"),
        (
            lambda m, key: generate(m, np.array([1]), 3, key, forbidden=5),
            r"^forbidden holds 5; the model knows 0 to 4$",
        ),
        (lambda m, key: generate(m, jnp.array([1, 5]), 3, key), r"^prompt holds 5; the model knows 0 to 4$"),
        (lambda m, key: generate(m, jnp.array([-1]), 3, key), r"^prompt holds -1; the model knows 0 to 4$"),
        (
            lambda m, key: generate(m, jnp.array([], int), 3, key),
            r"^prompt has the shape \(0,\); it must be \[N\]",
        ),
        (lambda m, key: generate(m, jnp.zeros((2, 2), int), 3, key), r"^prompt has the shape \(2, 2\)"),
        (lambda m, key: generate(m, jnp.array([1.0]), 3, key), r"^prompt is of float32; it must hold integers$"),
        (lambda m, key: generate(m, jnp.array([1]), -1, key), r"^length is -1; it must be an integer, 0 or more$"),
        (lambda m, key: generate(m, jnp.array([1]), 3, key, -0.5), r"^temperature is -0.5; it must be a number, 0"),
        (lambda m, key: generate(m, jnp.array([1]), 3, key, math.nan), r"^temperature is nan; it must be"),
        (lambda m, key: bits_per_character(m, np.array([0, 7])), r"^tokens holds 7; the model knows 0 to 4$"),
        (
            lambda m, key: bits_per_character(m, np.array([0])),
            r"^tokens has the shape \(1,\); it must be \[N\]",
        ),
        (lambda m, key: bits_per_character(make(lstm, bidirectional=True), TOKENS), r"^a bidirectional model reads ah"),
        (lambda m, key: generate(make(readout="mean"), jnp.array([1]), 3, key), r"^readout is 'mean'; a model that sc"),
    ],
)
def test_what_cannot_be_scored_or_written_is_refused(model, call, message):
    with pytest.raises(ValueError, match=message):
        call(model, jax.random.key(0))


SENTENCE = "The quick brown fox jumps over the lazy dog. The end of it."


@pytest.mark.parametrize(
    "content, starts",
    [
        pytest.param(SENTENCE.encode() + b"\n", "The ", marks=pytest.mark.slow),
        pytest.param(b"a" * 60, "aaaa", marks=pytest.mark.slow),
        (("\ufeff" + "\r\n你好，世界🎉" * 9).encode(), "\n你好，"),
    ],
    ids=["60-characters", "one-character", "chinese-dos"],
)
def test_the_smallest_texts_that_train_are_scored_and_written(content, starts, tmp_path):
    path = tmp_path / "own.txt"
    path.write_bytes(content)
    settings = {"cell": "rnn", "hidden_size": 3, "embedding_size": 2, "batch_size": 1, "eval_batch": 3}
    config = Config(
        task="text", task_options={"path": str(path)}, seq_len=2, **settings, steps=1, eval_every=1, optimizer="sgd"
    )
    config = dataclasses.replace(config, gradient_flow=False)
    check(config)
    train = make_train(config)
    state, records = jax.jit(train.run)(jax.random.key(0), hyperparameters(config))
    summary, score, files, *_ = train.task.report(train.model, state.params, jax.random.key(0))
    assert np.isfinite([records["eval_loss"][0], *(v for name, v in score.items() if name != "text_sha256")]).all()
    sample = files["sample.txt"]
    assert UNKNOWN not in sample
    assert sample.startswith(starts) and len(sample) == len(starts) + SAMPLE_LENGTH + 1
    assert summary.startswith(f"{score['test_bits_per_character']:.3f} bits per character")
    data = text_data(path)
    bits = plain_loop(train.model(state.params), data.test, {0})
    assert score["test_bits_per_character"] == pytest.approx(np.mean(bits), rel=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        {"cell": "lstm", "dtype": "bfloat16", "num_layers": 2, "residual": True, "dropout": 0.3},
        {"cell": "rnn", "gradient": "uoro", "hidden_size": 3, "gradient_flow": False},
        {"cell": "gru_cho", "cotangent_clip": 0.1, "segments": 2, "embedding_size": 7},
        {"cell": "mgu", "flossing": 0.1, "min_seq_len": 2, "method": "scan"},
    ],
    ids=lambda change: ",".join(change),
)
def test_whatever_a_text_can_be_trained_with_can_be_scored_and_written(change):
    """By shapes alone: what follows training must not be the first to fail."""
    config = Config(**({"task": "text", "seq_len": 5, "hidden_size": 4} | change))
    check(config)
    train = make_train(config)

    def after(key):
        model = train.model(train.init(key, hyperparameters(config)).params)
        return bits_per_character(model, TOKENS), generate(model, TOKENS[:3], 5, key)

    bits, written = jax.eval_shape(after, jax.random.key(0))
    assert (bits.shape, bits.dtype, written.shape) == ((), jnp.float32, (5,))


def test_a_vocabulary_that_memory_does_not_hold_is_said_before_it_is_allocated(tmp_path):
    (tmp_path / "own.txt").write_text(SENTENCE * 3)
    V, B, H = len(text_data(tmp_path / "own.txt").vocabulary), 2 * 10**9, 6
    config = Config(
        task="text", task_options={"path": str(tmp_path / "own.txt")}, seq_len=2, batch_size=B, hidden_size=H
    )
    GiB = 2 * 4 * (2 * V * H + 2 * B * V) / 2**30
    line = rf"^a vocabulary of {V}: its embedding and logits \[T=2, B={B}, V={V}\] need {GiB:.0f} GiB .* allowed: a "
    with pytest.raises(BadSetting, match=line):
        rnnjax.fit(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(BadSetting, match=line):
        rnnjax.sweep(config, {"lr": [0.1, 0.2]}, tmp_path / "sweep")
    check_vocabulary(dataclasses.replace(config, batch_size=32), text(2, path=tmp_path / "own.txt"))
