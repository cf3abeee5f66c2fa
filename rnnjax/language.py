"""A character model read and written: bits per character over a whole text, and text sampled from the model."""

import math

import jax
import jax.numpy as jnp

from rnnjax.modules import SequenceModel
from rnnjax.types import Array


def bits_per_character(model: SequenceModel, tokens: Array, streams: int = 16, piece: int = 128) -> Array:
    """-1/N sum_t log2 p(x_{t+1} | x_1 ... x_t) over a whole text, the state carried along.

    The text is cut into `streams` runs read side by side, `piece` characters at a time; only the first character of
    each stream goes unpredicted, and up to `streams * piece` at the very end are left out.

    Args:
      model: reads `[T, B]` tokens, returns logits `[T, B, V]`, takes and returns its carry.
      tokens: integers `[N]`.
    """
    pieces = (len(tokens) // streams - 1) // piece
    if pieces < 1:
        raise ValueError(f"{len(tokens)} characters are too few for {streams} streams of {piece} and one more")
    span = pieces * piece + 1
    text = tokens[: streams * (len(tokens) // streams)].reshape(streams, -1)[:, :span].T  # [span, streams]
    inputs = text[:-1].reshape(pieces, piece, streams)
    targets = text[1:].reshape(pieces, piece, streams)

    def read(carry, window):
        inputs, targets = window
        carry, logits = model(inputs, initial_carry=carry, return_carry=True)
        log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)
        return carry, -jnp.sum(log_p)

    carry = model.initial_carry((streams,))
    _, nats = jax.lax.scan(read, carry, (inputs, targets))
    return jnp.sum(nats) / (math.log(2) * targets.size)


def generate(model: SequenceModel, prompt: Array, length: int, key: Array, temperature: float | Array = 1.0) -> Array:
    """`length` tokens sampled one by one after `prompt` `[P]`, from softmax(logits / temperature); integers `[length]`.

    A temperature of 0 takes the most likely token each time.
    """
    carry, logits = model(prompt[:, None], initial_carry=model.initial_carry((1,)), return_carry=True)

    def write(state, key):
        carry, logits = state
        token = jnp.where(
            temperature > 0,
            jax.random.categorical(key, logits / jnp.maximum(temperature, 1e-6)),
            jnp.argmax(logits, axis=-1),
        )
        carry, logits = model(token[None], initial_carry=carry, return_carry=True)
        return (carry, logits[-1]), token[0]

    _, tokens = jax.lax.scan(write, (carry, logits[-1]), jax.random.split(key, length))
    return tokens
