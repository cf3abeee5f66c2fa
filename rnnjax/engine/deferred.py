"""A scan of a cell made of gates whose backward pass carries only what must be carried.

Differentiating a scan as it stands sums each weight's gradient inside the backward loop and reads back whatever
residuals the linearisation happened to need. Here the forward scan keeps two things a step, the carry it started
from and the activated gates; the backward scan turns dL/dh_t into dL/ds_t, the gradient of the pre-activations,
elementwise, and one matmul takes it to h_{t-1}. All weight gradients are matmuls over the whole sequence
afterwards. The elementwise maths is the cell's own, differentiated by JAX: no cell's derivative is written here.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from rnnjax.cells.check import as_carry
from rnnjax.engine import affine
from rnnjax.engine.hooks import frozen, tapped
from rnnjax.engine.scan import scan
from rnnjax.norms import norm
from rnnjax.types import Array, Carry, Cell, Gates, Weights, gates_of

# d activation / ds in terms of the activation's own value, so that the pre-activation need not be kept.
SLOPE_FROM_VALUE = {
    jnp.tanh: lambda a: 1 - a * a,
    jax.nn.sigmoid: lambda a: a * (1 - a),
    jax.nn.relu: lambda a: (a > 0).astype(a.dtype),
}


def deferred(
    cell: Cell, weights: Weights, carry: Carry, xs: Array, mask: Array | None, taps: Carry | None, probe: Carry | None
) -> tuple[Carry, Array]:
    """As `scan` in values and gradients: (the last carry, ys `[T, ..., O]`).

    xs `[T, ..., D]`; mask `[T, ...]` or None; taps and probe as in `unroll`.
    """
    args = weights, carry, xs, mask, taps, probe
    integers = not all(jnp.issubdtype(h.dtype, jnp.inexact) for h in jax.tree.leaves(carry))
    if integers or closes_over_tracers(cell, weights, carry, xs):
        return scan(cell, *args)  # JAX itself knows what has no gradient, and differentiates by what a cell closes over
    projected, widened = (functools.partial(_run, cell, hoisted) for hoisted in (True, False))
    if not _widening_pays(cell, weights, carry, xs):
        return projected(*args)
    return lax.platform_dependent(*args, cpu=widened, default=projected)


def closes_over_tracers(cell: Cell, weights: Weights, carry: Carry, xs: Array) -> bool:
    """Whether the cell's functions use a traced number that they are not given, such as an option of a sweep."""

    def step(weights, carry, x):
        z = cell.project(weights, x)
        return cell.output(weights, cell.step(weights, carry, z), z)

    first = jax.tree.map(lambda x: x[0], xs)
    return any(isinstance(c, jax.core.Tracer) for c in jax.make_jaxpr(step)(weights, carry, first).consts)


def _widening_pays(cell, weights, carry, xs) -> bool:
    """Whether widening the recurrent matmul by D columns a step beats W_x x_t for all t in one matmul, on a CPU.

    It does until D is several times H: it saves writing and reading `[T, B, G H]`. With fewer than 4 rows a step each
    matmul is bound by reading its weights; on a GPU always by its launch.
    """
    if not hasattr(xs, "shape"):
        return False
    D, H = xs.shape[-1], gates_of(cell).state(carry).shape[-1]
    rows = math.prod(xs.shape[1:-1])
    few = isinstance(rows, int) and rows < 4  # of an exported function they may be a symbol
    return D <= 4 * H and not (few and D >= 4) and affine.projection(cell, weights, D) is not None


def _run(cell, hoisted, weights, carry, xs, mask, taps, probe):
    inputs = cell.project(weights, xs) if hoisted else xs
    carry, carries = _differentiable(cell, hoisted)(weights, carry, inputs, mask, taps, probe)
    return carry, cell.output(weights, carries, cell.project(weights, xs))


