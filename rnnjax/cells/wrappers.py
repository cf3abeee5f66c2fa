"""Wrappers: functions that make another cell of any cell, such as `zoneout(lstm(8), 0.1)`. One changes one thing.

A wrapped cell is a cell, and can be wrapped again. The parameters of the cell inside keep their names and initial
values; those of a wrapper are called after it. A wrapper that changes the step leaves the engine's fast paths (see
`Cell.form`), as a step of which nothing is known does; one that changes nothing, such as a rate of 0, returns the cell.
Where a wrapper draws noise, it does so in training, from the key that `Cell.project` is given, and nothing otherwise.
"""

import numbers
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rnnjax.cells.inside import gates_inside, one_carry, with_affine, with_input, with_output, with_parameters
from rnnjax.cells.wrappers_gates import layernorm, multiplicative
from rnnjax.cells.wrappers_time import clockwork, dilated, skip
from rnnjax.initializers import constant, glorot
from rnnjax.types import Array, Carry, Cell, Params, Weights


def zoneout(cell: Cell, rate: float | Array, *, memory: float | Array | None = None) -> Cell:
    """Units that now and then keep their old value.

        h_t = d_t h_{t-1} + (1 - d_t) step(h_{t-1}, z_t)    for each part of the carry
        d_t = 1 with probability `rate`, else 0; each unit and step by itself      in training
        d_t = rate                                                                 in evaluation

    Krueger et al. (2016), Zoneout: regularizing RNNs by randomly preserving hidden activations (arXiv:1606.01305). Of
    an LSTM, as there, h_t is made of the c that is not zoned out. Integer parts, such as a clock, go on.

    Args:
      cell: any cell.
      rate: the probability.
      memory: that of the parts not called h, such as c of an LSTM (0.5 beside 0.05 for h in the paper); by default
        `rate`.

    Raises ValueError for a probability outside [0, 1).
    """
    _check_rate("rate", rate)
    if memory is not None:
        _check_rate("memory", memory)
    if _is_zero(rate) and (memory is None or _is_zero(memory)):
        return cell

    def rate_of(carry):
        if memory is not None and "h" not in getattr(carry, "_fields", ()):
            raise ValueError(f"zoneout's memory={memory!r} needs a carry with a part h; allowed: the rate alone")
        return jax.tree.leaves(
            jax.tree.map_with_path(lambda path, _: rate if memory is None or _is_h(path) else memory, carry)
        )

    def draw(weights, x, key):
        if key is None:
            return None
        carry = one_carry(cell, weights)
        leaves = list(zip(jax.tree.leaves(carry), rate_of(carry), strict=True))
        keys = jax.random.split(key, len(leaves))
        return [
            jax.random.bernoulli(k, p, (*x.shape[:-1], *leaf.shape)) for k, (leaf, p) in zip(keys, leaves, strict=True)
        ]

    def step(weights, carry, z):
        new, old = cell.step(weights, carry, z.z), jax.tree.leaves(carry)
        rates = rate_of(carry)
        masks = [None] * len(old) if z.more is None else z.more
        mixed = [_kept(*parts) for parts in zip(old, jax.tree.leaves(new), rates, masks, strict=True)]
        return jax.tree.unflatten(jax.tree.structure(new), mixed)

    return with_input(cell, draw)._replace(step=step, form=None)


def recurrent_dropout(cell: Cell, rate: float | Array) -> Cell:
    """Variational dropout of the state that the gates see: the same units in all steps of a sequence.

        s_t = W_x x_t + W_h (m h_{t-1}) + b,    m = 1 / (1 - rate) with probability 1 - rate, else 0

    Gal & Ghahramani (2016), A theoretically grounded application of dropout in recurrent neural networks
    (arXiv:1512.05287), its recurrent part, one mask for all gates; what `update` sees of the carry is whole. It is not
    the dropout of Semeniuta et al. (2016, arXiv:1603.05118), whose masks are on what is written and anew at each step.
    A sequence that is read window by window (`stateful`) has a mask a window. In evaluation m is 1.

    Args:
      cell: a cell made of gates (see `gated`), `layernorm` around it or not.
      rate: the probability of dropping a unit.

    Raises ValueError for a probability outside [0, 1), and for a cell that is not made of gates.
    """
    _check_rate("rate", rate)
    gates = gates_inside(cell)
    if gates is None:
        raise ValueError("recurrent_dropout needs a cell made of gates (see cells.gated), and this one is not")
    if _is_zero(rate):
        return cell

    def draw(weights, x, key):
        if key is None:
            return None
        steps, size = x.shape[:-1], jax.eval_shape(gates.state, one_carry(cell, weights)).shape[-1]
        kept = jax.random.bernoulli(key, 1 - rate, (*steps[1:], size))
        return jnp.broadcast_to(kept / jnp.asarray(1 - rate, x.dtype), (*steps, size))

    def affine(weights, h, z):
        return gates.affine(weights, h if z.more is None else h * z.more, z.z)

    return with_affine(with_input(cell, draw), affine)


