"""What a run reached, for whoever comes after it: result.json and params.npz."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rnnjax.runs.checkpoints import describe, named_leaves, rebuild
from rnnjax.runs.directories import check_directory, refuse_foreign_run
from rnnjax.runs.files import RunRefused, load_arrays, read_json, save_arrays
from rnnjax.runs.identity import Sources, changed_sources, compare_config, read_config, source_record
from rnnjax.runs.run import Run

_LOG = logging.getLogger(__name__)


def finished_run(
    workdir: str | os.PathLike, config: Mapping[str, Any], sources: Sources, accept_changes: bool = False
) -> dict[str, Any] | None:
    """The result of this very run, if it is finished; else None. Writes nothing.

    Raises RunRefused as `open_run` does; with `accept_changes`, a result of other sources is returned too.
    """
    path = check_directory(workdir)
    refuse_foreign_run(path)
    try:
        result = read_result(path) if (path / "config.json").exists() else None
    except RunRefused as error:
        _LOG.warning("%s; it is written again", error)
        return None
    if result is None or not result.get("complete", True):
        return None
    stored = read_config(path)
    compare_config(path, stored, config)
    if (changed := changed_sources(stored, source_record(sources))) and not accept_changes:
        raise RunRefused(
            f"{path} is finished, and {'; '.join(changed)}. Give another --workdir, or --accept_changes to see what it "
            "reached"
        )
    return result


def read_result(workdir: str | os.PathLike) -> dict[str, Any] | None:
    """What result.json holds, None if there is none. Raises RunRefused if it is damaged."""
    path = Path(workdir, "result.json")
    return read_json(path) if path.exists() else None


def save_params(run: Run, params: Any) -> Path:
    """Writes a pytree of parameters to params.npz, each under its path in the tree, such as `layers/0/W_h`."""
    path = run.path / "params.npz"
    save_arrays(path, named_leaves(params))
    return path


def load_params(path: str | os.PathLike, like: Any = None) -> Any:
    """The parameters of a run directory or of a params.npz: by name, or in the structure of the tree `like`.

    Raises RunRefused if the file is damaged or hostile, or if names, shapes or dtypes are not those of `like`.
    """
    path = Path(path)
    path = path / "params.npz" if path.is_dir() else path
    arrays = load_arrays(path)
    if like is None:
        return arrays
    return rebuild(arrays, {name: describe(array, array) for name, array in arrays.items()}, like, path)
