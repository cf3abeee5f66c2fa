"""`flax.nnx.RNN` with the optimised LSTM. Its GRU lacks the bias b_hn, which is zero in every case here."""

from benchmarks.case import Case, Contender, make_weights
from benchmarks.peers.with_jax import contender

PACKAGES = ("flax",)
CELLS = {"rnn": "rnn", "lstm": "lstm", "gru": "gru"}


def layer(case: Case) -> Contender:
    """The layer, merged from its parameters in every call as nnx does."""
    import jax.numpy as jnp
    from flax import nnx

    from rnnjax.interop import to_nnx

    cell = {"rnn": nnx.SimpleCell, "lstm": nnx.OptimizedLSTMCell, "gru": nnx.GRUCell}[case.cell]
    model = nnx.RNN(cell(case.I, case.H, rngs=nnx.Rngs(0)), time_major=True, return_carry=True)
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    nnx.replace_by_pure_dict(params, {"cell": to_nnx(case.cell, make_weights(case))})

    def apply(params, xs):
        h = jnp.zeros((xs.shape[1], case.H))  # without an explicit carry nnx.RNN fails under jit (flax #4713)
        carry, _ = nnx.merge(graphdef, params, rest)(xs, initial_carry=(h, h) if case.cell == "lstm" else h)
        return carry[1] if case.cell == "lstm" else carry

    return contender(case, params, apply)
