"""Newton's method in time against a loop over steps, in values, gradients and what its papers claim."""

import csv
import functools
from types import SimpleNamespace

import chex
import jax
import jax.export
import jax.numpy as jnp
import newton_steps as launcher
import numpy as np
import pytest
from oracles import jit, normal

from rnnjax.cells import CELLS, gru, lru, lstm, rnn
from rnnjax.diagnostics.newton_steps import newton_steps
from rnnjax.engine import newton as newton_module
from rnnjax.engine.newton import newton_of, newton_solve
from rnnjax.engine.unroll import unroll
from rnnjax.gradients.penalties import clip_cotangent
from rnnjax.types import Cell

H, D, B = 3, 2, 2
KINDS = ("newton", "newton:diagonal")


def problem(cell, T, move=0.3, seed=0):
    """(params, xs) in the default precision, the params moved off their start."""
    params = cell.init(jax.random.key(seed), D)
    moved = {n: a + move * normal(*a.shape, seed=i).astype(a.dtype) for i, (n, a) in enumerate(params.items())}
    return jax.tree.map(lambda a: a.astype(float), moved), jnp.asarray(normal(T, B, D, seed=9))


def solved(cell, params, xs, **options):
    weights = cell.weights(params)
    carry = cell.initial_carry(weights, xs.shape[1:-1])
    return newton_solve(cell, weights, carry, cell.project(weights, xs), **options)


@pytest.fixture(params=["elsewhere", pytest.param("cpu", marks=pytest.mark.slow)])
def platform(request, monkeypatch):
    """What is chosen when a program is lowered: both ways, on this machine; the others take that of a CPU, too."""
    if request.param == "elsewhere":
        chosen = lambda *args, cpu, default: default(*args)  # noqa: E731
        monkeypatch.setattr(jax.lax, "platform_dependent", chosen)
    return request.param


@pytest.mark.parametrize(
    ("x64", "tolerance"), [(True, 1e-10), pytest.param(False, 1e-5, marks=pytest.mark.slow)], ids=["float64", "float32"]
)
@pytest.mark.parametrize(
    "name", ["gru", *(pytest.param(name, marks=pytest.mark.slow) for name in ("rnn", "lstm", "lem", "lru"))]
)
def test_newton_is_the_scan(name, x64, tolerance, platform):
    """Values, and gradients by parameters, inputs and carry; by both kinds, whose gradients are exact."""
    cell = CELLS[name](H)

    def run(method, params, xs, carry):
        def loss(params, xs, carry):
            last, ys = unroll(cell, params, xs, carry, method=method)
            return jnp.sum(jnp.sin(ys) * jnp.cos(jnp.arange(len(xs)))[:, None, None]), (last, ys)

        return jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(params, xs, carry)

    with jax.enable_x64(x64):
        params, xs = problem(cell, 70)
        carry = jax.tree.map(lambda a: a + 0.3, cell.initial_carry(cell.weights(params), (B,)))
        scan, *others = jit(lambda *p: [run(m, *p) for m in ("scan", *KINDS)])(params, xs, carry)
    for other in others:
        chex.assert_trees_all_close(other, scan, rtol=tolerance, atol=tolerance)


def test_against_a_loop_in_numpy():
    """An Elman network over 256 steps, its equation and its states' sensitivity to the start written by hand."""
    with jax.enable_x64(True):
        cell = rnn(H)
        params, xs = problem(cell, 256)
        h, S, hs = np.full((B, H), 0.2), np.stack([np.eye(H)] * B), []
        for x in xs:
            h = np.tanh(x @ params["W_x"] + h @ params["W_h"] + params["b"])
            S = np.einsum("bi,ij,bjk->bik", 1 - h * h, params["W_h"].T, S)
            hs.append(h)
        run = functools.partial(unroll, cell, params, xs, method="newton")
        (last, ys), start = jit(lambda h0: (run(h0), jax.jacrev(lambda h0: run(h0)[0])(h0)))(np.full((B, H), 0.2))
    chex.assert_trees_all_close((last, ys), (h, np.stack(hs)), rtol=1e-10, atol=1e-10)
    for b in range(B):
        np.testing.assert_allclose(start[b, :, b], S[b], rtol=0, atol=1e-10)


