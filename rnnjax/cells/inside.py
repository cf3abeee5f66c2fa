"""What the wrappers of cells share: the functions of the cell inside, given what is added to its arguments."""

import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from rnnjax.cells.check import takes_key
from rnnjax.cells.gated import step_of_gates
from rnnjax.types import Array, Carry, Cell, Gates, Linear, Params, Weights

OWN = 2**31 - 1  # folded into the key of `init`; whatever the cell inside draws, it draws as it does alone


class Own(NamedTuple):
    """The weights of a wrapped cell where the wrapper has parameters."""

    inside: Weights
    own: Any


class Beside(NamedTuple):
    """z of a wrapped cell where the wrapper needs something of its own."""

    z: Any  # of the cell inside
    more: Any


def with_parameters(
    cell: Cell, kind: str, draw: Callable[[Array, Params, int], dict[str, Array]], make: Callable | None = None
) -> Cell:
    """`cell` with further parameters, called `KIND_NAME`, or `KIND2_NAME` where a cell inside has such names already.

    Its functions get `Own(weights of the cell inside, {name: parameter})`.

    Args:
      draw: (key, the other parameters, D) -> the further ones by name.
      make: what is made of these once a call, by default nothing.
    """

    def init(key: Array, input_size: int) -> Params:
        params = cell.init(key, input_size)
        own = draw(jax.random.fold_in(key, OWN), params, input_size)
        level = _level(kind, params) + 1
        return params | {f"{kind}{level if level > 1 else ''}_{name}": value for name, value in own.items()}

    def weights(params: Params) -> Own:
        level = _level(kind, params)
        prefix = f"{kind}{level if level > 1 else ''}_"
        own = {name.removeprefix(prefix): value for name, value in params.items() if name.startswith(prefix)}
        inside = cell.weights({name: value for name, value in params.items() if not name.startswith(prefix)})
        return Own(inside, own if make is None else make(own))

    adapted = _adapted(cell, lambda weights: weights.inside, lambda z: z)
    return adapted._replace(init=init, weights=weights)


def with_input(cell: Cell, more: Callable[[Weights, Array, Array | None], Any]) -> Cell:
    """`cell` whose z is `Beside(z of the cell inside, more(weights, x, key))`; each gets a key of its own, or none."""

    def project(weights: Weights, x: Array, key: Array | None = None) -> Beside:
        own, inside = (None, None) if key is None else jax.random.split(key)
        return Beside(projected(cell, weights, x, inside), more(weights, x, own))

    return _adapted(cell, lambda weights: weights, lambda z: z.z)._replace(project=project)


def projected(cell: Cell, weights: Weights, x: Array, key: Array | None = None) -> Any:
    """z of the cell inside, which need not take a key."""
    return cell.project(weights, x, key) if key is not None and takes_key(cell) else cell.project(weights, x)


def gates_inside(cell: Cell) -> Gates | None:
    """The parts of a cell that steps by gates, whatever was done to its affine map; None of another one."""
    if isinstance(cell.form, Gates):
        return cell.form
    step: Any = cell.step
    return step.args[0] if getattr(step, "func", None) is step_of_gates else None


def with_affine(cell: Cell, affine: Callable[..., dict[str, Array]]) -> Cell:
    """A cell that steps by gates with another map to them, which need not be affine: so it leaves the fast path."""
    gates = gates_inside(cell)
    assert gates is not None
    return cell._replace(step=functools.partial(step_of_gates, gates._replace(affine=affine)), form=None)


def one_carry(cell: Cell, weights: Weights) -> Carry:
    """The shapes of a carry without batch."""
    return jax.eval_shape(lambda: cell.initial_carry(weights, ()))


def _adapted(cell: Cell, inside: Callable[[Any], Weights], own_z: Callable[[Any], Any]) -> Cell:
    """`cell` for weights and z that hold more than its own, in the form that it had."""
    own, form, step = gates_inside(cell), cell.form, None
    if own is not None:
        affine, update = own.affine, own.update
        gates = own._replace(
            affine=lambda weights, h, z: affine(inside(weights), h, own_z(z)),
            update=lambda weights, carry, **values: update(inside(weights), carry, **values),
        )
        step = functools.partial(step_of_gates, gates)
        form = gates if form is not None else None
    elif isinstance(form, Linear):
        coefficients = form.coefficients
        form = Linear(lambda weights, z: coefficients(inside(weights), own_z(z)))

    def project(weights: Weights, x: Array, key: Array | None = None) -> Any:
        return projected(cell, inside(weights), x, key)

    return Cell(
        init=cell.init,
        initial_carry=lambda weights, batch_shape: cell.initial_carry(inside(weights), batch_shape),
        step=step or (lambda weights, carry, z: cell.step(inside(weights), carry, own_z(z))),
        project=project,
        output=lambda weights, carry, z: cell.output(inside(weights), carry, own_z(z)),
        weights=cell.weights,
        form=form,
    )


def _level(kind, params) -> int:
    """The highest number that names of this kind have among the parameters; 0 where there are none."""
    found = (re.match(rf"{kind}(\d*)_", name) for name in params)
    return max((int(match[1] or 1) for match in found if match), default=0)
