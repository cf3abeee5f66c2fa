"""Run directories that nothing can spoil: each file is published whole or not at all.

    config.json              resolved config, sources, what else changes numbers, versions: see identity.py
    source/                  a copy of the sources of the user's own; source-2/ of those that were accepted later
    metrics.jsonl            one JSON object a line
    checkpoint-00000250/     see checkpoints.py
    gradient_flow.npz        |dL/dh_t| at each evaluation
    params.npz               trained parameters by their '/'-joined names, readable without pickle
    result.json              what was reached; `complete` once all that follows training is there too
    lock                     who is running here; gone when nobody is, unless it was killed
    .tmp-*                   left by a kill inside a save; removed at the next start

Callers import the package, `rnnjax.runs`, which shows what they use of all its files.
"""

import contextlib
import logging
import os
import shutil
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rnnjax.runs.checkpoints import (
    find_checkpoints,
    step_of,
)
from rnnjax.runs.directories import (
    REPORT_FILE,
    RUN_FILES,
    SOURCE,
    check_directory,
    lock_directory,
    refuse_foreign_run,
    refuse_links,
    remove_leftovers,
    unlock_directory,
)
from rnnjax.runs.files import (
    RunRefused,
    discard_directory,
    published,
    write_json,
)
from rnnjax.runs.identity import (
    Sources,
    changed_numbers,
    changed_sources,
    compare_config,
    make_record,
    read_config,
    source_record,
    warn_of_versions,
)

_LOG = logging.getLogger(__name__)


class Run(NamedTuple):
    """An open run directory, as a context manager. Its lock lasts until `close_run` or the end of the process."""

    path: Path
    resumed: bool  # the same config was opened here before
    lock: int  # file descriptor
    record: Mapping[str, Any] = types.MappingProxyType({})  # what config.json holds

    def __enter__(self):
        return self

    def __exit__(self, *error):
        close_run(self)


def open_run(
    workdir: str | os.PathLike,
    config: Mapping[str, Any],
    info: Mapping[str, Any],
    sources: Sources | None = None,
    accept_changes: bool = False,
) -> Run:
    """Creates or resumes the run directory `workdir` of the resolved `config`, and locks it.

    Args:
      workdir: a directory that is new, empty or of this very run.
      config: all settings.
      info: what else the caller knows: `devices`, the command, and `numbers`, what changes numbers beside the config.
      sources: by what they are of, such as "cell 'leaky'", the sources of the user's own.
      accept_changes: go on though `sources` or `numbers` are not as recorded; config.json's `history` says so.

    Raises `RunRefused` if the directory holds something else or another config (with the differing fields), if what it
    began with has changed, if it has a hostile name or holds links; `RunBusy`, at once, if a live process runs in it.
    Writes nothing when it raises.
    """
    path = check_directory(workdir)
    record = make_record(config, info, sources)
    refuse_foreign_run(path)
    lock = lock_directory(path)
    try:
        refuse_links(path)
        refuse_foreign_run(path)
        resumed = (path / "config.json").exists()
        record, is_new = _recorded(path, record, config, accept_changes) if resumed else (record, True)
        remove_leftovers(path)
        _record(path, record if is_new else None, sources or {}, len(record.get("history", ())))
    except BaseException:
        unlock_directory(path, lock)
        raise
    return Run(path, resumed, lock, record)


@contextlib.contextmanager
def publish_run(
    workdir: str | os.PathLike,
    is_done: Callable[[], bool],
    config: Mapping[str, Any],
    info: Mapping[str, Any],
    sources: Sources | None = None,
) -> Iterator[Run | None]:
    """Yields an open run directory emptied of what a former run published in it; None where `is_done()` says, under
    its lock, that there is nothing to do. The other arguments are those of `open_run`."""
    path = check_directory(workdir)
    record = make_record(config, info, sources)
    with Run(path, False, lock_directory(path), record) as run:
        refuse_links(path)
        if is_done():
            yield None
            return
        discard_run(run)
        remove_leftovers(path)
        _record(path, record, sources or {}, len(record.get("history", ())))
        yield run


