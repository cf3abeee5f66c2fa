"""Parity: say after each digit what all digits so far add up to, modulo K."""

import jax
import jax.numpy as jnp

from rnnjax.tasks.common import (
    check_integer,
    check_seq_len,
    cross_entropy,
    draw_seq_len,
    lengths_to_draw,
    mean_over,
)
from rnnjax.types import Array, Batch, Task

SHORTEST = 2  # of one step there is nothing to remember
SOLVED = 0.9  # right answers; from which Delétang et al. 2023 (arXiv:2207.02098) call a regular language learned


def parity(seq_len: int, *, modulus: int = 2, last: bool = False, min_seq_len: int | None = None) -> Task:
    """The running sum of random digits modulo K, which no network that forgets or only counts so far can carry on.

    A network that has found the rule keeps to it at any length, and one that has learned its training lengths by heart
    does not: the task asks which of the two it is (Grazzi et al. 2024, arXiv:2411.12537). With K = 2 and T = 8:

        inputs   1 0 1 1 0 0 1 0
        targets  1 1 0 1 1 1 0 0

    Args:
      seq_len: T, how many digits.
      modulus: K; digits are 0 to K - 1. 2 is parity.
      last: ask after the last digit alone: the sum of all.
      min_seq_len: draw each sequence's own length uniformly from min_seq_len to seq_len.

    Inputs one-hot `[T, B, K]`, zeros past a sequence's length; integer targets `[T, B]`; outputs `[T, B, K]`; with
    `last`, targets `[B]` and outputs `[B, K]`. The score is `accuracy`, the fraction of right answers;
    `scaled_accuracy` is (accuracy - 1/K) / (1 - 1/K), 0 for a guess and 1 for the rule. The best answer without memory
    is the digit itself: right at the first step, a guess at all others.

    Raises ValueError for a modulus or a length below 2.
    """
    check_seq_len("parity", seq_len, min_seq_len, SHORTEST)
    check_integer("parity", "modulus", modulus, 2)
    K, trained = modulus, (seq_len, min_seq_len)

    def sample(
        key: Array, batch_size: int, *, split: str = "train", seq_len: int | None = None, longest: Array | None = None
    ) -> Batch:
        allocated, least = lengths_to_draw("parity", trained, seq_len, SHORTEST)
        digit_key, length_key = jax.random.split(key)
        lengths = draw_seq_len(length_key, (batch_size,), allocated, least, longest)
        counts = jnp.arange(allocated)[:, None] < lengths
        digits = jnp.where(counts, jax.random.randint(digit_key, counts.shape, 0, K), 0)
        inputs = jax.nn.one_hot(jnp.where(counts, digits, -1), K)
        sums = jnp.cumsum(digits, axis=0) % K  # past a sequence's end the digits are 0
        lengths = None if least is None else lengths
        return Batch(inputs, sums[-1], lengths, jnp.ones(batch_size)) if last else Batch(inputs, sums, lengths, counts)

    def loss(outputs: Array, batch: Batch) -> Array:
        return mean_over(batch.weights, cross_entropy(outputs, batch.targets))

    def metrics(outputs: Array, batch: Batch) -> dict[str, Array]:
        accuracy = mean_over(batch.weights, (jnp.argmax(outputs, axis=-1) == batch.targets).astype(jnp.float32))
        scaled = (accuracy - 1 / K) / (1 - 1 / K)
        return {"cross_entropy": loss(outputs, batch), "accuracy": accuracy, "scaled_accuracy": scaled}

    lengths = range(seq_len if min_seq_len is None else min_seq_len, seq_len + 1)
    return Task(
        sample,
        loss,
        metrics,
        input_size=K,
        output_size=K,
        tokens=False,
        readout="last" if last else "every",
        score="accuracy",
        baseline=1 / K if last else sum(1 / K + (1 - 1 / K) / length for length in lengths) / len(lengths),
        solved=SOLVED,
        higher_is_better=True,
        causal=False,  # an answer is of the digits up to it
    )
