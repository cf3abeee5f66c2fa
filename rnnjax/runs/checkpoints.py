"""Checkpoints of a pytree: each stands whole or not at all, and a damaged one is seen and passed over.

checkpoint-00000250/     manifest.json (a sha256 of every leaf and file), arrays/ (Orbax), and a copy of each file that
                         grows with the run: `copy-of-metrics.jsonl`, `copy-of-gradient_flow.npz`
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint._src.multihost import multihost

from rnnjax.runs.directories import CHECKPOINT, OpenRun
from rnnjax.runs.files import (
    TEMPORARY,
    RunRefused,
    check_tensor_name,
    digest,
    digest_file,
    discard_directory,
    published,
    sync,
    sync_tree,
)

_LOG = logging.getLogger(__name__)
GROWING = ("metrics.jsonl", "gradient_flow.npz")  # put back as they were when a run goes on from a checkpoint


def save_checkpoint(run: OpenRun, step: int, tree: Any, keep: int = 2) -> Path:
    """Publishes a pytree of arrays, and the GROWING files, as the checkpoint of `step`; keeps the newest `keep`.

    PRNG keys, bfloat16 and every other dtype come back bitwise. Checkpoints of later steps (damaged ones,
    which this run fell back from) are removed. Raises OSError if it could not be written; the others then stand.
    """
    final = run.path / f"checkpoint-{step:08d}"
    temporary = run.path / (TEMPORARY + final.name)
    leaves = named_leaves(tree)
    arrays = {name: _to_numpy(leaf) for name, leaf in leaves.items()}
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        _check_space(temporary / "space", sum(array.nbytes for array in arrays.values()))
        # Orbax refuses arrays of size 0; the manifest says all there is to know of them.
        with _orbax() as orbax:
            filled = {name: array for name, array in arrays.items() if array.size}
            orbax.save((temporary / "arrays").absolute(), args=ocp.args.PyTreeSave(filled or {"": np.zeros(1)}))
        for name in GROWING:
            if (run.path / name).exists():
                shutil.copyfile(run.path / name, temporary / f"copy-of-{name}")
        manifest = {
            "step": step,
            "leaves": {name: describe(leaf, arrays[name]) for name, leaf in leaves.items()},
            "files": {name: digest_file(temporary / name) for name in _files(temporary)},
        }
        (temporary / "manifest.json").write_bytes(_sealed(manifest))
        sync_tree(temporary)
        if final.exists():
            discard_directory(final)
        os.rename(temporary, final)
        sync(run.path)
    except Exception as error:
        shutil.rmtree(temporary, ignore_errors=True)
        reason = str(error).strip().split("\n")[0]
        raise OSError(f"the checkpoint of step {step} could not be saved in {run.path}: {reason}") from error
    checkpoints = find_checkpoints(run.path)
    kept = [path for path in checkpoints if step_of(path) <= step][-keep:]
    for path in checkpoints:
        if path not in kept:
            discard_directory(path)
    return final


def latest_checkpoint(run: OpenRun, like: Any) -> tuple[int, Any] | None:
    """What `read_checkpoint` finds, with the GROWING files as they were then; None, and none of them, if none."""
    found = read_checkpoint(run.path, like)
    for name in GROWING:
        if found is None:
            (run.path / name).unlink(missing_ok=True)
        else:
            _put_back(run.path / name, run.path / f"checkpoint-{found[0]:08d}" / f"copy-of-{name}")
    return found


def read_checkpoint(path: Path, like: Any) -> tuple[int, Any] | None:
    """The newest good checkpoint of a run directory as (step, tree), None if none. Writes nothing.

    `like` is a tree of the same structure, shapes and dtypes: arrays, or the `jax.ShapeDtypeStruct`s of
    `jax.eval_shape`; or a function to such a tree from the saved leaves' shapes by name, where it alone knows some.
    Arrays that `like` holds on chosen devices go there. Every file and leaf is checked against
    its sha256; a damaged checkpoint is passed over with one warning.
    Raises RunRefused if the checkpoint is of another tree.
    """
    for checkpoint in reversed(find_checkpoints(path)):
        try:
            manifest = _verified(checkpoint)
            arrays = _read_leaves(checkpoint, manifest["leaves"])
        except PermissionError:
            raise
        except (OSError, _Damaged) as error:
            step = step_of(checkpoint)
            _LOG.warning("the checkpoint of step %d is passed over: %s; going back to the one before it", step, error)
            continue
        shapes = {name: tuple(leaf["shape"]) for name, leaf in manifest["leaves"].items()}
        tree = rebuild(arrays, manifest["leaves"], like(shapes) if callable(like) else like, checkpoint)
        return manifest["step"], tree
    return None


def find_checkpoints(path: Path) -> list[Path]:
    """The checkpoints in a run directory, damaged ones too, the oldest first."""
    return sorted((p for p in path.iterdir() if CHECKPOINT.fullmatch(p.name)), key=step_of)


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a pytree by their '/'-joined paths. Raises ValueError for a bad name, or for one of two leaves."""
    leaves = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator="/") or "value"
        check_tensor_name(name)
        if name in leaves:
            raise ValueError(f"two leaves of the tree have the path {name!r}")
        leaves[name] = leaf
    return leaves


