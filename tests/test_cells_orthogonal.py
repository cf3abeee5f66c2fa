"""Cells whose matrix is orthogonal: the papers' equations, what holds of it before and after training, starts."""

import math
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg
from oracles import absolute, check_equation, normal, relu, sigma

from rnnjax.cells import CELLS, ComplexState, eunn, exprnn, goru, householder, nnrnn, scornn, urnn
from rnnjax.cells.orthogonal import modrelu
from rnnjax.cells.orthogonal_matrices import exp_of_skew
from rnnjax.reports.diagnosis_measures import MEASURES

H, D = 5, 3
STORED = np.load(Path(__file__).parent / "data" / "orthogonal_vectors.npz", allow_pickle=False)
ORTHOGONAL = {
    "exprnn": exprnn,
    "exprnn-cayley": lambda H: exprnn(H, start="cayley"),
    "scornn": scornn,
    "householder": householder,
    "householder-m2": lambda H: householder(H, m=min(2, H), activation="modrelu"),
    "nnrnn": nnrnn,
    "urnn": urnn,
    "eunn": eunn,
}


def matrix(cell, params):
    """W of s = W h, as the paper has it."""
    return np.asarray(cell.weights(params)["W_h"]).T


def started(cell, D=D):
    """Initial parameters, and what is made of them."""
    params = cell.init(jax.random.key(0), D)
    return params | {n: a for n, a in cell.weights(params).items() if n not in params}


def strictly_upper(entries, size):
    """The matrix with these entries above its diagonal, row by row."""
    A, k = np.zeros((size, size), np.asarray(entries).dtype), 0
    for i in range(size):
        for j in range(i + 1, size):
            A[i, j] = entries[k]
            k += 1
    return A


def skew(entries, size):
    A = strictly_upper(entries, size)
    return A - A.T


# The papers' equations, in column form: W h is W times a column.


def modulus_relu(s, b):
    """sign(s) relu(|s| + b)."""
    s, b = np.broadcast_arrays(s, b)
    return np.where((absolute(s) + b).real > 0, np.sign(s.real) * (absolute(s) + b), 0)


def elman(make):
    """h_t = modrelu(W h_{t-1} + V x_t; b)."""
    return lambda p, h, x: modulus_relu((make(p) @ h.T + p["W_x"].T @ x.T).T, p["b"])


def exponential(p):
    return scipy.linalg.expm(skew(p["A"], H))


def cayley(p, rho=2):
    S, eye = skew(p["A"], H), np.eye(H)
    return np.linalg.inv(eye + S) @ (eye - S) @ np.diag([1.0] * (H - rho) + [-1.0] * rho)


def reflections(p, m=3):
    """H_1 ... H_m, one by one."""
    U, k = np.zeros((H, m), p["U"].dtype), 0
    for i in range(H):
        for j in range(min(i + 1, m)):
            U[i, j] = p["U"][k]
            k += 1
    W = np.eye(H)
    for u in U.T:
        W = W @ (np.eye(H) - 2 * np.outer(u, u) / (u @ u))
    return W


def leaky(p, h, x):
    s = (reflections(p) @ h.T + p["W_x"].T @ x.T).T + p["b"]
    return np.where(s.real > 0, s, 0.1 * s)


def schur(p):
    """P (Lambda + T) P^T with 5 units: two blocks, and gamma_3 alone."""
    L, k = np.zeros((H, H), p["T"].dtype), 0
    for b, theta in enumerate(p["theta"]):
        cos, sin = np.cos(theta), np.sin(theta)
        L[2 * b : 2 * b + 2, 2 * b : 2 * b + 2] = p["gamma"][b] * np.array([[cos, -sin], [sin, cos]])
    L[4, 4] = p["gamma"][2]
    for i in range(H):
        for j in range(i + 2 - i % 2, H):
            L[i, j] = p["T"][k]
            k += 1
    return exponential(p) @ L @ exponential(p).T


# What is complex is a real matrix of twice the size, so that the step in the imaginary direction is free for the slope.


def complex_elman(make):
    """h_t = modrelu(W h_{t-1} + V x_t; b) of h = [Re h, Im h], with |s| a little above 0."""

    def step(p, h, x):
        re, im = np.split(np.concatenate(h, axis=-1) @ make(p).T + x @ p["W_x"], 2, axis=-1)
        modulus = np.sqrt(re * re + im * im + 1e-10)
        scale = relu(modulus + p["b"]) / modulus
        h = ComplexState(scale * re, scale * im)
        return h, np.concatenate(h, axis=-1)

    return step


