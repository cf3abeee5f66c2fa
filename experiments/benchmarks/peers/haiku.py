"""Haiku has variants of its own: VanillaRNN is a ReLU network, and GRU resets before the matmul."""

from benchmarks.case import Case, Contender, make_weights
from benchmarks.peers.with_jax import contender

PACKAGES = ("dm-haiku",)
CELLS = {"rnn": "rnn_relu", "lstm": "lstm", "gru": "gru_cho"}


def layer(case: Case) -> Contender:
    """The core under `dynamic_unroll`, as a pure function of its parameters."""
    import haiku as hk

    from rnnjax.interop import to_haiku

    core = {"rnn": hk.VanillaRNN, "lstm": hk.LSTM, "gru": hk.GRU}[case.cell]

    def unrolled(xs):
        cell = core(case.H)
        _, state = hk.dynamic_unroll(cell, xs, cell.initial_state(xs.shape[1]))
        return getattr(state, "hidden", state)

    params = to_haiku(CELLS[case.cell].removesuffix("_relu"), make_weights(case))
    return contender(case, params, hk.without_apply_rng(hk.transform(unrolled)).apply)
