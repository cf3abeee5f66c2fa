"""The contenders of the benchmark run the same layer, and the benchmark turns their times into tables."""

import json
import os
import pathlib
import subprocess
import sys

import benchmark
import jax
import numpy as np
import pytest
from absl import app
from absl.testing import flagsaver
from benchmarks import peers, tables
from benchmarks.case import Case, flops, make_weights
from benchmarks.peers import jax_cudnn
from benchmarks.suites import costs
from command_line import main_with_errors

ROOT = pathlib.Path(__file__).parents[1]

os.environ.setdefault("KERAS_BACKEND", "jax")
LIBRARIES = {"haiku": "haiku", "equinox": "equinox", "keras": "keras", "torch": "torch"}
VARIANTS = {("haiku", "rnn"): "rnn_relu", ("haiku", "gru"): "gru_cho"}
PAIRS = [("lstm", name) for name in peers.LAYERS if not name.startswith(("rnnjax", "jax"))]
PAIRS += [("gru", "keras"), ("gru", "haiku"), ("gru", "torch"), ("rnn", "haiku"), ("rnn", "torch")]


@pytest.mark.parametrize(("cell", "name"), PAIRS)
def test_peers_compute_the_same_loss_and_gradient_norm(cell, name):
    pytest.importorskip(LIBRARIES.get(name, "jax"))
    case = Case(cell, B=2, T=4, I=3, H=5)
    variant = peers.same_as("layers", name, cell)
    assert variant == VARIANTS.get((name, cell), cell)
    ours = peers.build("layers", "rnnjax", case, variant=variant)
    assert peers.build("layers", name, case).check() == pytest.approx(ours.check(), rel=1e-5)


def test_gradient_norms_over_time_equal_those_of_a_pytorch_loop():
    pytest.importorskip("torch")
    case = Case("lstm", B=2, T=4, I=3, H=5)
    ours, theirs = (peers.build("diagnostics", name, case).check() for name in ("rnnjax norms", "torch norms"))
    assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.slow
def test_a_transformer_of_flax_computes_the_same_loss_and_gradient_norm():
    case = Case("transformer", B=2, T=4, I=3, H=8)
    ours, theirs = (peers.build("transformer", name, case).check() for name in peers.TRANSFORMER)
    assert theirs == pytest.approx(ours, rel=1e-5)


def test_a_peer_says_its_packages_and_has_no_other_cells():
    assert {"rnnjax", "jax", "flax", "dm-haiku", "equinox", "keras", "torch"} <= peers.versions().keys()
    for peer in peers.LAYERS.values():
        assert peer.module().CELLS.keys() <= {"rnn", "lstm", "gru"}
    with pytest.raises(NotImplementedError, match="jax cudnn has no gru"):
        peers.build("layers", "jax cudnn", Case("gru", B=2, T=4, I=3, H=5))


def test_cudnn_weights_are_laid_out_as_jax_reads_them():
    rnn = pytest.importorskip("jax.experimental.rnn")
    case = Case("lstm", B=2, T=4, I=3, H=5)
    weights, matrices = jax_cudnn.cudnn_weights(case)
    parts = [part[0] for part in rnn.unpack_lstm_weights(weights, case.I, case.H, 1, False)]
    ours = make_weights(case)
    for part, name in zip(parts, ("W_x", "W_h", "b"), strict=False):
        np.testing.assert_array_equal(part.T, ours[name])
    assert matrices == ours["W_x"].size + ours["W_h"].size


def test_flops_count_the_matmuls():
    assert flops(Case("gru", B=2, T=3, I=4, H=5)) == 2 * 2 * 3 * (4 * 15 + 5 * 15)


