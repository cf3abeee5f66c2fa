"""The contenders of the benchmark: one function a library, each used as its own users would at their best.

Every function takes a `Case` and returns a `Contender`: the same layer with the same weights, and the ways to run it.
A library is imported inside its function, so that a process imports only what it times.

The task of all: h_T of a sequence xs [T, B, I] against a fixed target [B, H], mean squared error, plain SGD.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

LEARNING_RATE = 1e-3


class Case(NamedTuple):
    cell: str  # rnn, lstm or gru
    B: int
    T: int
    I: int
    H: int


class Contender(NamedTuple):
    """A layer that is ready to run. `run(n)` does n of them in a row and returns when the last is done."""

    check: Callable[[], tuple[float, float]]  # the loss, and the norm of its gradient by W_x and W_h together
    forward: dict[str, Callable[[int], None]]  # way -> run; "call" is a call a pass, "scan" one call for all
    step: dict[str, Callable[[int], None]]
    same_as: str  # the rnnjax cell whose loss and gradient norm these must be


GATES = {"rnn": 1, "lstm": 4, "gru": 3}  # columns: i f g o, and r z n


def flops(case: Case) -> int:
    """Floating-point operations of the matmuls of one forward pass; a training step counts three times as many."""
    return 2 * case.B * case.T * (case.I + case.H) * GATES[case.cell] * case.H


def make_weights(case: Case, seed: int = 0) -> dict[str, np.ndarray]:
    """W_x [I, G H] (Glorot), W_h [H, G H] (orthogonal gate by gate) and b [G H] (forget gate about 1)."""
    draw, gates = np.random.default_rng(seed), GATES[case.cell]
    bound = np.sqrt(6 / (case.I + case.H))
    orthogonal = [np.linalg.qr(draw.normal(size=(case.H, case.H)))[0] for _ in range(gates)]
    b = draw.normal(size=gates * case.H) / 10
    if case.cell == "lstm":
        b[case.H : 2 * case.H] += 1
    W_x = draw.uniform(-bound, bound, (case.I, gates * case.H))
    return {k: v.astype("f") for k, v in (("W_x", W_x), ("W_h", np.concatenate(orthogonal, 1)), ("b", b))}


def make_data(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """xs [T, B, I] and the target [B, H]."""
    draw = np.random.default_rng(1)
    return draw.normal(size=(case.T, case.B, case.I)).astype("f"), draw.normal(size=(case.B, case.H)).astype("f")


def rnnjax(case: Case, devices: int = 1, variant: str | None = None, segments: int = 1) -> Contender:
    """This package; with `devices` above 1 the batch is spread over them."""
    cell, params = _rnnjax_cell(case, variant or case.cell)
    apply = functools.partial(_rnnjax_apply(cell), segments=segments)
    return _jax_contender(case, params, apply, devices=devices)


def rnnjax_norms(case: Case, devices: int = 1) -> Contender:
    """A training step that also returns |dL/dh_t| [T, B] for every t, from the same backward pass."""
    import jax
    import jax.numpy as jnp

    from rnnjax.engine.unroll import make_probe

    cell, params = _rnnjax_cell(case, case.cell)
    probe = make_probe(cell, case.T, (case.B // devices,))
    apply = _rnnjax_apply(cell)

    def norms_and_gradient(params, xs, target):
        def loss(params, probe):
            return jnp.mean(jnp.square(apply(params, xs, probe=probe) - target))

        gradient, norms = jax.grad(loss, argnums=(0, 1))(params, probe)
        return getattr(norms, "h", norms) / devices, gradient

    return _jax_contender(case, params, apply, devices=devices, value_and_gradient=norms_and_gradient)


def rnnjax_sweep(case: Case, runs: int, devices: int = 1) -> Contender:
    """`runs` independent runs: spread over the devices, one after another inside each (on a GPU, side by side)."""
    import jax
    import jax.numpy as jnp

    cell, _ = _rnnjax_cell(case, case.cell)
    params = [_rnnjax_cell(case, case.cell, seed)[1] for seed in range(runs)]
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
    xs, target = make_data(case)
    value_and_gradient = jax.value_and_grad(_loss(_rnnjax_apply(cell)))
    step = _sgd_step(value_and_gradient)
    lanes = jax.vmap if jax.default_backend() == "gpu" else lambda f: lambda tree: jax.lax.map(f, tree)

    def train(params, xs, target, n):
        return lanes(lambda lane: _repeat(step, lane, xs, target, n))(params)

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

    return Contender(check, {}, {"scan": run}, case.cell)


def flax_nnx(case: Case) -> Contender:
    import jax.numpy as jnp
    from flax import nnx

    w = make_weights(case)
    cell = {"rnn": nnx.SimpleCell, "lstm": nnx.OptimizedLSTMCell, "gru": nnx.GRUCell}[case.cell]
    model = nnx.RNN(cell(case.I, case.H, rngs=nnx.Rngs(0)), time_major=True, return_carry=True)
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    bias_of = "dense_h" if case.cell == "lstm" else "dense_i"
    values = {"dense_i": {"kernel": w["W_x"]}, "dense_h": {"kernel": w["W_h"]}}
    values[bias_of]["bias"] = w["b"]
    nnx.replace_by_pure_dict(params, {"cell": values})

    def apply(params, xs):
        h = jnp.zeros((xs.shape[1], case.H))  # without an explicit carry nnx.RNN fails under jit (flax #4713)
        carry, _ = nnx.merge(graphdef, params, rest)(xs, initial_carry=(h, h) if case.cell == "lstm" else h)
        return carry[1] if case.cell == "lstm" else carry

    return _jax_contender(case, params, apply)


def flax_linen(case: Case) -> Contender:
    from flax import linen as nn

    cell = {"rnn": nn.SimpleCell, "lstm": nn.OptimizedLSTMCell, "gru": nn.GRUCell}[case.cell]
    model = nn.RNN(cell(case.H), time_major=True, return_carry=True)
    W_x, W_h, b = (np.split(a, GATES[case.cell], axis=-1) for a in make_weights(case).values())
    if case.cell == "rnn":
        params = {"i": {"kernel": W_x[0], "bias": b[0]}, "h": {"kernel": W_h[0]}}
    elif case.cell == "lstm":
        params = {"i" + gate: {"kernel": W_x[k]} for k, gate in enumerate("ifgo")}
        params |= {"h" + gate: {"kernel": W_h[k], "bias": b[k]} for k, gate in enumerate("ifgo")}
    else:
        params = {"i" + gate: {"kernel": W_x[k], "bias": b[k]} for k, gate in enumerate("rzn")}
        params |= {"h" + gate: {"kernel": W_h[k]} for k, gate in enumerate("rzn")}
        params["hn"]["bias"] = np.zeros(case.H, "f")

    def apply(params, xs):
        carry, _ = model.apply({"params": {"cell": params}}, xs)
        return carry[1] if case.cell == "lstm" else carry

    return _jax_contender(case, params, apply)


def haiku(case: Case) -> Contender:
    """Haiku has variants of its own: VanillaRNN is a ReLU network, and GRU resets before the matmul."""
    import haiku as hk

    w, H = make_weights(case), case.H
    if case.cell == "rnn":
        core, same_as = hk.VanillaRNN, "rnn_relu"
        params = {"vanilla_rnn/linear": {"w": w["W_x"], "b": w["b"]}}
        params["vanilla_rnn/linear_1"] = {"w": w["W_h"], "b": np.zeros(H, "f")}
    elif case.cell == "lstm":
        core, same_as = hk.LSTM, "lstm"
        w["b"][H : 2 * H] -= 1  # hk.LSTM adds it in code
        i, f, g, o = np.split(np.concatenate([w["W_x"], w["W_h"], w["b"][None]]), 4, axis=1)
        columns = np.concatenate([i, g, f, o], axis=1)
        params = {"lstm/linear": {"w": columns[:-1], "b": columns[-1]}}
    else:
        core, same_as = hk.GRU, "gru_cho"
        order = {name: np.split(a, 3, axis=-1) for name, a in w.items()}
        w_i, w_h, b = (np.concatenate([-z, r, n], axis=-1) for r, z, n in order.values())  # its z is our 1 - z
        params = {"gru": {"w_i": w_i, "w_h": w_h, "b": b}}

    def layer(xs):
        cell = core(H)
        _, state = hk.dynamic_unroll(cell, xs, cell.initial_state(xs.shape[1]))
        return getattr(state, "hidden", state)

    return _jax_contender(case, params, hk.without_apply_rng(hk.transform(layer)).apply, same_as=same_as)


def equinox(case: Case) -> Contender:
    """Equinox has no RNN cell: the Elman network is written in its style."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    class RNNCell(eqx.Module):
        weight_ih: jax.Array
        weight_hh: jax.Array
        bias: jax.Array

        def __call__(self, x, h):
            return jnp.tanh(self.weight_ih @ x + self.weight_hh @ h + self.bias)

    class Layer(eqx.Module):
        cell: eqx.Module

        def __call__(self, xs):
            h = jnp.zeros(case.H)
            state = (h, h) if case.cell == "lstm" else h
            state, _ = jax.lax.scan(lambda state, x: (self.cell(x, state), None), state, xs)
            return state[0] if case.cell == "lstm" else state

    w = {name: jnp.asarray(a.T) for name, a in make_weights(case).items()}
    if case.cell == "rnn":
        cell = RNNCell(w["W_x"], w["W_h"], w["b"])
    else:
        cell = {"lstm": eqx.nn.LSTMCell, "gru": eqx.nn.GRUCell}[case.cell](case.I, case.H, key=jax.random.key(0))
        cell = eqx.tree_at(lambda c: (c.weight_ih, c.weight_hh, c.bias), cell, (w["W_x"], w["W_h"], w["b"]))
    if case.cell == "gru":
        cell = eqx.tree_at(lambda c: c.bias_n, cell, jnp.zeros(case.H))
    params, static = eqx.partition(Layer(cell), eqx.is_array)
    return _jax_contender(case, params, lambda p, xs: jax.vmap(eqx.combine(p, static), in_axes=1)(xs))


