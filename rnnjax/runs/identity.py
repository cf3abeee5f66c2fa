"""What makes a run the run that it is, as config.json records it, and what has changed since.

config      the resolved settings: a run with others is another run
sources     file and sha256 of its own cell or task, and of its data
numbers     what else changes its numbers, such as x64 or the shards of a batch
versions, git    of this program and what it stands on: a change is warned of
history     changes that were accepted on purpose, the earliest first
former_steps  where the run ended before it went on for more steps, the earliest first
"""

import contextlib
import functools
import importlib.metadata
import json
import logging
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rnnjax.runs.files import RunRefused, printable, read_json
from rnnjax.runs.sources import Source

_LOG = logging.getLogger(__name__)

Sources = Mapping[str, Source]  # by what they are of, such as "cell 'leaky'"


class Settings(dict[str, Any]):
    """A config with the default of each setting, by name: what a record means that is older than the setting."""

    def __init__(self, config: Mapping[str, Any], defaults: Mapping[str, Any]):
        super().__init__(config)
        self.defaults = dict(defaults)


def make_record(config: Mapping[str, Any], info: Mapping[str, Any], sources: Sources | None) -> dict[str, Any]:
    """What config.json is to hold: `info` is what the caller knows, such as `devices`, `numbers` and the command."""
    record = {"config": dict(config), "versions": _versions(), "git": _git_revision()}
    return json.loads(json.dumps(record | source_record(sources or {}) | dict(info)))


def source_record(sources: Sources) -> dict[str, Any]:
    """The part of a record that `changed_sources` compares."""
    return {"sources": {name: {"file": s.file, "sha256": s.sha256} for name, s in sources.items()}}


def read_config(workdir: str | os.PathLike) -> dict[str, Any]:
    """What `config.json` holds: see the module. Raises RunRefused if it is damaged."""
    path = Path(workdir, "config.json")
    record = read_json(path)
    for name in ("config", "versions", "sources", "numbers"):
        if not isinstance(record.get(name, None if name in ("config", "versions") else {}), dict):
            raise RunRefused(f"{path} is damaged, or not written by this program: it has no {name!r}")
    return record


def by_name(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config's settings by name: the options in `cell_options` are `cell.gain` and so on."""
    settings: dict[str, Any] = {}
    for name, value in config.items():
        kind = name.removesuffix("_options")
        if kind != name and isinstance(value, Mapping):
            settings |= {f"{kind}.{option}": v for option, v in value.items()}
        else:
            settings[name] = value
    return settings


def compare_config(path: Path, stored: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raises RunRefused, with the settings that differ, where the stored record is not of this config."""
    if changed := changed_config(stored, config):
        raise RunRefused(f"{path} holds a run with another config: {'; '.join(changed)}. Give another --workdir")


def changed_config(stored: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """A clause for each setting that is not as recorded; one that is not recorded was at its default, if it has one."""
    old, new = by_name(stored["config"]), by_name(config)
    old = {name: value for name, value in getattr(config, "defaults", {}).items() if name in new} | old
    shown = [{name: json.dumps(value) for name, value in settings.items()} for settings in (old, new)]
    return [
        printable(f"{name} was {shown[0].get(name, 'absent')}, now {shown[1].get(name, 'absent')}")
        for name in {**old, **new}
        if shown[0].get(name) != shown[1].get(name)
    ]


def changed_sources(stored: Mapping[str, Any], record: Mapping[str, Any]) -> list[str]:
    """A clause for each source that is not the one recorded."""
    old, new = stored.get("sources", {}), record.get("sources", {})
    digests = [{name: source["sha256"] for name, source in sources.items()} for sources in (old, new)]
    names = [name for name in {**old, **new} if digests[0].get(name) != digests[1].get(name)]
    return [
        printable(f"{name} changed since this run began ({(new.get(name) or old[name])['file']})") for name in names
    ]


def changed_numbers(stored: Mapping[str, Any], record: Mapping[str, Any]) -> list[str]:
    """A clause for each setting of `numbers` that is not as recorded."""
    old, new = stored.get("numbers", {}), record.get("numbers", {})
    shown = [{name: json.dumps(value) for name, value in numbers.items()} for numbers in (old, new)]
    return [
        f"{name} was {shown[0][name]} when this run began, now {shown[1][name]}"
        for name in old
        if name in new and old[name] != new[name]
    ]


def warn_of_versions(stored: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """One warning for each version, and for this program's own revision, that is not what the run began with."""
    for name, version in record["versions"].items():
        if stored["versions"].get(name) != version:
            _LOG.warning("resuming with %s %s what %s began", name, version, stored["versions"].get(name))
    if stored.get("git") != record["git"]:
        _LOG.warning("resuming with revision %s what %s began", record["git"], stored.get("git"))


@functools.cache
def _versions():
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "rnnjax")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}


@functools.cache  # what runs is what was there when it was imported
def _git_revision():
    """Of this package's own checkout, if it is one; `-dirty` where it was changed since."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        # Without optional locks git does not refresh its index: nothing outside the run directory is written.
        environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
        out = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True, env=environment)
        return out.stdout.strip()
    return None
