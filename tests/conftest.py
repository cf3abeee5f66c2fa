"""What the tests share: where they run, and the cells that the table-driven ones run over."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
import pytest

from rnnjax.cells import CELLS, lstm, lstm_1997

HIDDEN = 4
# They compare bits with those of another process, or measure memory or time, or hold the engine itself to its oracles.
COMPILED_AS_USED = {
    "test_benchmark",
    "test_cells",
    "test_faults",
    "test_flags",
    "test_memory",
    "test_runs",
    "test_spectra",
    "test_unroll",
}
# The cells over which the tables of tests run in `make test`: each form, and each way through the engine. The others
# have their equations and properties tested there, and these tables with `make test-slow`.
REPRESENTATIVE = {"rnn", "irnn", "lstm", "gru", "gru_cho", "mgu", "lru"}
CASES = dict(CELLS) | {
    "lstm-peepholes": lambda hidden_size: lstm(hidden_size, peepholes=True),
    "lstm-coupled": lambda hidden_size: lstm(hidden_size, coupled=True, peepholes=True),
    # Its gradient is by default not the whole one, which is what finite differences find.
    "lstm_1997": lambda hidden_size: lstm_1997(hidden_size, truncated=False),
}


@pytest.fixture(scope="module", autouse=True)
def compiled_quickly(request):
    """XLA without its optimisations elsewhere: most programs of a test run once, and compiling them takes the time."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", request.module.__name__ not in COMPILED_AS_USED)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(params=CASES)
def cell(request):
    """Every cell of the table, and the forms that its defaults do not show, with H = 4."""
    return CASES[request.param](HIDDEN)


@pytest.fixture
def random_params():
    """(cell, input_size) -> parameters moved off their initial values: no bias is zero, no matrix special."""

    def draw(cell, input_size, seed=0):
        noise = np.random.default_rng(seed)
        move = lambda a: np.asarray(a) + 0.4 * noise.normal(size=a.shape).astype(a.dtype)  # noqa: E731
        return jax.tree.map(move, cell.init(jax.random.key(seed), input_size))

    return draw


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks as slow what runs over every cell with one that is not representative, but for a family's own tests."""
    for item in items:
        values = item.callspec.params.values() if hasattr(item, "callspec") else ()
        names = (v.get("cell") if isinstance(v, dict) else v for v in values)  # a dict of settings names one, too
        cell = next((v for v in names if isinstance(v, str) and v in CELLS), None)
        own = item.module.__name__.startswith(("test_structure", "test_cells_"))
        if cell and cell not in REPRESENTATIVE and not own:
            item.add_marker(pytest.mark.slow)