def check_sources(workdir: str | os.PathLike, sources: Sources) -> dict[str, Any]:
    """What config.json holds, if the run was made from these `sources`. Raises RunRefused; writes nothing.

    For all that loads a trained model: under another cell its parameters mean something else.
    """
    record = read_config(workdir)
    if changed := changed_sources(record, source_record(sources)):
        kept = _source_copies(Path(workdir))
        where = f"; {kept[-1]} holds what it was made from" if kept else ""
        raise RunRefused(f"{workdir}: {'; '.join(changed)}{where}")
    return record


def close_run(run: Run) -> None:
    """Gives the directory's lock back; an empty directory goes: discarded, or refused before anything was written."""
    unlock_directory(run.path, run.lock)


def discard_run(run: Run) -> None:
    """Removes all that the run published, its record last; closing it then removes its directory, if it is empty."""
    for path in find_checkpoints(run.path):
        discard_directory(path)
    for folder in _source_copies(run.path):
        shutil.rmtree(folder)
    _discard_files(run.path, RUN_FILES)


def remove_run(workdir: str | os.PathLike) -> None:
    """Removes a run that no live process is in, whatever its record says. Raises RunBusy."""
    path = check_directory(workdir)
    with Run(path, True, lock_directory(path)) as run:
        discard_run(run)
        remove_leftovers(path)


def lengthen_run(workdir: str | os.PathLike, config: Mapping[str, Any], longer: Mapping[str, Any]) -> None:
    """Makes the directory of the run `config` that of the run `longer`, which is to go on from its checkpoints.

    What only the end of a run brings is removed; config.json keeps the former steps. Raises as `open_run` does.
    """
    path = check_directory(workdir)
    with Run(path, True, lock_directory(path)):
        refuse_links(path)
        stored = read_config(path)
        compare_config(path, stored, config)
        checkpoints = find_checkpoints(path)
        if not checkpoints or step_of(checkpoints[-1]) > longer["steps"]:
            raise RunRefused(f"{path} has no checkpoint, or one beyond {longer['steps']} steps: load it again")
        (path / "result.json").unlink(missing_ok=True)  # first: killed after it, the run ends once more
        _discard_files(path, ("params.npz", "learning_curve.png", "gradient_map.png", "score_by_length.png"))
        former = [*stored.get("former_steps", []), stored["config"]["steps"]]
        write_json(path / "config.json", stored | {"config": dict(longer), "former_steps": former})


def _discard_files(path, names):
    """Removes what the task reported, then files of these names, the last first."""
    for file in [file for file in path.iterdir() if REPORT_FILE.fullmatch(file.name)]:
        file.unlink()
    for name in reversed(names):
        (path / name).unlink(missing_ok=True)


def _source_copies(path):
    """The folders of the sources that this run was made from, the latest last."""
    found = (entry for entry in path.iterdir() if SOURCE.fullmatch(entry.name) and entry.is_dir())
    return sorted(found, key=lambda entry: (len(entry.name), entry.name))


def _recorded(path, record, config, accept_changes):
    """The record to go on with, and whether it is a new one. A run that has nothing to go on from begins anew."""
    stored = read_config(path)
    compare_config(path, stored, config)
    warn_of_versions(stored, record)
    changed = changed_sources(stored, record) + changed_numbers(stored, record)
    checkpoints = find_checkpoints(path)
    if not changed:
        return stored, False
    if not checkpoints and not (path / "result.json").exists():
        return record, True
    if not accept_changes:
        changed = "; ".join(changed)
        raise RunRefused(f"{path}: {changed}. Give another --workdir, or --accept_changes to go on on purpose")
    _LOG.warning("%s: going on on purpose: %s", path, "; ".join(changed))
    former = {name: stored.get(name) for name in ("sources", "numbers")}
    at = {"after": checkpoints[-1].name if checkpoints else "result.json", "changed": changed}
    kept = {"former_steps": stored["former_steps"]} if "former_steps" in stored else {}
    return record | kept | {"history": [*stored.get("history", []), at | former]}, True


def _record(path, record, sources, accepted):
    """Writes config.json, where there is a new record, then copies of the sources."""
    if record is not None:
        write_json(path / "config.json", record)
    folder = path / ("source" if not accepted else f"source-{accepted + 1}")
    for source in sources.values():
        for name, text in source.texts.items():
            copy = folder / name
            if record is not None or not copy.exists():
                copy.parent.mkdir(parents=True, exist_ok=True)
                with published(copy) as file:
                    file.write(text)
