"""A cell against its paper's equations, which a test writes as a plain NumPy function of one step.

The gradient is checked against the derivative of that function along random directions, by a step of 1e-30 in the
imaginary direction (Squire & Trapp 1998): exact to the last digits, for functions that take complex numbers. So an
equation is written with the functions below, and without `abs`, `maximum` and comparisons of what may be complex.
"""

import functools
from typing import NamedTuple

import jax
import numpy as np

from rnnjax.cells.check import check_cell
from rnnjax.engine.unroll import unroll

jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
STEP = 1e-30


class Complex(NamedTuple):
    """A part of a carry that is complex, as an equation sees it: the imaginary direction is needed for slopes."""

    re: np.ndarray
    im: np.ndarray


def apart(tree):
    """What is complex by its two parts."""
    return jax.tree.map(lambda a: Complex(a.real, a.imag) if np.iscomplexobj(a) else a, tree)


def together(tree):
    """The inverse of `apart`."""
    is_complex = lambda a: isinstance(a, Complex)  # noqa: E731
    return jax.tree.map(lambda a: jax.lax.complex(*a) if is_complex(a) else a, tree, is_leaf=is_complex)


def sigma(s):
    """The logistic function."""
    return 1 / (1 + np.exp(-s))


def relu(s):
    """max(0, s), its derivative along an imaginary direction too."""
    return s * (s.real > 0)


def absolute(s):
    """|s| of what is real but for a direction."""
    return s * np.sign(s.real)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def loop(step, params, carry, xs, lengths=None):
    """(the last carry, ys) of `step(params, carry, x) -> carry`, or `(carry, y)`; y is the field `h`, or the carry."""
    ys = []
    for t, x in enumerate(xs):
        new = step(params, carry, x)
        if type(new) is tuple and len(new) == 2:
            new, y = new
        else:
            y = getattr(new, "h", new)
        if lengths is not None:
            alive = t < np.asarray(lengths)
            new = jax.tree.map(functools.partial(_where, alive), new, carry)
            y = _where(alive, y, 0)
        carry = new
        ys.append(y)
    return carry, np.stack(ys)


def _where(alive, a, b):
    return np.where(alive.reshape(-1, *[1] * (a.ndim - 1)), a, b)


def check_equation(cell, step, *, T=5, B=2, D=3, move=0.4, start=0.3, xs=None, lengths=None, method="auto"):
    """The cell's values and gradients are those of `step`: to 1e-10 in float64, and to 1e-5 in float32.

    Args:
      cell: a real one; parameters are its initial ones and noise of size `move`.
      step: `(params, carry, x) -> carry` in NumPy, where y is the carry's field `h` or itself; else `-> (carry, y)`.
        What is complex of the carry is a `Complex` of real arrays there.
      start: what is added to the initial carry.
      xs: inputs `[T, B, D]` instead of normal ones.
      lengths, method: as in `unroll`.
    """
    check_cell(cell, D)
    xs = normal(T, B, D) if xs is None else xs
    with jax.enable_x64(True):
        params = cell.init(jax.random.key(0), xs.shape[-1])
        params = {n: np.asarray(a, float) + move * normal(*a.shape, seed=i) for i, (n, a) in enumerate(params.items())}
        zero = apart(cell.initial_carry(cell.weights(params), (xs.shape[1],)))
        carry = jax.tree.map(lambda a: np.asarray(a) + (start if np.issubdtype(a.dtype, np.floating) else 0), zero)
        given, values = (params, carry, xs), loop(step, params, carry, xs, lengths)
        weights = [normal(*np.shape(a), seed=7 + i) for i, a in enumerate(jax.tree.leaves(values))]
        slopes = [slope(step, functools.partial(score, weights), given, seed, lengths) for seed in (1, 2, 3)]

    def run(params, carry, xs, weights):
        found = apart(unroll(cell, params, xs, together(carry), lengths=lengths, method=method))
        return score(weights, *found), found

    run = jit(jax.value_and_grad(run, argnums=(0, 1, 2), has_aux=True, allow_int=True))
    for bits, tolerance in ((64, 1e-10), (32, 1e-5)):
        with jax.enable_x64(bits == 64):
            cast = jax.tree.map(functools.partial(in_bits, bits), (*given, weights))
            (_, found), gradient = run(*cast)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(values), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, np.abs(b).max()))
        for direction, expected in slopes:
            terms = [
                np.sum(np.asarray(g, float) * d)
                for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True)
                if g.dtype == f"float{bits}"
            ]
            np.testing.assert_allclose(sum(terms), expected, rtol=0, atol=tolerance * max(1, sum(map(abs, terms))))


def in_bits(bits, a):
    """A real array in float32 or float64, another one as it is."""
    return a.astype(f"float{bits}") if np.issubdtype(a.dtype, np.floating) else a


def score(weights, last, ys):
    """A number that depends on every part of the last carry and on every output."""
    return sum((w * a).sum() for w, a in zip(weights, jax.tree.leaves((last, ys)), strict=True))


def slope(step, score, given, seed, lengths=None):
    """(a random direction in parameters, carry and inputs; the derivative along it)."""
    leaves, structure = jax.tree.flatten(given)
    noise = np.random.default_rng(seed)
    along = [noise.normal(size=a.shape) * np.issubdtype(a.dtype, np.floating) for a in leaves]
    moved = [
        a + 1j * STEP * d if np.issubdtype(a.dtype, np.floating) else a for a, d in zip(leaves, along, strict=True)
    ]
    params, carry, xs = structure.unflatten(moved)
    return structure.unflatten(along), score(*loop(step, params, carry, xs, lengths)).imag / STEP


def cotangent(tree, like):
    """What `jax.vjp` is given of a gradient by `like`: of integers, such as a clock, there is none."""
    none = lambda a: np.zeros(a.shape, jax.dtypes.float0)  # noqa: E731
    return jax.tree.map(lambda d, a: d if np.issubdtype(a.dtype, np.inexact) else none(a), tree, like)


def without_float0(tree):
    """What JAX returns as a gradient, with zeros where it is one by integers."""
    return jax.tree.map(lambda d: np.zeros(d.shape) if d.dtype == jax.dtypes.float0 else d, tree)


def parts(params, name, count):
    """The `[..., H]` blocks of a parameter `[..., count H]`, side by side."""
    return np.split(params[name], count, axis=-1)
