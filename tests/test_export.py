"""What cannot run on this machine is at least compiled: every program lowers for CUDA and TPU, of which none is needed.

Lowering finds what a platform has no rule for, and branches that fail where they are traced; not what is wrong with
their numbers. Where one program takes both platforms it is traced once.
"""

import dataclasses

import jax
import jax.export
import jax.numpy as jnp
import pytest
from flax import nnx

from rnnjax.cells import CELLS, gru, gru_cho, lru, lstm, mlstm, rwkv7
from rnnjax.diagnostics.credit import credit_matrix
from rnnjax.diagnostics.gradient_flow import gradient_flow
from rnnjax.diagnostics.jacobians import jacobian_statistics, product_spectrum, step_jacobians
from rnnjax.diagnostics.lyapunov import lyapunov_spectrum
from rnnjax.diagnostics.paths import flow_by_path
from rnnjax.diagnostics.sensitivity import frobenius_sensitivity
from rnnjax.diagnostics.units import record_units, summarise_units
from rnnjax.engine.runners import METHODS, RUNNERS
from rnnjax.engine.unroll import make_probe, make_taps, unroll
from rnnjax.gradients.methods import GRADIENTS, gradient
from rnnjax.gradients.penalties import PENALTIES
from rnnjax.nn import SequenceModel, transformer
from rnnjax.nn.positions import POSITIONS
from rnnjax.reports.diagnosis_subject import loss_of_taps, subject_of
from rnnjax.sweeps.grid import lane_inputs, make_lanes
from rnnjax.tasks import TASKS
from rnnjax.tasks.language import generate
from rnnjax.training import make_train
from rnnjax.training.config import Config
from rnnjax.training.tracing import run_inputs

PLATFORMS = ("cuda", "tpu")
T, B, D, H = 5, 2, 2, 3
KEY = jax.random.key(0)
TINY = Config(seq_len=T, hidden_size=H, batch_size=B, steps=4, eval_every=2, eval_batch=2)
ONE_EACH = {"gates": lstm(H, peepholes=True), "state alone": gru(H), "free form": gru_cho(H), "linear": lru(H)}


def lower(function, *args):
    """One module of StableHLO for all of PLATFORMS, from the shapes of `args`. Raises where one of them cannot."""
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(jnp.shape(a), jnp.result_type(a)), args)
    exported = jax.export.export(jax.jit(function), platforms=PLATFORMS)(*shapes)
    assert exported.platforms == PLATFORMS
    return exported


def problem(cell):
    """(the shapes of its parameters, xs)."""
    return jax.eval_shape(lambda: cell.init(KEY, D)), jax.ShapeDtypeStruct((T, B, D), jnp.float32)


def test_what_a_platform_cannot_do_is_found():
    with pytest.raises(NotImplementedError, match="primitive 'eig' not found"):
        lower(jnp.linalg.eigvals, jax.ShapeDtypeStruct((3, 3), jnp.float32))


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        (kind, method)
        for kind, cell in ONE_EACH.items()
        for method in METHODS
        if method == "auto" or isinstance(cell.form, RUNNERS[method].form)
    ],
)
def test_every_runner_of_the_engine(kind, method):
    """Values, gradients, taps and probe, with lengths, in reverse and in segments; and the last output alone."""
    cell = ONE_EACH[kind]
    params, xs = problem(cell)
    taps, probe = (
        jax.eval_shape(lambda p, make=make: make(cell, p, T, (B,)), params) for make in (make_taps, make_probe)
    )

    def run(params, xs, taps, probe, lengths):
        def loss(*args, **options):
            params, xs, taps, probe = args
            return jnp.sum(unroll(cell, params, xs, taps=taps, probe=probe, method=method, **options)[1])

        slopes = jax.grad(loss, (0, 1, 2, 3))
        every = slopes(params, xs, taps, probe, lengths=lengths, reverse=True, segments=2)
        return every, slopes(params, xs, taps, probe, outputs="last")

    lower(run, params, xs, taps, probe, jnp.ones(B, jnp.int32))


@pytest.mark.parametrize(
    ("cell", "on_a_cpu_alone"),
    [(lstm(H), f"tensor<{B}x{H + D + 1}xf32>"), (lru(H), "stablehlo.while")],  # [h, x, 1]; step by step
    ids=["lstm", "lru"],
)
def test_the_runner_is_that_of_the_platform_it_is_lowered_for(cell, on_a_cpu_alone):
    run = jax.jit(jax.grad(lambda p, xs: jnp.sum(unroll(cell, p, xs)[1])))
    for platform in ("cpu", "cuda", "tpu"):
        exported = jax.export.export(run, platforms=(platform,))(*problem(cell))
        assert (on_a_cpu_alone in exported.mlir_module()) == (platform == "cpu")


