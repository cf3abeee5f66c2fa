"""Cells of one state and few gates: the papers' equations in NumPy, and what the papers say of them."""

from pathlib import Path

import jax
import numpy as np
import pytest
from oracles import absolute, check_equation, parts, relu, sigma

from rnnjax.cells import (
    RANCarry,
    SCRNCarry,
    atr,
    brc,
    cfn,
    fastgrnn,
    fastrnn,
    gru_cho,
    indrnn,
    light_ru,
    ligru,
    mi_gru,
    mi_rnn,
    mut1,
    mut2,
    mut3,
    nbrc,
    ran,
    rhn,
    rnn,
    scrn,
    star,
)
from rnnjax.cells.check import check_cell
from rnnjax.engine.unroll import unroll

H = 4


def independent(bound):
    """Li et al. (2018): column form, unit by unit; u beyond the bound comes back as far as it went out."""

    def step(p, h, x):
        u = [v if abs(v.real) <= bound else np.sign(v.real) * (2 * bound - absolute(v)) for v in p["u"]]
        rows = [relu(p["W_x"][:, k] @ x.T + u[k] * h[:, k] + p["b"][k]) for k in range(H)]
        return np.stack(rows, axis=1)

    return step


def fast(p, h, x):
    """Kusupati et al. (2018)."""
    candidate = np.tanh(p["W_x"].T @ x.T + p["W_h"].T @ h.T + p["b"][:, None])
    return (sigma(p["alpha"]) * candidate + sigma(p["beta"]) * h.T).T


def fast_gated(p, h, x):
    """Kusupati et al. (2018): W and U serve both."""
    z = sigma(x @ p["W_x"] + h @ p["W_h"] + p["b_z"])
    candidate = np.tanh(x @ p["W_x"] + h @ p["W_h"] + p["b_n"])
    return (sigma(p["zeta"]) * (1 - z) + sigma(p["nu"])) * candidate + z * h


def light(p, h, x):
    """Ravanelli et al. (2018), without batch norm."""
    (W_z, W_a), (U_z, U_a), (b_z, b_a) = (parts(p, name, 2) for name in ("W_x", "W_h", "b"))
    z = sigma(x @ W_z + h @ U_z + b_z)
    return z * h + (1 - z) * relu(x @ W_a + h @ U_a + b_a)


def bistable(p, h, x):
    """Vecoven et al. (2021): a and c see the unit itself, or all of them."""
    (W_a, W_c, W), (w_a, w_c), (b_a, b_c) = parts(p, "W_x", 3), parts(p, "W_h", 2), parts(p, "b", 2)
    a_of_h, c_of_h = (h @ w_a, h @ w_c) if w_a.ndim == 2 else (w_a * h, w_c * h)
    a = 1 + np.tanh(x @ W_a + a_of_h + b_a)
    c = sigma(x @ W_c + c_of_h + b_c)
    return c * h + (1 - c) * np.tanh(x @ W + a * h)


def stackable(p, h, x):
    """Turkoglu et al. (2019)."""
    (W_z, W_k), (b_z, b_k) = parts(p, "W_x", 2), parts(p, "b", 2)
    k = sigma(x @ W_k + h @ p["W_h"] + b_k)
    return np.tanh((1 - k) * h + k * np.tanh(x @ W_z + b_z))


def additive(p, carry, x):
    """Lee et al. (2017): the content is W_c x, and gates see what is shown."""
    (W_i, W_f, W_c), (U_i, U_f), (b_i, b_f) = parts(p, "W_x", 3), parts(p, "W_h", 2), parts(p, "b", 2)
    i = sigma(x @ W_i + carry.h @ U_i + b_i)
    f = sigma(x @ W_f + carry.h @ U_f + b_f)
    c = i * (x @ W_c) + f * carry.c
    return RANCarry(c, np.tanh(c))


def chaos_free(p, h, x):
    """Laurent & von Brecht (2016)."""
    (V_theta, V_eta, W), (U_theta, U_eta), (b_theta, b_eta) = parts(p, "W_x", 3), parts(p, "W_h", 2), parts(p, "b", 2)
    theta = sigma(h @ U_theta + x @ V_theta + b_theta)
    eta = sigma(h @ U_eta + x @ V_eta + b_eta)
    return theta * np.tanh(h) + eta * np.tanh(x @ W)


