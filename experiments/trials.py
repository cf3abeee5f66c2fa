"""What --grid and --sample mean: the trials of a sweep."""

from collections.abc import Sequence

import numpy as np
from command_line import BadSetting, checked, parse_setting, setting_of

from rnnjax.sweeps import grid as sweep
from rnnjax.training.config import FIELDS, OWNERS, Config
from rnnjax.training.dotted import with_settings


def parse_trials(config: Config, grid: Sequence[str], sample: Sequence[str] = (), count: int | None = None):
    """The trials that --grid, --sample and --trials mean: every draw at every point of the grid, without duplicates.

    Raises BadSetting.
    """
    axes, ranges = {}, {}
    within = with_each_owner(config, grid)
    for flag, texts, parse, found in (("grid", grid, parse_axis, axes), ("sample", sample, parse_range, ranges)):
        for text in texts:
            name, values = parse(text, within)
            if name in axes or name in ranges:
                raise BadSetting(f"--{flag}={text}: {name} is given twice; allowed: one --grid or --sample a setting")
            found[name] = values
    if bool(ranges) != (count is not None):
        raise BadSetting(f"--sample={','.join(sample)} and --trials={count}: allowed: both, or neither")
    draws = sweep.random_trials(config, ranges, count, within=within) if ranges else [config]
    try:
        trials = [trial for draw in draws for trial in sweep.grid(draw, axes)]
    except (ValueError, TypeError, OSError) as error:
        given = [*(f"--grid={text}" for text in grid), *(f"--sample={text}" for text in sample)]
        raise BadSetting(": ".join(filter(None, [" ".join(given), str(error)]))) from error
    return sweep.unique(checked(trial) for trial in trials)


def with_each_owner(config: Config, grid: Sequence[str]) -> list[Config]:
    """The config with each cell and each task that `grid` names, and whose options other axes may be."""
    found = [config]
    for kind in OWNERS:
        names = [name for text in grid if text.startswith(f"{kind}=") for name in parse_axis(text)[1]]
        found += [with_settings(config, {kind: name}) for name in names]
    return found[1:] + found[:1]


def parse_range(text: str, within: Sequence[Config] = ()) -> tuple[str, tuple[str, float, float]]:
    """`lr=log:1e-5:1e-1` -> ("lr", ("log", 1e-5, 0.1)). Raises BadSetting."""
    name, _, values = text.partition("=")
    scale, *ends = values.split(":")
    try:
        low, high = (float(parse_setting(name, end, within=within)) for end in ends)
    except (TypeError, ValueError):
        setting_of(name, *within)  # raises, where there is none
        low = high = float("nan")
    if scale not in ("log", "uniform") or not (-np.inf < low < high < np.inf) or (scale == "log" and low <= 0):
        raise BadSetting(
            f"--sample={text}: allowed: NAME=log:A:B with 0 < A < B, or NAME=uniform:A:B with A < B, of a number"
        )
    return name, (scale, low, high)


def parse_axis(text: str, within: Sequence[Config] = ()) -> tuple[str, list]:
    """`lr=1e-3,1e-2` -> ("lr", [0.001, 0.01]); `seed=0:8` -> ("seed", [0, ..., 7]). Raises BadSetting."""
    name, separator, values = text.partition("=")
    if not separator or not values:
        raise BadSetting(f"--grid={text}: allowed: NAME=VALUE,VALUE,... or NAME=START:STOP")
    if tuple in (setting_of(name).kinds if name in FIELDS else ()):
        raise BadSetting(f"--grid={text}: {name} is no axis; allowed: --config.{name}={values}")
    start, colon, stop = values.partition(":")
    if colon and start.lstrip("-").isdigit() and stop.lstrip("-").isdigit() and int(start) < int(stop):
        values = ",".join(map(str, range(int(start), int(stop))))
    return name, [parse_setting(name, value, f"--grid={text}", within) for value in values.split(",")]
