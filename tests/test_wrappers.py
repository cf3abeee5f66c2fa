"""Wrappers against their papers' equations in NumPy, and what each must leave as it is."""

import itertools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import check_equation, jit, normal, parts, sigma
from test_any_cell import odd
from test_export import lower

from rnnjax.cells import LSTMCarry, gru, gru_cho, lru, lstm, rnn
from rnnjax.cells.check import check_cell, takes_key
from rnnjax.cells.inside import Beside, projected
from rnnjax.cells.wrappers import (
    WRAPPERS,
    clockwork,
    dilated,
    highway,
    layernorm,
    learned_start,
    multiplicative,
    recurrent_dropout,
    residual,
    skip,
    zoneout,
)
from rnnjax.cells.wrappers_time import ClockworkCarry, SkipCarry
from rnnjax.engine.hooks import where
from rnnjax.engine.unroll import make_probe, make_taps, unroll
from rnnjax.types import prepared

T, B, D, H = 6, 2, 3, 4
KEY = jax.random.key(0)


# The equations, row form.


def elman(p, h, x):
    return np.tanh(x @ p["W_x"] + h @ p["W_h"] + p["b"])


def lstm_of(s, c):
    i, f, g, o = s
    c = sigma(f) * c + sigma(i) * np.tanh(g)
    return LSTMCarry(c, sigma(o) * np.tanh(c))


def plain_lstm(p, carry, x):
    return lstm_of(np.split(x @ p["W_x"] + carry.h @ p["W_h"] + p["b"], 4, axis=-1), carry.c)


def zoned_out(p, carry, x):
    new = plain_lstm(p, carry, x)
    return LSTMCarry(0.5 * carry.c + 0.5 * new.c, 0.1 * carry.h + 0.9 * new.h)


def layer_norm(a):
    centred = a - a.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)


def normed_lstm(p, carry, x):
    columns = (parts(p, name, 4) for name in ("W_x", "W_h", "b", "layernorm_x", "layernorm_h"))
    s = [g * layer_norm(x @ W) + k * layer_norm(carry.h @ U) + b for W, U, b, g, k in zip(*columns, strict=True)]
    return lstm_of(s, carry.c)


def normed_gru(p, h, x):
    (W_r, W_z, W_n), (U_r, U_z, U_n), (b_r, b_z, b_n) = (parts(p, name, 3) for name in ("W_x", "W_h", "b"))
    (g_r, g_z, g_n), (k_r, k_z, k_n) = (parts(p, f"layernorm_{side}", 3) for side in "xh")
    r = sigma(g_r * layer_norm(x @ W_r) + k_r * layer_norm(h @ U_r) + b_r)
    z = sigma(g_z * layer_norm(x @ W_z) + k_z * layer_norm(h @ U_z) + b_z)
    n = np.tanh(g_n * layer_norm(x @ W_n) + b_n + r * (k_n * layer_norm(h @ U_n) + p["b_h"]))
    return (1 - z) * n + z * h


def integrated_lstm(p, carry, x):
    a, u = x @ p["W_x"], carry.h @ p["W_h"]
    alpha, beta_x, beta_h = (p[f"multiplicative_{name}"] for name in ("alpha", "beta_x", "beta_h"))
    return lstm_of(np.split(alpha * a * u + beta_x * a + beta_h * u + p["b"], 4, axis=-1), carry.c)


def integrated_gru(p, h, x):
    (W_r, W_z, W_n), (U_r, U_z, U_n), (b_r, b_z, b_n) = (parts(p, name, 3) for name in ("W_x", "W_h", "b"))
    alpha, beta_x, beta_h = (parts(p, f"multiplicative_{name}", 2) for name in ("alpha", "beta_x", "beta_h"))
    s = [
        alpha[k] * (x @ W) * (h @ U) + beta_x[k] * (x @ W) + beta_h[k] * (h @ U) + b
        for k, (W, U, b) in enumerate([(W_r, U_r, b_r), (W_z, U_z, b_z)])
    ]
    r, z = map(sigma, s)
    return (1 - z) * np.tanh(x @ W_n + b_n + r * (h @ U_n + p["b_h"])) + z * h


