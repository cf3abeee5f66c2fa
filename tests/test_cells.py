"""Every cell against oracles written by others: Flax, PyTorch, the papers' equations in numpy, finite differences."""

import functools
import math
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads

from rnnjax import initializers
from rnnjax.cells import CELLS, LSTMCarry, gru, gru_cho, irnn, linear, lru, lstm, mgu, rnn
from rnnjax.cells.check import check_cell
from rnnjax.engine.runners import RUNNERS
from rnnjax.engine.unroll import unroll
from rnnjax.interop import from_torch, to_linen, to_nnx
from rnnjax.types import Cell

# Tiny problems spend their time in the compiler: half of it without LLVM's optimisations, which change no maths.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

T, B, D, H = 6, 3, 3, 4
TORCH = np.load(Path(__file__).parent / "data" / "torch_vectors.npz", allow_pickle=False)


def close(actual, expected, tolerance=1e-5):
    """Leaf by leaf, relative to the largest entry of the leaf where that is above 1."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for path, e in jax.tree.leaves_with_path(expected):
        a = dict(jax.tree.leaves_with_path(actual))[path]
        scale = max(1.0, float(np.max(np.abs(e), initial=0)))
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * scale, err_msg=jax.tree_util.keystr(path))


def normal(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def is_real(a):
    """Whether it has a gradient; an integer, such as a clock, has none."""
    return jnp.issubdtype(a.dtype, jnp.inexact)


# PyTorch: the layers of stored vectors, composed by hand from `unroll`.


@pytest.mark.parametrize("method", ["scan", "deferred"])
@pytest.mark.parametrize("kind", ["rnn_tanh", "rnn_relu", "lstm", "gru"])
def test_stored_pytorch_vectors(kind, method):
    cases = {}
    for name, array in ((n, TORCH[n]) for n in TORCH.files if n.startswith(f"{kind}-")):
        case, _, rest = name.partition("/")
        cases.setdefault(case, {})[rest] = array
    assert len(cases) == 4  # one and two layers, uni- and bidirectional

    def loss(given, case):
        v = cases[case]
        ys = torch_layers(kind, method, given, v["lengths"], 2 if case.endswith("bi") else 1)
        return sum(jnp.sum(v[f"d{name}"] * y) for name, y in ys.items()), ys

    given = {case: {n.removeprefix("grad/"): v[n.removeprefix("grad/")] for n in v if n.startswith("grad/")}
             for case, v in cases.items()}  # fmt: skip
    run = jit(lambda given: {c: jax.value_and_grad(loss, has_aux=True)(given[c], c) for c in cases})
    for case, ((_, ys), gradients) in run(given).items():
        close(ys, {name: cases[case][name] for name in ys})
        close(gradients, {name: cases[case][f"grad/{name}"] for name in gradients})


def torch_layers(kind, method, given, lengths, directions):
    """nn.RNN, nn.LSTM or nn.GRU on packed sequences: {"ys", "h_n", "c_n"} from weights, xs, h0 and c0."""
    make = {"rnn_tanh": rnn, "rnn_relu": lambda H: rnn(H, activation="relu"), "lstm": lstm, "gru": gru}[kind]
    xs, final = given["xs"], []
    for layer in range(given["h0"].shape[0] // directions):
        sides = []
        for direction in range(directions):
            suffix = f"_l{layer}{'_reverse' if direction else ''}"
            row = layer * directions + direction
            carry = LSTMCarry(given["c0"][row], given["h0"][row]) if kind == "lstm" else given["h0"][row]
            params = from_torch(kind.partition("_")[0], given, suffix)
            options = {"lengths": lengths, "reverse": direction == 1, "method": method}
            carry, ys = unroll(make(H), params, xs, carry, **options)
            final.append(carry)
            sides.append(ys)
        xs = jnp.concatenate(sides, axis=-1)
    h_n = {"h_n": jnp.stack([getattr(c, "h", c) for c in final])}
    return {"ys": xs} | h_n | ({"c_n": jnp.stack([c.c for c in final])} if kind == "lstm" else {})


# Flax: our parameters laid out as each namesake wants them, so that one gradient covers both.


def linen(module):
    return lambda weights, carry, x: module.apply({"params": weights}, carry, x)


def nnx_cell(make):
    graphdef, state = nnx.split(make(D, H, rngs=nnx.Rngs(0)))

    def apply(weights, carry, x):
        nnx.replace_by_pure_dict(state, weights)
        return nnx.merge(graphdef, state)(carry, x)

    return apply


FLAX = {
    "nnx.SimpleCell": (rnn, lambda: nnx_cell(nnx.SimpleCell), functools.partial(to_nnx, "rnn")),
    "nnx.LSTMCell": (lstm, lambda: nnx_cell(nnx.LSTMCell), functools.partial(to_nnx, "lstm", optimized=False)),
    "nnx.OptimizedLSTMCell": (lstm, lambda: nnx_cell(nnx.OptimizedLSTMCell), functools.partial(to_nnx, "lstm")),
    "nnx.GRUCell": (gru, lambda: nnx_cell(nnx.GRUCell), functools.partial(to_nnx, "gru")),  # has no b_h
    "linen.SimpleCell": (rnn, lambda: linen(nn.SimpleCell(H)), functools.partial(to_linen, "rnn")),
    "linen.LSTMCell": (lstm, lambda: linen(nn.LSTMCell(H)), functools.partial(to_linen, "lstm")),
    "linen.GRUCell": (gru, lambda: linen(nn.GRUCell(H)), functools.partial(to_linen, "gru")),
    "linen.MGUCell": (mgu, lambda: linen(nn.MGUCell(H)), functools.partial(to_linen, "mgu")),
}


@pytest.mark.parametrize("name", FLAX)
def test_flax_namesake(name, random_params):
    make, theirs, weights = FLAX[name]
    cell, apply = make(H), theirs()
    params = random_params(cell, D)
    without = {"b_h": jnp.zeros(H)} if name == "nnx.GRUCell" else {}
    params = {n: a for n, a in params.items() if n not in without}
    xs, dys, h0 = normal(T, B, D), normal(T, B, H, seed=1), normal(B, H, seed=2)
    carry = LSTMCarry(h0[::-1], h0) if make is lstm else h0

    def flax_loss(params, xs, carry):
        carry = tuple(carry) if make is lstm else carry
        carry, ys = jax.lax.scan(lambda carry, x: apply(weights(params), carry, x), carry, xs)
        return jnp.sum(ys * dys), (LSTMCarry(*carry) if make is lstm else carry, ys)

    def loss(params, xs, carry):
        carry, ys = unroll(cell, params | without, xs, carry)
        return jnp.sum(ys * dys), (carry, ys)

    run = jit(lambda *args: [jax.value_and_grad(f, (0, 1, 2), has_aux=True)(*args) for f in (loss, flax_loss)])
    ours, expected = run(params, xs, carry)
    close(ours, expected)


# The papers' equations in numpy, float64, where Flax and PyTorch have no such cell.


def sigma(s):
    return 1 / (1 + np.exp(-s))


def blocks(p, n):
    return [np.split(p[name], n, axis=-1) for name in ("W_x", "W_h", "b")]


def cho(p, h, x):
    """Cho et al. (2014), eqs. 5-8: the reset gate multiplies h before U does, and z keeps the old state."""
    (W_r, W_z, W), (U_r, U_z, U), (b_r, b_z, b) = blocks(p, 3)
    r = sigma(x @ W_r + h @ U_r + b_r)
    z = sigma(x @ W_z + h @ U_z + b_z)
    candidate = np.tanh(x @ W + (r * h) @ U + b)
    return z * h + (1 - z) * candidate


def peephole_lstm(p, carry, x):
    """Gers & Schmidhuber (2000): i and f see c_{t-1}, o sees c_t."""
    (W_i, W_f, W_g, W_o), (U_i, U_f, U_g, U_o), (b_i, b_f, b_g, b_o) = blocks(p, 4)
    c, h = carry
    i = sigma(x @ W_i + h @ U_i + p["p_i"] * c + b_i)
    f = sigma(x @ W_f + h @ U_f + p["p_f"] * c + b_f)
    c = f * c + i * np.tanh(x @ W_g + h @ U_g + b_g)
    o = sigma(x @ W_o + h @ U_o + p["p_o"] * c + b_o)
    return LSTMCarry(c, o * np.tanh(c))


def coupled_lstm(p, carry, x):
    """Greff et al. (2015), CIFG: f_t = 1 - i_t."""
    (W_i, W_g, W_o), (U_i, U_g, U_o), (b_i, b_g, b_o) = blocks(p, 3)
    c, h = carry
    i = sigma(x @ W_i + h @ U_i + b_i)
    c = (1 - i) * c + i * np.tanh(x @ W_g + h @ U_g + b_g)
    return LSTMCarry(c, sigma(x @ W_o + h @ U_o + b_o) * np.tanh(c))


def coupled_peephole_lstm(p, carry, x):
    """Both: the coupled gate sees c_{t-1} through p_i, o sees c_t through p_o."""
    (W_i, W_g, W_o), (U_i, U_g, U_o), (b_i, b_g, b_o) = blocks(p, 3)
    c, h = carry
    i = sigma(x @ W_i + h @ U_i + p["p_i"] * c + b_i)
    c = (1 - i) * c + i * np.tanh(x @ W_g + h @ U_g + b_g)
    return LSTMCarry(c, sigma(x @ W_o + h @ U_o + p["p_o"] * c + b_o) * np.tanh(c))


def linear_recurrent_unit(p, h, x):
    """h_t = lambda h_{t-1} + gamma B x_t, y_t = Re(C h_t) + D x_t, with the parameters of the paper: (h_t, y_t)."""
    lam = np.exp(-np.exp(p["nu_log"]) + 1j * np.exp(p["theta_log"]))
    h = lam * h + np.exp(p["gamma_log"]) * (x @ (p["B_re"] + 1j * p["B_im"]))
    return h, (h @ (p["C_re"] + 1j * p["C_im"])).real + x @ p["D"]


NUMPY = {
    "lru": (lru(H), linear_recurrent_unit),
    "gru_cho": (gru_cho(H), cho),
    "irnn": (irnn(H), lambda p, h, x: np.maximum(0, x @ p["W_x"] + h @ p["W_h"] + p["b"])),
    "rnn-sigmoid": (rnn(H, activation="sigmoid"), lambda p, h, x: sigma(x @ p["W_x"] + h @ p["W_h"] + p["b"])),
    "lstm-peepholes": (lstm(H, peepholes=True), peephole_lstm),
    "lstm-coupled": (lstm(H, coupled=True), coupled_lstm),
    "lstm-coupled-peepholes": (lstm(H, coupled=True, peepholes=True), coupled_peephole_lstm),
}


@pytest.mark.parametrize("name", NUMPY)
def test_the_papers_equation(name, random_params):
    cell, oracle = NUMPY[name]
    with jax.enable_x64(True):
        params = jax.tree.map(lambda a: a.astype(np.float64), random_params(cell, D))
        xs = normal(T, B, D, dtype=np.float64)
        carry = jax.tree.map(lambda a: np.asarray(a) + 0.3, cell.initial_carry(cell.weights(params), (B,)))
        last, ys = jit(lambda p, xs, c: unroll(cell, p, xs, c))(params, xs, carry)
        expected = []
        for x in xs:
            carry, *shown = oracle(params, carry, x) if name == "lru" else (oracle(params, carry, x),)
            expected.append(shown[0] if shown else getattr(carry, "h", carry))
        assert ys.dtype == np.float64
        close((last, ys), (carry, np.stack(expected)), 1e-12)


# Every cell in the table: finite differences, and what a caller may count on.


def test_gradients_against_finite_differences(cell, random_params):
    with jax.enable_x64(True):
        params = jax.tree.map(lambda a: a.astype(np.float64), random_params(cell, D))
        xs = normal(3, 2, D, dtype=np.float64)
        start = cell.initial_carry(cell.weights(params), (2,))
        carry = jax.tree.map(lambda a: a + normal(*a.shape, seed=1, dtype=a.real.dtype) if is_real(a) else a, start)
        leaves, structure = jax.tree.flatten(carry)
        real = [i for i, a in enumerate(leaves) if is_real(a)]  # and not a clock
        trained = {name: a for name, a in params.items() if has_gradient(cell, params, name)}

        def check(method, modes):
            @jax.jit
            def run(trained, xs, *parts):
                given = dict(zip(real, parts, strict=True))
                carry = structure.unflatten([given.get(i, a) for i, a in enumerate(leaves)])
                last, ys = unroll(cell, params | trained, xs, carry, method=method)
                return [a for a in jax.tree.leaves((last, ys)) if is_real(a)]

            given = (trained, xs, *(leaves[i] for i in real))
            check_grads(run, given, order=1, modes=modes, atol=1e-6, rtol=2e-6, eps=1e-5)

        for name, runner in RUNNERS.items():
            if isinstance(cell.form, runner.form) and name != "newton":  # that is compared with the others
                check(name, ("rev",) if name == "deferred" else ("fwd", "rev"))


def has_gradient(cell, params, name):
    """Whether `weights` lets a gradient through to a parameter; not to a fixed one, such as a reservoir."""
    along = jax.jvp(lambda a: cell.weights(params | {name: a}), (params[name],), (np.ones_like(params[name]),))[1]
    return any(np.any(leaf) for leaf in jax.tree.leaves(along) if is_real(leaf))


def test_forms_that_are_refused():
    with pytest.raises(ValueError, match=r"unknown activation 'selu'; allowed: tanh, relu, sigmoid"):
        rnn(H, activation="selu")


# A malformed cell is refused in one line, from shapes alone.


def test_every_cell_passes_its_check(cell):
    check_cell(cell, D)


def leaky(**parts):
    """A user's cell, and what may be wrong with it."""
    good = {
        "init": lambda key, size: {"W": jax.random.normal(key, (size, H)), "a": jnp.zeros(H)},
        "initial_carry": lambda weights, shape: jnp.zeros((*shape, H)),
        "step": lambda p, h, x: p["a"] * h + x @ p["W"],
    }
    return Cell(**(good | parts))


