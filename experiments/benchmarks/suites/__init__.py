"""The suites: one file each, whose function of the same name returns (raw results, lines of markdown)."""

from benchmarks.suites import cells, costs, diagnostics, layers, memory, startup, sweep, transformer, trials

MODULES = (layers, transformer, cells, sweep, trials, diagnostics, costs, memory, startup)
SUITES = {
    "layers": layers.layers,
    "transformer": transformer.transformer,
    "cells": cells.cells,
    "sweep": sweep.sweep,
    "trials": trials.trials,
    "diagnostics": diagnostics.diagnostics,
    "costs": costs.costs,
    "memory": memory.memory,
    "startup": startup.startup,
}
