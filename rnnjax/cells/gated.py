"""The constructor of every cell whose recurrence is one linear map of the carried state, then elementwise."""

import functools
import inspect
import numbers
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from rnnjax.initializers import Initializer, glorot, orthogonal, per_gate, zeros
from rnnjax.types import Activation, Array, Carry, Cell, Gates, Params, Weights


def gated(
    hidden_size: int,
    activations: Mapping[str, Activation],
    update: Callable[..., Carry],
    *,
    of_input: tuple[str, ...] | None = None,
    of_state: tuple[str, ...] | None = None,
    carry: Callable[..., Carry] | None = None,
    state: Callable[[Carry], Array] | None = None,
    diagonal: bool = False,
    w_x: Initializer = glorot,
    w_h: Initializer | None = None,
    bias: Mapping[str, Initializer] | None = None,
    vectors: Mapping[str, Initializer] | None = None,
) -> Cell:
    """A cell from its gates and its elementwise update.

        s_t = W_x x_t + W_h h_{t-1} + b           [..., H] for each gate
        h_t = update(weights, h_{t-1}, **{gate: activation(s_t)})

    Args:
      hidden_size: H.
      activations: gate name -> nonlinearity, in the order of the columns of the weights.
      update: `(weights, carry, *, <one argument a gate>) -> carry`, elementwise over the units: unit k of the result
        depends on unit k of the arguments alone. May use vector parameters `[H]`, and numbers that are among the
        weights (see `with_constants`). Where it closes over a traced one, the cell leaves the fast path.
      of_input, of_state: the gates that see x_t, and those that see h_{t-1}; both default to all. W_x is
        `[D, len(of_input) H]`, W_h `[H, len(of_state) H]`.
      carry: makes the carry from its parts, a NamedTuple class; by default the carry is h itself.
      state: what W_h multiplies, of the carry, `[..., S]`; by default its field `h`; W_h is then
        `[S, len(of_state) H]`.
      diagonal: each unit sees itself alone: W_h is a vector `[len(of_state) H]`, and U h is u_k h_k for unit k.
      w_x, w_h: initialisers, applied gate by gate. `w_h` is orthogonal by default, and needed where `diagonal`.
      bias: gate -> initialiser of its bias, zeros where left out.
      vectors: name -> initialiser of a further `[H]` parameter that `update` uses, such as a peephole.

    Returns a `Cell` with parameters W_x, W_h, b `[len(of_input) H]`, b_h for the gates that see the state
    alone, and `vectors`.

    Raises ValueError for a hidden size below 1 or not whole.
    """
    check_hidden_size(hidden_size)
    names = tuple(activations)
    of_input = names if of_input is None else of_input
    of_state = names if of_state is None else of_state
    state_alone = tuple(name for name in of_state if name not in of_input)
    w_h = orthogonal() if w_h is None else w_h
    bias, vectors = bias or {}, vectors or {}
    state = state or ((lambda c: c.h) if carry else (lambda c: c))
    columns_h = len(of_state) * hidden_size

    def init(key: Array, input_size: int) -> Params:
        keys = iter(jax.random.split(key, 2 + len(names) + len(vectors)))
        rows = () if diagonal else jax.eval_shape(lambda: state(initial_carry(None, ()))).shape
        params = {
            "W_x": per_gate(w_x, len(of_input))(next(keys), (input_size, len(of_input) * hidden_size)),
            "W_h": per_gate(w_h, len(of_state))(next(keys), (*rows, columns_h)),
        }
        b = {name: bias.get(name, zeros)(next(keys), (hidden_size,), jnp.float32) for name in names}
        params["b"] = jnp.concatenate([b[name] for name in of_input])
        if state_alone:
            params["b_h"] = jnp.concatenate([b[name] for name in state_alone])
        for name, initializer in vectors.items():
            params[name] = initializer(next(keys), (hidden_size,), jnp.float32)
        return params

    def initial_carry(weights: Weights, batch_shape: tuple[int, ...]) -> Carry:
        zero = jnp.zeros((*batch_shape, hidden_size))
        return carry(*(zero,) * len(carry._fields)) if carry else zero

    def project(weights: Weights, x: Array, key: Array | None = None) -> dict[str, Array]:
        # One array a gate rather than one [..., G H]: a scan that splits its input compiles to a slow loop on a CPU.
        columns = len(of_input) * hidden_size
        W_x = split(_weight(weights, "W_x", x.shape[-1], columns), of_input)
        b = split(_weight(weights, "b", columns), of_input)
        return {name: x @ W_x[name] + b[name] for name in of_input}

    def affine(weights: Weights, h: Array, z: dict[str, Array]) -> dict[str, Array]:
        s = _by_themselves(weights, h, of_state) if diagonal else _together(weights, h, of_state, columns_h)
        if state_alone:
            b_h = split(_weight(weights, "b_h", len(state_alone) * hidden_size), state_alone)
            s |= {name: s[name] + b_h[name] for name in state_alone}
        return {name: s[name] + z[name] if name in s and name in z else s.get(name, z.get(name)) for name in names}

    gates = Gates(affine, activations, update, state, of_state)
    return Cell(init, initial_carry, functools.partial(step_of_gates, gates), project, form=gates)


