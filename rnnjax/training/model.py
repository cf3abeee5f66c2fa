"""The model that a config describes."""

import jax.numpy as jnp
from flax import nnx

from rnnjax.nn import SequenceModel
from rnnjax.training.config import Config, Hyperparameters, make_cell, make_parts
from rnnjax.types import Array, Task


def make_model(config: Config, task: Task, key: Array, hyperparameters: Hyperparameters | None = None) -> SequenceModel:
    """A new model for `task`, its weights drawn from `key`; what `hyperparameters` has of the cell stands for the
    config's, tracers allowed."""
    of_cell = {name.partition("cell.")[2]: value for name, value in (hyperparameters or {}).items()}
    traced = {name: value for name, value in of_cell.items() if name}
    return SequenceModel(
        [make_cell(config, **traced)] * config.num_layers,
        input_size=task.input_size,
        output_size=task.output_size,
        tokens=task.tokens,
        embedding_size=encoder_width(config, task),
        readout=task.readout,
        dropout=config.dropout,
        residual=config.residual,
        bidirectional=config.bidirectional,
        block=make_parts(config),
        dtype=None if config.dtype == "float32" else jnp.dtype(config.dtype),
        method=config.method,
        segments=config.segments,
        gradient=config.gradient,
        cotangent_clip=config.cotangent_clip,
        rngs=nnx.Rngs(key),
    )


def encoder_width(config: Config, task: Task) -> int | None:
    """How wide what the encoder shows is; None where inputs go to the first layer as they are."""
    defaults_to_hidden = task.tokens or config.block
    return (config.embedding_size or config.hidden_size) if defaults_to_hidden else config.embedding_size
