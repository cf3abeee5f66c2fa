"""What several tasks share: one-line refusals of bad values, lengths, and means that leave padding out."""

import difflib
import numbers
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import optax

from rnnjax.types import Array, Task

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
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < lowest:
        raise ValueError(f"task {task!r}: {name} is {value!r}; it must be {allowed}")
    if highest is not None and value > highest:
        raise ValueError(f"task {task!r}: {name} is {value!r}; it must be {allowed}")


def check_seq_len(task: str, seq_len: object, min_seq_len: object, shortest: int) -> None:
    """Raises ValueError unless shortest <= min_seq_len <= seq_len, all integers; `min_seq_len` may be None."""
    check_integer(task, "seq_len", seq_len, shortest)
    if min_seq_len is not None:
        check_integer(task, "min_seq_len", min_seq_len, shortest, seq_len)


def draw_seq_len(key: Array, shape: tuple[int, ...], seq_len: int, min_seq_len: int | None) -> Array:
    """Integers `shape`, uniform from min_seq_len to seq_len; all seq_len where `min_seq_len` is None."""
    lowest = seq_len if min_seq_len is None else min_seq_len
    return jax.random.randint(key, shape, lowest, seq_len + 1)


def steps(targets: Array, lengths: Array | None) -> tuple[Array, Array]:
    """The step numbers `[T, 1]`, and the length `[B]` of each sequence of `targets` `[T, B]`."""
    T, B = targets.shape
    return jnp.arange(T)[:, None], jnp.full(B, T) if lengths is None else lengths


def mean_over(mask: Array, values: Array) -> Array:
    """Means `values` `[T, B]` over each sequence's steps in `mask` `[T, B]`, then over the batch.

    Sequences weigh the same whatever their length, so a batch's mean is the mean of its parts' means.
    """
    total = jnp.sum(jnp.where(mask, values, 0), axis=0)
    return jnp.mean(total / jnp.maximum(jnp.sum(mask, axis=0), 1))


def cross_entropy(outputs: Array, targets: Array) -> Array:
    """-log softmax(outputs)[target], in nats: `[T, B, O]`, integers `[T, B]` -> `[T, B]`, in float32 or better."""
    outputs = at_least_float32(outputs)
    return optax.softmax_cross_entropy_with_integer_labels(outputs, targets)


def at_least_float32(outputs: Array) -> Array:
    """A mean of bfloat16 numbers would lose what it measures."""
    return outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
