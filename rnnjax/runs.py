"""Run directories that nothing can spoil: each file is published whole or not at all.

    config.json              resolved config, versions, git revision, devices; written before step 0
    metrics.jsonl            one JSON object a line (a diverged value is NaN or Infinity, as Python writes it)
    checkpoint-00000250/     see checkpoints.py
    params.npz               trained parameters by their '/'-joined names, readable without pickle
    lock                     who is running here; gone when nobody is, unless it was killed
    .tmp-*                   left by a kill inside a save; removed at the next start

This is the one module that callers need: what they use of files.py and checkpoints.py goes by its name here too.
"""

import contextlib
import datetime
import errno
import fcntl
import importlib.metadata
import json
import logging
import os
import platform
import shutil
import signal
import socket
import stat
import subprocess
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rnnjax.checkpoints import describe, find_checkpoints, latest_checkpoint, named_leaves, rebuild, save_checkpoint
from rnnjax.files import (
    TEMPORARY,
    RunRefused,
    check_directory,
    discard_directory,
    load_arrays,
    printable,
    save_arrays,
    write_file,
)

__all__ = [
    "EXIT_BAD_FLAGS", "EXIT_DONE", "EXIT_ERROR", "EXIT_STOPPED", "Run", "RunBusy", "RunRefused", "append_rows",
    "check_directory", "close_run", "discard_run", "latest_checkpoint", "load_arrays", "load_params", "open_run",
    "read_config", "read_rows", "save_arrays", "save_checkpoint", "save_params", "stop_signals", "write_file",
]  # fmt: skip

EXIT_DONE, EXIT_ERROR, EXIT_BAD_FLAGS, EXIT_STOPPED = 0, 1, 2, 75  # 75: EX_TEMPFAIL, "run me again"

_LOG = logging.getLogger(__name__)


class RunBusy(RuntimeError):
    """Another live process runs in this directory: exit code 1."""


class Run(NamedTuple):
    """An open run directory, as a context manager. Its lock lasts until `close_run` or the end of the process."""

    path: Path
    resumed: bool  # the same config was opened here before
    lock: int  # file descriptor

    def __enter__(self):
        return self

    def __exit__(self, *error):
        close_run(self)


def open_run(workdir: str | os.PathLike, config: Mapping[str, Any], info: Mapping[str, Any]) -> Run:
    """Creates or resumes the run directory `workdir` of the resolved `config`, and locks it.

    `info` is what the caller knows (devices, the command); versions and the git revision are added to it.
    Raises `RunRefused` if the directory holds another config (with the differing fields), has a hostile
    name or holds links; `RunBusy`, at once, if a live process runs in it. Writes nothing when it raises.
    """
    path = check_directory(workdir)
    config = json.loads(json.dumps(dict(config)))
    record = {"config": config, "versions": _versions(), "git": _git_revision(), **info}
    text = json.dumps(record, indent=1) + "\n"
    lock = _lock(path)
    try:
        _refuse_links(path)
        resumed = (path / "config.json").exists()
        if resumed:
            _compare(path, record)
        elif (path / "metrics.jsonl").exists() or find_checkpoints(path):
            raise RunRefused(f"{path} holds a run without its config.json; give another --workdir")
        _remove_leftovers(path)
        if not resumed:
            write_file(path / "config.json", text)
    except BaseException:
        close_run(Run(path, False, lock))
        raise
    return Run(path, resumed, lock)


def close_run(run: Run) -> None:
    """Gives the directory's lock back."""
    with contextlib.suppress(FileNotFoundError):
        (run.path / "lock").unlink()
    os.close(run.lock)
    with contextlib.suppress(OSError):
        run.path.rmdir()  # if it is empty: discarded, or refused before anything was written


def discard_run(run: Run) -> None:
    """Removes all that the run left; closing it then removes its directory, if nobody made another one in it."""
    for path in find_checkpoints(run.path):
        discard_directory(path)
    for entry in run.path.iterdir():
        if entry.name != "lock" and not entry.is_dir():
            entry.unlink()


def read_config(workdir: str | os.PathLike) -> dict[str, Any]:
    """What `config.json` holds: `config`, `versions`, `git` and the caller's `info`. Raises RunRefused if damaged."""
    path = Path(workdir, "config.json")
    try:
        record = json.loads(path.read_bytes())
        if isinstance(record["config"], dict) and isinstance(record["versions"], dict):
            return record
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise RunRefused(f"{path} is damaged, or not written by this program")


