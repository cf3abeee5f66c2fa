"""Flax NNX modules: any cell as a layer, layers as a stack, a stack as a model."""
