"""Equinox: weights `[G H, D]` and `[G H, H]`, gates i f g o and r z n as here, one bias, and `bias_n` of the GRU."""

from typing import Any

from rnnjax.interop.layout import Arrays, check_shapes, gates_of, ours, take, zeros_like

CELLS = ("rnn", "lstm", "gru")


def from_equinox(cell: str, arrays: Arrays) -> dict[str, Any]:
    """Our parameters from the fields of an Equinox cell.

    Args:
      cell: "lstm" (`eqx.nn.LSTMCell`), "gru" (`eqx.nn.GRUCell`), or "rnn", an Elman cell of your own in their style,
        for Equinox has none.
      arrays: `vars(the_cell)`: `weight_ih` `[G H, D]`, `weight_hh` `[G H, H]`, `bias` `[G H]` and, of the GRU, `bias_n`
        `[H]`; biases that are None (`use_bias=False`) are zero.

    Raises ValueError for an unknown cell, a missing array or a wrong shape.
    """
    gates_of(cell, CELLS, "Equinox")
    W_x, W_h = (take(arrays, name, "Equinox").T for name in ("weight_ih", "weight_hh"))
    without = arrays.get("bias") is None
    params = {"W_x": W_x, "W_h": W_h, "b": zeros_like(W_x[0]) if without else take(arrays, "bias", "Equinox")}
    if cell == "gru":
        params["b_h"] = zeros_like(W_h[:, 0]) if without else take(arrays, "bias_n", "Equinox")
    return check_shapes(cell, params)


def to_equinox(cell: str, params: Arrays) -> dict[str, Any]:
    """The fields of an Equinox cell from our parameters, for `eqx.tree_at`: the reverse of `from_equinox`."""
    gates_of(cell, CELLS, "Equinox")
    given = ours(cell, params)
    fields = {"weight_ih": given["W_x"].T, "weight_hh": given["W_h"].T, "bias": given["b"]}
    return fields | ({"bias_n": given["b_h"]} if cell == "gru" else {})
