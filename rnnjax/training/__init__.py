"""Training: the settings, the run as one pure function, and what it leaves in its directory."""

from rnnjax.training.config import Config
from rnnjax.training.train import (
    BLAME,
    Hyperparameters,
    Train,
    TrainState,
    make_optimizer,
    make_train,
    mean_over_devices,
    penalty,
    sharded,
)

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
