"""Settings as text and from files: what they mean, and one line for whatever is wrong with them."""

import contextlib
import dataclasses
import os
import re
import runpy
import sys
import types
import typing
from pathlib import Path
from typing import Any

from rnnjax.training import config as configs

FIELDS = {field.name: field for field in dataclasses.fields(configs.Config)}
TYPES = typing.get_type_hints(configs.Config)
ALLOWED = {bool: "true or false", int: "an integer", float: "a number", str: "a string", types.NoneType: "none"}


class BadSetting(ValueError):
    """A setting or flag that cannot be, in one line: exit code 2."""


def config_of_file(file: str) -> configs.Config:
    """Runs a config file, which may define cells and tasks; returns its config. Raises BadSetting."""
    path = Path(file)
    if not path.is_file():
        beside = [str(other) for other in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise BadSetting(f"--config={file}: no such file{configs.nearest(str(path), beside)}")
    try:
        with _importable(path.parent):
            config = runpy.run_path(str(path))["get_config"]()
    except KeyError as error:
        if error.args != ("get_config",):
            raise BadSetting(f"--config={file}: {type(error).__name__}: {error}") from error
        raise BadSetting(f"--config={file} has no get_config(); allowed: get_config() -> Config") from None
    except (Exception, SystemExit) as error:
        unknown = re.search(r"Config.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
        reason = unknown_setting(unknown[1]) if unknown else f"{type(error).__name__}: {error}"
        raise BadSetting(f"--config={file}: {reason}") from error
    if not isinstance(config, configs.Config):
        raise BadSetting(f"--config={file}: get_config() returns {type(config).__name__}; allowed: rnnjax.Config")
    return config


def checked(config: configs.Config) -> configs.Config:
    """The config, once its types and values are right; an integer for a float field becomes one. Raises BadSetting."""
    if isinstance(config.text_path, str):
        config = dataclasses.replace(config, text_path=os.path.expanduser(config.text_path))
    for name in FIELDS:
        value, kinds = getattr(config, name), types_of(name)
        if float in kinds and type(value) is int:
            changed: dict[str, typing.Any] = {name: float(value)}
            config = dataclasses.replace(config, **changed)
        elif type(value) not in kinds:
            raise BadSetting(f"config.{name}={value!r}: allowed: {allowed_values(name)}")
    try:
        configs.check(config)
    except (ValueError, TypeError, OSError) as error:
        # The library says `lr=nan` or `unknown cell 'lsmt'`: say where it is set.
        setting = rf"^(unknown )?({'|'.join(FIELDS)})(?=[ =])"
        raise BadSetting(re.sub(setting, r"\1config.\2", str(error))) from error
    return config


def parse_setting(name: str, text: str, flag: str | None = None) -> Any:
    """The value that `text` means for the setting `name`, as `--config.NAME=TEXT` does; BadSetting names the `flag`."""
    if name not in FIELDS:
        raise BadSetting(unknown_setting(name))
    text = os.path.expanduser(text) if name == "text_path" else text
    for kind in types_of(name):
        parsed, value = _parse(kind, text)
        if parsed:
            return value
    shown = f"--config.{name}={text}" if flag is None else f"{flag}: {name}={text!r}"
    raise BadSetting(f"{shown}: allowed: {allowed_values(name)}")


def unknown_setting(name: str) -> str:
    """That there is no such setting, and which one may be meant."""
    hint = configs.nearest(name, FIELDS) or f"; settings: {', '.join(FIELDS)}"
    return f"unknown setting config.{name}{hint}"


def types_of(name: str) -> list[type]:
    """`none` is tried first and a string last: it takes anything."""
    kinds = typing.get_args(TYPES[name]) or (TYPES[name],)
    return sorted(kinds, key=[types.NoneType, bool, int, float, str].index)


def _parse(kind, text):
    words = {types.NoneType: {"none": None}, bool: {"true": True, "false": False}}.get(kind)
    if words is not None:
        word = text.lower()
        return word in words, words.get(word)
    try:
        return True, kind(text)
    except ValueError:
        return False, None


def allowed_values(name: str) -> str:
    """What kinds of value a setting takes, in words."""
    return " or ".join(ALLOWED[kind] for kind in reversed(types_of(name)))


@contextlib.contextmanager
def _importable(folder):
    """What lies beside a config file can be imported while it runs, and nothing is written there."""
    path, written = list(sys.path), sys.dont_write_bytecode
    sys.path.insert(0, str(folder.absolute()))
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.path[:], sys.dont_write_bytecode = path, written