def own_weights(**shapes):
    """A gated cell whose init returns other weights."""
    cell = gru(H)
    return cell._replace(init=lambda key, size: cell.init(key, size) | {n: jnp.zeros(s) for n, s in shapes.items()})


def own_affine(affine):
    """A gated cell whose affine map is wrong."""
    cell = gru(H)
    return cell._replace(form=cell.form._replace(affine=affine))


def own_linear(coefficients):
    """A linear cell whose coefficients are wrong."""
    return linear(
        init=lambda key, size: {"W": jnp.zeros((size, H))},
        initial_carry=lambda weights, shape: jnp.zeros((*shape, H)),
        coefficients=coefficients,
        project=lambda p, x, key=None: x @ p["W"],
    )


MATRIX_AND_CLOCK = {
    "M": lambda shape: jnp.zeros((*shape, H, H)),
    "clock": lambda shape: jnp.zeros(shape, int),
}
ODD_CARRIES = {
    "tuple": leaky(
        initial_carry=lambda weights, shape: (jnp.zeros((*shape, H)), jnp.zeros((*shape, H), complex)),
        step=lambda p, c, x: (x @ p["W"], c[1] * 1j + c[0]),
        output=lambda p, c, z: c[0],
    ),
    "dict": leaky(
        initial_carry=lambda weights, shape: {name: make(shape) for name, make in MATRIX_AND_CLOCK.items()},
        step=lambda p, c, x: {"M": 0.9 * c["M"] + (x @ p["W"])[..., None], "clock": c["clock"] + 1},
        output=lambda p, c, z: c["M"][..., 0],
    ),
    "list": leaky(
        initial_carry=lambda weights, shape: [jnp.zeros((*shape, H))],
        step=lambda p, c, x: [c[0] + x @ p["W"]],
        output=lambda p, c, z: c[0],
    ),
}