def keras(case: Case) -> Contender:
    """Keras 3 on JAX, through `stateless_call`."""
    import os

    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    layer = {"rnn": keras.layers.SimpleRNN, "lstm": keras.layers.LSTM, "gru": keras.layers.GRU}[case.cell](case.H)
    layer.build((case.B, case.T, case.I))
    w = make_weights(case)
    if case.cell == "gru":  # z r h instead of r z n
        swap = {name: np.split(a, 3, axis=-1) for name, a in w.items()}
        w = {name: np.concatenate([z, r, n], axis=-1) for name, (r, z, n) in swap.items()}
        w["b"] = np.stack([w["b"], np.zeros_like(w["b"])])
    rest = [v.value for v in layer.non_trainable_variables]

    def apply(params, xs):
        return layer.stateless_call(params, rest, xs)[0]

    return _jax_contender(case, list(w.values()), apply, batch_first=True, matrices=lambda g: g[:2])


def jax_cudnn(case: Case) -> Contender:
    """`jax.experimental.rnn.lstm`, which runs cuDNN: on a GPU only."""
    import jax
    import jax.numpy as jnp
    from jax.experimental import rnn

    if case.cell != "lstm" or jax.default_backend() != "gpu":
        raise NotImplementedError("jax.experimental.rnn has an LSTM alone, and on a GPU alone")
    weights, matrices = cudnn_weights(case)
    zero, lengths = jnp.zeros((1, case.B, case.H)), jnp.full(case.B, case.T, jnp.int32)

    def apply(weights, xs):
        return rnn.lstm(xs, zero, zero, weights, lengths, case.I, case.H, 1, 0.0, False)[1][0]

    return _jax_contender(case, weights, apply, batch_first=True, matrices=lambda g: g[:matrices])