def real(re, im):
    """[Re h, Im h] -> [Re W h, Im W h]."""
    return np.block([[re, -im], [im, re]])


def phase(angles):
    return real(np.diag(np.cos(angles)), np.diag(np.sin(angles)))


def reflection(v):
    """I - 2 v v^* / |v|^2."""
    a, b = np.split(v, 2)
    outer = real(np.outer(a, a) + np.outer(b, b), np.outer(b, a) - np.outer(a, b))
    return np.eye(2 * H) - 2 * outer / (v @ v)


def restricted_unitary(p):
    turn = 2 * np.pi * np.outer(np.arange(H), np.arange(H)) / H
    F, inverse = (real(np.cos(turn), sign * np.sin(turn)) / math.sqrt(H) for sign in (-1, 1))
    swap = np.zeros((H, H))
    swap[np.arange(H), np.argsort(p["pi"].real)] = 1
    D, R = [phase(a) for a in p["theta"]], [reflection(v) for v in p["v"]]
    return D[2] @ R[1] @ inverse @ D[1] @ real(swap, 0 * swap) @ R[0] @ F @ D[0]


def layer(theta, phi, first):
    """Rotations of the pairs (first, first + 1), (first + 2, first + 3), ..., with a phase on the first of each."""
    re, im = np.eye(H, dtype=theta.dtype), np.zeros((H, H), theta.dtype)
    for k in range(len(theta)):
        pair = slice(first + 2 * k, first + 2 * k + 2)
        cos, sin = np.cos(theta[k]), np.sin(theta[k])
        re[pair, pair] = [[np.cos(phi[k]) * cos, -np.cos(phi[k]) * sin], [sin, cos]]
        im[pair, pair] = [[np.sin(phi[k]) * cos, -np.sin(phi[k]) * sin], [0, 0]]
    return real(re, im)


def efficient_unitary(p):
    W = np.eye(2 * H)
    for k in range(len(p["theta_A"])):
        W = layer(p["theta_A"][k], p["phi_A"][k], 0) @ W
        W = layer(p["theta_B"][k], p["phi_B"][k], 1) @ W
    return phase(p["omega"]) @ W


def gated_orthogonal(p, h, x):
    Q = np.eye(H)
    for a, b in zip(p["theta_A"], p["theta_B"], strict=True):
        Q = layer(b, 0 * b, 1)[:H, :H] @ layer(a, 0 * a, 0)[:H, :H] @ Q
    (W_r, W_z, W_n), (U_r, U_z), (b_r, b_z) = (
        np.split(p[name], n, axis=-1) for name, n in (("W_x", 3), ("W_h", 2), ("b", 2))
    )
    r = sigma(x @ W_r + h @ U_r + b_r)
    z = sigma(x @ W_z + h @ U_z + b_z)
    return z * h + (1 - z) * modulus_relu(x @ W_n + r * (Q @ h.T).T, p["b_n"])


EQUATIONS = {
    "exprnn": (exprnn(H), elman(exponential)),
    "scornn": (scornn(H), elman(cayley)),
    "householder": (householder(H, m=3), leaky),
    "nnrnn": (nnrnn(H), elman(schur)),
    "urnn": (urnn(H), complex_elman(restricted_unitary)),
    "eunn": (eunn(H, capacity=4), complex_elman(efficient_unitary)),
    "goru": (goru(H, capacity=4), gated_orthogonal),
}


@pytest.mark.parametrize("name", EQUATIONS)
def test_the_papers_equation(name):
    """Values and gradients, those through `weights` too: through the exponential, the solution and the reflections."""
    check_equation(*EQUATIONS[name])


# The matrix.