def with_residual(p, h, x):
    h = elman(p, h, x)
    return h, h + x


def with_highway(p, h, x):
    h, g = elman(p, h, x), sigma(x @ p["highway_W"] + p["highway_b"])
    return h, g * h + (1 - g) * x


def dilated_elman(p, ring, x):
    h = elman(p, ring[:, 0], x)
    return np.concatenate([ring[:, 1:], h[:, None]], axis=1), h


def clockwork_elman(p, carry, x):
    """Units 0 1, 2 3 and 4: what is fast sees what is slow."""
    period = np.array([1, 1, 2, 2, 4])
    W_h = p["W_h"] * (period[:, None] >= period)
    new = np.tanh(x @ p["W_x"] + carry.state @ W_h + p["b"])
    h = np.where(carry.t % period == 0, new, carry.state)
    return ClockworkCarry(h, (carry.t + 1) % 4), h


def skipping(cell, seen, shown):
    def step(p, carry, x):
        q = carry.u
        u = q - q.real + np.round(q.real)  # straight through: rounded, and of derivative 1
        new = cell({n: a for n, a in p.items() if not n.startswith("skip")}, carry.state, x)
        state = jax.tree.map(lambda new, old: u * new + (1 - u) * old, new, carry.state)
        p_t = sigma(seen(state) @ p["skip_W"] + p["skip_b"])
        least = np.where(p_t.real < (1 - q).real, p_t, 1 - q)
        return SkipCarry(state, u * p_t + (1 - u) * (q + least)), shown(state)

    return step


EQUATIONS = {
    "zoneout in evaluation": (zoneout(lstm(H), 0.1, memory=0.5), zoned_out),
    "layernorm": (layernorm(lstm(H)), normed_lstm),
    "layernorm, gates of one side": (layernorm(gru(H)), normed_gru),
    "multiplicative": (multiplicative(lstm(H)), integrated_lstm),
    "multiplicative, gates of one side": (multiplicative(gru(H)), integrated_gru),
    "residual": (residual(rnn(D)), with_residual),
    "highway": (highway(rnn(D)), with_highway),
    "dilated": (dilated(rnn(H), 3), dilated_elman),
    "clockwork": (clockwork(rnn(5), 3), clockwork_elman),
    "skip": (skip(rnn(H), bias=-1.0), skipping(elman, lambda h: h, lambda h: h)),
    "skip, an LSTM's memory": (skip(lstm(H), bias=-1.0), skipping(plain_lstm, lambda s: s.c, lambda s: s.h)),
}


@pytest.mark.parametrize("name", EQUATIONS)
def test_the_papers_equation(name):
    check_equation(*EQUATIONS[name], T=T)


def moved(cell, size=D, dtype=float):
    """Parameters off their initial values."""
    drawn = cell.init(KEY, size)
    return {
        n: np.asarray(a, dtype) + 0.4 * normal(*a.shape, seed=i).astype(dtype) for i, (n, a) in enumerate(drawn.items())
    }


@pytest.mark.parametrize("name", ["lstm", pytest.param("lru", marks=pytest.mark.slow)])
def test_a_learned_start_is_where_a_sequence_begins(name):
    cell = {"lstm": lstm, "lru": lru}[name](H)
    with jax.enable_x64(True):
        wrapped, xs = learned_start(cell), normal(T, B, D)
        params = moved(wrapped)
        if name == "lstm":
            start = LSTMCarry(params["start_c"], params["start_h"])
        else:
            start = params["start_h_re"] + 1j * params["start_h_im"]

        def by_hand(params, start):
            carry = jax.tree.map(lambda a: jnp.broadcast_to(a, (B, H)), start)
            return jnp.sum(jnp.sin(unroll(cell, params, xs, carry)[1]))

        own = {n: a for n, a in params.items() if not n.startswith("start")}
        expected = jit(jax.value_and_grad(by_hand, (0, 1)))(own, start)
        value, found = jit(jax.value_and_grad(lambda p: jnp.sum(jnp.sin(unroll(wrapped, p, xs)[1]))))(params)
        gradient = [found[n] for n in params if n.startswith("start")]
        of_start = jax.tree.leaves(expected[1][1])
        if name == "lru":  # of a complex number JAX gives the conjugate
            of_start = [of_start[0].real, -of_start[0].imag]
        chex.assert_trees_all_close((value, gradient), (expected[0], of_start), rtol=1e-10)
        assert type(wrapped.form) is type(cell.form)


