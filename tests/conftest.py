"""What the tests share: where they run, and the cells that the table-driven ones run over."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
import pytest

from rnnjax.cells import CELLS, lstm

HIDDEN = 4
CASES = dict(CELLS) | {
    "lstm-peepholes": lambda hidden_size: lstm(hidden_size, peepholes=True),
    "lstm-coupled": lambda hidden_size: lstm(hidden_size, coupled=True, peepholes=True),
}


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
