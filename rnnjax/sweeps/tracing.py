"""The lanes of a sweep traced from shapes alone before anything is written."""

from collections.abc import Sequence

import jax

from rnnjax.sweeps import grid as sweep
from rnnjax.training.config import Config, make_task
from rnnjax.training.tracing import check_vocabulary, errors_in_one_line, trace


def traced_lanes(config: Config, devices: Sequence[jax.Device], width: int, K: int) -> sweep.Lanes:
    """The lanes of a bucket. Raises BadSetting, in one line, where they cannot be traced."""
    with errors_in_one_line(config), jax.enable_x64(config.dtype == "float64"):
        check_vocabulary(config, make_task(config))
        lanes = sweep.make_lanes(config, devices, width)
        trace(lanes.init, lanes.chunk, lanes.place(sweep.lane_inputs([config] * K)), lanes.data)
    return lanes
