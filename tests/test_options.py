"""Every pair of options of a layer is honoured, or refused in one line that names both."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rnnjax.cells import gru, rnn
from rnnjax.nn import RNN, Stack
from rnnjax.training import make_train
from rnnjax.training.checks import check
from rnnjax.training.config import Config, hyperparameters

T, B, H = 4, 2, 2
LENGTHS = jnp.array([4, 2])
# option: (its values other than the default, whether it is given to the call)
OPTIONS = {
    "gradient": (["tbptt:2", "rtrl", "uoro"], False),
    "method": (["scan", "deferred"], False),
    "segments": ([2, "auto"], False),
    "cotangent_clip": ([0.1], False),
    "bidirectional": ([True], False),
    "dtype": ([jnp.bfloat16], False),
    "residual": ([True], False),
    "dropout": ([0.5], False),
    "taps": ([True], True),
    "probe": ([True], True),
    "outputs": (["last"], True),
    "lengths": ([LENGTHS], True),
}
ONLINE = ("rtrl", "uoro")
CASES = [{}, *({name: value} for name, (values, _) in OPTIONS.items() for value in values)]
PAIRS = [
    {a: x, b: y}
    for a, b in itertools.combinations(OPTIONS, 2)
    for x, y in itertools.product(OPTIONS[a][0], OPTIONS[b][0])
]


def refused(options):
    gradient = options.get("gradient", "bptt")
    if gradient != "bptt" and any(name in options for name in ("bidirectional", "taps", "probe")):
        return True
    if gradient in ONLINE and ("segments" in options or "cotangent_clip" in options):
        return True
    return options.get("method") == "deferred" and (gradient in ONLINE or "cotangent_clip" in options)


def shapes(options):
    """(gradient by the parameters, outputs) in shapes of a stack with these options."""
    call = {name: value for name, value in options.items() if OPTIONS[name][1]}
    made = {name: value for name, value in options.items() if not OPTIONS[name][1]}
    width = 2 * H if "bidirectional" in options else H

    def run():
        stack = Stack([gru(H)] * 2, width, rngs=nnx.Rngs(0), **made)
        for name in ("taps", "probe"):
            if name in call:
                call[name] = getattr(stack, f"make_{name}")(T, (B,))
        x = jnp.ones((T, B, width))
        graphdef, params, rest = nnx.split(stack, nnx.Param, ...)

        def loss(params):
            ys = nnx.merge(graphdef, params, rest, copy=True)(x, **call)[1]
            return jnp.sum(ys.astype(float)), ys

        return jax.grad(loss, has_aux=True)(params)

    return jax.eval_shape(run)


@pytest.mark.parametrize("options", [*CASES, *PAIRS], ids=lambda o: "+".join(o) or "none")
def test_a_pair_is_honoured_or_refused(options):
    if refused(options):
        with pytest.raises(ValueError, match="; allowed: ") as error:
            shapes(options)
        assert "\n" not in str(error.value) and all(name in str(error.value) for name in options)
        return
    slopes, ys = shapes(options)
    assert ys.dtype == options.get("dtype", jnp.float32)
    assert ys.shape == ((T,) if "outputs" not in options else ()) + (B, H * (1 + ("bidirectional" in options)))
    assert {leaf.dtype for leaf in jax.tree.leaves(slopes)} == {jnp.dtype(jnp.float32)}


SETTINGS = {
    "gradient": ["tbptt:2", "rtrl", "uoro"],
    "method": ["scan", "deferred"],
    "segments": [2, "auto"],
    "cotangent_clip": [0.1],
    "bidirectional": [True],
    "dtype": ["bfloat16"],
    "omega": [1.0],
    "orthogonality": [1.0],
}
SMALL = Config(seq_len=T, cell="gru", hidden_size=H, num_layers=2, batch_size=2, steps=1, eval_every=1, eval_batch=2)


def test_config_check_refuses_the_pairs_that_a_layer_refuses():
    for a, b in itertools.combinations(SETTINGS, 2):
        for x, y in itertools.product(SETTINGS[a], SETTINGS[b]):
            pair = {a: x, b: y}
            reads_backwards = "bidirectional" in pair and ("omega" in pair or "orthogonality" in pair)
            try:
                check(dataclasses.replace(SMALL, **pair))
                assert not refused(pair) and not reads_backwards, pair
            except ValueError as error:
                idle = "changes nothing" in str(error)
                assert refused(pair) or reads_backwards or idle, (pair, error)
                assert a in str(error) and b in str(error) and "\n" not in str(error)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"gradient": "uoro"}, marks=pytest.mark.slow),
        {"gradient": "tbptt:2", "dtype": "bfloat16"},
        pytest.param({"cotangent_clip": 0.1, "segments": 2}, marks=pytest.mark.slow),
        {"residual": True, "dropout": 0.5, "min_seq_len": 3, "method": "scan"},
    ],
    ids=lambda o: "+".join(o),
)
def test_all_penalties_train_with_every_other_option(other):
    config = dataclasses.replace(SMALL, omega=1.0, flossing=1.0, jacobian=1.0, orthogonality=1.0, **other)
    check(config)
    train = make_train(config)
    values = {name: jnp.float32(value) for name, value in hyperparameters(config).items()}
    state = jax.eval_shape(train.init, jax.random.key(0), values)
    new, record = jax.eval_shape(train.chunk, state, values)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), new) == jax.tree.map(lambda a: (a.shape, a.dtype), state)
    assert record["loss"].dtype == jnp.float32


def rtrl_and_bptt(make, **options):
    """The gradients of two layers of one cell, one by rtrl, that differ in nothing else."""
    found = []
    for gradient in ("rtrl", "bptt"):
        layer = RNN(make(H), H, time_major=True, gradient=gradient, rngs=nnx.Rngs(0), **options)
        graphdef, params, rest = nnx.split(layer, nnx.Param, ...)

        def loss(params, graphdef=graphdef, rest=rest):
            x = jax.random.normal(jax.random.key(0), (T, B, H))
            return jnp.sum(jnp.sin(nnx.merge(graphdef, params, rest)(x, seq_lengths=LENGTHS, outputs="last")))

        found.append((layer, jax.jit(jax.value_and_grad(loss))(params)))
    return found


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float64])
def test_rtrl_in_any_dtype_is_bptt_in_it(dtype):
    """float32 weights, computed with in another dtype."""
    with jax.enable_x64(dtype == jnp.float64):
        (layer, ours), (_, exact) = rtrl_and_bptt(rnn, dtype=dtype, method="scan")
        tolerance = 0.05 if dtype == jnp.bfloat16 else 1e-5
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), ours, exact)
        assert ours[0] == exact[0] and ours[0].dtype == dtype
        layer.eval()
        assert layer(jnp.ones((T, B, H))).dtype == dtype


def test_a_clip_is_of_the_training_pass_alone():
    layer = RNN(gru(H), H, time_major=True, cotangent_clip=1e-3, rngs=nnx.Rngs(0))
    taps = layer.make_taps(T, (B,))

    @jax.jit
    def norms(taps):
        slope = jax.grad(lambda taps: jnp.sum(layer(jnp.ones((T, B, H)), taps=taps)[-1]))(taps)
        return jnp.linalg.norm(slope, axis=-1)

    clipped = norms(taps)
    layer.eval()
    plain = jax.jit(lambda taps: norms.__wrapped__(taps))(taps)
    np.testing.assert_array_less(clipped[:-1], 1.0001e-3)
    np.testing.assert_allclose(clipped[-2], 1e-3, rtol=1e-4)
    assert np.all(plain[:-1] > 0.05)
    with pytest.raises(ValueError, match="clips a backward pass, and gradient='rtrl' has none"):
        RNN(gru(H), H, gradient="rtrl", cotangent_clip=0.1, rngs=nnx.Rngs(0))