# Noise.


def test_zoneout_keeps_units_where_its_masks_say_so():
    with jax.enable_x64(True):
        cell = zoneout(lstm(H), 0.3, memory=0.6)
        params, xs, key = moved(cell), normal(400, B, D), jax.random.key(3)
        kept_c, kept_h = jax.tree.map(np.asarray, cell.project(params, xs, key).more)
        assert kept_c.shape == kept_h.shape == (400, B, H)
        np.testing.assert_allclose([kept_c.mean(), kept_h.mean()], [0.6, 0.3], atol=0.03)
        assert abs(np.corrcoef(kept_c.ravel(), kept_h.ravel())[0, 1]) < 0.05
        carry, expected = LSTMCarry(np.zeros((B, H)), np.zeros((B, H))), []
        for t in range(T):
            new = plain_lstm(params, carry, xs[t])
            carry = LSTMCarry(np.where(kept_c[t], carry.c, new.c), np.where(kept_h[t], carry.h, new.h))
            expected.append(carry.h)
        steps = prepared(cell._replace(project=lambda w, z, key=None: z), params)[0]
        z = jax.tree.map(lambda a: a[:T], cell.project(params, xs, key))
        found = [steps.initial_carry(params, (B,))]
        for t in range(T):
            found.append(steps.step(params, found[-1], jax.tree.map(lambda a, t=t: a[t], z)))
        np.testing.assert_allclose([c.h for c in found[1:]], expected, atol=1e-12)
        whole = jit(lambda k: unroll(cell, params, xs, key=k)[1])
        np.testing.assert_allclose(whole(key)[:T], expected, atol=1e-12)
        assert not np.allclose(whole(jax.random.key(4))[:T], expected)


def test_zoneout_of_a_linear_cell_is_in_evaluation_what_it_is_in_expectation():
    """Over all masks, exactly."""
    with jax.enable_x64(True):
        cell, rate, steps = zoneout(lru(1), 0.3), 0.3, 4
        params, xs = moved(cell), normal(steps, D)
        weights = cell.weights(params)
        z = cell.project(weights, xs)
        masks = np.array(list(itertools.product([False, True], repeat=steps)))
        chance = np.prod(np.where(masks, rate, 1 - rate), axis=1)

        def last(mask):
            h = cell.initial_carry(weights, ())
            for t in range(steps):
                h = cell.step(weights, h, Beside(jax.tree.map(lambda a, t=t: a[t], z.z), [mask[t, None]]))
            return h

        mean = jnp.sum(chance[:, None] * jax.vmap(last)(masks), axis=0)
        np.testing.assert_allclose(mean, unroll(cell, params, xs)[0], rtol=1e-12)


def test_recurrent_dropout_drops_the_same_units_at_every_step():
    with jax.enable_x64(True):
        cell, key = recurrent_dropout(gru(H), 0.4), jax.random.key(5)
        params, xs = moved(cell), normal(T, 300, D)
        mask = np.asarray(cell.project(params, xs, key).more)
        assert set(np.round(np.unique(mask), 12)) == {0, round(1 / 0.6, 12)} and abs(mask.mean() - 1) < 0.06
        assert np.all(mask == mask[0])
        (W_r, W_z, W_n), (U_r, U_z, U_n), (b_r, b_z, b_n) = (parts(params, name, 3) for name in ("W_x", "W_h", "b"))
        h = np.zeros((300, H))
        for x in xs:
            seen = h * mask[0]
            r, z = sigma(x @ W_r + seen @ U_r + b_r), sigma(x @ W_z + seen @ U_z + b_z)
            h = (1 - z) * np.tanh(x @ W_n + b_n + r * (seen @ U_n + params["b_h"])) + z * h
        np.testing.assert_allclose(unroll(cell, params, xs, key=key)[0], h, atol=1e-12)
        np.testing.assert_allclose(unroll(cell, params, xs)[1], unroll(gru(H), params, xs)[1], atol=1e-12)


