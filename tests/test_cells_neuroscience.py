"""Rate networks, piecewise linear networks and reservoirs: equations in NumPy, ReservoirPy, and what papers claim."""

import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import check_equation, jit, normal, relu, sigma

from rnnjax.cells.check import draws_noise
from rnnjax.cells.neuroscience import dend_plrnn, esn, leaky_rnn, low_rank, plrnn
from rnnjax.engine.unroll import unroll
from rnnjax.initializers import orthogonal, spectral_radius

T, B, D, H = 5, 2, 3, 4
VECTORS = np.load(Path(__file__).parent / "data" / "neuroscience_vectors.npz", allow_pickle=False)


def song(alpha, phi):
    """Song, Yang & Wang (2016), without noise."""

    def step(p, x, u):
        x = (1 - alpha) * x + alpha * (phi(x) @ p["W_h"] + u @ p["W_x"] + p["b"])
        return x, phi(x)

    return step


def song_with_dale(p, x, u):
    """The same in column form, W^rec = W^{rec,+} D: a column, what a unit sends, has one sign; two of four inhibit."""
    W = relu(p["W_h"].T) @ np.diag([1, 1, -1, -1])
    currents = [
        0.8 * one + 0.2 * (W @ relu(one) + p["W_x"].T @ input + p["b"]) for one, input in zip(x, u, strict=True)
    ]
    return np.stack(currents), relu(np.stack(currents))


def low(p, x, u):
    """Mastrogiuseppe & Ostojic (2018): J_ij = sum_r m_i^r n_j^r / N."""
    J = sum(np.outer(p["m"][:, r], p["n"][:, r]) for r in range(p["m"].shape[1])) / H
    x = x + 0.5 * (-x + np.tanh(x) @ J.T + u @ p["W_x"] + p["b"])
    return x, np.tanh(x)


def off_diagonal(W):
    return W - np.diag(np.diag(W))


def piecewise(p, z, s):
    """Durstewitz (2017), without thresholds."""
    return z @ np.diag(p["A"]) + relu(z) @ off_diagonal(p["W_h"]) + s @ p["W_x"] + p["b"]


def dendritic(clipped):
    """Brenner et al. (2022), eqs. 2 and 3."""

    def step(p, z, s):
        phi = sum(a * (relu(z - h) - (relu(z) if clipped else 0)) for a, h in zip(p["alpha"], p["theta"], strict=True))
        return p["A"] * z + phi @ off_diagonal(p["W_h"]) + s @ p["W_x"] + p["b"]

    return step


def echo(leak):
    """Jaeger (2001): nothing of a reservoir has a gradient, so that its parameters stand here for their real parts."""

    def step(p, x, u):
        W_x, W_h, b = (p[name].real for name in ("W_x", "W_h", "b"))
        return (1 - leak) * x + leak * np.tanh(u @ W_x + x @ W_h + b)

    return step


EQUATIONS = {
    "rate relu": (leaky_rnn(H), song(0.2, relu)),
    "rate tanh": (leaky_rnn(H, alpha=0.5, activation="tanh"), song(0.5, np.tanh)),
    "rate softplus": (leaky_rnn(H, activation="softplus"), song(0.2, lambda x: np.log(1 + np.exp(x)))),
    "rate sigmoid": (leaky_rnn(H, activation="sigmoid"), song(0.2, sigma)),
    "rate Dale": (leaky_rnn(H, excitatory=0.5), song_with_dale),
    "rank 1": (low_rank(H, alpha=0.5), low),
    "rank 3": (low_rank(H, rank=3, alpha=0.5), low),
    "piecewise": (plrnn(H), piecewise),
    "dendrites": (dend_plrnn(H, bases=3), dendritic(False)),
    "clipped": (dend_plrnn(H, bases=3, clipped=True), dendritic(True)),
    "echo": (esn(H), echo(1.0)),
    "echo leaky": (esn(H, leak=0.3), echo(0.3)),
}


SLOW = ("rate tanh", "rate softplus", "rate sigmoid", "rank 1", "echo leaky")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in EQUATIONS])
def test_the_papers_equation(name):
    check_equation(*EQUATIONS[name])


