"""Every diagnostic and penalty on a cell as odd as a user may write one: any pytree of any arrays is a carry."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rnnjax import diagnostics
from rnnjax.cells import LSTMCarry
from rnnjax.diagnostics.evidence import Layer, gather
from rnnjax.diagnostics.fixed_points import fixed_points
from rnnjax.diagnostics.gradient_flow import gradient_flow
from rnnjax.diagnostics.init_map import init_map
from rnnjax.diagnostics.newton_steps import newton_steps
from rnnjax.diagnostics.verdict import VERDICTS, judge
from rnnjax.engine.steps import carry_names, layer_names
from rnnjax.engine.unroll import make_taps, unroll
from rnnjax.gradients.penalties import clip_cotangent, flossing, jacobian, omega, orthogonal
from rnnjax.nn import RNN
from rnnjax.training import outputs
from rnnjax.types import Cell

T, B, D = 4, 2, 2
KEY = jax.random.key(0)


def odd(clock=True, gain=0.8):
    """A matrix of memories, a complex and a real vector, and an integer clock that counts, in a dict."""

    def init(key, d):
        a, b = jax.random.split(key)
        return {"W_h": gain * jax.random.normal(a, (2, 2)), "W_x": jax.random.normal(b, (d, 2))}

    def initial_carry(weights, batch):
        zeros = {"M": jnp.zeros((*batch, 2, 2)), "q": jnp.zeros((*batch, 2), complex), "v": jnp.zeros((*batch, 2))}
        return zeros | ({"clock": jnp.zeros((*batch, 1), jnp.int32)} if clock else {})

    def step(params, carry, z):
        q = 0.7 * jnp.exp(0.5j) * carry["q"] + z
        v = jnp.tanh(carry["v"] @ params["W_h"] + jnp.sum(carry["M"], axis=-1) + q.real)
        M = 0.6 * carry["M"] + 0.1 * v[..., :, None] * z[..., None, :]
        return {"M": M, "q": q, "v": v} | ({"clock": carry["clock"] + 1} if clock else {})

    def output(params, carry, z):
        return carry["v"] + carry["q"].imag

    return Cell(init, initial_carry, step, lambda params, x: x @ params["W_x"], output)


def loss(ys):
    return jnp.sum(jnp.square(ys[-1]))


def flow(cell, p, x):
    return gradient_flow(lambda taps: loss(unroll(cell, p, x, taps=taps)[1]), make_taps(cell, p, T, (B,)))


def evidence(cell, p, x):
    return gather(
        lambda taps: loss(unroll(cell, p, x, taps=taps[0])[1]), [make_taps(cell, p, T, (B,))], [Layer(cell, p, x)], KEY
    )


def settled(cell, p, x):
    starts = jax.tree.map(lambda a: a.at[0].add(jnp.asarray(0.1).astype(a.dtype)), cell.initial_carry(p, (3,)))
    return fixed_points(cell, p, x[0, 0], starts, iterations=5)._replace(eigenvalues=None, stable=None, distinct=None)


def sensitivity_of_the_last_state(cell, p, x):
    def state(taps):
        return unroll(cell, p, x, taps=taps)[0]["v"]

    return diagnostics.state_sensitivity(state, make_taps(cell, p, T, (B,)), KEY, probes=3)


def horizon(cell, p, x):
    return diagnostics.measured_horizon(lambda x: unroll(cell, p, x)[1][-1], jnp.mean, x, KEY)


DIAGNOSTICS = {
    "credit_matrix": lambda c, p, x: diagnostics.credit_matrix(c, p, x, lambda ys: jnp.sum(jnp.square(ys), -1)),
    "flow_by_path": lambda c, p, x: diagnostics.flow_by_path(c, p, x, loss),
    "gradient_flow": flow,
    "state_sensitivity": sensitivity_of_the_last_state,
    "record_units": diagnostics.record_units,
    "summarise_units": lambda c, p, x: diagnostics.summarise_units(diagnostics.record_units(c, p, x)),
    "step_jacobians": lambda c, p, x: diagnostics.step_jacobians(c, p, x[:, 0]),
    "product_spectrum": lambda c, p, x: diagnostics.product_spectrum(c, p, x[:, 0]),
    "lyapunov_spectrum": lambda c, p, x: diagnostics.lyapunov_spectrum(c, p, x[:, 0], k=2, batches=2),
    "newton_steps": lambda c, p, x: newton_steps(c, p, jnp.tile(x[:, 0], (4, 1))),
    "frobenius_sensitivity": lambda c, p, x: diagnostics.frobenius_sensitivity(c, p, x[:, 0], key=KEY, probes=3),
    "spectral_sensitivity": lambda c, p, x: diagnostics.spectral_sensitivity(c, p, x[:, 0], key=KEY, iterations=3),
    "exact_sensitivity": lambda c, p, x: diagnostics.exact_sensitivity(c, p, x[:, 0]),
    "fixed_points": settled,
    "measured_horizon": horizon,
    "compare_gradients": lambda c, p, x: diagnostics.compare_gradients(
        c, p, x, loss, KEY, methods=("snap1", "uoro"), draws=2
    ),
    "diagnose": evidence,
    "init_map": lambda c, p, x: init_map(
        lambda gain, _: odd(gain=gain), jnp.array([0.5, 2.0]), jnp.zeros(1), jnp.tile(x[:, 0], (3, 1)), key=KEY
    ),
    "clip_cotangent": lambda c, p, x: jax.grad(lambda p: loss(unroll(clip_cotangent(c, 0.1), p, x)[1]))(p),
}
PENALTIES = {"omega": omega, "flossing": flossing, "jacobian": jacobian, "orthogonal": orthogonal}
MEASURES = DIAGNOSTICS | {
    name: lambda c, p, x, f=f: jax.value_and_grad(lambda p: f(c, p, x, KEY))(p) for name, f in PENALTIES.items()
}


@functools.cache
def drawn():
    return odd().init(KEY, D), jax.random.normal(jax.random.key(1), (T, B, D))


def measured(name, cell):
    found = jax.device_get(jax.jit(lambda p, x: MEASURES[name](cell, p, x))(*drawn()))
    return {str(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(found) if "clock" not in str(path)}


@pytest.mark.parametrize("name", MEASURES)
def test_a_carry_may_be_any_pytree_of_any_arrays(name):
    found = measured(name, odd())
    assert found
    for path, leaf in found.items():
        assert np.all(np.isfinite(leaf)) or "timescale" in path or "log" in path, path


@pytest.mark.parametrize("name", ["omega", "jacobian", "flossing", "record_units", "diagnose"])
def test_a_clock_that_nothing_reads_changes_no_measure(name):
    found, expected = measured(name, odd()), measured(name, odd(clock=False))
    assert found.keys() == expected.keys()
    for path, leaf in found.items():
        np.testing.assert_allclose(leaf, expected[path], rtol=1e-4, atol=1e-6, err_msg=path)


def test_diagnose_judges_it():
    found = judge(*jax.device_get(jax.jit(lambda p, x: evidence(odd(), p, x))(*drawn())))
    assert found.verdict in VERDICTS and str(found)


@pytest.mark.parametrize(
    ("carry", "names"),
    [
        (0, ("h",)),
        (LSTMCarry(0, 0), ("c", "h")),
        (odd().initial_carry(None, ()), ("M", "clock", "q", "v")),
        ((0, 0), ("0", "1")),
        ([0, 0, 0], ("0", "1", "2")),
        (LSTMCarry({"a": 0, "b": (0, 0)}, 0), ("c.a", "c.b.0", "c.b.1", "h")),
    ],
)
def test_the_parts_of_any_carry_have_names(carry, names):
    """A pair is two directions only where the stack has them."""
    assert carry_names(carry) == names
    flat = [name.replace(".", "_") for name in names]
    assert layer_names([carry, 0]) == (*(f"layer0.{n}" for n in flat), "layer1.h")
    two = layer_names([(carry, carry)], bidirectional=True)
    assert two == (*(f"layer0.forward.{n}" for n in flat), *(f"layer0.backward.{n}" for n in flat))
    row = outputs.flow_row({"step": 3, "flow": jax.tree.map(lambda _: np.zeros(2), (carry,))})
    assert list(row) == ["step", *(f"layer0.{n}" for n in flat)]


def test_a_layer_in_bfloat16_starts_from_the_kinds_of_numbers_that_the_cell_has():
    layer = RNN(odd(), D, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    kinds = {name: leaf.dtype for name, leaf in layer.initial_carry((B,)).items()}
    assert kinds == {"M": jnp.bfloat16, "clock": jnp.int32, "q": jnp.complex64, "v": jnp.bfloat16}
    assert jax.eval_shape(lambda x: layer(x, initial_carry=layer.initial_carry((B,))), jnp.ones((B, T, D))).shape