@pytest.mark.parametrize("name", ODD_CARRIES)
def test_a_carry_may_be_any_pytree(name):
    check_cell(ODD_CARRIES[name], D)
    carry, ys = unroll(ODD_CARRIES[name], ODD_CARRIES[name].init(jax.random.key(0), D), normal(T, B, D))
    assert ys.shape == (T, B, H)
    if name == "dict":
        assert carry["clock"].tolist() == [T] * B


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ((1, 2), "a cell is a tuple; allowed: a Cell"),
        (leaky(init=lambda key, size: [jnp.zeros(H)]), "init returns a list; allowed: a flat dict of real arrays"),
        (leaky(init=lambda key, size: {"W": {"x": jnp.zeros(H)}}), "init returns a dict for parameter 'W'; allowed"),
        (leaky(init=lambda key, size: {"W": jnp.zeros(H, int)}), "init returns int32 for parameter 'W'; allowed"),
        (leaky(init=lambda key, size: {"W": jnp.zeros(H, complex)}), "init returns complex64 for parameter 'W'"),
        (leaky(init=lambda key: {}), "init raises TypeError: .*positional argument"),
        (leaky(initial_carry=lambda w, shape: jnp.zeros(H)), r"initial_carry of batch shape \(11,\) returns a part of"),
        (leaky(initial_carry=lambda weights, shape: None), "initial_carry returns None, without an array"),
        (leaky(initial_carry=lambda w, s: jnp.zeros((*s, H), int)), "step returns a carry whose part is float32"),
        (leaky(step=lambda p, h, x: (h, x)), r"step returns a carry of structure \(\*, \*\); allowed: \*, that of"),
        (leaky(step=lambda p, h, x: None), "step returns None, as a function without `return` does; allowed: the new"),
        (leaky(step=lambda p, h, x: h[..., 1:]), r"step returns a carry whose part has shape \(3,\); allowed: \(4,\)"),
        (leaky(step=lambda p, h, x: h + 1j), "step returns a carry whose part is complex64; allowed: float32"),
        (leaky(step=lambda p, h, x: h @ p["W"]), "step raises TypeError: dot_general"),
        (leaky(project=lambda p, x: p["V"]), "project raises KeyError: 'V'"),
        (leaky(project=lambda p, x: p["W"].T @ x, step=lambda p, h, z: h + z), "project raises TypeError: dot_general"),
        (leaky(output=lambda p, h, z: (h, h)), r"output returns a tuple; allowed: one array \[\.\.\., O\]"),
        (leaky(output=lambda p, h, z: h.sum(-1)), r"output of batch shape \(\) returns shape \(\); allowed: \(\) and"),
        (leaky(output=lambda p, h, z: h + 1j), "output is complex64; allowed: a real floating dtype"),
        (own_linear(lambda w, z: z), r"form.coefficients returns a ShapeDtypeStruct; allowed: a pair \(a, b\)"),
        (own_linear(lambda w, z: ((z, z), z)), r"form.coefficients returns a of structure \(\*, \*\); allowed: \*"),
        (own_linear(lambda w, z: (z, z[..., :2])), r"form.coefficients returns b whose part has shape \(2,\); allo"),
        (own_linear(lambda w, z: (1j * z, z)), "form.coefficients returns a whose part is complex64; allowed: float32"),
        (own_weights(W_h=(H, H)), r"form.affine raises ValueError: 'W_h' has shape \(4, 4\); allowed: \(4, 12\)"),
        (own_weights(b=(H,)), r"project raises ValueError: 'b' has shape \(4,\); allowed: \(12,\)"),
        (own_weights(W_x=(D, H)), r"project raises ValueError: 'W_x' has shape \(3, 4\); allowed: \(3, 12\)"),
        (own_affine(lambda w, h, z: z | {"n_h": h[..., 1:]}), r"'n_h' of shape \(3,\); allowed: \(4,\), that of"),
        (own_affine(lambda w, h, z: {n: h[..., 0] for n in ("r", "z", "n_x", "n_h")}), r"'r' of shape \(\); allow"),
        (own_weights(W_h=(H, 3)), r"form.affine raises ValueError: 'W_h' has shape \(4, 3\); allowed: \(4, 12\)"),
    ],
)  # fmt: skip
def test_a_malformed_cell_is_refused_in_one_line(cell, message):
    with pytest.raises((TypeError, ValueError), match=message) as refused:
        check_cell(cell, D)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("make", [gru, gru_cho])
