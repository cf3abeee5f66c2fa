"""Parity by a diagonal linear recurrence: what eigenvalues below 0 are for."""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from rnnjax.cells.linear import linear
from rnnjax.intervals import median
from rnnjax.reproductions.table import Place, Table
from rnnjax.training.config import Config
from rnnjax.types import Array, Cell, Params, Weights

LENGTHS = (40, 80, 160, 255)
ACTIVATIONS = {"tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid}


def gated_diagonal(hidden_size: int, *, activation: Literal["tanh", "sigmoid"] = "tanh") -> Cell:
    """A diagonal linear recurrence whose eigenvalues the input chooses, within (0, 1) or (-1, 1).

        h_t = a_t h_{t-1} + b_t x_t,    a_t = activation(10 (W_a x_t + c_a)),    b_t = W_b x_t + c_b,    y_t = norm(h_t)

    x stands for norm(x) everywhere, norm for a layer normalisation without parameters. That of the programs beside
    Grazzi et al. (2024, arXiv:2411.12537); it reads as many numbers as it has units.

    Args:
      hidden_size: H.
      activation: of a.
    """
    act = ACTIVATIONS[activation]

    def init(key: Array, input_size: int) -> Params:
        keys, shape = jax.random.split(key, 4), (input_size, hidden_size)
        spread = max(input_size, 1) ** -0.5
        W = {f"W_{n}": spread * jax.random.normal(k, shape) for n, k in zip("ab", keys[:2], strict=True)}
        return W | {f"c_{n}": spread * jax.random.normal(k, shape[1:]) for n, k in zip("ab", keys[2:], strict=True)}

    def project(weights: Weights, x: Array, key: Array | None = None) -> tuple[Array, Array]:
        x = _norm(x)
        a = act(10 * (x @ weights["W_a"] + weights["c_a"]))
        return a, (x @ weights["W_b"] + weights["c_b"]) * x

    def initial_carry(weights: Weights, batch_shape: tuple[int, ...]) -> Array:
        return jnp.zeros((*batch_shape, hidden_size))

    return linear(init, initial_carry, lambda w, z: z, project=project, output=lambda w, h, z: _norm(h))


def parity() -> Table:
    """Parity of up to 255 digits by one diagonal linear layer, by the range of its eigenvalues."""
    config = Config(
        task="parity",
        task_options={"last": True},
        seq_len=39,
        min_seq_len=2,
        eval_lengths=LENGTHS,
        cell=f"{__file__}:gated_diagonal",
        hidden_size=10,
        embedding_size=10,
        optimizer="adamw",
        weight_decay=0.01,
        lr=1e-3,
        batch_size=256,
        steps=2000,
        eval_every=500,
        gradient_flow=False,
    )
    places = [
        Place(name, "right answers", config_of(config, activation), published, seeds=8)
        for name, activation, published in (
            ("(-1, 1), tanh", "tanh", "0.861; 0.878"),
            ("(0, 1), sigmoid", "sigmoid", "0.501; 0.507"),
        )
    ]
    return Table(
        title="Parity, asked after the last digit: right answers at 40 to 255 digits; in training, at 2 to 39",
        source="Grazzi et al. (2024), Unlocking state-tracking in linear RNNs through negative eigenvalues; logs of "
        "its programs, one run each",
        protocol="One layer of 10 units with layer normalisation before and after, 2000 steps of 256 sequences, AdamW "
        "at 0.001. Published runs warm the learning rate up over all steps, and test at lengths from 39 to 255; ours "
        f"are the mean over {', '.join(map(str, LENGTHS))}. Medians of eight seeds, lowest and highest behind them.",
        places=tuple(places),
        duration="5 minutes",
        rows_are="eigenvalues in",
        value=_accuracies,
        stop_solved=False,
    )


def config_of(config: Config, activation: str) -> Config:
    """The config with this activation."""
    return Config(**{**vars(config), "cell_options": {"activation": activation}})


def _accuracies(results: Sequence[dict[str, Any]]) -> str:
    longer = [sum(r["lengths"][str(n)]["accuracy"] for n in LENGTHS) / len(LENGTHS) for r in results]
    trained = [r["score"] for r in results]
    return "; ".join(f"{median(v):.3f} [{min(v):.3f}, {max(v):.3f}]" for v in (longer, trained))


def _norm(x: Array) -> Array:
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-5)
