"""What is diagnosed: a model with its parameters, a batch to measure on, its recurrent layers and its losses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rnnjax import runs
from rnnjax.diagnostics.evidence import Layer, stack_layers
from rnnjax.keys import Purpose, purpose_key
from rnnjax.nn import TransformerBlock
from rnnjax.tasks import draw
from rnnjax.training import Train, make_train
from rnnjax.training.config import Config, hyperparameters
from rnnjax.types import Array, Batch

B = 8  # sequences to measure on


class Subject(NamedTuple):
    """A model with its parameters, a batch, and its recurrent layers."""

    config: Config
    train: Train
    model: Any
    batch: Batch
    layers: list[Layer]  # none where the model attends instead
    steps: int  # the shortest sequence: what spectra are measured over, so that no padding counts


def make_subject(config: Config, workdir: str | Path | None = None) -> Subject:
    """The model of a run directory, or one as the config initialises it. Raises ValueError for a bad directory."""
    train = make_train(config)
    return subject_of(config, train, find_params(config, train, workdir), validation_batch(config, train))


def find_params(config: Config, train: Train, workdir: str | Path | None) -> Any:
    """The parameters of a run directory, or fresh ones of the config's seed."""
    values = {name: jnp.float32(value) for name, value in hyperparameters(config).items()}
    init = jax.jit(lambda key: train.init(key, values).params)
    key = jax.random.key(config.seed)
    if workdir is None:
        return init(key)
    return jax.tree.map(jnp.asarray, runs.load_params(workdir, like=jax.eval_shape(init, key)))


def validation_batch(config: Config, train: Train) -> Batch:
    """The validation sequences to measure on."""
    return draw(train.task, purpose_key(Purpose.DIAGNOSIS, config.seed), B, "validation", train.task.data)


def subject_of(config: Config, train: Train, params: Any, batch: Batch) -> Subject:
    """The model with these parameters, tracers allowed."""
    model = train.model(params)
    if any(isinstance(layer, TransformerBlock) for layer in model.stack.layers):
        return Subject(config, train, model, batch, [], batch.inputs.shape[0])
    layers = stack_layers(model, batch.inputs, batch.lengths)
    return Subject(config, train, model, batch, layers, layers[0].xs.shape[0])


def loss_of_taps(s: Subject) -> Callable:
    """taps -> the task's loss."""
    return lambda taps: s.train.task.loss(s.model(s.batch.inputs, lengths=s.batch.lengths, taps=taps), s.batch)


def loss_above(s: Subject) -> Callable:
    """ys `[T, B, H]` of the first layer -> the task's loss: what the rest of the model makes of them."""
    batch = s.batch

    def loss(ys):
        return s.train.task.loss(s.model(batch.inputs, lengths=batch.lengths, first_outputs=ys), batch)

    return loss


def first_inputs(s: Subject) -> Array:
    """What the first layer reads, all steps `[T, B, D]`."""
    *_, read = s.model(s.batch.inputs, lengths=s.batch.lengths, return_inputs=True)
    return read[0]
