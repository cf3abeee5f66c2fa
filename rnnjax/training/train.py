"""A whole training run as one pure function of (key, hyperparameters)."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from rnnjax.diagnostics.gradient_flow import rms_over_batch
from rnnjax.keys import Purpose, purpose_key
from rnnjax.nn import SequenceModel
from rnnjax.tasks import check_batch, check_causal, draw
from rnnjax.training.config import Config, Hyperparameters, make_task
from rnnjax.training.curriculum import longest_drawn
from rnnjax.training.model import make_model
from rnnjax.training.objective import penalty, penalty_weights
from rnnjax.training.optimizer import Clipped, clip_by_norm, make_optimizer
from rnnjax.training.scoring import score_batch, score_validation
from rnnjax.training.shards import average_over_devices, on_devices, own_share
from rnnjax.training.stateful import (
    Reading,
    as_one_sequence,
    begin_reading,
    carry_over,
    check_stateful,
    read_on,
    score_streams,
)
from rnnjax.types import Array, Task

BLAME = ("nothing", "loss", "gradient", "update")  # what was first not finite, by `TrainState.blame`


class TrainState(NamedTuple):
    """All that a run carries from step to step; an interrupted run goes on from it bitwise."""

    step: Array  # int32, steps done
    key: Array  # of the run; step t draws its data from fold_in(key, t)
    params: Any  # the model's nnx.Param state
    opt_state: Any
    diverged: Array  # int32, the step at which something was not finite, -1 if none: the run is frozen from there
    blame: Array  # int32, which quantity was first not finite, an index of BLAME
    stream: Any = None  # a `Reading`: where the sequences of a stateful run are


class Train(NamedTuple):
    """A training run as pure functions, all of which jit and vmap over keys and hyperparameters."""

    task: Task
    init: Callable[[Array, Hyperparameters], TrainState]  # (key, hyperparameters) -> state
    # (state, hyperparameters, data=None): `eval_every` steps, or what is left, and a score
    chunk: Callable[..., tuple[TrainState, dict]]
    # (key, hyperparameters, data=None): the whole run; records stacked `[chunks, ...]`
    run: Callable[..., tuple[TrainState, dict]]
    model: Callable[[Any], SequenceModel]  # params -> the model, for evaluation
    # (params, keys [N], data=None, *, split, size, seq_len=None): loss and metrics [N], each of `size` fresh sequences
    # of a `split`; compiled once for each size and length
    score: Callable[..., dict[str, Array]]


def make_train(config: Config, shards: int = 1, start: int = 0) -> Train:
    """The run that `config` describes.

    Batches are drawn on the device, so nothing but the state needs saving. `chunk` and `run` take `task.data`, the
    arrays that they draw from, as an argument; left out, these are written out inside the program.

    A record holds, for the steps since the last one, the mean `loss`, the mean `grad_norm` before clipping and the
    `clipped` fraction; `eval_loss` and the task's metrics on fresh data of a fixed key as `eval_<name>`; and `flow`,
    the root mean square |dL/dh_t| over those steps and sequences, leaves `[T]` for each layer and carry part, if
    `config.gradient_flow` (and the gradient is bptt; else None).

    A loss, gradient or update that is not finite freezes the run where it was: parameters stay at their last
    finite values, and `diverged` and `blame` say when and what.

    Args:
      config: a checked `Config`.
      shards: how many devices split each batch, gradients averaged; it divides the batch size. See `sharded`.
      start: a step that `chunk` is called at, where that is not some number of whole chunks.

    Raises ValueError where JAX's float64 mode is not that of `config.dtype`, and for a model that would see the task's
    answers, see `Task.causal`.
    """
    check_precision(config)
    task = make_task(config)
    check_causal(task, config.task, bidirectional=config.bidirectional)
    if config.stateful:
        check_stateful(task, config.task, bidirectional=config.bidirectional, min_seq_len=config.min_seq_len)
        if shards > 1:
            raise ValueError(
                f"shards={shards}: stateful=True keeps the state of all sequences in one place; allowed: 1"
            )
    shapes = jax.eval_shape(lambda: task.sample(jax.random.key(0), 2))
    check_batch(task, config.task, shapes)
    graphdef, other_state, probe = _shapes_of_model(config, task, shapes.inputs.shape[0], shards)
    program = _Program(config, task, graphdef, other_state, probe, shards, start)
    score = jax.jit(program.score, static_argnames=("split", "size", "seq_len"))
    return Train(task, program.init, program.chunk, program.run, program.model, score)


def check_precision(config: Config) -> None:
    """Raises ValueError where JAX's float64 mode is not that of the config.

    With float64 possible, JAX makes float64 of whatever names no dtype, and without it float32 of all.
    """
    wanted = config.dtype == "float64"
    if jax.config.jax_enable_x64 != wanted:
        allowed = f"inside jax.enable_x64({wanted})"
        raise ValueError(f"dtype={config.dtype!r} needs jax_enable_x64={wanted}; allowed: {allowed}")


@dataclasses.dataclass(frozen=True, eq=False)
class _Program:
    """The parts of a run, each a pure function of its arguments; the fields are known before anything is traced."""

    config: Config
    task: Task
    graphdef: Any  # of the model
    other_state: Any  # the shapes of what the model has beside parameters: streams of random numbers
    probe: Any  # the shapes of the probe that records |dL/dh_t|; None where that is not recorded
    shards: int
    start: int

    def init(self, key, hyperparameters):
        init_key, run_key = jax.random.split(key)
        model = make_model(self.config, self.task, init_key, hyperparameters)
        params, stream = nnx.state(model, nnx.Param), None
        if self.config.stateful:
            key, size = self._keys(run_key, 0)[0], self.config.batch_size
            stream = begin_reading(self.task, model, key, size, "train", None, self.config.seq_len)
        optimizer = make_optimizer(self.config, hyperparameters)
        nothing = jnp.int32(-1)
        return TrainState(jnp.int32(0), run_key, params, optimizer.init(params), nothing, jnp.int32(0), stream)

    def run(self, key, hyperparameters, data=None):
        state, chunks = self.init(key, hyperparameters), -(-self.config.steps // self._length)
        return jax.lax.scan(lambda s, _: self.chunk(s, hyperparameters, data), state, length=chunks)

    def chunk(self, state, hyperparameters, data=None):
        chunk = self._chunk if self.shards == 1 else on_devices(self._chunk, self.shards)
        return chunk(state, hyperparameters, data)

    def model(self, params, dropout_key=None):
        model = nnx.merge(self.graphdef, params, _zeros(self.other_state))
        if dropout_key is None:
            model.eval()
        else:
            model.train()
            apart = {name: jax.random.fold_in(dropout_key, n) for name, n in (("gradient", 1), ("noise", 3))}
            nnx.reseed(model, dropout=dropout_key, **apart)
        return model

    def score(self, params, keys, data=None, *, split, size, seq_len=None):
        if self.config.stateful and seq_len is None:
            model, windows = self.model(params), size * len(keys)
            return score_streams(self.task, model, keys[0], windows, split, data, self.config.seq_len)
        return jax.lax.map(
            lambda key: score_batch(self.task, self.model(params), key, size, split, data, seq_len), keys
        )

    @property
    def _length(self):
        """Steps a chunk."""
        return min(self.config.eval_every, self.config.steps)

    @property
    def _is_ragged(self):
        """Whether the last chunk is over before its end: what is left of it then changes nothing."""
        return (self.config.steps - self.start) % self._length > 0

    def _chunk(self, state, hyperparameters, data):
        length, ragged, steps = self._length, self._is_ragged, self.config.steps
        count = jnp.clip(steps - state.step, 1, length) if ragged else length

        def body(carry, _):
            state, total = carry
            after, record = self._step(state, hyperparameters, data)
            if ragged:
                going = state.step < steps
                after = jax.tree.map(lambda new, old: jnp.where(going, new, old), after, state)
                record = jax.tree.map(lambda leaf: jnp.where(going, leaf, 0), record)
            flow = jax.tree.map(jnp.hypot, total["flow"], record["flow"])
            mean = jax.tree.map(lambda so_far, new: so_far + new / count, total, record)
            return (after, mean | {"flow": flow}), None

        nothing = _zeros(jax.eval_shape(lambda s: self._step(s, hyperparameters, data)[1], state))
        (state, record), _ = jax.lax.scan(body, (state, nothing), length=length)
        record["flow"] = jax.tree.map(lambda leaf: leaf / count**0.5, record["flow"])
        record |= self._evaluate(state.params, data)
        return state, record | {"step": state.step, "diverged": state.diverged, "blame": state.blame}

    def _step(self, state, hyperparameters, data):
        data_key, dropout_key = self._keys(state.key, state.step)
        fresh = place = before = stream = None
        if self.config.stateful:
            batch, fresh, place = read_on(self.task, state.stream, "train", data)
            before = fresh, state.stream.carry
        else:
            longest = longest_drawn(self.config, state.step)
            batch = draw(self.task, data_key, self.config.batch_size, "train", data, longest=longest)
        value, gradient, flow, carry = self._gradient(state.params, batch, dropout_key, before)
        if self.config.stateful:
            stream = Reading(place, carry)
        clipped = clip_by_norm(gradient, hyperparameters["clip"])
        state = self._update(state, hyperparameters, value, clipped, stream)
        record = {"loss": value, "grad_norm": clipped.norm, "clipped": clipped.shortened.astype(jnp.float32)}
        return state, record | {"flow": flow}

    @staticmethod
    def _keys(run_key, step):
        """Of a step's data and of its dropout."""
        return jax.random.split(jax.random.fold_in(run_key, step))

    def _gradient(self, params, batch, key, before):
        """The loss, its gradient, and |dL/dh_t| for each t, of the whole batch on however many devices; and the state
        after it, where `before` holds what the window begins with."""
        size = self.config.batch_size // self.shards
        if self.shards > 1:
            batch, key = own_share(batch, key, size)
        probe = None if self.probe is None else _zeros(self.probe)
        (_, (value, carry)), (gradient, norms) = jax.value_and_grad(self._loss, argnums=(0, 1), has_aux=True)(
            params, probe, batch, key, before
        )
        flow = rms_over_batch(norms, size)
        if self.shards > 1:
            return *average_over_devices(value, gradient, flow, self.shards), None
        return value, gradient, flow, carry

    def _loss(self, params, probe, batch, key, before):
        """(what is minimised, (the task's loss alone, the state after the batch where it is kept))"""
        model, carry = self.model(params, key), None
        if before is None:
            value = self.task.loss(model(batch.inputs, lengths=batch.lengths, probe=probe), batch)
        else:
            start = carry_over(model, *before, self.config.seq_len)
            carry, outputs = model(
                batch.inputs, lengths=batch.lengths, probe=probe, initial_carry=start, return_carry=True
            )
            value = self.task.loss(*as_one_sequence(outputs, batch))
        if not penalty_weights(self.config):
            return value, (value, carry)
        # A second model with the very same masks and no probe: what is recorded is the gradient of the task's loss.
        again, draws = self.model(params, key), jax.random.fold_in(key, 2)
        return value + penalty(self.config, again, batch.inputs, draws, batch.lengths), (value, carry)

    def _update(self, state, hyperparameters, value, clipped: Clipped, stream):
        """The state after a step; where something is not finite, with the parameters, the optimiser and the stream of
        before."""
        optimizer, old = make_optimizer(self.config, hyperparameters), (state.params, state.opt_state, state.stream)
        updates, opt_state = optimizer.update(clipped.gradient, state.opt_state, state.params)
        new = optax.apply_updates(state.params, updates), opt_state, stream
        # The optimiser's moments count, too: one that overflows would stop all later steps in silence.
        finite = [jnp.isfinite(value), jnp.isfinite(clipped.size), _all_finite(new)]
        blame = jnp.select([~ok for ok in finite], [1, 2, 3], 0)
        good = (blame == 0) & (state.diverged < 0)
        params, opt_state, stream = jax.tree.map(lambda a, b: jnp.where(good, a, b), new, old)
        first = (blame > 0) & (state.diverged < 0)
        return TrainState(
            state.step + 1,
            state.key,
            params,
            opt_state,
            jnp.where(first, state.step, state.diverged),
            jnp.where(first, blame, state.blame).astype(jnp.int32),
            stream,
        )

    def _evaluate(self, params, data):
        model = self.model(params)
        if self.config.stateful:
            key = purpose_key(Purpose.EVALUATION)
            windows = self.config.eval_batch
            scores = score_streams(self.task, model, key, windows, "validation", data, self.config.seq_len)
        else:
            scores = score_validation(self.task, model, self.config.eval_batch, data)
        return {f"eval_{name}": value for name, value in scores.items()}


def _shapes_of_model(config: Config, task: Task, T: int, shards: int) -> tuple[Any, Any, Any]:
    """The model's graph, the shapes of its state beside parameters, and those of its probe: see `_Program`."""

    def new():
        return make_model(config, task, jax.random.key(0))

    graphdef, _, other_state = nnx.split(nnx.eval_shape(new), nnx.Param, ...)
    recorded = config.gradient_flow and config.gradient == "bptt"
    probe = nnx.eval_shape(lambda: new().make_probe(T, (config.batch_size // shards,))) if recorded else None
    return graphdef, other_state, probe


def _zeros(shapes: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def _all_finite(tree: Any) -> Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(a)) for a in jax.tree.leaves(tree)]))