@pytest.mark.parametrize("case", ["plain", "leaky"])
def test_stored_reservoirpy_states(case):
    W, Win, bias, lr, u, x = (VECTORS[f"{case}/{name}"] for name in ("W", "Win", "bias", "lr", "u", "x"))
    cell = esn(len(W), leak=float(lr))
    params = {"W_x": Win.T, "W_h": W.T, "b": bias}
    _, ys = jit(lambda p, u: unroll(cell, p, u))(jax.tree.map(np.float32, params), u.astype(np.float32))
    np.testing.assert_allclose(ys, x, atol=1e-5)


# The echo state network.


def test_the_spectral_radius_is_the_largest_eigenvalue():
    draws = [jax.random.normal(jax.random.key(n), (n, n)) for n in (1, 2, 3, 10, 60)]
    rotation = jnp.array([[0.3, -0.4], [0.4, 0.3]])  # a pair of eigenvalues of 0.5
    jordan = jnp.array([[0.7, 100.0], [0.0, 0.7]])  # far from normal
    draws += [rotation, jordan, 1e-20 * draws[3], 1e20 * draws[3], orthogonal(1.7)(jax.random.key(0), (8, 8))]
    found = jit(lambda draws: [spectral_radius(W) for W in draws])(draws)
    expected = [np.abs(np.linalg.eigvals(np.asarray(W, float))).max() for W in draws]
    np.testing.assert_allclose(found, expected, rtol=2e-4)


def test_the_reservoir_is_as_asked():
    def init(radius, scale, bias):
        return esn(100, spectral_radius=radius, input_scale=scale, bias_scale=bias, density=0.05).init(
            jax.random.key(0), 30
        )

    asked = [(0.5, 1.0, 0.0), (1.3, 0.2, 0.1)]
    drawn = jit(jax.vmap(init))(*np.array(asked).T)  # traced, as in a sweep
    for k, (radius, scale, bias) in enumerate(asked):
        W, W_x, b = (np.asarray(drawn[name][k]) for name in ("W_h", "W_x", "b"))
        assert abs(np.abs(np.linalg.eigvals(W)).max() - radius) < 1e-3
        assert np.all((W != 0).sum(axis=0) == 5)  # each unit sees five
        assert 0.98 * scale < np.abs(W_x).max() <= scale
        assert (0.9 * bias <= np.abs(b).max() <= bias) if bias else not np.any(b)
    one = np.asarray(esn(6).init(jax.random.key(3), 1)["W_h"])
    assert np.all((one != 0).sum(axis=0) == 1)  # a tenth of six is less than one
    np.testing.assert_allclose(np.abs(np.linalg.eigvals(one)).max(), 0.9, rtol=1e-4)


def test_the_reservoir_has_no_gradient_and_forgets_its_start():
    cell = esn(50, leak=0.5)
    xs = normal(200, D).astype(np.float32)

    @jit
    def run(key, xs):
        params = cell.init(key, D)

        def loss(params, xs):
            return jnp.sum(unroll(cell, params, xs)[1] ** 2)

        starts = (jnp.zeros(50), jnp.ones(50))
        return jax.grad(loss, (0, 1))(params, xs), [unroll(cell, params, xs, start)[0] for start in starts]

    (dparams, dxs), (one, other) = run(jax.random.key(0), xs)
    assert not any(np.any(d) for d in jax.tree.leaves(dparams)) and np.any(dxs)
    np.testing.assert_allclose(one, other, atol=1e-4)


# The rate networks.


def test_dales_law_holds_through_training():
    cell = leaky_rnn(40, excitatory=0.8)
    params, xs = cell.init(jax.random.key(0), D), normal(20, B, D).astype(np.float32)
    W = np.asarray(cell.weights(params)["W_h"])
    np.testing.assert_allclose(np.abs(np.linalg.eigvals(W)).max(), 1.5, rtol=1e-3)
    np.testing.assert_allclose(W[:32].sum() / -W[32:].sum(), 1, atol=0.15)  # balanced
    np.testing.assert_allclose(W[:32].std() / W[:32].mean(), 2**-0.5, rtol=0.05)  # a gamma distribution of shape 2

    @jit
    def train(params):
        def loss(params):
            return jnp.mean((unroll(cell, params, xs)[1] - 1) ** 2)

        def step(params, _):
            value, gradient = jax.value_and_grad(loss)(params)
            return jax.tree.map(lambda p, d: p - 0.03 * d, params, gradient), value

        return jax.lax.scan(step, params, length=100)

    trained, values = train(params)
    after = np.asarray(cell.weights(trained)["W_h"])
    assert values[-1] < 0.7 * values[0] and np.abs(after - W).max() > 0.01
    assert np.any(trained["W_h"] < 0)  # there the law has something to hold
    assert np.all(after[:32] >= 0) and np.all(after[32:] <= 0) and np.any(after[:32] > 0) and np.any(after[32:] < 0)


