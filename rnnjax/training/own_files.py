"""Cells and tasks in files of the user's own, by the name `FILE.py:NAME`: a file is run once for each text that it has.

What runs stays what it was when the settings were checked, whatever is written into the file meanwhile; the settings
of the next run see the new text. Within the program the file's path is whole; records and tables hold the file's
name alone, as they hold the sha256 of its text, so that a run can move with its file.
"""

import contextlib
import os
import sys
import traceback
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rnnjax.runs import RunRefused
from rnnjax.runs.files import printable
from rnnjax.runs.sources import Source, is_library, source_of_file
from rnnjax.training.refusals import BadSetting, nearest


class OwnFile(NamedTuple):
    """A file that was run."""

    names: Mapping[str, Any]  # what it defines
    source: Source
    state: tuple  # of the file and of those that it imports from beside itself, as the file system saw them


_RUN: dict[tuple[str, str], OwnFile] = {}  # by path and sha256
_IN_FORCE: dict[str, OwnFile] = {}  # by path
_RUNNING: set[str] = set()


def full_name(name: str) -> str:
    """`FILE.py:NAME` with the whole path of the file; any other name as it is."""
    file, colon, function = name.rpartition(":")
    return f"{os.path.abspath(os.path.expanduser(file))}:{function}" if colon else name


def is_own(name: str) -> bool:
    """Whether it is the `full_name` of something in a file, and not in a table."""
    return os.path.isabs(name) and ":" in name


def short_name(name: str) -> str:
    """The name as records and tables hold it: without the file's folder."""
    return os.path.basename(name) if is_own(name) else name


def find(kind: str, name: str) -> Any:
    """What the `full_name` stands for: a factory. Raises BadSetting, in one line."""
    path, _, function = name.rpartition(":")
    own = _IN_FORCE.get(path) or _read(kind, name)
    if function not in own.names:
        defined = {n: v for n, v in own.names.items() if getattr(v, "__module__", "") == own.names["__name__"]}
        known = [n for n, value in defined.items() if callable(value)]
        hint = nearest(function, known) or f"; it has {', '.join(known) or 'none'}"
        raise BadSetting(f"{kind} {name!r}: no such function in the file{hint}")
    if not callable(factory := own.names[function]):
        found = type(factory).__name__
        raise BadSetting(f"{kind} {name!r} is of type {found}; allowed: a function that returns a {kind.title()}")
    return factory


def source(name: str) -> Source:
    """What the file of a `full_name` that was found was made from when it was run."""
    return _IN_FORCE[name.rpartition(":")[0]].source


def look_again(kind: str, name: str) -> None:
    """Runs the file of a `full_name` if it changed since it was. Raises BadSetting, in one line."""
    own = _IN_FORCE.get(name.rpartition(":")[0])
    if own is None or own.state != _state(own.source):
        _read(kind, name)


def recorded_name(
    workdir: str | os.PathLike,
    kind: str,
    name: str,
    recorded: Mapping[str, str],
    own_file: str | os.PathLike | None = None,
) -> str:
    """The `full_name` of what a run was made with, by the `short_name` and the source that it recorded.

    It is in the recorded file, or in one that was asked for (`own_file`, or in this process), if the text there is the
    recorded one. No other file is run, and none of the run directory itself unless asked for. Raises RunRefused.
    """
    function, file = name.rpartition(":")[2], str(recorded.get("file"))
    theirs = not os.path.isabs(file) or Path(file).resolve().is_relative_to(Path(workdir).resolve())
    asked_for = [*([] if own_file is None else [os.path.abspath(os.path.expanduser(own_file))]), *_IN_FORCE]
    for path in [*([] if theirs else [file]), *asked_for]:
        with contextlib.suppress(OSError):
            if Path(path).is_file() and source_of_file(path).sha256 == recorded.get("sha256"):
                look_again(kind, full := f"{path}:{function}")
                return full
    raise RunRefused(
        printable(
            f"{workdir} is of {kind} {name!r}, and {file} is not there, or changed since; allowed: a file with the "
            f"same text, as {workdir}/source has a copy of, named by --config.{kind}=FILE.py:{function} or load's "
            "own_file"
        )
    )


@contextlib.contextmanager
def importable(folder: Path) -> Iterator[None]:
    """What lies in the folder can be imported meanwhile, and nothing is written there."""
    path, written = list(sys.path), sys.dont_write_bytecode
    sys.path.insert(0, str(folder.absolute()))
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.path[:], sys.dont_write_bytecode = path, written


def _read(kind, name):
    path = name.rpartition(":")[0]
    if not Path(path).is_file():
        beside = [str(other) for other in Path(path).parent.glob("*.py")]
        raise BadSetting(f"{kind} {name!r}: no such file{nearest(path, beside)}")
    try:
        found = source_of_file(path)
    except OSError as error:
        raise BadSetting(f"{kind} {name!r}: {error.strerror}") from error
    if (path, found.sha256) not in _RUN:
        _RUN[path, found.sha256] = _run(kind, name, path, found)
    own = _IN_FORCE[path] = _RUN[path, found.sha256]._replace(state=_state(found))
    return own


def _run(kind, name, path, found):
    if path in _RUNNING:
        raise BadSetting(f"{kind} {name!r}: the file trains when it is run; allowed: under if __name__ == '__main__'")
    module = types.ModuleType(f"own_{Path(path).stem}_{found.sha256[:8]}")
    module.__file__ = path
    sys.modules[module.__name__] = module  # where a dataclass, say, looks its own names up
    _RUNNING.add(path)
    try:
        with importable(Path(path).parent), _own_neighbours(found):
            exec(compile(next(iter(found.texts.values())), path, "exec"), vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        if isinstance(error, BadSetting):
            raise
        raise BadSetting(f"{kind} {name!r}: {_fault(error, path)}") from error
    finally:
        _RUNNING.discard(path)
    return OwnFile(vars(module), found, ())


@contextlib.contextmanager
def _own_neighbours(found):
    """What the file imports from beside itself is what lies there, and not what another file left under such a name."""
    names = [Path(file).with_suffix("").as_posix().replace("/", ".") for file in list(found.texts)[1:]]
    names = [name.removesuffix(".__init__") for name in names]
    names = [name for name in names if name not in sys.modules or not _is_library(name)]
    before = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def _is_library(name):
    file = getattr(sys.modules[name], "__file__", None)
    return name.partition(".")[0] in sys.stdlib_module_names or (file is not None and is_library(file))


def _files(found):
    folder = os.path.dirname(os.path.realpath(found.file))
    return [os.path.join(folder, name) for name in found.texts]


def _state(found):
    state = []
    for file in _files(found):
        with contextlib.suppress(OSError):
            status = os.stat(file)
            state.append((file, status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(state)


def _fault(error, path):
    """What is wrong with a file that cannot be run, and in which line."""
    said = " ".join(f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}".split())
    if isinstance(error, SyntaxError) and error.lineno:
        beside = f" of {error.filename}" if error.filename != path else ""
        return f"line {error.lineno}{beside}: {said}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return f"line {lines[-1]}: {said}" if lines else said
