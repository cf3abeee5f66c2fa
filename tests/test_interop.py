"""Weights from and to other frameworks, against each framework's published equations in NumPy, in its own layout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnnjax import interop
from rnnjax.cells import CELLS, rnn
from rnnjax.engine.unroll import unroll
from rnnjax.interop import from_keras, from_torch, to_haiku, to_keras, to_nnx, to_torch

T, B, D, H = 5, 3, 2, 4


def sigma(s):
    return 1 / (1 + np.exp(-s))


def lstm(i, f, g, o, c):
    c = sigma(f) * c + sigma(i) * np.tanh(g)
    return sigma(o) * np.tanh(c), c


def gru(a, b, h):
    """From what the input (a) and the state (b) give to r, z and n; reset after the matmul."""
    r, z = sigma(a[0] + b[0]), sigma(a[1] + b[1])
    return (1 - z) * np.tanh(a[2] + r * b[2]) + z * h


def joined(cell, a, b, h, c):
    """One step from the input's and the state's columns, gates i f g o or r z n."""
    if cell == "gru":
        return gru(np.split(a, 3, -1), np.split(b, 3, -1), h), c
    return (np.tanh(a + b), c) if cell == "rnn" else lstm(*np.split(a + b, 4, -1), c)


# A step (h, c) -> (h, c) of each framework, from the weights as it holds them.


def torch_step(cell, w, x, h, c):
    a = x @ w["weight_ih_l0"].T + w["bias_ih_l0"]
    return joined(cell, a, h @ w["weight_hh_l0"].T + w["bias_hh_l0"], h, c)


def equinox_step(cell, w, x, h, c):
    b_n = np.concatenate([np.zeros(2 * H), w["bias_n"]]) if cell == "gru" else 0
    return joined(cell, x @ w["weight_ih"].T + w["bias"], h @ w["weight_hh"].T + b_n, h, c)


def dense(layer, x):
    return x @ layer["kernel"] + layer.get("bias", 0)


def nnx_step(cell, w, x, h, c):
    return joined(cell, dense(w["dense_i"], x), dense(w["dense_h"], h), h, c)


def linen_step(cell, w, x, h, c):
    gates = {"rnn": [""], "lstm": "ifgo", "gru": "rzn"}[cell]
    a, b = (np.concatenate([dense(w[side + g], v) for g in gates], -1) for side, v in (("i", x), ("h", h)))
    return joined(cell, a, b, h, c)


def haiku_step(cell, w, x, h, c):
    if cell == "rnn":
        one, two = w["vanilla_rnn/linear"], w["vanilla_rnn/linear_1"]
        return np.maximum(0, x @ one["w"] + one["b"] + h @ two["w"] + two["b"]), c
    if cell == "lstm":
        linear = w["lstm/linear"]
        i, g, f, o = np.split(np.concatenate([x, h], -1) @ linear["w"] + linear["b"], 4, -1)
        return lstm(i, f + 1, g, o, c)
    a_z, a_r, a_a = np.split(x @ w["gru"]["w_i"] + w["gru"]["b"], 3, -1)
    U_z, U_r, U_a = np.split(w["gru"]["w_h"], 3, -1)
    z, r = sigma(a_z + h @ U_z), sigma(a_r + h @ U_r)
    return (1 - z) * h + z * np.tanh(a_a + (r * h) @ U_a), c


def keras_step(cell, w, x, h, c):
    kernel, recurrent, bias = w
    if cell in ("rnn", "lstm"):
        return joined(cell, x @ kernel + bias, h @ recurrent, h, c)
    if cell == "gru":
        (a_z, a_r, a_h), (b_z, b_r, b_h) = (np.split(s, 3, -1) for s in (x @ kernel + bias[0], h @ recurrent + bias[1]))
        return gru((a_r, a_z, a_h), (b_r, b_z, b_h), h), c
    (a_z, a_r, a_h), (U_z, U_r, U_h) = np.split(x @ kernel + bias, 3, -1), np.split(recurrent, 3, -1)
    z, r = sigma(a_z + h @ U_z), sigma(a_r + h @ U_r)
    return z * h + (1 - z) * np.tanh(a_h + (r * h) @ U_h), c


STEPS = {
    "torch": (torch_step, ("rnn", "lstm", "gru")),
    "nnx": (nnx_step, ("rnn", "lstm", "gru")),
    "linen": (linen_step, ("rnn", "lstm", "gru")),
    "haiku": (haiku_step, ("rnn", "lstm", "gru_cho")),
    "equinox": (equinox_step, ("rnn", "lstm", "gru")),
    "keras": (keras_step, ("rnn", "lstm", "gru", "gru_cho")),
}
PAIRS = [(framework, cell) for framework, (_, cells) in STEPS.items() for cell in cells]


def conversion(framework):
    return getattr(interop, f"from_{framework}"), getattr(interop, f"to_{framework}")


def drawn(cell, D=D):
    """Our parameters, no two numbers alike and no zeros, as NumPy arrays."""
    draw, G = np.random.default_rng(0), {"rnn": 1, "lstm": 4, "mgu": 2}.get(cell, 3)
    shapes = {"W_x": (D, G * H), "W_h": (H, G * H), "b": (G * H,)} | ({"b_h": (H,)} if cell in ("gru", "mgu") else {})
    return {name: draw.normal(size=shape).astype("f") for name, shape in shapes.items()}


@pytest.mark.parametrize(("framework", "cell"), PAIRS)
def test_both_compute_the_same(framework, cell):
    (into, out), (step, _) = conversion(framework), STEPS[framework]
    params = drawn(cell)
    if (framework, cell) == ("nnx", "gru"):
        params["b_h"] = np.zeros(H, "f")
    theirs = out(cell, params)
    rebuilt = into(cell, theirs)
    assert params.keys() == rebuilt.keys()
    for name in params:  # the forget gate's 1 comes and goes in float32
        np.testing.assert_allclose(rebuilt[name], params[name], rtol=0, atol=2e-7)
    xs = np.random.default_rng(1).normal(size=(T, B, D)).astype("f")
    h, c = np.zeros((B, H)), np.zeros((B, H))
    expected = []
    for x in xs:
        h, c = step(cell, theirs, x, h, c)
        expected.append(h)
    make = rnn(H, activation="relu") if (framework, cell) == ("haiku", "rnn") else CELLS[cell](H)
    np.testing.assert_allclose(unroll(make, rebuilt, xs)[1], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("framework", "cell"), [*PAIRS, ("linen", "mgu")])
def test_conversions_run_under_jit_and_keep_dtypes(framework, cell):
    into, out = conversion(framework)
    params = {name: a.astype(jnp.bfloat16) for name, a in drawn(cell).items() if framework != "nnx" or name != "b_h"}
    there_and_back = jax.eval_shape(lambda params: into(cell, out(cell, params)), params)
    given = {name: (a.shape, a.dtype) for name, a in params.items()}
    assert given.items() <= {name: (a.shape, a.dtype) for name, a in there_and_back.items()}.items()


def test_layers_without_biases_have_zeros():
    params = drawn("gru")
    zero = {"b": np.zeros(3 * H), "b_h": np.zeros(H)}
    weights = {name: a for name, a in interop.to_torch("gru", params).items() if "bias" not in name}
    fields = interop.to_equinox("gru", params) | {"bias": None, "bias_n": None}
    arrays = interop.to_keras("gru", params)[:2]
    found = [interop.from_torch("gru", weights), interop.from_equinox("gru", fields), interop.from_keras("gru", arrays)]
    for rebuilt in found:
        assert all(np.array_equal(rebuilt[name], a) for name, a in (params | zero).items())


def test_two_biases_of_pytorch_are_summed_but_for_the_one_inside_the_reset():
    arrays = interop.to_torch("gru", drawn("gru")) | {"bias_ih_l0": np.full(3 * H, 1), "bias_hh_l0": np.full(3 * H, 2)}
    rebuilt = interop.from_torch("gru", arrays)
    assert rebuilt["b"].tolist() == [3] * 2 * H + [1] * H and rebuilt["b_h"].tolist() == [2] * H
    arrays = interop.to_torch("lstm", drawn("lstm"), "_l1_reverse")
    rebuilt = interop.from_torch("lstm", arrays | {"bias_hh_l1_reverse": np.ones(4 * H)}, "_l1_reverse")
    np.testing.assert_array_equal(rebuilt["b"], drawn("lstm")["b"] + np.ones(4 * H))


TORCH = to_torch("lstm", drawn("lstm"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: from_torch("lsmt", TORCH), "PyTorch has no layer that is 'lsmt'; allowed: rnn, lstm, gru"),
        (lambda: to_haiku("gru", drawn("gru")), "Haiku has no layer that is 'gru'; allowed: rnn, lstm, gru_cho"),
        (lambda: from_torch("lstm", {}), "PyTorch's weights hold no 'weight_ih_l0'; there are: none"),
        (lambda: from_torch("lstm", TORCH, "_l1"), "hold no 'weight_ih_l1'; there are: weight_ih_l0, weight_hh"),
        (lambda: from_torch("rnn", TORCH), r"W_x of the rnn has shape \(2, 16\); allowed: \(2, 4\), of D=2"),
        (lambda: from_torch("lstm", TORCH | {"weight_hr_l0": 0}), "weight_hr_l0: an LSTM with proj_size"),
        (lambda: to_nnx("gru", drawn("gru")), "b_h of the gru is not zero; allowed: zeros, as flax.nnx.GRUCell"),
        (lambda: from_keras("gru", to_keras("gru_cho", drawn("gru_cho"))), "reset_after=False is 'gru_"),
        (lambda: from_keras("lstm", []), "Keras's weights hold no 0; there are: 0 arrays"),
        (lambda: to_torch("lstm", drawn("lstm") | {"p_i": np.ones(H)}), "'p_i', which no other framework knows"),
        (lambda: to_torch("lstm", {"W_x": TORCH}), "rnnjax's weights hold no 'W_h'; there are: W_x"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()
