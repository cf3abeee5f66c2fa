"""What all frameworks' files need: blocks of columns by gate, and parameters that are checked before they are used."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

Arrays = Mapping[str, Any]  # name -> an array, or a further such mapping
GATES = {  # the blocks of columns of W_x, W_h and b, as rnnjax.cells has them
    "rnn": ("h",),
    "lstm": ("i", "f", "g", "o"),
    "gru": ("r", "z", "n"),
    "gru_cho": ("r", "z", "n"),
    "mgu": ("f", "n"),
}
WITH_B_H = ("gru", "mgu")  # whose n has a bias of its own inside the product with the reset gate


def gates_of(cell: str, allowed: Iterable[str], framework: str) -> tuple[str, ...]:
    """The gates of a cell in our order. Raises ValueError for one that the framework's file does not know."""
    if cell not in allowed:
        raise ValueError(f"{framework} has no layer that is {cell!r}; allowed: {', '.join(allowed)}")
    return GATES[cell]


def blocks_of(array: Any, gates: Iterable[str]) -> dict[str, Any]:
    """Gate -> its block `[..., H]` of an array `[..., G H]`."""
    gates = tuple(gates)
    if array.shape[-1] % len(gates):
        raise ValueError(f"an array of shape {array.shape} has no equal blocks for the gates {', '.join(gates)}")
    H = array.shape[-1] // len(gates)
    return {gate: array[..., k * H : (k + 1) * H] for k, gate in enumerate(gates)}


def side_by_side(blocks: Iterable[Any], axis: int = -1) -> Any:
    """Arrays side by side, as NumPy or JAX does it, whichever they belong to."""
    blocks = [as_array(block) for block in blocks]
    return blocks[0].__array_namespace__().concat(blocks, axis=axis)


def reorder(array: Any, gates: Iterable[str], into: Iterable[str]) -> Any:
    """`[..., G H]` in the order of `gates` as the same in the order of `into`."""
    blocks = blocks_of(array, gates)
    return side_by_side([blocks[gate] for gate in into])


def zeros_like(like: Any) -> Any:
    """Zeros in the shape and dtype of an array."""
    return like.__array_namespace__().zeros_like(like)


def as_array(value: Any) -> Any:
    """A NumPy or JAX array as it is, traced ones too; anything else, such as a tensor, as a NumPy array."""
    return value if hasattr(value, "__array_namespace__") else np.asarray(value)


def take(arrays: Any, name: Any, framework: str) -> Any:
    """`arrays[name]`, an array or a mapping. Raises ValueError, with the names that there are, where it is missing."""
    try:
        value = arrays[name]
    except (KeyError, IndexError):
        there = ", ".join(map(str, arrays)) if isinstance(arrays, Mapping) else f"{len(arrays)} arrays"
        raise ValueError(f"{framework}'s weights hold no {name!r}; there are: {there or 'none'}") from None
    return value if isinstance(value, Mapping) else as_array(value)


def check_shapes(cell: str, params: dict[str, Any]) -> dict[str, Any]:
    """The parameters, if their shapes are those of the cell. Raises ValueError with the first that is not."""
    G, (D, H) = len(GATES[cell]), (params["W_x"].shape[0], params["W_h"].shape[0])
    expected = {"W_x": (D, G * H), "W_h": (H, G * H), "b": (G * H,)} | ({"b_h": (H,)} if "b_h" in params else {})
    for name, shape in expected.items():
        if name not in params or params[name].shape != shape:
            found = f"has shape {params[name].shape}" if name in params else "is missing"
            raise ValueError(f"{name} of the {cell} {found}; allowed: {shape}, of D={D} inputs and H={H} units")
    return params


def ours(cell: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of rnnjax as arrays, checked, and with a b_h where the cell has one."""
    arrays = {name: take(params, name, "rnnjax") for name in ("W_x", "W_h", "b")}
    if cell in WITH_B_H:
        zero = zeros_like(blocks_of(arrays["b"], GATES[cell])["n"])
        arrays["b_h"] = as_array(params.get("b_h", zero))
    unknown = [name for name in params if name not in arrays]
    if unknown:
        raise ValueError(f"the {cell} has a parameter {unknown[0]!r}, which no other framework knows")
    return check_shapes(cell, arrays)