def step_of_gates(gates: Gates, weights: Weights, carry: Carry, z: Any) -> Carry:
    """The step that the parts of a cell are of."""
    s = gates.affine(weights, gates.state(carry), z)
    return gates.update(weights, carry, **{name: phi(s[name]) for name, phi in gates.activations.items()})


def _together(weights: Weights, h: Array, of_state: tuple[str, ...], columns: int) -> dict[str, Array]:
    return split(h @ _weight(weights, "W_h", h.shape[-1], columns), of_state)


def _by_themselves(weights: Weights, h: Array, of_state: tuple[str, ...]) -> dict[str, Array]:
    W_h = _weight(weights, "W_h", len(of_state) * h.shape[-1])
    return {name: u * h for name, u in split(W_h, of_state).items()}


def with_constants(cell: Cell, **constants: float | Array) -> Cell:
    """The cell with these numbers among its weights, where `update` reads them as `weights["dt"]`, in their dtype.

    So the cell keeps the fast path where a number is traced: the engine differentiates `update` by itself, by what it
    is given, and scans a cell that closes over a traced number.
    """

    def weights(params: Params) -> Weights:
        dtype = jnp.result_type(*params.values())
        return cell.weights(params) | {name: jnp.asarray(value, dtype) for name, value in constants.items()}

    return cell._replace(weights=weights)


def unsquashed(s: Array) -> Array:
    """s itself: the activation of a gate that has none."""
    return s


def check_hidden_size(hidden_size: int) -> None:
    """Raises ValueError unless it is 1, 2, ..."""
    if not isinstance(hidden_size, numbers.Integral) or hidden_size < 1:
        raise ValueError(f"hidden_size is {hidden_size}; allowed: 1, 2, ...")


def check_positive(**options: float | Array) -> None:
    """Raises ValueError for an option of 0 or less; a traced one is not looked at."""
    for name, value in options.items():
        if isinstance(value, numbers.Real) and value <= 0:
            raise ValueError(f"{name} is {value}; allowed: more than 0")


def memoized(factory: Callable[..., Cell]) -> Callable[..., Cell]:
    """A cell's factory that returns the very same Cell for the same settings, so that JAX need not trace it again.

    Settings that cannot be compared (traced ones, and functions that close over something) make a new cell each time.
    """
    signature = inspect.signature(factory)
    remember = functools.lru_cache(maxsize=256, typed=True)(factory)

    @functools.wraps(factory)
    def make(*args, **options):
        bound = signature.bind(*args, **options)
        if not all(map(_comparable, bound.arguments.values())):
            return factory(*args, **options)
        bound.apply_defaults()
        return remember(*bound.args, **bound.kwargs)

    return make


def _comparable(setting) -> bool:
    plain_function = inspect.isfunction(setting) and setting.__closure__ is None
    return plain_function or isinstance(setting, numbers.Number | str | None)


def _weight(weights: Weights, name: str, *shape: int) -> Array:
    """The weight of that name. Raises ValueError where it has another shape."""
    if weights[name].shape != shape:
        raise ValueError(f"{name!r} has shape {weights[name].shape}; allowed: {shape}")
    return weights[name]


def split(array: Array, names: tuple[str, ...]) -> dict[str, Array]:
    """`[..., G H]` -> one `[..., H]` a name."""
    if len(names) == 1:
        return {names[0]: array}
    return dict(zip(names, jnp.split(array, len(names), axis=-1), strict=True))
