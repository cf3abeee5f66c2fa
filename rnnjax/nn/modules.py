"""Flax NNX modules: any cell as a layer, layers as a stack, and a stack with an encoder and a readout as a model."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.recurrent import flip_sequences

from rnnjax.cells.check import check_cell
from rnnjax.engine.unroll import clean_lengths, in_precision, last_valid, make_probe, make_taps, unroll, zero_past
from rnnjax.gradients.methods import check_gradient, gradient_of
from rnnjax.gradients.penalties import clip_cotangent
from rnnjax.types import Array, Carry, Cell, Params

READOUTS = ("last", "every", "mean")


class SequenceModel(nnx.Module):
    """Encoder, recurrent stack, readout.

        x_t = encode(inputs_t);   y = Stack(x);   outputs = W y + b      of the last step, every step, or the mean step

    With dropout, `model.train()` and `model.eval()` switch it, `nnx.reseed(model, dropout=key)` gives it a key.

    Args:
      cells: one `Cell` a layer, the first layer first.
      input_size: D, or the vocabulary where `tokens`.
      output_size: O.
      tokens: inputs are integers, and the encoder is an embedding.
      embedding_size: width of the encoder. Tokens default to the width of the first cell; other inputs go to the stack
        as they are unless it is given, and through a linear map if so.
      readout: "last" reads each sequence's last valid step, "every" each step, "mean" the mean over the valid steps.
      dropout, residual, bidirectional, dtype, method, segments, gradient, cotangent_clip: of `Stack`.
      rngs: `params`, and `dropout` if there is any.

    Raises ValueError for an unknown `readout`.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        *,
        input_size: int,
        output_size: int,
        tokens: bool = False,
        embedding_size: int | None = None,
        readout: str = "last",
        dropout: float = 0.0,
        residual: bool = False,
        bidirectional: bool = False,
        dtype: jnp.dtype | None = None,
        method: str = "auto",
        segments: int = 1,
        gradient: str = "bptt",
        cotangent_clip: float = 0.0,
        rngs: nnx.Rngs,
    ):
        if readout not in READOUTS:
            raise ValueError(f"unknown readout {readout!r}; allowed: {', '.join(READOUTS)}")
        _check_cells(cells)
        width = input_size
        if tokens:
            width = embedding_size or _width(cells[0], input_size)
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
            dtype=dtype,
            method=method,
            segments=segments,
            gradient=gradient,
            cotangent_clip=cotangent_clip,
            rngs=rngs,
        )
        # Not computed in `dtype`: outputs rounded to bfloat16 would round the loss.
        self.readout = nnx.Linear(self.stack.out_features, output_size, rngs=rngs)
        self.steps_read = readout

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
    ):
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
        if self.steps_read == "mean":  # outputs past a sequence's length are zero
            steps = ys.shape[0] if lengths is None else jnp.maximum(lengths, 1)[..., None]
            ys = jnp.sum(ys, axis=0, dtype=jnp.promote_types(ys.dtype, jnp.float32)) / steps
        found = (carry,) * return_carry + (self.readout(ys),) + (read,) * return_inputs
        return found if len(found) > 1 else found[0]

    def initial_carry(self, batch_shape: tuple[int, ...] = ()) -> tuple:
        """What a call starts from by default, say for a loop that makes one step a call."""
        return self.stack.initial_carry(batch_shape)

    def make_taps(self, T: int, batch_shape: tuple[int, ...] = ()) -> tuple:
        """Zeros `[T, ..., H]` a layer and carry part; the gradient by them is dL/dh_t (see `unroll`)."""
        return self.stack.make_taps(T, batch_shape)

    def make_probe(self, T: int, batch_shape: tuple[int, ...] = ()) -> tuple:
        """Zeros `[T, ...]` a layer and carry part; the "gradient" by them is |dL/dh_t|^2 (see `unroll`)."""
        return self.stack.make_probe(T, batch_shape)


