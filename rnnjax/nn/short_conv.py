"""A recurrence with a short causal convolution in front of it."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.recurrent import flip_sequences

from rnnjax.cells.check import like
from rnnjax.nn.rnn import RNN
from rnnjax.types import Array, Carry

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "none": lambda a: a,
    "silu": nnx.silu,
    "gelu": nnx.gelu,
    "sigmoid": nnx.sigmoid,
}


class BlockCarry(NamedTuple):
    """What a block carries from step to step."""

    conv: Array | None  # [..., k - 1, D] the last inputs of the convolution, the oldest first; None without one
    cell: Carry


class ConvolvedRNN(nnx.Module):
    """A short convolution, if any, and a recurrence over what comes out, in one direction of time. Time-major.

        v_t = act(sum_j w_j * u_{t-k+1+j} + b),  j = 0 .. k - 1;    y = RNN(v)

    What lies before the first step is 0, or in the carry. Called as `RNN` is.
    """

    def __init__(self, rnn: RNN, steps: int, activation: str, *, rngs: nnx.Rngs):
        self.rnn = rnn
        self.out_features = rnn.out_features
        self.steps = steps
        self.activation = activation
        shape, bound = (steps, rnn.in_features), max(steps, 1) ** -0.5
        draw = functools.partial(jax.random.uniform, shape=shape, minval=-bound, maxval=bound)
        self.kernel = nnx.Param(draw(rngs.params())) if steps else None
        self.bias = nnx.Param(jnp.zeros(rnn.in_features)) if steps else None

    def __call__(
        self,
        inputs: Array,
        *,
        initial_carry: BlockCarry | None = None,
        seq_lengths: Array | None = None,
        return_carry: bool = False,
        reverse: bool = False,
        taps: BlockCarry | None = None,
        probe: BlockCarry | None = None,
        outputs: str = "every",
        **of_rnn: Any,
    ) -> Any:
        """Outputs `[T, ..., H]` in the order of the inputs; after the carry, if `return_carry`.

        Arguments as in `RNN`, which has those that are not named here.
        """
        if of_rnn.get("resets") is not None:
            raise ValueError("resets in a block; allowed: one sequence a row")
        v, conv = self.convolved(inputs, initial_carry, seq_lengths, reverse)
        of_cell = {"taps": taps, "probe": probe, "initial_carry": initial_carry}
        carry, y = self.rnn(
            v,
            seq_lengths=seq_lengths,
            return_carry=True,
            time_major=True,
            reverse=reverse,
            keep_order=True,
            outputs=outputs,
            **{name: None if tree is None else as_block_carry(name, tree).cell for name, tree in of_cell.items()},
        )
        return (BlockCarry(conv, carry), y) if return_carry else y

    def convolved(
        self, inputs: Array, carry: BlockCarry | None, lengths: Array | None, reverse: bool = False
    ) -> tuple[Array, Array | None]:
        """(what the recurrence reads `[T, ..., D]`, the last inputs after it `[..., k - 1, D]`)."""
        if self.kernel is None or self.bias is None:
            return inputs, None
        batch = inputs.shape[1:-1]
        flip = functools.partial(flip_sequences, seq_lengths=lengths, num_batch_dims=len(batch), time_major=True)
        u = flip(inputs) if reverse else inputs
        before = self._before(batch).astype(u.dtype)
        if carry is not None:
            before = like("the carry's conv", as_block_carry("the carry", carry).conv, before).astype(u.dtype)
        past, T = self.steps - 1, u.shape[0]
        u = jnp.concatenate([jnp.moveaxis(before, -2, 0), u])  # [k - 1 + T, ..., D]
        kernel, bias = (p[...].astype(u.dtype) for p in (self.kernel, self.bias))
        v = ACTIVATIONS[self.activation](sum(kernel[j] * u[j : j + T] for j in range(self.steps)) + bias)
        if lengths is None:
            after = u[T:]
        else:
            index = (jnp.arange(past).reshape(-1, *[1] * lengths.ndim) + lengths)[..., None]
            after = jnp.take_along_axis(u, index, axis=0)
        return flip(v) if reverse else v, jnp.moveaxis(after, 0, -2)

    def initial_carry(self, batch_shape: tuple[int, ...] = (), steps: int | None = None) -> BlockCarry:
        """What a call starts from by default, however many `steps`."""
        return BlockCarry(self._before(batch_shape) if self.steps else None, self.rnn.initial_carry(batch_shape))

    def make_taps(self, T: int, batch_shape: tuple[int, ...] = ()) -> BlockCarry:
        """Zeros `[T, ..., H]` for each part of the cell's carry."""
        return BlockCarry(None, self.rnn.make_taps(T, batch_shape))

    def make_probe(self, T: int, batch_shape: tuple[int, ...] = ()) -> BlockCarry:
        """Zeros `[T, ...]` for each part of the cell's carry."""
        return BlockCarry(None, self.rnn.make_probe(T, batch_shape))

    def _before(self, batch_shape):
        dtype = jnp.float32 if self.rnn.dtype is None else self.rnn.dtype
        return jnp.zeros((*batch_shape, self.steps - 1, self.rnn.in_features), dtype)


def as_block_carry(name: str, tree: Any) -> BlockCarry:
    """`tree` as a BlockCarry, for which a plain pair may stand. Raises TypeError where it is none."""
    if not (isinstance(tree, tuple | list) and len(tree) == 2):
        raise TypeError(f"{name} of a block is a {type(tree).__name__}; allowed: a BlockCarry(conv, cell)")
    return BlockCarry(*tree)
