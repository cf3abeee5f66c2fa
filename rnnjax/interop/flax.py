"""Flax, NNX and Linen: gates in our order, as one Dense for each gate and side, or as one for each side."""

from typing import Any

import numpy as np

from rnnjax.interop.layout import WITH_B_H, Arrays, blocks_of, check_shapes, gates_of, ours, side_by_side, take

NNX_CELLS = ("rnn", "lstm", "gru")
LINEN_CELLS = ("rnn", "lstm", "gru", "mgu")


def from_nnx(cell: str, arrays: Arrays) -> dict[str, Any]:
    """Our parameters from those of a cell of `flax.nnx`.

    Args:
      cell: "rnn" (`SimpleCell`), "lstm" (`OptimizedLSTMCell` or `LSTMCell`) or "gru" (`GRUCell`).
      arrays: `nnx.to_pure_dict(nnx.state(the_cell, nnx.Param))`: {"dense_i": {"kernel": `[D, G H]`, ..}, "dense_h":
        {"kernel": `[H, G H]`, ..}}, with the bias at the LSTM's h and the others' i; or that of `LSTMCell`, a Dense
        for each of ii, if_, ig, io, hi, hf, hg, ho.

    `nnx.GRUCell` has no bias b_hn: b_h is zero. Raises ValueError for an unknown cell, a missing array, a wrong shape.
    """
    gates = gates_of(cell, NNX_CELLS, "flax.nnx")
    if "ii" in arrays:
        return _joined(cell, {name.rstrip("_"): arrays[name] for name in arrays}, gates, "h", "flax.nnx")
    sides = [take(arrays, name, "flax.nnx") for name in ("dense_i", "dense_h")]
    W_x, W_h = (take(side, "kernel", "flax.nnx") for side in sides)
    b = take(sides[cell == "lstm"], "bias", "flax.nnx")
    return ours(cell, {"W_x": W_x, "W_h": W_h, "b": b})


def to_nnx(cell: str, params: Arrays, optimized: bool = True) -> dict[str, Any]:
    """What `nnx.replace_by_pure_dict` puts into a cell of `flax.nnx`: the reverse of `from_nnx`.

    `optimized` chooses between `OptimizedLSTMCell` and `LSTMCell`. Raises ValueError as `from_nnx` does, and for a GRU
    whose b_h is not zero.
    """
    gates = gates_of(cell, NNX_CELLS, "flax.nnx")
    if cell == "gru" and "b_h" in params and np.any(np.asarray(params["b_h"])):
        raise ValueError("b_h of the gru is not zero; allowed: zeros, as flax.nnx.GRUCell has no such bias")
    given = ours(cell, params)
    if cell == "lstm" and not optimized:
        return {"if_" if name == "if" else name: part for name, part in _by_gate(given, gates, "h").items()}
    weights = {"dense_i": {"kernel": given["W_x"]}, "dense_h": {"kernel": given["W_h"]}}
    weights["dense_h" if cell == "lstm" else "dense_i"]["bias"] = given["b"]
    return weights


def from_linen(cell: str, arrays: Arrays) -> dict[str, Any]:
    """Our parameters from those of a cell of `flax.linen`.

    Args:
      cell: "rnn" (`SimpleCell`), "lstm" (`LSTMCell`, `OptimizedLSTMCell`), "gru" (`GRUCell`) or "mgu" (`MGUCell`).
      arrays: `variables["params"]` of the cell (`["params"]["cell"]` of a `linen.RNN`): {"ii": {"kernel": `[D, H]`},
        "hi": {"kernel": `[H, H]`, "bias": `[H]`}, ..}, a Dense for each side and gate; of `SimpleCell`, "i" and "h".

    Raises ValueError for an unknown cell, a missing array or a wrong shape.
    """
    gates = gates_of(cell, LINEN_CELLS, "flax.linen")
    return _joined(cell, arrays, ("",) if cell == "rnn" else gates, "h" if cell == "lstm" else "i", "flax.linen")


def to_linen(cell: str, params: Arrays) -> dict[str, Any]:
    """The parameters of a cell of `flax.linen` from ours: the reverse of `from_linen`; raises as it does."""
    gates = gates_of(cell, LINEN_CELLS, "flax.linen")
    return _by_gate(ours(cell, params), ("",) if cell == "rnn" else gates, "h" if cell == "lstm" else "i")


def _joined(cell, arrays, gates, bias_side, framework):
    """One Dense for each side and gate, as our columns; the bias stands at one side, but for b_h."""
    kernels = {s: [take(take(arrays, s + g, framework), "kernel", framework) for g in gates] for s in "ih"}
    biases = [take(take(arrays, bias_side + g, framework), "bias", framework) for g in gates]
    params = {"W_x": side_by_side(kernels["i"]), "W_h": side_by_side(kernels["h"]), "b": side_by_side(biases)}
    if cell in WITH_B_H:
        params["b_h"] = take(take(arrays, "hn", framework), "bias", framework)
    return check_shapes(cell, params)


def _by_gate(params, gates, bias_side):
    blocks = {side: blocks_of(params[name], gates) for side, name in (("i", "W_x"), ("h", "W_h"))}
    weights = {side + gate: {"kernel": kernel} for side in "ih" for gate, kernel in blocks[side].items()}
    for gate, bias in blocks_of(params["b"], gates).items():
        weights[bias_side + gate]["bias"] = bias
    if "b_h" in params:
        weights["hn"]["bias"] = params["b_h"]
    return weights