class Stack(nnx.Module):
    """Recurrent layers, each of which reads what the one below shows. Time-major.

        y^0 = x;   y^l = RNN_l(dropout(y^{l-1}))  [+ y^{l-1}, if residual and the widths agree]

    Dropout acts between layers alone, neither on x nor in the recurrence nor on the last y (Zaremba et al. 2014,
    arXiv:1409.2329); the residual path (He et al. 2015, arXiv:1512.03385) is not dropped.

    Args:
      cells: one `Cell` a layer; bidirectional layers have two sets of its parameters.
      in_features: D.
      dropout: probability of dropping a unit between layers.
      residual: add each layer's input to its output where the widths agree.
      bidirectional: run each layer in both directions, and concatenate what they show.
      dtype, method, segments, gradient, cotangent_clip: of `RNN`.
      rngs: `params`, and `dropout` if there is any.

    Raises ValueError if `cells` is empty, TypeError if it is one Cell.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        in_features: int,
        *,
        dropout: float = 0.0,
        residual: bool = False,
        bidirectional: bool = False,
        dtype: jnp.dtype | None = None,
        method: str = "auto",
        segments: int = 1,
        gradient: str = "bptt",
        cotangent_clip: float = 0.0,
        rngs: nnx.Rngs,
    ):
        _check_cells(cells)
        check_gradient(gradient, bidirectional=bidirectional)
        options = {"time_major": True, "dtype": dtype, "method": method, "segments": segments}
        options |= {"gradient": gradient, "cotangent_clip": cotangent_clip, "rngs": rngs}
        layers, width = [], in_features
        for cell in cells:
            layer = RNN(cell, width, **options)
            if bidirectional:
                layer = Bidirectional(layer, RNN(cell, width, **options), time_major=True)
            layers.append(layer)
            width = layer.out_features
        self.layers = nnx.List(layers)
        self.residual = residual
        self.bidirectional = bidirectional
        self.out_features = width
        # One stream for all layers, named "dropout" whatever stream its key came from, so that `nnx.reseed` finds it.
        self.dropout = nnx.Dropout(dropout, rngs=nnx.Rngs(dropout=rngs.dropout())) if dropout else None

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
            pass, after dropout and residuals, zero past the lengths.
          first_outputs: `[T, ..., H]`, what the first layer is to show instead of its own outputs: the loss of a model
            as a function of these.
        """
        lengths = clean_lengths(lengths, xs.shape[0], xs.shape[1:-1])
        each = _each(len(self.layers), "layer", initial_carry=initial_carry, taps=taps, probe=probe)
        # Padding must not be added to outputs past the length by a residual, nor count in a diagnostic.
        carries, inputs, ys = [], [], zero_past(xs, lengths)
        for layer, carry, tap, dummy in zip(self.layers, *each, strict=True):
            final = outputs == "last" and len(carries) == len(self.layers) - 1
            inputs.append(self.dropout(ys) if carries and self.dropout is not None else ys)
            carry, new = layer(
                inputs[-1],
                seq_lengths=lengths,
                initial_carry=carry,
                return_carry=True,
                taps=tap,
                probe=dummy,
                outputs="last" if final else "every",
            )
            if first_outputs is not None and not carries:
                shown = zero_past(first_outputs, lengths)
                new = self._last_step(shown, lengths) if final else shown
            carries.append(carry)
            if self.residual and new.shape[-1] == ys.shape[-1]:
                new = new + (self._last_step(ys, lengths) if final else ys).astype(new.dtype)
            ys = new
        return (tuple(carries), ys, tuple(inputs)) if return_inputs else (tuple(carries), ys)

    def _last_step(self, xs, lengths):
        """`[T, ..., D]` -> `[..., D]` in running order: backward features end at the first step."""
        last = xs[-1] if lengths is None else last_valid(xs, lengths)
        if not self.bidirectional:
            return last
        half = xs.shape[-1] // 2
        return _concatenate(last[..., :half], xs[0][..., half:])

    def initial_carry(self, batch_shape: tuple[int, ...] = ()) -> tuple:
        """What a call starts from by default: one entry a layer, each `[..., H]`."""
        return tuple(layer.initial_carry(batch_shape) for layer in self.layers)

    def make_taps(self, T: int, batch_shape: tuple[int, ...] = ()) -> tuple:
        """Zeros `[T, ..., H]` for each layer and carry part."""
        return tuple(layer.make_taps(T, batch_shape) for layer in self.layers)

    def make_probe(self, T: int, batch_shape: tuple[int, ...] = ()) -> tuple:
        """Zeros `[T, ...]` for each layer and carry part."""
        return tuple(layer.make_probe(T, batch_shape) for layer in self.layers)


def _concatenate(a: Array, b: Array) -> Array:
    return jnp.concatenate([a, b], axis=-1)


