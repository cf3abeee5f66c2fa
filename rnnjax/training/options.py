"""What can be set of a cell or a task: those arguments of its factory that are plain values.

Types, defaults and help are those of the factory's own signature and docstring; an argument annotated `float | Array`
can be traced, so that one compiled program runs all its values.
"""

import functools
import inspect
import os
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from rnnjax.types import Array

PLAIN = (types.NoneType, bool, int, float, str)  # in the order in which a text is tried: a string takes anything
IN_WORDS = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a string",
    tuple: "integers between commas, or none",
    types.NoneType: "none",
}
COMMON = ("hidden_size", "seq_len", "min_seq_len")  # the config itself gives these
REQUIRED = inspect.Parameter.empty  # the default of an argument that has none


class Option(NamedTuple):
    """One setting."""

    name: str
    default: Any
    kinds: tuple[type, ...]  # of PLAIN, in its order
    doc: str = ""
    traced: bool = False
    is_path: bool = False
    choices: tuple = ()  # all allowed values, where the annotation is a `Literal`


class Options(dict):
    """Options by name, sorted and frozen, so that a config that holds them can be compared and hashed."""

    def __init__(self, options: Mapping[str, Any] | typing.Iterable[tuple[str, Any]] = ()):
        super().__init__(sorted(dict(options).items()))

    def __hash__(self):
        return hash(tuple(self.items()))

    def __reduce__(self):
        return Options, (dict(self),)

    def _refuse(self, *_, **__):
        raise TypeError("the options of a config are frozen; allowed: dataclasses.replace(config, cell_options={...})")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse


def kinds_in_words(kinds: tuple[type, ...]) -> str:
    """What kinds of value a setting takes, in words."""
    return " or ".join(IN_WORDS[kind] for kind in reversed(kinds))


def parsed_as(kind: type, text: str) -> tuple[bool, Any]:
    """(whether the text is a value of this kind, that value)."""
    all_words: dict[type, dict[str, Any]] = {types.NoneType: {"none": None}, bool: {"true": True, "false": False}}
    words = all_words.get(kind)
    if words is not None:
        word = text.lower()
        return word in words, words.get(word)
    try:
        if kind is tuple:
            return True, () if text.lower() == "none" else tuple(int(part) for part in text.split(","))
        return True, kind(text)
    except ValueError:
        return False, None


def options_of(factory: Callable) -> dict[str, Option]:
    """The options of a cell's or task's factory, by name, in its own order.

    They are the arguments after its first (H or T) that take a plain value by annotation or, without one, by default.
    """
    try:
        return _read_cached(factory)
    except TypeError:  # not hashable
        return _read(factory)


def _read(factory):
    if not callable(factory):
        return {}
    try:
        parameters = list(inspect.signature(factory).parameters.values())
    except (TypeError, ValueError):
        return {}
    if parameters and parameters[0].kind in (parameters[0].POSITIONAL_ONLY, parameters[0].POSITIONAL_OR_KEYWORD):
        del parameters[0]
    function = _function(factory)
    hints, docs = _hints(function), _docs(function)
    found = {}
    for parameter in parameters:
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and parameter.name not in COMMON:
            option = _option(parameter, hints.get(parameter.name), docs.get(parameter.name, ""))
            found |= {option.name: option} if option else {}
    return found


_read_cached = functools.lru_cache(maxsize=1024)(_read)


def _option(parameter, hint, doc):
    default = parameter.default
    if hint is None:
        parts = [type(default)]
    else:
        parts = list(typing.get_args(hint)) if typing.get_origin(hint) in (typing.Union, types.UnionType) else [hint]
    literals = [part for part in parts if typing.get_origin(part) is typing.Literal]
    choices = tuple(value for part in literals for value in typing.get_args(part))
    parts += [type(value) for value in choices]
    kinds = tuple(kind for kind in PLAIN if kind in parts)
    plain_default = default is REQUIRED or type(default) in PLAIN
    if not plain_default or not set(kinds) - {types.NoneType}:
        return None
    default = float(default) if type(default) is int and int not in kinds and float in kinds else default
    traced, is_path = Array in parts and float in kinds, os.PathLike in parts
    return Option(parameter.name, default, kinds, doc, traced, is_path, choices)


def _function(factory):
    while isinstance(factory, functools.partial):
        factory = factory.func
    if isinstance(factory, type):
        return factory.__init__
    return inspect.unwrap(factory) if inspect.isroutine(factory) else type(factory).__call__


def _hints(function):
    try:
        return typing.get_type_hints(function)
    except Exception:  # a name that an annotation of the user's own does not find
        return {}


def _docs(function) -> dict[str, str]:
    """The entries of a docstring's `Args:`, by name, each as one line."""
    lines = iter((inspect.getdoc(function) or "").splitlines())
    entries: dict[str, list[str]] = {}
    names, indent = (), None
    for line in lines:
        if line.strip() == "Args:":
            break
    for line in lines:
        if line.strip() and not line.startswith(" "):
            break
        depth = len(line) - len(line.lstrip())
        indent = depth if indent is None and line.strip() else indent
        entry = re.match(r"([\w, ]+): (.*)", line.strip()) if depth == indent else None
        if entry:
            names = tuple(name.strip() for name in entry[1].split(","))
        for name in names:
            entries.setdefault(name, []).append(entry[2] if entry else line.strip())
    return {name: " ".join(" ".join(texts).split()) for name, texts in entries.items()}