def twin_gated(p, h, x):
    """Zhang et al. (2018), column form."""
    P, Q = p["W_x"].T @ x.T + p["b"][:, None], p["W_h"].T @ h.T
    return (sigma(P + Q) * P + sigma(P - Q) * h.T).T


def light_recurrent(p, h, x):
    """Ye et al. (2024)."""
    W_f, W_n = parts(p, "W_x", 2)
    f = sigma(x @ W_f + h @ p["W_h"] + p["b"])
    return h + f * (np.tanh(x @ W_n) - h)


def highway(p, s, x):
    """Zilly et al. (2016), with c = 1 - t."""
    W_H, W_T = parts(p, "W_x", 2)
    for layer, (R, b) in enumerate(zip(p["R"], p["b"], strict=True)):
        (R_H, R_T), (b_H, b_T) = np.split(R, 2, axis=-1), np.split(b, 2)
        seen = x if layer == 0 else np.zeros_like(x)
        h = np.tanh(seen @ W_H + s @ R_H + b_H)
        t = sigma(seen @ W_T + s @ R_T + b_T)
        s = h * t + s * (1 - t)
    return s


def mutant(number):
    """Jozefowicz et al. (2015), the three equations as the paper has them, x itself in the first two."""

    def step(p, h, x):
        W = iter(parts(p, "W_x", 3 if number == 3 else 2))
        U = iter(parts(p, "W_h", 2 if number == 1 else 3))
        b_z, b_r, b_n = parts(p, "b", 3)
        z = x @ next(W) + b_z
        z = sigma(z if number == 1 else z + (np.tanh(h) if number == 3 else h) @ next(U))
        r = sigma((x if number == 2 else x @ next(W)) + h @ next(U) + b_r)
        seen = np.tanh(x) if number == 1 else x @ next(W)
        n = np.tanh((r * h) @ next(U) + seen + b_n)
        return n * z + h * (1 - z)

    return step


def multiplied(p, h, x):
    """Wu et al. (2016), column form."""
    a, b1, b2, b = (p[name][:, None] for name in ("alpha", "beta_1", "beta_2", "b"))
    Wx, Uh = p["W_x"].T @ x.T, p["W_h"].T @ h.T
    return np.tanh(a * Wx * Uh + b1 * Uh + b2 * Wx + b).T


def multiplied_gru(p, h, x):
    """The same in each of the equations of Cho et al. (2014)."""
    names = ("W_x", "W_h", "alpha", "beta_1", "beta_2", "b")
    of_r, of_z, of_n = zip(*(parts(p, name, 3) for name in names), strict=True)

    def inner(W, U, a, b1, b2, b, h):
        return a * (x @ W) * (h @ U) + b1 * (h @ U) + b2 * (x @ W) + b

    r, z = sigma(inner(*of_r, h)), sigma(inner(*of_z, h))
    return z * h + (1 - z) * np.tanh(inner(*of_n, r * h))


def constrained(p, carry, x):
    """Mikolov et al. (2014): the hidden layer sees the new context."""
    s = 0.05 * (x @ p["B"]) + 0.95 * carry.s
    h = sigma(s @ p["P"] + x @ p["A"] + carry.h @ p["R"])
    return SCRNCarry(h, s), np.concatenate([h, s], axis=-1)


EQUATIONS = {
    "indrnn": (indrnn(H, t_max=2.0, growth=1.0, long_memory=True), independent(1)),
    "fastrnn": (fastrnn(H), fast),
    "fastgrnn": (fastgrnn(H), fast_gated),
    "ligru": (ligru(H), light),
    "brc": (brc(H), bistable),
    "nbrc": (nbrc(H), bistable),
    "star": (star(H), stackable),
    "ran": (ran(H), additive),
    "cfn": (cfn(H), chaos_free),
    "atr": (atr(H), twin_gated),
    "light_ru": (light_ru(H), light_recurrent),
    "rhn": (rhn(H, depth=2), highway),
    "mut1": (mut1(3, bare_input=True), mutant(1)),
    "mut2": (mut2(3, bare_input=True), mutant(2)),
    "mut3": (mut3(H), mutant(3)),
    "mi_rnn": (mi_rnn(H), multiplied),
    "mi_gru": (mi_gru(H), multiplied_gru),
    "scrn": (scrn(H, context_size=2), constrained),
}


