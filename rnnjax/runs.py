"""Run directories that nothing can spoil: each file is published whole or not at all.

    config.json              resolved config, versions, git revision, devices; written before step 0
    metrics.jsonl            one JSON object a line (a diverged value is NaN or Infinity, as Python writes it)
    checkpoint-00000250/     manifest.json (a sha256 of every leaf and file) and arrays/ (Orbax)
    params.npz               trained parameters by their '/'-joined names, readable without pickle
    lock                     who is running here; gone when nobody is, unless it was killed
    .tmp-*                   left by a kill inside a save; removed at the next start

Everything is synchronous: a full disk is an error of the very call that met it, and what was published before stands.
"""

import contextlib
import datetime
import errno
import fcntl
import hashlib
import importlib.metadata
import json
import logging
import math
import os
import platform
import re
import shutil
import signal
import socket
import stat
import subprocess
import types
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint._src.multihost import multihost

EXIT_DONE, EXIT_ERROR, EXIT_BAD_FLAGS, EXIT_STOPPED = 0, 1, 2, 75  # 75: EX_TEMPFAIL, "run me again"

_LOG = logging.getLogger(__name__)
_TEMPORARY = ".tmp-"
_CHECKPOINT = re.compile(r"checkpoint-(\d{8,})")


class RunRefused(ValueError):
    """The directory, or what it holds, cannot be used for this run: exit code 2."""


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
    path.mkdir(parents=True, exist_ok=True)
    lock = _lock(path)
    try:
        _refuse_links(path)
        resumed = (path / "config.json").exists()
        if resumed:
            _compare(path, record)
        elif (path / "metrics.jsonl").exists() or _checkpoints(path):
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
    """Removes all that the run's directory holds; closing it then removes the directory too."""
    for path in _checkpoints(run.path):
        _discard(path)
    for entry in run.path.iterdir():
        if entry.name != "lock":
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


def save_checkpoint(run: Run, step: int, tree: Any, keep: int = 2) -> Path:
    """Publishes a pytree of arrays as the checkpoint of `step`, and keeps the newest `keep` up to it.

    PRNG keys, bfloat16 and every other dtype come back bitwise. Checkpoints of later steps (damaged ones,
    which this run fell back from) are removed. Raises OSError if it could not be written; the others then stand.
    """
    final = run.path / f"checkpoint-{step:08d}"
    temporary = run.path / (_TEMPORARY + final.name)
    leaves = _named_leaves(tree)
    arrays = {name: _to_numpy(leaf) for name, leaf in leaves.items()}
    log = run.path / "metrics.jsonl"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        # Orbax refuses arrays of size 0; the manifest says all there is to know of them.
        with _orbax() as orbax:
            filled = {name: array for name, array in arrays.items() if array.size}
            orbax.save((temporary / "arrays").absolute(), args=ocp.args.PyTreeSave(filled or {"": np.zeros(1)}))
        manifest = {
            "step": step,
            "log_bytes": log.stat().st_size if log.exists() else 0,
            "leaves": {name: _describe(leaf, arrays[name]) for name, leaf in leaves.items()},
            "files": {name: _digest_file(temporary / name) for name in _files(temporary)},
        }
        (temporary / "manifest.json").write_bytes(_sealed(manifest))
        _sync(temporary)
        if final.exists():
            _discard(final)
        os.rename(temporary, final)
        _sync_directory(run.path)
    except Exception as error:
        shutil.rmtree(temporary, ignore_errors=True)
        reason = str(error).strip().split("\n")[0]
        raise OSError(f"the checkpoint of step {step} could not be saved in {run.path}: {reason}") from error
    checkpoints = _checkpoints(run.path)
    kept = [path for path in checkpoints if _step_of(path) <= step][-keep:]
    for path in checkpoints:
        if path not in kept:
            _discard(path)
    return final


def latest_checkpoint(run: Run, like: Any) -> tuple[int, Any] | None:
    """The newest good checkpoint as (step, tree), and the metric log taken back to it; None, and an empty log, if none.

    `like` is a tree of the same structure, shapes and dtypes: arrays, or the `jax.ShapeDtypeStruct`s of
    `jax.eval_shape`; or a function to such a tree from the saved leaves' shapes by name, where it alone knows some.
    Arrays that `like` holds on chosen devices go there. Every file and leaf is checked against
    its sha256, and the log against the length it had; a damaged checkpoint is passed over with one warning.
    Raises ValueError if the checkpoint is of another tree.
    """
    log = run.path / "metrics.jsonl"
    log_bytes = log.stat().st_size if log.exists() else 0
    for path in reversed(_checkpoints(run.path)):
        try:
            manifest = _verified(path, log_bytes)
            arrays = _read_leaves(path, manifest["leaves"])
        except PermissionError:
            raise
        except (OSError, _Damaged) as error:
            _LOG.warning(
                "the checkpoint of step %d is passed over: %s; going back to the one before it", _step_of(path), error
            )
            continue
        shapes = {name: tuple(leaf["shape"]) for name, leaf in manifest["leaves"].items()}
        tree = _rebuild(arrays, manifest["leaves"], like(shapes) if callable(like) else like, path)
        _truncate(log, manifest["log_bytes"])
        return manifest["step"], tree
    _truncate(log, 0)
    return None