def append_rows(run: Run, rows: Iterable[Mapping[str, Any]]) -> None:
    """Appends each row of scalars (or small arrays) to metrics.jsonl: all of them durably, or none and an OSError.

    Call it before the checkpoint that follows: a checkpoint remembers how long the log was.
    """
    lines = "".join(json.dumps(row, default=lambda value: np.asarray(value).tolist()) + "\n" for row in rows)
    left = memoryview(lines.encode())
    with open(run.path / "metrics.jsonl", "ab", buffering=0) as file:
        size = file.tell()
        try:
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except BaseException:
            file.truncate(size)
            raise


def read_rows(workdir: str | os.PathLike) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, without a torn last line. Raises ValueError for damage elsewhere."""
    path = Path(workdir, "metrics.jsonl")
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):  # after the last \n: torn or empty
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path} line {number} is damaged: {error}") from None
    return rows


def save_params(run: Run, params: Any) -> Path:
    """Writes a pytree of parameters to params.npz, each under its path in the tree, such as `layers/0/W_h`."""
    path = run.path / "params.npz"
    save_arrays(path, named_leaves(params))
    return path


def load_params(path: str | os.PathLike, like: Any = None) -> Any:
    """The parameters of a run directory or of a params.npz: by name, or in the structure of the tree `like`.

    Raises ValueError if the file is damaged or hostile, or if names, shapes or dtypes are not those of `like`.
    """
    path = Path(path)
    path = path / "params.npz" if path.is_dir() else path
    arrays = load_arrays(path)
    if like is None:
        return arrays
    return rebuild(arrays, {name: describe(array, array) for name, array in arrays.items()}, like, path)


@contextlib.contextmanager
def stop_signals():
    """Yields an object whose `requested` becomes True at SIGTERM or Ctrl-C; a second Ctrl-C interrupts at once."""
    stop = types.SimpleNamespace(requested=False)

    def handle(number, frame):
        if stop.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.requested = True

    previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _lock(path):
    """flock, and not the file's existence: the system drops it with its process, so none is ever stale."""
    file = path / "lock"
    while True:
        path.mkdir(parents=True, exist_ok=True)
        try:
            lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
        except FileNotFoundError:
            continue  # the last owner removed the directory, empty again, between our mkdir and our open
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise RunRefused(f"{file} is a link; a run directory holds plain files and directories only") from None
            raise
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = printable(os.pread(lock, 300, 0).decode(errors="replace").strip()) or "another process"
            os.close(lock)
            raise RunBusy(f"{path} is in use by {owner}; wait for it or give another --workdir") from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), os.stat(file)):
                break
        os.close(lock)  # the last owner removed the file between our open and our flock
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    os.ftruncate(lock, 0)
    os.write(lock, f"process {os.getpid()} on {socket.gethostname()} since {now}\n".encode())
    return lock


def _refuse_links(path):
    for folder, folders, files in os.walk(path):
        for entry in (Path(folder, name) for name in folders + files):
            mode = entry.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                shown = printable(str(entry))
                raise RunRefused(f"{shown} is a link; a run directory holds plain files and directories only")


def _compare(path, record):
    stored = read_config(path)
    old, new = ({name: json.dumps(v) for name, v in r["config"].items()} for r in (stored, record))
    changed = [
        f"{name} was {old.get(name, 'absent')}, now {new.get(name, 'absent')}"
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    ]
    if changed:
        changed = printable("; ".join(changed))
        raise RunRefused(f"{path} holds a run with another config: {changed}. Give another --workdir")
    for name, version in record["versions"].items():
        if stored["versions"].get(name) != version:
            _LOG.warning("resuming with %s %s what %s began", name, version, stored["versions"].get(name))


def _remove_leftovers(path):
    for folder, folders, files in os.walk(path):
        for name in files:
            if name.startswith(TEMPORARY):
                os.unlink(os.path.join(folder, name))
        for name in [name for name in folders if name.startswith(TEMPORARY)]:
            shutil.rmtree(os.path.join(folder, name))
            folders.remove(name)


def _versions():
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "rnnjax")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}


def _git_revision():
    """Of this package's own checkout, if it is one; `-dirty` where it was changed since."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        # Without optional locks git does not refresh its index: nothing outside the run directory is written.
        environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
        out = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True, env=environment)
        return out.stdout.strip()
    return None