def test_over_4096_steps(platform):
    """A number of steps that grows slowly with T, and float32 that stays as near as the scan is to itself."""
    cell = lstm(2)
    params, xs = problem(cell, 4096)
    found = jit(lambda: solved(cell, params, xs))()
    assert found.converged and found.iterations <= 8
    _, ys = jit(lambda: unroll(cell, params, xs, method="scan"))()
    np.testing.assert_allclose(found.carries.h, ys, rtol=0, atol=1e-5)


def test_one_step_where_the_cell_is_linear(platform):
    """Of real numbers, and of complex ones, which are two numbers of a unit."""
    with jax.enable_x64(True):
        for cell in (CELLS["mingru"](H), lru(H)):
            params, xs = problem(cell, 50)
            found = jit(lambda c=cell, p=params, xs=xs: [solved(c, p, xs, kind=k) for k in ("full", "diagonal")])()
            assert [(bool(f.converged), int(f.iterations)) for f in found] == [(True, 1)] * 2


CHAOS = Cell(  # the logistic map
    lambda key, D: {},
    lambda weights, shape: jnp.full((*shape, 2), 0.3),
    lambda weights, h, z: 3.99 * h * (1 - h) + 0 * z[..., :1],
)


@pytest.mark.parametrize("kind", ["full", "diagonal"])
def test_the_first_states_are_exact_one_a_step(kind, platform):
    """Even where perturbations grow: i states after i steps, to the last digit but for compilation, and then all."""
    T = 40
    with jax.enable_x64(True):
        xs = jnp.zeros((T, B, 1))
        _, exact = unroll(CHAOS, {}, xs, method="scan")
        run = jit(lambda i: solved(CHAOS, {}, xs, kind=kind, max_iterations=i))
        for i in (0, 1, 5, 17):
            found = run(i)
            assert found.iterations == i and not found.converged
            np.testing.assert_allclose(found.carries[: i + 1], exact[: i + 1], rtol=0, atol=1e-14 * 4.0**i)
        assert run(T + 1).converged
        assert not np.allclose(run(5).carries, exact, atol=1e-3)


def test_units_that_see_only_themselves_are_all_there_is(platform):
    """The same iterates, not only the same solution, for units of one number and of two."""

    def step(weights, h, z):
        y, v = h
        v = jnp.tanh(weights["a"] * v + weights["b"] * y + z)
        return 0.5 * y + jnp.sin(v), v

    pair = Cell(None, lambda weights, shape: 2 * (jnp.zeros((*shape, H)),), step)
    alone = Cell(None, lambda w, shape: jnp.zeros((*shape, H)), lambda w, h, z: jnp.tanh(w["a"] * h + z))
    with jax.enable_x64(True):
        weights, xs = {"a": jnp.asarray(normal(H)), "b": jnp.asarray(normal(H))}, jnp.asarray(normal(60, B, H))
        for cell in (alone, pair):
            full, diagonal = jit(
                lambda c=cell: [solved(c, weights, xs, kind=k, max_iterations=2) for k in ("full", "diagonal")]
            )()
            assert full.residual > 1e-9  # on the way
            chex.assert_trees_all_close(diagonal, full, rtol=1e-9, atol=1e-12)


def test_a_chaotic_network_falls_back_on_the_scan(platform, monkeypatch):
    """Gain 3 in 24 units: not solved in 3 steps, so that values and gradients are those of the scan."""
    cell = rnn(24, gain=3.0)
    monkeypatch.setattr(newton_module, "LIMIT", 3)
    with jax.enable_x64(True):
        params, xs = problem(cell, 12, move=0.0)

        def run(method):
            return jax.value_and_grad(lambda p: jnp.sum(unroll(cell, p, xs[:, :1], method=method)[1]))(params)

        found, (scan, *others) = jit(
            lambda: (solved(cell, params, xs, max_iterations=3), [run(m) for m in ("scan", *KINDS)])
        )()
    assert not found.converged and found.residual > 1e-3
    for other in others:
        chex.assert_trees_all_close(other, scan, rtol=1e-9, atol=1e-9)