def save_params(run: Run, params: Any) -> Path:
    """Writes a pytree of parameters to params.npz, each under its path in the tree, such as `layers/0/W_h`."""
    path = run.path / "params.npz"
    save_arrays(path, _named_leaves(params))
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
    return _rebuild(arrays, {name: _describe(array, array) for name, array in arrays.items()}, like, path)


def save_arrays(path: str | os.PathLike, arrays: Mapping[str, Any]) -> None:
    """Writes named arrays as an uncompressed npz, whole or not at all.

    The same arrays give the same bytes. bfloat16, which npz has no name for, is stored as `NAME:bfloat16` in uint16.
    """
    members = {}
    for name, array in arrays.items():
        array = np.asarray(array)
        _check_tensor_name(name)
        if array.dtype == jnp.bfloat16:
            name, array = f"{name}:bfloat16", array.view(np.uint16)
        if array.dtype.kind not in "biufc":
            raise ValueError(f"array {name!r} has dtype {array.dtype}; allowed: numbers and booleans")
        members[name] = array
    with _published(Path(path)) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in members.items():
            with archive.open(zipfile.ZipInfo(name + ".npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def load_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads what `save_arrays` wrote, or any uncompressed npz of numbers.

    Runs no code and writes nothing. Sizes are checked before they are read: no member may be compressed or declare
    more than the file holds. Raises ValueError for a damaged or hostile file, OSError for a missing one.
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
            raise ValueError(f"{path} is damaged or not an array file: {_printable(str(error))}") from error


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


def write_file(path: str | os.PathLike, text: str) -> None:
    """Replaces a text file whole or not at all, durably."""
    with _published(Path(path)) as file:
        file.write(text.encode())


def check_directory(name: str | os.PathLike) -> Path:
    """The directory of that name. Raises RunRefused, with what is allowed, for a hostile one; writes nothing."""
    text = os.fspath(name)
    path = Path(text)
    shown = f"run directory {text!r}"
    if not text or not text.isprintable():
        raise RunRefused(f"{shown}: a name is not empty and has printable characters only")
    if ".." in path.parts:
        raise RunRefused(f"{shown}: write the path without '..'")
    if not path.name or any(len(os.fsencode(part)) > 255 for part in path.parts):
        raise RunRefused(f"{shown}: name a directory of its own for the run, of at most 255 bytes a component")
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise RunRefused(f"{shown} is a link or not a directory; give the real one")
    return path


class _Damaged(Exception):
    pass


def _lock(path):
    """flock, and not the file's existence: the system drops it with its process, so none is ever stale."""
    file = path / "lock"
    while True:
        try:
            lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise RunRefused(f"{file} is a link; a run directory holds plain files and directories only") from None
            raise
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _printable(os.pread(lock, 300, 0).decode(errors="replace").strip()) or "another process"
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
                shown = _printable(str(entry))
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
        changed = _printable("; ".join(changed))
        raise RunRefused(f"{path} holds a run with another config: {changed}. Give another --workdir")
    for name, version in record["versions"].items():
        if stored["versions"].get(name) != version:
            _LOG.warning("resuming with %s %s what %s began", name, version, stored["versions"].get(name))


def _remove_leftovers(path):
    for folder, folders, files in os.walk(path):
        for name in files:
            if name.startswith(_TEMPORARY):
                os.unlink(os.path.join(folder, name))
        for name in [name for name in folders if name.startswith(_TEMPORARY)]:
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


def _checkpoints(path):
    return sorted((p for p in path.iterdir() if _CHECKPOINT.fullmatch(p.name)), key=_step_of)


def _step_of(path):
    return int(_CHECKPOINT.fullmatch(path.name)[1])


@contextlib.contextmanager
def _orbax():
    """Of this process alone: a job of several processes saves from whichever holds the lock, without a barrier.

    Orbax writes numpy arrays on process 0 only, whatever its options say, so here each process is that.
    """
    process_index = multihost.process_index
    multihost.process_index = lambda: 0
    try:
        alone = ocp.options.MultiprocessingOptions(
            primary_host=0, active_processes={0}, barrier_sync_key_prefix="rnnjax"
        )
        handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
        with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
            yield checkpointer
    finally:
        multihost.process_index = process_index


def _verified(path, log_bytes):
    """The manifest, once its own seal and every file's sha256 hold."""
    data = (path / "manifest.json").read_bytes()
    try:
        manifest = json.loads(data)["manifest"]
        intact = _sealed(manifest) == data and manifest["step"] == _step_of(path)
    except (ValueError, KeyError, TypeError, RecursionError):
        intact = False
    if not intact:
        raise _Damaged(f"{path / 'manifest.json'} is damaged")
    found = set(_files(path)) - {"manifest.json"}
    for name in sorted(found ^ set(manifest["files"])):
        raise _Damaged(f"{path / name} is {'not of this checkpoint' if name in found else 'missing'}")
    for name, digest in manifest["files"].items():
        if _digest_file(path / name) != digest:
            raise _Damaged(f"{path / name} is damaged")
    if log_bytes < manifest["log_bytes"]:
        raise _Damaged(f"{path.parent / 'metrics.jsonl'} has lost rows that came before it")
    return manifest


def _read_leaves(path, leaves):
    filled = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name, leaf in leaves.items() if 0 not in leaf["shape"]}
    arrays = {}
    if filled:
        with _orbax() as orbax:
            directory = (path / "arrays").absolute()
            arrays = orbax.restore(directory, args=ocp.args.PyTreeRestore(restore_args=filled))
    for name, leaf in leaves.items():
        if name not in filled:
            arrays[name] = np.zeros(leaf["shape"], leaf["stored_dtype"])
        if _digest(arrays[name]) != leaf["sha256"]:
            raise _Damaged(f"leaf {name!r} in {path / 'arrays'} is damaged")
    return arrays


def _named_leaves(tree):
    leaves = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator="/") or "value"
        _check_tensor_name(name)
        if name in leaves:
            raise ValueError(f"two leaves of the tree have the path {name!r}")
        leaves[name] = leaf
    return leaves