def cudnn_weights(case: Case) -> tuple[np.ndarray, int]:
    """(W_ih, W_hh, b_ih, b_hh) laid flat one after another, and how many numbers belong to the matrices."""
    w = make_weights(case)
    flat = [w["W_x"].T.ravel(), w["W_h"].T.ravel(), w["b"], np.zeros_like(w["b"])]
    return np.concatenate(flat), flat[0].size + flat[1].size


def torch_nn(case: Case, seed: int = 0) -> Contender:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    layer = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[case.cell](case.I, case.H).to(device)
    _torch_load(layer, make_weights(case, seed), "_l0")
    optimizer = torch.optim.SGD(layer.parameters(), LEARNING_RATE)
    xs, target = (torch.from_numpy(a).to(device) for a in make_data(case))

    def h_last(xs):
        h = layer(xs)[1]
        return (h[0] if case.cell == "lstm" else h)[0]

    def backward():
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.mse_loss(h_last(xs), target)
        loss.backward()
        return loss

    def check():
        loss = backward().item()
        return loss, torch.sqrt(sum((p.grad**2).sum() for p in layer.parameters() if p.ndim == 2)).item()

    def forward(n):
        with torch.inference_mode():
            for _ in range(n):
                h = h_last(xs)
        _ = h[0, 0].item()

    def step(n):
        for _ in range(n):
            loss = backward()
            optimizer.step()
        _ = loss.item()
        if device == "cuda":
            torch.cuda.synchronize()

    return Contender(check, _torch_ways(forward), _torch_ways(step), case.cell)


