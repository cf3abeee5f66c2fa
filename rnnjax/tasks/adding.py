"""Adding: remember two marked numbers of a long sequence, and give their sum at its end."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from rnnjax.tasks.common import at_least_float32, check_seq_len, draw_seq_len, lengths_to_draw, mean_over, unknown
from rnnjax.types import Array, Batch, Task


def adding(
    seq_len: int,
    *,
    variant: Literal["arjovsky", "pascanu", "hochreiter"] = "arjovsky",
    min_seq_len: int | None = None,
) -> Task:
    """The adding problem, in the three published forms, which give different numbers.

    At seq_len = 6, `arjovsky`: values .3 .9 .1 .5 .2 .7, markers 0 1 0 0 1 0, target .9 + .2 = 1.1.

    Args:
      seq_len: the paper's T. Sequences of `pascanu` and `hochreiter` are T to 1.1 T steps long, each at random.
      variant: which definition, see `arjovsky`, `pascanu` and `hochreiter` below.
      min_seq_len: draw each sequence's own T uniformly from min_seq_len to seq_len.

    Inputs `[T, B, 2]`, zeros past a sequence's length; targets `[B, 1]`; outputs `[B, 1]`, read at the last step; the
    loss is the mean squared error. `lengths` is None where all sequences have seq_len steps. The score is `mse` for
    `arjovsky`, and `wrong`, the fraction of wrong answers by the paper's own rule, for the others.

    Raises ValueError for an unknown variant, and for lengths too short for the variant.
    """
    if variant not in VARIANTS:
        raise unknown("adding variant", variant, VARIANTS)
    form = VARIANTS[variant]
    name, trained = f"adding ({variant})", (seq_len, min_seq_len)
    check_seq_len(name, seq_len, min_seq_len, form.shortest)

    def sample(
        key: Array, batch_size: int, *, split: str = "train", seq_len: int | None = None, longest: Array | None = None
    ) -> Batch:
        most, least = lengths_to_draw(name, trained, seq_len, form.shortest)
        allocated = form.longest(most)

        def one(key):
            length_key, key = jax.random.split(key)
            return form.draw(key, draw_seq_len(length_key, (), most, least, longest), allocated)

        inputs, targets, lengths = jax.vmap(one, out_axes=(1, 0, 0))(jax.random.split(key, batch_size))
        padded = least is not None or allocated > most
        return Batch(inputs, targets[:, None], lengths if padded else None, jnp.ones(batch_size, bool))

    def error(outputs: Array, batch: Batch) -> Array:  # [B]
        return (at_least_float32(outputs) - batch.targets)[:, 0]

    def loss(outputs: Array, batch: Batch) -> Array:
        return mean_over(batch.weights, jnp.square(error(outputs, batch)))

    def metrics(outputs: Array, batch: Batch) -> dict[str, Array]:
        scores = {"mse": loss(outputs, batch)}
        if form.is_right is not None:
            right = form.is_right(jnp.abs(error(outputs, batch))).astype(jnp.float32)
            scores["wrong"] = 1 - mean_over(batch.weights, right)  # so that NaN is wrong
        return scores

    return Task(
        sample,
        loss,
        metrics,
        input_size=2,
        output_size=1,
        tokens=False,
        readout="last",
        score="mse" if form.is_right is None else "wrong",
        baseline=form.baseline,
        solved=form.solved,
    )


# One sequence: (key, its T, steps to allocate) -> inputs [allocated, 2], target, length.


def arjovsky(key: Array, T: Array, allocated: int) -> tuple[Array, Array, Array]:
    """[value U(0,1), marker]; one marker in each half; the target is the sum (Arjovsky et al. 2016,
    arXiv:1511.06464)."""
    value_key, first, second = jax.random.split(key, 3)
    t = jnp.arange(allocated)
    value = jnp.where(t < T, jax.random.uniform(value_key, (allocated,)), 0)
    i = jax.random.randint(first, (), 0, T // 2)
    j = jax.random.randint(second, (), T // 2, T)
    marker = (t == i) | (t == j)
    return jnp.stack([value, marker], axis=-1), value[i] + value[j], T


def pascanu(key: Array, T: Array, allocated: int) -> tuple[Array, Array, Array]:
    """[marker, value U(0,1)]; the length L is drawn from [T, 1.1 T), the first marker from [0, .1 L), the second from
    [.1 L, .5 L); the target is the mean of the two (Pascanu et al. 2013, arXiv:1211.5063)."""
    length_key, value_key, first, second = jax.random.split(key, 4)
    L = T + jax.random.randint(length_key, (), 0, (T + 9) // 10)
    t = jnp.arange(allocated)
    value = jnp.where(t < L, jax.random.uniform(value_key, (allocated,)), 0)
    tenth, half = (L + 9) // 10, (L + 1) // 2  # rounded up: the integers below .1 L and .5 L
    i = jax.random.randint(first, (), 0, tenth)
    j = jax.random.randint(second, (), tenth, half)
    marker = (t == i) | (t == j)
    return jnp.stack([marker.astype(value.dtype), value], axis=-1), (value[i] + value[j]) / 2, L


def hochreiter(key: Array, T: Array, allocated: int) -> tuple[Array, Array, Array]:
    """[value U(-1,1), marker]; T .. 1.1 T steps; markers at one of the first 10 steps and at another of the first
    T/2 - 1; the first and last markers are -1; target 0.5 + (X1 + X2) / 4 (Hochreiter & Schmidhuber 1997, section 5.4).

    Where the draw marks the first step, the paper sets that value to zero; the flag -1 hides the mark there.
    """
    length_key, value_key, first, second = jax.random.split(key, 4)
    L = T + jax.random.randint(length_key, (), 0, T // 10 + 1)
    t = jnp.arange(allocated)
    i = jax.random.randint(first, (), 0, 10)
    unmarked = T // 2 - 1 - (i < T // 2 - 1)
    j = jax.random.randint(second, (), 0, unmarked)
    j = j + (j >= i)
    marked = (t == i) | (t == j)
    ends = (t == 0) | (t == L - 1)
    value = jax.random.uniform(value_key, (allocated,), minval=-1.0, maxval=1.0)
    value = jnp.where((t >= L) | (marked & (t == 0)), 0, value)
    marker = jnp.where(ends, -1, marked.astype(value.dtype))
    return jnp.stack([value, marker], axis=-1), 0.5 + (value[i] + value[j]) / 4, L


class Variant(NamedTuple):
    """A form of the task: how it draws one sequence, how long that gets, and when an answer is right."""

    draw: Callable[..., tuple[Array, Array, Array]]
    shortest: int  # the least T
    longest: Callable[[int], int]  # T -> steps to allocate
    is_right: Callable[[Array], Array] | None  # |error| -> whether the paper calls it right; None: no such rule
    baseline: float  # the score of the best constant answer
    solved: float


VARIANTS: dict[str, Variant] = {
    # Var(U1 + U2) = 1/6, and the threshold of the wRNN paper (Keller et al. 2024).
    "arjovsky": Variant(arjovsky, 2, lambda T: T, None, 1 / 6, 0.05),
    # The target is triangular on [0, 1], its variance (the baseline of `mse`) 1/24. The constant 0.5 errs by more than
    # .2 with probability (1 - .4)^2.
    "pascanu": Variant(pascanu, 3, lambda T: T + (T + 9) // 10 - 1, lambda e: jnp.square(e) <= 0.04, 0.36, 0.01),
    # The same target (but for the rare zeroed value, which costs less than .001): (1 - .08)^2. The paper stops when the
    # last 2000 are right.
    "hochreiter": Variant(hochreiter, 11, lambda T: T + T // 10, lambda e: e < 0.04, 0.8464, 1 / 2000),
}
