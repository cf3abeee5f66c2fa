"""Keras: weights as here, gates i f c o and z r h, and two rows of biases in a GRU that resets after the matmul."""

from collections.abc import Sequence
from typing import Any

from rnnjax.interop.layout import (
    Arrays,
    as_array,
    blocks_of,
    check_shapes,
    gates_of,
    ours,
    reorder,
    side_by_side,
    take,
    zeros_like,
)

CELLS = ("rnn", "lstm", "gru", "gru_cho")
GRU_GATES = ("z", "r", "n")


def from_keras(cell: str, arrays: Sequence[Any]) -> dict[str, Any]:
    """Our parameters from the weights of a Keras layer.

    Args:
      cell: "rnn" (`SimpleRNN`), "lstm" (`LSTM`), "gru" (`GRU`), or "gru_cho" (`GRU(reset_after=False)`).
      arrays: `layer.get_weights()`: the kernel `[D, G H]`, the recurrent kernel `[H, G H]` and, unless
        `use_bias=False`, the bias `[G H]`, of "gru" `[2, 3 H]`.

    Raises ValueError for an unknown cell, a missing array or a wrong shape.
    """
    gates = gates_of(cell, CELLS, "Keras")
    W_x, W_h = (take(arrays, k, "Keras") for k in (0, 1))
    no_bias = zeros_like(side_by_side([W_h[:1], W_h[:1]], axis=0) if cell == "gru" else W_h[0])
    b = as_array(arrays[2]) if len(arrays) > 2 else no_bias
    if b.shape != no_bias.shape:
        hint = "; the GRU's reset_after=False is 'gru_cho'" if cell == "gru" else ""
        raise ValueError(f"the bias of Keras's {cell} has shape {b.shape}; allowed: {no_bias.shape}{hint}")
    if cell in ("rnn", "lstm"):
        return check_shapes(cell, {"W_x": W_x, "W_h": W_h, "b": b})
    W_x, W_h, b = (reorder(a, GRU_GATES, gates) for a in (W_x, W_h, b))
    if cell == "gru_cho":
        return check_shapes(cell, {"W_x": W_x, "W_h": W_h, "b": b})
    of_state = blocks_of(b[1], gates)
    b = b[0] + side_by_side([of_state["r"], of_state["z"], zeros_like(of_state["n"])])
    return check_shapes(cell, {"W_x": W_x, "W_h": W_h, "b": b, "b_h": of_state["n"]})


def to_keras(cell: str, params: Arrays) -> list[Any]:
    """What `layer.set_weights` takes, from our parameters: the reverse of `from_keras`; raises as it does."""
    gates = gates_of(cell, CELLS, "Keras")
    given = ours(cell, params)
    if cell in ("rnn", "lstm"):
        return [given[name] for name in ("W_x", "W_h", "b")]
    W_x, W_h, b = (reorder(given[name], gates, GRU_GATES) for name in ("W_x", "W_h", "b"))
    if cell == "gru_cho":
        return [W_x, W_h, b]
    zero = zeros_like(given["b_h"])
    return [W_x, W_h, side_by_side([b[None], side_by_side([zero, zero, given["b_h"]])[None]], axis=0)]
