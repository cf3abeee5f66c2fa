"""What the wrappers of cells share: the functions of the cell inside, given what is added to its arguments."""

import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from rnnjax.cells.check import takes_key
from rnnjax.cells.gated import step_of_gates
from rnnjax.cells.memory import of_memory, reads_its_memory
from rnnjax.types import Array, Carry, Cell, Gates, Linear, Memory, Params, Weights

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


def with_output(cell: Cell, show: Callable[[Weights, Array, Any], Array]) -> Cell:
    """`cell` that shows show(w, y, z) of what it showed before, in the form that it had."""
    form = cell.form
    if isinstance(form, Memory) and reads_its_memory(cell):
        inner = form.show
        return cell._replace(**of_memory(form._replace(show=lambda w, z, o, m: show(w, inner(w, z, o, m), z))))
    return cell._replace(output=lambda weights, carry, z: show(weights, cell.output(weights, carry, z), z))


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

    def output(weights: Weights, carry: Carry, z: Any) -> Array:
        return cell.output(inside(weights), carry, own_z(z))

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
    elif isinstance(form, Memory):
        parts, show = form.parts, form.show
        form = form._replace(
            parts=lambda weights, z: parts(inside(weights), own_z(z)),
            show=lambda weights, z, o, m: show(inside(weights), own_z(z), o, m),
        )
        functions = of_memory(form)
        step, output = functions["step"], functions["output"] if reads_its_memory(cell) else output

    def project(weights: Weights, x: Array, key: Array | None = None) -> Any:
        return projected(cell, inside(weights), x, key)

    return Cell(
        init=cell.init,
        initial_carry=lambda weights, batch_shape: cell.initial_carry(inside(weights), batch_shape),
        step=step or (lambda weights, carry, z: cell.step(inside(weights), carry, own_z(z))),
        project=project,
        output=output,
        weights=cell.weights,
        form=form,
    )


def _level(kind, params) -> int:
    """The highest number that names of this kind have among the parameters; 0 where there are none."""
    found = (re.match(rf"{kind}(\d*)_", name) for name in params)
    return max((int(match[1] or 1) for match in found if match), default=0)