def test_whatever_the_correction_is_the_first_states_are_exact():
    """Even one that makes no sense and never ends."""
    T = 30
    exact = unroll(CHAOS, {}, jnp.zeros((T, 1)), method="scan")[1]

    def advance(s):
        before = jnp.concatenate([jnp.full((1, 2), 0.3), s[:-1]])
        return 3.99 * before * (1 - before)

    for i in (4, T + 1):
        found = jit(lambda i=i: newton_module._iterate(advance, lambda s, r: 3 + jnp.sin(7 * s), 0 * exact, i))()
        assert found.converged == (i > T)
        np.testing.assert_allclose(found.carries[: min(i + 1, 9)], exact[: min(i + 1, 9)], rtol=1e-3)


def test_what_is_not_finite_on_the_way_does_no_harm(platform):
    """A step that overflows away from its trajectory, at a guess far off."""
    cell = Cell(lambda key, D: {}, lambda w, shape: jnp.zeros((*shape, 1)), lambda w, h, z: jnp.exp(-jnp.exp(h * z)))
    zs = jnp.full((60, 1), 3.0)
    found = jit(lambda: solved(cell, {}, zs, guess=jnp.full((60, 1), 60.0)))()
    assert found.converged and found.iterations < 30
    np.testing.assert_allclose(found.carries, unroll(cell, {}, zs, method="scan")[1], rtol=1e-5)


def test_states_that_are_no_numbers_are_no_solution():
    """Nor among many that are, of which a reduction may take the largest."""
    for wrong in (slice(None), slice(100, 101)):
        nan = jnp.zeros((20000, 3)).at[wrong].set(jnp.nan)
        found = jit(lambda nan=nan: newton_module._iterate(lambda s: s + nan, lambda s, r: r, 0 * nan + 1, 3))()
        assert not found.converged and found.iterations == 3 and found.residual == jnp.inf


def test_a_clock_is_stepped_and_what_it_is_moved_by_is_scanned():
    """An integer part has no derivative: alone it is found beforehand; moved by real parts, all is scanned."""
    cell = CELLS["phased_lstm"](H)
    with jax.enable_x64(True):
        params, xs = problem(cell, 40)
        last, _ = jit(lambda: unroll(cell, params, xs, method="scan"))()
        found = jit(lambda: solved(cell, params, xs))()
        chex.assert_trees_all_close(jax.tree.map(lambda a: a[-1], found.carries), last, rtol=1e-10, atol=1e-12)
        assert found.iterations < 20

        def step(weights, carry, z):
            h, count = carry
            return jnp.tanh(h + z), count + (h > 0.2)

        counting = Cell(lambda key, D: {}, lambda w, s: (jnp.zeros((*s, H)), jnp.zeros((*s, H), int)), step)
        counting = counting._replace(output=lambda w, carry, z: carry[0] * carry[1])
        xs = normal(9, B, H)
        scan, newton = (unroll(counting, {}, xs, method=m) for m in ("scan", "newton"))
        chex.assert_trees_all_equal(newton, scan)
        with pytest.raises(ValueError, match="an integer part of the carry depends on its real parts"):
            solved(counting, {}, xs)


def test_a_clipped_gradient_and_a_traced_option_are_the_scans():
    params, xs = problem(gru(H), 8)

    def loss(params, gain, method):
        cell = clip_cotangent(gru(H), 0.1 * gain)
        return jnp.sum(unroll(cell, params, xs, method=method)[1])

    scan, newton = (jax.jit(jax.grad(loss, (0,)), static_argnums=2)(params, 1.0, m) for m in ("scan", "newton"))
    chex.assert_trees_all_close(newton, scan, rtol=1e-6)


