"""Whether a cell keeps what a Cell promises, found from shapes alone before anything is computed with it."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rnnjax.types import Array, Carry, Cell, Gates, Linear, Memory, Params, Parts, Weights

B, T = 11, 13  # sizes that hardly any cell has by itself, so that no shape fits by chance


def check_cell(cell: Cell, input_size: int) -> None:
    """Refuses a cell that breaks a promise of `types.Cell`, in one line that names the part.

    Nothing is computed: each function is run on shapes, for one sequence and for a batch, as the engine will run it.

    Raises TypeError or ValueError if `cell` is no Cell; if one of its functions raises; if `init` does not return a
    flat dict of real arrays; if a gate has another shape than the state; if a part of the carry does not begin
    with the batch shape, or comes out of `step` with another structure, shape or kind of number; if `output` is not
    one real array `[..., O]`.
    """
    if not isinstance(cell, Cell):
        raise TypeError(f"a cell is {_article(cell)}; allowed: a Cell, see rnnjax.types")
    key = jax.eval_shape(lambda: jax.random.key(0))
    params = _shapes("init", lambda key: cell.init(key, input_size), key)
    _check_params(params)
    weights = _shapes("weights", cell.weights, params)
    for batch_shape in ((), (B,)):
        carry = _shapes("initial_carry", lambda w, batch_shape=batch_shape: cell.initial_carry(w, batch_shape), weights)
        _check_carry(carry, batch_shape)
        dtype = jnp.result_type(*params.values(), jnp.bfloat16) if params else jnp.float32
        x = jax.ShapeDtypeStruct((*batch_shape, input_size), dtype)
        z = _shapes("project", cell.project, weights, x)
        if isinstance(cell.form, Gates):
            _check_gates(cell.form, weights, carry, z)
        if isinstance(cell.form, Linear):
            _check_coefficients(cell.form, weights, carry, z)
        if isinstance(cell.form, Memory):
            _check_parts(cell.form, weights, carry, z)
        new = _shapes("step", cell.step, weights, carry, z)
        _shapes("step", as_carry, new, carry)
        _check_output(_shapes("output", cell.output, weights, carry, z), batch_shape)
    over_time = [jax.tree.map(lambda a: jax.ShapeDtypeStruct((T, *a.shape), a.dtype), tree) for tree in (x, carry)]
    zs = _shapes("project", cell.project, weights, over_time[0])  # of all steps at once, and so is `output`
    _check_leading("project", "of T steps", zs, (T, B))
    _check_output(_shapes("output", cell.output, weights, over_time[1], zs), (T, B))


def draws_noise(cell: Cell, input_size: int) -> bool:
    """Whether `project` draws anything from a key: whether its program reads the key.

    Raises ValueError as `check_cell` does, if it raises for a key.
    """
    if not takes_key(cell):
        return False
    key = jax.eval_shape(lambda: jax.random.key(0))
    params = jax.eval_shape(lambda key: cell.init(key, input_size), key)
    x = jax.ShapeDtypeStruct((T, B, input_size), jnp.result_type(*params.values(), jnp.bfloat16))

    def project(params, x, key):
        return cell.project(cell.weights(params), x, key)

    zs = _shapes("project with a key", project, params, x, key)
    _check_leading("project with a key", "of T steps", zs, (T, B))
    program = jax.make_jaxpr(project)(params, x, key).jaxpr
    return any(program.invars[-1] in equation.invars for equation in program.eqns)


def takes_key(cell: Cell) -> bool:
    """Whether `project` has a third argument."""
    try:
        parameters = inspect.signature(cell.project).parameters.values()
    except (TypeError, ValueError):  # of a function that is not Python's
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(positional) > 2 or any(p.kind == p.VAR_POSITIONAL for p in parameters)


def as_carry(new: Carry, carry: Carry, part: str = "step") -> Carry:
    """What a step returned, in the dtypes of the carry that it was given, as a loop needs it.

    Raises TypeError or ValueError where structure or shape differ, or where the cast would lose more than precision: an
    imaginary part, or a fraction.
    """
    if new is None:
        raise TypeError(f"{part} returns None, as a function without `return` does; allowed: the new carry")
    expected, found = jax.tree.structure(carry), jax.tree.structure(new)
    if expected != found:
        found, expected = _written(found), _written(expected)
        raise TypeError(f"{part} returns a carry of structure {found}; allowed: {expected}, that of initial_carry")

    def cast(path, a, old):
        name = f"{part} returns a carry whose part{path_name(path)}"
        if a.shape != old.shape:
            raise ValueError(f"{name} has shape {a.shape}; allowed: {old.shape}, that of the carry it was given")
        if not fits(a.dtype, old.dtype):
            raise TypeError(f"{name} is {a.dtype}; allowed: {old.dtype}, that of initial_carry")
        return a.astype(old.dtype)

    return jax.tree.map_with_path(cast, new, carry)


def given_carry(own: Carry, carry: Carry) -> Carry:
    """A carry that a caller gave, as the cell's own is: integers become real where that is real, real numbers complex.

    A plain tuple may stand for a NamedTuple. Raises TypeError or ValueError where structure, shape or kind do not fit.
    """

    def cast(path, a, own):
        a = a if hasattr(a, "dtype") else jnp.asarray(a)
        if not fits(a.dtype, own.dtype):
            raise TypeError(
                f"the carry's part{path_name(path)} is {a.dtype}; allowed: {own.dtype}, that of initial_carry"
            )
        same_kind = fits(own.dtype, a.dtype) and jnp.issubdtype(own.dtype, jnp.inexact)
        return a if same_kind else a.astype(own.dtype)  # precision is the engine's to choose

    return jax.tree.map_with_path(cast, like("the carry", carry, own), own)


def like(name: str, tree: Any, expected: Any) -> Any:
    """`tree` in the structure of `expected`; raises TypeError or ValueError where structure or shapes differ."""
    if hasattr(expected, "_fields") and type(tree) in (tuple, list) and len(tree) == len(expected):
        tree = type(expected)(*tree)
    found, allowed = jax.tree.structure(tree), jax.tree.structure(expected)
    if found != allowed:
        raise TypeError(f"{name} has structure {_written(found)}; allowed: {_written(allowed)}")
    for (path, a), shape in zip(jax.tree.leaves_with_path(tree), jax.tree.leaves(expected), strict=True):
        if jnp.shape(a) != shape.shape:
            raise ValueError(f"{name}'s part{path_name(path)} has shape {jnp.shape(a)}; allowed: {shape.shape}")
    return tree


def _written(structure) -> str:
    return str(structure).removeprefix("PyTreeDef(").removesuffix(")")


def fits(dtype: Any, into: Any) -> bool:
    """Whether numbers of `dtype` are numbers of the kind of `into`: integers are real, real ones complex."""
    kinds = (jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating)

    def rank(dtype):
        return next((i for i, kind in enumerate(kinds) if jnp.issubdtype(dtype, kind)), None)

    return dtype == into or (None not in (rank(dtype), rank(into)) and rank(dtype) <= rank(into))


def path_name(path: Any) -> str:
    """A leaf's place in a tree, after a space; nothing where the tree is one leaf."""
    return f" {jax.tree_util.keystr(path)}" if path else ""


