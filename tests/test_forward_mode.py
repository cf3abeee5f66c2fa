"""RTRL, SnAp-1, UORO and truncated BPTT against closed BPTT, which is `jax.grad` of a Python loop here."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnnjax.cells import CELLS
from rnnjax.gradients.compare import compare_gradients
from rnnjax.gradients.methods import gradient, gradient_of
from rnnjax.gradients.penalties import clip_cotangent
from rnnjax.types import Cell

T, B, D, H = 4, 2, 2, 3
KEY = jax.random.key(0)


def setup(cell, T=T, B=B):
    keys = jax.random.split(jax.random.key(1), 3)
    params = jax.tree.map(lambda p: p.astype(float) + 0.1, jax.jit(cell.init, static_argnums=1)(keys[0], D))
    weights = jax.random.normal(keys[2], (T, 1, 1))
    return params, jax.random.normal(keys[1], (T, B, D)), weights


def loop(cell, params, xs, carry=None, lengths=None):
    """(last carry, ys) without `unroll`."""
    weights = cell.weights(params)
    carry = cell.initial_carry(weights, xs.shape[1:-1]) if carry is None else carry
    ys = []
    for t, x in enumerate(xs):
        z = cell.project(weights, x)
        new = cell.step(weights, carry, z)
        y = cell.output(weights, new, z)
        if lengths is not None:
            valid = (t < lengths)[:, None]
            new = jax.tree.map(lambda a, b, valid=valid: jnp.where(valid, a, b), new, carry)
            y = jnp.where(valid, y, 0)
        carry = new
        ys.append(y)
    return carry, jnp.stack(ys)


def square(ys, weights):
    ys = ys.reshape(*ys.shape[:2], -1)
    return jnp.sum(weights * jnp.abs(ys) ** 2 + jnp.sin(jnp.real(ys)))


def assert_close(a, b, **tolerance):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


@pytest.mark.parametrize("name", CELLS)
def test_rtrl_is_bptt(name):
    with jax.enable_x64(True):
        cell = CELLS[name](H)
        params, xs, weights = setup(cell)

        @jax.jit
        def both(params, xs):
            exact = jax.grad(lambda p: square(loop(cell, p, xs)[1], weights))(params)
            return exact, gradient("rtrl", cell, params, xs, lambda ys: square(ys, weights))[1]

        exact, forward = both(params, xs)
        assert_close(forward, exact, rtol=1e-6, atol=1e-9)


class Clocked(NamedTuple):
    trace: dict
    clock: jax.Array


def clocked(n):
    """A user's cell: a nested carry, a complex leaf and an integer clock; no gates."""

    def init(key, d):
        a, b = jax.random.split(key)
        return {
            "A": jax.random.normal(a, (n, n)) / 2,
            "B": jax.random.normal(b, (d, n)),
            "theta": jnp.arange(1.0, n + 1),
        }

    def initial_carry(weights, batch):
        return Clocked(
            {"h": jnp.zeros((*batch, n)), "q": jnp.zeros((*batch, n), complex)}, jnp.zeros((*batch, 1), jnp.int32)
        )

    def step(params, carry, z):
        q = jnp.exp(1j * params["theta"]) * 0.9 * carry.trace["q"] + z
        h = jnp.tanh(carry.trace["h"] @ params["A"] + jnp.real(q) + 0.1 * carry.clock)
        return Clocked({"h": h, "q": q}, carry.clock + 1)

    def output(params, carry, z):
        return carry.trace["h"] + jnp.imag(carry.trace["q"]) * params["theta"]

    return Cell(init, initial_carry, step, lambda params, x: x @ params["B"], output)