def test_the_engine_says_what_a_step_returned(make):
    cell = make(H)
    params = cell.init(jax.random.key(0), D)
    if cell.form is None:
        cell = cell._replace(step=lambda p, h, z: h[..., None])
    else:
        cell = cell._replace(form=cell.form._replace(update=lambda p, h, **gates: h[..., None]))
    with pytest.raises(ValueError, match=r"step returns a carry whose part has shape \(3, 4, 1\); allowed: \(3, 4\)"):
        unroll(cell, params, normal(T, B, D))


# Precision, and a cell without inputs.


def test_one_precision_whatever_jax_holds_as_default(cell):
    """Parameters are drawn in float32; a run is in the precision of parameters and inputs, or in the one asked for."""
    with jax.enable_x64(True):
        params = cell.init(jax.random.key(0), D)
        assert {str(a.dtype) for a in jax.tree.leaves(params)} == {"float32"}
        for dtype, x, expected in (
            (None, np.float32, "float32"),
            (None, np.int32, "float32"),
            (None, np.float64, "float64"),
            (jnp.bfloat16, np.float64, "bfloat16"),
        ):
            run = jax.eval_shape(
                lambda p, x, dtype=dtype: unroll(cell, p, x, dtype=dtype), params, normal(T, D).astype(x)
            )
            low = dtype == jnp.bfloat16  # complex numbers have no such precision
            inexact = [a for a in jax.tree.leaves(run) if is_real(a) and not (low and jnp.iscomplexobj(a))]
            real = [jnp.finfo(a.dtype).dtype for a in inexact]
            assert set(map(str, real)) == {expected}, (dtype, x)


