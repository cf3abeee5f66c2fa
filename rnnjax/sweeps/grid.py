"""A grid of configs as few compiled programs: trials that differ in traced settings alone are lanes of one."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from rnnjax.training import Hyperparameters, Train, TrainState, make_train
from rnnjax.training.config import OWNERS, Config, hyperparameters, unknown_setting
from rnnjax.training.dotted import changed_settings, program_settings, with_fitting_options, with_settings
from rnnjax.training.own_files import short_name
from rnnjax.training.refusals import BadSetting
from rnnjax.training.settings import checked, setting_of
from rnnjax.types import Array

MAX_WIDTH = 64


class Bucket(NamedTuple):
    """The trials that one compiled program runs."""

    config: Config  # with the traced fields of the first trial; all else is common
    trials: tuple[Config, ...]


class Lanes(NamedTuple):
    """Runs of one bucket side by side, K of them: every array has a leading K, sharded over the devices."""

    train: Train
    init: Callable[[Array, Hyperparameters], TrainState]  # (keys [K], hyperparameters [K]) -> states
    chunk: Callable[..., tuple[TrainState, dict]]  # (states, hyperparameters, data) -> (states, records): `Train.chunk`
    place: Callable[[Any], Any]  # a tree of [K, ...] on the devices, as `init` and `chunk` return it
    data: Any  # the task's, on every device


def trial_id(config: Config) -> str:
    """16 hexadecimal digits that name what a trial is: a hash of all settings that are not at their defaults."""
    return _digest(changed_settings(config))


def bucket_id(config: Config) -> str:
    """16 hexadecimal digits that name the program of `config`: a hash of what is static and not at its default."""
    return _digest(program_settings(config))


def unique(trials: Iterable[Config]) -> list[Config]:
    """The trials without duplicates: those of one id are one, however its defaults are written.

    Raises BadSetting where two files of a user's own would have one name in the records.
    """
    trials, names = list(trials), dict[tuple[str, str], str]()
    for kind, name in dict.fromkeys((kind, getattr(trial, kind)) for trial in trials for kind in OWNERS):
        if (other := names.setdefault((kind, short_name(name)), name)) != name:
            raise BadSetting(f"{kind}={name!r} and {other!r}: allowed: files of two names in one sweep")
    return list({trial_id(trial): trial for trial in reversed(trials)}.values())[::-1]


def grid(config: Config, axes: Mapping[str, Sequence]) -> list[Config]:
    """Every combination of the values in `axes`, the last axis fastest, without duplicates; each trial is checked.

    Axes are fields, or options such as `cell.forget_bias`. Where `cell` (or `task`) is an axis too, an option holds for
    those cells that have it; it is no axis for the others.

    Raises BadSetting, a ValueError, for an unknown setting, a combination that cannot be, and an option that no cell
    has.
    """
    trials = [config]
    for name, values in axes.items():
        if name not in Config.__dataclass_fields__ and name.partition(".")[0] not in OWNERS:
            raise BadSetting(unknown_setting(name))
        trials = [with_settings(trial, {name: value}) for trial in trials for value in values]
    fitting = [with_fitting_options(trial, [kind for kind in OWNERS if kind in axes]) for trial in trials]
    for kind in OWNERS:
        kept = {name for trial in fitting for name in getattr(trial, f"{kind}_options")}
        for trial in trials:
            for name in getattr(trial, f"{kind}_options"):
                if name not in kept:
                    raise BadSetting(unknown_setting(f"{kind}.{name}", trial))
    return unique(checked(trial) for trial in fitting)


def random_trials(
    config: Config,
    ranges: Mapping[str, tuple[str, float, float]],
    count: int,
    seed: int = 0,
    within: Sequence[Config] = (),
) -> list[Config]:
    """`count` trials with settings drawn at random; more of them begin with the same ones.

    Args:
      config: all other settings.
      ranges: by setting ("log", a, b) or ("uniform", a, b): its logarithm, or it, is uniform in [a, b]; integers
        are rounded.
      count: of the trials.
      seed: of the draw, apart from the seeds of the trials.
      within: configs whose cells and tasks have the options among the settings; by default `config` alone.
    """
    columns: dict[str, list[Any]] = {}
    for name, (scale, low, high) in ranges.items():
        u = np.random.default_rng([seed, *name.encode()]).random(count)
        values = low * (high / low) ** u if scale == "log" else low + (high - low) * u
        whole = int in setting_of(name, *(within or [config])).kinds
        columns[name] = [round(v) if whole else float(v) for v in values]
    return [with_settings(config, {name: column[n] for name, column in columns.items()}) for n in range(count)]


def buckets(trials: Sequence[Config]) -> list[Bucket]:
    """Groups trials by all that is static: one compiled program a bucket."""
    groups: dict[str, list[Config]] = {}
    for trial in trials:
        groups.setdefault(bucket_id(trial), []).append(trial)
    return [Bucket(group[0], tuple(group)) for group in groups.values()]


def share_of(bucket: Bucket, number: int, count: int) -> Bucket:
    """The share that worker `number` of `count` has in a bucket; it does not depend on the order of the trials."""
    first = int(bucket_id(bucket.config), 16)  # not each bucket's odd trial to the same one
    ranks = {trial: rank for rank, trial in enumerate(sorted(bucket.trials, key=trial_id))}
    return Bucket(bucket.config, tuple(t for t in bucket.trials if (first + ranks[t]) % count == number))


def make_lanes(config: Config, devices: Sequence[jax.Device] | None = None, width: int = 1) -> Lanes:
    """The runs of one bucket, sharded over devices with no communication between them.

    Args:
      config: the bucket's.
      devices: all of this process's by default.
      width: how many lanes a device advances at once with `vmap`. 1 maps over lanes instead, and gives the bits of
        a solo run. A larger one gives bits of its own, the same wherever a lane lies and on 2, 4, 8, ... devices;
        but XLA partitions no program for a single device, and that one's last bits may differ.

    The number of lanes must be a multiple of `len(devices) * width`: see `lane_count`.
    """
    devices = jax.local_devices() if devices is None else devices
    train = make_train(config)
    mesh = jax.sharding.Mesh(np.asarray(devices), ("lanes",))
    over_devices = NamedSharding(mesh, P("lanes"))

    def over_lanes(function):
        def local(args, shared):
            return jax.lax.map(lambda a: function(*a, *shared), args, batch_size=None if width == 1 else width)

        specs = {"in_specs": (P("lanes"), P()), "out_specs": P("lanes")}
        mapped = jax.shard_map(local, mesh=mesh, check_vma=False, **specs)
        return jax.jit(lambda first, values, *shared: mapped((first, values), shared))

    def place(tree):
        return jax.device_put(tree, over_devices)

    data = jax.device_put(train.task.data, NamedSharding(mesh, P()))
    return Lanes(train, over_lanes(train.init), over_lanes(train.chunk), place, data)


def default_width(trials: int, devices: Sequence[jax.Device]) -> int:
    """1 on a CPU, where mapping is faster than vmapping; on an accelerator all trials at once, up to MAX_WIDTH."""
    return 1 if devices[0].platform == "cpu" else min(math.ceil(trials / len(devices)), MAX_WIDTH)


def lane_count(lanes: int, devices: int, width: int) -> int:
    """The number of lanes that holds `lanes` and fills every device alike."""
    unit = devices * width
    return math.ceil(lanes / unit) * unit


def lane_inputs(trials: Sequence[Config]) -> tuple[Array, Hyperparameters]:
    """Keys `[K]` and hyperparameters `[K]` of trials of one bucket."""
    keys = jax.vmap(jax.random.key)(np.asarray([trial.seed for trial in trials], np.uint32))
    values = [hyperparameters(trial) for trial in trials]
    return keys, {name: np.asarray([v[name] for v in values], np.float32) for name in values[0]}


def take_lane(tree: Any, k: int) -> Any:
    """Lane k of a tree whose leaves are `[K, ...]`."""
    return jax.tree.map(lambda leaf: leaf[k], tree)


def to_host(states: TrainState) -> TrainState:
    """States as numpy arrays, each key as its numbers: to take apart and put together without a compiled program."""
    return jax.device_get(states._replace(key=jax.random.key_data(states.key)))


def from_host(states: TrainState) -> TrainState:
    """The inverse of `to_host`, but for where the arrays lie: see `Lanes.place`."""
    return states._replace(key=jax.random.wrap_key_data(states.key))


def _digest(settings):
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