def _differentiable(cell: Cell, hoisted: bool):
    """`(weights, carry, inputs, mask, taps, probe) -> (last carry, carries [T, ..., H])` with its own backward pass.

    `inputs` are z where `hoisted`, x where not.
    """

    @jax.custom_vjp
    def run(weights, carry, inputs, mask, taps, probe):
        last, before, _ = _forward(cell, hoisted, weights, carry, inputs, mask, taps)
        return last, _after(before, last)

    def forward(*args):
        args = jax.tree.map(lambda a: a.value, args, is_leaf=lambda a: hasattr(a, "perturbed"))
        weights, carry, inputs, mask, taps, _ = args
        last, before, kept = _forward(cell, hoisted, weights, carry, inputs, mask, taps)
        return (last, _after(before, last)), (*args, before, kept)

    def backward(residuals, cotangents):
        return _backward(cell, hoisted, residuals, *cotangents)

    run.defvjp(forward, backward, symbolic_zeros=True)
    # JAX knows no symbolic zeros where it runs a `shard_map` step by step: there, and nowhere else, compile.
    return jax.jit(run, inline=True) if jax.sharding.get_abstract_mesh().manual_axes else run


def _after(before, last):
    """The carries after every step, from those before every step and the last."""
    return jax.tree.map(lambda b, l: jnp.concatenate([b[1:], l[None]]), before, last)


def _forward(cell: Cell, hoisted, weights, carry, inputs, mask, taps):
    """(the last carry, the carries before each step, (v of each step, see `affine.in_loop`, and its activations))."""
    gates = gates_of(cell)
    linear = affine.in_loop(cell, hoisted, weights, gates.state(carry), inputs)

    def body(carry, step_inputs):
        x, mask, tap = step_inputs
        s, v = linear(gates.state(carry), x)
        a = {name: gates.activations[name](s[name]) for name in gates.activations}
        a = lax.optimization_barrier(a)  # else XLA computes each activation again for every result that needs it
        new = frozen(tapped(as_carry(gates.update(weights, carry, **a), carry), tap), carry, mask)
        kept = {n: a[n] if f in SLOPE_FROM_VALUE else s[n] for n, f in gates.activations.items()}
        return new, (carry, v, kept)

    last, (before, v, kept) = lax.scan(body, carry, (inputs, mask, taps))
    place = _place_of_state(gates, carry)
    if v is not None and place is not None:
        # The state stands in v: what the scan has stored of it as well is then never read, and XLA drops it.
        leaves, structure = jax.tree.flatten(before)
        leaves[place] = v[..., : leaves[place].shape[-1]].astype(leaves[place].dtype)
        before = structure.unflatten(leaves)
    return last, before, (v, kept)


def _place_of_state(gates: Gates, carry) -> int | None:
    """Which leaf of the carry is what the affine map sees of it; None where that is made of several."""
    jaxpr = jax.make_jaxpr(gates.state)(carry).jaxpr
    return next((i for i, leaf in enumerate(jaxpr.invars) if leaf is jaxpr.outvars[0]), None)