@pytest.mark.parametrize("method", ["rtrl", "tbptt:4", "tbptt:9"])
def test_exact_methods_serve_a_users_cell_lengths_inputs_and_carry(method):
    with jax.enable_x64(True):
        cell = clocked(H) if method == "rtrl" else CELLS["lstm"](H)
        params, xs, weights = setup(cell, B=3)
        lengths = jnp.array([4, 0, 2])
        carry = jax.tree.map(lambda a: a + jnp.asarray(0.3).astype(a.dtype), cell.initial_carry(params, (3,)))

        def loss(run, params, xs, carry, **options):
            last, ys = run(cell, params, xs, carry, **options)
            ends = [jnp.sum(jnp.real(a) ** 2 + jnp.imag(a)) for a in jax.tree.leaves(last)]
            return square(ys, weights) + sum(ends)

        floats, structure = jax.tree.flatten(carry)

        def of(run):
            def f(params, xs, floats):
                leaves = [f if jnp.issubdtype(a.dtype, jnp.inexact) else a for f, a in zip(floats, rest, strict=True)]
                return loss(run, params, xs, structure.unflatten(leaves), lengths=lengths)

            rest = floats
            shown = [a if jnp.issubdtype(a.dtype, jnp.inexact) else jnp.zeros(()) for a in floats]
            return jax.grad(f, (0, 1, 2))(params, xs, shown)

        exact, ours = jax.jit(lambda: (of(loop), of(gradient_of(method))))()
        assert_close(ours, exact, rtol=1e-6, atol=1e-9)


def test_tbptt_cuts_from_the_end():
    """A loss at the last step reaches exactly K steps back, by the input's gradient."""
    cell = CELLS["rnn"](H)
    params, xs, _ = setup(cell, T=7)
    for K, method in ((1, "tbptt:1"), (3, "tbptt:3")):
        run = gradient_of(method)
        dxs = jax.jit(jax.grad(lambda xs, run=run: jnp.sum(run(cell, params, xs, outputs="last")[1] ** 2)))(xs)
        reached = np.abs(np.asarray(dxs)).sum((1, 2)) > 0
        np.testing.assert_array_equal(reached, np.arange(7) >= 7 - K)


@pytest.mark.parametrize("K", [2, 3])
def test_tbptt_cuts_from_each_sequences_own_end(K):
    """A padded batch has the gradient of its sequences run one by one, however much padding there is."""
    cell = CELLS["rnn"](H)
    params, xs, _ = setup(cell, T=5, B=3)
    lengths = (5, 3, 0)
    run = gradient_of(f"tbptt:{K}")

    def loss(params, xs, **options):
        return jnp.sum(jnp.sin(run(cell, params, xs, outputs="last", **options)[1]))

    @jax.jit
    def both(params):
        alone = [jax.grad(loss)(params, xs[:n, b]) for b, n in enumerate(lengths) if n]
        padded = jnp.pad(xs, ((0, 1), (0, 0), (0, 0)))
        batch = [jax.grad(loss)(params, x, lengths=jnp.array(lengths)) for x in (xs, padded)]
        single = jax.grad(loss)(params, padded[:, 1], lengths=jnp.array(3))
        return jax.tree.map(lambda *g: sum(g), *alone), batch, alone[1], single

    expected, batch, one, single = both(params)
    assert_close(batch, [expected, expected], rtol=1e-4, atol=1e-6)
    assert_close(single, one, rtol=1e-4, atol=1e-6)


def embedded(n):
    """A cell that looks its input up: x is an integer."""

    def init(key, d):
        a, b = jax.random.split(key)
        return {"E": jax.random.normal(a, (3, n)), "u": jax.random.uniform(b, (n,))}

    return Cell(
        init,
        lambda weights, batch: jnp.zeros((*batch, n)),
        lambda params, h, z: jnp.tanh(z + params["u"] * h),
        lambda params, x: params["E"][x[..., 0]],
    )


def linear_complex(n):
    """h_t = lambda h_{t-1} + x_t, lambda complex (LRU)."""
    return Cell(
        lambda key, d: {"lambda": 0.8 * jnp.exp(1j * jnp.arange(1.0, n + 1)), "B": jax.random.normal(key, (d, n))},
        lambda weights, batch: jnp.zeros((*batch, n), complex),
        lambda params, h, z: params["lambda"] * h + z,
        lambda params, x: x @ params["B"],
        lambda params, h, z: h.real + h.imag**2,
    )


