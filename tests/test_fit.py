"""`fit`, `load`, `sweep` and `results`: the whole of a run from Python, in memory or in a directory."""

import base64
import dataclasses
import json
import re
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnjax
from rnnjax import runs
from rnnjax.cells import CELLS
from rnnjax.training.config import Config
from rnnjax.types import Cell

CONFIG = Config(cell="rnn", seq_len=8, hidden_size=3, batch_size=2, steps=6, eval_every=2, eval_batch=2, lr=1e-2)


class StopAfter:
    """A stop request that is there when it is asked about for the `asked`-th time."""

    def __init__(self, asked):
        self.left = asked

    @property
    def requested(self):
        self.left -= 1
        return self.left < 0


@pytest.fixture(scope="module")
def whole():
    """A run of 6 steps in memory, which nothing interrupted."""
    return rnnjax.fit(CONFIG, progress=False)


@pytest.fixture(scope="module")
def saved(whole, tmp_path_factory):
    """The directory that it was saved in."""
    return whole.save(tmp_path_factory.mktemp("saved") / "run")


def assert_same(run, other):
    """Bit for bit the same parameters, metrics and gradient flow."""
    leaves = [jax.tree.leaves((r.params, r.gradient_flow)) for r in (run, other)]
    assert len(leaves[0]) == len(leaves[1]) > 3
    for a, b in zip(*leaves, strict=True):
        np.testing.assert_array_equal(a, b)
    assert run.metrics == other.metrics and run.gradient_flow.keys() == other.gradient_flow.keys()
    timed = ("seconds", "steps_per_second")
    results = [{n: v for n, v in r.result.items() if n not in timed} for r in (run, other)]
    assert results[0] == results[1]


def test_a_run_in_a_directory_stopped_on_the_way_is_the_one_in_memory(whole, tmp_path):
    first = rnnjax.fit(CONFIG, tmp_path / "run", progress=False, stop=StopAfter(1))
    assert first.result is None and first.steps == 2 and len(first.metrics) == 1
    loaded = rnnjax.load(tmp_path / "run")
    assert loaded.result is None and loaded.metrics == first.metrics and loaded.steps == 2
    assert loaded.gradient_flow["step"].tolist() == [2]
    second = loaded.resume(progress=False, stop=StopAfter(1))
    assert second.result is None and second.steps == 4
    assert_same(second.resume(progress=False), whole)
    assert_same(rnnjax.fit(CONFIG, tmp_path / "run", progress=False), whole)  # read, as it is finished
    stopped = rnnjax.fit(CONFIG, progress=False, stop=StopAfter(2))
    assert stopped.result is None and stopped.steps == 4
    assert_same(stopped.resume(progress=False), whole)


