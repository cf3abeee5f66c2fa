"""Sequences that get longer while a network trains, so that it learns the rule on short ones first.

With R = max(1, round(curriculum * steps)), step t of training draws lengths from min_seq_len to

    longest(t) = min_seq_len + floor((seq_len - min_seq_len) min(t, R) / R)

(Bengio et al. 2009, Curriculum learning; growing lengths as in Zaremba & Sutskever 2014, arXiv:1410.4615).
"""

import inspect

import jax.numpy as jnp
import numpy as np

from rnnjax.training.config import Config
from rnnjax.types import Array, Task


def longest_drawn(config: Config, step: Array) -> Array | None:
    """The longest length `[]` that training draws at a step; None without a curriculum."""
    if not config.curriculum:
        return None
    assert config.min_seq_len is not None, "see check_curriculum"
    growth, ramp = config.seq_len - config.min_seq_len, max(1, round(config.curriculum * config.steps))
    # The steps at which it grows by one, ceil(k R / growth): their product would not fit int32 on the device.
    grows_at = [-(-k * ramp // growth) for k in range(1, growth + 1)]
    return config.min_seq_len + jnp.sum(np.array(grows_at, np.int32) <= step, dtype=jnp.int32)


def check_curriculum(task: Task, config: Config) -> None:
    """Raises ValueError, in one line, where the config's curriculum has no lengths to grow over."""
    value, lowest, highest = config.curriculum, config.min_seq_len, config.seq_len
    if not 0 <= value <= 1:
        raise ValueError(f"curriculum={value!r}; allowed: a fraction of the steps, from 0 (none) to 1")
    if not value:
        return
    if config.stateful:
        raise ValueError(f"curriculum={value!r} draws lengths, and stateful=True reads on; allowed: one of the two")
    if lowest is None or lowest == highest:
        raise ValueError(
            f"curriculum={value!r} changes nothing with min_seq_len={lowest!r} and seq_len={highest!r}; "
            "allowed: a min_seq_len below seq_len, or no curriculum"
        )
    known = inspect.signature(task.sample).parameters.values()
    if not any(p.name == "longest" or p.kind is p.VAR_KEYWORD for p in known):
        raise ValueError(
            f"curriculum={value!r}: the sample of task {config.task!r} takes no longest; allowed: 0, or "
            "sample(key, batch_size, *, split, seq_len=None, longest=None)"
        )