def torch_norms(case: Case) -> Contender:
    """PyTorch's way to |dL/dh_t| for every t: `nn.LSTM` hides its states, so a loop over `LSTMCell` that keeps them."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    cell = {"rnn": torch.nn.RNNCell, "lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell}[case.cell](case.I, case.H)
    cell = cell.to(device)
    _torch_load(cell, make_weights(case), "")
    optimizer = torch.optim.SGD(cell.parameters(), LEARNING_RATE)
    xs, target = (torch.from_numpy(a).to(device) for a in make_data(case))

    def norms():
        optimizer.zero_grad(set_to_none=True)
        state, hs = None, []
        for x in xs:
            state = cell(x, state)
            h = state[0] if case.cell == "lstm" else state
            h.retain_grad()
            hs.append(h)
        torch.nn.functional.mse_loss(h, target).backward()
        return torch.stack([h.grad for h in hs]).norm(dim=-1)

    def check():
        values = norms()
        return values[-1].norm().item(), values.norm().item()

    def step(n):
        for _ in range(n):
            values = norms()
            optimizer.step()
        _ = values[0, 0].item()
        if device == "cuda":
            torch.cuda.synchronize()

    return Contender(check, {}, _torch_ways(step), case.cell)


def torch_sweep(case: Case, runs: int, first: int) -> Contender:
    """`runs` runs with the seeds from `first` on, one after another in this process."""
    lanes = [torch_nn(case, seed) for seed in range(first, first + runs)]

    def check():
        losses, norms = zip(*(lane.check() for lane in lanes), strict=True)
        return sum(losses), sum(norms)

    def run(n):
        for lane in lanes:
            lane.step["call"](n)

    return Contender(check, {}, {"call": run}, case.cell)


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


def _jax_contender(
    case: Case,
    params: Any,
    apply: Callable,  # (params, xs) -> h_T [B, H]
    *,
    batch_first: bool = False,
    devices: int = 1,
    matrices: Callable = lambda gradient: [g for g in _leaves(gradient) if g.ndim == 2],
    same_as: str | None = None,
    value_and_gradient: Callable | None = None,  # may return [T, B] values in place of the loss
) -> Contender:
    """The two ways to train with JAX, a jit call a step with donated parameters, and the steps looped in one jit."""
    import jax
    import jax.numpy as jnp

    xs, target = make_data(case)
    xs = jnp.asarray(xs.swapaxes(0, 1) if batch_first else xs)
    target, params = jnp.asarray(target), jax.tree.map(jnp.asarray, params)
    values_by_time = value_and_gradient is not None
    gradient = _averaged(value_and_gradient or jax.value_and_grad(_loss(apply)), devices)
    step = _sgd_step(gradient)
    functions = {  # name -> (function, the batch axes of its arguments, and of its results)
        "gradient": (gradient, (None, 1, 0), (1 if values_by_time else None, None)),
        "step": (step, (None, 1, 0), (None, 1 if values_by_time else None)),
        "steps": (functools.partial(_repeat, step), (None, 1, 0, None), (None, 1 if values_by_time else None)),
        "forward": (apply, (None, 1), 0),
        "forwards": (functools.partial(_repeat_forward, apply), (None, 1, None), 0),
    }
    if devices > 1:
        if case.B % devices:
            raise NotImplementedError(f"a batch of {case.B} on {devices} devices")
        mesh, P = jax.sharding.Mesh(jax.devices()[:devices], ("batch",)), jax.sharding.PartitionSpec
        functions = {k: (shard_batch(f, jax.devices()[:devices], *axes), *axes) for k, (f, *axes) in functions.items()}
        specs = (P(), P(None, "batch"), P("batch"))
        params, xs, target = jax.device_put((params, xs, target), tuple(jax.NamedSharding(mesh, s) for s in specs))
    gradient, forward, forwards = (jax.jit(functions[name][0]) for name in ("gradient", "forward", "forwards"))
    step, steps = (jax.jit(functions[name][0], donate_argnums=0) for name in ("step", "steps"))
    live = {way: jax.tree.map(jnp.copy, params) for way in ("call", "scan")}

    def check():
        value, grads = gradient(params, xs, target)
        if values_by_time:
            return float(jnp.linalg.norm(value[-1])), float(jnp.linalg.norm(value))
        return float(value), float(jnp.sqrt(sum(jnp.sum(g**2) for g in _leaves(matrices(grads)))))

    def step_calls(n):
        for _ in range(n):
            live["call"], _ = step(live["call"], xs, target)
            if devices > 1:  # collectives of two calls in flight can wait for each other for ever on a CPU
                jax.block_until_ready(live["call"])
        jax.block_until_ready(live["call"])

    def step_scan(n):
        live["scan"], _ = steps(live["scan"], xs, target, n)
        jax.block_until_ready(live["scan"])

    def forward_calls(n):
        for _ in range(n):
            h = forward(params, xs)
        jax.block_until_ready(h)

    def forward_scan(n):
        jax.block_until_ready(forwards(params, xs, n))

    forward_ways = {} if values_by_time else {"call": forward_calls, "scan": forward_scan}
    return Contender(check, forward_ways, {"call": step_calls, "scan": step_scan}, same_as or case.cell)


def _loss(apply):
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


def _sgd_step(value_and_gradient):
    import jax

    def step(params, xs, target):
        value, gradient = value_and_gradient(params, xs, target)
        return jax.tree.map(lambda p, g: p - LEARNING_RATE * g, params, gradient), value

    return step


def _repeat(step, params, xs, target, n):
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


def _rnnjax_cell(case, variant, seed=0):
    import jax.numpy as jnp

    from rnnjax import cells

    make = {"rnn_relu": lambda H: cells.rnn(H, activation="relu")}.get(variant) or cells.CELLS[variant]
    params = {name: jnp.asarray(a) for name, a in make_weights(case, seed).items()}
    if variant == "gru":
        params["b_h"] = jnp.zeros(case.H)
    return make(case.H), params


def _rnnjax_apply(cell):
    from rnnjax.engine.unroll import unroll

    return lambda params, xs, **options: unroll(cell, params, xs, outputs="last", **options)[1]


def _torch_ways(run):
    """With all the threads of the process, and with one: on small layers that may be faster."""
    import torch

    def with_threads(threads):
        def limited(n):
            torch.set_num_threads(threads)
            run(n)

        return limited

    threads = torch.get_num_threads()
    ways = {"call": with_threads(threads)}
    return ways | {"call, one thread": with_threads(1)} if threads > 1 else ways


def _torch_load(module, weights, suffix):
    import torch

    names = {"W_x": "weight_ih", "W_h": "weight_hh", "b": "bias_ih"}
    with torch.no_grad():
        for name, value in weights.items():
            getattr(module, names[name] + suffix).copy_(torch.from_numpy(np.ascontiguousarray(value.T)))
        getattr(module, "bias_hh" + suffix).zero_()


LAYERS = {  # name -> (the process it runs in, its function)
    "rnnjax": ("jax", rnnjax),
    "rnnjax sharded": ("jax-sharded", rnnjax),
    "flax.nnx": ("jax", flax_nnx),
    "flax.linen": ("jax", flax_linen),
    "haiku": ("jax", haiku),
    "equinox": ("jax", equinox),
    "keras": ("jax", keras),
    "jax cudnn": ("jax", jax_cudnn),
    "torch": ("torch", torch_nn),
}
DIAGNOSTICS = {
    "rnnjax": ("jax", rnnjax),
    "rnnjax sharded": ("jax-sharded", rnnjax),
    "rnnjax norms": ("jax", rnnjax_norms),
    "rnnjax norms sharded": ("jax-sharded", rnnjax_norms),
    "torch": ("torch", torch_nn),
    "torch norms": ("torch", torch_norms),
}
SWEEP = {"rnnjax": ("jax-sharded", rnnjax_sweep), "torch": ("torch-1", torch_sweep)}
