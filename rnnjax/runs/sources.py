"""What a cell or task of a user's own is made from: the text of its file and of what that imports beside itself.

The digest is of the syntax tree, without comments, docstrings and `get_config`, whose result is the config itself: so
that it changes where the mathematics may, and not with the wording. Nothing is imported or run to find it.
"""

import ast
import functools
import hashlib
import inspect
import json
import re
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rnnjax.runs.files import digest_file

PACKAGE = Path(__file__).resolve().parents[1]
INSTALLED = ("site-packages", "dist-packages", f"python{sys.version_info.major}.{sys.version_info.minor}")


class Source(NamedTuple):
    """What one part of a run is made from."""

    file: str  # where it lies, as it was named
    sha256: str
    texts: Mapping[str, bytes]  # what to keep a copy of, by path beside the file; none of data


def source_of(factory: Callable) -> Source | None:
    """The source of a cell's or task's factory; None for one of this package's own.

    A `functools.partial`, or a function that another one returned, is what it was made with, too.
    """
    module = sys.modules.get(getattr(factory, "__module__", ""))
    name = getattr(factory, "__qualname__", "")
    if str(getattr(factory, "__module__", "")).split(".")[0] == PACKAGE.name and getattr(module, name, None) is factory:
        return None
    files: dict[Path, None] = {}
    made: list[str] = []
    _take_apart(factory, files, made, set())
    if not files and (file := _file_of(factory)):
        files[file] = None  # of an installed package that is not this one
    first = next(iter(files), None)
    texts = _with_siblings(list(files))
    return Source(str(first or name or ", ".join(made)), _digest(texts, made), texts)


def source_of_file(path: str | Path) -> Source:
    """That of a file in which a cell or task is: its text, and that of what it imports from beside itself."""
    texts = _with_siblings([Path(path)])
    return Source(str(path), _digest(texts, []), texts)


def source_of_data(path: str) -> Source:
    """That of a file of data: its bytes."""
    return Source(path, digest_file(Path(path)), {})


def _digest(texts: Mapping[str, bytes], made: list[str]) -> str:
    identity = [[name, _tree(data)] for name, data in sorted(texts.items())], made
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()


def _take_apart(value: Any, files: dict[Path, None], made: list[str], seen: set[int]) -> None:
    """Collects the files of the functions that `value` consists of, and all else that tells it from others."""
    if id(value) in seen:
        return
    value = inspect.unwrap(value) if hasattr(value, "__wrapped__") else value
    if isinstance(value, functools.partial):
        for part in (value.func, value.args, sorted(value.keywords.items())):
            _take_apart(part, files, made, seen)
    elif isinstance(value, list | tuple):
        for part in value:
            _take_apart(part, files, made, seen)
    elif isinstance(value, types.MethodType):
        _take_apart(value.__func__, files, made, seen)
        _take_apart(type(value.__self__), files, made, seen)
    elif isinstance(value, types.FunctionType):
        seen.add(id(value))
        path = Path(value.__code__.co_filename)
        if path.is_file() and not is_library(path):
            files[path] = None  # what a closure there holds comes from its text
            return
        made.append(f"{value.__module__}.{value.__qualname__}")
        if not path.is_file():
            made.append(f"{value.__code__.co_code.hex()} {_plain(repr(value.__code__.co_consts))}")
        for cell in value.__closure__ or ():
            _take_apart(cell.cell_contents, files, made, seen)
    elif isinstance(value, type):
        path = Path(getattr(sys.modules.get(value.__module__), "__file__", None) or "")
        if path.is_file() and not is_library(path):
            files[path] = None
        made.append(f"{value.__module__}.{value.__qualname__}")
    elif isinstance(value, str | Path) and Path(value).is_file():
        made.append(digest_file(Path(value)))  # data
    elif isinstance(value, types.ModuleType):
        made.append(value.__name__)
    else:
        made.append(_plain(repr(value)))
        if callable(value):
            _take_apart(type(value), files, made, seen)


def _file_of(factory: Callable) -> Path | None:
    code = getattr(inspect.unwrap(factory), "__code__", None)
    path = Path(code.co_filename) if code else None
    return path if path and path.is_file() and not path.resolve().is_relative_to(PACKAGE) else None


def _with_siblings(files: list[Path]) -> dict[str, bytes]:
    """The bytes of the files and of what they import from beside them, by path relative to the first's folder."""
    texts, queue, seen = {}, [path.resolve() for path in files], set()
    folder = queue[0].parent if queue else None
    while queue:
        path = queue.pop(0)
        if path in seen:
            continue
        seen.add(path)
        data = path.read_bytes()
        name = path.relative_to(folder) if path.is_relative_to(folder) else Path(path.name)
        texts[name.as_posix()] = data
        queue += [found for module in _imported(data, path) for found in _modules(module, path)]
    return texts


def _imported(data: bytes, path: Path) -> list[tuple[int, list[str]]]:
    """(level, dotted name in parts) of every import of a file."""
    try:
        nodes = list(ast.walk(ast.parse(data)))
    except (SyntaxError, ValueError):
        return []
    found = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [(0, alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = (node.module or "").split(".") if node.module else []
            found += [(node.level, [*base, alias.name]) for alias in node.names]
    return found


def _modules(imported: tuple[int, list[str]], path: Path) -> list[Path]:
    """The files beside `path`, or in its own package, that an import runs."""
    level, parts = imported
    if level:
        roots = [path.parents[level - 1]]
    else:
        package = path.parent
        while (package / "__init__.py").is_file():
            package = package.parent
        inside = path.relative_to(package).parts[0] == parts[0]
        roots = [] if path.parent.name in INSTALLED else [path.parent]
        roots += [package] * inside
    found = []
    for root in roots:
        for length in range(1, len(parts) + 1):
            module = root.joinpath(*parts[:length])
            found += [file for file in (module.with_suffix(".py"), module / "__init__.py") if file.is_file()]
    return [file for file in map(Path.resolve, found) if not is_library(file)]


def is_library(path: str | Path) -> bool:
    """Whether a file is this package's, or of what is installed."""
    path = Path(path).resolve()
    return path.is_relative_to(PACKAGE) or any(part in INSTALLED for part in path.parts)


def _tree(data: bytes) -> Any:
    """A file's syntax tree as lists; its bytes' digest where it is none."""
    try:
        return _node(ast.parse(data))
    except (SyntaxError, ValueError, RecursionError):
        return hashlib.sha256(data).hexdigest()


def _node(value: Any) -> Any:
    """Empty fields are left out: later versions of Python add some."""
    if isinstance(value, list):
        return [_node(item) for item in value]
    if not isinstance(value, ast.AST):
        return repr(value)
    fields = dict(ast.iter_fields(value))
    if isinstance(value, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        body = fields["body"][1:] if ast.get_docstring(value, clean=False) is not None else fields["body"]
        fields["body"] = [item for item in body if not _is_config(item)]
    return [type(value).__name__, *([n, _node(v)] for n, v in fields.items() if v is not None and v != [])]


def _is_config(node: ast.AST) -> bool:
    """Whether it is a `get_config` that does no more than make the config."""
    if not (isinstance(node, ast.FunctionDef) and node.name == "get_config"):
        return False
    return not any(getattr(part, "id", getattr(part, "attr", "")) in ("CELLS", "TASKS") for part in ast.walk(node))


def _plain(text: str) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", text)
