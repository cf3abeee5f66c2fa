"""Sequences read on from batch to batch, their state kept: truncated backpropagation through time.

    h_0 of a window = stop_gradient(h_T of the window before), or the initial state where a document begins

So a state knows all of its document, while gradients stay within windows (Williams & Peng 1990). Of a model that
attends the carry holds the last `steps`, as many as a window has (Transformer-XL, Dai et al. 2019, arXiv:1901.02860).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rnnjax.nn import SequenceModel
from rnnjax.types import Array, Batch, Task

EVALUATION_STREAMS = 32


class Reading(NamedTuple):
    """Where the sequences of a run are."""

    place: Any  # what each reads next, see `types.Stream`
    carry: Any  # the model's state after what it has read


def begin_reading(
    task: Task, model: SequenceModel, key: Array, batch_size: int, split: str, data: Any, steps: int
) -> Reading:
    """Sequences that have read nothing."""
    place = task.stream.begin(key, batch_size, split=split, data=task.data if data is None else data)
    return Reading(place, model.initial_carry((batch_size,), steps=steps))


def read_on(
    task: Task, reading: Reading, split: str, data: Any, seq_len: int | None = None
) -> tuple[Batch, Array, Any]:
    """(batch, which of its sequences begin a document `[B]`, the place after it)"""
    return task.stream.read(reading.place, split=split, seq_len=seq_len, data=task.data if data is None else data)


def carry_over(model: SequenceModel, fresh: Array, carry: Any, steps: int) -> Any:
    """The state that a window begins with: that of the window before, anew where `fresh`."""

    def choose(new, old):
        return jnp.where(fresh.reshape(-1, *[1] * (old.ndim - 1)), new, jax.lax.stop_gradient(old))

    return jax.tree.map(choose, model.initial_carry(fresh.shape, steps=steps), carry)


def as_one_sequence(outputs: Array, batch: Batch) -> tuple[Array, Batch]:
    """All steps as those of one sequence, so that a task's mean over sequences is one over steps.

    Windows that a document's end cuts short would else weigh as much as whole ones.
    """

    def join(array):
        return array.reshape(-1, 1, *array.shape[2:])

    return join(outputs), Batch(join(batch.inputs), join(batch.targets), None, join(batch.weights))


def score_streams(
    task: Task, model: SequenceModel, key: Array, windows: int, split: str, data: Any, steps: int
) -> dict[str, Array]:
    """The loss and the task's metrics over some `windows`, read side by side with the state carried over."""
    streams = min(EVALUATION_STREAMS, windows)

    def read(reading, _):
        batch, fresh, place = read_on(task, reading, split, data)
        start = carry_over(model, fresh, reading.carry, steps)
        carry, outputs = model(batch.inputs, lengths=batch.lengths, initial_carry=start, return_carry=True)
        outputs, joined = as_one_sequence(outputs, batch)
        scores = {"loss": task.loss(outputs, joined)} | task.metrics(outputs, joined)
        return Reading(place, carry), (jnp.sum(batch.weights, dtype=jnp.float32), scores)

    start = begin_reading(task, model, key, streams, split, data, steps)
    _, (counts, scores) = jax.lax.scan(read, start, length=-(-windows // streams))
    return jax.tree.map(lambda values: jnp.sum(counts * values) / jnp.sum(counts), scores)


def check_stateful(task: Task, name: str, *, bidirectional: bool, min_seq_len: int | None) -> None:
    """Raises ValueError where a task cannot be read on from batch to batch, or with what is not of it."""
    if task.stream is None:
        raise ValueError(
            f"stateful=True reads on from batch to batch, and the batches of task {name!r} stand alone; "
            f"allowed: stateful=False"
        )
    if task.readout != "every":
        raise ValueError(f"stateful=True: task {name!r} has the readout {task.readout!r}; allowed: 'every'")
    if bidirectional:
        raise ValueError(
            "bidirectional=True reads each window from its end, too, and stateful=True reads on; "
            "allowed: bidirectional=False"
        )
    if min_seq_len is not None:
        raise ValueError(
            f"min_seq_len={min_seq_len!r} draws windows, and stateful=True reads on; allowed: no min_seq_len"
        )
