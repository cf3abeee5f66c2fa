"""Runs traced from shapes alone before anything is written: what cannot run is one line that says where."""

import contextlib
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from rnnjax.sweeps import grid as sweep
from rnnjax.training import Train, make_train
from rnnjax.training.config import Config
from rnnjax.training.settings import BadSetting


class Traced(NamedTuple):
    """A run whose `init` and `chunk` are compiled at their first call, from the traces that they have."""

    train: Train
    init: Callable[..., Any]
    chunk: Callable[..., Any]


def traced_run(config: Config, shards: int = 1) -> Traced:
    """The run that `config` describes. Raises BadSetting, in one line, where it cannot be traced."""
    with errors_in_one_line(config):
        train = make_train(config, shards)
        init, chunk = jax.jit(train.init), jax.jit(train.chunk)
        _trace(init, chunk, sweep.take_lane(sweep.lane_inputs([config]), 0))
    return Traced(train, init, chunk)


def traced_lanes(config: Config, devices, width: int, K: int) -> sweep.Lanes:
    """The lanes of a bucket. Raises BadSetting, in one line, where they cannot be traced."""
    with errors_in_one_line(config), jax.enable_x64(config.dtype == "float64"):
        lanes = sweep.make_lanes(config, devices, width)
        _trace(lanes.init, lanes.chunk, lanes.place(sweep.lane_inputs([config] * K)))
    return lanes


@contextlib.contextmanager
def errors_in_one_line(config: Config):
    """Whatever is raised inside is the fault of the settings or of a user's own cell or task: a BadSetting."""
    try:
        yield
    except BadSetting:
        raise
    except Exception as error:
        first = (str(error).strip() or "no message").splitlines()[0]
        raise BadSetting(
            f"config.cell={config.cell!r} on config.task={config.task!r} cannot run with these settings: "
            f"{type(error).__name__} in {_place(error)}: {first}"
        ) from error


def _trace(init, chunk, inputs):
    jax.eval_shape(chunk, jax.eval_shape(init, *inputs), inputs[1])


def _place(error):
    """The innermost function that is ours or the user's, and not a library's."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    return f"{frames[-1].name} ({frames[-1].filename}, line {frames[-1].lineno})"
