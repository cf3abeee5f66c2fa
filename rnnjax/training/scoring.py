"""What a model scores on fresh sequences."""

from typing import Any

import jax
import jax.numpy as jnp

from rnnjax.keys import Purpose, purpose_key
from rnnjax.nn import SequenceModel
from rnnjax.tasks import draw
from rnnjax.types import Array, Task

EVALUATION_CHUNK = 256


def score_batch(
    task: Task, model: SequenceModel, key: Array, size: int, split: str, data: Any, seq_len: int | None = None
) -> dict[str, Array]:
    """The loss and the task's metrics on `size` sequences."""
    batch = draw(task, key, size, split, data, seq_len)
    outputs = model(batch.inputs, lengths=batch.lengths)
    return {"loss": task.loss(outputs, batch)} | task.metrics(outputs, batch)


def score_validation(task: Task, model: SequenceModel, total: int, data: Any) -> dict[str, Array]:
    """The loss and the task's metrics on `total` validation sequences, the same at every call, a chunk at a time."""
    whole, rest = divmod(total, EVALUATION_CHUNK)
    keys = jax.random.split(purpose_key(Purpose.EVALUATION), whole + 1)
    parts = []  # (how many sequences, their means)
    if whole:
        means = jax.lax.map(
            lambda key: score_batch(task, model, key, EVALUATION_CHUNK, "validation", data), keys[:whole]
        )
        parts.append((whole * EVALUATION_CHUNK, jax.tree.map(jnp.mean, means)))
    if rest:
        parts.append((rest, score_batch(task, model, keys[whole], rest, "validation", data)))
    return {name: sum(count * part[name] for count, part in parts) / total for name in parts[0][1]}
