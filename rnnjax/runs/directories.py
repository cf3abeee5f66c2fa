"""Directories that this program may write into: empty ones and its own. What others put there is never touched.

A directory of its own holds the mark of what made it, an empty file such as `.rnnjax-sweep`; a run directory's mark is
its config.json.
"""

import contextlib
import datetime
import errno
import fcntl
import os
import re
import shutil
import socket
import stat
from pathlib import Path
from typing import Protocol

from rnnjax.runs.files import TEMPORARY, RunRefused, printable

MARK = ".rnnjax-"
SOURCE = re.compile(r"source(-\d+)?")
CHECKPOINT = re.compile(r"checkpoint-(\d{8,})")
RUN_FILES = (
    "config.json",
    "metrics.jsonl",
    "gradient_flow.npz",
    "params.npz",
    "result.json",
    "learning_curve.png",
    "gradient_map.png",
    "score_by_length.png",
)
REPORT_FILE = re.compile(r"(sample|report)[\w-]*\.(txt|csv|json|svg|html)|(forecast|error|report)[\w-]*\.(png|csv)")
"""All that a run publishes: RUN_FILES, what its task reports and what is drawn of that, and the directories SOURCE and
CHECKPOINT."""


class OpenRun(Protocol):
    """What is asked of a `runs.Run`: its directory, which nobody else writes."""

    @property
    def path(self) -> Path:
        """The run directory."""


class RunBusy(RuntimeError):
    """Another live process runs in this directory: exit code 1."""


def check_directory(name: str | os.PathLike) -> Path:
    """The directory of that name. Raises RunRefused, with what is allowed, for a hostile one; writes nothing."""
    text = os.fspath(name)
    path = Path(text)
    shown = f"directory {text!r}"
    if not text or not text.isprintable():
        raise RunRefused(f"{shown}: a name is not empty and has printable characters only")
    if ".." in path.parts:
        raise RunRefused(f"{shown}: write the path without '..'")
    if not path.name or any(len(os.fsencode(part)) > 255 for part in path.parts):
        raise RunRefused(f"{shown}: name a directory of its own for the run, of at most 255 bytes a component")
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise RunRefused(f"{shown} is a link or not a directory; give the real one")
    return path


def check_own_directory(name: str | os.PathLike, kind: str, *others: str) -> Path:
    """The directory of that name, if what makes a `kind` may write into it: one that is not there, is empty, or bears
    the mark of this kind or of one of the `others`. Raises RunRefused; writes nothing."""
    path = check_directory(name)
    entries = {entry.name for entry in os.scandir(path)} if path.exists() else set()
    if entries and not any((path / f"{MARK}{known}").is_file() for known in (kind, *others)):
        made = sorted(name.removeprefix(MARK) for name in entries if name.startswith(MARK))
        holds = (
            f"a {made[0]} of this program" if made else f"{printable(repr(min(entries)))}, which is not of this program"
        )
        raise RunRefused(f"{path} holds {holds}; give a directory that is new or empty, or one of an earlier {kind}")
    return path


def own_directory(name: str | os.PathLike, kind: str, *others: str) -> Path:
    """Makes and marks the directory of that name as one of this `kind`, to write into: see `check_own_directory`."""
    path = check_own_directory(name, kind, *others)
    path.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path / f"{MARK}{kind}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644))
    return path


def check_report_file(name: str) -> str:
    """The name. Raises ValueError where a run would not know it for a file of its own."""
    if not REPORT_FILE.fullmatch(name) or name.endswith(".png"):
        raise ValueError(
            f"a report's file is called {name!r}; allowed: sample or report, ... and .txt, .csv, .json, .svg or .html"
        )
    return name


def check_plot_file(name: str) -> str:
    """The name. Raises ValueError where a run would not know it for a figure of its own."""
    if not REPORT_FILE.fullmatch(name) or not name.endswith(".png"):
        raise ValueError(f"a report's figure is called {name!r}; allowed: forecast, error or report, ... and .png")
    return name


def refuse_foreign_run(path: Path) -> None:
    """Raises RunRefused for a directory that holds something and no run: before its lock is written."""
    if not path.exists() or (path / "config.json").exists():
        return
    for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
        if entry.is_symlink():
            shown = printable(entry.path)
            raise RunRefused(f"{shown} is a link; a run directory holds plain files and directories only")
        if entry.name == "lock" and entry.is_file() and Path(entry).read_bytes()[:8] in (b"", b"process "):
            continue
        if entry.name == f"{TEMPORARY}config.json":
            continue
        shown = printable(repr(entry.name))
        raise RunRefused(
            f"{path} is no run of this program: it holds {shown}, without its config.json; give a --workdir that is "
            "new or empty"
        )


def lock_directory(path: Path) -> int:
    """Makes and locks a run directory; returns the lock's file descriptor. Raises RunBusy if a live process has it.

    It is flock, and not the file's existence: the system drops it with its process, so none is ever stale.
    """
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


def unlock_directory(path: Path, lock: int) -> None:
    """Gives the lock back, and the directory too if nothing was left in it."""
    with contextlib.suppress(FileNotFoundError):
        (path / "lock").unlink()
    os.close(lock)
    with contextlib.suppress(OSError):
        path.rmdir()


def refuse_links(path: Path) -> None:
    """Raises RunRefused for anything in a run directory but plain files and directories."""
    for folder, folders, files in os.walk(path):
        for entry in (Path(folder, name) for name in folders + files):
            mode = entry.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                shown = printable(str(entry))
                raise RunRefused(f"{shown} is a link; a run directory holds plain files and directories only")


def remove_leftovers(path: Path) -> None:
    """Removes what a kill inside a save left of the files and checkpoints that a run publishes, and nothing else."""
    for entry in list(path.iterdir()):
        name = entry.name.removeprefix(TEMPORARY).removeprefix("old-")
        if not entry.name.startswith(TEMPORARY):
            continue
        if entry.is_dir() and CHECKPOINT.fullmatch(name):
            shutil.rmtree(entry)
        elif entry.is_file() and (name in RUN_FILES or REPORT_FILE.fullmatch(name)):
            entry.unlink()
