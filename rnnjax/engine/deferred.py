"""A scan of a cell made of gates whose backward pass carries only what must be carried.

Differentiating a scan as it stands sums each weight's gradient inside the backward loop and reads back whatever
residuals the linearisation happened to need. Here the forward scan keeps two things a step, the carry it started
from and the activated gates; the backward scan turns dL/dh_t into dL/ds_t, the gradient of the pre-activations,
elementwise, and one matmul takes it to h_{t-1}. All weight gradients are matmuls over the whole sequence
afterwards. The elementwise maths is the cell's own, differentiated by JAX: no cell's derivative is written here.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from rnnjax.cells.check import as_carry
from rnnjax.engine import affine
from rnnjax.norms import norm
from rnnjax.types import Array, Carry, Cell, Gates, Weights

# d activation / ds in terms of the activation's own value, so that the pre-activation need not be kept.
SLOPE_FROM_VALUE = {
    jnp.tanh: lambda a: 1 - a * a,
    jax.nn.sigmoid: lambda a: a * (1 - a),
    jax.nn.relu: lambda a: (a > 0).astype(a.dtype),
}


def deferred_scan(
    cell: Cell, weights: Weights, carry: Carry, xs: Array, mask: Array | None, taps: Carry | None, probe: Carry | None
) -> tuple[Carry, Array]:
    """As a plain scan of `cell.step` in values and gradients: (the last carry, ys `[T, ..., O]`).

    xs `[T, ..., D]`; mask `[T, ...]` or None; taps and probe as in `unroll`.
    """
    hoisted = _project_first(cell, weights, carry, xs)
    inputs = cell.project(weights, xs) if hoisted else xs
    carry, carries = _differentiable(cell, hoisted)(weights, carry, inputs, mask, taps, probe)
    return carry, cell.output(weights, carries, cell.project(weights, xs))


def _project_first(cell, weights, carry, xs) -> bool:
    """Whether W_x x_t for all t in one matmul beats widening the recurrent matmul by D columns a step.

    The widened matmul wins on a CPU until D is several times H: it saves writing and reading `[T, B, G H]`. With
    fewer than 4 rows a step each matmul is bound by reading its weights, and on a GPU by its launch.
    """
    if jax.default_backend() != "cpu" or not hasattr(xs, "shape"):
        return True
    D, H = xs.shape[-1], cell.form.state(carry).shape[-1]
    rows = math.prod(xs.shape[1:-1])
    few = isinstance(rows, int) and rows < 4  # of an exported function they may be a symbol
    return D > 4 * H or (few and D >= 4) or affine.projection(cell, weights, D) is None


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
    gates = cell.form
    linear = affine.in_loop(cell, hoisted, weights, gates.state(carry), inputs)

    def body(carry, step_inputs):
        x, mask, tap = step_inputs
        s, v = linear(gates.state(carry), x)
        a = {name: gates.activations[name](s[name]) for name in gates.activations}
        a = lax.optimization_barrier(a)  # else XLA computes each activation again for every result that needs it
        new = as_carry(gates.update(weights, carry, **a), carry)
        if tap is not None:
            new = jax.tree.map(lambda n, t: n + t.astype(n.dtype), new, tap)
        if mask is not None:
            new = jax.tree.map(lambda n, old: jnp.where(mask[..., None], n, old), new, carry)
        kept = {n: a[n] if f in SLOPE_FROM_VALUE else s[n] for n, f in gates.activations.items()}
        return new, (carry, v, kept)

    last, (before, v, kept) = lax.scan(body, carry, (inputs, mask, taps))
    if v is not None:  # h stands in v: what the scan has stored of it as well is then never read, and XLA drops it
        h = gates.state(before)
        h = v[..., : h.shape[-1]].astype(h.dtype)
        before = before._replace(h=h) if isinstance(before, tuple) else h
    return last, before, (v, kept)


def _backward(cell: Cell, hoisted, residuals, dlast, dcarries):
    gates = cell.form
    weights, carry0, inputs, mask, taps, probe, before, (v, kept) = residuals
    h0 = gates.state(carry0)
    leaves, structure = jax.tree.flatten(weights)
    # Weights that `update` uses are given to each batch element by itself; their gradient is summed at the end.
    used = _used_by_update(gates, weights, carry0, jax.tree.map(lambda a: a[0], kept))
    vectors = {i: jnp.broadcast_to(w, (*h0.shape[:-1], *(w.shape or (1,)))) for i, w in enumerate(leaves) if i in used}
    to_state = affine.pull_to_state(cell, hoisted, weights, h0, inputs)
    input_alone = tuple(name for name in gates.activations if name not in gates.of_state)
    dlast = _instantiate(dlast, carry0)
    dcarries = jax.tree.map(lambda d: None if _is_zero(d) else d, dcarries, is_leaf=_is_zero)

    def body(state, step_inputs):
        dh, dvectors = state
        kept, carry, mask, dy = step_inputs
        total = _add(dh, dy)  # dL/dh_t: through the later steps, and through y_t
        valid = total if mask is None else jax.tree.map(lambda d: jnp.where(mask[..., None], d, 0), total)

        def values(kept):
            return {n: kept[n] if f in SLOPE_FROM_VALUE else f(kept[n]) for n, f in gates.activations.items()}

        def update(vectors, carry, kept):
            now = structure.unflatten([vectors.get(i, w) for i, w in enumerate(leaves)])
            return as_carry(gates.update(now, carry, **values(kept)), carry)

        _, pullback = jax.vjp(update, vectors, carry, kept)
        dv, dcarry, dkept = pullback(valid)
        ds = {
            n: dkept[n] * SLOPE_FROM_VALUE[f](kept[n]) if f in SLOPE_FROM_VALUE else dkept[n]
            for n, f in gates.activations.items()
        }
        ds_state = jnp.concatenate([ds[n] for n in gates.of_state], axis=-1)
        (dstate,) = jax.vjp(gates.state, carry)[1](to_state(ds_state))
        dcarry = jax.tree.map(jnp.add, dcarry, dstate)
        if mask is not None:  # a frozen carry passes its gradient on as it is
            dcarry = jax.tree.map(lambda d, t: jnp.where(mask[..., None], d, t), dcarry, total)
        norms = None if probe is None else jax.tree.map(lambda d: norm(d, d.ndim - 1), valid)
        emitted = (
            ds_state,
            {n: ds[n] for n in input_alone},
            None if taps is None else valid,
            norms,
        )
        return (dcarry, jax.tree.map(jnp.add, dvectors, dv)), emitted

    state = (dlast, jax.tree.map(jnp.zeros_like, vectors))
    (dcarry, dvectors), (ds_state, ds_input, dtaps, dprobe) = lax.scan(
        body, state, (kept, before, mask, dcarries), reverse=True
    )
    dweights, dinputs = affine.pull(cell, hoisted, weights, gates.state(before), inputs, v, ds_state, ds_input)
    summed = {i: jnp.sum(d, axis=tuple(range(h0.ndim - 1))).reshape(leaves[i].shape) for i, d in dvectors.items()}
    dweights = [d + summed[i] if i in used else d for i, d in enumerate(jax.tree.leaves(dweights))]

    def cast(tree, like):  # what is real has a real gradient, were the state complex
        return jax.tree.map(lambda d, a: (d if jnp.iscomplexobj(a) else d.real).astype(a.dtype), tree, like)

    return (
        cast(structure.unflatten(dweights), weights),
        cast(dcarry, carry0),
        cast(dinputs, inputs),
        None,
        None if taps is None else cast(dtaps, taps),
        None if probe is None else cast(dprobe, probe),
    )


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
