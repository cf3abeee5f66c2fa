"""This package: on one device, with the batch spread over several, with gradient norms, and as a sweep."""

import functools

from benchmarks.case import Case, Contender, make_data, make_weights
from benchmarks.peers.with_jax import contender, loss_of, repeat, sgd_step

PACKAGES = ("rnnjax",)
CELLS = {"rnn": "rnn", "lstm": "lstm", "gru": "gru"}


def layer(case: Case, devices: int = 1, variant: str | None = None, segments: int = 1) -> Contender:
    """This package; with `devices` above 1 the batch is spread over them."""
    cell, params = _cell(case, variant or case.cell)
    apply = functools.partial(_apply(cell), segments=segments)
    return contender(case, params, apply, devices=devices)


def norms(case: Case, devices: int = 1) -> Contender:
    """A training step that also returns |dL/dh_t| [T, B] for every t, from the same backward pass."""
    import jax
    import jax.numpy as jnp

    from rnnjax.engine.unroll import make_probe

    cell, params = _cell(case, case.cell)
    probe = make_probe(cell, params, case.T, (case.B // devices,))
    apply = _apply(cell)

    def norms_and_gradient(params, xs, target):
        def loss(params, probe):
            return jnp.mean(jnp.square(apply(params, xs, probe=probe) - target))

        gradient, norms = jax.grad(loss, argnums=(0, 1))(params, probe)
        return getattr(norms, "h", norms) / devices, gradient

    return contender(case, params, apply, devices=devices, value_and_gradient=norms_and_gradient)


def sweep(case: Case, runs: int, devices: int = 1) -> Contender:
    """`runs` independent runs: spread over the devices, one after another inside each (on a GPU, side by side)."""
    import jax
    import jax.numpy as jnp

    cell, _ = _cell(case, case.cell)
    params = [_cell(case, case.cell, seed)[1] for seed in range(runs)]
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
    xs, target = make_data(case)
    value_and_gradient = jax.value_and_grad(loss_of(_apply(cell)))
    step = sgd_step(value_and_gradient)
    lanes = jax.vmap if jax.default_backend() == "gpu" else lambda f: lambda tree: jax.lax.map(f, tree)

    def train(params, xs, target, n):
        return lanes(lambda lane: repeat(step, lane, xs, target, n))(params)

    if devices > 1:
        mesh = jax.sharding.Mesh(jax.devices()[:devices], ("lane",))
        lane, whole = jax.sharding.PartitionSpec("lane"), jax.sharding.PartitionSpec()
        train = jax.shard_map(train, mesh=mesh, in_specs=(lane, whole, whole, whole), out_specs=lane, check_vma=False)
    train, live = jax.jit(train, donate_argnums=0), jax.tree.map(jnp.copy, params)

    def check():
        values, gradients = jax.jit(lanes(lambda lane: value_and_gradient(lane, xs, target)))(params)
        squares = sum(jnp.sum(g**2, axis=(1, 2)) for g in gradients.values() if g.ndim == 3)
        return float(values.sum()), float(jnp.sqrt(squares).sum())

    def run(n):
        nonlocal live
        live, values = train(live, xs, target, n)
        jax.block_until_ready(values)

    return Contender(check, {}, {"scan": run})


def _cell(case, variant, seed=0):
    import jax.numpy as jnp

    from rnnjax import cells

    make = {"rnn_relu": lambda H: cells.rnn(H, activation="relu")}.get(variant) or cells.CELLS[variant]
    params = {name: jnp.asarray(a) for name, a in make_weights(case, seed).items()}
    if variant == "gru":
        params["b_h"] = jnp.zeros(case.H)
    return make(case.H), params


def _apply(cell):
    from rnnjax.engine.unroll import unroll

    return lambda params, xs, **options: unroll(cell, params, xs, outputs="last", **options)[1]