class Bidirectional(nnx.Module):
    """Two `RNN`s over the same inputs, one in each direction, called as `flax.nnx.Bidirectional` is.

        y_t = merge(forward_t, backward_t)      Schuster & Paliwal (1997), Bidirectional recurrent neural networks

    The backward one starts at each sequence's own last step. Carries, taps and probes are pairs (forward, backward).
    `merge_fn` may return anything, as in Flax; `rngs` is taken for Flax's sake, as a recurrence draws nothing.
    """

    def __init__(
        self,
        forward_rnn: "RNN",
        backward_rnn: "RNN",
        *,
        merge_fn: Callable[[Array, Array], Array] = _concatenate,
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
        rngs: nnx.Rngs | None = None,
    ):
        """Outputs `[B, T, 2 H]`, time before batch if `time_major`; after the pair of carries, if `return_carry`.

        Arguments as in `RNN`; `reverse`, `keep_order` and `rngs` change nothing, as in Flax. With `outputs="last"`,
        `[B, 2 H]`: each direction's last step in its running order.
        """
        directions = []
        pairs = _each(2, "direction", initial_carry=initial_carry, taps=taps, probe=probe)
        for rnn, backwards, carry, tap, dummy in zip(self._pair, (False, True), *pairs, strict=True):
            directions.append(
                rnn(
                    inputs,
                    initial_carry=carry,
                    seq_lengths=seq_lengths,
                    return_carry=True,
                    time_major=_given(time_major, self.time_major),
                    reverse=backwards,
                    keep_order=True,
                    taps=tap,
                    probe=dummy,
                    outputs=outputs,
                )
            )
        carry, ys = zip(*directions, strict=True)
        ys = jax.tree.map(self.merge_fn, *ys)
        return (carry, ys) if _given(return_carry, self.return_carry) else ys

    def initial_carry(self, batch_shape: tuple[int, ...] = ()) -> tuple[Carry, Carry]:
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


class RNN(nnx.Module):
    """Any `Cell` as a Flax layer, called as `flax.nnx.RNN` is.

        z_t = project(x_t);   h_t = step(h_{t-1}, z_t);   y_t = output(h_t, z_t)

    Its parameters are `nnx.Param`s in `weights`, under the paper's names: `rnn.weights["W_h"]`.

    Differences from Flax: outputs past a sequence's length are zero, and a length of 0 returns the initial carry.

    Args:
      cell: the cell, from `rnnjax.cells` or your own.
      in_features: D.
      time_major, return_carry, reverse, keep_order: defaults of the call.
      dtype, method, segments: as in `unroll`.
      gradient: "bptt", or another that `gradients.methods.gradient_of` knows, such as "tbptt:20" or "rtrl": same
        outputs, without reverse, taps or probe. "uoro" draws its signs from a stream `gradient`, see `nnx.reseed`.
      cotangent_clip: largest |dL/dh_t| passed on from step to step (see `penalties.clip_cotangent`); 0 does not clip.
        `cell` is the plain one, for diagnostics and penalties to measure.
      rngs: its `params` stream draws the parameters.
      unroll, state_axes, broadcast_rngs: of Flax, which has its defaults alone here.

    After `model.eval()` the gradient is that of plain BPTT: unclipped, and nothing is drawn.

    Raises ValueError in one line where the options contradict each other.
    """

    def __init__(
        self,
        cell: Cell,
        in_features: int,
        *,
        time_major: bool = False,
        return_carry: bool = False,
        reverse: bool = False,
        keep_order: bool = False,
        dtype: jnp.dtype | None = None,
        method: str = "auto",
        segments: int = 1,
        gradient: str = "bptt",
        cotangent_clip: float = 0.0,
        unroll: int = 1,
        state_axes: None = None,
        broadcast_rngs: None = None,
        rngs: nnx.Rngs,
    ):
        for name, value, default in (
            ("unroll", unroll, 1),
            ("state_axes", state_axes, None),
            ("broadcast_rngs", broadcast_rngs, None),
        ):
            if value != default:
                raise ValueError(f"{name} is {value!r}; allowed: {default}, as a cell has no state but its carry")
        check_cell(cell, in_features)
        check_gradient(gradient, method=method, segments=segments, cotangent_clip=cotangent_clip, reverse=reverse)
        if method == "deferred" and cell.gates is None:
            raise ValueError("method 'deferred' needs a cell made of gates (see cells.gated); allowed: 'auto', 'scan'")
        self.weights = nnx.Dict(
            {name: nnx.Param(value) for name, value in cell.init(rngs.params(), in_features).items()}
        )
        self.in_features = in_features
        self.out_features = _width(cell, in_features)
        self.time_major = time_major
        self.return_carry = return_carry
        self.reverse = reverse
        self.keep_order = keep_order
        self.dtype = dtype
        self.method = method
        self.segments = segments
        self.gradient = gradient
        self.cotangent_clip = cotangent_clip
        self.deterministic = False  # set by `model.eval()`
        self.signs = nnx.Rngs(gradient=rngs.params()) if gradient == "uoro" else None
        self.cell = nnx.static(cell)

    def __call__(
        self,
        inputs: Array,
        *,
        initial_carry: Carry | None = None,
        seq_lengths: Array | None = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
        taps: Carry | None = None,
        probe: Carry | None = None,
        outputs: str = "every",
        rngs: nnx.Rngs | None = None,
    ):
        """Outputs `[B, T, H]`, time before batch if `time_major`; after the last carry, if `return_carry`.

        Args:
          inputs: `[B, T, D]`, or `[T, B, D]` if `time_major`; any batch shape.
          initial_carry: the carry before the first step, `[B, H]`; that of the cell by default.
          seq_lengths: integers `[B]`, the valid steps of each sequence.
          reverse: run from each sequence's own last step to its first.
          keep_order: if reversed, outputs in the order of the inputs; otherwise in running order.
          taps, probe: as in `unroll`, time-major and in the order of the inputs.
          outputs: "every", or "last" for each sequence's last step in running order `[B, H]`, the others never stored.
          rngs: taken for Flax's sake; a recurrence draws nothing.
        """
        time_major, reverse = _given(time_major, self.time_major), _given(reverse, self.reverse)
        xs = inputs if time_major else jnp.moveaxis(inputs, -2, 0)
        if xs.shape[-1] != self.in_features:
            raise ValueError(
                f"inputs have {xs.shape[-1]} features; allowed: {self.in_features}, the layer's in_features"
            )
        seq_lengths = clean_lengths(seq_lengths, xs.shape[0], xs.shape[1:-1])
        params: Params = {name: param[...] for name, param in self.weights.items()}
        gradient, clip = ("bptt", 0.0) if self.deterministic else (self.gradient, self.cotangent_clip)
        check_gradient(gradient, reverse=reverse, taps=taps is not None, probe=probe is not None)
        options = {"dtype": self.dtype, "method": self.method, "segments": self.segments, "outputs": outputs}
        if gradient == "bptt":
            options["reverse"] = reverse
        key = self.signs.gradient() if gradient == "uoro" else None
        cell = self.cell._replace(init=None)  # of what it may hold, only what runs is kept with the compiled program
        static = (cell, gradient, clip, tuple(options.items()))
        carry, ys = _run(static, params, xs, initial_carry, seq_lengths, taps, probe, key)
        if outputs == "every":
            if reverse and not _given(keep_order, self.keep_order):
                ys = flip_sequences(ys, seq_lengths, num_batch_dims=xs.ndim - 2, time_major=True)
            ys = ys if time_major else jnp.moveaxis(ys, 0, -2)
        return (carry, ys) if _given(return_carry, self.return_carry) else ys

    def initial_carry(self, batch_shape: tuple[int, ...] = ()) -> Carry:
        """What a call starts from by default, `[..., H]`, in the dtype that it computes in."""
        params = [param[...] for param in self.weights.values()]
        dtype = jnp.result_type(*params, jnp.bfloat16) if self.dtype is None else self.dtype
        return jax.tree.map(lambda a: in_precision(a, dtype), self.cell.initial_carry(batch_shape))

    def make_taps(self, T: int, batch_shape: tuple[int, ...] = ()) -> Carry:
        """Zeros `[T, ..., H]` for each part of the carry; the gradient by them is dL/dh_t (see `unroll`)."""
        return make_taps(self.cell, T, batch_shape)

    def make_probe(self, T: int, batch_shape: tuple[int, ...] = ()) -> Carry:
        """Zeros `[T, ...]` for each part of the carry; the "gradient" by them is |dL/dh_t|^2 (see `unroll`)."""
        return make_probe(self.cell, T, batch_shape)


