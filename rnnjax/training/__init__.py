"""Training: the settings, the run as one pure function, and what it leaves in its directory."""

from rnnjax.training.config import Config, Hyperparameters
from rnnjax.training.objective import penalty
from rnnjax.training.optimizer import make_optimizer
from rnnjax.training.shards import mean_over_devices, sharded
from rnnjax.training.train import BLAME, Train, TrainState, make_train

__all__ = [
    "BLAME",
    "Config",
    "Hyperparameters",
    "Train",
    "TrainState",
    "make_optimizer",
    "make_train",
    "mean_over_devices",
    "penalty",
    "sharded",
]
