"""Recurrent networks in JAX: write a cell as a few pure functions, and see what it learns and where its gradient goes.

    cells      every known cell, and `gated`, which makes one from its gates     CELLS, gated
    engine     runs any cell over a sequence                                     unroll, make_taps, make_probe
    nn         any cell as a Flax layer, layers as a model                       RNN, Bidirectional, Stack, ...
    readouts   the best linear readout of a cell's states, in one solve          ridge_readout
    tasks      what networks are trained on                                      TASKS
    training   a run, in memory or in a directory; as one pure function          Config, fit, load, make_train
    sweeps     grids of runs as few compiled programs                            sweep, results
    gradients, diagnostics, runs, figures, reports

What is named here is imported when it is first used, so that `import rnnjax` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rnnjax.cells import CELLS, gated, linear
    from rnnjax.engine import make_probe, make_taps, unroll
    from rnnjax.nn import RNN, Bidirectional, SequenceModel, Stack
    from rnnjax.readouts import ridge_readout
    from rnnjax.reports.comparison import compare
    from rnnjax.sweeps.local import results, sweep
    from rnnjax.tasks import TASKS
    from rnnjax.training import Config, make_train
    from rnnjax.training.fit import fit
    from rnnjax.training.trained_run import TrainedRun, load
    from rnnjax.types import Batch, Cell, Gates, Linear, Memory, Parts, Task

_HOME = {
    "cells": ("CELLS", "gated", "linear", "memory"),
    "engine": ("make_probe", "make_taps", "unroll"),
    "nn": ("RNN", "Bidirectional", "SequenceModel", "Stack"),
    "readouts": ("ridge_readout",),
    "reports.comparison": ("compare",),
    "sweeps.local": ("results", "sweep"),
    "tasks": ("TASKS",),
    "training": ("Config", "make_train"),
    "training.fit": ("fit",),
    "training.trained_run": ("TrainedRun", "load"),
    "types": ("Batch", "Cell", "Gates", "Linear", "Memory", "Parts", "Task"),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}
_ROOMS = (
    *("cells", "diagnostics", "engine", "figures", "gradients", "initializers", "interop", "nn", "readouts"),
    *("reports", "runs", "sweeps", "tasks", "training", "types"),
)

__all__ = [
    "CELLS",
    "RNN",
    "TASKS",
    "Batch",
    "Bidirectional",
    "Cell",
    "Config",
    "Gates",
    "Linear",
    "Memory",
    "Parts",
    "SequenceModel",
    "Stack",
    "Task",
    "TrainedRun",
    "compare",
    "fit",
    "gated",
    "linear",
    "load",
    "make_probe",
    "make_taps",
    "make_train",
    "memory",
    "results",
    "ridge_readout",
    "sweep",
    "unroll",
]


def __getattr__(name: str):
    if name in _MODULE:
        return getattr(importlib.import_module(f"rnnjax.{_MODULE[name]}"), name)
    if name in _ROOMS:
        return importlib.import_module(f"rnnjax.{name}")
    raise AttributeError(f"module 'rnnjax' has no attribute {name!r}")


def __dir__():
    return sorted([*__all__, *_ROOMS])
