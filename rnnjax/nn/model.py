"""A stack with an encoder and a readout as a model."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx

from rnnjax.engine.unroll import clean_lengths, zero_past
from rnnjax.nn.attention import Transformer
from rnnjax.nn.block_parts import BlockParts
from rnnjax.nn.blocks import make_norm
from rnnjax.nn.rnn import shown_features
from rnnjax.nn.stack import Stack, check_cells
from rnnjax.types import Array, Cell

READOUTS = ("last", "every", "mean")


class SequenceModel(nnx.Module):
    """Encoder, recurrent stack, readout.

        x_t = encode(inputs_t);   y = Stack(x);   outputs = W y + b      of the last step, every step, or the mean step

    Where the last layer is a Transformer's, or in a block with a norm, its y is normed first: outputs = W norm(y) + b.
    Where the first is a Transformer's, tokens enter as sqrt(D) times their embedding, as large as what is added to them
    (Vaswani et al. 2017).

    With dropout, `model.train()` and `model.eval()` switch it, `nnx.reseed(model, dropout=key)` gives it a key.

    Args:
      cells: one `Cell`, or what `transformer` returns, a layer, the first layer first.
      input_size: D, or the vocabulary where `tokens`.
      output_size: O.
      tokens: inputs are integers, and the encoder is an embedding.
      embedding_size: width of the encoder. Tokens default to the width of the first cell; other inputs go to the stack
        as they are unless it is given, and through a linear map if so. With a block it is the width of the model, by
        default that at which the block's recurrence has the hidden size of the first cell.
      readout: "last" reads each sequence's last valid step, "every" each step, "mean" the mean over the valid steps.
      dropout, residual, bidirectional, block, dtype, method, segments, gradient, cotangent_clip: of `Stack`.
      rngs: `params`, and `dropout` if there is any.

    Raises ValueError for an unknown `readout`.
    """

    def __init__(
        self,
        cells: Sequence[Cell | Transformer],
        *,
        input_size: int,
        output_size: int,
        tokens: bool = False,
        embedding_size: int | None = None,
        readout: str = "last",
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
        if readout not in READOUTS:
            raise ValueError(f"unknown readout {readout!r}; allowed: {', '.join(READOUTS)}")
        check_cells(cells)
        width = input_size
        if block is not None and embedding_size is None:
            embedding_size = max(round(_shown(cells[0], input_size) / block.expand), 1)
        if tokens:
            width = embedding_size or _shown(cells[0], input_size)
            self.encoder = nnx.Embed(input_size, width, dtype=dtype, rngs=rngs)
        elif embedding_size is not None:
            width = embedding_size
            self.encoder = nnx.Linear(input_size, width, dtype=dtype, rngs=rngs)
        else:
            self.encoder = None
        self.stack = Stack(
            cells,
            width,
            dropout=dropout,
            residual=residual,
            bidirectional=bidirectional,
            block=block,
            dtype=dtype,
            method=method,
            segments=segments,
            gradient=gradient,
            cotangent_clip=cotangent_clip,
            rngs=rngs,
        )
        self.scale = width**0.5 if tokens and isinstance(cells[0], Transformer) else 1.0
        last = "layer" if isinstance(cells[-1], Transformer) else "none" if block is None else block.norm
        self.norm = make_norm(last, self.stack.out_features, rngs=rngs)
        # Not computed in `dtype`: outputs rounded to bfloat16 would round the loss.
        self.readout = nnx.Linear(self.stack.out_features, output_size, rngs=rngs)
        self.steps_read = readout
        self.output_size = output_size
        self.reads_ahead = bidirectional

    def __call__(
        self,
        inputs: Array,
        *,
        lengths: Array | None = None,
        initial_carry: tuple | None = None,
        return_carry: bool = False,
        taps: tuple | None = None,
        probe: tuple | None = None,
        return_inputs: bool = False,
        first_outputs: Array | None = None,
    ) -> Any:
        """Outputs `[..., O]`, or `[T, ..., O]` where every step is read; after the carry, if `return_carry`.

        Args:
          inputs: `[T, ..., D]`, or integers `[T, ...]` where `tokens`.
          lengths: integers `[...]`, the valid steps of each sequence.
          initial_carry, taps, probe: as in `unroll`, a tuple with one entry a layer, a pair (forward, backward) where
            bidirectional.
          return_inputs, first_outputs: as in `Stack`; what each layer read comes last.
        """
        batch_shape = inputs.shape[1:] if isinstance(self.encoder, nnx.Embed) else inputs.shape[1:-1]
        lengths = clean_lengths(lengths, inputs.shape[0], batch_shape)
        inputs = zero_past(inputs, lengths)  # padding that is not finite would spoil the encoder's gradient
        xs = inputs if self.encoder is None else self.encoder(inputs)
        xs = xs if self.scale == 1 else xs * self.scale
        outputs = "last" if self.steps_read == "last" else "every"
        carry, ys, read = self.stack(
            xs,
            lengths=lengths,
            initial_carry=initial_carry,
            taps=taps,
            probe=probe,
            outputs=outputs,
            return_inputs=True,
            first_outputs=first_outputs,
        )
        if self.norm is not None:
            ys = self.norm(ys)
            ys = zero_past(ys, lengths) if self.steps_read == "mean" else ys
        if self.steps_read == "mean":  # outputs past a sequence's length are zero
            steps = ys.shape[0] if lengths is None else jnp.maximum(lengths, 1)[..., None]
            ys = jnp.sum(ys, axis=0, dtype=jnp.promote_types(ys.dtype, jnp.float32)) / steps
        found = (carry,) * return_carry + (self.readout(ys),) + (read,) * return_inputs
        return found if len(found) > 1 else found[0]

    def initial_carry(self, batch_shape: tuple[int, ...] = (), steps: int | None = None) -> tuple:
        """What a call starts from by default, say for a loop that makes one step a call.

        steps: how many past steps a layer that attends is to keep in view, itself included; others have no use for it.
        """
        return self.stack.initial_carry(batch_shape, steps)

    def make_taps(self, T: int, batch_shape: tuple[int, ...] = ()) -> tuple:
        """Zeros `[T, ..., H]` a layer and carry part; the gradient by them is dL/dh_t (see `unroll`)."""
        return self.stack.make_taps(T, batch_shape)

    def make_probe(self, T: int, batch_shape: tuple[int, ...] = ()) -> tuple:
        """Zeros `[T, ...]` a layer and carry part; the "gradient" by them is |dL/dh_t| (see `unroll`)."""
        return self.stack.make_probe(T, batch_shape)


def _shown(cell, input_size):
    return cell.hidden_size if isinstance(cell, Transformer) else shown_features(cell, input_size)
