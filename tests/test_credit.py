"""Credit, paths, units, horizon and penalties against loops of `jax.grad`, NumPy and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnnjax.cells import CELLS, lstm
from rnnjax.diagnostics.credit import credit_matrix
from rnnjax.diagnostics.horizon import measured_horizon
from rnnjax.diagnostics.jacobians import step_jacobians
from rnnjax.diagnostics.paths import flow_by_path
from rnnjax.diagnostics.units import record_units, summarise_units
from rnnjax.engine.steps import unclipped
from rnnjax.engine.unroll import unroll
from rnnjax.gradients.penalties import clip_cotangent, flossing, jacobian, omega, orthogonal
from rnnjax.types import Cell

T, B, D, H = 5, 2, 2, 3
KEY = jax.random.key(0)


def setup(cell, T=T, B=B):
    keys = jax.random.split(jax.random.key(1), 2)
    params = jax.tree.map(lambda p: p + 0.1, jax.jit(cell.init, static_argnums=1)(keys[0], D))
    return params, jax.random.normal(keys[1], (T, B, D))


def sigmoid(s):
    return 1 / (1 + np.exp(-s))


def numpy_lstm(params, xs):
    """Gates and states of every step, in float64: dict of `[T, B, H]`."""
    W_x, W_h, b = (np.asarray(params[name], np.float64) for name in ("W_x", "W_h", "b"))
    c = h = np.zeros((xs.shape[1], W_h.shape[0]))
    rows = []
    for x in np.asarray(xs, np.float64):
        i, f, g, o = np.split(x @ W_x + h @ W_h + b, 4, axis=-1)
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        c = f * c + i * g
        h = o * np.tanh(c)
        rows.append({"i": i, "f": f, "g": g, "o": o, "c": c, "h": h})
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def linear(W):
    """h_t = W h_{t-1} + z_t, as a row vector times W_h = W^T."""
    n = W.shape[0]
    return Cell(
        lambda key, d: {"W_h": jnp.asarray(W).T},
        lambda weights, batch: jnp.zeros((*batch, n)),
        lambda params, h, z: h @ params["W_h"] + z,
    )


def rotation(gain, n=4):
    return gain * np.linalg.qr(np.random.default_rng(0).normal(size=(n, n)))[0]


def test_credit_matrix_is_a_loop_of_gradients():
    cell = CELLS["lstm"](H)
    params, xs = setup(cell)

    def losses(ys):
        return jnp.sum(jnp.square(ys), axis=-1)

    credit = jax.jit(lambda p, x: credit_matrix(cell, p, x, losses, block=2))(params, xs)

    def all_losses(taps):  # [T, B], with a tap on every state, in a Python loop
        carry, found = cell.initial_carry(params, (B,)), []
        for x, tap in zip(xs, taps, strict=True):
            carry = jax.tree.map(jnp.add, cell.step(params, carry, cell.project(params, x)), tap)
            found.append(jnp.sum(jnp.square(carry.h), axis=-1))
        return jnp.stack(found)

    expected = np.zeros((2, T, T, B))
    taps = [cell.initial_carry(params, (B,))] * T  # zeros
    for s, d in enumerate(jax.jit(jax.jacrev(all_losses))(taps)):
        for b in range(B):
            expected[:, :, s, b] = np.linalg.norm(d.c[:, b, b], axis=-1), np.linalg.norm(d.h[:, b, b], axis=-1)
    np.testing.assert_allclose(credit.parts["c"], expected[0], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(credit.parts["h"], expected[1], rtol=1e-4, atol=1e-7)
    whole = np.sqrt(np.sum(expected**2, axis=0))
    np.testing.assert_allclose(credit.matrix, whole, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(credit.direct, [whole[t, t] for t in range(T)], rtol=1e-4)
    lags = [np.mean([whole[t, t - k] for t in range(k, T)]) for k in range(T)]
    np.testing.assert_allclose(credit.by_lag, lags, rtol=1e-4)


def test_credit_of_a_scalar_linear_cell_in_closed_form():
    """h_t = a h_{t-1}, L_t = h_t: C[t, s] = a^(t-s), and the total is the geometric sum."""
    cell, a = linear(np.array([[0.5]])), 0.5
    params, xs = cell.init(KEY, 1), jnp.zeros((4, 1, 1))
    credit = jax.jit(lambda p: credit_matrix(cell, p, xs, lambda ys: ys[..., 0]))(params)
    np.testing.assert_allclose(credit.by_lag, a ** np.arange(4), rtol=1e-6)
    np.testing.assert_allclose(credit.total[:, 0], [1 + a + a**2 + a**3, 1 + a + a**2, 1 + a, 1], rtol=1e-6)
    last = jax.jit(lambda p: credit_matrix(cell, p, xs, lambda ys: ys[..., 0].at[:-1].set(0)))(params)
    np.testing.assert_allclose(last.by_lag, a ** np.arange(4), rtol=1e-6)  # steps without a loss do not dilute it
    with pytest.raises(ValueError, match=r"losses returned shape \(\)"):
        credit_matrix(cell, params, xs, jnp.sum)


def test_credit_through_a_complex_state_beside_an_integer_clock():
    """q_t = lambda q_{t-1}, L_t = Re q_t: C[t, s] = |lambda|^(t-s)."""
    rate = 0.8 * np.exp(0.7j)
    cell = Cell(
        lambda key, d: {},
        lambda weights, batch: {"clock": jnp.zeros((*batch, 1), int), "q": jnp.zeros((*batch, 1), complex)},
        lambda params, carry, z: {"clock": carry["clock"] + 1, "q": rate * carry["q"] + z},
        output=lambda params, carry, z: jnp.real(carry["q"]),
    )
    credit = jax.jit(lambda x: credit_matrix(cell, {}, x, lambda ys: ys[..., 0]))(jnp.ones((4, 1, 1)))
    np.testing.assert_allclose(credit.by_lag, 0.8 ** np.arange(4), rtol=1e-6)
    np.testing.assert_array_equal(credit.parts["clock"], 0)


def test_flow_through_the_cell_state_is_the_product_of_forget_gates():
    cell = lstm(H)
    params, xs = setup(cell)
    v = np.arange(1.0, H + 1)
    flow = jax.jit(lambda p, x: flow_by_path(cell, p, x, lambda ys: jnp.sum(ys[-1] * v)))(params, xs)
    s = numpy_lstm(params, xs)
    at_end = v * s["o"][-1] * (1 - np.tanh(s["c"][-1]) ** 2)  # dL/dc_T by way of y_T
    expected = [np.linalg.norm(np.prod(s["f"][t + 1 :], axis=0) * at_end, axis=-1) for t in range(T - 1)]
    for path in (flow.alone["c"], flow.without["h"], flow.alone["elementwise"], flow.without["matmuls"]):
        np.testing.assert_allclose(path.c[:-1], expected, rtol=1e-4)
    # Through h alone: dh_t/dh_{t-1} at fixed c_{t-1}, as matrices.
    W = np.asarray(params["W_h"], np.float64)
    delta = np.tile(v, (B, 1))
    through_h = [np.linalg.norm(delta, axis=-1)]
    for t in range(T - 1, 0, -1):
        before = s["c"][t - 1]
        o, f, i, g = (s[name][t] for name in "ofig")
        tanh_c = np.tanh(s["c"][t])
        dc = delta * o * (1 - tanh_c**2)
        ds = [dc * g * i * (1 - i), dc * before * f * (1 - f), dc * i * (1 - g**2), delta * tanh_c * o * (1 - o)]
        delta = np.concatenate(ds, axis=-1) @ W.T
        through_h.append(np.linalg.norm(delta, axis=-1))
    for path in (flow.alone["h"], flow.alone["matmuls"]):
        np.testing.assert_allclose(path.h, through_h[::-1], rtol=1e-4)
    np.testing.assert_array_less(0, flow.full.c[0])


def test_flow_by_path_of_a_free_form_cell_with_one_state():
    """gru_cho: alone elementwise, dL/dh_t is the product of z; alone matmuls and elementwise make J_T together."""
    cell = CELLS["gru_cho"](H)
    params, xs = setup(cell, T=2)
    flow = jax.jit(lambda p, x: flow_by_path(cell, p, x, lambda ys: jnp.sum(ys[-1])))(params, xs)
    assert set(flow.alone) == {"elementwise", "matmuls"}
    h = unroll(cell, params, xs)[1][0]
    J = np.asarray(jax.vmap(jax.jacobian(lambda h, z: cell.step(params, h, z)))(h, cell.project(params, xs[1])))
    W = np.split(np.asarray(params["W_h"]), 3, axis=1)[1]
    z = sigmoid(np.asarray(cell.project(params, xs[1])["z"]) + np.asarray(h) @ W)
    np.testing.assert_allclose(flow.alone["elementwise"][0], np.linalg.norm(z, axis=-1), rtol=1e-5)
    np.testing.assert_allclose(flow.alone["matmuls"][0], np.linalg.norm(J.sum(1) - z, axis=-1), rtol=1e-4)
    np.testing.assert_allclose(flow.full[0], np.linalg.norm(J.sum(1), axis=-1), rtol=1e-5)


def test_recorded_units_are_those_of_a_numpy_lstm():
    cell = lstm(H)
    params, xs = setup(cell)
    s = numpy_lstm(params, xs)
    units, summary = jax.jit(lambda p, x: (u := record_units(cell, p, x), summarise_units(u, bins=4)))(params, xs)
    assert set(units.sigmoid) == {"i", "f", "o"} and set(units.tanh) == {"g", "tanh_0"} and not units.relu
    for name in ("i", "f", "o"):
        np.testing.assert_allclose(units.sigmoid[name], s[name], rtol=1e-5)
        np.testing.assert_allclose(summary.closed[name], np.mean(s[name] < 0.1), rtol=1e-6)
        np.testing.assert_allclose(
            summary.histogram[name], np.histogram(s[name], 4, (0, 1))[0] / s[name].size, rtol=1e-5
        )
    np.testing.assert_allclose(units.tanh["g"], s["g"], rtol=1e-5)
    np.testing.assert_allclose(units.tanh["tanh_0"], np.tanh(s["c"]), rtol=1e-5)
    np.testing.assert_allclose(units.retention.c, s["f"], rtol=1e-5)
    np.testing.assert_allclose(units.retention.h, 0)
    np.testing.assert_allclose(units.timescale.c, -1 / np.log(s["f"]), rtol=1e-4)


@pytest.mark.parametrize(("name", "gate"), [("gru", "z"), ("mgu", "f"), ("gru_cho", "sigmoid_1")])
def test_the_retention_is_the_update_gate_whatever_its_name(name, gate):
    cell = CELLS[name](H)
    params, xs = setup(cell)
    units = jax.jit(lambda p, x: record_units(cell, p, x))(params, xs)
    np.testing.assert_allclose(units.retention, units.sigmoid[gate], rtol=1e-5)
    ys = unroll(cell, params, xs)[1]
    before = jnp.concatenate([jnp.zeros((1, B, H)), ys[:-1]])
    n = units.tanh["tanh_0"]  # the candidate, and the equation that both forms share
    np.testing.assert_allclose(ys, units.retention * before + (1 - units.retention) * n, rtol=1e-5, atol=1e-6)


def test_coupled_and_peephole_gates_are_found_inside_update():
    cell = lstm(H, coupled=True, peepholes=True)
    params, xs = setup(cell)
    units = jax.jit(lambda p, x: record_units(cell, p, x))(params, xs)
    assert set(units.sigmoid) == {"sigmoid_0", "sigmoid_1"} and set(units.tanh) == {"g", "tanh_0"}
    cell = lstm(H, coupled=True)
    params = {name: params[name] for name in ("W_x", "W_h", "b")}
    units = jax.jit(lambda p, x: record_units(cell, p, x))(params, xs)
    np.testing.assert_allclose(units.retention.c, 1 - units.sigmoid["i"], rtol=1e-5)


def test_dead_relus_and_saturated_tanhs_are_counted():
    cell = CELLS["irnn"](4)
    params, xs = setup(cell)
    params = {**params, "b": jnp.array([-100.0, 1.0, -100.0, 1.0]), "W_h": jnp.zeros((4, 4))}
    summary = jax.jit(lambda p, x: summarise_units(record_units(cell, p, x)))(params, jnp.abs(xs))
    np.testing.assert_allclose(summary.dead["h"], 0.5)
    cell = CELLS["rnn"](4)
    params = {**params, "b": jnp.array([9.0, 0, -9.0, 9.0])}
    summary = jax.jit(lambda p, x: summarise_units(record_units(cell, p, x)))(params, 0 * xs)
    np.testing.assert_allclose(summary.saturated["h"], 0.75)


@pytest.mark.parametrize("mode", ["swap", "noise"])
def test_horizon_of_a_window_is_its_width(mode):
    """A shift register of 3 places sums the last 3 inputs."""
    window = Cell(
        lambda key, d: {},
        lambda weights, batch: jnp.zeros((*batch, 3)),
        lambda params, h, z: jnp.concatenate([z, h[..., :-1]], axis=-1),
        output=lambda params, h, z: jnp.sum(h, -1, keepdims=True),
    )
    inputs = jax.random.normal(jax.random.key(3), (7, 4, 1))

    def apply(xs):
        return unroll(window, {}, xs)[1][-1, :, 0]

    target = jnp.sum(inputs[-3:], 0)[:, 0]
    run = jax.jit(lambda x, k: measured_horizon(apply, lambda y: jnp.square(y - target), x, k, mode=mode, block=3))
    result = run(inputs, KEY)
    assert result.horizon == 3
    assert np.all(result.output_change[:3] > 0.01) and np.all(result.output_change[3:] == 0)
    assert np.all(result.loss_change[:3] > 1e-4) and np.all(result.loss_change[3:] == 0)
    if mode == "swap":  # by hand, for one of the three ways to swap four sequences by a roll
        changes = [np.mean(np.square(np.roll(inputs[-1, :, 0], r) - inputs[-1, :, 0])) for r in (1, 2, 3)]
        assert np.min(np.abs(np.array(changes) / result.loss_change[0] - 1)) < 1e-4


def test_horizon_errors():
    tokens = jnp.zeros((3, 1), int)
    with pytest.raises(ValueError, match="for tokens use 'swap'"):
        measured_horizon(lambda x: x, jnp.sum, tokens, KEY, mode="noise")
    with pytest.raises(ValueError, match="two sequences"):
        measured_horizon(lambda x: x, jnp.sum, tokens, KEY)
    with pytest.raises(ValueError, match="allowed: swap, noise"):
        measured_horizon(lambda x: x, jnp.sum, tokens, KEY, mode="drop")


@pytest.mark.parametrize("gain", [1.0, 0.7])
def test_penalties_of_a_scaled_rotation(gain):
    cell, n = linear(rotation(gain)), 4
    params, xs = cell.init(KEY, n), jax.random.normal(KEY, (T, B, n))

    @jax.jit
    def all_of(p):
        return (
            omega(cell, p, xs, KEY),
            omega(cell, p, xs, KEY, loss=lambda ys: jnp.sum(ys[2] ** 2)),
            flossing(cell, p, xs, KEY, exponents=3),
            jacobian(cell, p, xs, KEY, probes=2),
            orthogonal(cell, p, xs),
        )

    step = (gain - 1) ** 2
    expected = (T * step, 3 * step, np.log(gain) ** 2, step, n * (gain**2 - 1) ** 2)
    np.testing.assert_allclose(all_of(params), expected, rtol=1e-4, atol=1e-10)


def test_padding_moves_no_penalty():
    """Sequences of 3, 2 and no steps: by themselves, and in a batch padded by as much as one likes with anything."""
    cell = CELLS["rnn"](H, gain=2.0)
    params, xs = setup(cell, T=3, B=3)
    lengths = jnp.array([3, 2, 0])

    def omega_of_a_loss(*args, lengths=None):
        return omega(*args, lengths=lengths, loss=lambda ys: jnp.sum(jnp.sin(ys)))

    draw_nothing_a_sequence = flossing, omega_of_a_loss

    def of(params, xs, lengths=None, penalties=(*draw_nothing_a_sequence, omega, jacobian)):
        return jnp.stack([f(cell, params, xs, KEY, lengths=lengths) for f in penalties])

    exact = jax.jit(of)(params, xs, lengths)

    def padded(steps, what):
        return jnp.full((3 + steps, 3, D), what).at[:3].set(xs).at[2:, 1].set(what)

    @jax.jit
    def values_and_slope(*args):
        values, pull = jax.vjp(lambda p: of(p, *args[1:]), args[0])
        return values, pull(jnp.ones(4))

    for what in (9.0, jnp.nan):
        values, slope = values_and_slope(params, padded(24, what), lengths)
        np.testing.assert_allclose(values, exact, rtol=1e-5)
        assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(slope))
    one = jax.jit(lambda p, x: of(p, x, penalties=draw_nothing_a_sequence))
    alone = [one(params, xs[:n, b : b + 1]) for b, n in ((0, 3), (1, 2))]
    np.testing.assert_allclose(exact[:2], np.mean(alone, axis=0), rtol=1e-4)


def test_a_clipped_backward_pass_is_not_what_penalties_and_diagnostics_measure():
    cell = linear(rotation(3.0))
    params, xs = cell.init(KEY, 4), jax.random.normal(KEY, (T, B, 4))

    @jax.jit
    def measures(max_norm=None):
        c = cell if max_norm is None else clip_cotangent(cell, max_norm)
        penalised = [f(c, params, xs, KEY) for f in (omega, flossing, jacobian)]
        flow = flow_by_path(c, params, xs, lambda ys: jnp.sum(ys[-1]))
        credit = credit_matrix(c, params, xs, lambda ys: jnp.sum(ys, -1)).matrix
        return penalised, flow, credit, record_units(c, params, xs), step_jacobians(c, params, xs[:, 0])

    plain, found = measures(), measures(0.05)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, plain)
    np.testing.assert_allclose(plain[0], [T * 4, np.log(3) ** 2, 4], rtol=1e-4)
    restored = unclipped(clip_cotangent(CELLS["lstm"](H), 1.0)._replace(output=jnp.add))
    assert restored.form is not None and restored.output is jnp.add


def test_gradients_of_the_penalties_against_finite_differences():
    """Also for omega, whose states and errors are constants: its differences hold them fixed by hand."""
    with jax.enable_x64(True):
        cell = CELLS["rnn"](H)
        params, xs = setup(cell, T=3)
        params, xs = jax.tree.map(lambda a: a.astype(float), (params, xs))
        direction = jax.tree.map(lambda p: jnp.cos(jnp.arange(p.size)).reshape(p.shape), params)

        def moved(e):
            return jax.tree.map(lambda p, d: p + e * d, params, direction)

        def check(function, penalty):
            value, gradient = jax.jit(jax.value_and_grad(penalty))(params)
            slope = sum(np.vdot(g, direction[name]) for name, g in gradient.items())
            f = jax.jit(function)
            np.testing.assert_allclose(value, f(params), rtol=1e-9)
            np.testing.assert_allclose(slope, (f(moved(1e-5)) - f(moved(-1e-5))) / 2e-5, rtol=1e-6)

        def both(p):
            return flossing(cell, p, xs, KEY, exponents=2) + jacobian(cell, p, xs, KEY) + orthogonal(cell, p, xs)

        check(both, both)

        def loss(ys):
            return jnp.sum(jnp.sin(ys[-1]))

        def after(h, t):
            for x in xs[t + 1 :]:
                h = cell.step(params, h, cell.project(params, x))
            return loss(h[None])

        @jax.jit
        def states_and_deltas():
            hs = [jnp.zeros((B, H)), *unroll(cell, params, xs)[1]]
            return hs, [jax.grad(after)(hs[t + 1], t) for t in range(3)]

        hs, deltas = states_and_deltas()

        def omega_with_the_rest_fixed(p):
            total = 0
            for t in range(3):
                _, pull = jax.vjp(lambda h, t=t: cell.step(p, h, cell.project(p, xs[t])), hs[t])
                ratio = jnp.linalg.norm(pull(deltas[t])[0], axis=-1) / jnp.linalg.norm(deltas[t], axis=-1)
                total += (ratio - 1) ** 2
            return jnp.mean(total)

        check(omega_with_the_rest_fixed, lambda p: omega(cell, p, xs, KEY, loss=loss))


def test_clip_cotangent_clips_each_step_of_each_sequence():
    """A linear cell of gain 3: uncut, dL/dh_t is 3^(T-t); cut, the passing norm never exceeds max_norm."""
    cell = linear(rotation(3.0))
    params, xs = cell.init(KEY, 4), jax.random.normal(KEY, (T, B, 4))

    @jax.jit
    @jax.vmap
    def run(max_norm):
        clipped = clip_cotangent(cell, max_norm)
        scales = jnp.array([1.0, 0.2])[:, None]

        def loss(xs):
            return jnp.sum(scales * unroll(clipped, params, xs)[1][-1] @ (jnp.ones(4) / 2))

        return jax.grad(loss)(xs), unroll(clipped, params, xs)[1]  # dL/dx_t = dL/dh_t

    (delta, ys) = run(jnp.array([0.5, 2.0, 1e9]))
    norms = np.linalg.norm(delta, axis=-1)
    plain = 3.0 ** np.arange(T - 1, -1, -1)
    np.testing.assert_allclose(norms[2], plain[:, None] * [1, 0.2], rtol=1e-4)
    # What passes to step t-1 is clipped there, after being multiplied by J_t.
    np.testing.assert_allclose(norms[0, :, 0], [0.5] * (T - 1) + [1], rtol=1e-4)
    np.testing.assert_allclose(norms[1, :, 0], [2] * (T - 1) + [1], rtol=1e-4)
    np.testing.assert_allclose(norms[1, :, 1], [2, 2, 1.8, 0.6, 0.2], rtol=1e-4)
    np.testing.assert_array_equal(ys[0], unroll(cell, params, xs)[1])
    assert clip_cotangent(CELLS["lstm"](H), 1.0).form is None


def test_errors_of_the_penalties():
    cell = linear(rotation(1.0))
    params, xs = cell.init(KEY, 4), jnp.zeros((2, 4))
    with pytest.raises(ValueError, match="has 1 to 4 of them"):
        flossing(cell, params, xs, KEY, exponents=5)
    with pytest.raises(ValueError, match="no parameter 'U'; parameters: W_h"):
        orthogonal(cell, params, xs, names=("U",))
    with pytest.raises(ValueError, match="square blocks"):
        orthogonal(cell, {"W_h": jnp.zeros((4, 6))}, xs)
    for name, reason in (
        ("brc", "a matrix that the state is multiplied by, and this cell has none"),
        ("cornn", r"the matrix of the state has shape \(8, 4\); it must be square blocks"),
        ("lru", "needs a cell made of gates or a W_h; the parameters are nu_log"),
        ("lstm_projected", r"it is \(2, 16\), and a part of the state has 4"),
    ):
        with pytest.raises(ValueError, match=reason):
            orthogonal(CELLS[name](4), CELLS[name](4).init(KEY, 4), xs)


@pytest.mark.slow
def test_the_orthogonality_penalty_acts_on_the_matrices_that_act():
    """On what the state is multiplied by, however it is made, and not on what happens to be called W_h."""

    def distance(W):
        return np.sum((W.T @ W - np.eye(len(W))) ** 2)

    def penalty(name, **options):
        cell = CELLS[name](4, **options)
        params = jax.tree.map(lambda p: p + 0.1 * jnp.sin(jnp.arange(p.size)).reshape(p.shape), cell.init(KEY, 3))
        penalty = jax.jit(lambda p: orthogonal(cell, p, jnp.zeros((1, 3))))
        return penalty(params), jax.tree.map(np.asarray, params), jax.grad(penalty)(params)

    for name, of_params in {
        "rnn": lambda p: distance(p["W_h"]),
        "gru": lambda p: sum(distance(W) for W in np.split(p["W_h"], 3, axis=1)),
        "gru_cho": lambda p: sum(distance(W) for W in np.split(p["W_h"], 3, axis=1)),  # free
        "low_rank": lambda p: distance(p["n"] @ p["m"].T / 4),
        "antisymmetric": lambda p: distance(p["W_h"] - p["W_h"].T - 0.01 * np.eye(4)),
        "plrnn": lambda p: distance(p["W_h"] - np.diag(np.diag(p["W_h"]))),
        "leaky_rnn": lambda p: distance(p["W_h"]),
    }.items():
        found, params, gradient = penalty(name)
        np.testing.assert_allclose(found, of_params(params), rtol=1e-5)
        used = {"low_rank": ("m", "n")}.get(name, ("W_h",))
        assert {n for n, g in gradient.items() if np.any(g)} == set(used), name
    for name in ("exprnn", "scornn", "householder", "urnn", "eunn"):  # orthogonal whatever the parameters are
        assert penalty(name)[0] < 1e-9, name


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_runs_through_all_of_them(name):
    cell = CELLS[name](H)
    params, xs = setup(cell, T=3)

    @jax.jit
    def all_of(params, xs):
        return (
            credit_matrix(cell, params, xs, lambda ys: jnp.sum(jnp.abs(ys), axis=tuple(range(2, ys.ndim)))),
            flow_by_path(cell, params, xs, lambda ys: jnp.sum(jnp.abs(ys[-1]))),
            record_units(cell, params, xs)[:4],
            flossing(cell, params, xs, KEY),
        )

    for path, leaf in jax.tree_util.tree_leaves_with_path(all_of(params, xs)):
        assert np.all(np.isfinite(leaf)), path