@functools.partial(jax.jit, static_argnums=0, inline=True)  # else each eager call compiles its loop again
def _run(static, params, xs, carry, lengths, taps, probe, key):
    cell, gradient, clip, options = static
    cell = clip_cotangent(cell, clip) if clip else cell
    if gradient == "bptt":
        run = functools.partial(unroll, taps=taps, probe=probe)
    else:
        run = functools.partial(gradient_of(gradient), key=key)
    return run(cell, params, xs, carry, lengths=lengths, **dict(options))


def _each(count: int, of: str, **given) -> list:
    """What was given for each layer or direction, None for each where nothing was."""
    for name, value in given.items():
        if value is not None and not (isinstance(value, tuple | list) and len(value) == count):
            found = f"has {len(value)} entries" if isinstance(value, tuple | list) else f"is a {type(value).__name__}"
            raise ValueError(f"{name} {found}; allowed: a tuple with {count}, one a {of}")
    return [(None,) * count if value is None else value for value in given.values()]


def _given(value, default):
    return default if value is None else value


def _check_cells(cells):
    if isinstance(cells, Cell):
        raise TypeError("cells is one Cell; allowed: a sequence with one Cell a layer, such as [cell]")
    if not cells:
        raise ValueError("cells is empty; allowed: one Cell a layer")


def _width(cell: Cell, in_features: int) -> int:
    """How many features the cell shows."""

    def shown(key, x):
        params = cell.init(key, in_features)
        return cell.output(params, cell.initial_carry(()), cell.project(params, x))

    return jax.eval_shape(shown, jax.random.key(0), jnp.zeros(in_features)).shape[-1]
