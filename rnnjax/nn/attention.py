"""A Transformer's block as a layer, called like `RNN`: attention to steps of the past instead of a state."""

import functools
import math
import numbers
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rnnjax.cells.check import like
from rnnjax.engine.hooks import probed, tapped, where
from rnnjax.engine.unroll import clean_lengths, last_valid, zero_past
from rnnjax.gradients.penalties import PENALTIES
from rnnjax.nn.kv_cache import KVCache, in_view, kept
from rnnjax.nn.positions import POSITIONS, slopes, turned, waves
from rnnjax.types import Array


class Transformer(NamedTuple):
    """A layer that attends, as plain values; `transformer` makes and checks it, `TransformerBlock` is the layer."""

    hidden_size: int
    heads: int
    positions: str
    mlp: int
    context: int | None


class Residual(NamedTuple):
    """What taps and probes of a block act on: the residual stream x that enters it, `[..., H]`."""

    x: Array


def transformer(
    hidden_size: int,
    *,
    heads: int = 4,
    positions: Literal["none", "sinusoidal", "rotary", "alibi"] = "rotary",
    mlp: int = 4,
    context: int | None = None,
) -> Transformer:
    """A causal Transformer's layer, for `Stack` and `SequenceModel` in the place of a cell.

        x_t <- x_t + W_o concat_heads(sum_s a_ts v_s),    a_ts = softmax_s(q_t . k_s / sqrt(d))    over s <= t
        x_t <- x_t + W_2 gelu(W_1 LN(x_t)),               q, k, v = W_q LN(x), W_k LN(x), W_v LN(x)

    each map with a bias, d = H / heads. Vaswani et al. (2017, arXiv:1706.03762); with the norm in front of each part,
    Xiong et al. (2020, arXiv:2002.04745).

    Args:
      hidden_size: H.
      heads: how many times it attends, each to other steps; it divides H.
      positions: how it knows which step is which. "none": not at all, but for how many steps it sees. "sinusoidal":
        sin and cos of t / 10000^(2i/H) are added to what the first layer reads (Vaswani et al. 2017). "rotary": q_t and
        k_t are turned by angles t / 10000^(2i/d), so that q_t . k_s knows t - s (RoPE, Su et al. 2021,
        arXiv:2104.09864). "alibi": head n = 1 ... subtracts m |t - s| from q_t . k_s / sqrt(d), m = 2^(-8 n / heads)
        (Press et al. 2021, arXiv:2108.12409).
      mlp: width of the hidden layer of W_1 and W_2, in H.
      context: a step sees that many last steps, itself included; all by default.

    Raises ValueError for values that cannot be.
    """
    for name, value in (("hidden_size", hidden_size), ("heads", heads), ("mlp", mlp), ("context", context)):
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if not (whole and value >= 1) and not (name == "context" and value is None):
            raise ValueError(f"{name}={value!r}; allowed: an integer, 1 or more")
    if hidden_size % heads:
        raise ValueError(f"heads={heads}; allowed: a divisor of hidden_size={hidden_size}")
    if positions not in POSITIONS:
        raise ValueError(f"unknown positions {positions!r}; allowed: {', '.join(POSITIONS)}")
    if positions == "rotary" and hidden_size // heads % 2:
        raise ValueError(
            f"positions='rotary' turns pairs, and hidden_size={hidden_size} with heads={heads} has "
            f"{hidden_size // heads} units a head; allowed: an even number a head, or other positions"
        )
    return Transformer(hidden_size, heads, positions, mlp, context)


PIECE = 64  # steps that ask at once, or more, so that there are eight pieces at most
LAYERS = {"transformer": transformer}