def test_initialisers_draw_float32_by_default():
    with jax.enable_x64(True):
        for name in ("glorot", "zeros", "orthogonal", "identity", "normal", "uniform_sqrt", "constant", "chrono"):
            initializer = getattr(initializers, name)
            draw = initializer if name in ("glorot", "zeros") else initializer(*([] if name == "orthogonal" else [3]))
            assert draw(jax.random.key(0), (H, H)).dtype == jnp.float32, name
            assert draw(jax.random.key(0), (H, H), jnp.float64).dtype == jnp.float64, name


def test_orthogonal_matrices_of_many_keys_are_factorised_one_by_one():
    """LAPACK's batches, two of them at once, can wait for each other for ever on a machine of two cores."""
    keys = jax.random.split(jax.random.key(0), 3)
    draw = initializers.per_gate(initializers.orthogonal(0.5), 4)
    many = jax.vmap(lambda key: draw(key, (H, 4 * H)))
    together = jax.jit(many)(keys)
    for matrix, key in zip(together, keys, strict=True):
        np.testing.assert_array_equal(matrix, jax.jit(lambda key: draw(key, (H, 4 * H)))(key))
    assert "geqrf" in (text := jax.jit(many).lower(keys).as_text())
    assert not [line for line in text.splitlines() if "geqrf" in line and f"tensor<3x{H}x{H}xf32>" in line]


