"""The constructors of every cell whose recurrence is linear in its carry, elementwise."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from rnnjax.cells.gated import check_hidden_size, split
from rnnjax.initializers import Initializer, glorot, per_gate, zeros
from rnnjax.types import Activation, Array, Carry, Cell, Linear, Params, Weights


def linear(
    init: Callable[[Array, int], Params],
    initial_carry: Callable[[Weights, tuple[int, ...]], Carry],
    coefficients: Callable[[Weights, Any], tuple[Carry, Carry]],
    **parts: Callable,
) -> Cell:
    """A cell from the coefficients of its recurrence.

        h_t = a_t h_{t-1} + b_t,    a_t, b_t = coefficients(w, z_t)

    Args:
      init, initial_carry: as in `Cell`.
      coefficients: `(weights, z) -> (a, b)`, each a pytree like the carry; see `Linear`.
      parts: the other functions of the `Cell`: project, output, weights.
    """

    def step(weights: Weights, carry: Carry, z: Any) -> Carry:
        a, b = coefficients(weights, z)
        return jax.tree.map(lambda a, h, b: a * h + b, a, carry, b)

    return Cell(init, initial_carry, step, form=Linear(coefficients), **parts)


def of_input_alone(
    hidden_size: int,
    gates: Mapping[str, Activation],
    coefficients: Callable[[Weights, dict[str, Array]], tuple[Array, Array]],
    *,
    bias: Mapping[str, Initializer] | None = None,
    biased: tuple[str, ...] | None = None,
    complex_state: bool = False,
    **parts: Callable,
) -> Cell:
    """A cell whose state `[..., H]` is linear, with gates of the input alone.

        h_t = a_t h_{t-1} + b_t,    a_t, b_t = coefficients(weights, {gate: activation(W_x x_t + b)})

    Args:
      hidden_size: H.
      gates: name -> nonlinearity, in the order of the columns of W_x `[D, G H]`.
      coefficients: as in `Linear`, of the gates.
      bias: gate -> initialiser of its bias, zeros where left out.
      biased: the gates that have a bias, in the order of b; all by default.
      complex_state: the state is complex.
      parts: other functions of the `Cell`, as in `linear`.

    Raises ValueError for a hidden size below 1 or not whole.
    """
    check_hidden_size(hidden_size)
    names = tuple(gates)
    biased = names if biased is None else biased

    def init(key: Array, input_size: int) -> Params:
        key_x, *keys = jax.random.split(key, 1 + len(biased))
        draws = [(bias or {}).get(name, zeros) for name in biased]
        b = [draw(k, (hidden_size,), jnp.float32) for draw, k in zip(draws, keys, strict=True)]
        W_x = per_gate(glorot, len(names))(key_x, (input_size, len(names) * hidden_size))
        return {"W_x": W_x, "b": jnp.concatenate(b)}

    def initial_carry(weights: Weights, batch_shape: tuple[int, ...]) -> Array:
        dtype = jnp.result_type(weights["W_x"], jnp.complex64) if complex_state else float
        return jnp.zeros((*batch_shape, hidden_size), dtype)

    def project(weights: Weights, x: Array, key: Array | None = None) -> dict[str, Array]:
        W_x, b = split(weights["W_x"], names), split(weights["b"], biased)
        return {name: phi(x @ W_x[name] + b.get(name, 0)) for name, phi in gates.items()}

    return linear(init, initial_carry, coefficients, **{"project": project} | parts)


def retention(a: Array, negative_eigenvalues: bool) -> Array:
    """What multiplies the state, of an `a` in [0, 1]: itself, or 2 a - 1 in [-1, 1]."""
    return 2 * a - 1 if negative_eigenvalues else a


def as_complex(re: Array, im: Array) -> Array:
    """re + i im, in the precision of complex64 at least."""
    dtype = jnp.promote_types(jnp.result_type(re, im), jnp.float32)
    return jax.lax.complex(*(part.astype(dtype) for part in jnp.broadcast_arrays(re, im)))


def channels(x: Array, W_u: Array | None) -> Array:
    """What drives the H channels of a cell that takes each input for itself: x, or W_u x where it is not H wide."""
    return x if W_u is None else x @ W_u


def channel_init(key: Array, input_size: int, hidden_size: int) -> Params:
    """W_u, where there must be one."""
    return {} if input_size == hidden_size else {"W_u": glorot(key, (input_size, hidden_size))}