@pytest.mark.parametrize(("cell", "step"), EQUATIONS.values(), ids=EQUATIONS)
def test_the_papers_equation(cell, step):
    check_equation(cell, step)


# torchrecurrent, where it agrees with the papers: another hand's reading of them.

VECTORS = np.load(Path(__file__).parent / "data" / "light_gates_vectors.npz", allow_pickle=False)
# Its class -> our cell, and its blocks in our order.
CLASSES = {
    "IndRNNCell": (indrnn(H, t_max=1.0, growth=10.0), (0,)),
    "LiGRUCell": (ligru(H), (0, 1)),
    "STARCell": (star(H), (0, 1)),
    "RANCell": (ran(H), (1, 2, 0)),
    "CFNCell": (cfn(H), (0, 1, 2)),
    "ATRCell": (atr(H), (0,)),
    "BRCell": (brc(H), (0, 1, 2)),
    "NBRCell": (nbrc(H), (0, 1, 2)),
    "MUT1Cell": (mut1(H), (0, 1, 2)),
    "MUT2Cell": (mut2(H), (0, 1, 2)),
    "MUT3Cell": (mut3(H), (0, 1, 2)),
    "LightRUCell": (light_ru(H), (1, 0)),
}


def test_stored_vectors_of_torchrecurrent():
    def run(stored):
        return {name: unroll(CLASSES[name][0], v["params"], v["xs"], v["start"])[1] for name, v in stored.items()}

    stored = {}
    for name, (cell, order) in CLASSES.items():
        v = {part: VECTORS[f"{name}/{part}"] for part in ("weight_ih", "weight_hh", "bias_ih", "xs", "h0")}
        b = np.split(v["bias_ih"], len(v["bias_ih"]) // H)
        params = {
            "W_x": np.concatenate([np.split(v["weight_ih"].T, len(order), axis=1)[k] for k in order], axis=1),
            "u" if name == "IndRNNCell" else "W_h": v["weight_hh"].T,
            "b": np.concatenate(b if name == "RANCell" else [b[k] for k in order]),
        }
        shapes = jax.eval_shape(lambda cell=cell: cell.init(jax.random.key(0), 3))
        params = {part: params[part][..., : a.shape[-1]] for part, a in shapes.items()}  # absent biases are last
        start = RANCarry(VECTORS["RANCell/c0"], v["h0"]) if name == "RANCell" else v["h0"]
        stored[name] = {"params": params, "xs": v["xs"], "start": start}
    for name, ys in jax.jit(run)(stored).items():
        np.testing.assert_allclose(ys, VECTORS[f"{name}/ys"], rtol=0, atol=1e-5, err_msg=name)


# What the cells start as, all drawn by one compiled program.

U = {"indrnn": {}, "5": {"t_max": 10.0}, "2": {"t_max": 10.0, "growth": 2.0, "long_memory": True}}
STARTS = {name: (indrnn(1000, **options), 1) for name, options in U.items()} | {
    "fastrnn": (fastrnn(50), 40),
    "fastgrnn": (fastgrnn(50), 40),
    "factors": (fastgrnn(H, rank_x=2, rank_h=1), 3),
    "cfn": (cfn(H), 3),
    "brc": (brc(H), 3),
    "star": (star(100, chrono_t_max=100.0), 1),
    "rhn": (rhn(H, depth=2), 3),
}


@pytest.fixture(scope="module")
def starts():
    draw = jax.jit(lambda key: {name: cell.init(key, D) for name, (cell, D) in STARTS.items()})
    return jax.tree.map(np.asarray, draw(jax.random.key(0)))


def test_u_starts_between_the_timescales(starts):
    for name, low, high in (("indrnn", 0, 1), ("5", 0, 5**0.1), ("2", 2**-0.1, 2**0.1)):
        u, near = starts[name]["u"], 0.01 * (high - low)
        assert low - 1e-6 <= u.min() <= low + near
        assert high - near <= u.max() <= high + 1e-6


def test_fast_cells_start_by_keeping_their_state(starts):
    for name, kept, taken in (("fastrnn", "beta", "alpha"), ("fastgrnn", "zeta", "nu")):
        params = starts[name]
        assert params[kept].shape == params[taken].shape == ()
        assert params[kept] > 0 > params[taken]
        for matrix in ("W_x", "W_h"):
            np.testing.assert_allclose(params[matrix].std(), 0.1, rtol=0.1)
    assert (starts["fastgrnn"]["b_z"] == 1).all()


def test_factors_have_their_rank(starts):
    params = starts["factors"]
    shapes = {name: a.shape for name, a in params.items() if name.startswith("W")}
    assert shapes == {"W_x_1": (3, 2), "W_x_2": (2, H), "W_h_1": (H, 1), "W_h_2": (1, H)}
    weights = fastgrnn(H, rank_x=2, rank_h=1).weights(params)
    for name in ("W_x", "W_h"):
        np.testing.assert_allclose(weights[name], params[f"{name}_1"] @ params[f"{name}_2"], rtol=1e-5, atol=1e-7)


def test_biases_and_vectors_as_stated(starts):
    assert (starts["cfn"]["b"] == np.repeat([1, -1], H)).all()
    assert (starts["brc"]["W_h"] == 1).all()
    assert (starts["rhn"]["b"] == np.tile(np.repeat([0, -2], H), (2, 1))).all()
    kept = sigma(-np.split(starts["star"]["b"], 2)[1])  # 1 - k
    timescales = 1 / (1 - kept)
    np.testing.assert_allclose([timescales.min(), timescales.mean(), timescales.max()], [2, 51, 100], atol=8)
    assert {name: a.shape for name, a in noise(atr(H)).items()} == {"W_x": (3, H), "W_h": (H, H), "b": (H,)}


# What the papers say of the states.


def noise(cell, D=3, seed=0):
    """Normal numbers for all parameters of a cell."""
    draw = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0), D))
    return {name: draw.normal(size=a.shape).astype(a.dtype) for name, a in shapes.items()}