def residual(cell: Cell) -> Cell:
    """The input added to what the cell shows.

        y_t = output(h_t, z_t) + x_t

    He et al. (2015, arXiv:1512.03385), between recurrent layers Wu et al. (2016, arXiv:1609.08144). The cell must show
    as many features as it reads; the recurrence is untouched, and so is its fast path.
    """

    def show(weights: Weights, y: Array, z: Any) -> Array:
        return _as_wide("residual", y, z.more) + z.more

    return with_output(with_input(cell, lambda weights, x, key: x), show)


def highway(cell: Cell, *, bias: float | Array = -1.0) -> Cell:
    """A gate between what the cell shows and its input.

        y_t = g_t output(h_t, z_t) + (1 - g_t) x_t,    g_t = sigmoid(W x_t + b)

    Srivastava, Greff & Schmidhuber (2015), Highway networks (arXiv:1505.00387). The cell must show as many features as
    it reads; the recurrence is untouched, and so is its fast path.

    Args:
      cell: any cell.
      bias: b at the start; below 0 the layer begins by passing most of its input on.
    """

    def draw(key: Array, params: Params, input_size: int) -> dict[str, Array]:
        return {
            "W": glorot(key, (input_size, input_size)),
            "b": constant(bias)(key, (input_size,), jnp.float32),
        }

    inside = with_parameters(cell, "highway", draw)

    def show(weights: Weights, y: Array, z: Any) -> Array:
        y, x = _as_wide("highway", y, z.more), z.more
        gate = jax.nn.sigmoid(x @ weights.own["W"] + weights.own["b"])
        return gate * y + (1 - gate) * x

    return with_output(with_input(inside, lambda weights, x, key: x), show)


def learned_start(cell: Cell) -> Cell:
    """The carry before the first step as parameters, one for all sequences.

        h_0 = start

    They begin as the cell's own initial carry, zeros for most. Such a start is as old as training through time; see
    Forcada & Carrasco (1995), Learning the initial state of a second-order recurrent neural network during
    regular-language inference. Integer parts of a carry stay as they are.
    """

    def draw(key: Array, params: Params, input_size: int) -> dict[str, Array]:
        carry = cell.initial_carry(cell.weights(params), ())
        named = [pair for names, parts in _named(carry) for pair in zip(names, parts, strict=True)]
        return {name: part.astype(jnp.float32) for name, part in named}

    inside = with_parameters(cell, "start", draw)

    def initial_carry(weights: Weights, batch_shape: tuple[int, ...]) -> Carry:
        own = inside.initial_carry(weights, batch_shape)

        def start(names, leaf):
            parts = [weights.own[name] for name in names]
            learned = jax.lax.complex(*parts) if len(parts) == 2 else parts[0] if parts else leaf
            return jnp.broadcast_to(learned, leaf.shape)

        leaves = zip((names for names, _ in _named(own)), jax.tree.leaves(own), strict=True)
        return jax.tree.unflatten(jax.tree.structure(own), [start(*pair) for pair in leaves])

    return inside._replace(initial_carry=initial_carry)


WRAPPERS: dict[str, Callable[..., Cell]] = {
    "zoneout": zoneout,
    "recurrent_dropout": recurrent_dropout,
    "layernorm": layernorm,
    "multiplicative": multiplicative,
    "residual": residual,
    "highway": highway,
    "learned_start": learned_start,
    "dilated": dilated,
    "clockwork": clockwork,
    "skip": skip,
}


def _check_rate(name, rate):
    if isinstance(rate, numbers.Real) and not 0 <= rate < 1:
        raise ValueError(f"{name}={rate!r}; allowed: in [0, 1)")


def _is_zero(rate) -> bool:
    return isinstance(rate, numbers.Real) and rate == 0


def _is_h(path) -> bool:
    return getattr(path[0], "name", None) == "h" if path else False


def _kept(old, new, rate, mask):
    """One part of the carry after a zoned-out step."""
    if not jnp.issubdtype(old.dtype, jnp.inexact):
        return new
    return rate * old + (1 - rate) * new if mask is None else jnp.where(mask, old, new)


def _as_wide(name, y, x):
    if y.shape != x.shape:
        found = f"{name} adds x to y, and x has {x.shape[-1]} features where y has {y.shape[-1]}"
        raise ValueError(f"{found}; allowed: as many")
    return y


def _named(carry) -> list[tuple[list[str], list[Array]]]:
    """For each leaf the names of its real parts, none of an integer's, and these."""
    found: list[tuple[list[str], list[Array]]] = []
    for path, leaf in jax.tree.leaves_with_path(carry):
        name = jax.tree_util.keystr(path, simple=True, separator="_") or "h"
        if jnp.iscomplexobj(leaf):
            found.append(([f"{name}_re", f"{name}_im"], [leaf.real, leaf.imag]))
        elif jnp.issubdtype(leaf.dtype, jnp.inexact):
            found.append(([name], [leaf]))
        else:
            found.append(([], []))
    return found