def test_a_cell_without_inputs_runs_by_itself(cell):
    """D = 0: what a first input of zero does to the cell with one input."""
    params = cell.init(jax.random.key(0), 0)
    of_input = {n: (a.shape, cell.init(jax.random.key(0), 1)[n].shape) for n, a in params.items() if 0 in a.shape}
    assert all(none == (0, *one[1:]) and one[0] == 1 for none, one in of_input.values())
    # Any weights do where x is zero; but a synapse that is open at zero (ltc) must be closed.
    one = params | {n: jnp.full(shape, -100.0) for n, (_, shape) in of_input.items()}

    def start(params):
        return cell.initial_carry(cell.weights(params), (B,))

    def moved(a):
        return a + 0.3 if is_real(a) else a

    @jit
    def run(params, xs):
        def loss(params):
            return jnp.sum(unroll(cell, params, xs, jax.tree.map(moved, start(params)))[1] ** 2)

        return jax.value_and_grad(loss)(params)

    value, gradient = run(params, jnp.zeros((T, B, 0)))
    expected, expected_gradient = run(one, jnp.zeros((T, B, 1)))
    close(value, expected)
    close(gradient | dict.fromkeys(of_input, 0), expected_gradient | dict.fromkeys(of_input, 0))


@pytest.mark.parametrize("size", [0, -1, 4.0])
def test_a_hidden_size_that_cannot_be_is_refused(size):
    for make in CELLS.values():
        with pytest.raises(ValueError, match=f"hidden_size is {size}; allowed: 1, 2, ..."):
            make(size)


# A cell is a value.


def test_equal_settings_make_equal_cells_that_jit_takes_as_static(cell):
    assert cell == cell and hash(cell) == hash(cell)
    xs = normal(T, B, D)
    _, ys = jax.jit(unroll, static_argnums=0)(cell, cell.init(jax.random.key(0), D), xs)
    assert ys.shape[:2] == (T, B)


def test_a_factory_remembers_what_it_made():
    assert lstm(H) is lstm(hidden_size=H, gain=1.0) and gru_cho(H) is gru_cho(H) and irnn(H) is irnn(H)
    assert len({lstm(H), lstm(H, peepholes=True), lstm(H + 1), lstm(H, gain=2), gru(H), mgu(H)}) == 6
    traced = []
    jax.jit(lambda bias: traced.append(lstm(H, forget_bias=bias)))(1.0)
    assert traced[0] not in (lstm(H), lstm(H, forget_bias=1.0))  # and no traced value is remembered
    bias = rnn(H, w_h=initializers.constant(2.0)).init(jax.random.key(0), D)["W_h"]
    assert np.all(bias == 2.0)


