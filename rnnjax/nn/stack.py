"""Layers on layers."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx

from rnnjax.engine.unroll import clean_lengths, zero_past
from rnnjax.gradients.methods import check_gradient
from rnnjax.nn.attention import Transformer, TransformerBlock, check_plain
from rnnjax.nn.bidirectional import Bidirectional, last_step, one_each
from rnnjax.nn.block_parts import BlockParts
from rnnjax.nn.blocks import Block
from rnnjax.nn.rnn import RNN
from rnnjax.types import Array, Cell


class Stack(nnx.Module):
    """Recurrent layers, each of which reads what the one below shows. Time-major.

        y^0 = x;   y^l = RNN_l(dropout(y^{l-1}))  [+ y^{l-1}, if residual and the widths agree]

    Dropout acts between layers alone, neither on x nor in the recurrence nor on the last y (Zaremba et al. 2014,
    arXiv:1409.2329); the residual path (He et al. 2015, arXiv:1512.03385) is not dropped. With a `block` each layer
    stands in one, of the width of xs, and dropout acts on what it adds to its input.

    Args:
      cells: one `Cell` a layer, of which bidirectional layers have two sets of parameters; or what `transformer`
        returns, whose block has no use for residual, method, segments, gradient and cotangent_clip.
      in_features: D.
      dropout: probability of dropping a unit between layers.
      residual: add each layer's input to its output where the widths agree.
      bidirectional: run each layer in both directions, and concatenate what they show.
      block: the parts of the `Block` around each cell; none without.
      dtype, method, segments, gradient, cotangent_clip: of `RNN`.
      rngs: `params`, and `dropout` if there is any.

    Raises ValueError if `cells` is empty, TypeError if it is one Cell.
    """

    def __init__(
        self,
        cells: Sequence[Cell | Transformer],
        in_features: int,
        *,
        dropout: float = 0.0,
        residual: bool = False,
        bidirectional: bool = False,
        block: BlockParts | None = None,
        dtype: jnp.dtype | None = None,
        method: str = "auto",
        segments: int | str = 1,
        gradient: str = "bptt",
        cotangent_clip: float = 0.0,
        rngs: nnx.Rngs,
    ):
        check_cells(cells)
        check_gradient(gradient, bidirectional=bidirectional)
        if block is not None and residual:
            raise ValueError(BLOCK_ADDS)
        options: dict[str, Any] = {"time_major": True, "dtype": dtype, "method": method, "segments": segments}
        options |= {"gradient": gradient, "cotangent_clip": cotangent_clip, "rngs": rngs}
        layers: list[Any] = []
        width = in_features
        for cell in cells:
            if not isinstance(cell, Cell):
                check_plain(residual=residual, block=block or "", **{name: options[name] for name in OF_RNN})
                first = not any(isinstance(layer, TransformerBlock) for layer in layers)
                layer = TransformerBlock(cell, width, bidirectional=bidirectional, first=first, dtype=dtype, rngs=rngs)
            elif block is not None:
                own = {name: options[name] for name in (*OF_RNN, "dtype", "rngs")}
                layer = Block(cell, width, block, bidirectional=bidirectional, dropout=dropout, **own)
            elif bidirectional:
                layer = Bidirectional(*(RNN(cell, width, **options) for _ in range(2)), time_major=True)
            else:
                layer = RNN(cell, width, **options)
            layers.append(layer)
            width = layer.out_features
        self.layers = nnx.List(layers)
        self.residual = residual
        self.bidirectional = bidirectional
        self.out_features = width
        # One stream for all layers, named "dropout" whatever stream its key came from, so that `nnx.reseed` finds it.
        between = dropout and block is None
        self.dropout = nnx.Dropout(dropout, rngs=nnx.Rngs(dropout=rngs.dropout())) if between else None

    def __call__(
        self,
        xs: Array,
        *,
        lengths: Array | None = None,
        initial_carry: tuple | None = None,
        taps: tuple | None = None,
        probe: tuple | None = None,
        outputs: str = "every",
        return_inputs: bool = False,
        first_outputs: Array | None = None,
    ) -> tuple:
        """(carry, ys `[T, ..., H]`), or `[..., H]` if `outputs` is "last"; past a sequence's length ys are zero.

        Args:
          xs: `[T, ..., D]`.
          lengths: integers `[...]`, the valid steps of each sequence.
          initial_carry, taps, probe: as in `unroll`, a tuple with one entry a layer, a pair (forward, backward) where
            bidirectional.
          outputs: "every", or "last" for the last layer's last step alone: that of each direction in running order.
          return_inputs: return (carry, ys, inputs), where `inputs[l]` `[T, ..., D_l]` is what layer l read in this very
            pass, after dropout and residuals, zero past the lengths; of a block, what its recurrence read.
          first_outputs: `[T, ..., H]`, what the first layer, or the recurrence of its block, is to show instead of its
            own outputs: the loss of a model as a function of these.
        """
        lengths = clean_lengths(lengths, xs.shape[0], xs.shape[1:-1])
        each = one_each(len(self.layers), "layer", initial_carry=initial_carry, taps=taps, probe=probe)
        # Padding must not be added to outputs past the length by a residual, nor count in a diagnostic.
        carries: list[Any] = []
        inputs, ys = [], zero_past(xs, lengths)
        for layer, carry, tap, dummy in zip(self.layers, *each, strict=True):
            final = outputs == "last" and len(carries) == len(self.layers) - 1
            instead = first_outputs if not carries else None
            given: dict[str, Any] = {"initial_carry": carry, "taps": tap, "probe": dummy, "seq_lengths": lengths}
            given |= {"return_carry": True, "outputs": "last" if final else "every"}
            if isinstance(layer, Block):
                carry, ys, read = layer(ys, return_inputs=True, first_outputs=instead, **given)
                inputs.append(zero_past(read, lengths))
                carries.append(carry)
                continue
            inputs.append(self.dropout(ys) if carries and self.dropout is not None else ys)
            carry, new = layer(inputs[-1], **given)
            if instead is not None:
                shown = zero_past(instead, lengths)
                new = last_step(shown, lengths, isinstance(layer, Bidirectional)) if final else shown
            carries.append(carry)
            if self.residual and new.shape[-1] == ys.shape[-1]:
                both = isinstance(layer, Bidirectional)
                new = new + (last_step(ys, lengths, both) if final else ys).astype(new.dtype)
            ys = new
        return (tuple(carries), ys, tuple(inputs)) if return_inputs else (tuple(carries), ys)

    def initial_carry(self, batch_shape: tuple[int, ...] = (), steps: int | None = None) -> tuple:
        """What a call starts from by default: one entry a layer, each `[..., H]`; a `KVCache` of so many `steps`."""
        return tuple(layer.initial_carry(batch_shape, steps) for layer in self.layers)

    def make_taps(self, T: int, batch_shape: tuple[int, ...] = ()) -> tuple:
        """Zeros `[T, ..., H]` for each layer and carry part."""
        return tuple(layer.make_taps(T, batch_shape) for layer in self.layers)

    def make_probe(self, T: int, batch_shape: tuple[int, ...] = ()) -> tuple:
        """Zeros `[T, ...]` for each layer and carry part."""
        return tuple(layer.make_probe(T, batch_shape) for layer in self.layers)


BLOCK_ADDS = "residual=True adds each layer's input, and a block does that itself; allowed: residual=False"
OF_RNN = ("method", "segments", "gradient", "cotangent_clip")


def check_cells(cells: Sequence[Cell | Transformer]) -> None:
    """Raises TypeError for one Cell, ValueError for none."""
    if isinstance(cells, Cell | Transformer):
        raise TypeError(f"cells is one {type(cells).__name__}; allowed: a sequence with one a layer, such as [cell]")
    if not cells:
        raise ValueError("cells is empty; allowed: one Cell a layer")