def test_a_saved_run_is_loaded_as_it_was(whole, saved):
    loaded = rnnjax.load(saved)
    assert_same(loaded, whole)
    assert loaded.workdir == saved and loaded.evaluate() == whole.evaluate()
    for a, b in zip(*(jax.tree.leaves(r.state._replace(key=0)) for r in (loaded, whole)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (saved / "learning_curve.png").exists() and not list(saved.glob("lock"))
    with pytest.raises(runs.RunRefused, match="is not empty"):
        whole.save(saved)


def test_a_trial_of_a_sweep_is_the_run_of_its_config(whole, tmp_path):
    rows = rnnjax.sweep(CONFIG, {"seed": [3, 0], "cell": ["rnn"]}, tmp_path / "s")
    assert [row["seed"] for row in rows] == [0, 3] and rows == rnnjax.results(tmp_path / "s")
    assert rows[0]["hidden_size"] == 3 and rows[0]["score_name"] == "mse"
    trial = rnnjax.load(rows[0]["workdir"])
    assert_same(trial, whole)
    with pytest.raises(ValueError, match="keeps no state to go on from"):
        trial.resume(4)
    (tmp_path / "s" / "trials" / rows[1]["workdir"][-16:] / "result.json").write_text("{")
    assert rnnjax.results(tmp_path / "s") == rows[:1]


@pytest.mark.parametrize("kept", [pytest.param("memory", marks=pytest.mark.slow), "directory"])
def test_more_steps_are_those_of_a_longer_run(whole, tmp_path, kept):
    short = dataclasses.replace(CONFIG, steps=2)
    run = rnnjax.fit(short, tmp_path / "run" if kept == "directory" else None, progress=False)
    longer = run.resume(4, progress=False)
    assert longer.config == CONFIG and run.config == short and run.steps == 2
    assert_same(longer, whole)
    if kept == "directory":
        record = json.loads((tmp_path / "run" / "config.json").read_text())
        assert record["config"]["steps"] == 6 and record["former_steps"] == [2]
        assert_same(rnnjax.load(tmp_path / "run"), whole)
        with pytest.raises(runs.RunRefused, match="another config: steps was 6, now 2"):
            run.resume(4, progress=False)  # its directory has gone on since


def test_a_run_goes_on_from_a_step_at_which_no_chunk_would_end(whole):
    short = dataclasses.replace(CONFIG, steps=3)  # chunks of 2 and 1
    longer = rnnjax.fit(short, progress=False).resume(3, progress=False)
    assert [row["step"] for row in longer.metrics] == [2, 3, 5, 6]
    for a, b in zip(jax.tree.leaves(longer.params), jax.tree.leaves(whole.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_killed_while_it_is_lengthened_a_run_ends_once_more(saved, whole, tmp_path, monkeypatch):
    path = whole.save(tmp_path / "run")
    monkeypatch.setattr("rnnjax.runs.run.write_json", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        rnnjax.load(path).resume(2, progress=False)
    monkeypatch.undo()
    assert_same(rnnjax.fit(CONFIG, path, progress=False), whole)


def counter(hidden_size):
    """A cell that counts the steps."""
    init = lambda key, D: {"unused": jnp.zeros(hidden_size)}  # noqa: E731
    initial_carry = lambda weights, batch: jnp.zeros((*batch, hidden_size))  # noqa: E731
    return Cell(init, initial_carry, lambda params, h, x: h + 1 + 0 * params["unused"])


def test_evaluation_is_at_the_length_that_is_asked_for(monkeypatch):
    """The model says T; y is the sum of two uniform numbers: E (T - y)^2 = (T - 1)^2 + 1/6."""
    monkeypatch.setitem(CELLS, "counter", counter)
    config = dataclasses.replace(CONFIG, cell="counter", hidden_size=1, steps=1, min_seq_len=8)
    run = rnnjax.fit(config, progress=False)
    known = {"kernel": 1.0, "bias": 0.0}

    def set_readout(path, leaf):
        return jnp.full_like(leaf, known.get(jax.tree_util.keystr(path, simple=True, separator="/").split("/")[1], 0))

    run = dataclasses.replace(run, params=jax.tree_util.tree_map_with_path(set_readout, run.params))
    for T in (8, 16):
        score = run.evaluate(seq_len=T, batch_size=512)["mse"]
        noise = 6 * 2 * (T - 1) * np.sqrt(1 / 6 / 2048)
        np.testing.assert_allclose(score, (T - 1) ** 2 + 1 / 6, atol=noise)
    splits = {split: run.evaluate(split, batch_size=4)["mse"] for split in ("validation", "test")}
    assert len(set(splits.values())) == 2  # of other sequences
    with pytest.raises(ValueError, match="unknown split 'tset'; did you mean 'test'"):
        run.evaluate("tset")
    with pytest.raises(ValueError, match="seq_len is 1"):
        run.evaluate(seq_len=1)


REFUSED = {
    "a setting": (lambda path: rnnjax.fit(Config(cell="lsmt"), path), "unknown config.cell 'lsmt'; did you mean"),
    "float64": (lambda path: rnnjax.fit(Config(dtype="float64"), path), "jax_enable_x64=True"),
    "shards": (lambda path: rnnjax.fit(CONFIG, path, shards=7), "shards=7: allowed: a divisor"),
    "a giant": (lambda path: rnnjax.fit(dataclasses.replace(CONFIG, hidden_size=10**6), path), "state need 11176 GiB"),
    "no run": (rnnjax.load, "has no config.json"),
    "no sweep": (rnnjax.results, "it has no trials"),
    "an option": (lambda path: rnnjax.sweep(CONFIG, {}, path, lane=2), "unknown option 'lane'; did you mean 'lanes'"),
    "an axis": (lambda path: rnnjax.sweep(CONFIG, {"sed": [1]}, path), "unknown setting config.sed; did you mean"),
    "a value": (lambda path: rnnjax.sweep(CONFIG, {"lr": ["fast"]}, path), "config.lr='fast'"),
}


@pytest.mark.parametrize("call, line", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_one_line_and_nothing_is_written(call, line, tmp_path):
    with pytest.raises(ValueError, match=re.escape(line)) as error:
        call(tmp_path / "there")
    assert "\n" not in str(error.value) and not (tmp_path / "there").exists()


def test_what_is_refused_leaves_a_finished_run_as_it_is(whole, tmp_path):
    path = whole.save(tmp_path / "run")
    record = json.loads((path / "config.json").read_text())
    record["numbers"]["shards"] = 64  # as on a machine of 64 cores
    (path / "config.json").write_text(json.dumps(record))
    files = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    for how, line in (
        ({}, r"split over 64 devices, and JAX has \d+ here; .*shards=\d+, accept_changes=True"),
        ({"shards": 1}, "shards was 64 when this run began, now 1"),
    ):
        with pytest.raises(ValueError, match=line):
            rnnjax.load(path).resume(2, progress=False, **how)
        assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == files
    longer = rnnjax.load(path).resume(2, progress=False, shards=1, accept_changes=True)
    assert longer.steps == 8 and rnnjax.load(path).shards == 1


def test_runs_that_cannot_go_on_say_so(whole):
    cosine = dataclasses.replace(whole, config=dataclasses.replace(CONFIG, schedule="cosine"))
    with pytest.raises(ValueError, match="schedule='cosine' is for 6 steps"):
        cosine.resume(1)
    diverged = dataclasses.replace(whole, metrics=[*whole.metrics[:-1], whole.metrics[-1] | {"diverged": 5}])
    with pytest.raises(ValueError, match="diverged at step 5"):
        diverged.resume(1)
    with pytest.raises(ValueError, match="steps=0"):
        whole.resume(0)


def test_a_run_changes_no_setting_of_jax(capfd):
    before = dict(jax.config.values)
    rnnjax.fit(dataclasses.replace(CONFIG, steps=1), progress=False).evaluate(batch_size=2)
    assert dict(jax.config.values) == before
    assert capfd.readouterr().err == ""


def test_progress_is_a_line_an_evaluation_and_in_a_notebook_a_bar(monkeypatch, capfd):
    rnnjax.fit(CONFIG)
    lines = capfd.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["step 2/6", "step 4/6", "step 6/6"]
    shown = []
    handle = types.SimpleNamespace(update=shown.append)
    display = types.SimpleNamespace(HTML=str, display=lambda text, display_id: shown.append(text) or handle)
    shell = types.SimpleNamespace(kernel="of a notebook")
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    rnnjax.fit(CONFIG)
    assert capfd.readouterr().err == "" and len(shown) == 4
    assert shown[0] == '<progress value="0" max="6"></progress> compiling'
    assert shown[-1].startswith('<progress value="6" max="6"></progress> step 6/6')
    shell.kernel = None  # IPython in a terminal
    rnnjax.fit(CONFIG)
    assert len(capfd.readouterr().err.splitlines()) == 3 and len(shown) == 4


def test_a_run_shows_itself(whole, saved):
    text = repr(dataclasses.replace(whole, workdir=saved))
    for part in ("rnn", "adding", "steps 6 of 6", "seq_len=8", "validation mse", str(saved)):
        assert part in text
    page = dataclasses.replace(whole, config=dataclasses.replace(CONFIG, cell="<b>"))._repr_html_()
    assert "<b>" not in page and "&lt;b&gt;" in page
    assert base64.b64decode(re.search('base64,([^"]+)', page)[1])[:4] == b"\x89PNG"
    empty = dataclasses.replace(whole, metrics=[], result=None)
    assert "<img" not in empty._repr_html_() and "steps 0 of 6" in repr(empty)


def test_results_as_a_frame_where_pandas_is(tmp_path, monkeypatch):
    (tmp_path / "trials").mkdir()
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ValueError, match="pip install pandas"):
        rnnjax.results(tmp_path, as_frame=True)
    monkeypatch.setitem(sys.modules, "pandas", types.SimpleNamespace(DataFrame=tuple))
    assert rnnjax.results(tmp_path, as_frame=True) == () and rnnjax.results(tmp_path) == []


def test_the_package_offers_what_it_lists_and_imports_it_late():
    assert rnnjax.__all__ == sorted(rnnjax.__all__, key=lambda name: (not name.isupper(), name.islower(), name))
    assert set(rnnjax.__all__) <= set(dir(rnnjax)) == set(sorted(dir(rnnjax)))
    for name in dir(rnnjax):
        assert getattr(rnnjax, name) is not None
    assert {"Config", "TrainedRun", "fit", "load", "results", "sweep"} <= set(rnnjax.__all__)
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        rnnjax.fitt  # noqa: B018
