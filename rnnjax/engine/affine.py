"""The affine map of a gated cell, written for a loop, and its gradient: both derived from `Gates.affine` alone.

In the loop each matrix should be multiplied once a step, by all that it is multiplied with. So the matrices are read
off the functions themselves: a map that multiplies its argument once by a matrix makes that matrix of an identity.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from rnnjax.cells.gated import split
from rnnjax.engine.varying import all_varying
from rnnjax.types import Array, Cell, Weights, gates_of


def in_loop(cell: Cell, hoisted: bool, weights: Weights, h: Array, inputs: Any) -> Callable:
    """`(h, x or z of one step) -> (pre-activations by gate, v)`, for the carried state h and all inputs.

    Where every gate sees both h and x, v = [h, x, 1] and the weights are [W_h; W_x; b]: one matmul a step, and one for
    the gradient of all three. Elsewhere v is None.
    """
    gates = gates_of(cell)
    if hoisted:
        return lambda h, z: (gates.affine(weights, h, z), None)
    H, D = h.shape[-1], inputs.shape[-1]
    W = _joined(cell, weights, H, D)
    if W is None:
        project = _projected(cell, weights, D)
        return lambda h, x: (gates.affine(weights, h, project(x)), None)

    def linear(h, x):
        v = jnp.concatenate([h, x, jnp.ones((*h.shape[:-1], 1), h.dtype)], axis=-1)
        return split(v @ W, gates.of_state), v

    return linear


def pull_to_state(cell: Cell, hoisted: bool, weights: Weights, h: Array, inputs: Any) -> Callable[[Array], Array]:
    """`gradient by the pre-activations of the gates that see h, side by side -> gradient by h`, for one step."""
    gates, H = gates_of(cell), h.shape[-1]
    if hoisted:
        z = jax.tree.map(lambda a: jnp.zeros((H, *a.shape[h.ndim :]), a.dtype), inputs)
    else:
        z = _like(lambda: cell.project(weights, jnp.zeros((H, inputs.shape[-1]), inputs.dtype)))
    found = matrix(lambda h: gates.affine(weights, h, z), H, h.dtype, weights)
    if found is not None and all(found[name] is not None for name in gates.of_state):
        W_T = jnp.concatenate([found[name] for name in gates.of_state], axis=-1).T
        return lambda ds: ds @ W_T

    def by_transposition(ds):
        zero = jnp.zeros((*ds.shape[:-1], H), h.dtype)
        z_now = jax.tree.map(lambda a: jnp.zeros((*ds.shape[:-1], *a.shape[1:]), a.dtype), z)
        s, pullback = jax.vjp(lambda h: gates.affine(weights, h, z_now), zero)
        ds = {n: jnp.zeros_like(a) for n, a in s.items()} | split(ds, gates.of_state)
        return pullback(jax.tree.map(lambda d, a: d.astype(a.dtype), ds, s))[0]

    return by_transposition


def pull(
    cell: Cell,
    hoisted: bool,
    weights: Weights,
    h: Array,
    inputs: Any,
    v: Array | None,
    ds_state: Array,
    ds_input: dict[str, Array],
) -> tuple[Weights, Any]:
    """The gradients by (weights, inputs) of all steps at once, from v and the gradients by the pre-activations."""
    gates = gates_of(cell)
    H = h.shape[-1]
    if v is not None:
        D = inputs.shape[-1]
        W, pull_weights = jax.vjp(lambda w: _joined(cell, w, H, D), weights)
        dW = _rows(v).T @ _rows(ds_state)
        return pull_weights(dW.astype(W.dtype) if jnp.iscomplexobj(W) else dW.real.astype(W.dtype))[0], (
            ds_state @ W[H : H + D].T
        )
    maps = None if hoisted else functools.partial(_maps, cell, H=H, D=inputs.shape[-1])
    if maps and maps(weights) is not None:
        return _pull_maps(maps, weights, h, inputs, ds_state, [ds_input[n] for n in _input_alone(gates)])
    # Rows first: of slices side by side XLA makes the array that they are of, but not through a reshape.
    ds = split(_rows(ds_state), gates.of_state) | {n: _rows(d) for n, d in ds_input.items()}
    rows = _rows(h)

    def all_steps(weights, inputs):
        z = jax.tree.map(lambda a: a.reshape(rows.shape[0], *a.shape[h.ndim - 1 :]), inputs)
        return gates.affine(weights, rows, z if hoisted else cell.project(weights, z))

    s, pullback = jax.vjp(all_steps, weights, inputs)
    return pullback({n: ds[n].astype(a.dtype) for n, a in s.items()})


def _pull_maps(maps, weights, h, inputs, ds_state, ds_input):
    """The same through the matrices themselves: one product each for the gates that see h, however many they are."""
    made, pull_weights = jax.vjp(maps, weights)
    h, x, ds_state = _rows(h), _rows(inputs), _rows(ds_state)
    ds_input = [_rows(d) for d in ds_input]
    by_input = [(x.T @ d, jnp.sum(d, axis=0)) for d in ds_input]
    dmade = (h.T @ ds_state, x.T @ ds_state, jnp.sum(ds_state, axis=0), by_input)
    dmade = jax.tree.map(lambda d, a: (d if jnp.iscomplexobj(a) else d.real).astype(a.dtype), dmade, made)
    _, W_x, _, others = made
    dx = ds_state @ W_x.T + sum(d @ W.T for d, (W, _) in zip(ds_input, others, strict=True))
    return pull_weights(dmade)[0], dx.reshape(inputs.shape)


def projection(cell: Cell, weights: Weights, D: int) -> tuple[Any, Any] | None:
    """(the matrices of `project`, one a leaf of z, what it makes of 0), or None where it is not one product each."""
    dtype = _dtype(weights)
    found = matrix(lambda x: cell.project(weights, x), D, dtype, weights)
    if found is None or any(leaf is None for leaf in jax.tree.leaves(found, is_leaf=lambda a: a is None)):
        return None
    return found, _offset(lambda x: cell.project(weights, x), D, dtype, weights)


def state_matrices(cell: Cell, weights: Weights, D: int) -> dict[str, Array] | None:
    """The matrix `[S, H]` that each gate of `of_state` multiplies the state by, D being the size of an input.

    None where a gate does not multiply it by one matrix, as one that sees its own unit alone.
    """
    gates, dtype = gates_of(cell), _dtype(weights)
    size = jax.eval_shape(lambda: gates.state(cell.initial_carry(weights, ()))).shape[-1]
    z = _like(lambda: cell.project(weights, jnp.zeros((size, D), dtype)))
    found = matrix(lambda h: gates.affine(weights, h, z), size, dtype, weights)
    if found is None or any(found[name] is None for name in gates.of_state):
        return None
    return {name: found[name] for name in gates.of_state}


def _projected(cell, weights, D):
    """`project` with one product for all leaves of z."""
    matrices, offsets = projection(cell, weights, D)
    matrices, structure = jax.tree.flatten(matrices)
    offsets = [c[0] for c in jax.tree.leaves(offsets)]
    X = jnp.concatenate(matrices, axis=-1)
    ends = [sum(m.shape[-1] for m in matrices[: i + 1]) for i in range(len(matrices) - 1)]

    def project(x):
        parts = jnp.split(x @ X, ends, axis=-1)
        return structure.unflatten([part + c for part, c in zip(parts, offsets, strict=True)])

    return project


def _joined(cell: Cell, weights: Weights, H: int, D: int):
    """[W_h; W_x; b] `[H + D + 1, G H]`, or None unless every gate sees h and x, each through one matrix."""
    gates = gates_of(cell)
    names = tuple(gates.activations)
    if gates.of_state != names:
        return None
    by_state, by_input, z = _matrices(cell, weights, H, D)
    if by_state is None or by_input is None or any(m[n] is None for m in (by_state, by_input) for n in names):
        return None
    b = _offset(lambda h: gates.affine(weights, h, z()), H, _dtype(weights), weights)
    return jnp.concatenate([jnp.concatenate([m[n] for n in names], axis=-1) for m in (by_state, by_input, b)])


def _maps(cell: Cell, weights: Weights, H: int, D: int):
    """(W_h `[H, S]`, W_x `[D, S]`, b `[S]` of the gates that see h, side by side; (W_x, b) of each other one).

    None where a gate is not of one matrix for h and at most one for x.
    """
    gates, dtype = gates_of(cell), _dtype(weights)
    others = _input_alone(gates)
    by_state, by_input, z = _matrices(cell, weights, H, D)
    if by_state is None or by_input is None or any(by_state[n] is None for n in gates.of_state):
        return None
    if any(by_input[n] is None for n in others) or projection(cell, weights, D) is None:
        return None
    W_x = [jnp.zeros((D, by_state[n].shape[1]), dtype) if by_input[n] is None else by_input[n] for n in gates.of_state]
    b = _offset(lambda h: gates.affine(weights, h, z()), H, dtype, weights)
    c = _offset(lambda x: gates.affine(weights, jnp.zeros((1, H), dtype), cell.project(weights, x)), D, dtype, weights)
    return (
        jnp.concatenate([by_state[n] for n in gates.of_state], axis=-1),
        jnp.concatenate(W_x, axis=-1),
        jnp.concatenate([b[n][0] for n in gates.of_state], axis=-1),
        [(by_input[n], c[n][0]) for n in others],
    )


def _matrices(cell: Cell, weights: Weights, H: int, D: int):
    """(the matrix of h of each gate, that of x, see `matrix`; a function that returns z of an input of 0)."""
    gates, dtype = gates_of(cell), _dtype(weights)
    zeros = _like(lambda: cell.project(weights, jnp.zeros((H, D), dtype)))
    by_state = matrix(lambda h: gates.affine(weights, h, zeros), H, dtype, weights)
    by_input = matrix(
        lambda x: gates.affine(weights, jnp.zeros((D, H), dtype), cell.project(weights, x)), D, dtype, weights
    )
    return by_state, by_input, lambda: _offset(lambda x: cell.project(weights, x), D, dtype, weights)


def _dtype(weights: Weights):
    return jnp.result_type(*jax.tree.leaves(weights), jnp.bfloat16)


def _input_alone(gates) -> list[str]:
    return [name for name in gates.activations if name not in gates.of_state]


def matrix(function: Callable, rows: int, dtype: Any, weights: Weights) -> Any:
    """What the linear part of `function` `[..., rows] -> tree` makes of an identity: a matrix for each leaf.

    I @ W is W, without the product. None for a leaf that does not depend on the argument, and None instead of the tree
    where something else than one product is made of the argument.
    """
    zero, _ = all_varying(jnp.zeros((rows, rows), dtype), weights)
    return _read_off(lambda identity: jax.jvp(function, (zero,), (identity,))[1], zero, lambda eqn, W: W)


def _offset(function, rows: int, dtype, weights: Weights):
    """What `function`, which has matrices, makes of 0: `[1, F]` for each leaf, without a product."""
    zero, _ = all_varying(jnp.zeros((1, rows), dtype), weights)

    def zeros_like_product(eqn, W):
        return all_varying(jnp.zeros(eqn.outvars[0].aval.shape, W.dtype), W)[0]

    return _read_off(function, zero, zeros_like_product)


def _read_off(function, argument, product):
    """`function(argument)` with `product` in the place of the one matrix product that is made of the argument."""
    closed, shape = jax.make_jaxpr(function, return_shape=True)(argument)
    jaxpr, (start,) = closed.jaxpr, closed.jaxpr.invars
    needed = {v for v in jaxpr.outvars if not isinstance(v, Literal)}
    if start in needed:
        return None
    eqns = []
    for eqn in jaxpr.eqns[::-1]:
        if needed & set(eqn.outvars):
            eqns.append(eqn)
            needed |= {v for v in eqn.invars if not isinstance(v, Literal)}
    values, reached = dict(zip(jaxpr.constvars, closed.consts, strict=True)), {start}
    for eqn in eqns[::-1]:
        variables = [v for v in eqn.invars if not isinstance(v, Literal)]
        if start in variables:
            plain = eqn.primitive.name == "dot_general" and eqn.params["dimension_numbers"] == (((1,), (0,)), ((), ()))
            if not plain or eqn.invars[0] is not start or eqn.invars[1] is start:
                return None
            out = [product(eqn, values[eqn.invars[1]])]
        else:
            alone = jaxpr.replace(constvars=[], invars=variables, outvars=eqn.outvars, eqns=[eqn])
            out = jax.core.eval_jaxpr(alone, [], *(values[v] for v in variables))
        values.update(zip(eqn.outvars, out, strict=True))
        reached |= set(eqn.outvars) if reached & set(variables) else set()
    leaves = [None if isinstance(v, Literal) or v not in reached else values[v] for v in jaxpr.outvars]
    return jax.tree.unflatten(jax.tree.structure(shape), leaves)


def _like(function):
    return jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(function))


def _rows(a):
    """`[T, ..., F]` -> `[R, F]`."""
    return a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