@pytest.mark.parametrize(("share", "excited"), [(0.0, 0), (0.5, 2), (0.7, 3), (1.0, 4)])
def test_the_share_of_excitatory_units(share, excited):
    cell = leaky_rnn(H, excitatory=share)
    W = np.asarray(cell.weights(cell.init(jax.random.key(0), D))["W_h"])
    assert np.all(np.sign(W) == np.where(np.arange(H) < excited, 1, -1)[:, None])


def test_noise_is_drawn_with_a_key_and_has_the_size_that_is_asked():
    drawn = [draws_noise(make(H, noise=noise), D) for make in (leaky_rnn, low_rank) for noise in (0.0, 0.1)]
    assert drawn == [False, True, False, True]  # without noise any gradient will do

    @jit
    def run(alpha, noise):
        found = []
        for cell in (leaky_rnn(H, activation="tanh", alpha=alpha, noise=noise), low_rank(H, alpha=alpha, noise=noise)):
            params = jax.tree.map(jnp.zeros_like, cell.init(jax.random.key(0), D))
            found.append(
                [unroll(cell, params, jnp.zeros((2, 2000, D)), key=key)[0] for key in (None, jax.random.key(1))]
            )
        return found

    for alpha, noise in ((0.2, 0.1), (0.5, 0.3)):
        for without, with_key in run(alpha, noise):
            assert not np.any(without)
            one_step = 2 * alpha * noise**2
            np.testing.assert_allclose(np.std(with_key), np.sqrt(one_step * (1 + (1 - alpha) ** 2)), rtol=0.03)


@pytest.mark.parametrize("rank", [1, 3])
def test_the_matrix_has_the_rank_that_is_asked(rank):
    cell = low_rank(20, rank=rank)
    params = cell.init(jax.random.key(0), D)
    W = np.asarray(cell.weights(params)["W_h"], float)
    values = np.linalg.svd(W, compute_uv=False)
    assert values[rank - 1] > 0.1 and values[rank] < 1e-6
    if rank == 1:  # the one eigenvalue is the overlap
        np.testing.assert_allclose(np.trace(W), np.sum(params["m"] * params["n"]) / 20, rtol=1e-4)
    np.testing.assert_allclose([np.std(params[name]) for name in ("m", "n")], 1, atol=0.35)


def test_a_low_rank_state_stays_in_few_dimensions():
    """Without inputs x moves in the plane of m alone, whatever the units are."""
    cell = low_rank(20, rank=2)
    params = cell.init(jax.random.key(0), 0)
    params |= {"m": 3 * params["m"]}
    start = jnp.asarray(params["m"] @ np.array([0.5, -1.0]))
    raw = cell._replace(output=lambda weights, x, z: x)
    _, xs = jit(lambda p, c: unroll(raw, p, jnp.zeros((30, 0)), c))(params, start)
    values = np.linalg.svd(np.asarray(xs, float), compute_uv=False)
    assert values[1] > 0.1 and values[2] < 1e-4


def test_alpha_leak_and_radius_may_be_traced():
    """All values of a sweep in one program, with the engine's own gradient, as each by itself."""
    xs = normal(T, B, D).astype(np.float32)
    makes = {
        "alpha": lambda a: leaky_rnn(H, alpha=a, noise=0.1),
        "excitatory": lambda a: leaky_rnn(H, alpha=a, excitatory=0.5, spectral_radius=a),
        "low": lambda a: low_rank(H, alpha=a),
        "leak": lambda a: esn(H, leak=a, spectral_radius=a),
    }

    def run(a, make):
        cell = make(a)
        params = cell.init(jax.random.key(0), D)

        def loss(params, xs):
            return jnp.sum(unroll(cell, params, xs, method="deferred", key=jax.random.key(1))[1] ** 2)

        return jax.value_and_grad(loss, (0, 1))(params, xs)

    values = jnp.array([0.3, 0.8])
    swept, alone = jit(
        lambda values: (
            {name: jax.vmap(lambda a, make=make: run(a, make))(values) for name, make in makes.items()},
            {name: [run(a, make) for a in (0.3, 0.8)] for name, make in makes.items()},
        )
    )(values)
    for name, pair in alone.items():
        jax.tree.map(lambda s, *p: np.testing.assert_allclose(s, p, rtol=1e-4, atol=1e-5), swept[name], *pair)


