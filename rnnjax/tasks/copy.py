"""Copy: remember a word of random symbols through a long blank delay, then spell it."""

import math
from typing import Literal

import jax
import jax.numpy as jnp

from rnnjax.tasks.common import (
    check_integer,
    check_seq_len,
    cross_entropy,
    draw_seq_len,
    lengths_to_draw,
    mean_over,
    unknown,
)
from rnnjax.types import Array, Batch, Task

VARIANTS = ("arjovsky", "recall")

SOLVED = 0.1  # of the baseline: nine tenths of the word, in nats, is remembered. Papers name no threshold.


def copy(
    seq_len: int,
    *,
    variant: Literal["arjovsky", "recall"] = "arjovsky",
    min_seq_len: int | None = None,
    symbols: int = 8,
    copy_length: int = 10,
) -> Task:
    """The copying memory problem (Hochreiter & Schmidhuber 1997; as in Arjovsky et al. 2016, arXiv:1511.06464).

    M = copy_length symbols out of K, T - 1 blanks, a go marker, M blanks; the word is due at the last M steps. With
    K = 8, M = 3, T = 4 (blank 8, go 9):

        inputs   5 0 7 8 8 8 9 8 8 8
        targets  8 8 8 8 8 8 8 5 0 7

    Args:
      seq_len: the paper's T, the delay; there are T + 2 M steps.
      variant: "arjovsky" averages the cross-entropy over all T + 2 M steps, so that its baseline, that of blanks and
        then a uniform guess, is M ln K / (T + 2 M); "recall" averages over the last M steps alone, baseline ln K.
      min_seq_len: draw each sequence's own delay uniformly from min_seq_len to seq_len.
      symbols: K, how many different ones a word is made of.
      copy_length: M, the length of the word.

    Inputs one-hot `[T + 2 M, B, K + 2]`, zeros past a sequence's length; integer targets `[T + 2 M, B]`; outputs
    `[T + 2 M, B, K + 1]`. The metric `accuracy` is that of the last M steps, for both variants.

    Raises ValueError for an unknown variant, a delay below 1, fewer than 2 symbols, or a copy_length below 1.
    """
    if variant not in VARIANTS:
        raise unknown("copy variant", variant, VARIANTS)
    check_seq_len("copy", seq_len, min_seq_len, shortest=1)
    check_integer("copy", "symbols", symbols, 2)
    check_integer("copy", "copy_length", copy_length, 1)
    K, M, trained = symbols, copy_length, (seq_len, min_seq_len)
    blank, go = K, K + 1

    def sample(
        key: Array, batch_size: int, *, split: str = "train", seq_len: int | None = None, longest: Array | None = None
    ) -> Batch:
        most, least = lengths_to_draw("copy", trained, seq_len, shortest=1)
        word_key, delay_key = jax.random.split(key)
        word = jax.random.randint(word_key, (M, batch_size), 0, K)
        delay = draw_seq_len(delay_key, (batch_size,), most, least, longest)
        lengths = delay + 2 * M
        t = jnp.arange(most + 2 * M)[:, None]

        def symbol(position):
            return jnp.take_along_axis(word, jnp.clip(position, 0, M - 1), axis=0)

        tokens = jnp.where(t == M + delay - 1, go, blank)
        tokens = jnp.where(t < M, symbol(jnp.broadcast_to(t, tokens.shape)), tokens)
        due = (lengths - M <= t) & (t < lengths)
        targets = jnp.where(due, symbol(t - (lengths - M)), blank)
        inputs = jax.nn.one_hot(jnp.where(t < lengths, tokens, -1), K + 2)  # zeros past the end
        return Batch(inputs, targets, None if least is None else lengths, due if variant == "recall" else t < lengths)

    def loss(outputs: Array, batch: Batch) -> Array:
        return mean_over(batch.weights, cross_entropy(outputs, batch.targets))

    def metrics(outputs: Array, batch: Batch) -> dict[str, Array]:
        right = (jnp.argmax(outputs, axis=-1) == batch.targets).astype(jnp.float32)
        recalled = batch.weights * (batch.targets != blank)
        return {"cross_entropy": loss(outputs, batch), "accuracy": mean_over(recalled, right)}

    delays = range(seq_len if min_seq_len is None else min_seq_len, seq_len + 1)
    share = 1.0 if variant == "recall" else sum(M / (delay + 2 * M) for delay in delays) / len(delays)
    baseline = share * math.log(K)
    return Task(
        sample,
        loss,
        metrics,
        input_size=K + 2,
        output_size=K + 1,
        tokens=False,
        readout="every",
        score="cross_entropy",
        baseline=baseline,
        solved=SOLVED * baseline,
        causal=False,  # the word is due long after it was read
    )
