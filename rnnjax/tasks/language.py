"""A language model read and written: bits per character over a whole text, and text sampled from the model."""

import math
import operator

import jax
import jax.numpy as jnp
import numpy as np

from rnnjax.types import Array, Codec, Model


def bits_per_character(
    model: Model, tokens: Array, streams: int = 16, piece: int = 128, context: int | None = None
) -> Array:
    """-1/(N - 1) sum_{t=2}^N log2 p(x_t | the characters before it) over a whole text, the state carried along.

    Every character but the text's first is predicted exactly once. The text is read as `streams` runs side by side,
    `piece` characters at a time, fewer where a run would be shorter than a piece; a run knows nothing of what was
    before it, and its first character is predicted at the end of the run before.

    Args:
      model: reads `[T, B]` tokens forwards, returns logits `[T, B, V]`, takes and returns its carry.
      tokens: integers `[N]`, two or more.
      context: how many last characters a model that attends is to see, such as the window it was trained on; by
        default all of its run.

    Raises ValueError for fewer tokens, tokens outside the vocabulary, or a model that reads ahead or not every step.
    """
    _check_reads_every_step(model)
    _check_tokens(model, "tokens", tokens, shortest=2)
    predicted = len(tokens) - 1
    streams = max(1, min(streams, predicted // piece))
    length = math.ceil(predicted / streams)
    pieces = math.ceil(length / piece)
    piece = math.ceil(length / pieces)

    def cut(values):  # [N - 1] -> [pieces, piece, streams], zeros at the end of each stream
        values = jnp.pad(values, (0, streams * length - predicted)).reshape(streams, length)
        values = jnp.pad(values, ((0, 0), (0, pieces * piece - length)))
        return jnp.moveaxis(values.reshape(streams, pieces, piece), 0, -1)

    def read(carry, window):
        inputs, targets, counts = window
        carry, logits = model(inputs, initial_carry=carry, return_carry=True)
        log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)[..., 0]
        return carry, -jnp.sum(jnp.where(counts, log_p, 0))

    tokens = jnp.asarray(tokens)
    windows = cut(tokens[:-1]), cut(tokens[1:]), cut(jnp.ones(predicted, bool))
    _, nats = jax.lax.scan(read, model.initial_carry((streams,), steps=context or length), windows)
    return jnp.sum(nats) / (math.log(2) * predicted)


def generate(
    model: Model,
    prompt: Array,
    length: int,
    key: Array,
    temperature: float | Array = 1.0,
    context: int | None = None,
    top_p: float | Array = 1.0,
    forbidden: int | None = None,
) -> Array:
    """`length` tokens sampled one by one after `prompt` `[P]`, from softmax(logits / temperature); integers `[length]`.

    A temperature of 0 takes the most likely token each time.

    Args:
      context: how many last tokens a model that attends is to see; by default all.
      top_p: below 1, only the fewest tokens that are likeliest and have this probability together, with those as likely
        as the last of them (the nucleus, Holtzman et al. 2020).
      forbidden: a token that is never written, unless there is no other.

    Raises ValueError for an empty prompt, tokens outside the vocabulary, a negative length, a temperature that is not a
    number of 0 or more, a top_p outside (0, 1] (values that are traced are not looked at), or a model that reads ahead
    or not every step.
    """
    _check_reads_every_step(model)
    _check_tokens(model, "prompt", prompt, shortest=1)
    if operator.index(length) < 0:
        raise ValueError(f"length is {length}; it must be an integer, 0 or more")
    if not isinstance(temperature, jax.core.Tracer) and not temperature >= 0:
        raise ValueError(f"temperature is {temperature}; it must be a number, 0 or more")
    if not isinstance(top_p, jax.core.Tracer) and not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p}; it must be a number above 0, up to 1")
    if forbidden is not None:
        _check_tokens(model, "forbidden", np.array([forbidden]), shortest=1)
    carry = model.initial_carry((1,), steps=context or len(prompt) + length)
    carry, logits = model(jnp.asarray(prompt)[:, None], initial_carry=carry, return_carry=True)

    def write(state, key):
        carry, logits = state
        if forbidden is not None and model.output_size > 1:
            logits = logits.at[..., forbidden].set(-jnp.inf)
        tempered = logits / jnp.maximum(temperature, 1e-6)
        if isinstance(top_p, jax.core.Tracer) or top_p < 1:  # else nothing is to be sorted
            tempered = _nucleus(tempered, top_p)
        token = jnp.where(temperature > 0, jax.random.categorical(key, tempered), jnp.argmax(logits, axis=-1))
        carry, logits = model(token[None], initial_carry=carry, return_carry=True)
        return (carry, logits[-1]), token[0]

    _, tokens = jax.lax.scan(write, (carry, logits[-1]), jax.random.split(key, length))
    return tokens


def unknown_pieces(codec: Codec, text: str) -> list[str]:
    """What of a text has no token of its own, such as single characters; each once, in the text's order."""
    pieces = zip(codec.pieces(text), np.asarray(codec.encode(text)), strict=True)
    return list(dict.fromkeys(piece for piece, token in pieces if token == codec.unknown))


def _nucleus(logits, top_p):
    """The logits `[..., V]` with -inf for all that are not in the nucleus; all of them where top_p is 1."""
    likeliest_first = jnp.sort(logits, axis=-1, descending=True)
    p = jax.nn.softmax(likeliest_first, axis=-1)
    before = jnp.cumsum(p, axis=-1) - p
    least = jnp.min(jnp.where(before < top_p, likeliest_first, jnp.inf), axis=-1, keepdims=True)
    return jnp.where((logits >= least) | (top_p >= 1), logits, -jnp.inf)


def _check_reads_every_step(model):
    if model.reads_ahead:
        raise ValueError("a bidirectional model reads ahead, so that it can neither score nor write a text")
    if model.steps_read != "every":
        raise ValueError(f"readout is {model.steps_read!r}; a model that scores or writes a text reads 'every' step")


def _check_tokens(model, name, tokens, shortest):
    """Shapes always, values where they are known."""
    shape, size = jnp.shape(tokens), model.output_size
    if len(shape) != 1 or shape[0] < shortest:
        raise ValueError(f"{name} has the shape {shape}; it must be [N], N {shortest} or more")
    if not jnp.issubdtype(jnp.result_type(tokens), jnp.integer):
        raise ValueError(f"{name} is of {jnp.result_type(tokens)}; it must hold integers")
    if not isinstance(tokens, jax.core.Tracer):
        values = np.asarray(tokens)
        wrong = values[(values < 0) | (values >= size)]
        if wrong.size:
            raise ValueError(f"{name} holds {wrong[0]}; the model knows 0 to {size - 1}")
