"""Settings as text and from files: what they mean, and one line for whatever is wrong with them."""

import os
import re
import runpy
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rnnjax.training import config as configs
from rnnjax.training.checks import check
from rnnjax.training.config import FIELDS, OWNERS
from rnnjax.training.dotted import with_settings
from rnnjax.training.options import PLAIN, Option, kinds_in_words, parsed_as
from rnnjax.training.own_files import importable, is_own, look_again
from rnnjax.training.refusals import BadSetting, nearest

__all__ = ["BadSetting", "allowed_values", "checked", "config_of_file", "parse_setting", "setting_of"]

TYPES = typing.get_type_hints(configs.Config)


def config_of_file(file: str) -> configs.Config:
    """Runs a config file, which may define cells and tasks; returns its config. Raises BadSetting."""
    path = Path(file)
    if not path.is_file():
        beside = [str(other) for other in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise BadSetting(f"--config={file}: no such file{nearest(str(path), beside)}")
    try:
        with importable(path.parent):
            config = runpy.run_path(str(path))["get_config"]()
    except KeyError as error:
        if error.args != ("get_config",):
            raise BadSetting(f"--config={file}: {type(error).__name__}: {error}") from error
        raise BadSetting(f"--config={file} has no get_config(); allowed: get_config() -> Config") from None
    except (Exception, SystemExit) as error:
        known = isinstance(error, TypeError) and str(error).startswith("unknown setting ")
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        raise BadSetting(f"--config={file}: {reason}") from error
    if not isinstance(config, configs.Config):
        raise BadSetting(f"--config={file}: get_config() returns {type(config).__name__}; allowed: rnnjax.Config")
    return config


def checked(config: configs.Config) -> configs.Config:
    """The config, once its types and values are right; an integer for a float field becomes one. Raises BadSetting."""
    for name in FIELDS:
        if type(value := getattr(config, name)) not in (kinds := setting_of(name, config).kinds):
            if not (float in kinds and type(value) is int):
                raise BadSetting(f"config.{name}={value!r}: allowed: {kinds_in_words(kinds)}")
            config = with_settings(config, {name: float(value)})
    try:
        for kind in OWNERS:
            if is_own(name := getattr(config, kind)):
                look_again(kind, name)
        config = with_settings(config, dict(_options_as_declared(config)))
        check(config)
    except (ValueError, TypeError, OSError) as error:
        # The library says `lr=nan` or `unknown cell 'lsmt'`: say where it is set.
        setting = rf"^(unknown )?((?:cell|task)\.\w+|{'|'.join(FIELDS)})(?=[ =])"
        raise BadSetting(re.sub(setting, r"\1config.\2", str(error))) from error
    return config


def setting_of(name: str, *within: configs.Config) -> Option:
    """What the setting `name` is: a field's, or an option's in the first of the configs whose cell or task has it.

    Raises BadSetting where there is none.
    """
    within = within or (configs.DEFAULTS,)
    if name in FIELDS:
        field = FIELDS[name]
        if typing.get_origin(TYPES[name]) is tuple:
            return Option(name, field.default, (tuple,), field.metadata["doc"])
        kinds = typing.get_args(TYPES[name]) or (TYPES[name],)
        return Option(name, field.default, tuple(k for k in PLAIN if k in kinds), field.metadata["doc"])
    kind, _, option = name.partition(".")
    for config in within if kind in OWNERS else ():
        if option in (known := configs.known_options(config, kind)):
            return known[option]._replace(name=name)
    raise BadSetting(configs.unknown_setting(name, within[0]))


def parse_setting(name: str, text: str, flag: str | None = None, within: Sequence[configs.Config] = ()) -> Any:
    """The value that `text` means for the setting `name`, as `--config.NAME=TEXT` does; BadSetting names the `flag`.

    Args:
      name: a field, or `cell.OPTION`, `task.OPTION` of one of the configs in `within`.
      text: what is to be read.
      flag: as it was given, where it was not --config.NAME.
      within: configs whose cells and tasks may have the option; by default those of `Config()`.
    """
    setting = setting_of(name, *within)
    text = os.path.expanduser(text) if setting.is_path else text
    for kind in setting.kinds:
        parsed, value = parsed_as(kind, text)
        if parsed and (value is None or not setting.choices or value in setting.choices):
            return value
    shown = f"--config.{name}={text}" if flag is None else f"{flag}: {name}={text!r}"
    raise BadSetting(f"{shown}{_hint(setting, text)}: allowed: {allowed_values(setting)}")


def allowed_values(setting: Option) -> str:
    """What values a setting takes, in words."""
    return ", ".join(map(str, setting.choices)) or kinds_in_words(setting.kinds)


def _hint(setting, text):
    return nearest(text, map(str, setting.choices)).rstrip("?") if setting.choices else ""


def _options_as_declared(config):
    """The given options by dotted name: an integer for a float becomes one, and `~` the user's home."""
    for kind in OWNERS:
        known = configs.known_options(config, kind)
        for name, value in getattr(config, f"{kind}_options").items():
            kinds = known[name].kinds if name in known else ()
            if type(value) is int and int not in kinds and float in kinds:
                value = float(value)
            elif isinstance(value, str) and name in known and known[name].is_path:
                value = os.path.expanduser(value)
            yield f"{kind}.{name}", value
