"""Equinox has no RNN cell: the Elman network is written in its style."""

from benchmarks.case import Case, Contender, make_weights
from benchmarks.peers.with_jax import contender

PACKAGES = ("equinox",)
CELLS = {"rnn": "rnn", "lstm": "lstm", "gru": "gru"}


def layer(case: Case) -> Contender:
    """One sequence under `lax.scan`, and `vmap` over the batch, as its documentation does it."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    class Layer(eqx.Module):
        cell: eqx.Module

        def __call__(self, xs):
            h = jnp.zeros(case.H)
            state = (h, h) if case.cell == "lstm" else h
            state, _ = jax.lax.scan(lambda state, x: (self.cell(x, state), None), state, xs)
            return state[0] if case.cell == "lstm" else state

    params, static = eqx.partition(Layer(_cell(case)), eqx.is_array)
    return contender(case, params, lambda p, xs: jax.vmap(eqx.combine(p, static), in_axes=1)(xs))


def _cell(case):
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from rnnjax.interop import to_equinox

    class RNNCell(eqx.Module):
        weight_ih: jax.Array
        weight_hh: jax.Array
        bias: jax.Array

        def __call__(self, x, h):
            return jnp.tanh(self.weight_ih @ x + self.weight_hh @ h + self.bias)

    fields = {name: jnp.asarray(a) for name, a in to_equinox(case.cell, make_weights(case)).items()}
    if case.cell == "rnn":
        return RNNCell(**fields)
    cell = {"lstm": eqx.nn.LSTMCell, "gru": eqx.nn.GRUCell}[case.cell](case.I, case.H, key=jax.random.key(0))
    return eqx.tree_at(lambda cell: [getattr(cell, name) for name in fields], cell, list(fields.values()))
