"""What all contenders that run on JAX share: the two ways to train, and the batch spread over devices."""

import functools
from collections.abc import Callable
from typing import Any

from benchmarks.case import LEARNING_RATE, Case, Contender, make_data


def contender(
    case: Case,
    params: Any,
    apply: Callable,  # (params, xs) -> h_T [B, H]
    *,
    batch_first: bool = False,
    devices: int = 1,
    matrices: Callable = lambda gradient: [g for g in _leaves(gradient) if g.ndim == 2],
    value_and_gradient: Callable | None = None,  # may return [T, B] values in place of the loss
) -> Contender:
    """The two ways to train with JAX: a jit call a step with donated parameters, and the steps looped in one jit.

    Raises NotImplementedError where the batch does not divide over the devices.
    """
    import jax
    import jax.numpy as jnp

    xs, target = make_data(case)
    xs = jnp.asarray(xs.swapaxes(0, 1) if batch_first else xs)
    args = (jax.tree.map(jnp.asarray, params), xs, jnp.asarray(target))
    if devices > 1:
        args = _placed(args, case, devices)
    programs = _programs(apply, value_and_gradient, devices)

    def check():
        value, grads = programs["gradient"](*args)
        if value_and_gradient is not None:
            return float(jnp.linalg.norm(value[-1])), float(jnp.linalg.norm(value))
        return float(value), float(jnp.sqrt(sum(jnp.sum(g**2) for g in _leaves(matrices(grads)))))

    forward = {} if value_and_gradient is not None else _forward_ways(programs, *args[:2])
    return Contender(check, forward, _step_ways(programs, *args, wait=devices > 1))


def _programs(apply, value_and_gradient, devices):
    """Name -> the compiled function, spread over the devices where there are several."""
    import jax

    values_axis = None if value_and_gradient is None else 1  # of the batch, in what stands in place of the loss
    gradient = _averaged(value_and_gradient or jax.value_and_grad(loss_of(apply)), devices)
    step = sgd_step(gradient)
    functions = {  # name -> (function, the batch axes of its arguments, and of its results)
        "gradient": (gradient, (None, 1, 0), (values_axis, None)),
        "step": (step, (None, 1, 0), (None, values_axis)),
        "steps": (functools.partial(repeat, step), (None, 1, 0, None), (None, values_axis)),
        "forward": (apply, (None, 1), 0),
        "forwards": (functools.partial(_repeat_forward, apply), (None, 1, None), 0),
    }
    programs = {}
    for name, (function, *axes) in functions.items():
        spread = shard_batch(function, jax.devices()[:devices], *axes) if devices > 1 else function
        programs[name] = jax.jit(spread, donate_argnums=0 if name in ("step", "steps") else ())
    return programs


def _placed(args, case, devices):
    """(params, xs, target) with the batch spread over the devices."""
    import jax

    if case.B % devices:
        raise NotImplementedError(f"a batch of {case.B} on {devices} devices")
    mesh, P = jax.sharding.Mesh(jax.devices()[:devices], ("batch",)), jax.sharding.PartitionSpec
    specs = (P(), P(None, "batch"), P("batch"))
    return jax.device_put(args, tuple(jax.NamedSharding(mesh, spec) for spec in specs))


def _step_ways(programs, params, xs, target, wait):
    import jax
    import jax.numpy as jnp

    live = {way: jax.tree.map(jnp.copy, params) for way in ("call", "scan")}

    def calls(n):
        for _ in range(n):
            live["call"], _ = programs["step"](live["call"], xs, target)
            if wait:  # collectives of two calls in flight can wait for each other for ever on a CPU
                jax.block_until_ready(live["call"])
        jax.block_until_ready(live["call"])

    def scan(n):
        live["scan"], _ = programs["steps"](live["scan"], xs, target, n)
        jax.block_until_ready(live["scan"])

    return {"call": calls, "scan": scan}


def _forward_ways(programs, params, xs):
    import jax

    def calls(n):
        for _ in range(n):
            h = programs["forward"](params, xs)
        jax.block_until_ready(h)

    def scan(n):
        jax.block_until_ready(programs["forwards"](params, xs, n))

    return {"call": calls, "scan": scan}


def loss_of(apply: Callable) -> Callable:
    """The mean squared error of `apply(params, xs)`, as a function of (params, xs, target)."""

    def loss(params, xs, target):
        import jax.numpy as jnp

        return jnp.mean(jnp.square(apply(params, xs) - target))

    return loss


def _averaged(value_and_gradient, devices):
    """Over the parts of the batch, where it is spread over devices; values that belong to its elements stay."""
    from rnnjax.training import mean_over_devices

    def averaged(params, xs, target):
        value, gradient = value_and_gradient(params, xs, target)
        if value.ndim == 0:
            return mean_over_devices((value, gradient), "batch")
        return value, mean_over_devices(gradient, "batch")

    return averaged if devices > 1 else value_and_gradient


def sgd_step(value_and_gradient: Callable) -> Callable:
    """A step of plain SGD: (params, xs, target) -> (params, value)."""
    import jax

    def step(params, xs, target):
        value, gradient = value_and_gradient(params, xs, target)
        return jax.tree.map(lambda p, g: p - LEARNING_RATE * g, params, gradient), value

    return step


def repeat(step, params, xs, target, n):
    """n steps in a row, n traced; the value of the last."""
    import jax
    import jax.numpy as jnp

    value = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(step, params, xs, target)[1])
    return jax.lax.fori_loop(0, n, lambda _, carry: step(carry[0], xs, target), (params, value))


def _repeat_forward(apply, params, xs, n):
    """n passes in a row; each reads a number of the one before, so that none can be hoisted out of the loop."""
    import jax
    import jax.numpy as jnp

    def body(_, carry):
        params, xs, h = carry  # params too, for nnx cannot merge those of an outer trace
        xs = xs.at[0, 0, 0].set(h[0, 0])
        return params, xs, apply(params, xs)

    h = jax.eval_shape(apply, params, xs)
    return jax.lax.fori_loop(0, n, body, (params, xs, jnp.zeros(h.shape, h.dtype)))[-1]


def _leaves(tree):
    import jax

    return jax.tree.leaves(tree)


def shard_batch(function, devices, batch_axes, out_axes):
    """`function` run on every device with its own part of the batch.

    Args:
      function: what it returns without a batch axis must be the same on every device, so it averages its gradients
        with `rnnjax.training.mean_over_devices(gradients, "batch")`.
      devices: over which to spread; their number divides the batch.
      batch_axes: the batch axis of each argument, None for one that every device gets whole.
      out_axes: the same of each result.

    Returns a function of the same arguments.
    """
    import jax

    P = jax.sharding.PartitionSpec

    def spec(axis):
        return P() if axis is None else P(*[None] * axis, "batch")

    mesh = jax.sharding.Mesh(devices, ("batch",))
    in_specs = tuple(map(spec, batch_axes))
    out_specs = tuple(map(spec, out_axes)) if isinstance(out_axes, tuple) else spec(out_axes)
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
