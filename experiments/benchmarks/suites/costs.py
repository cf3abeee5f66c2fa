"""What each diagnostic costs, as a multiple of one gradient, and how that grows with the length and the size."""

import functools
import json
import statistics
import subprocess
import sys
import time

from absl import flags

from benchmarks.case import Case, parse_named, title
from benchmarks.workers import start

FLAGS = flags.FLAGS
flags.DEFINE_string("costs_shape", "lstm:32x500x2x128", "Cell and shape of the suite costs.")

LONG = 10_000  # steps of the long spectra, at half the width


def costs() -> tuple[dict, list[str]]:
    """Every diagnostic at T and T/2, and at H and H/2."""
    case = parse_named(FLAGS.costs_shape, "costs_shape")
    sizes = {"": case, "half T": case._replace(T=case.T // 2), "half H": case._replace(H=case.H // 2)}
    seconds = {size: _in_a_process({"case": c, "names": None}) for size, c in sizes.items()}
    long = {}
    for cell in ("rnn", "lstm"):
        c = Case(cell, 1, LONG, case.I, case.H // 2)
        found = _in_a_process({"case": c, "names": ["product spectrum, `1`", "Lyapunov spectrum, all, `1`"]})
        long |= {f"{name}, {title(c)}": t for name, t in found.items()}
    full = seconds[""]
    table = [
        f"One call, {title(case)}; `1` is on one sequence, all else on the batch.",
        "",
        "| diagnostic | time | in gradients | when T doubles | when H doubles |",
        "|-|-:|-:|-:|-:|",
    ]
    for name, t in full.items():
        growth = [f"x {t / seconds[half][name]:.1f}" for half in ("half T", "half H")]
        table.append(f"| {name} | {_time(t)} | {t / full['gradient']:.3g} | {growth[0]} | {growth[1]} |")
    table += ["", "| long spectra, 1 sequence | time |", "|-|-:|", *[f"| {n} | {_time(t)} |" for n, t in long.items()]]
    return {"case": case._asdict(), "seconds": seconds, "long": long}, table


def measure_costs(case, names: list[str] | None, kind: str) -> None:
    """In a process of its own: prints {name: seconds} as JSON. All diagnostics where names is None."""
    import jax

    case = Case(*case)
    functions, args = diagnostics_of(case)
    seconds = {}
    for name, function in functions.items():
        if names is None or name in names:
            compiled = jax.jit(function).lower(*args).compile()
            seconds[name] = _clock(lambda compiled=compiled: jax.block_until_ready(compiled(*args)))
            print(f"{title(case)} {name}: {_time(seconds[name])}", file=sys.stderr, flush=True)
    print(json.dumps(seconds))


def diagnostics_of(case: Case):
    """({name: a pure function of (params, xs)}, (params, xs)). The first is the gradient that others are held to."""
    import jax
    import jax.numpy as jnp

    from rnnjax.cells import CELLS
    from rnnjax.engine.unroll import unroll

    key = jax.random.key(0)
    make = CELLS[case.cell]
    cell = make(case.H)
    params, xs = cell.init(key, case.I), jax.random.normal(key, (case.T, case.B, case.I))

    def loss(params, xs, cell=cell, **options):
        return loss_of(unroll(cell, params, xs, **options)[1])

    def loss_of(ys):
        return jnp.mean(jnp.square(ys[-1]))

    functions = {"gradient": jax.grad(loss)}
    functions |= _of_the_gradient(cell, params, case, loss, loss_of, key)
    functions |= _of_the_network(cell, params, make, case, key)
    functions |= _of_training(cell, loss, loss_of, key)
    return functions, (params, xs)


def _of_the_gradient(cell, params, case, loss, loss_of, key):
    """The diagnostics of where a gradient goes, in all sequences of the batch."""
    import jax
    import jax.numpy as jnp

    from rnnjax import diagnostics
    from rnnjax.diagnostics.evidence import Layer, gather
    from rnnjax.diagnostics.gradient_flow import gradient_flow
    from rnnjax.engine.unroll import make_probe, make_taps, unroll

    taps, probe = make_taps(cell, params, case.T, (case.B,)), make_probe(cell, params, case.T, (case.B,))

    def with_norms(p, x):
        return jax.grad(lambda p, probe: loss(p, x, probe=probe), argnums=(0, 1))(p, probe)

    def by_sequence(y):
        return jnp.mean(jnp.square(y), -1)

    return {
        "the same with the norm of every dL/dh_t": with_norms,
        "gradient flow by taps": lambda p, x: gradient_flow(lambda taps: loss(p, x, taps=taps), taps).norm,
        "flow by path": lambda p, x: diagnostics.flow_by_path(cell, p, x, loss_of),
        "credit matrix": lambda p, x: diagnostics.credit_matrix(cell, p, x, by_sequence),
        "measured horizon, all lags": lambda p, x: diagnostics.measured_horizon(
            lambda x: unroll(cell, p, x, outputs="last")[1], by_sequence, x, key
        ),
        "triage": lambda p, x: gather(lambda layers: loss(p, x, taps=layers[0]), (taps,), (Layer(cell, p, x),), key),
    }


def _of_the_network(cell, params, make, case, key):
    """The diagnostics of the recurrence itself, most of them in one sequence."""
    import jax
    import jax.numpy as jnp

    from rnnjax import diagnostics
    from rnnjax.diagnostics.fixed_points import fixed_points
    from rnnjax.diagnostics.init_map import init_map
    from rnnjax.diagnostics.recurrent_matrix import gate_blocks, recurrent_matrix

    first = functools.partial(jnp.take, indices=0, axis=1)  # one sequence of the batch
    starts = jax.tree.map(lambda a: a + jax.random.normal(key, a.shape), cell.initial_carry(params, (16,)))
    grid = jnp.linspace(0.5, 2.0, 8)

    def fresh(gain, bias):
        return make(case.H, gain=gain, forget_bias=bias) if case.cell == "lstm" else make(case.H, gain=gain)

    return {
        "sensitivity, Frobenius, 8 probes, `1`": lambda p, x: diagnostics.frobenius_sensitivity(
            cell, p, first(x), key=key
        ),
        "sensitivity, spectral, from step 0, `1`": lambda p, x: diagnostics.spectral_sensitivity(
            cell, p, first(x), key=key, starts=jnp.array([0])
        ),
        "step Jacobians, `1`": lambda p, x: diagnostics.step_jacobians(cell, p, first(x)),
        "product spectrum, `1`": lambda p, x: diagnostics.product_spectrum(cell, p, first(x)),
        "Lyapunov exponent, largest, `1`": lambda p, x: diagnostics.lyapunov_spectrum(cell, p, first(x), k=1),
        "Lyapunov spectrum, all, `1`": lambda p, x: diagnostics.lyapunov_spectrum(cell, p, first(x)),
        "gates, units, timescales": lambda p, x: diagnostics.record_units(cell, p, x),
        "recurrent matrices": lambda p, x: jax.vmap(recurrent_matrix)(gate_blocks(p["W_h"])),
        "fixed points, 16 starts": lambda p, x: fixed_points(cell, p, x[0, 0], starts),
        "initialisation map, 8 x 8, `1`": lambda p, x: init_map(fresh, grid, grid, first(x), key=key),
    }


def _of_training(cell, loss, loss_of, key):
    """The other ways to a gradient, and the penalties."""
    import jax

    from rnnjax.gradients import penalties
    from rnnjax.gradients.methods import gradient

    def online(method, columns=slice(None)):
        return lambda p, x: gradient(method, cell, p, x[:, columns], loss_of, key=key)[1]

    def cured(penalty):
        return jax.grad(lambda p, x: loss(p, x) + penalty(cell, p, x, key))

    return {
        "truncated BPTT, K = 50": online("tbptt:50"),
        "SnAp-1, `1`": online("snap1", slice(1)),
        "UORO": online("uoro"),
        "RTRL, `1`": online("rtrl", slice(1)),
        "cotangent clip": jax.grad(lambda p, x: loss(p, x, cell=penalties.clip_cotangent(cell, 1.0))),
        "with Omega": cured(penalties.omega),
        "with gradient flossing": cured(penalties.flossing),
        "with the orthogonality penalty": cured(penalties.orthogonal),
        "with the Jacobian penalty": cured(penalties.jacobian),
    }


def _in_a_process(task):
    process = start({"do": "costs", "kind": "jax", **task}, stdout=subprocess.PIPE)
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the process that times the diagnostics ended with exit code {process.returncode}")
    return json.loads(output.splitlines()[-1])


def _clock(call):
    """Seconds a call: the median of up to 9 after the first, within about 3 seconds; the first, if it took longer."""
    seconds = []
    while len(seconds) < 2 or (len(seconds) < 10 and sum(seconds) < 3):
        begun = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begun)
        if seconds[0] > 3:
            return seconds[0]
    return statistics.median(seconds[1:])


def _time(seconds):
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"