def _check_tensor_name(name):
    parts = name.split("/")
    if not name.isprintable() or set("\\:") & set(name) or {"", ".", ".."} & set(parts):
        raise ValueError(
            f"tensor name {name!r}; allowed: printable components joined by '/', without '..', '\\' or ':'"
        )


def _is_key(leaf):
    return jnp.issubdtype(getattr(leaf, "dtype", np.int32), jax.dtypes.prng_key)


def _to_numpy(leaf):
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _describe(leaf, array):
    description = {
        "shape": list(array.shape),
        "dtype": str(leaf.dtype if _is_key(leaf) else array.dtype),
        "stored_dtype": str(array.dtype),
        "sha256": _digest(array),
    }
    return description | ({"key": str(jax.random.key_impl(leaf))} if _is_key(leaf) else {})


def _rebuild(arrays, leaves, like, path):
    wanted = _named_leaves(like)
    for name in sorted(set(wanted) ^ set(arrays)):
        raise ValueError(f"{path} is of another tree: {name!r} is {'missing' if name in wanted else 'unexpected'}")
    rebuilt = []
    for name, leaf in wanted.items():
        array = arrays[name]
        if "key" in leaves[name]:
            array = jax.random.wrap_key_data(array, impl=leaves[name]["key"])
        shape, dtype = np.shape(leaf), str(getattr(leaf, "dtype", None) or np.asarray(leaf).dtype)
        if (array.shape, leaves[name]["dtype"]) != (shape, dtype):
            raise ValueError(
                f"{path} is of another tree: {name!r} is {leaves[name]['dtype']}{array.shape}, not {dtype}{shape}"
            )
        if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) and not _is_key(array):
            array = jnp.array(array)
        if isinstance(leaf, jax.Array) and leaf.committed:
            array = jax.device_put(array, leaf.sharding)
        rebuilt.append(array)
    return jax.tree.unflatten(jax.tree.structure(like), rebuilt)


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
        _check_tensor_name(name)
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


@contextlib.contextmanager
def _published(path):
    """A binary file that takes the name `path` once it is written and on disk."""
    temporary = path.with_name(f"{_TEMPORARY}{path.name}")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_directory(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _discard(path):
    """Out of sight first: a kill in the middle leaves no half of a checkpoint under its name."""
    doomed = path.with_name(f"{_TEMPORARY}old-{path.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    os.rename(path, doomed)
    shutil.rmtree(doomed)


def _truncate(path, size):
    if path.exists() and path.stat().st_size > size:
        with open(path, "r+b") as file:
            file.truncate(size)
            os.fsync(file.fileno())


def _sealed(manifest):
    """A manifest and its own sha256, in the one spelling that is accepted."""
    body = json.dumps(manifest, sort_keys=True)
    seal = hashlib.sha256(body.encode()).hexdigest()
    return json.dumps({"manifest": manifest, "sha256": seal}, sort_keys=True, indent=1).encode()


def _digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8)).hexdigest()


def _digest_file(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(path):
    return sorted(str(entry.relative_to(path)) for entry in path.rglob("*") if not entry.is_dir())


def _sync(path):
    for folder, _, files in os.walk(path):
        for name in files:
            _sync_directory(os.path.join(folder, name))
        _sync_directory(folder)


def _sync_directory(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _printable(text):
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