@pytest.mark.slow
def test_segments_resets_lanes_and_the_last_output_alone():
    """Whatever `unroll` does around a runner."""
    cell, T = lstm(H), 7
    resets = np.zeros((T, B), bool)
    resets[3, 0] = resets[5] = True
    ways = ({"segments": 2}, {"resets": resets, "reverse": True}, {"outputs": "last", "lengths": np.array([4, 7])})

    def run(method, params, xs):
        def loss(params, xs):
            return sum(jnp.sum(jnp.sin(unroll(cell, params, xs, method=method, **way)[1])) for way in ways)

        return jax.vmap(jax.value_and_grad(loss, (0, 1)), (None, 0))(params, xs)

    with jax.enable_x64(True):
        params, xs = problem(cell, T)
        scan, newton = jit(lambda *p: [run(m, *p) for m in ("scan", "newton")])(params, jnp.stack([xs, 2 * xs]))
    chex.assert_trees_all_close(newton, scan, rtol=1e-10, atol=1e-10)


def test_it_is_lowered_for_accelerators_with_matrices_there_alone():
    """Step by step on a CPU; elsewhere the matrices of all steps, `[T, B, n, n]`, and for the diagonal none."""
    cell = gru(H)
    params, xs = jax.eval_shape(lambda: cell.init(jax.random.key(0), D)), jax.ShapeDtypeStruct((16, B, D), jnp.float32)
    for method, matrices in (("newton", True), ("newton:diagonal", False)):
        run = jax.jit(jax.grad(lambda p, xs, m=method: jnp.sum(unroll(cell, p, xs, method=m)[1])))
        for platform in ("cpu", "cuda", "tpu"):
            module = jax.export.export(run, platforms=(platform,))(params, xs).mlir_module()
            assert (f"tensor<16x{B}x{H}x{H}xf32>" in module) == (matrices and platform != "cpu")


def test_kinds_that_there_are_not():
    for refused in (lambda: newton_of("half"), lambda: solved(gru(H), *problem(gru(H), 2), kind="half")):
        with pytest.raises(ValueError, match="kind of Newton's method is 'half'; allowed: 'full', 'diagonal'"):
            refused()


def test_steps_and_exponent_of_a_cell_whose_answer_is_known():
    """h_t = a h_{t-1} + x_t: one step, log a."""
    cell = Cell(lambda key, D: {}, lambda w, shape: jnp.zeros((*shape, 2)), lambda w, h, x: 0.7 * h + x)
    found = jit(lambda: newton_steps(cell, {}, jnp.asarray(normal(40, 2))))()
    assert found.converged and found.iterations == 1 and found.error < 1e-6
    np.testing.assert_allclose(found.exponent, np.log(0.7), rtol=1e-5)


@pytest.mark.parametrize("study", ["gains", "observers"])
def test_the_study_runs_and_finds_what_the_paper_does(study, tmp_path, monkeypatch, capsys):
    """Few steps where perturbations shrink: an observer of Lorenz's system takes 2, the system itself does not end."""
    monkeypatch.setattr(launcher, "SYSTEMS", {"Lorenz": launcher.SYSTEMS["Lorenz"]})
    for name, value in {"STUDY": study, "QUICK": True, "OUT": str(tmp_path)}.items():
        monkeypatch.setattr(launcher, name, SimpleNamespace(value=value), raising=False)
    assert launcher.main(None) == 0
    lines = list(csv.DictReader((tmp_path / "newton_steps.csv").open()))
    steps = {line[next(iter(line))]: int(line["iterations"]) for line in lines}
    if study == "observers":
        assert steps == {"Lorenz, alone": launcher.GIVE_UP, "Lorenz, observed": 2}
    else:
        assert steps["0.50"] <= 4 < 10 < steps["2.00"] and (tmp_path / "newton_steps_dark.png").stat().st_size
        assert all(line["converged"] == "True" and float(line["error"]) < 1e-6 for line in lines)
    assert "Lyapunov exponent" in capsys.readouterr().out
