"""`flax.linen.RNN` with the optimised LSTM."""

from benchmarks.case import Case, Contender, make_weights
from benchmarks.peers.with_jax import contender

PACKAGES = ("flax",)
CELLS = {"rnn": "rnn", "lstm": "lstm", "gru": "gru"}


def layer(case: Case) -> Contender:
    """The layer, through `apply`."""
    from flax import linen as nn

    from rnnjax.interop import to_linen

    cell = {"rnn": nn.SimpleCell, "lstm": nn.OptimizedLSTMCell, "gru": nn.GRUCell}[case.cell]
    model = nn.RNN(cell(case.H), time_major=True, return_carry=True)

    def apply(params, xs):
        carry, _ = model.apply({"params": {"cell": params}}, xs)
        return carry[1] if case.cell == "lstm" else carry

    return contender(case, to_linen(case.cell, make_weights(case)), apply)
