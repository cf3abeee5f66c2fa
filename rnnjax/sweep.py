"""A grid of configs as few compiled programs: trials that differ in traced settings alone are lanes of one."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from rnnjax.config import TRACED, Config, check, hyperparameters
from rnnjax.training import Train, TrainState, make_train


class Bucket(NamedTuple):
    """The trials that one compiled program runs."""

    config: Config  # with the traced fields of the first trial; all else is common
    trials: tuple[Config, ...]


class Lanes(NamedTuple):
    """A bucket's runs side by side, K lanes: every array has a leading K, padded to fill the devices."""

    train: Train
    init: Any  # (keys [K], hyperparameters [K]) -> states [K]
    chunk: Any  # (states [K], hyperparameters [K]) -> (states [K], records [K])


def trial_id(config: Config) -> str:
    """16 hexadecimal digits that name what a trial is: a hash of its whole config."""
    text = json.dumps(dataclasses.asdict(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def grid(config: Config, axes: dict[str, Sequence]) -> list[Config]:
    """Every combination of the values in `axes`, the last axis fastest; each trial is checked.

    Raises ValueError for a field that Config lacks, or a combination that `check` refuses.
    """
    trials = [config]
    for name, values in axes.items():
        trials = [dataclasses.replace(trial, **{name: value}) for trial in trials for value in values]
    for trial in trials:
        check(trial)
    return list(dict.fromkeys(trials))


def buckets(trials: Sequence[Config]) -> list[Bucket]:
    """Groups trials by all that is static: one compiled program a bucket."""
    groups: dict[tuple, list[Config]] = {}
    for trial in trials:
        fields = dataclasses.asdict(trial)
        # Whether an optional traced field is set decides the program; its value does not.
        static = {n: v is None if n in TRACED else v for n, v in fields.items()}
        groups.setdefault(tuple(static.items()), []).append(trial)
    return [Bucket(group[0], tuple(group)) for group in groups.values()]


def make_lanes(config: Config, devices: Sequence[jax.Device] | None = None, width: int | None = None) -> Lanes:
    """The runs of one bucket, sharded over devices with no communication between them.

    Args:
      config: the bucket's.
      devices: all of `jax.devices()` by default.
      width: how many lanes a device advances at once with `vmap`. 1 maps over lanes instead, and is bitwise equal
        to solo runs. By default 1 on a CPU, where it is also faster, and all of a device's lanes elsewhere.

    The number of lanes must be a multiple of `len(devices) * width`: see `pad`.
    """
    devices = jax.devices() if devices is None else devices
    width = default_width() if width is None else width
    train = make_train(config)
    mesh = jax.sharding.Mesh(np.asarray(devices), ("lanes",))

    def over_lanes(function):
        def local(*args):
            if width == 0:
                return jax.vmap(function)(*args)
            return jax.lax.map(lambda a: function(*a), args, batch_size=None if width == 1 else width)

        return jax.jit(jax.shard_map(local, mesh=mesh, in_specs=P("lanes"), out_specs=P("lanes"), check_vma=False))

    return Lanes(train, over_lanes(train.init), over_lanes(train.chunk))


def default_width() -> int:
    """1 on a CPU; 0, meaning all lanes of a device at once, on an accelerator."""
    return 1 if jax.default_backend() == "cpu" else 0


def lane_inputs(trials: Sequence[Config], count: int) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Keys `[K]` and hyperparameters `[K]` of the trials, the last repeated up to `count` lanes."""
    padded = [*trials, *[trials[-1]] * (count - len(trials))]
    keys = jnp.stack([jax.random.key(trial.seed) for trial in padded])
    values = [hyperparameters(trial) for trial in padded]
    return keys, {name: jnp.asarray([v[name] for v in values], jnp.float32) for name in values[0]}


def lane_count(trials: int, devices: int, width: int) -> int:
    """The number of lanes that holds `trials` and fills every device alike."""
    unit = devices * max(width, 1)
    return -(-trials // unit) * unit


def take_lane(tree: Any, k: int) -> Any:
    """Lane k of a tree whose leaves are `[K, ...]`."""
    return jax.tree.map(lambda leaf: leaf[k], tree)


__all__ = [
    "Bucket",
    "Lanes",
    "TrainState",
    "buckets",
    "default_width",
    "grid",
    "lane_count",
    "lane_inputs",
    "make_lanes",
    "take_lane",
    "trial_id",
]
