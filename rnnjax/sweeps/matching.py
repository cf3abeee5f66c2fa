"""Models to compare: what each is called, and the hidden size at which it matches the first one."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from flax import nnx

from rnnjax.training.config import FIELDS, OWNERS, Config, factory_of, make_cell, make_task, unknown_setting
from rnnjax.training.dotted import changed_settings, with_fitting_options, with_settings
from rnnjax.training.model import make_model
from rnnjax.training.refusals import BadSetting, one_of
from rnnjax.training.settings import checked, parse_setting
from rnnjax.types import Task

MATCHES = ("parameters", "width", "time")
# Models differ in what they are and in how they learn; what they are asked, and what they may spend, is the same.
OF_ALL = (
    *("task", "seq_len", "min_seq_len", "batch_size", "steps", "eval_every", "eval_batch", "seed"),
    *("cell", "hidden_size"),
)
UNITS = 256  # no model's hidden size need be a multiple of more
SIZES = 7  # that are timed, for one model
NEAR = 0.03  # a time as near as this is not told from the same one


class Model(NamedTuple):
    """One of those that are compared."""

    label: str  # as it was given, such as `transformer:heads=2`
    config: Config


def models_of(config: Config, texts: Sequence[str]) -> list[Model]:
    """The models that texts such as `lstm`, `lstm:peepholes=true` and `transformer:heads=2:lr=1e-3` name.

    A name is that of a cell, or FILE.py:NAME; after it stand options of the cell, and settings of the config. The
    options that the config has itself are for those models that have them, as in a sweep.

    Raises BadSetting for a name, an option or a value that cannot be, for a setting that is of all, for an option that
    no model has, and for fewer than two models or two that are the same.
    """
    models = [_model_of(config, text) for text in texts]
    if len(models) < 2:
        raise BadSetting(f"models={','.join(texts)!r}; allowed: two or more, such as rnn,lstm,gru")
    for name in config.cell_options:
        if not any(name in model.config.cell_options for model in models):
            raise BadSetting(unknown_setting(f"cell.{name}", models[0].config))
    known: dict[str, str] = {}
    for label, own in models:
        if (other := known.setdefault(str(changed_settings(own)), label)) != label or texts.count(label) > 1:
            raise BadSetting(f"models={label!r} and {other!r} are the same; allowed: each once")
    return models


def matched(models: Sequence[Model], match: str, seconds: Callable[[Config], float]) -> list[Model]:
    """The models, checked, each with the hidden size at which it is nearest to the first at its config's.

    Args:
      models: as `models_of` returns them.
      match: "parameters", how many are trained in all; "time", that of a training step; or "width", all of one size.
      seconds: config -> the time of a training step, asked for `SIZES` sizes of a model at most, and for "time" alone.

    Raises BadSetting for a model that cannot be of such a size.
    """
    try:
        one_of("match", match, MATCHES)
    except ValueError as error:
        raise BadSetting(str(error)) from None
    first, *others = [model._replace(config=checked(model.config)) for model in models[:1]] + list(models[1:])
    if match == "width":
        return [first, *(model._replace(config=checked(model.config)) for model in others)]
    target = count_parameters(first.config)
    found = [first]
    for label, config in others:
        unit = unit_of(config)
        size = _nearest_in_parameters(config, target, unit)
        if match == "time":
            ask = lambda size, config=config: seconds(checked(_at(config, size)))  # noqa: E731
            size = nearest_time(ask, seconds(first.config), unit, size)
        found.append(Model(label, checked(_at(config, size))))
    return found


def count_parameters(config: Config, task: Task | None = None) -> int:
    """How many numbers the model of a config has to train."""
    task = task or make_task(config)
    model = nnx.eval_shape(lambda: make_model(config, task, jax.random.key(0)))
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def unit_of(config: Config) -> int:
    """The least number whose multiples the hidden size can be, such as 8 for 4 heads of an even width.

    Raises BadSetting where there is none.
    """
    for unit in range(1, UNITS + 1):
        if all(_can_be(config, unit * k) for k in (1, 2, 3)):
            return unit
    checked(config)  # raises, with the cell's own words
    raise BadSetting(f"config.cell={config.cell!r}; allowed: one that some multiple of {UNITS} or less is a size of")


def nearest_size(count: Callable[[int], int], target: int, unit: int = 1) -> int:
    """The multiple of `unit` whose `count`, which grows, is nearest to the target; of two, the smaller."""
    high = 1
    while count(high * unit) < target:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle * unit) < target else (low, middle)
    return unit * min((k for k in (low, high) if k), key=lambda k: (abs(count(k * unit) - target), k))


def nearest_time(seconds: Callable[[int], float], target: float, unit: int, start: int) -> int:
    """Of up to `SIZES` multiples of `unit`, the one whose time comes nearest to the target in ratio.

    Each next one is two to four times the last, or where a line through those around it puts the target.
    """
    found: dict[int, float] = {}
    size: int | None = start
    while size is not None and len(found) < SIZES:
        found[size] = math.log(seconds(size) / target)
        size = None if abs(found[size]) < NEAR else _next_size(found, unit)
    return min(found, key=lambda size: (abs(found[size]), size))


def _next_size(found, unit):
    """The next multiple to try of those with these logarithms of ratio; None where it is one of them, or between two
    that are in no order."""
    below = max((size for size, log in found.items() if log < 0), default=None)
    above = min((size for size, log in found.items() if log >= 0), default=None)
    if below is None:
        guess = above * min(max(math.exp(-found[above]), 1 / 4), 1 / 2)
    elif above is None:
        guess = below * max(min(math.exp(-found[below]), 4), 2)
    elif below < above:
        ratio = {size: math.exp(found[size]) for size in (below, above)}
        guess = below + (above - below) * (1 - ratio[below]) / (ratio[above] - ratio[below])
    else:
        return None
    size = max(round(guess / unit), 1) * unit
    if size in found:  # rounded back: the neighbour on the target's side, if it is new
        size += unit if found[size] < 0 else -unit
    return size if size > 0 and size not in found else None


def _model_of(config, text):
    parts = text.strip().split(":")
    names = [part for part in parts if "=" not in part]
    settings = parts[len(names) :]
    if not names or not names[0] or any("=" in part for part in parts[: len(names)]):
        raise BadSetting(f"models={text!r}; allowed: CELL, or CELL:OPTION=VALUE:OPTION=VALUE")
    own = dataclasses.replace(config, cell=":".join(names))
    try:
        factory_of(own, "cell")
        own = with_fitting_options(own, ["cell"])
    except ValueError as error:
        raise BadSetting(f"models={text!r}: {error}") from None
    values: dict[str, Any] = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        name = name if name in FIELDS or "." in name else f"cell.{name}"
        if name in OF_ALL or name.partition(".")[0] in set(OWNERS) - {"cell"}:
            raise BadSetting(f"models={text!r}: {name} is the same for all models; allowed: as --config.{name}")
        values[name] = parse_setting(name, value, f"models={text!r}", [own])
    return Model(text.strip(), with_settings(own, values))


def _nearest_in_parameters(config, target, unit):
    task = make_task(config)
    return nearest_size(lambda size: count_parameters(_at(config, size), task), target, unit)


def _at(config: Config, size: int) -> Config:
    return dataclasses.replace(config, hidden_size=size)


def _can_be(config, size):
    try:
        make_cell(_at(config, size))
    except ValueError:
        return False
    return True
