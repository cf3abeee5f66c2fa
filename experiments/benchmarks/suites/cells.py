"""A training step of every cell beside the LSTM's, in all and for each operation of its matrix products."""

import json
import statistics
import subprocess
import sys
import time

from absl import flags

from benchmarks.case import Case, parse_named, title
from benchmarks.workers import start

FLAGS = flags.FLAGS
flags.DEFINE_string("cells_shape", "lstm:32x200x64x64", "Shape of the suite cells; as many inputs as units.")


def cells() -> tuple[dict, list[str]]:
    """Loss of the last state, gradient and SGD update: each cell in turn with the LSTM, round by round."""
    case = parse_named(FLAGS.cells_shape, "cells_shape")
    process = start(
        {"do": "cells", "kind": "jax", "case": case, "rounds": FLAGS.rounds, "seconds": FLAGS.seconds},
        stdout=subprocess.PIPE,
    )
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the process that times the cells ended with exit code {process.returncode}")
    rows = json.loads(output.splitlines()[-1])
    table = [
        f"A training step at {title(case)}, ms, and in LSTM steps of the same rounds; the last column is for each",
        "operation of the matrix products in a step forwards (elementwise work is not counted).",
        "",
        "| cell | form | ms | of the LSTM's | MFLOP | of the LSTM's, a FLOP |",
        "|-|-|-:|-:|-:|-:|",
    ]
    for row in sorted(rows, key=lambda row: row["ratio"]):
        a_flop = "" if row["ratio_a_flop"] is None else f"{row['ratio_a_flop']:.2f}x"
        table.append(
            f"| {row['cell']} | {row['form']} | {1e3 * row['seconds']:.3g} | {row['ratio']:.2f}x "
            f"| {row['flops'] / 1e6:.3g} | {a_flop} |"
        )
    return {"case": case._asdict(), "rows": rows}, table


def measure_cells(case, rounds: int, seconds: float, kind: str) -> None:
    """In a process of its own: prints the rows as JSON."""
    from rnnjax.cells import CELLS
    from rnnjax.reports.cards import form_of
    from rnnjax.reports.costs import layer_costs
    from rnnjax.training.config import Config

    case, rows = Case(*case), []
    flops = {name: layer_costs(Config(cell=name, hidden_size=case.H), past=1).flops for name in CELLS}
    lstm = step_of("lstm", case)
    for name in CELLS:
        run = lstm if name == "lstm" else step_of(name, case)
        n = max(1, min(1000, round(seconds / clock(run, 1))))
        readings = [(clock(run, n), clock(lstm, n)) for _ in range(rounds)]
        ratio = statistics.median(a / b for a, b in readings)
        rows.append(
            {
                "cell": name,
                "form": form_of(CELLS[name](case.H)),
                "seconds": statistics.median(a for a, _ in readings),
                "ratio": ratio,
                "flops": flops[name],
                "ratio_a_flop": ratio * flops["lstm"] / flops[name] if flops[name] else None,
            }
        )
        print(f"{name}: {ratio:.2f}x the LSTM", file=sys.stderr, flush=True)
    print(json.dumps(rows))


def step_of(name: str, case: Case):
    """`run(n)` makes n training steps in one call, and returns when the last is done."""
    import jax
    import jax.numpy as jnp

    from rnnjax.cells import CELLS
    from rnnjax.engine.unroll import unroll

    cell, key = CELLS[name](case.H), jax.random.key(0)
    params, xs = cell.init(key, case.I), jax.random.normal(key, (case.T, case.B, case.I))

    def step(_, params):
        gradient = jax.grad(lambda p: jnp.mean(jnp.square(unroll(cell, p, xs, outputs="last")[1])))(params)
        return jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradient)

    loop = jax.jit(lambda params, n: jax.lax.fori_loop(0, n, step, params))
    run = lambda n: jax.block_until_ready(loop(params, n))  # noqa: E731
    run(1)
    return run


def clock(run, n: int) -> float:
    """Seconds a step of a call with n."""
    begun = time.perf_counter()
    run(n)
    return (time.perf_counter() - begun) / n
