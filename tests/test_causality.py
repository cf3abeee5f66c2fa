"""No output sees an input after its own step, for every model that a task with its answers in later inputs allows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnnjax.cells import CELLS
from rnnjax.tasks import TASKS, check_causal, text
from rnnjax.training import make_train
from rnnjax.training.checks import check
from rnnjax.training.config import Config, hyperparameters

T, B = 5, 2
LENGTHS = np.array([5, 3])
ALLOWED = [
    *({"cell": cell} for cell in CELLS),
    {"num_layers": 2, "residual": True, "min_seq_len": 2},
    {"num_layers": 3, "dropout": 0.5, "embedding_size": 4},
    {"cell": "gru", "segments": 2, "method": "scan"},
    {"cell": "lstm", "segments": 2, "method": "deferred", "min_seq_len": 2, "num_layers": 2},
    {"cell": "rnn", "gradient": "tbptt:2"},
    {"dtype": "bfloat16"},
    {"cell": "gru", "block": "norm,conv:3,inner_norm,gate,mlp:2", "num_layers": 2, "min_seq_len": 2},
    {"cell": "lru", "block": "expand:2,conv:3,out:glu", "dropout": 0.5},
]


def test_the_tasks_that_predict_their_own_inputs_are_these():
    assert {name for name in TASKS if needs_causality(TASKS[name](12))} == {"series", "text"}


def needs_causality(task):
    try:
        check_causal(task, "x", bidirectional=True)
    except ValueError:
        return True
    return False


@pytest.mark.parametrize("change", ALLOWED, ids=lambda change: ",".join(f"{k}={v}" for k, v in change.items()))
def test_outputs_do_not_depend_on_later_inputs(change):
    config = Config(task="text", seq_len=T, hidden_size=4, **change)
    check(config)
    J = jacobian(config)
    seen = np.tril(np.ones((T, T), bool))[..., None]
    if config.min_seq_len:
        seen = seen & (np.arange(T)[:, None, None] < LENGTHS)  # what is past a length says nothing at all
    seen = np.broadcast_to(seen, J.shape)
    assert not J[~seen].any()
    assert (J[seen] > 0).mean() > 0.25  # a ReLU or a truncated gradient misses some, and a wave of few units many


def test_two_directions_would_see_the_answer_and_are_refused(monkeypatch):
    config = Config(task="text", seq_len=T, hidden_size=4, bidirectional=True)
    for refuse in (check, make_train):
        with pytest.raises(ValueError, match=r"^bidirectional=True reads ahead, and of task 'text' its targets lie in"):
            refuse(config)
    monkeypatch.setattr("rnnjax.training.train.check_causal", lambda *_, **__: None)
    assert (jacobian(config)[np.triu_indices(T, 1)] > 0).all()


@pytest.mark.parametrize("task", ["adding", "copy"])
def test_two_directions_are_allowed_where_later_inputs_hold_no_answer(task):
    check(Config(task=task, seq_len=T, bidirectional=True))


def test_a_task_of_ones_own_is_held_causal_unless_it_says_otherwise():
    task = text(T)
    with pytest.raises(ValueError, match="task 'mine' it does not say causal=False, so its targets may lie"):
        check_causal(task._replace(causal=None), "mine", bidirectional=True)
    check_causal(task._replace(causal=False), "mine", bidirectional=True)
    check_causal(task._replace(causal=None, readout="mean"), "mine", bidirectional=True)  # one answer, at the end
    for readout in ("mean", "last"):
        with pytest.raises(ValueError, match=f"lie in its own later inputs, and readout '{readout}' sees them all"):
            check_causal(task._replace(readout=readout), "mine", bidirectional=False)


def jacobian(config):
    """|dy_t/dx_s| `[T, T, B]` of the model that trains, dropout and all, by what its encoder reads."""
    config = dataclasses.replace(config, task="text")
    train = make_train(config)
    params = train.init(jax.random.key(1), hyperparameters(config)).params
    lengths = jnp.asarray(LENGTHS) if config.min_seq_len else None

    @jax.jit
    def outputs(params, xs):
        model = train.model(params, jax.random.key(2))
        model.encoder = None  # it reads each step by itself; what follows takes reals, which have a gradient
        y = model(xs, lengths=lengths)
        return jnp.einsum("tbo,o->tb", y, jnp.cos(jnp.arange(y.shape[-1])))

    width = config.embedding_size or config.hidden_size
    xs = jax.random.normal(jax.random.key(3), (T, B, width), jnp.dtype(config.dtype))
    J = np.asarray(jax.jit(jax.jacrev(outputs, argnums=1))(params, xs), np.float32)  # [T, B, T, B, D]
    J = np.abs(J).sum(axis=-1)
    assert not J[:, 0, :, 1].any() and not J[:, 1, :, 0].any()  # sequences stand alone
    return np.stack([J[:, b, :, b] for b in range(B)], axis=-1)