# Initial values.


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru", "gru_cho", "mgu"])
def test_initial_matrices_gate_by_gate(name):
    D, H, gains = 24, 16, jnp.array([0.5, 1.0, 1.7])
    params = jax.vmap(lambda gain: CELLS[name](H, gain=gain).init(jax.random.key(0), D))(gains)  # gain is traced
    W_h = params["W_h"].reshape(3, H, -1, H)
    squared = jnp.einsum("khgi,khgj->kgij", W_h, W_h)
    close(squared, jnp.broadcast_to(gains[:, None, None, None] ** 2 * jnp.eye(H), squared.shape), 1e-5)
    W_x = params["W_x"][0].reshape(D, -1, H)
    bound = math.sqrt(6 / (D + H))  # Glorot's fan-out is H, not G H
    assert np.all(np.abs(W_x) <= bound) and np.all(np.max(np.abs(W_x), axis=(0, 2)) > 0.95 * bound)
    for W in (W_x, W_h[0]):
        for gate in range(1, W.shape[1]):
            assert not np.allclose(W[:, 0], W[:, gate])  # each gate has a key of its own
    np.testing.assert_array_equal(params["W_x"][0], params["W_x"][2])


def test_irnn_starts_as_the_identity():
    params = jax.vmap(lambda gain: irnn(32, gain=gain).init(jax.random.key(0), 64))(jnp.array([1.0, 0.3]))
    np.testing.assert_array_equal(params["W_h"], np.array([1.0, 0.3], np.float32)[:, None, None] * np.eye(32))
    np.testing.assert_allclose(np.std(params["W_x"][0]), 0.001, rtol=0.1)
    assert not np.any(params["b"])


def test_initial_biases():
    def bias(cell):
        return np.asarray(cell.init(jax.random.key(0), D)["b"]).reshape(-1, H)

    np.testing.assert_array_equal(bias(lstm(H)), np.outer([0, 1, 0, 0], np.ones(H)))
    np.testing.assert_array_equal(bias(lstm(H, forget_bias=2.5)), np.outer([0, 2.5, 0, 0], np.ones(H)))
    np.testing.assert_array_equal(bias(lstm(H, coupled=True, forget_bias=2.0)), np.outer([-2, 0, 0], np.ones(H)))
    np.testing.assert_array_equal(bias(mgu(H, forget_bias=3.0)), np.outer([3, 0], np.ones(H)))
    swept = jax.vmap(lambda b: lstm(H, forget_bias=b).init(jax.random.key(0), D)["b"])(jnp.array([0.0, 1.0]))
    np.testing.assert_array_equal(swept.sum(1), [0, H])  # traced
    for name in ("rnn", "irnn", "gru", "gru_cho"):
        assert not np.any(bias(CELLS[name](H))), name


def test_chrono_biases():
    b = np.asarray(lstm(512, chrono_t_max=50.0, w_h=initializers.zeros).init(jax.random.key(0), D)["b"])
    b_i, b_f, b_g, b_o = np.split(b, 4)
    assert not np.any(b_g) and not np.any(b_o)
    np.testing.assert_array_equal(b_i, -b_f)
    timescale = np.exp(b_f)  # uniform on [1, T_max - 1]
    assert 1 <= timescale.min() < 1.5 and 48.5 < timescale.max() <= 49.001
    np.testing.assert_allclose(np.quantile(timescale, [0.25, 0.5, 0.75]), [13, 25, 37], atol=2.5)
    coupled = np.split(lstm(H, chrono_t_max=50.0, coupled=True).init(jax.random.key(0), D)["b"], 3)[0]
    assert np.all(coupled <= 0) and np.all(coupled >= -math.log(49))


def test_uniform_as_pytorch_draws():
    w = initializers.uniform_sqrt(16)(jax.random.key(0), (40, 100))
    assert np.max(np.abs(w)) <= 0.25
    np.testing.assert_allclose([np.mean(w), np.std(w)], [0, 0.25 / math.sqrt(3)], atol=0.01)