class TransformerBlock(nnx.Module):
    """Attention, then a network of one hidden layer a step, each added to its input: see `transformer`. Time-major.

    Args:
      spec: of `transformer`.
      in_features: D; a linear map to H comes in front where it is not H.
      bidirectional: a step sees the later ones, too; with a context those of the K - 1 that follow.
      first: no other block is below: sinusoidal positions are added here.
      dtype: what to compute in, as in `unroll`; the softmax is in float32 or better.
      rngs: its `params` stream draws the parameters.
    """

    def __init__(
        self,
        spec: Transformer,
        in_features: int,
        *,
        bidirectional: bool = False,
        first: bool = True,
        dtype: jnp.dtype | None = None,
        rngs: nnx.Rngs,
    ):
        H = spec.hidden_size
        linear = functools.partial(nnx.Linear, dtype=dtype, rngs=rngs)
        norm = functools.partial(nnx.LayerNorm, dtype=dtype, rngs=rngs)
        self.entrance = linear(in_features, H) if in_features != H else None
        self.attention_norm, self.mlp_norm = norm(H), norm(H)
        self.query, self.key_value, self.mix = linear(H, H), linear(H, 2 * H), linear(H, H)
        self.widen, self.narrow = linear(H, spec.mlp * H), linear(spec.mlp * H, H)
        self.spec = nnx.static(spec)
        self.in_features = in_features
        self.out_features = H
        self.bidirectional = bidirectional
        self.first = first
        self.dtype = dtype

    def __call__(
        self,
        inputs: Array,
        *,
        initial_carry: KVCache | None = None,
        seq_lengths: Array | None = None,
        return_carry: bool = False,
        taps: Residual | None = None,
        probe: Residual | None = None,
        outputs: str = "every",
    ) -> Any:
        """Outputs `[T, ..., H]`, zero past each length; after the carry, if `return_carry`.

        Args:
          inputs: `[T, ..., D]`.
          initial_carry: of N steps: the oldest are forgotten, as with a context of N. Without one there is nothing
            before the first step, and the carry that is returned has room for the context or, without, for these T.
          seq_lengths: integers `[...]`, the valid steps of each sequence.
          taps, probe: see `make_taps` and `make_probe`.
          outputs: "every", or "last" for each sequence's last step `[..., H]`, zero where the length is 0.
        """
        if outputs not in ("every", "last"):
            raise ValueError(f"outputs is {outputs!r}; allowed: 'every', 'last'")
        T, *batch, features = inputs.shape
        if features != self.in_features:
            raise ValueError(f"inputs have {features} features; allowed: {self.in_features}, the layer's in_features")
        if T == 0:
            raise ValueError(f"inputs have no steps: shape {inputs.shape}")
        lengths = clean_lengths(seq_lengths, T, tuple(batch))
        cache = None if initial_carry is None else self._given(initial_carry, tuple(batch))
        steps = np.arange(T).reshape(*[1] * len(batch), T)  # [..., T], each sequence's own
        steps = steps if cache is None else steps + cache.count[..., None]
        x = self._enter(zero_past(inputs, lengths), steps)
        for name, dummy, shapes in (("taps", taps, self.make_taps), ("probe", probe, self.make_probe)):
            if dummy is not None:
                dummy = like(name, dummy, jax.eval_shape(functools.partial(shapes, T, tuple(batch))))
                (x,) = (tapped if name == "taps" else probed)(Residual(x), dummy)
        carry, attended = self._attend(x, steps, cache, lengths, outputs)
        if outputs == "last":
            x = x[-1:] if lengths is None else last_valid(x, lengths)[None]
        x = x + attended
        y = x + self.narrow(nnx.gelu(self.widen(self.mlp_norm(x))))
        y = zero_past(y, lengths) if outputs == "every" else y[0] if lengths is None else where(lengths > 0, y[0], 0)
        return (carry, y) if return_carry else y

    def initial_carry(self, batch_shape: tuple[int, ...] = (), steps: int | None = None) -> KVCache:
        """A cache without a step in it, with room for `steps` of them, or for the context if that is less.

        Raises ValueError where neither says how many.
        """
        room = min((n for n in (steps, self.spec.context) if n is not None), default=None)
        if room is None or room < 1:
            raise ValueError(f"steps={steps!r}; allowed: 1 or more, how many steps a transformer keeps in view")
        shape = (*batch_shape, self.spec.heads, room, self.spec.hidden_size // self.spec.heads)
        return KVCache(self._zeros(shape), self._zeros(shape), jnp.zeros(batch_shape, jnp.int32))

    def make_taps(self, T: int, batch_shape: tuple[int, ...] = ()) -> Residual:
        """Zeros `[T, ..., H]`; the gradient by them is dL/dx_t, x_t what enters the block at step t."""
        return Residual(self._zeros((T, *batch_shape, self.spec.hidden_size)))

    def make_probe(self, T: int, batch_shape: tuple[int, ...] = ()) -> Residual:
        """Zeros `[T, ...]`; the "gradient" by them is |dL/dx_t|."""
        return Residual(self._zeros((T, *batch_shape)))

    def _zeros(self, shape):
        return jnp.zeros(shape, jnp.float32 if self.dtype is None else self.dtype)

    def _given(self, carry, batch_shape):
        room = jnp.shape(carry[0])[-2] if isinstance(carry, tuple) and len(carry) and jnp.ndim(carry[0]) > 1 else 1
        return like("the carry", carry, jax.eval_shape(lambda: self.initial_carry(batch_shape, room)))

    def _enter(self, inputs, steps):
        x = inputs if self.entrance is None else self.entrance(inputs)
        x = x if self.dtype is None else x.astype(self.dtype)
        if self.spec.positions == "sinusoidal" and self.first:
            x = x + jnp.moveaxis(waves(steps, self.spec.hidden_size), -2, 0).astype(x.dtype)
        return x

    def _attend(self, x, steps, cache, lengths, outputs):
        """(the next cache, what each step `[T, ..., H]`, or each last one `[1, ..., H]`, gathers from those it sees)"""
        spec, h = self.spec, self.attention_norm(x)
        asking, at = h, steps
        if outputs == "last":
            asking = h[-1:] if lengths is None else last_valid(h, lengths)[None]
            end = h.shape[0] if lengths is None else jnp.maximum(lengths, 1)[..., None]
            at = steps[..., :1] + end - 1
        q = self._by_head(self.query(asking), 1)[..., 0, :, :, :]
        new = self._by_head(self.key_value(h), 2)
        k, v = new[..., 0, :, :, :], new[..., 1, :, :, :]
        if spec.positions == "rotary":
            q, k = turned(q, at), turned(k, steps)
        room = (spec.context or k.shape[-2]) if cache is None else cache.keys.shape[-2]
        after, context, of_keys = kept(cache, k, v, lengths, room), spec.context, steps
        if cache is not None:
            context = min(room, context or room)
            k, v, of_keys = in_view(cache, after, k, v, steps)

        def look(asking: slice, seen: slice) -> Array:
            distance = at[..., asking, None] - of_keys[..., None, seen]
            allowed = (of_keys[..., None, seen] >= 0) & (self.bidirectional | (distance >= 0))
            if context is not None:
                allowed &= abs(distance) < context
            if self.bidirectional and lengths is not None:
                allowed &= of_keys[..., None, seen] < (steps[..., 0] + lengths)[..., None, None]
            return _mix(q[..., asking, :], k[..., seen, :], v[..., seen, :], allowed, distance, spec)

        in_order = cache is None and outputs == "every" and not self.bidirectional
        pieces = _pieces(x.shape[0], context) if in_order else [(slice(None), slice(None))]
        mixed = jnp.moveaxis(jnp.concatenate([look(*piece) for piece in pieces], axis=-2), -2, 0)
        return after, self.mix(mixed.reshape(*mixed.shape[:-2], spec.hidden_size))

    def _by_head(self, a, parts):
        """`[T, ..., parts H]` -> `[..., parts, heads, T, H / heads]`."""
        a = a.reshape(*a.shape[:-1], parts, self.spec.heads, -1)
        return jnp.moveaxis(a, 0, -2)


def check_plain(**options: Any) -> None:
    """Raises ValueError for an option of a recurrence, by name, that is not at its default: a block has none."""
    for name, value in options.items():
        if value != OF_A_RECURRENCE[name]:
            raise ValueError(
                f"{name}={value!r} is of a recurrence, and a transformer has none; allowed: {OF_A_RECURRENCE[name]!r}"
            )


OF_A_RECURRENCE = {"residual": False, "method": "auto", "segments": 1, "gradient": "bptt", "cotangent_clip": 0.0}
OF_A_RECURRENCE |= dict.fromkeys(PENALTIES, 0.0) | {"wrap": "", "block": ""}


def _mix(q, k, v, seen, distance, spec):
    """`[..., heads, Tq, d]`: the values that each step sees, weighed by how its query meets their keys."""
    wide = jnp.promote_types(q.dtype, jnp.float32)
    scores = jnp.einsum("...td,...sd->...ts", q / math.sqrt(q.shape[-1]), k, preferred_element_type=wide)
    if spec.positions == "alibi":
        scores -= slopes(spec.heads).astype(wide)[:, None, None] * abs(distance)[..., None, :, :]
    scores = jnp.where(seen[..., None, :, :], scores, jnp.finfo(wide).min)
    return jnp.einsum("...ts,...sd->...td", jax.nn.softmax(scores).astype(v.dtype), v)


def _pieces(T, context):
    """Parts of the steps that ask, and of those that they can see: nothing is computed for a later one."""
    size = max(PIECE, -(-T // 8))
    starts = range(0, T, size)
    return [(slice(t, t + size), slice(0 if context is None else max(0, t + 1 - context), t + size)) for t in starts]
