"""The block that papers put around a recurrence, as a layer that is called like `RNN`."""

import functools
from typing import Any

import jax.numpy as jnp
from flax import nnx

from rnnjax.engine.hooks import where
from rnnjax.engine.unroll import clean_lengths, last_valid, zero_past
from rnnjax.nn.bidirectional import Bidirectional, last_step
from rnnjax.nn.block_parts import BlockParts, check_parts, inner_width
from rnnjax.nn.rnn import RNN, shown_features
from rnnjax.nn.short_conv import ACTIVATIONS, ConvolvedRNN
from rnnjax.types import Array, Cell

GATED_MLPS = {"swiglu": nnx.silu, "geglu": nnx.gelu}


class Block(nnx.Module):
    """A recurrence with what stands around it, each part there or not. Time-major.

        u = norm(x);    v = act(conv(W_up u));    r = inner_norm(RNN(v))
        x <- x + dropout(out(r * act(W_gate u)))
        x <- x + dropout(W_2 gelu(W_1 norm(x)))

    As with pre-norm Transformers (Xiong et al. 2020, arXiv:2002.04745) x is a stream that each part adds to, of one
    width from block to block; the convolution in front of the recurrence is that of Mamba (Gu & Dao 2023,
    arXiv:2312.00752). All linear maps have a bias. W_up is there where `expand` says so, the convolution's kernel
    starts uniform in +-1/sqrt(k), its bias at 0. With two directions each has a convolution of its own.

    The carry is a `BlockCarry`, a pair of them (forward, backward) with two directions. Taps and probes are of the
    cell's state: `BlockCarry(None, cell's)`.

    Args:
      cell: the cell of the recurrence, of hidden size `inner_width(parts, features)`.
      features: of the stream.
      parts: what is there.
      bidirectional: run the recurrence in both directions, and concatenate what they show.
      dropout: probability of dropping a unit of what is added to the stream.
      dtype: what to compute in, as in `unroll`.
      rngs: `params`, and `dropout` if there is any.
      of_rnn: of `RNN`: method, segments, gradient and cotangent_clip.

    Raises ValueError for parts that cannot be.
    """

    def __init__(
        self,
        cell: Cell,
        features: int,
        parts: BlockParts,
        *,
        bidirectional: bool = False,
        dropout: float = 0.0,
        dtype: jnp.dtype | None = None,
        rngs: nnx.Rngs,
        **of_rnn: Any,
    ):
        read = inner_width(parts, features) if parts.up else features
        one = shown_features(cell, read)
        check_parts(parts, features, one, bidirectional)
        shown = one * (1 + bidirectional)
        norm = functools.partial(make_norm, dtype=dtype, rngs=rngs)
        linear = functools.partial(nnx.Linear, dtype=dtype, rngs=rngs)
        self.norm = norm(parts.norm, features)
        self.up = linear(features, read) if parts.up else None

        def directed() -> ConvolvedRNN:
            rnn = RNN(cell, read, time_major=True, dtype=dtype, rngs=rngs, **of_rnn)
            return ConvolvedRNN(rnn, parts.conv, parts.conv_activation, rngs=rngs)

        self.layer = Bidirectional(directed(), directed(), time_major=True) if bidirectional else directed()
        self.inner_norm = norm(parts.inner_norm, one // parts.heads)
        self.gate = linear(features, shown) if parts.gate != "none" else None
        of_out = {"linear": features, "glu": 2 * features, "half_glu": features}
        self.out = linear(shown, of_out[parts.out]) if parts.out in of_out else None
        hidden = max(round(parts.mlp * features), 1) if parts.mlp else 0
        self.mlp_norm = norm(parts.norm, features) if hidden else None
        self.widen = linear(features, hidden * (1 + (parts.mlp_kind in GATED_MLPS))) if hidden else None
        self.narrow = linear(hidden, features) if hidden else None
        self.dropout = nnx.Dropout(dropout, rngs=nnx.Rngs(dropout=rngs.dropout())) if dropout else None
        self.parts = nnx.static(parts)
        self.features = features
        self.out_features = features if self.out is not None or parts.residual else shown
        self.bidirectional = bidirectional
        self.dtype = dtype

    def __call__(
        self,
        inputs: Array,
        *,
        initial_carry: Any = None,
        seq_lengths: Array | None = None,
        return_carry: bool = False,
        taps: Any = None,
        probe: Any = None,
        outputs: str = "every",
        return_inputs: bool = False,
        first_outputs: Array | None = None,
    ) -> Any:
        """Outputs `[T, ..., features]`, zero past each length; after the carry, if `return_carry`.

        Args:
          inputs: `[T, ..., features]`.
          initial_carry: what a call before this one returned, `BlockCarry`s.
          seq_lengths: integers `[...]`, the valid steps of each sequence.
          taps, probe: see `make_taps` and `make_probe`.
          outputs: "every", or "last" for each sequence's last step `[..., features]`: of two directions, what each
            shows at its own end, with the stream and gate of the last step.
          return_inputs: what the recurrence read, of two directions the forward one, comes last.
          first_outputs: `[T, ..., shown]`, what the recurrence is to show instead of its own outputs.
        """
        if inputs.shape[-1] != self.features:
            raise ValueError(f"inputs have {inputs.shape[-1]} features; allowed: {self.features}, the block's features")
        lengths = clean_lengths(seq_lengths, inputs.shape[0], inputs.shape[1:-1])
        x = zero_past(inputs, lengths)
        x = x if self.dtype is None else x.astype(self.dtype)
        u = x if self.norm is None else self.norm(x)
        v = u if self.up is None else self.up(u)
        carry, r = self.layer(
            v,
            initial_carry=initial_carry,
            seq_lengths=lengths,
            return_carry=True,
            taps=taps,
            probe=probe,
            outputs=outputs,
        )
        if first_outputs is not None:
            r = zero_past(first_outputs, lengths)
            r = last_step(r, lengths, self.bidirectional) if outputs == "last" else r
        if outputs == "last":
            x, u = (a[-1] if lengths is None else last_valid(a, lengths) for a in (x, u))
        y = self._finished(x, u, r)
        if lengths is not None:
            y = zero_past(y, lengths) if outputs == "every" else where(lengths > 0, y, 0)
        before = initial_carry[0] if initial_carry is not None and self.bidirectional else initial_carry
        read = self._forward.convolved(v, before, lengths)[0] if return_inputs else None
        found = (carry,) * return_carry + (y,) + (read,) * return_inputs
        return found if len(found) > 1 else y

    def initial_carry(self, batch_shape: tuple[int, ...] = (), steps: int | None = None) -> Any:
        """What a call starts from by default, however many `steps`; a pair (forward, backward) with two directions."""
        return self.layer.initial_carry(batch_shape, steps)

    def make_taps(self, T: int, batch_shape: tuple[int, ...] = ()) -> Any:
        """Zeros `[T, ..., H]` for each part of the cell's carry; the gradient by them is dL/dh_t (see `unroll`)."""
        return self.layer.make_taps(T, batch_shape)

    def make_probe(self, T: int, batch_shape: tuple[int, ...] = ()) -> Any:
        """Zeros `[T, ...]` for each part of the cell's carry; the "gradient" by them is |dL/dh_t| (see `unroll`)."""
        return self.layer.make_probe(T, batch_shape)

    @property
    def cell(self) -> Cell:
        """That of the recurrence."""
        return self._forward.rnn.cell

    @property
    def parameters(self) -> nnx.Dict:
        """Those of its cell, of two directions the forward one's."""
        return self._forward.rnn.parameters

    @property
    def _forward(self) -> "ConvolvedRNN":
        return self.layer.forward_rnn if isinstance(self.layer, Bidirectional) else self.layer

    def _finished(self, x, u, r):
        """The stream after the block, of itself, what the recurrence read of it, and what that shows."""
        parts = self.parts
        if self.inner_norm is not None:
            heads = r.reshape(*r.shape[:-1], -1, r.shape[-1] // (parts.heads * (1 + self.bidirectional)))
            r = self.inner_norm(heads).reshape(r.shape)
        if self.gate is not None:
            r = r * ACTIVATIONS[parts.gate](self.gate(u))
        r = ACTIVATIONS[parts.out_activation](r)
        mapped = r if self.out is None else self.out(r)
        if parts.out == "glu":
            a, b = jnp.split(mapped, 2, axis=-1)
            mapped = a * nnx.sigmoid(b)
        elif parts.out == "half_glu":
            mapped = r * nnx.sigmoid(mapped)
        x = x + self._dropped(mapped) if parts.residual else self._dropped(mapped)
        if self.narrow is None:
            return x
        a = self.widen(x if self.mlp_norm is None else self.mlp_norm(x))
        if parts.mlp_kind in GATED_MLPS:
            a, b = jnp.split(a, 2, axis=-1)
            a = a * GATED_MLPS[parts.mlp_kind](b)
        else:
            a = nnx.gelu(a)
        return x + self._dropped(self.narrow(a))

    def _dropped(self, a):
        return a if self.dropout is None else self.dropout(a)


def make_norm(kind: str, size: int, **options: Any) -> Any:
    """The norm of that kind, rms or layer, over so many features; None for another one."""
    kinds = {"rms": nnx.RMSNorm, "layer": nnx.LayerNorm}
    return kinds[kind](size, **options) if kind in kinds else None
