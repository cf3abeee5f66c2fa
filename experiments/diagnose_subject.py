"""What is diagnosed: a model with its parameters, a batch to measure on, its recurrent layers and its losses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rnnjax import runs
from rnnjax.config import Config, hyperparameters
from rnnjax.diagnostics.triage import Layer
from rnnjax.keys import Purpose, purpose_key
from rnnjax.training import Train, make_train
from rnnjax.types import Array, Batch

B = 8  # sequences to measure on


class Subject(NamedTuple):
    """A model with its parameters, a batch, and its recurrent layers."""

    config: Config
    train: Train
    model: Any
    batch: Batch
    layers: list[Layer]
    steps: int  # the shortest sequence: what spectra are measured over, so that no padding counts


def make_subject(config: Config, workdir: str | Path | None = None) -> Subject:
    """The model of a run directory, or one as the config initialises it. Raises ValueError for a bad directory."""
    train = make_train(config)
    return subject_of(config, train, find_params(config, train, workdir), sample(config, train))


def find_params(config: Config, train: Train, workdir: str | Path | None) -> Any:
    """The parameters of a run directory, or fresh ones of the config's seed."""
    values = {name: jnp.float32(value) for name, value in hyperparameters(config).items()}
    init = jax.jit(lambda key: train.init(key, values).params)
    key = jax.random.key(config.seed)
    if workdir is None:
        return init(key)
    return jax.tree.map(jnp.asarray, runs.load_params(workdir, like=jax.eval_shape(init, key)))


def sample(config: Config, train: Train) -> Batch:
    """The validation sequences to measure on."""
    return train.task.sample(purpose_key(Purpose.DIAGNOSIS, config.seed), B, "validation")


def subject_of(config: Config, train: Train, params: Any, batch: Batch) -> Subject:
    """The model with these parameters, tracers allowed."""
    model = train.model(params)
    steps = batch.inputs.shape[0] if batch.lengths is None else int(batch.lengths.min())
    return Subject(config, train, model, batch, layers_of(model, batch, steps), steps)


def layers_of(model, batch: Batch, steps: int) -> list[Layer]:
    """Each recurrent layer (of two directions the forward one) and the first `steps` inputs that it sees."""
    xs = batch.inputs if model.encoder is None else model.encoder(batch.inputs)
    layers = []
    for layer in model.stack.layers:
        forward = getattr(layer, "forward_rnn", layer)
        params = {name: value[...] for name, value in forward.weights.items()}
        layers.append(Layer(forward.cell, params, xs[:steps]))
        xs = _through(model.stack, layer, xs, batch.lengths)
    return layers


def loss_of_taps(s: Subject) -> Callable:
    """taps -> the task's loss."""
    return lambda taps: s.train.task.loss(s.model(s.batch.inputs, lengths=s.batch.lengths, taps=taps), s.batch)


def loss_above(s: Subject) -> Callable:
    """ys `[T, B, H]` of the first layer -> the task's loss: the rest of the model, as SequenceModel runs it."""
    model, batch = s.model, s.batch

    def loss(ys):
        T, lengths = ys.shape[0], batch.lengths
        valid = None if lengths is None else (jnp.arange(T)[:, None] < lengths)[..., None]
        ys = ys if valid is None else jnp.where(valid, ys, 0)
        first = first_inputs(s)
        if model.stack.residual and first.shape[-1] == ys.shape[-1]:
            ys = ys + first
        for layer in list(model.stack.layers)[1:]:
            ys = _through(model.stack, layer, ys, lengths)
        if model.steps_read == "mean":
            ys = jnp.sum(ys if valid is None else jnp.where(valid, ys, 0), axis=0)
            ys = ys / (T if lengths is None else lengths[:, None])
        elif model.steps_read == "last":
            ys = ys[-1] if lengths is None else ys[lengths - 1, jnp.arange(ys.shape[1])]
        return s.train.task.loss(model.readout(ys), batch)

    return loss


def first_inputs(s: Subject) -> Array:
    """What the first layer sees, all steps `[T, B, D]`."""
    return s.batch.inputs if s.model.encoder is None else s.model.encoder(s.batch.inputs)


def _through(stack, layer, xs, lengths):
    ys = layer(xs, seq_lengths=lengths)
    return ys + xs if stack.residual and ys.shape[-1] == xs.shape[-1] else ys
