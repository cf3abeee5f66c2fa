"""One run on several devices: each takes a share of every batch, and gradients are averaged."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import PartitionSpec as P

from rnnjax.norms import rms
from rnnjax.training.config import Config
from rnnjax.types import Array, Batch

AXIS = "batch"


def sharded(config: Config, devices: Sequence[jax.Device]) -> int:
    """How many of `devices` should split each batch of one run: all of them where that wins, else 1.

    On a CPU, devices are cores: a loop of small matmuls on half the batch each, meeting once a step to average
    gradients, beats one loop whose every matmul is split.
    """
    count = 1 if config.stateful else len(devices)  # which keeps the state of all sequences in one place
    return count if config.batch_size % count == 0 and config.batch_size >= 8 * count else 1


def on_devices(function: Callable, shards: int) -> Callable:
    """`function` run on the first `shards` devices at once, on the very same arguments; its results must agree."""
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:shards]), (AXIS,))
    return jax.shard_map(function, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)


def own_share(batch: Batch, key: Array, size: int) -> tuple[Batch, Array]:
    """This device's `size` sequences of the whole batch, and a key of its own."""
    index = jax.lax.axis_index(AXIS)
    return slice_of_batch(batch, index * size, size), jax.random.fold_in(key, index)


def average_over_devices(value: Array, gradient: Any, flow: Any, shards: int) -> tuple[Array, Any, Any]:
    """The means of value and gradient over the devices, and the root mean square of the flow, in one all-reduce."""
    index = jax.lax.axis_index(AXIS)
    apart = jax.tree.map(lambda f: jnp.zeros((shards, *f.shape), f.dtype).at[index].set(f), flow)  # a place for each
    value, gradient, apart = mean_over_devices((value, gradient, apart), AXIS)
    return value, gradient, jax.tree.map(lambda f: shards * rms(f, 0), apart)


def mean_over_devices(tree: Any, axis_name: str) -> Any:
    """The mean of each leaf over the devices of `axis_name`, in one all-reduce: each costs threads a meeting."""
    flat, unravel = ravel_pytree(tree)
    return unravel(jax.lax.pmean(flat, axis_name))


def slice_of_batch(batch: Batch, start: Array, size: int) -> Batch:
    """`size` sequences of a batch, from number `start` on."""

    def cut(array, axis):
        return None if array is None else jax.lax.dynamic_slice_in_dim(array, start, size, axis)

    axis = batch.weights.ndim - 1
    return Batch(cut(batch.inputs, 1), cut(batch.targets, axis), cut(batch.lengths, 0), cut(batch.weights, axis))
