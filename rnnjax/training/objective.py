"""What a run adds to its task's loss: the config's penalties."""

import jax

from rnnjax.gradients.penalties import PENALTIES
from rnnjax.nn import SequenceModel
from rnnjax.training.config import Config
from rnnjax.types import Array


def penalty_weights(config: Config) -> dict[str, float]:
    """The penalties that the config adds to the loss, with their weights."""
    return {name: getattr(config, name) for name in PENALTIES if getattr(config, name)}


def penalty(
    config: Config, model: SequenceModel, inputs: Array, key: Array, lengths: Array | None = None
) -> Array | float:
    """The weighted sum of the config's penalties over the layers, each on what it reads; 0 without any.

    Args:
      config: whose weights count.
      model: runs forwards; where it draws dropout masks, it draws them here.
      inputs: `[T, ..., D]`, or integers `[T, ...]`.
      key: of the penalties' random directions.
      lengths: integers `[...]`, the valid steps of each sequence.
    """
    weights = penalty_weights(config)
    if not weights:
        return 0.0
    _, read = model(inputs, lengths=lengths, return_inputs=True)
    total = 0.0
    for number, (layer, xs) in enumerate(zip(model.stack.layers, read, strict=True)):
        params = {name: param[...] for name, param in layer.parameters.items()}
        for name, weight in weights.items():
            value = PENALTIES[name](layer.cell, params, xs, jax.random.fold_in(key, number), lengths=lengths)
            total += weight * value
    return total