PLAIN, X64 = jnp.float32, jnp.float64
INTEGERS = jnp.array([[[0]], [[2]], [[0]], [[1]]])


@pytest.mark.parametrize("method", ["rtrl", "snap1", "uoro"])
@pytest.mark.parametrize(
    ("make", "params_dtype", "xs"),
    [
        (CELLS["rnn"], jnp.bfloat16, jnp.ones((T, 1, D))),
        (CELLS["rnn"], X64, jnp.ones((T, 1, D), int)),
        (embedded, PLAIN, INTEGERS),
        (linear_complex, None, jnp.ones((T, 1, D))),
    ],
    ids=["bfloat16 params", "float64 params, integer xs", "an embedding", "complex params"],
)
def test_forward_gradients_take_what_bptt_takes(method, make, params_dtype, xs):
    with jax.enable_x64(params_dtype == X64):
        cell = make(2)
        params = jax.tree.map(lambda p: p if params_dtype is None else p.astype(params_dtype), cell.init(KEY, D))

        @jax.jit
        def both(params):
            def of(method):
                return gradient(method, cell, params, xs, lambda ys: jnp.sum(jnp.sin(ys).astype(float)), key=KEY)[1]

            return of("bptt"), of(method)

        exact, found = both(params)
        assert jax.tree.map(jnp.result_type, found) == jax.tree.map(jnp.result_type, exact)
        if method == "rtrl" or (method == "snap1" and make is embedded):  # where a unit sees its own past alone
            tolerance = 0.03 if params_dtype == jnp.bfloat16 else 1e-5
            found, exact = jax.tree.map(lambda a: np.asarray(a, complex), (found, exact))
            assert_close(found, exact, rtol=tolerance, atol=tolerance)
        assert all(np.any(np.asarray(g, complex) != 0) for g in jax.tree.leaves(found))


def indrnn(n):
    """h_t = tanh(x_t W + u h_{t-1} + b): unit k sees its own past alone (Li et al. 2018)."""

    def init(key, d):
        a, b = jax.random.split(key)
        return {"W": jax.random.normal(a, (d, n)), "u": jax.random.uniform(b, (n,)), "b": jnp.zeros(n)}

    return Cell(
        init,
        lambda weights, batch: jnp.zeros((*batch, n)),
        lambda params, h, z: jnp.tanh(z + params["u"] * h),
        lambda params, x: x @ params["W"] + params["b"],
    )


@pytest.mark.parametrize(("make", "equal"), [(indrnn, True), (CELLS["rnn"], False)])
def test_snap1_is_rtrl_for_a_diagonal_cell_and_not_for_a_dense_one(make, equal):
    with jax.enable_x64(True):
        cell = make(H)
        params, xs, weights = setup(cell)
        xs = xs.at[2].set(0)  # a zero input must not hide what W_x did before

        @jax.jit
        def both(params):
            exact = jax.grad(lambda p: square(loop(cell, p, xs)[1], weights))(params)
            return exact, gradient("snap1", cell, params, xs, lambda ys: square(ys, weights))[1]

        exact, ours = both(params)
        error = sum(float(jnp.sum((ours[name] - exact[name]) ** 2)) for name in exact)
        assert (error < 1e-18) == equal, error


def test_snap1_of_a_dense_rnn_keeps_each_units_own_influence():
    """Menick et al.: for a tanh RNN, row k of M holds unit k's own weights; J is then read on its diagonal alone."""
    with jax.enable_x64(True):
        cell = CELLS["rnn"](H)
        params, xs, weights = setup(cell, B=1)
        hs = np.concatenate([np.zeros((1, H)), np.asarray(loop(cell, params, xs)[1])[:, 0]])
        W, expected, trace = np.asarray(params["W_h"]), np.zeros((H, H)), np.zeros((H, H))
        for t in range(1, T + 1):
            slope = 1 - hs[t] ** 2
            trace = slope * (hs[t - 1][:, None] + np.diag(W) * trace)  # dh_k/dW_{jk}
            expected += trace * (2 * float(weights[t - 1, 0, 0]) * hs[t] + np.cos(hs[t]))
        run = jax.jit(lambda p: gradient("snap1", cell, p, xs, lambda ys: square(ys, weights))[1])
        np.testing.assert_allclose(run(params)["W_h"], expected, rtol=1e-9)


