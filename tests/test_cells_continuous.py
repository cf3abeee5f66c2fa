"""Cells that are differential equations: against the papers' equations in NumPy, and what the papers say of them."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import absolute, check_equation, jit, normal, parts, relu, sigma

from rnnjax.cells import CELLS, antisymmetric, antisymmetric_gated, cfc, cornn, lem, lipschitz, ltc, unicornn, wrnn
from rnnjax.engine.unroll import unroll

D, H = 3, 4
NCPS = np.load(Path(__file__).parent / "data" / "ncps_vectors.npz", allow_pickle=False)


def lem_step(p, carry, x, old=False):
    """Rusch et al. (2021)."""
    (V_1, V_2, V_z, V_y), (b_1, b_2, b_z, b_y) = parts(p, "W_x", 4), parts(p, "b", 4)
    W_1, W_2, W_z = parts(p, "W_h", 3)
    y, z = carry
    d_1 = 0.7 * sigma(y @ W_1 + x @ V_1 + b_1)
    d_2 = 0.7 * sigma(y @ W_2 + x @ V_2 + b_2)
    z_new = (1 - d_1) * z + d_1 * np.tanh(y @ W_z + x @ V_z + b_z)
    y_new = (1 - d_2) * y + d_2 * np.tanh((z if old else z_new) @ p["W_y"] + x @ V_y + b_y)
    return type(carry)(y_new, z_new), y_new


def cornn_step(p, carry, x, old=False):
    """Rusch & Mishra (2020)."""
    y, z = carry
    W_y, W_z = p["W_h"][:H], p["W_h"][H:]
    force = np.tanh(y @ W_y + z @ W_z + x @ p["W_x"] + p["b"])
    z_new = z + 0.3 * force - 0.3 * 2.7 * y - 0.3 * 1.2 * z
    y_new = y + 0.3 * (z if old else z_new)
    return type(carry)(y_new, z_new), y_new


def unicornn_step(p, carry, x):
    """Rusch & Mishra (2021)."""
    y, z = carry
    dt = 0.3 * sigma(p["c"])
    z = z - dt * (np.tanh(p["W_h"] * y + x @ p["W_x"] + p["b"]) + 2.0 * y)
    y = y + dt * z
    return type(carry)(y, z), y


def wrnn_step(p, h, x):
    """Keller et al. (2023), two rings of three units: unit by unit."""
    u, h = p["u"], h.reshape(*h.shape[:-1], 2, 3)
    s = (x @ p["W_x"] + p["b"]).reshape(h.shape)
    for c, d, i, j in np.ndindex(2, 2, 3, 3):
        s[..., c, i] += u[c, d, j] * h[..., d, (i + j - 1) % 3]
    return relu(s).reshape(*s.shape[:-2], 6)


def antisymmetric_step(p, h, x):
    """Chang et al. (2019)."""
    A = p["W_h"] - p["W_h"].T - 0.4 * np.eye(H)
    return h + 0.3 * np.tanh(h @ A + x @ p["W_x"] + p["b"])


def antisymmetric_gated_step(p, h, x):
    """Chang et al. (2019)."""
    (V_z, V_h), (b_z, b_h) = parts(p, "W_x", 2), parts(p, "b", 2)
    A = p["W_h"] - p["W_h"].T - 0.4 * np.eye(H)
    return h + 0.3 * sigma(h @ A + x @ V_z + b_z) * np.tanh(h @ A + x @ V_h + b_h)


def lipschitz_step(p, h, x):
    """Erichson et al. (2020), by Euler."""
    A, W = (0.2 * (M + M.T) + 0.8 * (M - M.T) - 0.1 * np.eye(H) for M in (p["M_A"], p["M_W"]))
    return h + 0.3 * (h @ A + np.tanh(h @ W + x @ p["W_x"] + p["b"]))


def cfc_step(mode, layers):
    """Hasani et al. (2021), a step of 0.7."""

    def step(p, h, x):
        u = x @ p["W_x"] + h @ p["W_h"] + p["b"]
        for k in range(2, layers + 2):
            u = 1.7159 * np.tanh(0.666 * u) @ p[f"W_{k}"] + p[f"b_{k}"]
        if mode == "pure":
            return -p["A"] * np.exp(-0.7 * (absolute(p["w_tau"]) + absolute(u))) * u + p["A"]
        f, g, a, b = np.split(u, 4, axis=-1)
        late = sigma(a * 0.7 + b)
        return np.tanh(f) * (1 if mode == "no_gate" else 1 - late) + late * np.tanh(g)

    return step


def ltc_step(p, v, x):
    """Hasani et al. (2020), two steps of the solver in 0.7, synapse by synapse."""
    w, w_x, gleak, cm = (np.log(1 + np.exp(p[name])) for name in ("w", "w_x", "gleak", "cm"))
    for _ in range(2):
        new = np.zeros_like(v * x[..., :1])
        for i in range(H):
            capacity = cm[i] / (0.7 / 2)
            above = capacity * v[..., i] + gleak[i] * p["vleak"][i]
            below = capacity + gleak[i]
            for j in range(H):
                s = w[j, i] * sigma(p["sigma"][j, i] * (v[..., j] - p["mu"][j, i]))
                above, below = above + s * p["E"][j, i], below + s
            for j in range(D):
                s = w_x[j, i] * sigma(p["sigma_x"][j, i] * (x[..., j] - p["mu_x"][j, i]))
                above, below = above + s * p["E_x"][j, i], below + s
            new[..., i] = above / below
        v = new
    return v


EQUATIONS = {
    "lem": (lem(H, dt=0.7), lem_step),
    "cornn": (cornn(H, dt=0.3, gamma=2.7, epsilon=1.2), cornn_step),
    "unicornn": (unicornn(H, dt=0.3, alpha=2.0), unicornn_step),
    "wrnn": (wrnn(6, channels=2), wrnn_step),
    "antisymmetric": (antisymmetric(H, epsilon=0.3, gamma=0.4), antisymmetric_step),
    "antisymmetric_gated": (antisymmetric_gated(H, epsilon=0.3, gamma=0.4), antisymmetric_gated_step),
    "lipschitz": (lipschitz(H, epsilon=0.3, beta=0.8, gamma=0.1), lipschitz_step),
    "cfc": (cfc(H, backbone_units=5, dt=0.7), cfc_step("default", 1)),
    "cfc-no_gate": (cfc(H, mode="no_gate", backbone_layers=2, backbone_units=5, dt=0.7), cfc_step("no_gate", 2)),
    "cfc-pure": (cfc(H, mode="pure", backbone_layers=0, dt=0.7), cfc_step("pure", 0)),
    "ltc": (ltc(H, unfolds=2, dt=0.7), ltc_step),
}


@pytest.mark.parametrize("name", EQUATIONS)
def test_the_papers_equation(name):
    check_equation(*EQUATIONS[name])


def test_stored_ncps_vectors():
    cases = {}
    for name, array in NCPS.items():
        case, _, rest = name.partition("/")
        cases.setdefault(case, {})[rest] = array
    assert len(cases) == 6

    def loss(given, case):
        h0, params = given["h0"], from_ncps(case, given)
        ys = unroll(ncps_cell(case), params, given["xs"], h0)[1]
        return jnp.sum(cases[case]["dys"] * ys), ys

    given = {case: {n.removeprefix("grad/"): v[n.removeprefix("grad/")] for n in v if n.startswith("grad/")}
             for case, v in cases.items()}  # fmt: skip
    run = jit(lambda given: {c: jax.value_and_grad(loss, has_aux=True)(given[c], c) for c in cases})
    for case, ((_, ys), gradients) in run(given).items():
        np.testing.assert_allclose(ys, cases[case]["ys"], atol=1e-5)
        for name, a in gradients.items():
            np.testing.assert_allclose(a, cases[case][f"grad/{name}"], atol=1e-5, err_msg=f"{case} {name}")


def ncps_cell(case):
    if case == "ltc":
        return ltc(H, dt=0.7)
    _, mode, layers = case.split("-")
    return cfc(H, mode=mode, backbone_layers=int(layers), backbone_units=5, dt=0.7)


def from_ncps(case, given):
    """Our parameters of a cell of ncps, whose matrices are `[out, in]`, and see [x, h]."""
    if case == "ltc":
        ours = {"erev": "E"}
        synapses = {n.removeprefix("sensory_"): n for n in given if n.startswith("sensory_")}
        alone = {ours.get(n, n): a for n, a in given.items() if not n.startswith("sensory_")}
        return alone | {f"{ours.get(n, n)}_x": given[theirs] for n, theirs in synapses.items()}
    heads = [name for name in ("ff1", "ff2", "time_a", "time_b") if f"{name}.weight" in given]
    layers = [[f"backbone.{i}"] for i in (0, 2) if f"backbone.{i}.weight" in given] + [heads]
    params = {n: given[n][0] for n in ("A", "w_tau") if n in given}
    for k, names in enumerate(layers, 1):
        W = jnp.concatenate([given[f"{n}.weight"].T for n in names], axis=1)
        b = jnp.concatenate([given[f"{n}.bias"] for n in names])
        params |= {"W_x": W[:D], "W_h": W[D:], "b": b} if k == 1 else {f"W_{k}": W, f"b_{k}": b}
    return params


def noise(cell, size=1.0):
    """Parameters `N(0, size^2)` for D inputs, drawn without compiling anything."""
    shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0), D))
    return {n: size * normal(*a.shape, seed=i).astype(np.float32) for i, (n, a) in enumerate(shapes.items())}


@pytest.mark.parametrize("name", ["lem", "cornn"])
def test_y_sees_the_new_z(name):
    cell, step = EQUATIONS[name]
    p, x = noise(cell, 0.5), normal(D).astype(np.float32)
    weights = cell.weights(p)
    carry = type(cell.initial_carry(weights, ()))(normal(H, seed=1), normal(H, seed=2))
    y = jit(lambda: cell.step(weights, carry, cell.project(weights, x)).y)()
    np.testing.assert_allclose(y, step(p, carry, x)[1], atol=1e-5)
    assert np.abs(y - step(p, carry, x, old=True)[1]).max() > 0.01


def test_unicornn_keeps_volume_and_can_be_undone():
    cell = unicornn(H, dt=0.5, alpha=3.0)
    p, x = noise(cell), normal(D).astype(np.float32)
    weights = cell.weights(p)
    carry = type(cell.initial_carry(weights, ()))(normal(H, seed=2), normal(H, seed=3))

    def move(carry):
        return cell.step(weights, carry, cell.project(weights, x))

    blocks = jax.tree.map(np.diagonal, jit(jax.jacobian(move))(carry))
    determinant = blocks.y.y * blocks.z.z - blocks.y.z * blocks.z.y
    np.testing.assert_allclose(determinant, 1, atol=1e-5)
    y, z = jit(move)(carry)
    step = 0.5 * sigma(p["c"])
    y = y - step * z
    np.testing.assert_allclose(y, carry.y, atol=1e-5)
    np.testing.assert_allclose(z + step * (np.tanh(p["W_h"] * y + x @ p["W_x"] + p["b"]) + 3 * y), carry.z, atol=1e-5)


@pytest.mark.parametrize("name", ["antisymmetric", "antisymmetric_gated"])
def test_antisymmetric_eigenvalues_lie_on_one_line(name):
    cell = CELLS[name](6, gamma=0.3)
    W_h = np.asarray(jit(cell.weights)(noise(cell))["W_h"], float)
    for A in np.split(W_h, W_h.shape[1] // 6, axis=1):
        eigenvalues = np.linalg.eigvals(A)
        np.testing.assert_allclose(eigenvalues.real, -0.3, atol=1e-5)
        assert np.abs(eigenvalues.imag).max() > 0.5


@pytest.mark.parametrize("beta", [0.0, 0.75, 1.0])
def test_lipschitz_matrices_are_as_skew_as_beta_says(beta):
    cell = lipschitz(6, beta=beta, gamma=0.3)
    params = noise(cell)
    made = np.split(np.asarray(jit(cell.weights)(params)["W_h"], float), 2, axis=1)
    for A, M in zip(made, (params["M_A"], params["M_W"]), strict=True):
        symmetric, skew = (A + A.T) / 2, (A - A.T) / 2
        np.testing.assert_allclose(symmetric, (1 - beta) * (M + M.T) - 0.3 * np.eye(6), atol=1e-6)
        np.testing.assert_allclose(skew, beta * (M - M.T), atol=1e-6)


def test_a_wave_travels():
    """An impulse moves on by one place a step, around its ring and in its own channel."""
    N, T = 5, 7
    xs = np.zeros((T, 1), np.float32)
    xs[0] = 1
    fwd, eye = (wrnn(2 * N, channels=2, start=start) for start in ("fwd", "eye"))
    params = [cell.init(jax.random.key(0), 1) for cell in (fwd, eye)]
    params[0]["W_x"] = params[0]["W_x"].at[:, N:].multiply(3.0)
    moving, still = jit(lambda a, b: (unroll(fwd, a, xs)[1], unroll(eye, b, xs)[1]))(*params)
    expected = np.zeros((T, 2, N))
    expected[range(T), :, -np.arange(T) % N] = [1, 3]
    np.testing.assert_array_equal(moving.reshape(T, 2, N), expected)
    np.testing.assert_array_equal(still, np.tile(np.arange(2 * N) % N == 0, (T, 1)))


TRACED = {
    "lem": ("dt",),
    "cornn": ("dt", "gamma", "epsilon"),
    "unicornn": ("dt", "alpha"),
    "antisymmetric": ("epsilon", "gamma", "sigma_w"),
    "antisymmetric_gated": ("epsilon", "gamma", "sigma_w"),
    "lipschitz": ("epsilon", "beta", "gamma", "init_std"),
    "cfc": ("dt",),
    "ltc": ("dt",),
}


@pytest.mark.parametrize("name", TRACED)
def test_options_may_be_traced(name):
    """A program for many values can be made of the gradient, by the options too."""

    def loss(options):
        cell = CELLS[name](H, **options)
        return jnp.sum(unroll(cell, cell.init(jax.random.key(0), D), jnp.ones((4, 2, D)))[1] ** 2)

    options = dict.fromkeys(TRACED[name], jnp.array([0.2, 0.5]))
    jax.jit(jax.vmap(jax.grad(loss))).lower(options)


def test_an_ltc_stays_between_its_potentials():
    cell = ltc(H)
    params = noise(cell, 3.0)
    ends = np.concatenate([np.zeros(1), *(params[n].ravel() for n in ("E", "E_x", "vleak"))])
    ys = jit(lambda p: unroll(cell, p, 10 * normal(20, D).astype(np.float32))[1])(params)
    assert ends.min() <= ys.min() and ys.max() <= ends.max()


# Initial values.


def test_initial_values():
    """Those that are drawn as U(-a, a), as N(0, s^2), and otherwise."""
    cells = {
        "lem": lem(64),
        "cornn": cornn(64),
        "unicornn": unicornn(64),
        "antisymmetric": antisymmetric(64, sigma_w=2.0),
        "lipschitz": lipschitz(64, init_std=0.5),
        "cfc": cfc(64, backbone_units=128),
        "pure": cfc(64, mode="pure", backbone_layers=0),
        "ltc": ltc(64),
    }
    drawn = jit(lambda key: {name: cell.init(key, 16) for name, cell in cells.items()})(jax.random.key(0))
    uniform = {
        "lem": dict.fromkeys(("W_x", "W_h", "W_y", "b"), 64**-0.5),
        "cornn": dict.fromkeys(("W_x", "W_h", "b"), (16 + 2 * 64) ** -0.5),
        "unicornn": {"c": 0.1, "W_x": (6 / (65 * 16)) ** 0.5},
        "lipschitz": {"W_x": 1 / 4, "b": 1 / 4},
        "cfc": {"W_x": (6 / (16 + 64 + 128)) ** 0.5, "b": 80**-0.5, "W_2": (6 / (128 + 64)) ** 0.5, "b_2": 128**-0.5}
        | {"W_h": (6 / (16 + 64 + 128)) ** 0.5},
        "pure": {"A": (6 / 65) ** 0.5, "w_tau": (6 / 65) ** 0.5, "W_x": (6 / 144) ** 0.5},
    }
    for name, bounds in uniform.items():
        for n, bound in bounds.items():
            assert 0.9 * bound < np.abs(drawn[name][n]).max() <= bound * (1 + 1e-6), (name, n)
    normals = {"antisymmetric": {"W_x": 1 / 4, "W_h": 2 / 8}, "lipschitz": {"M_A": 0.5 / 64, "M_W": 0.5 / 64}}
    for name, deviations in normals.items():
        for n, deviation in deviations.items():
            np.testing.assert_allclose(drawn[name][n].std(), deviation, rtol=0.1)
    assert not drawn["antisymmetric"]["b"].any() and not drawn["unicornn"]["b"].any()
    assert 0 <= drawn["unicornn"]["W_h"].min() < 0.1 and 0.9 < drawn["unicornn"]["W_h"].max() <= 1
    p, of_synapses = drawn["ltc"], {"w": (0.001, 1), "sigma": (3, 8), "mu": (0.3, 0.8)}
    ranges = of_synapses | {f"{n}_x": ends for n, ends in of_synapses.items()}
    for n, (low, high) in (ranges | {"gleak": (0.001, 1), "cm": (0.4, 0.6), "vleak": (-0.2, 0.2)}).items():
        margin = 0.1 * (high - low)
        assert low <= p[n].min() < low + margin and high - margin < p[n].max() <= high, n
    for E in (p["E"], p["E_x"]):
        assert set(np.unique(E)) == {-1, 1}
        np.testing.assert_allclose(E.mean(), 1 / 3, atol=0.1)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        *((name, {"dt": 0.0}, "dt is 0.0; allowed: more than 0") for name in ("lem", "cornn", "unicornn")),
        *((name, {"epsilon": -1}, "epsilon is -1; allowed: mo") for name in ("antisymmetric_gated", "lipschitz")),
        ("lipschitz", {"beta": 1.5}, "beta is 1.5; allowed: 0 to 1"),
        *((name, {"dt": 0}, "dt is 0; allowed: more than 0") for name in ("cfc", "ltc")),
        ("cfc", {"mode": "fast"}, "unknown mode 'fast'; allowed: default, no_gate, pure"),
        ("cfc", {"activation": "elu"}, "unknown activation 'elu'; allowed: lecun_tanh, tanh, relu, silu, gelu"),
        ("cfc", {"backbone_layers": -1}, "backbone_layers is -1; allowed: 0, 1, 2, ..."),
        ("cfc", {"backbone_units": 0}, "backbone_units is 0; allowed: 1, 2, ..."),
        ("ltc", {"unfolds": 0}, "unfolds is 0; allowed: 1, 2, ..."),
        ("wrnn", {"channels": 3}, "channels is 3; allowed: the divisors of hidden_size, 4"),
        ("wrnn", {"kernel_size": 4}, "kernel_size is 4; allowed: 3, 5, 7, ..."),
        ("wrnn", {"start": "rand"}, "unknown start 'rand'; allowed: fwd, eye"),
    ],
)
def test_options_that_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        CELLS[name](H, **options)
