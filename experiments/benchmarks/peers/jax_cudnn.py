"""`jax.experimental.rnn.lstm`, which runs cuDNN: on a GPU only."""

import numpy as np

from benchmarks.case import Case, Contender, make_weights
from benchmarks.peers.with_jax import contender

PACKAGES = ("jax",)
CELLS = {"lstm": "lstm"}


def layer(case: Case) -> Contender:
    """The LSTM. Raises NotImplementedError where JAX has no GPU."""
    import jax
    import jax.numpy as jnp
    from jax.experimental import rnn

    if jax.default_backend() != "gpu":
        raise NotImplementedError("jax.experimental.rnn runs on a GPU alone")
    weights, matrices = cudnn_weights(case)
    zero, lengths = jnp.zeros((1, case.B, case.H)), jnp.full(case.B, case.T, jnp.int32)

    def apply(weights, xs):
        return rnn.lstm(xs, zero, zero, weights, lengths, case.I, case.H, 1, 0.0, False)[1][0]

    return contender(case, weights, apply, batch_first=True, matrices=lambda g: g[:matrices])


def cudnn_weights(case: Case) -> tuple[np.ndarray, int]:
    """PyTorch's (W_ih, W_hh, b_ih, b_hh), laid flat one after another, and how many numbers belong to the matrices."""
    from rnnjax.interop import to_torch

    flat = [array.ravel() for array in to_torch("lstm", make_weights(case)).values()]
    return np.concatenate(flat), flat[0].size + flat[1].size
