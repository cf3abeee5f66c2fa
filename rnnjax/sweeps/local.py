"""A sweep from Python, in this process, and what sweeps reached as rows of a table."""

import logging
import os
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rnnjax import runs
from rnnjax.runs.identity import by_name
from rnnjax.sweeps import grid as sweeps
from rnnjax.sweeps.lanes import Options, run_sweep
from rnnjax.training.config import FIELDS, Config
from rnnjax.training.dotted import with_defaults
from rnnjax.training.refusals import BadSetting, nearest

_LOG = logging.getLogger(__name__)
_NEVER = types.SimpleNamespace(requested=False)


def sweep(
    config: Config,
    grid: Mapping[str, Sequence[Any]],
    workdir: str | os.PathLike,
    *,
    stop: runs.StopRequest = _NEVER,
    **options: Any,
) -> list[dict[str, Any]]:
    """Trains every combination of the settings in `grid`, as few compiled programs; returns the `results`.

    Trials that `workdir` holds already are not run again. `rnnjax.load(row["workdir"])` gives a trial's model.

    Args:
      config: all other settings.
      grid: setting -> its values, as in `{"cell": ["rnn", "lstm"], "cell.gain": [0.5, 1.0], "seed": range(4)}`.
      workdir: the sweep's directory, new, empty or of an earlier sweep.
      stop: once its `requested` is true, the sweep ends, with the trials that are done: see `runs.stop_signals`.
      options: of `sweeps.lanes.Options`, such as `stop_solved=True`.

    Raises BadSetting, a ValueError, for settings that cannot be; RunRefused and RunFailed as `run_sweep` does.
    """
    for name in options:
        if name not in Options._fields:
            hint = nearest(name, Options._fields) or ";"
            raise BadSetting(f"unknown option {name!r}{hint} allowed: {', '.join(Options._fields)}")
    run_sweep(sweeps.grid(config, dict(grid)), workdir, stop, Options(**options))
    return results(workdir)


def results(workdir: str | os.PathLike, as_frame: bool = False) -> Any:
    """A row for each trial that is done in a sweep's directory: its settings and its result, by name, and `workdir`.

    Rows are in the order of the settings that differ. A damaged trial is left out, with a warning.

    Args:
      as_frame: a pandas DataFrame instead of a list of dicts, where pandas is installed.

    Raises RunRefused for a directory that holds no trials.
    """
    if not Path(workdir, "trials").is_dir():
        raise runs.RunRefused(f"{workdir} is no sweep's directory: it has no trials")
    rows = []
    for path in sorted(Path(workdir, "trials").iterdir()):
        try:
            result = runs.read_result(path)
            if result is not None:
                settings = with_defaults(by_name(runs.read_config(path)["config"]))
                rows.append(settings | result | {"workdir": str(path)})
        except (runs.RunRefused, FileNotFoundError) as error:
            _LOG.warning("%s; it is left out", error)
    names = list({name: None for row in rows for name in row if name in FIELDS or "." in name})
    rows.sort(key=lambda row: [_order(row.get(name)) for name in names])
    return _frame(rows) if as_frame else rows


def _order(value):
    """Values of any kind in one order: numbers by size, the rest by what is printed."""
    number = isinstance(value, int | float)
    return not number, value if number else 0, str(value)


def _frame(rows):
    try:
        import pandas
    except ImportError:
        raise BadSetting("as_frame=True: allowed where pandas is installed: pip install pandas") from None
    return pandas.DataFrame(rows)