def test_wrappers_that_draw_draw_apart():
    cell = zoneout(zoneout(rnn(H), 0.5), 0.5)
    z = cell.project(cell.init(KEY, D), jnp.zeros((500, D)), KEY)
    outer, inner = np.asarray(z.more[0]), np.asarray(z.z.more[0])
    assert abs(np.corrcoef(outer.ravel(), inner.ravel())[0, 1]) < 0.06


# A wrapper of nothing changes nothing.


def test_a_rate_of_0_and_one_group_are_the_cell_itself():
    cell = lstm(H)
    assert all(w is cell for w in (zoneout(cell, 0), zoneout(cell, 0.0, memory=0), recurrent_dropout(cell, 0.0)))
    assert dilated(cell, 1) is cell and clockwork(cell, 1) is cell and clockwork(lru(H), 1) is lru(H)


NOTHING = {
    "zoneout": lambda cell: zoneout(cell, jnp.zeros(())),
    "recurrent_dropout": lambda cell: recurrent_dropout(cell, jnp.zeros(())),
    "multiplicative": lambda cell: multiplicative(cell, alpha=0.0),
    "highway": lambda cell: highway(cell, bias=60.0),
    "learned_start": learned_start,
    "skip": lambda cell: skip(cell, bias=60.0),
}


@pytest.mark.parametrize("name", NOTHING)
def test_a_wrapper_that_does_nothing_changes_nothing(name):
    """Parameters of the cell inside are those that it has alone."""
    cell = lstm(D)
    with jax.enable_x64(True):
        wrapped, xs = NOTHING[name](cell), normal(T, B, D)
        check_cell(wrapped, D)
        params, own = (jax.tree.map(lambda a: a.astype(float), c.init(KEY, D)) for c in (wrapped, cell))
        assert {n: params[n].tolist() for n in own} == {n: a.tolist() for n, a in own.items()}
        for key in (None, jax.random.key(2)):
            found = jit(lambda p, key=key: unroll(wrapped, p, xs, key=key)[1])(params)
            np.testing.assert_allclose(found, unroll(cell, own, xs)[1], rtol=0, atol=1e-12)


# What the papers claim.


def test_a_dilated_network_is_k_networks_that_take_turns():
    with jax.enable_x64(True):
        cell, k = lstm(H), 3
        params, xs = moved(cell), normal(3 * k, B, D)
        ys = jit(lambda p: unroll(dilated(cell, k), p, xs)[1])(params)
        apart = jit(lambda p: [unroll(cell, p, xs[i::k])[1] for i in range(k)])(params)
        for i, each in enumerate(apart):
            np.testing.assert_allclose(ys[i::k], each, atol=1e-12)


@pytest.mark.parametrize("make", [lstm, lru])
def test_slow_groups_hold_still_between_their_ticks(make):
    cell = clockwork(make(H), 4, triangular=make is lstm)
    params = moved(cell, dtype=np.float32)
    carry, weights = cell.initial_carry(cell.weights(params), (B,)), cell.weights(params)
    for t, z in enumerate(normal(9, B, D).astype(np.float32)):
        new = cell.step(weights, carry, cell.project(weights, z))
        for old_part, part in zip(jax.tree.leaves(carry.state), jax.tree.leaves(new.state), strict=True):
            moves = np.asarray(old_part != part).all(axis=0)
            assert moves.tolist() == [t % 2**g == 0 for g in range(4)]
        assert new.t.tolist() == [[(t + 1) % 8]] * B
        carry = new