def test_uoro_is_unbiased_for_parameters_and_inputs():
    with jax.enable_x64(True):
        cell = CELLS["gru_cho"](2)
        params, xs, weights = setup(cell)
        lengths = jnp.array([4, 3])

        def grads(run, **options):
            f = lambda p, x: square(run(cell, p, x, lengths=lengths, **options)[1], weights)  # noqa: E731
            return jax.grad(f, (0, 1))(params, xs)

        exact = jax.tree.leaves(jax.jit(lambda: grads(loop))())
        draws = 4000
        keys = jax.random.split(jax.random.key(2), draws)
        drawn = jax.jit(lambda: jax.lax.map(lambda k: grads(gradient_of("uoro"), key=k), keys, batch_size=500))()
        z = []
        for a, b in zip(jax.tree.leaves(drawn), exact, strict=True):
            error = jnp.std(a, axis=0, ddof=1) / np.sqrt(draws)
            z.append(((jnp.mean(a, axis=0) - b) / jnp.maximum(error, 1e-9)).ravel())
        z = np.concatenate(z)
        assert np.abs(z).max() < 4.2, z  # the largest of 46 normal numbers
        assert np.sqrt(np.mean(z**2)) < 1.4, z


def test_compare_gradients():
    cell = CELLS["rnn"](H)
    params, xs, _ = setup(cell, T=6)
    methods = ("tbptt:1", "tbptt:3", "tbptt:6", "rtrl", "uoro")

    @jax.jit
    def run(params, xs, key):
        return compare_gradients(cell, params, xs, lambda ys: jnp.mean(ys[-1] ** 2), key, methods=methods, draws=8)

    error = jax.tree.map(np.asarray, run(params, xs, jax.random.key(0)))
    assert error.bias[0] > error.bias[1] > 1e-3
    np.testing.assert_allclose(error.cosine[2:4], 1, atol=1e-5)
    np.testing.assert_allclose(error.norm_ratio[2:4], 1, atol=1e-5)
    np.testing.assert_allclose(error.bias[2:4], 0, atol=1e-5)
    np.testing.assert_array_equal(error.draw_variance[:4], 0)
    assert error.draw_variance[4] > 0.01
    # By hand: gradients of single sequences, and their sample variance.
    single = jax.jit(jax.grad(lambda p, x: jnp.mean(loop(cell, p, x)[1][-1] ** 2)))
    g = np.stack([jax.flatten_util.ravel_pytree(single(params, xs[:, b : b + 1]))[0] for b in range(B)])
    variance = np.sum(np.var(g, axis=0, ddof=1)) / np.sum(g.mean(0) ** 2)
    np.testing.assert_allclose(error.batch_variance[3], variance, rtol=1e-4)


def test_errors_name_what_is_allowed():
    with pytest.raises(ValueError, match="unknown gradient 'rtlr'; allowed: bptt, tbptt:K"):
        gradient_of("rtlr")
    for bad in ("tbptt", "tbptt:0", "rtrl:3"):
        with pytest.raises(ValueError, match="unknown gradient"):
            gradient_of(bad)
    cell = CELLS["rnn"](H)
    params, xs, _ = setup(cell)
    with pytest.raises(ValueError, match="cotangent_clip=True clips a backward pass, and gradient='rtrl' has none"):
        gradient_of("rtrl")(clip_cotangent(cell, 0.1), params, xs)
    with pytest.raises(ValueError, match="pass key="):
        gradient_of("uoro")(cell, params, xs)
