"""PyTorch: weights `[G H, D]` and `[G H, H]`, gates i f g o and r z n as here, and two biases that add up."""

from typing import Any

from rnnjax.interop.layout import Arrays, blocks_of, check_shapes, gates_of, ours, side_by_side, take, zeros_like

CELLS = ("rnn", "lstm", "gru")


def from_torch(cell: str, arrays: Arrays, suffix: str = "_l0") -> dict[str, Any]:
    """Our parameters from a PyTorch state dict.

    Args:
      cell: "rnn", "lstm" or "gru".
      arrays: `nn.LSTM(...).state_dict()` or its like: `weight_ih_l0` `[G H, D]`, `weight_hh_l0` `[G H, H]`,
        `bias_ih_l0` and `bias_hh_l0` `[G H]`, which may both be missing (`bias=False`).
      suffix: of the layer and direction, such as "_l1_reverse"; "" for `nn.LSTMCell` and its like.

    The biases are summed, but for the GRU's b_hn, which is our b_h: it stands inside the product with the reset gate.
    Raises ValueError for an unknown cell, a missing array, a wrong shape, or an LSTM with `proj_size`.
    """
    gates = gates_of(cell, CELLS, "PyTorch")
    if f"weight_hr{suffix}" in arrays:
        raise ValueError(f"weight_hr{suffix}: an LSTM with proj_size has no counterpart here; allowed: proj_size=0")
    W_x, W_h = (take(arrays, name + suffix, "PyTorch").T for name in ("weight_ih", "weight_hh"))
    if f"bias_ih{suffix}" in arrays:
        b, b_hh = (take(arrays, name + suffix, "PyTorch") for name in ("bias_ih", "bias_hh"))
    else:
        b = b_hh = zeros_like(W_x[0])
    if cell != "gru":
        return check_shapes(cell, {"W_x": W_x, "W_h": W_h, "b": b + b_hh})
    of_state = blocks_of(b_hh, gates)
    b = b + side_by_side([of_state["r"], of_state["z"], zeros_like(of_state["n"])])
    return check_shapes(cell, {"W_x": W_x, "W_h": W_h, "b": b, "b_h": of_state["n"]})


def to_torch(cell: str, params: Arrays, suffix: str = "_l0") -> dict[str, Any]:
    """The state dict of a PyTorch layer from our parameters, as arrays: the reverse of `from_torch`.

    `bias_hh` is zero, but for the GRU's b_hn. Raises ValueError as `from_torch` does.
    """
    gates = gates_of(cell, CELLS, "PyTorch")
    params = ours(cell, params)
    b_hh = {gate: zeros_like(block) for gate, block in blocks_of(params["b"], gates).items()}
    if cell == "gru":
        b_hh["n"] = params["b_h"]
    return {
        f"weight_ih{suffix}": params["W_x"].T,
        f"weight_hh{suffix}": params["W_h"].T,
        f"bias_ih{suffix}": params["b"],
        f"bias_hh{suffix}": side_by_side(b_hh.values()),
    }
