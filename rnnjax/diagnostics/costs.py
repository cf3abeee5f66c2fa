"""What a program has to compute, counted before it runs."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr


def product_flops(function: Callable, *args: Any) -> int:
    """The floating-point operations of all matrix products in `function(*args)`: 2 m n k for `[m, k]` by `[k, n]`.

    A complex product is four real ones. A loop counts as often as it runs, of a choice the dearest branch. Elementwise
    work is not counted: for a layer of H units it grows with H, and the products grow with H^2.

    Args:
      function: of arrays; it is traced, and not run.
      args: arrays, or their shapes.

    Raises ValueError for products in a loop whose number of turns is not known before it runs.
    """
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _count(jaxpr: Jaxpr) -> int:
    return sum(_count_one(equation) for equation in jaxpr.eqns)


def _count_one(equation) -> int:
    name = equation.primitive.name
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        (first, *_), (out,) = equation.invars, equation.outvars
        length = 1
        for axis in contracted:
            length *= first.aval.shape[axis]
        return (8 if jax.numpy.issubdtype(out.aval.dtype, jax.numpy.complexfloating) else 2) * out.aval.size * length
    inside = [_count(jaxpr) for jaxpr in _jaxprs_of(equation.params)]
    if name == "while" and any(inside):
        raise ValueError("a while loop multiplies matrices; allowed: loops of a known length")
    if name == "cond":
        return max(inside)
    return sum(inside) * equation.params.get("length", 1) if name == "scan" else sum(inside)


def _jaxprs_of(params) -> Iterator[Jaxpr]:
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else [value]:
            if isinstance(part, ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, Jaxpr):
                yield part