def _shapes(part: str, function: Callable, *args) -> Any:
    try:
        return jax.eval_shape(function, *args)
    except Exception as error:
        if function is as_carry:
            raise
        first = (str(error).strip() or "no message").splitlines()[0]
        raise ValueError(f"{part} raises {type(error).__name__}: {first}") from error


def _check_params(params: Params):
    if not isinstance(params, dict):
        raise TypeError(f"init returns {_article(params)}; allowed: a flat dict of real arrays")
    for name, value in params.items():
        if not isinstance(value, jax.ShapeDtypeStruct):
            raise TypeError(f"init returns {_article(value)} for parameter {name!r}; allowed: a real array")
        if not jnp.issubdtype(value.dtype, jnp.floating):
            raise TypeError(f"init returns {value.dtype} for parameter {name!r}; allowed: a real floating dtype")


def _check_carry(carry: Carry, batch_shape: tuple[int, ...]):
    if not jax.tree.leaves(carry):
        raise ValueError(f"initial_carry returns {carry!r}, without an array; allowed: any pytree of arrays")
    _check_leading("initial_carry", f"of batch shape {batch_shape}", carry, batch_shape)


def _check_leading(part: str, of: str, tree, leading: tuple[int, ...]):
    for path, leaf in jax.tree.leaves_with_path(tree):
        if leaf.shape[: len(leading)] != leading:
            found = f"{part} {of} returns a part{path_name(path)} of shape {leaf.shape}"
            raise ValueError(f"{found}; allowed: {leading} and then features")


