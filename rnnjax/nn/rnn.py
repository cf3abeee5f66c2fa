"""Any cell as a Flax layer."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.recurrent import flip_sequences

from rnnjax.cells.check import check_cell, draws_noise
from rnnjax.engine.runners import check_method
from rnnjax.engine.unroll import clean_lengths, in_precision, make_probe, make_taps, unroll
from rnnjax.gradients.methods import check_gradient, gradient_of
from rnnjax.gradients.penalties import clip_cotangent
from rnnjax.types import Array, Carry, Cell, Params

NOISE = 2**31 - 2  # folded into the key of a layer's parameters


class RNN(nnx.Module):
    """Any `Cell` as a Flax layer, called as `flax.nnx.RNN` is.

        z_t = project(x_t);   h_t = step(h_{t-1}, z_t);   y_t = output(h_t, z_t)

    Its parameters are `nnx.Param`s in `parameters`, under the paper's names: `rnn.parameters["W_h"]`.

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

    A cell that draws noise (see `Cell.project`) draws from a stream `noise`, anew at each call, and trains by "bptt".
    After `model.eval()` nothing is drawn, and the gradient is that of plain BPTT, unclipped.

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
        segments: int | str = 1,
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
        noisy = draws_noise(cell, in_features)
        options: dict[str, Any] = {"method": method, "segments": segments, "cotangent_clip": cotangent_clip}
        check_gradient(gradient, **options, reverse=reverse, noise=noisy)
        check_method(method, cell)
        key = rngs.params()
        self.parameters = nnx.Dict({name: nnx.Param(value) for name, value in cell.init(key, in_features).items()})
        self.noise = nnx.Rngs(noise=jax.random.fold_in(key, NOISE)) if noisy else None
        self.in_features = in_features
        self.out_features = shown_features(cell, in_features)
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
        resets: Array | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> Any:
        """Outputs `[B, T, H]`, time before batch if `time_major`; after the last carry, if `return_carry`.

        Args:
          inputs: `[B, T, D]`, or `[T, B, D]` if `time_major`; any batch shape.
          initial_carry: the carry before the first step, `[B, H]`; that of the cell by default.
          seq_lengths: integers `[B]`, the valid steps of each sequence.
          reverse: run from each sequence's own last step to its first.
          keep_order: if reversed, outputs in the order of the inputs; otherwise in running order.
          taps, probe: as in `unroll`, time-major and in the order of the inputs.
          outputs: "every", or "last" for each sequence's last step in running order `[B, H]`, the others never stored.
          resets: booleans `[B, T]`, where a new sequence begins in the same row (see `unroll`).
          rngs: whose stream `noise` a cell that draws noise draws from; by default the layer's own.
        """
        time_major, reverse = given(time_major, self.time_major), given(reverse, self.reverse)
        xs = inputs if time_major else jnp.moveaxis(inputs, -2, 0)
        if xs.shape[-1] != self.in_features:
            raise ValueError(
                f"inputs have {xs.shape[-1]} features; allowed: {self.in_features}, the layer's in_features"
            )
        seq_lengths = clean_lengths(seq_lengths, xs.shape[0], xs.shape[1:-1])
        gradient, clip = ("bptt", 0.0) if self.deterministic else (self.gradient, self.cotangent_clip)
        asked: dict[str, Any] = {"taps": taps is not None, "probe": probe is not None, "resets": resets is not None}
        check_gradient(gradient, reverse=reverse, **asked)
        if resets is not None and not time_major:
            resets = jnp.moveaxis(resets, -1, 0)
        options = {"dtype": self.dtype, "method": self.method, "segments": self.segments, "outputs": outputs}
        if gradient == "bptt":
            options["reverse"] = reverse
        key = self.signs.gradient() if gradient == "uoro" else None
        noise = None if self.noise is None or self.deterministic else (rngs or self.noise).noise()
        cell = self.cell._replace(init=None)  # of what it may hold, only what runs is kept with the compiled program
        static = (cell, gradient, clip, tuple(options.items()))
        args = initial_carry, seq_lengths, resets, taps, probe
        carry, ys = _run(static, self._params(), xs, args, key, noise)
        if outputs == "every":
            if reverse and not given(keep_order, self.keep_order):
                ys = flip_sequences(ys, seq_lengths, num_batch_dims=xs.ndim - 2, time_major=True)
            ys = ys if time_major else jnp.moveaxis(ys, 0, -2)
        return (carry, ys) if given(return_carry, self.return_carry) else ys

    def initial_carry(self, batch_shape: tuple[int, ...] = (), steps: int | None = None) -> Carry:
        """What a call starts from by default, `[..., H]`, in the dtype that it computes in, however many `steps`."""
        params = self._params()
        dtype = jnp.result_type(*params.values(), jnp.bfloat16) if self.dtype is None else self.dtype
        carry = self.cell.initial_carry(self.cell.weights(params), batch_shape)
        return jax.tree.map(lambda a: in_precision(a, dtype), carry)

    def make_taps(self, T: int, batch_shape: tuple[int, ...] = ()) -> Carry:
        """Zeros `[T, ..., H]` for each part of the carry; the gradient by them is dL/dh_t (see `unroll`)."""
        return make_taps(self.cell, self._params(), T, batch_shape)

    def make_probe(self, T: int, batch_shape: tuple[int, ...] = ()) -> Carry:
        """Zeros `[T, ...]` for each part of the carry; the "gradient" by them is |dL/dh_t| (see `unroll`)."""
        return make_probe(self.cell, self._params(), T, batch_shape)

    def _params(self) -> Params:
        return {name: param[...] for name, param in self.parameters.items()}


@functools.partial(jax.jit, static_argnums=0, inline=True)  # else each eager call compiles its loop again
def _run(static, params, xs, args, key, noise):
    cell, gradient, clip, options = static
    carry, lengths, resets, taps, probe = args
    cell = clip_cotangent(cell, clip) if clip else cell
    if gradient == "bptt":
        run = functools.partial(unroll, resets=resets, taps=taps, probe=probe, key=noise)
    else:
        run = functools.partial(gradient_of(gradient), key=key)
    return run(cell, params, xs, carry, lengths=lengths, **dict(options))


def given(value: Any, default: Any) -> Any:
    """What was given; the default where that is None."""
    return default if value is None else value


def shown_features(cell: Cell, in_features: int) -> int:
    """How many features the cell shows."""

    def shown(key, x):
        weights = cell.weights(cell.init(key, in_features))
        return cell.output(weights, cell.initial_carry(weights, ()), cell.project(weights, x))

    return jax.eval_shape(shown, jax.random.key(0), jnp.zeros(in_features)).shape[-1]
