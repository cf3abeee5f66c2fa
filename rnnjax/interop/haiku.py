"""Haiku, whose variants are its own: gates i g f o and z r n, a z that lets the new state in, a forget bias in code."""

from typing import Any

from rnnjax.interop.layout import (
    Arrays,
    blocks_of,
    check_shapes,
    gates_of,
    ours,
    reorder,
    side_by_side,
    take,
    zeros_like,
)

NAMES = {"rnn": "vanilla_rnn", "lstm": "lstm", "gru_cho": "gru"}  # cell -> the module's name where none is given
LSTM_GATES, GRU_GATES = ("i", "g", "f", "o"), ("z", "r", "n")


def from_haiku(cell: str, arrays: Arrays, name: str | None = None) -> dict[str, Any]:
    """Our parameters from those of a Haiku core.

    Args:
      cell: "rnn" (`hk.VanillaRNN`, a ReLU network: `rnn(H, activation="relu")`), "lstm" (`hk.LSTM`) or "gru_cho"
        (`hk.GRU`, which resets before the matmul).
      arrays: what `hk.transform(...).init` returned, {"lstm/linear": {"w": `[D + H, 4 H]`, "b": `[4 H]`}}.
      name: the core's name in it, such as "my_net/lstm_1"; that of a core alone by default.

    `hk.LSTM` adds 1 to the forget gate in code, here it stands in b. `hk.GRU`'s z is our 1 - z, so its weights change
    their sign. Raises ValueError for an unknown cell, a missing array or a wrong shape.
    """
    gates = gates_of(cell, NAMES, "Haiku")
    name = name or NAMES[cell]
    if cell == "rnn":
        sides = [take(arrays, name + part, "Haiku") for part in ("/linear", "/linear_1")]
        (W_x, W_h), (b, b_h) = ([take(side, key, "Haiku") for side in sides] for key in "wb")
        return check_shapes(cell, {"W_x": W_x, "W_h": W_h, "b": b + b_h})
    if cell == "lstm":
        linear = take(arrays, name + "/linear", "Haiku")
        w, b = (reorder(take(linear, key, "Haiku"), LSTM_GATES, gates) for key in "wb")
        H = b.shape[-1] // 4
        return check_shapes(cell, {"W_x": w[:-H], "W_h": w[-H:], "b": _shifted(b, gates, "f", 1)})
    core = take(arrays, name, "Haiku")
    w_i, w_h, b = (_negated(take(core, key, "Haiku"), GRU_GATES, gates) for key in ("w_i", "w_h", "b"))
    return check_shapes(cell, {"W_x": w_i, "W_h": w_h, "b": b})


def to_haiku(cell: str, params: Arrays, name: str | None = None) -> dict[str, Any]:
    """The parameters of a Haiku core from ours: the reverse of `from_haiku`; raises as it does."""
    gates = gates_of(cell, NAMES, "Haiku")
    name, given = name or NAMES[cell], ours(cell, params)
    if cell == "rnn":
        second = {"w": given["W_h"], "b": zeros_like(given["b"])}
        return {f"{name}/linear": {"w": given["W_x"], "b": given["b"]}, f"{name}/linear_1": second}
    if cell == "lstm":
        w, b = side_by_side([given["W_x"], given["W_h"]], axis=0), _shifted(given["b"], gates, "f", -1)
        return {f"{name}/linear": {"w": reorder(w, gates, LSTM_GATES), "b": reorder(b, gates, LSTM_GATES)}}
    names = {"w_i": "W_x", "w_h": "W_h", "b": "b"}
    return {name: {theirs: _negated(given[own], gates, GRU_GATES) for theirs, own in names.items()}}


def _shifted(b, gates, which, by):
    return side_by_side([block + by * (gate == which) for gate, block in blocks_of(b, gates).items()])


def _negated(array, gates, into):
    """In another order, with z's sign turned: sigmoid(-s) = 1 - sigmoid(s)."""
    blocks = blocks_of(array, gates)
    return side_by_side([-blocks[gate] if gate == "z" else blocks[gate] for gate in into])