def _check_gates(gates: Gates, weights: Weights, carry: Carry, z: Any):
    h = _shapes("form.state", gates.state, carry)
    s = _shapes("form.affine", gates.affine, weights, h, z)
    if set(s) != set(gates.activations):
        raise ValueError(f"form.affine returns the gates {', '.join(s)}; allowed: {', '.join(gates.activations)}")
    first = next(iter(gates.activations))
    if len(s[first].shape) != len(h.shape):
        raise ValueError(f"form.affine returns {first!r} of shape {s[first].shape}; allowed: {h.shape[:-1]} and then H")
    for name, value in s.items():
        if value.shape != s[first].shape:
            found = f"form.affine returns {name!r} of shape {value.shape}"
            raise ValueError(f"{found}; allowed: {s[first].shape}, that of {first!r}")


def _check_coefficients(linear: Linear, weights: Weights, carry: Carry, z: Any):
    pair = _shapes("form.coefficients", linear.coefficients, weights, z)
    if type(pair) is not tuple or len(pair) != 2:
        raise TypeError(f"form.coefficients returns {_article(pair)}; allowed: a pair (a, b)")
    for letter, tree in zip("ab", pair, strict=True):
        found, allowed = jax.tree.structure(tree), jax.tree.structure(carry)
        if found != allowed:
            raise TypeError(
                f"form.coefficients returns {letter} of structure {_written(found)}; allowed: {_written(allowed)}"
            )
        for (path, leaf), h in zip(jax.tree.leaves_with_path(tree), jax.tree.leaves(carry), strict=True):
            name = f"form.coefficients returns {letter} whose part{path_name(path)}"
            broadcasts = leaf.ndim <= h.ndim and all(
                n in (1, m) for n, m in zip(leaf.shape[::-1], h.shape[::-1], strict=False)
            )
            if not broadcasts:
                raise ValueError(f"{name} has shape {leaf.shape}; allowed: what broadcasts against {h.shape}")
            if not fits(leaf.dtype, h.dtype):
                raise TypeError(f"{name} is {leaf.dtype}; allowed: {h.dtype}, that of initial_carry")


def _check_parts(memory: Memory, weights: Weights, carry: Carry, z: Any):
    S, m = _shapes("form.matrix", memory.matrix, carry)
    parts = _shapes("form.parts", memory.parts, weights, z)
    if not isinstance(parts, Parts):
        raise TypeError(f"form.parts returns {_article(parts)}; allowed: Parts, see rnnjax.types")
    *batch, H, K, V = S.shape
    writes = parts.k.shape[len(batch) : -2]
    row, one = (*batch, *writes, H, K), (*batch, *writes, H, 1)
    allowed = {"r": [(*batch, H, K)], "k": [row], "v": [(*batch, *writes, H, V)], "log_a": [row, one], "p": [row],
               "q": [row], "log_b": [(*batch, H)], "fresh": [tuple(batch)]}  # fmt: skip
    if parts.log_b is not None:  # a number a head is kept beside S
        allowed["log_a"] = [one]
    for name, shapes in allowed.items():
        value = getattr(parts, name)
        if value is not None and value.shape not in shapes:
            raise ValueError(f"form.parts returns {name!r} of shape {value.shape}; allowed: {shapes[0]}")
    if len(writes) > 1 or (writes and parts.log_b is not None):
        raise ValueError(
            f"form.parts returns 'k' of shape {parts.k.shape}; allowed: one dimension of writes, none with b"
        )
    if (parts.p is None) != (parts.q is None) or (m is None) != (parts.log_b is None):
        raise ValueError("form.parts returns one of p and q, or b without m in the carry; allowed: both or none")


def _check_output(y: Array, batch_shape: tuple[int, ...]):
    if not isinstance(y, jax.ShapeDtypeStruct):
        raise TypeError(f"output returns {_article(y)}; allowed: one array [..., O]")
    if y.ndim != len(batch_shape) + 1 or y.shape[:-1] != batch_shape:
        raise ValueError(
            f"output of batch shape {batch_shape} returns shape {y.shape}; allowed: {batch_shape} and then O"
        )
    if not jnp.issubdtype(y.dtype, jnp.floating):
        raise TypeError(f"output is {y.dtype}; allowed: a real floating dtype")


def _article(value) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