def describe(leaf: Any, array: np.ndarray) -> dict[str, Any]:
    """What the manifest says of a leaf that is stored as `array`: shape, dtypes, sha256, and a PRNG key's kind."""
    description = {
        "shape": list(array.shape),
        "dtype": str(leaf.dtype if _is_key(leaf) else array.dtype),
        "stored_dtype": str(array.dtype),
        "sha256": digest(array),
    }
    return description | ({"key": str(jax.random.key_impl(leaf))} if _is_key(leaf) else {})


def rebuild(arrays: Mapping[str, np.ndarray], leaves: Mapping[str, dict], like: Any, path: Path) -> Any:
    """Arrays by name, as `describe` described their `leaves`, in the structure of `like`.

    Raises RunRefused, with the `path` they were read from, where names, shapes or dtypes are not those of `like`.
    """
    wanted = named_leaves(like)
    for name in sorted(set(wanted) ^ set(arrays)):
        raise RunRefused(f"{path} is of another tree: {name!r} is {'missing' if name in wanted else 'unexpected'}")
    rebuilt = []
    for name, leaf in wanted.items():
        array = arrays[name]
        if "key" in leaves[name]:
            array = jax.random.wrap_key_data(array, impl=leaves[name]["key"])
        shape, dtype = np.shape(leaf), str(getattr(leaf, "dtype", None) or np.asarray(leaf).dtype)
        if (array.shape, leaves[name]["dtype"]) != (shape, dtype):
            raise RunRefused(
                f"{path} is of another tree: {name!r} is {leaves[name]['dtype']}{array.shape}, not {dtype}{shape}"
            )
        if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) and not _is_key(array):
            array = jnp.array(array)
        if isinstance(leaf, jax.Array) and leaf.committed:
            array = jax.device_put(array, leaf.sharding)
        rebuilt.append(array)
    return jax.tree.unflatten(jax.tree.structure(like), rebuilt)


class _Damaged(Exception):
    pass


def _verified(path):
    """The manifest, once its own seal and every file's sha256 hold."""
    data = (path / "manifest.json").read_bytes()
    try:
        manifest = json.loads(data)["manifest"]
        intact = _sealed(manifest) == data and manifest["step"] == step_of(path)
    except (ValueError, KeyError, TypeError, RecursionError):
        intact = False
    if not intact:
        raise _Damaged(f"{path / 'manifest.json'} is damaged")
    found = set(_files(path)) - {"manifest.json"}
    for name in sorted(found ^ set(manifest["files"])):
        raise _Damaged(f"{path / name} is {'not of this checkpoint' if name in found else 'missing'}")
    for name, expected in manifest["files"].items():
        if digest_file(path / name) != expected:
            raise _Damaged(f"{path / name} is damaged")
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
        if digest(arrays[name]) != leaf["sha256"]:
            raise _Damaged(f"leaf {name!r} in {path / 'arrays'} is damaged")
    return arrays


@contextlib.contextmanager
def _orbax():
    """Of this process alone: a job of several processes saves from whichever holds the lock, without a barrier.

    What goes wrong is raised here, in one line; the tracebacks that Orbax's threads log of it besides are not shown.
    Orbax writes numpy arrays on process 0 only, whatever its options say, so here each process is that.
    """
    log, process_index = logging.getLogger("absl"), multihost.process_index
    log.addFilter(_not_of_a_thread)
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
        log.removeFilter(_not_of_a_thread)


def _not_of_a_thread(record):
    return not record.exc_info


def _sealed(manifest):
    """A manifest and its own sha256, in the one spelling that is accepted."""
    body = json.dumps(manifest, sort_keys=True)
    seal = hashlib.sha256(body.encode()).hexdigest()
    return json.dumps({"manifest": manifest, "sha256": seal}, sort_keys=True, indent=1).encode()


def step_of(path: Path) -> int:
    """The step of a checkpoint, by its name."""
    return int(CHECKPOINT.fullmatch(path.name)[1])


def _files(path):
    return sorted(str(entry.relative_to(path)) for entry in path.rglob("*") if not entry.is_dir())


def _check_space(path, size):
    """Raises OSError where so many bytes cannot be had: before Orbax's threads meet the full disk, which say more."""
    with open(path, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(size, 1))
    path.unlink()


def _put_back(path, copy):
    """What a run wrote after the checkpoint, or lost since, is written again or was never to be."""
    if not copy.exists():
        path.unlink(missing_ok=True)
    elif not path.exists() or path.read_bytes() != copy.read_bytes():
        with published(path) as file:
            file.write(copy.read_bytes())


def _is_key(leaf):
    return jnp.issubdtype(getattr(leaf, "dtype", np.int32), jax.dtypes.prng_key)


def _to_numpy(leaf):
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