@pytest.mark.slow
def test_benchmark_writes_results_tables_and_figure(tmp_path):
    options = ["--suite=layers", "--cells=rnn", "--shapes=2x3x2x4", "--rounds=1", "--seconds=0.001", "--threads=1"]
    options += ["--contenders=flax.linen,torch", "--device=cpu", f"--out={tmp_path}"]
    subprocess.run([sys.executable, str(ROOT / "experiments/benchmark.py"), *options], check=True, timeout=300)
    (step,) = (c for c in json.loads((tmp_path / "results.json").read_text())["layers"]["cases"] if c["what"] == "step")
    assert {"rnnjax", "flax.linen"} <= set(step["times"])
    ways = step["times"]["rnnjax"]["ways"]
    assert set(ways) == {"call", "scan"} and all(len(w["seconds"]) == 1 for w in ways.values())
    assert "rnn (2, 3, 2, 4)" in (tmp_path / "tables.md").read_text()
    assert (tmp_path / "layers.png").read_bytes().startswith(b"\x89PNG")


BAD = {
    "--suite=layer,memory": "--suite=layer: unknown; did you mean 'layers'? allowed: layers, transformer, cells, sweep",
    "--cells=LSTM": "--cells=LSTM: unknown; did you mean 'lstm'? allowed: rnn, lstm, gru",
    "--shapes=32x200": "--shapes=32x200: allowed: BxTxIxH, four whole numbers above 0",
    "--sweep_shapes=0x1x2x3": "--sweep_shapes=0x1x2x3: allowed: BxTxIxH",
    "--costs_shape=cnn:1x2x3x4": "--costs_shape=cnn:1x2x3x4: allowed: CELL:BxTxIxH with CELL one of rnn, lstm, gru",
    "--cells_shape=lstm:1x2": "--cells_shape=1x2: allowed: BxTxIxH, four whole numbers above 0",
    "--memory_lengths=1e3": "--memory_lengths=1e3: allowed: whole numbers above 0",
    "--trials_workdir=.": "--trials_workdir=. is there already",
    "--rounds=0": "--rounds",
    "--wrong": "unknown flag --wrong",
    "--only_check_args": "unknown flag --only_check_args",
}


@pytest.mark.parametrize("argument", BAD)
def test_a_bad_flag_is_one_line_before_anything_is_timed(argument, flags_of_the_benchmark, capsys):
    with pytest.raises(SystemExit) as exit_:
        main_with_errors(benchmark.main, ["benchmark.py", argument])
    err = capsys.readouterr().err
    assert exit_.value.code == 2 and err.count("\n") == 1 and BAD[argument] in err


def test_help_is_no_error(flags_of_the_benchmark, capsys):
    with pytest.raises(SystemExit) as exit_:
        main_with_errors(benchmark.main, ["benchmark.py", "--help"])
    assert exit_.value.code == 0 and capsys.readouterr().err == ""


@pytest.fixture
def flags_of_the_benchmark():
    """The process's own, as they were afterwards."""
    app.define_help_flags()
    with flagsaver.flagsaver():
        yield


@pytest.mark.slow
def test_every_diagnostic_has_a_price():
    case = Case("lstm", B=2, T=12, I=3, H=8)
    functions, args = costs.diagnostics_of(case)
    assert next(iter(functions)) == "gradient"
    for name, function in functions.items():
        assert jax.tree.leaves(jax.eval_shape(function, *args)), name


def test_the_price_of_norms_is_paired_round_by_round():
    slow, fast = {"seconds": [4.0, 1.0, 2.0]}, {"seconds": [4.4, 1.1, 2.4]}
    times = {"rnnjax": {"way": "scan", "ways": {"scan": slow}}, "rnnjax norms": {"way": "call", "ways": {"call": fast}}}
    assert tables.paired_price(times) == pytest.approx(0.1)


def test_who_was_left_out_and_why():
    row = {"cell": "rnn", "B": 1, "T": 2, "I": 3, "H": 4}
    cases = [
        row | {"absent": {"keras": "not installed", "haiku": "no"}},
        row | {"T": 9, "absent": {"keras": "not installed"}},
    ]
    assert tables.left_out(cases) == [
        "- keras is left out of all cases: not installed",
        "- haiku is left out of rnn (1, 2, 3, 4): no",
        "",
    ]
