"""All settings of a config by name: its fields, and the options of its cell and task as `cell.gain`, `task.symbols`."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from rnnjax.training.config import (
    DEFAULTS,
    FIELDS,
    OWNERS,
    TRACED,
    Config,
    known_options,
    resolved_options,
    traced_options,
)
from rnnjax.training.options import REQUIRED, options_of
from rnnjax.training.own_files import short_name


def flat_settings(config: Config) -> dict[str, Any]:
    """Every setting by name, resolved: with the defaults of the options too."""
    settings: dict[str, Any] = {}
    for field in dataclasses.fields(Config):
        kind = field.name.removesuffix("_options")
        if kind != field.name:
            settings |= {f"{kind}.{name}": value for name, value in resolved_options(config, kind).items()}
        else:
            value = getattr(config, field.name)
            settings[field.name] = short_name(value) if kind in OWNERS else value
    return settings


def changed_settings(config: Config) -> dict[str, Any]:
    """Those settings that are not at their defaults: what makes a trial the one that it is.

    A setting that is new, and at its default, changes nothing here.
    """
    return {name: value for name, value in flat_settings(config).items() if value != default_of(config, name)}


def static_settings(config: Config) -> dict[str, Any]:
    """Every setting that decides the compiled program. Of a traced option that is whether it is None, and not its
    value."""
    traced = {f"cell.{name}" for name in traced_options(config)} | set(TRACED)
    return {name: value for name, value in flat_settings(config).items() if name not in traced}


def program_settings(config: Config) -> dict[str, Any]:
    """Those static settings that are not at their defaults: what makes a compiled program the one that it is.

    A traced option counts as None or not None, as in `static_settings`.
    """
    traced = {f"cell.{name}" for name, option in known_options(config, "cell").items() if option.traced}
    found = {}
    for name, value in flat_settings(config).items():
        default = default_of(config, name)
        if name in traced:
            value, default = value is None, default is None
        if name not in TRACED and value != default:
            found[name] = value
    return found


def default_settings(config: Config) -> dict[str, Any]:
    """The default of every setting that has one, by name."""
    defaults = {name: default_of(config, name) for name in flat_settings(config)}
    return {name: value for name, value in defaults.items() if value not in (REQUIRED, dataclasses.MISSING)}


def with_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a record, by name, and the default of each that is newer than the record.

    Of an own cell or task that is its file's affair: with another option it is another file.
    """
    defaults = {name: field.default for name, field in FIELDS.items()}
    for kind, table in OWNERS.items():
        name = settings.get(kind)
        options = options_of(table[name]) if isinstance(name, str) and name in table else {}
        defaults |= {f"{kind}.{n}": option.default for n, option in options.items() if option.default is not REQUIRED}
    known = {**settings, **{name: value for name, value in defaults.items() if name not in settings}}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in known.items()}  # JSON has none


def default_of(config: Config, name: str) -> Any:
    """The default of a setting, an option's being that of the config's own cell or task."""
    kind, dot, option = name.partition(".")
    if not dot:
        return getattr(DEFAULTS, name)
    known = known_options(config, kind)
    return known[option].default if option in known else dataclasses.MISSING


def with_settings(config: Config, settings: Mapping[str, Any]) -> Config:
    """The config with these settings, by name, put in."""
    fields = {name: value for name, value in settings.items() if "." not in name}
    for kind in OWNERS:
        options = {n.partition(".")[2]: value for n, value in settings.items() if n.startswith(f"{kind}.")}
        if options:
            fields[f"{kind}_options"] = getattr(config, f"{kind}_options") | options
    return dataclasses.replace(config, **fields)


def with_fitting_options(config: Config, kinds: Iterable[str]) -> Config:
    """The config without the options that its cell or task (those of the `kinds`, of another one) does not have."""
    fields: dict[str, Any] = {}
    for kind in kinds:
        known, given = known_options(config, kind), getattr(config, f"{kind}_options")
        fields[f"{kind}_options"] = {name: value for name, value in given.items() if name in known}
    return dataclasses.replace(config, **fields)