def test_no_group_sees_a_faster_one():
    cell = clockwork(lstm(H), 2)
    params, xs = moved(cell, dtype=np.float32), normal(T, B, D).astype(np.float32)
    gradient = jit(jax.grad(lambda p: jnp.sum(unroll(cell, p, xs)[1] ** 2)))(params)["W_h"].reshape(H, 4, H)
    assert not gradient[:2, :, 2:].any()
    assert all(block.all() for block in (gradient[:2, :, :2], gradient[2:, :, 2:], gradient[2:, :, :2]))
    free = clockwork(lstm(H), 2, triangular=False)
    assert (
        jit(jax.grad(lambda p: jnp.sum(unroll(free, p, xs)[1] ** 2)))(params)["W_h"].reshape(H, 4, H)[:2, :, 2:].all()
    )


def test_skip_updates_as_often_as_its_gate_says():
    """W = 0: p = sigmoid(b) at each step, so an update comes once q has added up to a half."""
    cell = skip(rnn(H))
    for p, expected in ((0.2, [1, 0, 0, 1, 0, 0, 1]), (0.6, [1] * 7), (0.3, [1, 0, 1, 0, 1, 0, 1])):
        params = cell.init(KEY, D) | {"skip_W": jnp.zeros((H, 1)), "skip_b": jnp.log(jnp.array([p / (1 - p)]))}
        ys = unroll(cell, params, jnp.asarray(normal(7, D), jnp.float32))[1]
        moves = np.any(np.diff(ys, axis=0, prepend=0) != 0, axis=-1)
        assert moves.tolist() == [bool(u) for u in expected], p


def test_layernorm_is_that_of_flax():
    cell = layernorm(rnn(H))
    params, x, h = moved(cell, dtype=np.float32), normal(B, D).astype(np.float32), normal(B, H).astype(np.float32)
    norm = nn.LayerNorm(epsilon=1e-5, use_bias=False)
    sides = [(x @ params["W_x"], "layernorm_x"), (h @ params["W_h"], "layernorm_h")]
    s = sum(norm.apply({"params": {"scale": params[name]}}, a) for a, name in sides) + params["b"]
    weights = cell.weights(params)
    np.testing.assert_allclose(cell.step(weights, h, cell.project(weights, x)), jnp.tanh(s), atol=1e-5)


# Any cell, and all that the engine can do with it.


EVERY = {
    "zoneout": lambda cell: zoneout(cell, 0.3),
    "recurrent_dropout": lambda cell: recurrent_dropout(cell, 0.3),
    "layernorm": layernorm,
    "multiplicative": multiplicative,
    "residual": residual,
    "highway": highway,
    "learned_start": learned_start,
    "dilated": lambda cell: dilated(cell, 2),
    "clockwork": lambda cell: clockwork(cell, 2, triangular=False),
    "skip": lambda cell: skip(cell, bias=-1.0),
}
OF_GATES = ("recurrent_dropout", "layernorm", "multiplicative")
WRAPPED = {name: wrap(lstm(2)) for name, wrap in EVERY.items()}
WRAPPED |= {
    "dropout of a normed cell": recurrent_dropout(layernorm(gru(2)), 0.3),
    "all": zoneout(
        skip(clockwork(dilated(highway(learned_start(layernorm(gru(2)))), 2), 2, triangular=False), bias=-1.0), 0.2
    ),
    "twice": skip(skip(learned_start(learned_start(residual(residual(gru_cho(2))))))),
}
ODD = {f"{name} of an odd cell": wrap(odd()) for name, wrap in EVERY.items() if name not in OF_GATES}


def test_every_wrapper_is_here():
    assert list(EVERY) == list(WRAPPERS)


