"""The scalar LSTM of xLSTM: exponential gates, and a normaliser that divides by what they have let in."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from rnnjax.cells.gated import check_hidden_size, gated, memoized, unsquashed
from rnnjax.initializers import normal, zeros
from rnnjax.types import Array, Cell, Params, Weights

FORGET = {"sigmoid": jax.nn.log_sigmoid, "exp": lambda s: s}  # the logarithm of the gate
GATES = 4


class SLSTMCarry(NamedTuple):
    """Memory, normaliser, the logarithm of the scale of both, and the shown state, all `[..., H]`."""

    c: Array
    n: Array
    m: Array
    h: Array


@memoized
def slstm(
    hidden_size: int,
    *,
    heads: int | None = None,
    forget_gate: Literal["sigmoid", "exp"] = "sigmoid",
    forget_power: float | Array = 0.3,
) -> Cell:
    """The sLSTM of xLSTM.

        i~, f~, z~, o~ = W x_t + U h_{t-1} + b              U block-diagonal: one block a head
        m_t = max(log f + m_{t-1}, i~)                      or i~, where nothing was let in before: n_{t-1} = 0
        i' = exp(i~ - m_t)                                  f' = exp(log f + m_{t-1} - m_t)
        c_t = f' c_{t-1} + i' tanh(z~)                      n_t = f' n_{t-1} + i'
        h_t = sigmoid(o~) c_t / n_t

    with f = sigmoid(f~) or exp(f~). Beck et al. (2024, arXiv:2405.04517), xLSTM: extended long short-term memory. m
    changes no h: it keeps the exponentials below 1. Its authors' plain PyTorch asks whether n is 0 of a whole batch
    at once, their CUDA code of each unit, as here. The convolution, the norm and the projections around it are no part
    of the cell, nor is W block-diagonal. As in their code U starts at 0, W as N(0, 2 / (5 D)), b at 0 but for b_f,
    which falls from 5 to -7 over the units of a head.

    Args:
      hidden_size: H.
      heads: how many blocks U has; units of different heads do not see each other. By default 4, or less where 4 does
        not divide H.
      forget_gate: how f is made of f~.
      forget_power: b_f = 5 - 12 (j / (H / heads - 1))^forget_power for unit j of a head; the authors' is 0.3 in the
        first block of a network and 1.6 in the last.

    Raises ValueError for a hidden size below 1 or not whole, for heads that do not divide it, and for an unknown
    `forget_gate`.
    """
    check_hidden_size(hidden_size)
    heads = next(k for k in (4, 3, 2, 1) if hidden_size % k == 0) if heads is None else heads
    if heads < 1 or hidden_size % heads:
        raise ValueError(f"heads is {heads}; allowed: what divides the hidden size, {hidden_size}")
    if forget_gate not in FORGET:
        raise ValueError(f"unknown forget_gate {forget_gate!r}; allowed: {', '.join(FORGET)}")
    units, log_f = hidden_size // heads, FORGET[forget_gate]

    def b_f(key, shape, dtype):
        place = jnp.arange(units, dtype=dtype) / max(units - 1, 1)
        return jnp.tile(5 - 12 * place**forget_power, heads)

    def update(weights, carry, *, i, f, z, o):
        kept = log_f(f) + carry.m
        m = jnp.where(carry.n == 0, i, jnp.maximum(kept, i))
        i, f = jnp.exp(i - m), jnp.exp(kept - m)
        c, n = f * carry.c + i * z, f * carry.n + i
        return SLSTMCarry(c, n, m, o * c / n)

    cell = gated(
        hidden_size,
        {"i": unsquashed, "f": unsquashed, "z": jnp.tanh, "o": jax.nn.sigmoid},
        update,
        carry=SLSTMCarry,
        w_x=_small,
        bias={"f": b_f},
    )

    def init(key: Array, input_size: int) -> Params:
        return cell.init(key, input_size) | {"W_h": zeros(None, (heads, units, GATES * units))}

    def weights(params: Params) -> Weights:
        U = params["W_h"].reshape(heads, units, GATES, units)
        blocks = jnp.einsum("nigj,nk->nigkj", U, jnp.eye(heads, dtype=U.dtype))
        return params | {"W_h": blocks.reshape(hidden_size, GATES * hidden_size)}

    return cell._replace(init=init, weights=weights)


def _small(key, shape, dtype=jnp.float32):
    return normal((2 / (5 * max(shape[0], 1))) ** 0.5)(key, shape, dtype)