def nought(cell):
    """Zeros for all parameters of a cell."""
    return {name: 0 * a for name, a in noise(cell).items()}


def without_input(cell, params, start, T):
    """The outputs [T, ...] of a cell whose inputs are zero."""
    xs = np.zeros((T, *jax.tree.leaves(start)[0].shape[:-1], 3), np.float32)
    return np.asarray(jax.jit(lambda *args: unroll(cell, *args)[1])(params, xs, start))


def test_an_indrnn_grows_no_further_than_its_bound():
    cell = indrnn(H, t_max=10.0, growth=3.0)
    u = np.array([3.0**0.1, 0.5, *np.linspace(-9, 9, H - 2)], np.float32)
    hs = without_input(cell, nought(cell) | {"u": u}, np.ones(H, np.float32), 10)
    np.testing.assert_allclose(hs[-1, :2], [3, 0.5**10], rtol=1e-5)
    assert hs.max() <= 3 + 1e-5


def test_descent_holds_u_at_its_bound():
    weight = jax.jit(jax.value_and_grad(lambda u: indrnn(1).weights({"u": u})["W_h"]))
    u = 0.9
    for _ in range(20):
        u += 0.1 * weight(u)[1]
    assert abs(u - 1) <= 0.11
    assert 0.89 <= weight(u)[0] <= 1


def test_a_fast_rnn_without_matrices_keeps_its_state():
    cell = fastrnn(H)
    hs = without_input(cell, nought(cell) | {"beta": np.float32(3)}, np.ones(H, np.float32), 3)
    np.testing.assert_allclose(hs[-1], np.full(H, sigma(3.0) ** 3), rtol=1e-5)


@pytest.mark.parametrize("make", [brc, nbrc])
def test_a_bistable_cell_holds_one_of_two_values_where_a_is_above_1(make):
    a = np.array([1.7, 1.3, 0.8], np.float32)
    params = nought(make(3)) | {"b": np.concatenate([np.arctanh(a - 1), np.zeros(3)]).astype(np.float32)}
    start = np.array([[0.05] * 3, [-0.05] * 3], np.float32)
    high, low = without_input(make(3), params, start, 400)[-1]
    np.testing.assert_allclose(high, -low, atol=1e-6)
    np.testing.assert_allclose(np.tanh(a * high), high, atol=1e-5)
    assert (high[:2] > 0.5).all()
    assert abs(high[2]) < 1e-3


def test_a_chaos_free_network_forgets_its_state_without_input():
    params = noise(cfn(30))
    params["b"][:30] = 4  # theta nearly holds
    hs = without_input(cfn(30), params, 3 * np.random.default_rng(1).normal(size=(5, 30)).astype(np.float32), 3000)
    assert (np.abs(hs[1:]) <= np.abs(hs[:-1])).all()
    assert np.abs(hs[-1]).max() < 0.03