# The piecewise linear networks.


@pytest.mark.parametrize("name", ["piecewise", "dendrites", "clipped"])
def test_a_piecewise_linear_network_is_linear_between_its_thresholds(name):
    cell = EQUATIONS[name][0]
    params = jax.tree.map(lambda a: a + 0.3, cell.init(jax.random.key(0), D))
    kinks = np.sort(np.vstack([np.zeros(H), *np.asarray(params.get("theta", np.zeros((0, H))))]), axis=0)
    w, z = cell.weights(params), cell.project(cell.weights(params), jnp.ones(D))

    def bend(low, high):
        """How far the step at the middle of a segment is from the middle of its steps."""
        a, b, middle = (np.asarray(cell.step(w, jnp.asarray(h, jnp.float32), z)) for h in (low, high, (low + high) / 2))
        return np.abs((a + b) / 2 - middle).max()

    edges = [kinks[0] - 2, *kinks, kinks[-1] + 2]
    for low, high in itertools.pairwise(edges):
        assert bend(low + 1e-4, high - 1e-4) < 1e-5
    assert bend(edges[0], edges[-1]) > 0.02
    if name == "clipped":
        far = [np.asarray(cell.step(w, jnp.full(H, s), z) - w["A"] * s) for s in (1e3, 2e3)]
        np.testing.assert_allclose(*far, atol=1e-2)  # what the others send is bounded


def test_initial_values():
    D, H = 3, 60
    cells = plrnn(H), dend_plrnn(H, bases=50), leaky_rnn(H)
    p, p_dendrites, p_rates = jit(lambda key: [cell.init(key, D) for cell in cells])(jax.random.key(0))
    assert not np.any(np.diag(p["W_h"]))
    both = np.diag(p["A"]) + np.asarray(p["W_h"])
    np.testing.assert_allclose(both, both.T, atol=1e-7)
    eigenvalues = np.linalg.eigvalsh(both)
    np.testing.assert_allclose(eigenvalues[-1], 1, rtol=1e-4)
    np.testing.assert_allclose(eigenvalues[0], 1 / 5, atol=0.03)  # I + R^T R / H has eigenvalues from 1 to 5
    assert 0.9 < np.abs(p["b"]).max() * np.sqrt(H) <= 1
    p = p_dendrites
    assert p["theta"].shape == (50, H) and p["alpha"].shape == (50,)
    np.testing.assert_allclose([np.mean(p["theta"]), np.std(p["theta"])], [0, 1], atol=0.05)
    assert 0.9 < np.abs(p["alpha"]).max() * np.sqrt(50) <= 1
    np.testing.assert_allclose(np.abs(np.linalg.eigvals(p_rates["W_h"])).max(), 1.1, rtol=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: leaky_rnn(H, activation="relv"), "unknown activation 'relv'; allowed: relu, tanh, softplus, sigmoid"),
        (lambda: leaky_rnn(H, alpha=0.0), "alpha is 0.0; allowed: more than 0"),
        (lambda: leaky_rnn(H, excitatory=1.2), "excitatory is 1.2; allowed: a share from 0 to 1, or None"),
        (lambda: low_rank(H, rank=5), "rank is 5; allowed: 1 to 4, the units"),
        (lambda: low_rank(H, alpha=-1), "alpha is -1; allowed: more than 0"),
        (lambda: dend_plrnn(H, bases=0), "bases is 0; allowed: 1, 2, ..."),
        (lambda: esn(H, density=0.0), "density is 0.0; allowed: above 0, up to 1"),
        (lambda: esn(H, leak=0), "leak is 0; allowed: more than 0"),
    ],
)
def test_options_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
