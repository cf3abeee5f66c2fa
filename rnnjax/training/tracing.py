"""A run traced from shapes alone before anything is written: what cannot run is one line that says where."""

import contextlib
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rnnjax.engine.memory import device_bytes
from rnnjax.training.config import Config, Hyperparameters, hyperparameters
from rnnjax.training.settings import BadSetting
from rnnjax.training.train import Train, make_train
from rnnjax.types import Array, Task


class Traced(NamedTuple):
    """A run whose `init` and `chunk` are compiled at their first call, from the traces that they have.

    `chunk` takes the state and the hyperparameters alone: it has the task's data.
    """

    train: Train
    init: Callable[..., Any]
    chunk: Callable[..., Any]


def traced_run(config: Config, shards: int = 1, start: int = 0) -> Traced:
    """The run that `config` describes; the arguments are those of `make_train`.

    Raises BadSetting, in one line, where it cannot be traced.
    """
    with errors_in_one_line(config):
        train = make_train(config, shards, start)
        check_vocabulary(config, train.task, 1 if jax.default_backend() == "cpu" else shards)
        init, chunk = jax.jit(train.init), jax.jit(train.chunk)
        data = jax.tree.map(jnp.asarray, train.task.data)
        trace(init, chunk, run_inputs(config), data)
    return Traced(train, init, lambda state, values: chunk(state, values, data))


def check_vocabulary(config: Config, task: Task, shards: int = 1) -> None:
    """Raises BadSetting where what a vocabulary takes is plainly larger than the device's memory.

    That is, with their gradients, the embedding, the readout's weights and the logits `[T, B, V]`, of which each of the
    `shards`, if they have memories of their own, holds its share.
    """
    if not task.tokens:
        return
    V, T = task.output_size, config.seq_len if task.readout == "every" else 1
    embedding = task.input_size * (config.embedding_size or config.hidden_size)
    logits = T * (config.batch_size // shards) * V
    needed = 2 * (embedding + config.hidden_size * V + logits) * (8 if config.dtype == "float64" else 4)
    if needed > (there := device_bytes()):
        raise BadSetting(
            f"a vocabulary of {V}: its embedding and logits [T={T}, B={config.batch_size}, V={V}] need "
            f"{needed / 2**30:.0f} GiB of memory with their gradients, and this device has {there / 2**30:.0f}; "
            "allowed: a smaller batch_size, seq_len or embedding_size, or a task with a smaller vocabulary"
        )


def run_inputs(config: Config) -> tuple[Array, Hyperparameters]:
    """What a run is a function of: its key, and its hyperparameters."""
    values = {name: jnp.float32(value) for name, value in hyperparameters(config).items()}
    return jax.random.key(config.seed), values


@contextlib.contextmanager
def errors_in_one_line(config: Config) -> Iterator[None]:
    """Whatever is raised inside is the fault of the settings or of a user's own cell or task: a BadSetting."""
    try:
        yield
    except BadSetting:
        raise
    except Exception as error:
        first = (str(error).strip() or "no message").splitlines()[0]
        raise BadSetting(
            f"config.cell={config.cell!r} on config.task={config.task!r} cannot run with these settings: "
            f"{type(error).__name__} in {_place(error)}: {first}"
        ) from error


def trace(init: Callable, chunk: Callable, inputs: tuple, data: Any) -> None:
    """Traces both with the shapes of `inputs` and `data`: a later call with such ones finds the traces there.

    Raises BadSetting for a state that is plainly larger than this machine's memory.
    """
    state = jax.eval_shape(init, *inputs)
    needed = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    there = device_bytes()
    if needed > there and jax.default_backend() == "cpu":
        raise BadSetting(
            f"parameters and optimiser state need {needed / 2**30:.0f} GiB of memory, and this machine has "
            f"{there / 2**30:.0f}; allowed: a smaller hidden_size or num_layers, or fewer runs at once"
        )
    jax.eval_shape(chunk, state, inputs[1], data)


def _place(error):
    """The innermost function that is ours or the user's, and not a library's."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    return f"{frames[-1].name} ({frames[-1].filename}, line {frames[-1].lineno})"
