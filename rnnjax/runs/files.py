"""Files that are published whole or not at all, and what is refused of hostile files and names.

Everything is synchronous: a full disk is an error of the very call that met it, and what was published before stands.
"""

import contextlib
import hashlib
import json
import math
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import jax
import jax.numpy as jnp
import numpy as np

TEMPORARY = ".tmp-"  # how the name of what is not published yet begins


class RunRefused(ValueError):
    """The directory, or what it holds, cannot be used for this run: exit code 2."""


def write_file(path: str | os.PathLike, text: str) -> None:
    """Replaces a text file whole or not at all, durably."""
    with published(Path(path)) as file:
        file.write(text.encode())


def write_json(path: str | os.PathLike, value: Mapping[str, Any]) -> None:
    """Writes an object as JSON that every program parses: see `json_text`."""
    write_file(path, json_text(value, indent=1) + "\n")


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """The object that `write_json` wrote, numbers that are not finite too. Raises RunRefused where it is damaged."""
    try:
        return json_object(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise RunRefused(f"{path} is damaged, or not written by this program: {printable(str(error))}") from None


def json_text(value: Mapping[str, Any], indent: int | None = None) -> str:
    """An object in strict JSON: what is not finite is null, and a last entry `not_finite` says what it was, by path."""
    found: dict[str, str] = {}

    def strict(value, path):
        if isinstance(value, np.ndarray | np.generic | jax.Array):
            value = np.asarray(value).tolist()
        if isinstance(value, Mapping):
            return {str(name): strict(v, (*path, str(name))) for name, v in value.items()}
        if isinstance(value, list | tuple):
            return [strict(v, (*path, str(n))) for n, v in enumerate(value)]
        if isinstance(value, float) and not math.isfinite(value):
            found["/".join(path)] = str(value)
            return None
        return value

    plain = strict(value, ())
    return json.dumps(plain | ({"not_finite": found} if found else {}), allow_nan=False, indent=indent)


def json_object(text: str | bytes) -> dict[str, Any]:
    """The inverse of `json_text`. Raises ValueError for what is no JSON object."""
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("it holds no JSON object")
    for path, name in dict(value.pop("not_finite", {})).items():
        *above, last = path.split("/")
        at = value
        try:
            for part in above:
                at = at[int(part)] if isinstance(at, list) else at[part]
            at[int(last) if isinstance(at, list) else last] = float(name)
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(f"not_finite names {path!r}, which is not there") from error
    return value


def save_arrays(path: str | os.PathLike, arrays: Mapping[str, Any]) -> None:
    """Writes named arrays as an uncompressed npz, whole or not at all.

    The same arrays give the same bytes. bfloat16, which npz has no name for, is stored as `NAME:bfloat16` in uint16.
    """
    members = {}
    for name, array in arrays.items():
        array = np.asarray(array)
        check_tensor_name(name)
        if array.dtype == jnp.bfloat16:
            name, array = f"{name}:bfloat16", array.view(np.uint16)
        if array.dtype.kind not in "biufc":
            raise ValueError(f"array {name!r} has dtype {array.dtype}; allowed: numbers and booleans")
        members[name] = array
    with published(Path(path)) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in members.items():
            with archive.open(zipfile.ZipInfo(name + ".npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def load_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads what `save_arrays` wrote, or any uncompressed npz of numbers.

    Runs no code and writes nothing. Sizes are checked before they are read: no member may be compressed or declare
    more than the file holds. Raises RunRefused for a damaged or hostile file, OSError for a missing one.
    """
    path = Path(path)
    with open(path, "rb") as file:
        try:
            size = os.fstat(file.fileno()).st_size
            if size > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
                raise ValueError(f"{size} bytes are more than this machine's memory")
            with zipfile.ZipFile(file) as archive:
                return _read_members(archive, size)
        except MemoryError:
            raise
        except Exception as error:  # zipfile and numpy raise a dozen kinds on a crafted file
            raise RunRefused(f"{path} is damaged or not an array file: {printable(str(error))}") from error


def check_tensor_name(name: str) -> None:
    """Raises ValueError for a name that no path of a tree has, such as one that climbs out of a directory."""
    parts = name.split("/")
    if not name.isprintable() or set("\\:") & set(name) or {"", ".", ".."} & set(parts):
        raise ValueError(
            f"tensor name {name!r}; allowed: printable components joined by '/', without '..', '\\' or ':'"
        )


@contextlib.contextmanager
def published(path: Path) -> Iterator[BinaryIO]:
    """A binary file that takes the name `path` once it is written and on disk; nothing is left of it at an error."""
    temporary = path.with_name(f"{TEMPORARY}{path.name}")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def discard_directory(path: Path) -> None:
    """Removes a directory, out of sight first: a kill in the middle leaves no half of it under its name."""
    doomed = path.with_name(f"{TEMPORARY}old-{path.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    os.rename(path, doomed)
    shutil.rmtree(doomed)


def sync_tree(path: Path) -> None:
    """Puts a folder, and all that is in it, on disk."""
    for folder, _, files in os.walk(path):
        for name in files:
            sync(os.path.join(folder, name))
        sync(folder)


def sync(path: str | os.PathLike) -> None:
    """Puts one file or directory on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest(array: np.ndarray) -> str:
    """The sha256 of an array's bytes."""
    return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data).hexdigest()


def digest_file(path: Path) -> str:
    """The sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def printable(text: str) -> str:
    """The text with an escape for every character that a terminal would act on."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _read_members(archive, size):
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("a member is compressed")
    if sum(member.file_size for member in members) > size:
        raise ValueError("its members declare more bytes than the file has")
    arrays = {}
    for member in members:
        stored, suffix = member.filename.removesuffix(".npy"), member.filename[-4:]
        name, colon, dtype = stored.partition(":")
        check_tensor_name(name)
        if suffix != ".npy" or name in arrays or (colon and dtype != "bfloat16"):
            raise ValueError(f"unexpected member {member.filename!r}")
        with archive.open(member) as file:
            _check_header(file, member)
        with archive.open(member) as file:
            arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
        if colon:
            arrays[name] = arrays[name].view(jnp.bfloat16)
    return arrays


def _check_header(file, member):
    """numpy allocates what the header declares before it reads: it must be what the member holds."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, _, dtype = read[version](file)
    if dtype.kind not in "biufc":
        raise ValueError(f"member {member.filename!r} has dtype {dtype}; allowed: numbers and booleans")
    if min(shape, default=0) < 0 or file.tell() + math.prod(shape) * dtype.itemsize != member.file_size:
        raise ValueError(f"member {member.filename!r} does not hold the shape that it declares")
