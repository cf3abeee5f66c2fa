"""What a trained model scores on sequences of lengths that it was not trained on."""

import dataclasses
import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp

from rnnjax.keys import Purpose, purpose_key
from rnnjax.tasks import SPLITS, draw
from rnnjax.training.config import Config, factory_of, make_task
from rnnjax.training.train import Train

SEQUENCES = 1024  # that a score is the mean over
MAX_BATCH, MAX_STEPS = 256, 2**16  # sequences, and their steps, that are in memory at once


def scores_by_length(config: Config, train: Train, params: Any) -> dict[str, dict[str, float]]:
    """The scores of a trained model for each of `config.eval_lengths`, and `baseline`, that of no memory there.

    A length is a key such as "200", as in result.json. The scores are those of `TrainedRun.evaluate(seq_len=200)`.
    """
    found = {}
    for length in config.eval_lengths:
        baseline = _task_of_length(config, length).baseline
        found[str(length)] = evaluate(train, params, seq_len=length) | {"baseline": float(baseline)}
    return found


def evaluate(
    train: Train,
    params: Any,
    split: str = "test",
    seq_len: int | None = None,
    batch_size: int | None = None,
    batches: int | None = None,
) -> dict[str, float]:
    """The loss and the task's metrics on fresh sequences, as `TrainedRun.evaluate` describes them."""
    size = batch_size or batch_that_fits(seq_len)
    count = batches or (4 if batch_size else SEQUENCES // size)
    keys = jax.random.split(purpose_key(Purpose.TESTING, SPLITS.index(split)), count)
    means = train.score(params, keys, train.task.data, split=split, size=size, seq_len=seq_len)
    return {name: float(jnp.mean(values)) for name, values in means.items()}


def batch_that_fits(seq_len: int | None) -> int:
    """How many sequences of a length are scored at a time: a power of two.

    It depends on nothing else, so that all models are scored on the same sequences, and everywhere alike.
    """
    size = MAX_BATCH
    while seq_len is not None and size > 1 and size * seq_len > MAX_STEPS:
        size //= 2
    return size


def check_lengths(config: Config) -> None:
    """Raises ValueError, in one line, where the config's task has no sequences of one of its `eval_lengths`."""
    lengths = config.eval_lengths
    if not all(type(length) is int and 1 <= length < 2**31 for length in lengths) or len({*lengths}) < len(lengths):
        raise ValueError(f"eval_lengths={lengths!r}; allowed: integers between commas, 1 or more, each once; or none")
    if lengths:
        _draw_each(factory_of(config, "task"), _task_alone(config))


@functools.lru_cache(maxsize=1024)
def _draw_each(factory, config):
    """Draws a batch of each length by its shapes alone, and asks for its baseline: once for the trials of a sweep."""
    task, key = make_task(config), jax.random.key(0)
    known = inspect.signature(task.sample).parameters.values()
    if not any(p.name == "seq_len" or p.kind is p.VAR_KEYWORD for p in known):
        raise ValueError(
            f"eval_lengths={config.eval_lengths!r}: the sample of task {config.task!r} takes no seq_len; "
            "allowed: none, or sample(key, batch_size, *, split, seq_len=None)"
        )
    for length in config.eval_lengths:
        try:
            jax.eval_shape(lambda key, n=length: draw(task, key, 2, "test", task.data, n), key)
            _task_of_length(config, length)
        except Exception as error:  # whatever a user's own may raise
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ValueError(f"eval_lengths={config.eval_lengths!r}: {first}") from error


def _task_alone(config):
    """The config with what makes its task, and all else at its defaults."""
    names = ("task", "task_options", "seq_len", "min_seq_len", "eval_lengths")
    return Config(**{name: getattr(config, name) for name in names})


def _task_of_length(config, length):
    return make_task(dataclasses.replace(config, seq_len=length, min_seq_len=None))