@pytest.mark.parametrize("name", ORTHOGONAL)
def test_the_matrix_is_orthogonal_at_the_start(name):
    cells = [ORTHOGONAL[name](size) for size in (1, 2, 7, 64)]
    for W in jax.jit(lambda: [started(cell)["W_h"] for cell in cells])():
        W = np.asarray(W, float)
        np.testing.assert_allclose(W.T @ W, np.eye(len(W)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["exprnn", "scornn", "householder"])
def test_the_matrix_stays_orthogonal_in_training(name):
    """A thousand steps of Adam and of RMSprop, towards another orthogonal matrix: as far as such a matrix can go."""
    cell, target = ORTHOGONAL[name](6), np.linalg.qr(normal(6, 6))[0].astype(np.float32)
    params = cell.init(jax.random.key(0), D)
    lanes = jax.tree.map(lambda a: jnp.stack([a, a]), params)
    optimizers = (optax.adam(0.01), optax.rmsprop(0.01))

    @jax.jit
    def train(lanes):
        def step(carry, _):
            lanes, states = carry
            loss = lambda p: jnp.mean((cell.weights(p)["W_h"] - target) ** 2)  # noqa: E731
            value, slopes = jax.vmap(jax.value_and_grad(loss))(lanes)
            given = [(jax.tree.map(lambda a, i=i: a[i], slopes), state) for i, state in enumerate(states)]
            updates, states = zip(*(o.update(*g) for o, g in zip(optimizers, given, strict=True)), strict=True)
            return (optax.apply_updates(lanes, jax.tree.map(lambda *a: jnp.stack(a), *updates)), states), value

        (last, _), losses = jax.lax.scan(step, (lanes, tuple(o.init(params) for o in optimizers)), None, 1000)
        return jax.vmap(cell.weights)(last)["W_h"], losses

    before = matrix(cell, params).T
    Ws, losses = train(lanes)
    assert np.all(losses[-1] < 0.6 * losses[0])
    for W in np.asarray(Ws, float):
        assert np.abs(W - before).max() > 0.3
        np.testing.assert_allclose(W.T @ W, np.eye(6), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["exponential", "cayley", "householder"])
def test_stored_matrices_of_geotorch_and_pytorch(name):
    """The same W of the same parameters, and the same gradient through it."""
    stored = {n.removeprefix(f"{name}/"): STORED[n] for n in STORED.files if n.startswith(f"{name}/")}
    cell = {"exponential": exprnn(H), "cayley": scornn(H, rho=0), "householder": householder(H, m=3)}[name]
    letter = "U" if name == "householder" else "A"
    entries = np.tril_indices(H, 0, 3) if letter == "U" else np.arange(10)  # of U those that are not 0 by definition

    @jax.jit
    def run(given, dW):
        def loss(given):
            W = cell.weights({letter: given, "W_x": jnp.zeros((D, H)), "b": jnp.zeros(H)})["W_h"].T
            return jnp.sum(dW * W), W

        return jax.value_and_grad(loss, has_aux=True)(given)

    with jax.enable_x64(True):
        (_, W), slope = run(stored[letter][entries], stored["dW"])
    np.testing.assert_allclose(W, stored["W"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(slope, stored[f"d{letter}"][entries], rtol=0, atol=1e-12)


def test_the_exponential_of_a_skew_matrix():
    """scipy's, values and derivative, up to the angles that the docstring names; orthogonal past them; many at once."""
    unit = [skew(normal(21, seed=seed), 7) for seed in (1, 2)]
    unit = np.stack([S / np.linalg.norm(S, 2) for S in unit])

    @jax.jit
    @jax.vmap
    def run(S, along):
        return jax.jvp(exp_of_skew, (S,), (along,))

    for angle in (0.0, 0.1, math.pi, 20.0):
        with jax.enable_x64(True):
            W, slope = run(angle * unit, unit[::-1])
        expected = [scipy.linalg.expm_frechet(angle * S, along) for S, along in zip(unit, unit[::-1], strict=True)]
        np.testing.assert_allclose(W, [e for e, _ in expected], rtol=0, atol=2e-14)
        np.testing.assert_allclose(slope, [d for _, d in expected], rtol=0, atol=1e-13)
    for angle in (3.0, 40.0, 100.0):
        W = np.asarray(run((angle * unit).astype(np.float32), unit.astype(np.float32))[0], float)
        np.testing.assert_allclose(W.mT @ W, np.broadcast_to(np.eye(7), W.shape), rtol=0, atol=1e-6)


def test_the_scaled_cayley_transform_needs_its_signs_for_an_eigenvalue_of_minus_one():
    def nearest(rho, size):
        """The distance of the spectrum to -1 at A of this size, in float64."""
        with jax.enable_x64(True):
            p = {"A": size * normal(15), "W_x": np.zeros((D, 6)), "b": np.zeros(6)}
            return np.abs(np.linalg.eigvals(matrix(scornn(6, rho=rho), p)) + 1).min()

    for size in (0.1, 1.0, 10.0):  # it comes near, as the angle 2 atan(size), and nearer the larger A is
        assert nearest(0, size) > 0.01 / size
    assert nearest(1, 0.0) == nearest(3, 0.0) == 0 and nearest(0, 0.0) == 2


def test_a_product_of_reflections_has_the_sign_of_their_number():
    cells = [householder(5, m=m) for m in (1, 4, 5)]
    for m, W in zip((1, 4, 5), jax.jit(lambda: [started(cell)["W_h"] for cell in cells])(), strict=True):
        np.testing.assert_allclose(np.linalg.det(W), (-1) ** m, rtol=1e-5)
        assert np.linalg.matrix_rank(W - np.eye(5), tol=1e-4) == m  # each reflection leaves all but one direction


def test_the_eigenvalues_of_a_non_normal_matrix_are_its_parameters(size=5):
    """gamma exp(+-i theta), whatever the triangle above them is; and with that it is not normal."""
    cell = nnrnn(size)
    with jax.enable_x64(True):
        params = {n: np.asarray(a, float) for n, a in cell.init(jax.random.key(0), D).items()}
        params |= {n: params[n] + 0.3 * normal(*params[n].shape) for n in ("A", "gamma", "T")}
        W = np.asarray(jax.jit(cell.weights)(params)["W_h"]).T
    gamma, theta = params["gamma"], params["theta"]
    expected = np.concatenate([np.exp(1j * a * theta) * gamma[: size // 2] for a in (1, -1)])
    expected = np.append(expected, gamma[size // 2 :])
    found = np.linalg.eigvals(W)
    assert np.abs(found[:, None] - expected).min(0).max() < 1e-10 > np.abs(found[:, None] - expected).min(1).max()
    assert np.linalg.norm(W @ W.T - W.T @ W) > 0.1


@pytest.mark.parametrize(
    ("name", "names"),
    [("goru", ["r", "z", "n_h"]), ("exprnn", ["s"]), ("urnn", ["W_h"]), ("cornn", None)],
)
def test_a_diagnosis_shows_the_matrix_that_acts(name, names):
    """What is made of the parameters; and nothing where W_h maps a part of the state only, which has no spectrum."""
    cell = CELLS[name](4)
    subject = types.SimpleNamespace(layers=[(cell, jax.jit(lambda: cell.init(jax.random.key(0), D))(), None)])
    numbers = MEASURES["recurrent_matrix"](subject).numbers
    assert numbers.get("names") == names
    if names:
        assert numbers["orthogonality_error"][-1] < 1e-5


# modReLU.


def test_modrelu_has_a_finite_slope_everywhere():
    s, b = np.meshgrid([-2.0, -0.5, -0.0, 0.0, 0.5, 2.0], [-1.0, 0.0, 0.3])
    value, (by_s, by_b) = jax.vmap(jax.value_and_grad(modrelu, (0, 1)))(s.ravel(), b.ravel())
    np.testing.assert_allclose(value, modulus_relu(s, b).ravel(), atol=1e-7)
    np.testing.assert_array_equal(by_s, (np.abs(s) + b >= 0).ravel())
    np.testing.assert_array_equal(by_b, (np.sign(s) * (np.abs(s) + b >= 0)).ravel())


def test_a_complex_modrelu_has_a_finite_slope_at_zero():
    """No state and no input: the slope is relu(b) / 1e-5 there, where that of |s| without more is none."""
    cell = eunn(H)
    params = cell.init(jax.random.key(0), D) | {"b": jnp.linspace(-0.01, 0.01, H)}

    @jax.jit
    @jax.grad
    def slope(params):
        weights = cell.weights(params)
        carry = cell.initial_carry(weights, ())
        for _ in range(2):
            carry = cell.step(weights, carry, cell.project(weights, jnp.zeros(D)))
        return jnp.sum(cell.output(weights, carry, None))

    assert all(np.all(np.isfinite(a)) for a in slope(params).values())


@pytest.mark.parametrize("name", ["exprnn", "householder-m2"])
def test_the_jacobian_is_orthogonal_where_modrelu_is_linear(name):
    """Where every unit is past its threshold, and at a state of zeros with b = 0."""
    cell = ORTHOGONAL[name](H)
    params = cell.init(jax.random.key(0), D) | {"b": jnp.zeros(H)}
    slope = jax.jit(jax.jacobian(lambda h: cell.step(cell.weights(params), h, {"s": jnp.zeros(H)})))
    for h in (normal(H).astype(np.float32), np.zeros(H, np.float32)):
        J = slope(h)
        np.testing.assert_allclose(J @ J.T, np.eye(H), atol=1e-5)


# Starts and options.


def test_initial_values():
    cells = {
        "exp": exprnn(64),
        "exp-cayley": exprnn(64, start="cayley"),
        "sco": scornn(64, rho=10),
        "sco-odd": scornn(64, rho=11),
        "house": householder(64, m=20),
        "nn": nnrnn(64),
        "u": urnn(64),
        "eu": eunn(64, capacity=4),
        "go": goru(64),
    }
    drawn = jax.jit(lambda: {name: started(cell, 200) for name, cell in cells.items()})()
    drawn = {name: {n: np.asarray(a) for n, a in params.items()} for name, params in drawn.items()}
    blocks = {name: skew(p["A"], 64) for name, p in drawn.items() if "A" in p}
    for S in blocks.values():
        np.testing.assert_array_equal(np.abs(S).sum(0)[::2], np.abs(S[::2, 1::2].diagonal()))  # and nothing else
    for name in ("exp", "nn"):
        angles = blocks[name][::2, 1::2].diagonal()
        assert 2.5 < np.abs(angles).max() <= math.pi and np.abs(angles.mean()) < 1
    for name in ("exp-cayley", "sco"):
        tangents = blocks[name][::2, 1::2].diagonal()
        assert -1 <= tangents.min() < -0.8 and -0.2 < tangents.max() <= 0
        np.testing.assert_allclose(np.mean(2 * np.arctan(-tangents)), math.pi / 4, atol=0.15)
    for name, rho in (("sco", 10), ("sco-odd", 11)):
        np.testing.assert_allclose(np.linalg.det(drawn[name]["W_h"]), (-1) ** rho, rtol=1e-4)
    for name, b, std in (
        ("exp", 0.01, math.sqrt(2 / 200)),
        ("sco", 0, 0.01 / math.sqrt(3)),
        ("house", 0, math.sqrt(2 / 264)),
        ("nn", 0.01, math.sqrt(2 / 264)),
        ("u", 0.01, math.sqrt(2 / 328)),
        ("eu", 0, 0.01 / math.sqrt(3)),
    ):
        assert 0.8 * b <= np.abs(drawn[name]["b"]).max() <= b
        np.testing.assert_allclose(np.std(drawn[name]["W_x"]), std, rtol=0.05)
    for angles in (drawn["u"]["theta"], *(drawn["eu"][n] for n in ("theta_A", "theta_B", "phi_A", "phi_B", "omega"))):
        assert -math.pi <= angles.min() < -2.2 and 2.2 < angles.max() <= math.pi
    assert sorted(drawn["u"]["pi"]) != drawn["u"]["pi"].tolist() and sorted(drawn["u"]["pi"]) == list(range(64))
    assert 0.9 < np.abs(drawn["u"]["h_0"]).max() * math.sqrt(128 / 3) <= 1
    np.testing.assert_array_equal(drawn["go"]["b"], np.repeat([2, 0], 64))
    np.testing.assert_array_equal(drawn["go"]["b_n"], np.full(64, 0.01, np.float32))
    np.testing.assert_allclose([np.std(drawn["go"]["W_x"])], 0.01 / math.sqrt(3), rtol=0.05)
    assert drawn["house"]["U"].shape == (64 * 20 - 20 * 19 // 2,)
    np.testing.assert_allclose(np.sum(drawn["house"]["U"] ** 2), 20, rtol=1e-5)  # columns of length 1
    gamma, theta, T = (drawn["nn"][name] for name in ("gamma", "theta", "T"))
    assert np.all(gamma == 1) and not np.any(T) and T.shape == (64 * 63 // 2 - 32,)
    assert 0 <= theta.min() < 1 and 5 < theta.max() <= 2 * math.pi


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: exprnn(H, start="haar"), "unknown start 'haar'; allowed: henaff, cayley"),
        (lambda: scornn(H, rho=6), "rho is 6; allowed: 0, ..., 5"),
        (lambda: scornn(H, rho=-1), "rho is -1; allowed: 0, ..., 5"),
        (lambda: eunn(H, capacity=3), "capacity is 3; allowed: 2, 4, ..."),
        (lambda: goru(H, capacity=0), "capacity is 0; allowed: 2, 4, ..."),
        (lambda: householder(H, m=0), "m is 0; allowed: 1, ..., 5"),
        (lambda: householder(H, activation="oplu"), "unknown activation 'oplu'; allowed: leaky_relu, modrelu"),
    ],
)
def test_options_that_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
