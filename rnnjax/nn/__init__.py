"""Flax NNX modules: any cell, or attention, as a layer, layers as a stack, a stack as a model."""

from rnnjax.nn.attention import Transformer, TransformerBlock, transformer
from rnnjax.nn.bidirectional import Bidirectional
from rnnjax.nn.block_parts import BlockParts
from rnnjax.nn.blocks import Block
from rnnjax.nn.model import SequenceModel
from rnnjax.nn.rnn import RNN
from rnnjax.nn.stack import Stack

__all__ = [
    "RNN",
    "Bidirectional",
    "Block",
    "BlockParts",
    "SequenceModel",
    "Stack",
    "Transformer",
    "TransformerBlock",
    "transformer",
]
