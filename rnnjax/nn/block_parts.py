"""What may stand around a recurrence in a block, as plain values: its parts, and what papers put together."""

from collections.abc import Callable
from typing import Literal, NamedTuple


class BlockParts(NamedTuple):
    """The parts of a block; `Block` says what they compute, and the functions below what each may be."""

    norm: str = "none"
    expand: float = 1.0
    up: bool = False
    conv: int = 0
    conv_activation: str = "silu"
    inner_norm: str = "none"
    heads: int = 1
    gate: str = "none"
    out: str = "linear"
    out_activation: str = "none"
    residual: bool = True
    mlp: float = 0.0
    mlp_kind: str = "gelu"


def norm(parts: BlockParts, kind: Literal["rms", "layer"] = "rms") -> BlockParts:
    """Norms what the recurrence, and the MLP, read of the residual stream.

    Args:
      kind: rms (Zhang & Sennrich 2019, arXiv:1910.07467) or layer (Ba et al. 2016, arXiv:1607.06450).
    """
    return parts._replace(norm=kind)


def expand(parts: BlockParts, ratio: float, up: bool = True) -> BlockParts:
    """Makes the recurrence wider, or narrower, than the model.

    Args:
      ratio: the cell's hidden size over the model's, rounded to a whole number of units.
      up: a linear map takes the input there, in front of the convolution; without it, the cell's own maps do.
    """
    _refuse_below(0, "expand's ratio", ratio)
    return parts._replace(expand=ratio, up=up)


def conv(parts: BlockParts, steps: int = 4, activation: Literal["silu", "none"] = "silu") -> BlockParts:
    """Puts a short causal convolution, of each unit by itself, in front of the recurrence.

    Args:
      steps: how many it sees, the present one included.
      activation: of what comes out.
    """
    _refuse_below(2, "conv's steps", steps)
    return parts._replace(conv=steps, conv_activation=activation)


def inner_norm(parts: BlockParts, kind: Literal["rms", "layer"] = "rms", heads: int = 1) -> BlockParts:
    """Norms what the recurrence shows, head by head.

    Args:
      kind: as of `norm`.
      heads: how many there are. A cell whose state is a matrix a head norms its own, unless told not to.
    """
    _refuse_below(1, "inner_norm's heads", heads)
    return parts._replace(inner_norm=kind, heads=heads)


def gate(parts: BlockParts, activation: Literal["silu", "gelu", "sigmoid"] = "silu") -> BlockParts:
    """Multiplies what the recurrence shows by an activated linear map of what it read.

    Args:
      activation: of the gate.
    """
    return parts._replace(gate=activation)


def out(
    parts: BlockParts,
    kind: Literal["linear", "glu", "half_glu", "none"] = "linear",
    activation: Literal["none", "gelu", "silu"] = "none",
) -> BlockParts:
    """How what is shown becomes what is added to the stream.

    Args:
      kind: linear, W r; glu, (W r) sigmoid(V r) (Dauphin et al. 2017, arXiv:1612.08083); half_glu, r sigmoid(V r); or
        none, r itself.
      activation: of r before.
    """
    return parts._replace(out=kind, out_activation=activation)


def residual(parts: BlockParts, on: bool = True) -> BlockParts:
    """Adds the block's input to what its recurrence makes of it, as a block does unless told otherwise.

    Args:
      on: whether it does.
    """
    return parts._replace(residual=on)


def mlp(parts: BlockParts, ratio: float = 4.0, kind: Literal["gelu", "swiglu", "geglu"] = "gelu") -> BlockParts:
    """Adds a network of one hidden layer, step by step, after the recurrence.

    Args:
      ratio: its hidden units over those of the model, rounded to a whole number of units.
      kind: gelu(W x), or silu(V x) W x (swiglu) or gelu(V x) W x (geglu; Shazeer 2020, arXiv:2002.05202).
    """
    _refuse_below(0, "mlp's ratio", ratio)
    return parts._replace(mlp=ratio, mlp_kind=kind)


PARTS: dict[str, Callable[..., BlockParts]] = {
    "norm": norm,
    "expand": expand,
    "conv": conv,
    "inner_norm": inner_norm,
    "gate": gate,
    "out": out,
    "residual": residual,
    "mlp": mlp,
}
"""In the order in which a step meets them."""


class Preset(NamedTuple):
    """What a paper puts around its recurrence."""

    parts: str
    source: str  # and what there differs


PRESETS = {
    "lru": Preset("norm:layer,out:glu:gelu", "Orvieto et al. (2023, arXiv:2303.06349)"),
    "s4d": Preset("norm:layer,out:glu:gelu", "Gu et al. (2022, arXiv:2206.11893)"),
    "s5": Preset("norm:layer,out:half_glu:gelu", "Smith et al. (2022, arXiv:2208.04933)"),
    "mingru": Preset("norm:rms,conv:4:none,mlp:4", "Feng et al. (2024, arXiv:2410.01201)"),
    "mamba": Preset("norm:rms,expand:2,conv:4,gate:silu", "Gu & Dao (2023, arXiv:2312.00752)"),
    "griffin": Preset(
        "norm:rms,expand:1,conv:4:none,gate:gelu,mlp:3:geglu",
        "De et al. (2024, arXiv:2402.19427), recurrent blocks alone, as wide inside as the model, as in their code",
    ),
    "retnet": Preset("norm:layer,expand:2:false,gate:silu,mlp:2", "Sun et al. (2023, arXiv:2307.08621)"),
    "gla": Preset("norm:rms,gate:silu,mlp:2.667:swiglu", "Yang et al. (2023, arXiv:2312.06635)"),
    "deltanet": Preset(
        "norm:rms,conv:4:none,mlp:2.667:swiglu",
        "Yang et al. (2024, arXiv:2406.06484), who convolve queries, keys and values, and not their input",
    ),
    "mlstm": Preset(
        "norm:layer,expand:2,conv:4,gate:silu",
        "Beck et al. (2024, arXiv:2405.04517), whose values pass by the convolution",
    ),
}


def inner_width(parts: BlockParts, width: int) -> int:
    """The hidden size of the cell in a block of a model so wide."""
    return max(round(parts.expand * width), 1)


def check_parts(parts: BlockParts, width: int, shown: int, bidirectional: bool = False) -> None:
    """Raises ValueError, in one line, for parts that do not fit each other.

    Args:
      parts: those.
      width: of the model.
      shown: how many features the recurrence shows in one direction.
      bidirectional: whether there are two.
    """
    if shown % parts.heads:
        raise ValueError(f"inner_norm's heads={parts.heads!r}; allowed: a divisor of {shown}, what the cell shows")
    shown *= 1 + bidirectional
    kept = parts.out == "half_glu" or (parts.out == "none" and (parts.residual or parts.mlp))
    if kept and shown != width:
        raise ValueError(
            f"out's kind={parts.out!r} with {shown} features shown in a model {width} wide; allowed: linear, glu"
        )


def _refuse_below(least: float, what: str, value: float) -> None:
    """Raises ValueError for a value below the least, which 0 as the least is itself."""
    if not (value >= least if least else value > 0):
        raise ValueError(f"{what}={value!r}; allowed: {f'{least} or more' if least else 'a number above 0'}")
