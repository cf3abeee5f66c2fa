"""A pair of layers, one in each direction of time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from rnnjax.engine.unroll import last_valid
from rnnjax.nn.rnn import given
from rnnjax.types import Array, Carry


def concatenate(a: Array, b: Array) -> Array:
    """Both side by side: `[..., 2 H]`."""
    return jnp.concatenate([a, b], axis=-1)


class Bidirectional(nnx.Module):
    """Two `RNN`s over the same inputs, one in each direction, called as `flax.nnx.Bidirectional` is.

        y_t = merge(forward_t, backward_t)      Schuster & Paliwal (1997), Bidirectional recurrent neural networks

    The backward one starts at each sequence's own last step. Carries, taps and probes are pairs (forward, backward).
    Each is an `RNN`, or a layer called as one. `merge_fn` may return anything, as in Flax; so is `rngs` taken here.
    """

    def __init__(
        self,
        forward_rnn: Any,
        backward_rnn: Any,
        *,
        merge_fn: Callable[[Array, Array], Array] = concatenate,
        time_major: bool = False,
        return_carry: bool = False,
        rngs: nnx.Rngs | bool = True,
    ):
        self.forward_rnn = forward_rnn
        self.backward_rnn = backward_rnn
        self.merge_fn = merge_fn
        self.time_major = time_major
        self.return_carry = return_carry

    @property
    def out_features(self) -> int:
        """How many features a step of the merged outputs has; ValueError where they are not one array."""
        shown = (jax.ShapeDtypeStruct((2, 2, rnn.out_features), jnp.float32) for rnn in self._pair)
        merged = jax.eval_shape(self.merge_fn, *shown)
        if not isinstance(merged, jax.ShapeDtypeStruct):
            raise ValueError(f"merge_fn returns a {type(merged).__name__}; allowed in a stack: one array [..., O]")
        return merged.shape[-1]

    def __call__(
        self,
        inputs: Array,
        *,
        initial_carry: tuple[Carry, Carry] | None = None,
        seq_lengths: Array | None = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
        taps: tuple[Carry, Carry] | None = None,
        probe: tuple[Carry, Carry] | None = None,
        outputs: str = "every",
        resets: Array | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> Any:
        """Outputs `[B, T, 2 H]`, time before batch if `time_major`; after the pair of carries, if `return_carry`.

        Arguments as in `RNN`; `reverse` and `keep_order` change nothing, as in Flax. With `outputs="last"`,
        `[B, 2 H]`: each direction's last step in its running order.
        """
        directions = []
        pairs = one_each(2, "direction", initial_carry=initial_carry, taps=taps, probe=probe)
        for rnn, backwards, carry, tap, dummy in zip(self._pair, (False, True), *pairs, strict=True):
            directions.append(
                rnn(
                    inputs,
                    initial_carry=carry,
                    seq_lengths=seq_lengths,
                    return_carry=True,
                    time_major=given(time_major, self.time_major),
                    reverse=backwards,
                    keep_order=True,
                    taps=tap,
                    probe=dummy,
                    outputs=outputs,
                    resets=resets,
                    rngs=rngs,
                )
            )
        carry, ys = zip(*directions, strict=True)
        ys = jax.tree.map(self.merge_fn, *ys)
        return (carry, ys) if given(return_carry, self.return_carry) else ys

    def initial_carry(self, batch_shape: tuple[int, ...] = (), steps: int | None = None) -> tuple[Carry, Carry]:
        """What a call starts from by default, a pair of carries `[..., H]`."""
        return tuple(rnn.initial_carry(batch_shape) for rnn in self._pair)

    def make_taps(self, T: int, batch_shape: tuple[int, ...] = ()) -> tuple[Carry, Carry]:
        """A pair of zeros `[T, ..., H]` for each part of the carry."""
        return tuple(rnn.make_taps(T, batch_shape) for rnn in self._pair)

    def make_probe(self, T: int, batch_shape: tuple[int, ...] = ()) -> tuple[Carry, Carry]:
        """A pair of zeros `[T, ...]` for each part of the carry."""
        return tuple(rnn.make_probe(T, batch_shape) for rnn in self._pair)

    @property
    def _pair(self):
        return self.forward_rnn, self.backward_rnn


def last_step(xs: Array, lengths: Array | None, bidirectional: bool) -> Array:
    """`[T, ..., D]` -> `[..., D]` in running order: of two directions the backward half ends at the first step."""
    last = xs[-1] if lengths is None else last_valid(xs, lengths)
    if not bidirectional:
        return last
    half = xs.shape[-1] // 2
    return concatenate(last[..., :half], xs[0][..., half:])


def one_each(count: int, of: str, **given: Any) -> list:
    """What was given for each layer or direction, None for each where nothing was."""
    for name, value in given.items():
        if value is not None and not (isinstance(value, tuple | list) and len(value) == count):
            found = f"has {len(value)} entries" if isinstance(value, tuple | list) else f"is a {type(value).__name__}"
            raise ValueError(f"{name} {found}; allowed: a tuple with {count}, one a {of}")
    return [(None,) * count if value is None else value for value in given.values()]
