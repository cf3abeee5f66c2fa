"""What several tasks share: one-line refusals of bad values, lengths, and means that leave padding out."""

import difflib
import numbers
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from rnnjax.types import Array, Batch, Task

SPLITS = ("train", "validation", "test")


def unknown(kind: str, name: object, allowed: Iterable[str]) -> ValueError:
    """The error for a name that is not in a table, with the nearest one that is."""
    allowed = tuple(allowed)
    near = difflib.get_close_matches(str(name), allowed, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return ValueError(f"unknown {kind} {name!r}; {hint}allowed: {', '.join(allowed)}")


def check_causal(task: Task, name: str, *, bidirectional: bool) -> None:
    """Raises ValueError where a model that reads ahead would be shown the task's answers, see `Task.causal`."""
    causal = task.readout == "every" if task.causal is None else task.causal
    if causal and task.readout != "every":
        raise ValueError(
            f"task {name!r}: its targets lie in its own later inputs, and readout {task.readout!r} sees them all; "
            f"allowed: 'every'"
        )
    if causal and bidirectional:
        said = "its targets lie" if task.causal else "it does not say causal=False, so its targets may lie"
        raise ValueError(f"bidirectional=True reads ahead, and of task {name!r} {said} in later inputs; allowed: False")


def check_integer(task: str, name: str, value: object, lowest: int, highest: int | None = None) -> None:
    """Raises ValueError unless `value` is an integer from `lowest` to `highest`."""
    allowed = f"an integer from {lowest} to {highest}" if highest is not None else f"an integer, {lowest} or more"
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or int(value) < lowest:
        raise ValueError(f"task {task!r}: {name} is {value!r}; it must be {allowed}")
    if highest is not None and int(value) > highest:
        raise ValueError(f"task {task!r}: {name} is {value!r}; it must be {allowed}")


def check_seq_len(task: str, seq_len: int, min_seq_len: int | None, shortest: int) -> None:
    """Raises ValueError unless shortest <= min_seq_len <= seq_len, all integers; `min_seq_len` may be None."""
    check_integer(task, "seq_len", seq_len, shortest)
    if min_seq_len is not None:
        check_integer(task, "min_seq_len", min_seq_len, shortest, seq_len)


def lengths_to_draw(
    task: str, trained: tuple[int, int | None], seq_len: int | None, shortest: int
) -> tuple[int, int | None]:
    """(seq_len, min_seq_len) of a sample: `trained`, or one `seq_len` that was asked for, of at least `shortest`."""
    if seq_len is None:
        return trained
    check_integer(task, "seq_len", seq_len, shortest)
    return seq_len, None


def check_batch(task: Task, name: str, batch: Batch) -> None:
    """Raises ValueError unless the weights of the task's batch are those of the outputs that it reads."""
    T, B = batch.inputs.shape[:2]
    every = task.readout == "every"
    wanted = (T, B) if every else (B,)
    if batch.weights is None or batch.weights.shape != wanted:
        found = "missing" if batch.weights is None else f"of the shape {batch.weights.shape}"
        allowed = f"{'[T, B]' if every else '[B]'} = {wanted}"
        raise ValueError(f"task {name!r}: Batch.weights is {found}; with readout {task.readout!r} it must be {allowed}")
    if batch.targets.shape[: len(wanted)] != wanted:
        raise ValueError(
            f"task {name!r}: Batch.targets is of the shape {batch.targets.shape}; with weights {wanted} it must "
            f"begin with {wanted}"
        )


def draw(
    task: Task,
    key: Array,
    batch_size: int,
    split: str,
    data: Any = None,
    seq_len: int | None = None,
    longest: Array | None = None,
) -> Batch:
    """A batch of the task, from `data`, at the length `seq_len` and of lengths up to `longest` where they are given.

    All three are optional in a user's own task, which is given none unless it is asked for.
    """
    given = {"data": data, "seq_len": seq_len, "longest": longest}
    return task.sample(key, batch_size, split=split, **{n: value for n, value in given.items() if value is not None})


def draw_seq_len(
    key: Array, shape: tuple[int, ...], seq_len: int, min_seq_len: int | None, longest: Array | None = None
) -> Array:
    """Integers `shape`, uniform from min_seq_len to seq_len, or to `longest` `[]` where that is given; where
    `min_seq_len` is None, all are seq_len."""
    if min_seq_len is None:
        return jax.random.randint(key, shape, seq_len, seq_len + 1)
    return jax.random.randint(key, shape, min_seq_len, (seq_len if longest is None else longest) + 1)


def mean_over(weights: Array, values: Array) -> Array:
    """The mean of `values` over what counts by `weights`, both `[T, B]` or `[B]`; what weighs 0 may be anything.

    Of `[T, B]`, each sequence has its own mean first: sequences weigh the same whatever their length, so that a batch's
    mean is the mean of its parts' means.
    """
    total = jnp.sum(jnp.where(weights > 0, weights * values, 0), axis=0)
    count = jnp.sum(weights, axis=0)
    return jnp.mean(total / jnp.where(count > 0, count, 1))


def cross_entropy(outputs: Array, targets: Array) -> Array:
    """-log softmax(outputs)[target], in nats: `[T, B, O]`, integers `[T, B]` -> `[T, B]`, in float32 or better."""
    outputs = at_least_float32(outputs)
    return optax.softmax_cross_entropy_with_integer_labels(outputs, targets)


def at_least_float32(outputs: Array) -> Array:
    """A mean of bfloat16 numbers would lose what it measures."""
    return outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