QUICK = ("highway", "clockwork")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in WRAPPED | ODD]
)
def test_the_engine_runs_it_as_a_loop_does(name):
    """Noise, lengths, taps, a probe, segments and a batch by `vmap`: against steps one by one, in float64."""
    cell, T, size = (WRAPPED | ODD)[name], 3, 2
    lengths = np.array([2, 3])
    check_cell(cell, size)

    def by_loop(params, xs, taps, key):
        weights = cell.weights(params)
        z = projected(cell, weights, xs, key)
        carry, ys = cell.initial_carry(weights, (B,)), []
        for t in range(T):
            now, tap = (jax.tree.map(lambda a, t=t: a[t], tree) for tree in (z, taps))
            new = cell.step(weights, carry, now)
            new = jax.tree.map(lambda a, b: a + b.astype(a.dtype), new, tap)
            carry = jax.tree.map(lambda a, old, t=t: where(t < lengths, a, old), new, carry)
            y = cell.output(weights, carry, now)
            ys.append(where(t < lengths, y, 0))
        return jnp.stack(ys)

    def by_engine(params, xs, taps, key, **options):
        return unroll(cell, params, xs, lengths=lengths, taps=taps, key=key if takes_key(cell) else None, **options)[1]

    def value(run, *args, **options):
        def loss(*args):
            return jnp.sum(jnp.sin(run(*args, **options)))

        return jax.value_and_grad(loss, (0, 1, 2), allow_int=True)(*args)

    def everything(*args):
        params, xs, *_ = args
        probe = make_probe(cell, params, T, (B,))
        whole, sliced = unroll(cell, params, xs, probe=probe)[1], jax.vmap(lambda x: unroll(cell, params, x)[1], 1, 1)
        return (
            [value(run, *args) for run in (by_loop, by_engine)],
            value(by_engine, *args, segments=2),
            [
                whole,
                sliced(xs),
            ],
        )

    with jax.enable_x64(True):
        params, xs = moved(cell, size), normal(T, B, size)
        (expected, found), pieces, outputs = jit(everything)(params, xs, make_taps(cell, params, T, (B,)), KEY)
        for each in (found, pieces):
            chex.assert_trees_all_close(real(each), real(expected), rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(*outputs, atol=1e-10)


def real(tree):
    """Without the gradients of integers, which are none."""
    return [a for a in jax.tree.leaves(tree) if a.dtype != jax.dtypes.float0]


def test_all_of_them_lower_for_cuda_and_tpu():
    cells = [WRAPPED["all"], WRAPPED["dropout of a normed cell"], multiplicative(gru(2))]
    shapes = [jax.eval_shape(lambda c=c: c.init(KEY, 2)) for c in cells]

    def run(params, xs):
        def loss(params):
            return sum(jnp.sum(unroll(c, p, xs, key=KEY)[1]) for c, p in zip(cells, params, strict=True))

        return jax.value_and_grad(loss)(params)

    assert lower(run, shapes, jax.ShapeDtypeStruct((T, B, 2), jnp.float32)).mlir_module()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: zoneout(rnn(H), 1.0), r"rate=1.0; allowed: in \[0, 1\)"),
        (lambda: zoneout(rnn(H), 0.1, memory=-0.1), r"memory=-0.1; allowed: in \[0, 1\)"),
        (lambda: check_cell(zoneout(rnn(H), 0.1, memory=0.1), D), "zoneout's memory=0.1 needs a carry with a part h"),
        (lambda: recurrent_dropout(lru(H), 0.1), "recurrent_dropout needs a cell made of gates"),
        (lambda: layernorm(gru_cho(H)), "layernorm needs a cell made by cells.gated"),
        (lambda: multiplicative(layernorm(gru(H))), "multiplicative needs a cell made by cells.gated, and no wrapper"),
        (lambda: check_cell(residual(rnn(H)), D), "residual adds x to y, and x has 3 features where y has 4; allowed"),
        (lambda: check_cell(highway(rnn(H)), D), "highway adds x to y, and x has 3 features where y has 4; allowed"),
        (lambda: dilated(rnn(H), 0), r"k=0; allowed: 1, 2, \.\.\."),
        (lambda: clockwork(rnn(H), 1.5), r"groups=1.5; allowed: 1, 2, \.\.\."),
        (lambda: clockwork(lru(H), 2), "and this one is not; allowed: triangular=False"),
        (lambda: check_cell(clockwork(rnn(H), 5), D), "groups=5, and the carry a part of 4 units; allowed: 1 to 4"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(make, message):
    with pytest.raises(ValueError, match=message) as refused:
        make()
    assert len(str(refused.value).splitlines()) == 1
