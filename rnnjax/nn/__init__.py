"""Flax NNX modules: any cell as a layer, layers as a stack, a stack as a model."""

from rnnjax.nn.modules import RNN, Bidirectional, SequenceModel, Stack

__all__ = ["RNN", "Bidirectional", "SequenceModel", "Stack"]
