"""The gradient anatomy table: where the gradient goes in seven simple networks, before and after training.

    python experiments/anatomy.py --config=configs/anatomy.py --workdir=runs/anatomy

Adding and copy at T = 50, H = 32, 1500 steps: 14 networks of 12 seeds. The same command again trains what is missing.
"""

import math

from rnnjax import CELLS, Cell, Config
from rnnjax.cells import rnn
from rnnjax.initializers import normal


def rnn_gaussian(hidden_size: int, *, activation: str = "tanh", gain: float = 1.0) -> Cell:
    """The Elman (1990) network whose W_h starts as N(0, gain^2 / H), of spectral radius about `gain`."""
    return rnn(hidden_size, activation=activation, w_h=normal(gain / math.sqrt(hidden_size)))


CELLS["rnn_gaussian"] = rnn_gaussian


def get_config() -> Config:
    return Config(
        seq_len=50,
        hidden_size=32,
        optimizer="adam",
        lr=2e-3,
        clip=1.0,
        batch_size=32,
        steps=1500,
        eval_every=250,
        eval_batch=256,
    )
