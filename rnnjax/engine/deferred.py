"""A scan of a cell made of gates whose backward pass carries only what must be carried.

Differentiating a scan as it stands sums each weight's gradient inside the backward loop and reads back whatever
residuals the linearisation happened to need. Here the forward scan keeps two things a step, the carry it started
from and the activated gates; the backward scan turns dL/dh_t into dL/ds_t, the gradient of the pre-activations,
elementwise, and one matmul takes it to h_{t-1}. All weight gradients are matmuls over the whole sequence
afterwards. The elementwise maths is the cell's own, differentiated by JAX: no cell's derivative is written here.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from rnnjax.cells.check import as_carry
from rnnjax.cells.gated import split
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
    if _project_first(xs, weights, cell.form):
        inputs, hoisted = cell.project(weights, xs), True
    else:
        inputs, hoisted = xs, False
    carry, carries = _differentiable(cell.form, hoisted)(weights, carry, inputs, mask, taps, probe)
    return carry, cell.output(weights, carries, cell.project(weights, xs))


def _project_first(xs, weights, gates) -> bool:
    """Whether W_x x_t for all t in one matmul beats widening the recurrent matmul by D columns a step.

    The widened matmul wins on a CPU until D is several times H: it saves writing and reading `[T, B, G H]`. With
    fewer than 4 rows a step each matmul is bound by reading its weights, and on a GPU by its launch.
    """
    D = xs.shape[-1]
    H = weights["W_h"].shape[0]
    rows = math.prod(xs.shape[1:-1])
    few = isinstance(rows, int) and rows < 4  # of an exported function they may be a symbol
    return jax.default_backend() != "cpu" or D > 4 * H or (few and D >= 4)


def _differentiable(gates: Gates, hoisted: bool):
    """`(weights, carry, inputs, mask, taps, probe) -> (last carry, carries [T, ..., H])` with its own backward pass.

    `inputs` are z where `hoisted`, x where not.
    """

    @jax.custom_vjp
    def run(weights, carry, inputs, mask, taps, probe):
        last, before, _ = _forward(gates, hoisted, weights, carry, inputs, mask, taps)
        return last, _after(before, last)

    def forward(*args):
        args = jax.tree.map(lambda a: a.value, args, is_leaf=lambda a: hasattr(a, "perturbed"))
        weights, carry, inputs, mask, taps, _ = args
        last, before, kept = _forward(gates, hoisted, weights, carry, inputs, mask, taps)
        return (last, _after(before, last)), (*args, before, kept)

    def backward(residuals, cotangents):
        return _backward(gates, hoisted, residuals, *cotangents)

    run.defvjp(forward, backward, symbolic_zeros=True)
    # JAX knows no symbolic zeros where it runs a `shard_map` step by step: there, and nowhere else, compile.
    return jax.jit(run, inline=True) if jax.sharding.get_abstract_mesh().manual_axes else run


def all_varying(*trees: Any) -> Any:
    """All trees, varying over the mesh axes that any of them varies over.

    Inside `jax.shard_map` a loop's carry must begin as it ends, and a gradient be as its argument is. Elsewhere this
    does nothing.
    """

    def axes_of(a):
        found = getattr(jax.typeof(a), "manual_axis_type", None)  # a young name of JAX's
        return frozenset() if found is None else found.varying

    axes = frozenset().union(*map(axes_of, jax.tree.leaves(trees)))

    def vary(a):
        missing = tuple(axes - axes_of(a))
        return lax.pcast(a, missing, to="varying") if missing else a

    return jax.tree.map(vary, trees)


def _after(before, last):
    """The carries after every step, from those before every step and the last."""
    return jax.tree.map(lambda b, l: jnp.concatenate([b[1:], l[None]]), before, last)


def _forward(gates: Gates, hoisted, weights, carry, inputs, mask, taps):
    """(the last carry, the carries before each step, (v of each step, see `_linear`, and its activations))."""
    linear = _linear(gates, hoisted, weights)

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


def _linear(gates: Gates, hoisted, weights):
    """`(h, x or z) -> (pre-activations by gate, v)`.

    Where every gate sees both h and x, v = [h, x, 1] and the weights are [W_h; W_x; b]: one matmul a step, and one for
    the gradient of all three. Elsewhere v is None.
    """
    if hoisted or gates.of_input != gates.of_state:
        bias = split(weights["b"], gates.of_input)
        alone = tuple(name for name in gates.of_state if name not in gates.of_input)
        bias_alone = split(weights["b_h"], alone) if alone else {}

        def linear(h, x):
            s = split(h @ weights["W_h"], gates.of_state)
            s = {name: s[name] + bias_alone[name] if name in bias_alone else s[name] for name in s}
            if hoisted:
                z = x
            else:
                z = split(x @ weights["W_x"], gates.of_input)
                z = {name: z[name] + bias[name] for name in z}
            return {n: s[n] + z[n] if n in s and n in z else s.get(n, z.get(n)) for n in gates.activations}, None
    else:
        W = jnp.concatenate([weights["W_h"], weights["W_x"], weights["b"][None]])

        def linear(h, x):
            v = jnp.concatenate([h, x, jnp.ones((*h.shape[:-1], 1), h.dtype)], axis=-1)
            return split(v @ W, gates.of_state), v

    return linear


def _backward(gates: Gates, hoisted, residuals, dlast, dcarries):
    weights, carry0, inputs, mask, taps, probe, before, (v, kept) = residuals
    matrices = {"W_x", "W_h", "b", "b_h"}
    # Vectors that `update` uses are given to each batch element by itself; their gradient is summed at the end.
    batch_shape = gates.state(carry0).shape[:-1]
    vectors = {n: jnp.broadcast_to(v, (*batch_shape, *v.shape)) for n, v in weights.items() if n not in matrices}
    W_h_T = weights["W_h"].T
    input_alone = tuple(name for name in gates.of_input if name not in gates.of_state)
    dlast = _instantiate(dlast, carry0)
    dcarries = jax.tree.map(lambda d: None if _is_zero(d) else d, dcarries, is_leaf=_is_zero)

    def body(state, step_inputs):
        dh, dvectors = state
        kept, carry, mask, dy = step_inputs
        total = _add(dh, dy)  # dL/dh_t: through the later steps, and through y_t
        valid = total if mask is None else jax.tree.map(lambda d: jnp.where(mask[..., None], d, 0), total)

        def values(kept):
            return {n: kept[n] if f in SLOPE_FROM_VALUE else f(kept[n]) for n, f in gates.activations.items()}

        _, pullback = jax.vjp(
            lambda v, c, k: as_carry(gates.update(v, c, **values(k)), carry),
            vectors,
            carry,
            kept,
        )
        dv, dcarry, dkept = pullback(valid)
        ds = {
            n: dkept[n] * SLOPE_FROM_VALUE[f](kept[n]) if f in SLOPE_FROM_VALUE else dkept[n]
            for n, f in gates.activations.items()
        }
        ds_state = jnp.concatenate([ds[n] for n in gates.of_state], axis=-1)
        (dstate,) = jax.vjp(gates.state, carry)[1](ds_state @ W_h_T)
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
    dweights = {n: jnp.sum(d, axis=tuple(range(d.ndim - 1))) for n, d in dvectors.items()}
    if v is not None:
        H, D = weights["W_h"].shape[0], weights["W_x"].shape[0]
        dweights["W_h"], dweights["W_x"], db = jnp.split(_outer(v, ds_state), [H, H + D])
        dweights["b"] = db[0]
    else:
        dweights["W_h"] = _outer(gates.state(before), ds_state)
        db = split(jnp.sum(ds_state, axis=tuple(range(ds_state.ndim - 1))), gates.of_state)
        db |= {n: jnp.sum(d, axis=tuple(range(d.ndim - 1))) for n, d in ds_input.items()}
        alone = tuple(n for n in gates.of_state if n not in gates.of_input)
        if alone:
            dweights["b_h"] = jnp.concatenate([db[n] for n in alone])
    if hoisted:
        dinputs = {**split(ds_state, gates.of_state), **ds_input}
        dinputs = {n: dinputs[n] for n in gates.of_input}
        dweights["W_x"], dweights["b"] = jnp.zeros_like(weights["W_x"]), jnp.zeros_like(weights["b"])
    else:
        if v is None:
            dweights["b"] = jnp.concatenate([db[n] for n in gates.of_input])
            dW = split(_outer(inputs, ds_state), gates.of_state) | {n: _outer(inputs, d) for n, d in ds_input.items()}
            dweights["W_x"] = jnp.concatenate([dW[n] for n in gates.of_input], axis=-1)
        W_x = split(weights["W_x"], gates.of_input)
        through_state = jnp.concatenate(
            [W_x.get(n, jnp.zeros_like(W_x[gates.of_input[0]])) for n in gates.of_state], axis=-1
        )
        dinputs = ds_state @ through_state.T
        for n, d in ds_input.items():
            dinputs = dinputs + d @ W_x[n].T

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


def _outer(a: Array, b: Array) -> Array:
    """sum over all steps and batch elements of a^T b: `[T, ..., I]`, `[T, ..., J]` -> `[I, J]`."""
    rows = math.prod(a.shape[:-1])
    return a.reshape(rows, a.shape[-1]).T @ b.reshape(rows, b.shape[-1])


def _is_zero(d) -> bool:
    return isinstance(d, SymbolicZero)


def _instantiate(tree, like):
    return jax.tree.map(lambda d, a: jnp.zeros_like(a) if _is_zero(d) else d, tree, like, is_leaf=_is_zero)


def _add(a, b):
    """a + b leaf by leaf, where a leaf of b may be None, meaning zero."""
    leaves, structure = jax.tree.flatten(a)
    others = jax.tree.leaves(b, is_leaf=lambda x: x is None)
    return jax.tree.unflatten(structure, [x if y is None else x + y for x, y in zip(leaves, others, strict=True)])