def test_the_state_of_an_additive_network_is_a_weighted_sum_of_contents():
    cell = ran(H, activation="identity")
    params = noise(cell) | {"W_h": np.zeros((H, 2 * H), np.float32)}  # then the gates are those of the input alone
    xs = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    i, f, content = np.split(xs @ params["W_x"] + np.pad(params["b"], (0, H)), 3, axis=-1)
    weight = [sigma(i[j]) * np.prod(sigma(f[j + 1 :]), axis=0) for j in range(6)]
    hs = jax.jit(lambda *args: unroll(cell, *args)[1])(params, xs)
    np.testing.assert_allclose(hs[-1], sum(np.multiply(weight, content)), rtol=1e-4)


def test_a_highway_whose_gates_are_closed_keeps_its_state():
    cell, start = rhn(H, depth=2), np.linspace(-2, 2, H, dtype=np.float32)
    params = noise(cell) | {"b": np.tile(np.repeat(np.float32([0, -40]), H), (2, 1))}
    np.testing.assert_allclose(without_input(cell, params, start, 5)[-1], start, rtol=1e-5)


def test_the_context_of_an_scrn_fades_by_alpha():
    cell = scrn(H, context_size=2, alpha=0.9)
    s = np.array([1.0, -2.0], np.float32)
    ys = without_input(cell, noise(cell), SCRNCarry(np.zeros(H, np.float32), s), 20)
    assert ys.shape == (20, H + 2)
    np.testing.assert_allclose(ys[-1, H:], 0.9**20 * s, rtol=1e-5)


# Cells that are others in a limit, with the parameters of those.


def turned(params):
    """gru_cho's parameters, for a cell whose z stands for 1 - z and comes first."""
    blocks = {name: np.split(a, 3, axis=-1) for name, a in params.items()}
    return {name: np.concatenate([-z, r, n], axis=-1) for name, (r, z, n) in blocks.items()}


def integrated(params, width):
    """A cell's parameters, for one with multiplicative integration that is told to add."""
    ones = np.ones(width, np.float32)
    return {name: params[name] for name in ("W_x", "W_h", "b")} | {"alpha": 0 * ones, "beta_1": ones, "beta_2": ones}


LIMITS = {
    "mut2 is gru_cho": (mut2(H), gru_cho(H), turned),
    "mi_rnn is rnn": (mi_rnn(H), rnn(H), lambda params: integrated(params, H)),
    "mi_gru is gru_cho": (mi_gru(H), gru_cho(H), lambda params: integrated(params, 3 * H)),
}


def test_a_limit_that_is_another_cell():
    given = {name: (noise(other), make(noise(other))) for name, (_, other, make) in LIMITS.items()}
    xs = np.random.default_rng(1).normal(size=(5, 2, 3)).astype(np.float32)

    def both(given):
        return {
            name: (unroll(cell, given[name][1], xs)[1], unroll(other, given[name][0], xs)[1])
            for name, (cell, other, _) in LIMITS.items()
        }

    for name, (found, expected) in jax.jit(both)(given).items():
        assert {n: a.shape for n, a in given[name][1].items()} == {
            n: a.shape for n, a in noise(LIMITS[name][0]).items()
        }
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: indrnn(0), "hidden_size is 0; allowed: 1, 2, "),
        (lambda: indrnn(H, t_max=0.0), "t_max=0.0; allowed: more than 0, or None"),
        (lambda: indrnn(H, growth=0.5), "growth=0.5; allowed: 1 or more"),
        (lambda: star(H, chrono_t_max=2.0), "chrono_t_max=2.0; allowed: more than 2"),
        (lambda: ran(H, activation="relu"), "unknown activation 'relu'; allowed: tanh, identity"),
        (lambda: rhn(H, depth=0), "depth=0; allowed: 1, 2, ..."),
        (lambda: scrn(H, context_size=0), "context_size=0; allowed: 1, 2, ..."),
        (lambda: check_cell(mut1(H, bare_input=True), 3), "bare_input with 3 features; allowed: 4, the hidden size"),
        (lambda: fastgrnn(H, rank_h=0), "rank_h is 0; allowed: 1, 2, ..., or None"),
    ],
)
def test_options_that_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