@pytest.mark.parametrize("make", [mlstm, rwkv7])
def test_a_memory_in_chunks(make):
    """Without taps and probe, with which it is scanned: gradients, with lengths and resets, in reverse, in segments."""
    cell = make(8)

    def run(params, xs, lengths, resets):
        options = {"lengths": lengths, "resets": resets, "reverse": True, "segments": 2, "method": "chunked:8"}
        return jax.grad(lambda p, xs: jnp.sum(unroll(cell, p, xs, **options)[1]), (0, 1))(params, xs)

    params, xs = jax.eval_shape(lambda: cell.init(KEY, D)), jnp.zeros((40, B, D))
    lower(run, params, xs, jnp.ones(B, jnp.int32), jnp.zeros((40, B), bool))


@pytest.mark.parametrize("method", [name.replace("K", "2") for name in GRADIENTS])
def test_every_gradient_method(method):
    cell = gru(H)
    lower(lambda params, xs, key: gradient(method, cell, params, xs, jnp.sum, key=key), *problem(cell), KEY)


def chunk_of(config):
    """(`chunk` of the run, the shapes of what it takes)."""
    train = make_train(config)
    key, values = run_inputs(config)
    return train.chunk, jax.eval_shape(train.init, key, values), values, train.task.data


@pytest.mark.parametrize("name", [*CELLS, "transformer"])
def test_a_run_of_every_cell(name):
    """Its steps, with what is recorded of them, and the evaluation after them."""
    lower(*chunk_of(dataclasses.replace(TINY, cell=name, hidden_size=8 if name == "transformer" else H)))


@pytest.mark.parametrize("positions", POSITIONS)
def test_a_text_that_attention_writes(positions):
    """Steps read from and into its cache, several a call and one."""
    spec = transformer(H + 1, heads=2, positions=positions)
    options = {"input_size": D, "output_size": D, "tokens": True, "readout": "every"}
    graphdef, params = nnx.split(nnx.eval_shape(lambda: SequenceModel([spec], rngs=nnx.Rngs(0), **options)))
    read = lambda params, key: generate(nnx.merge(graphdef, params), jnp.zeros(2, int), 2, key, context=2)  # noqa: E731
    lower(read, params, KEY)


@pytest.mark.parametrize("name", TASKS)
def test_a_run_on_every_task(name, tmp_path):
    """Two layers with dropout in bfloat16, both directions; where inputs tell targets, one; text with penalties."""
    options = {}
    if name == "text":  # a short text: the n-grams of the long one take their time
        (tmp_path / "book.txt").write_text("a text of few letters " * 30)
        options = {"path": str(tmp_path / "book.txt")}
    one_way = {"text": dict.fromkeys(PENALTIES, 1.0), "series": {}}
    more = one_way.get(name, {"bidirectional": True})
    config = dataclasses.replace(TINY, task=name, task_options=options, num_layers=2, dropout=0.5, **more)
    lower(*chunk_of(dataclasses.replace(config, dtype="bfloat16", seq_len=4)))


def test_a_whole_run():
    train = make_train(TINY)
    lower(train.run, *run_inputs(TINY))


@pytest.mark.parametrize("width", [1, 2])
def test_the_lanes_of_a_sweep(width):
    """What an accelerator runs, `width` lanes at once."""
    lanes = make_lanes(TINY, jax.devices()[:1], width)
    keys, values = lane_inputs([TINY] * 2)
    states = jax.eval_shape(lanes.init, keys, values)
    lower(lanes.chunk, states, values, lanes.data)


def test_what_is_diagnosed():
    """The gradient by every state of a model; spectra, sensitivity, credit, paths and units of its first layer."""
    config = dataclasses.replace(TINY, cell="lstm")
    train = make_train(config)
    params = jax.eval_shape(train.init, *run_inputs(config)).params
    batch = jax.eval_shape(lambda: train.task.sample(KEY, B))

    def measures(params, batch):
        subject = subject_of(config, train, params, batch)
        taps = subject.model.make_taps(T, (B,))
        cell, params, xs = subject.layers[0]
        one = xs[:, 0]
        return (
            gradient_flow(loss_of_taps(subject), taps).norm,
            jacobian_statistics(step_jacobians(cell, params, one)),
            product_spectrum(cell, params, one),
            lyapunov_spectrum(cell, params, one, transient=1, batches=2),
            frobenius_sensitivity(cell, params, one, key=KEY, probes=2),
            credit_matrix(cell, params, xs, lambda ys: jnp.sum(ys, -1)),
            flow_by_path(cell, params, xs, lambda ys: jnp.sum(ys[-1])),
            summarise_units(record_units(cell, params, xs)),
        )

    lower(measures, params, batch)
