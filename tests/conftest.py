"""What the tests share: where they run, and the cells that the table-driven ones run over."""

import collections
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
# Tables whose rows each compile a program or more, and of which every third row runs in `make test`: what they hold is
# held by each row, for other options. The others run with `make test-slow`.
EVERY_THIRD = {
    "test_a_block_is_a_plain_numpy_one",
    "test_a_carry_may_be_any_pytree_of_any_arrays",
    "test_a_reset_inside_a_chunk",
    "test_all_penalties_train_with_every_other_option",
    "test_every_runner_of_the_engine",
    "test_forward_gradients_take_what_bptt_takes",
    "test_last_output_alone",
    "test_newton_is_the_scan",
    "test_no_token_outside_the_nucleus_is_written_and_those_in_it_by_their_share",
    "test_outputs_do_not_depend_on_later_inputs",
    "test_peers_compute_the_same_loss_and_gradient_norm",
    "test_resets_against_sequences_run_apart",
    "test_taps_and_probe_are_of_the_cells_state",
    "test_whatever_a_text_can_be_trained_with_can_be_scored_and_written",
}
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
    """Marks as slow what runs over every cell with one that is not representative, but for a family's own tests.

    And two of three rows of the tables in `EVERY_THIRD`.
    """
    rows = collections.Counter()
    for item in items:
        name = getattr(item, "originalname", item.name)
        if name in EVERY_THIRD and not any(item.iter_markers("slow")):
            if rows[name] % 3:
                item.add_marker(pytest.mark.slow)
            rows[name] += 1
        values = item.callspec.params.values() if hasattr(item, "callspec") else ()
        names = (v.get("cell") if isinstance(v, dict) else v for v in values)  # a dict of settings names one, too
        cell = next((v for v in names if isinstance(v, str) and v in CELLS), None)
        own = item.module.__name__.startswith(("test_structure", "test_cells_"))
        if cell and cell not in REPRESENTATIVE and not own:
            item.add_marker(pytest.mark.slow)