def _backward(cell: Cell, hoisted, residuals, dlast, dcarries):
    gates = gates_of(cell)
    weights, carry0, inputs, mask, taps, probe, before, (v, kept) = residuals
    h0 = gates.state(carry0)
    vectors, pull_update = _through_update(gates, weights, carry0, kept)
    to_state = affine.pull_to_state(cell, hoisted, weights, h0, inputs)
    input_alone = tuple(name for name in gates.activations if name not in gates.of_state)
    dlast = _instantiate(dlast, carry0)
    dcarries = jax.tree.map(lambda d: None if _is_zero(d) else d, dcarries, is_leaf=_is_zero)

    def body(state, step_inputs):
        dh, dvectors = state
        kept, carry, mask, dy = step_inputs
        total = _add(dh, dy)  # dL/dh_t: through the later steps, and through y_t
        valid = frozen(total, 0, mask)
        dv, dcarry, ds = pull_update(carry, kept, valid)
        ds_state = jnp.concatenate([ds[n] for n in gates.of_state], axis=-1)
        (dstate,) = jax.vjp(gates.state, carry)[1](to_state(ds_state))
        dcarry = frozen(jax.tree.map(jnp.add, dcarry, dstate), total, mask)  # past the end it is passed on as it is
        norms = None if probe is None else jax.tree.map(lambda d: norm(d, d.ndim - 1), valid)
        emitted = (ds_state, {n: ds[n] for n in input_alone}, None if taps is None else valid, norms)
        return (dcarry, jax.tree.map(jnp.add, dvectors, dv)), emitted

    state = (dlast, jax.tree.map(jnp.zeros_like, vectors))
    (dcarry, dvectors), (ds_state, ds_input, dtaps, dprobe) = lax.scan(
        body, state, (kept, before, mask, dcarries), reverse=True
    )
    dweights, dinputs = affine.pull(cell, hoisted, weights, gates.state(before), inputs, v, ds_state, ds_input)
    leaves, structure = jax.tree.flatten(weights)
    summed = {i: jnp.sum(d, axis=tuple(range(h0.ndim - 1))).reshape(leaves[i].shape) for i, d in dvectors.items()}
    dweights = structure.unflatten(
        [d + summed[i] if i in summed else d for i, d in enumerate(jax.tree.leaves(dweights))]
    )

    def cast(tree, like):  # what is real has a real gradient, were the state complex
        return jax.tree.map(lambda d, a: (d if jnp.iscomplexobj(a) else d.real).astype(a.dtype), tree, like)

    return (
        cast(dweights, weights),
        cast(dcarry, carry0),
        cast(dinputs, inputs),
        None,
        None if taps is None else cast(dtaps, taps),
        None if probe is None else cast(dprobe, probe),
    )


def _through_update(gates: Gates, weights, carry0, kept):
    """(what `update` uses of the weights, by leaf; the pullback of a step to that, the carry and the pre-activations).

    Weights that `update` uses are given to each batch element by itself; their gradient is summed at the end.
    """
    leaves, structure = jax.tree.flatten(weights)
    h0 = gates.state(carry0)
    used = _used_by_update(gates, weights, carry0, jax.tree.map(lambda a: a[0], kept))
    vectors = {i: jnp.broadcast_to(w, (*h0.shape[:-1], *(w.shape or (1,)))) for i, w in enumerate(leaves) if i in used}

    def update(vectors, carry, kept):
        now = structure.unflatten([vectors.get(i, w) for i, w in enumerate(leaves)])
        values = {n: kept[n] if f in SLOPE_FROM_VALUE else f(kept[n]) for n, f in gates.activations.items()}
        return as_carry(gates.update(now, carry, **values), carry)

    def pull_back(carry, kept, dh):
        _, pullback = jax.vjp(update, vectors, carry, kept)
        dvectors, dcarry, dkept = pullback(dh)
        slopes = {n: SLOPE_FROM_VALUE[f](kept[n]) for n, f in gates.activations.items() if f in SLOPE_FROM_VALUE}
        return dvectors, dcarry, {n: d * slopes[n] if n in slopes else d for n, d in dkept.items()}

    return vectors, pull_back


def _used_by_update(gates: Gates, weights, carry, activated) -> set[int]:
    """Which leaves of the weights `update` reads: of these it makes elementwise use."""
    count = len(jax.tree.leaves(weights))
    jaxpr = jax.make_jaxpr(lambda w, c, a: gates.update(w, c, **a))(weights, carry, activated).jaxpr
    read = {id(v) for eqn in jaxpr.eqns for v in eqn.invars} | {id(v) for v in jaxpr.outvars}
    return {i for i, v in enumerate(jaxpr.invars[:count]) if id(v) in read}


def _is_zero(d) -> bool:
    return isinstance(d, SymbolicZero)


def _instantiate(tree, like):
    return jax.tree.map(lambda d, a: jnp.zeros_like(a) if _is_zero(d) else d, tree, like, is_leaf=_is_zero)


def _add(a, b):
    """a + b leaf by leaf, where a leaf of b may be None, meaning zero."""
    leaves, structure = jax.tree.flatten(a)
    others = jax.tree.leaves(b, is_leaf=lambda x: x is None)
    return jax.tree.unflatten(structure, [x if y is None else x + y for x, y in zip(leaves, others, strict=True)])
