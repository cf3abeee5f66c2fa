"""Keras 3 on JAX, through `stateless_call`."""

import os

from benchmarks.case import Case, Contender, make_weights
from benchmarks.peers.with_jax import contender

PACKAGES = ("keras",)
CELLS = {"rnn": "rnn", "lstm": "lstm", "gru": "gru"}


def layer(case: Case) -> Contender:
    """The layer as a function of its trainable variables."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    from rnnjax.interop import to_keras

    make = {"rnn": keras.layers.SimpleRNN, "lstm": keras.layers.LSTM, "gru": keras.layers.GRU}[case.cell]
    built = make(case.H)
    built.build((case.B, case.T, case.I))
    rest = [v.value for v in built.non_trainable_variables]

    def apply(params, xs):
        return built.stateless_call(params, rest, xs)[0]

    params = to_keras(case.cell, make_weights(case))
    return contender(case, params, apply, batch_first=True, matrices=lambda gradient: gradient[:2])
