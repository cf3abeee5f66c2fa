"""A whole training run as one pure function of (key, hyperparameters)."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.flatten_util import ravel_pytree
from jax.sharding import PartitionSpec as P

from rnnjax.diagnostics.gradient_flow import rms_over_batch
from rnnjax.gradients.penalties import PENALTIES
from rnnjax.keys import Purpose, purpose_key
from rnnjax.nn import SequenceModel
from rnnjax.norms import rms, scaled_norm
from rnnjax.tasks import check_batch, check_causal, draw
from rnnjax.training.config import Config, make_cell, make_task
from rnnjax.types import Array, Batch, Task

Hyperparameters = dict[str, Array]  # the traced settings by name, such as lr and cell.gain: `hyperparameters`
BLAME = ("nothing", "loss", "gradient", "update")  # what was first not finite, by `TrainState.blame`
EVALUATION_CHUNK = 256


class TrainState(NamedTuple):
    """All that a run carries from step to step; an interrupted run goes on from it bitwise."""

    step: Array  # int32, steps done
    key: Array  # of the run; step t draws its data from fold_in(key, t)
    params: Any  # the model's nnx.Param state
    opt_state: Any
    diverged: Array  # int32, the step at which something was not finite, -1 if none: the run is frozen from there
    blame: Array  # int32, which quantity was first not finite, an index of BLAME


class Train(NamedTuple):
    """A training run as pure functions, all of which jit and vmap over keys and hyperparameters."""

    task: Task
    init: Callable[[Array, Hyperparameters], TrainState]  # (key, hyperparameters) -> state
    # (state, hyperparameters, data=None): `eval_every` steps, or what is left, and a score
    chunk: Callable[..., tuple[TrainState, dict]]
    # (key, hyperparameters, data=None): the whole run; records stacked `[chunks, ...]`
    run: Callable[..., tuple[TrainState, dict]]
    model: Callable[[Any], SequenceModel]  # params -> the model, for evaluation


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
    axis_name = "batch" if shards > 1 else None
    graphdef, _, rest = nnx.split(_abstract_model(config, task), nnx.Param, ...)
    batch_size = config.batch_size // shards
    shapes = jax.eval_shape(lambda: task.sample(jax.random.key(0), 2))
    check_batch(task, config.task, shapes)
    T = shapes.inputs.shape[0]
    probed = config.gradient_flow and config.gradient == "bptt"
    probe = nnx.eval_shape(lambda: _model(config, task, jax.random.key(0)).make_probe(T, (batch_size,)))

    def merge(params, dropout_key=None):
        noise = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), rest)
        model = nnx.merge(graphdef, params, noise)
        if dropout_key is None:
            model.eval()
        else:
            model.train()
            nnx.reseed(model, dropout=dropout_key, gradient=jax.random.fold_in(dropout_key, 1))
        return model

    def init(key, hyperparameters):
        init_key, run_key = jax.random.split(key)
        params = nnx.state(_model(config, task, init_key, hyperparameters), nnx.Param)
        optimizer = make_optimizer(config, hyperparameters)
        nothing = jnp.int32(-1)
        return TrainState(jnp.int32(0), run_key, params, optimizer.init(params), nothing, jnp.int32(0))

    def loss(params, probe, batch, key):
        model = merge(params, key)
        value = task.loss(model(batch.inputs, lengths=batch.lengths, probe=probe), batch)
        if not penalty_weights(config):
            return value, value
        # A second model with the very same masks and no probe: what is recorded is the gradient of the task's loss.
        again, draws = merge(params, key), jax.random.fold_in(key, 2)
        return value + penalty(config, again, batch.inputs, draws, batch.lengths), value

    def step(state, hyperparameters, data):
        data_key, dropout_key = jax.random.split(jax.random.fold_in(state.key, state.step))
        batch = draw(task, data_key, config.batch_size, "train", data)
        if axis_name is not None:
            index = jax.lax.axis_index(axis_name)
            batch = _slice_of_batch(batch, index * batch_size, batch_size)
            dropout_key = jax.random.fold_in(dropout_key, index)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), probe) if probed else None
        (_, value), (gradient, norms) = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(
            state.params, zeros, batch, dropout_key
        )
        flow = rms_over_batch(norms, batch_size)
        if axis_name is not None:  # one all-reduce: each device's flow has a place of its own in it
            apart = jax.tree.map(lambda f: jnp.zeros((shards, *f.shape), f.dtype).at[index].set(f), flow)
            value, gradient, apart = mean_over_devices((value, gradient, apart), axis_name)
            flow = jax.tree.map(lambda f: shards * rms(f, 0), apart)
        size, scale = scaled_norm(gradient)
        norm, clip = size * scale, hyperparameters["clip"]
        clipped = (clip > 0) & (norm > clip)
        gradient = jax.tree.map(
            lambda g: jnp.where(clipped, g * (1 / scale) * (clip / size), g).astype(g.dtype), gradient
        )
        updates, opt_state = make_optimizer(config, hyperparameters).update(gradient, state.opt_state, state.params)
        new = optax.apply_updates(state.params, updates), opt_state
        # The optimiser's moments count, too: one that overflows would stop all later steps in silence.
        finite = [jnp.isfinite(value), jnp.isfinite(size), _all_finite(new)]
        blame = jnp.select([~ok for ok in finite], [1, 2, 3], 0)
        good = (blame == 0) & (state.diverged < 0)
        params, opt_state = jax.tree.map(
            lambda a, old: jnp.where(good, a, old),
            new,
            (state.params, state.opt_state),
        )
        first = (blame > 0) & (state.diverged < 0)
        state = TrainState(
            state.step + 1,
            state.key,
            params,
            opt_state,
            jnp.where(first, state.step, state.diverged),
            jnp.where(first, blame, state.blame).astype(jnp.int32),
        )
        return state, {"loss": value, "grad_norm": norm, "clipped": clipped.astype(jnp.float32), "flow": flow}

    length = min(config.eval_every, config.steps)
    # Then the last chunk is over before its end, and what is left of it changes nothing.
    ragged = (config.steps - start) % length > 0

    def chunk(state, hyperparameters, data=None):
        count = jnp.clip(config.steps - state.step, 1, length) if ragged else length

        def body(carry, _):
            state, total = carry
            after, record = step(state, hyperparameters, data)
            if ragged:
                going = state.step < config.steps
                after = jax.tree.map(lambda new, old: jnp.where(going, new, old), after, state)
                record = jax.tree.map(lambda leaf: jnp.where(going, leaf, 0), record)
            flow = jax.tree.map(jnp.hypot, total["flow"], record["flow"])
            mean = jax.tree.map(lambda so_far, new: so_far + new / count, total, record)
            return (after, mean | {"flow": flow}), None

        shapes = jax.eval_shape(lambda s: step(s, hyperparameters, data)[1], state)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        (state, record), _ = jax.lax.scan(body, (state, zeros), length=length)
        record["flow"] = jax.tree.map(lambda leaf: leaf / count**0.5, record["flow"])
        record |= evaluate(state.params, data)
        return state, record | {"step": state.step, "diverged": state.diverged, "blame": state.blame}

    def evaluate(params, data):
        model = merge(params)

        def mean(key, size):
            batch = draw(task, key, size, "validation", data)
            outputs = model(batch.inputs, lengths=batch.lengths)
            return {"loss": task.loss(outputs, batch)} | task.metrics(outputs, batch)

        whole, rest = divmod(config.eval_batch, EVALUATION_CHUNK)
        keys = jax.random.split(purpose_key(Purpose.EVALUATION), whole + 1)
        parts = []  # (how many sequences, their means)
        if whole:
            means = jax.lax.map(lambda key: mean(key, EVALUATION_CHUNK), keys[:whole])
            parts.append((whole * EVALUATION_CHUNK, jax.tree.map(jnp.mean, means)))
        if rest:
            parts.append((rest, mean(keys[whole], rest)))
        names = parts[0][1]
        return {f"eval_{n}": sum(count * part[n] for count, part in parts) / config.eval_batch for n in names}

    def run(key, hyperparameters, data=None):
        state = init(key, hyperparameters)
        return jax.lax.scan(lambda s, _: chunk(s, hyperparameters, data), state, length=-(-config.steps // length))

    if shards > 1:
        mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:shards]), (axis_name,))
        chunk = jax.shard_map(chunk, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)
    return Train(task, init, chunk, run, merge)


def check_precision(config: Config) -> None:
    """Raises ValueError where JAX's float64 mode is not that of the config.

    With float64 possible, JAX makes float64 of whatever names no dtype, and without it float32 of all.
    """
    wanted = config.dtype == "float64"
    if jax.config.jax_enable_x64 != wanted:
        allowed = f"inside jax.enable_x64({wanted})"
        raise ValueError(f"dtype={config.dtype!r} needs jax_enable_x64={wanted}; allowed: {allowed}")


def sharded(config: Config, devices: Sequence[jax.Device]) -> int:
    """How many of `devices` should split each batch of one run: all of them where that wins, else 1.

    On a CPU, devices are cores: a loop of small matmuls on half the batch each, meeting once a step to average
    gradients, beats one loop whose every matmul is split.
    """
    count = len(devices)
    return count if config.batch_size % count == 0 and config.batch_size >= 8 * count else 1


def mean_over_devices(tree: Any, axis_name: str) -> Any:
    """The mean of each leaf over the devices of `axis_name`, in one all-reduce: each costs threads a meeting."""
    flat, unravel = ravel_pytree(tree)
    return unravel(jax.lax.pmean(flat, axis_name))


def make_optimizer(config: Config, hyperparameters: Hyperparameters) -> optax.GradientTransformation:
    """The optax optimiser that `config` names, with learning rate and weight decay as they stand in
    `hyperparameters`, tracers allowed.

    Weight decay is decoupled for adamw (Loshchilov & Hutter 2019) and an L2 penalty's gradient elsewhere.
    """
    lr, decay = hyperparameters["lr"], hyperparameters["weight_decay"]

    def schedule(count):
        done = jnp.minimum(count / config.steps, 1.0)
        if config.schedule == "cosine":
            return lr * (config.final_lr + (1 - config.final_lr) * 0.5 * (1 + jnp.cos(jnp.pi * done)))
        if config.schedule == "exponential":
            return lr * config.final_lr**done
        return lr

    rescale = {
        "sgd": optax.identity(),
        "momentum": optax.trace(config.momentum),
        "rmsprop": optax.scale_by_rms(decay=config.momentum),
        "adam": optax.scale_by_adam(),
        "adamw": optax.scale_by_adam(),
    }[config.optimizer]
    decayed = optax.add_decayed_weights(decay)
    order = (rescale, decayed) if config.optimizer == "adamw" else (decayed, rescale)
    return optax.chain(*order, optax.scale_by_learning_rate(schedule))


def penalty_weights(config: Config) -> dict[str, float]:
    """The penalties that the config adds to the loss, with their weights."""
    return {name: getattr(config, name) for name in PENALTIES if getattr(config, name)}


def penalty(
    config: Config, model: SequenceModel, inputs: Array, key: Array, lengths: Array | None = None
) -> Array | float:
    """The weighted sum of the config's penalties over the layers, each on what it reads; 0 without any.

    Args:
      config: whose weights count.
      model: runs forwards; where it draws dropout masks, it draws them here.
      inputs: `[T, ..., D]`, or integers `[T, ...]`.
      key: of the penalties' random directions.
      lengths: integers `[...]`, the valid steps of each sequence.
    """
    weights = penalty_weights(config)
    if not weights:
        return 0.0
    _, read = model(inputs, lengths=lengths, return_inputs=True)
    total = 0.0
    for number, (layer, xs) in enumerate(zip(model.stack.layers, read, strict=True)):
        params = {name: param[...] for name, param in layer.parameters.items()}
        for name, weight in weights.items():
            value = PENALTIES[name](layer.cell, params, xs, jax.random.fold_in(key, number), lengths=lengths)
            total += weight * value
    return total


def _model(config: Config, task: Task, key: Array, hyperparameters: Hyperparameters | None = None) -> SequenceModel:
    of_cell = {name.partition("cell.")[2]: value for name, value in (hyperparameters or {}).items()}
    traced = {name: value for name, value in of_cell.items() if name}
    return SequenceModel(
        [make_cell(config, **traced)] * config.num_layers,
        input_size=task.input_size,
        output_size=task.output_size,
        tokens=task.tokens,
        embedding_size=(config.embedding_size or config.hidden_size) if task.tokens else config.embedding_size,
        readout=task.readout,
        dropout=config.dropout,
        residual=config.residual,
        bidirectional=config.bidirectional,
        dtype=None if config.dtype == "float32" else jnp.dtype(config.dtype),
        method=config.method,
        segments=config.segments,
        gradient=config.gradient,
        cotangent_clip=config.cotangent_clip,
        rngs=nnx.Rngs(key),
    )


def _abstract_model(config: Config, task: Task):
    return nnx.eval_shape(lambda: _model(config, task, jax.random.key(0)))


def _all_finite(tree: Any) -> Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(a)) for a in jax.tree.leaves(tree)]))


def _slice_of_batch(batch: Batch, start: Array, size: int) -> Batch:
    def cut(array, axis):
        return None if array is None else jax.lax.dynamic_slice_in_dim(array, start, size, axis)

    axis = batch.weights.ndim - 1
    return Batch(cut(batch.inputs, 1), cut(batch.targets, axis), cut(batch.lengths, 0), cut(batch.weights, axis))
