"""Parameters by name, for what an optimiser does with some and not with others: `W_h:0.1,theta:0.1`.

A name means each array of the model whose path ends with it: `W_h` is that of all layers, `layers.0.parameters.W_h`
that of the first, `readout.kernel` one by itself. Of two names that mean one array the longer counts.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import jax

from rnnjax.training.items import split
from rnnjax.training.refusals import nearest

T = TypeVar("T")


def read_factors(text: str) -> dict[str, float]:
    """name -> factor of `name:factor,...`. Raises ValueError, in one line."""
    found: dict[str, float] = {}
    for item in split(text):
        name, _, factor = item.partition(":")
        try:
            value = float(factor)
        except ValueError:
            value = -1.0
        if not 0 <= value < 3e38:
            raise ValueError(f"lr_of={text!r}: {item!r}; allowed: NAME:FACTOR, a finite factor of 0 or more")
        _once(found, name.strip(), f"lr_of={text!r}")
        found[name.strip()] = value
    return found


def read_names(text: str) -> dict[str, bool]:
    """The names of `name,...`, each True. Raises ValueError, in one line."""
    found: dict[str, bool] = {}
    for name in split(text):
        _once(found, name, f"no_decay={text!r}")
        found[name] = True
    return found


def canonical_factors(text: str) -> str:
    """The one text of its meaning; one that cannot be read stays as it is, to be refused."""
    try:
        found = read_factors(text)
    except ValueError:
        return text
    return ",".join(f"{name}:{found[name]}" for name in sorted(found))


def canonical_names(text: str) -> str:
    """The same of a list of names."""
    try:
        return ",".join(sorted(read_names(text)))
    except ValueError:
        return text


def map_by_name(function: Callable[..., Any], values: Mapping[str, T], other: T, tree: Any, *rest: Any) -> Any:
    """`function(value of the leaf's name, leaf, ...)` of each leaf; the value is `other` where no name means it."""

    def of_leaf(path, leaf, *others):
        meant = [name for name in values if _means(name, _path(path))]
        value = values[max(meant, key=lambda name: name.count("."))] if meant else other
        return function(value, leaf, *others)

    return jax.tree_util.tree_map_with_path(of_leaf, tree, *rest)


def check_known(setting: str, names: Iterable[str], params: Any) -> None:
    """Raises ValueError, in one line, for a name that means no array of `params`."""
    paths = [_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for name in names:
        if not any(_means(name, path) for path in paths):
            last = list(dict.fromkeys(path.split(".")[-1] for path in paths))
            hint = nearest(name, last) or f"; parameters: {', '.join(last)}"
            raise ValueError(f"{setting}: the model has no parameter {name!r}{hint}")


def _once(found, name, setting):
    if name in found:
        raise ValueError(f"{setting}: {name} is given twice; allowed: once")


def _means(name, path):
    return f".{path}".endswith(f".{name}")


def _path(path):
    return ".".join(str(entry.key) for entry in path if hasattr(entry, "key"))
