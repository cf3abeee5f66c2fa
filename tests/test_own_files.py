"""Cells and tasks in a file of the user's own, `FILE.py:NAME`: what runs, what is recorded, and what never runs."""

import dataclasses
import os
import shutil
import sys
import types
from pathlib import Path

import command_line
import gradient_flow
import jax
import numpy as np
import pytest
from absl import flags
from trials import parse_trials

import rnnjax
from rnnjax import Config, runs
from rnnjax.reports.runs_page import write_report
from rnnjax.runs.sources import source_of, source_of_file
from rnnjax.sweeps import grid
from rnnjax.sweeps.progress import bucket_labels
from rnnjax.sweeps.ray_executor import run_share
from rnnjax.training import outputs, own_files
from rnnjax.training.config import make_task
from rnnjax.training.refusals import BadSetting
from rnnjax.training.settings import checked

CELL = '''"""A cell of my own, and a task."""
from pathlib import Path
from beside import SCALE
from rnnjax.cells import rnn
from rnnjax.tasks import adding
from rnnjax.types import Array

with Path("LOG").open("a") as log:
    log.write("ran ")


def own(hidden_size, *, gain: float | Array = 1.0, depth: int = 1):
    """An RNN.

    Args:
      gain: how large W_h is at the start.
    """
    return rnn(hidden_size, gain=SCALE * gain)


def sums(seq_len, *, variant: str = "one_hot"):
    return adding(seq_len)
'''
SMALL = {"seq_len": 4, "hidden_size": 3, "batch_size": 2, "steps": 1, "eval_batch": 2, "gradient_flow": False}
QUIET = {"progress": False}


OWN = Config(cell_options={"gain": 0.5}, **SMALL)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of the cell in my.py, in memory and saved; and one of the same cell in the table."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write(folder)
        run = rnnjax.fit(dataclasses.replace(OWN, cell="my.py:own"), **QUIET)
        run.save("run")
        assert times_run(folder) == 1 and sorted(os.listdir()) == ["beside.py", "log", "my.py", "run"]
    return folder, run, rnnjax.fit(dataclasses.replace(OWN, cell="rnn"), **QUIET)


@pytest.fixture
def folder(trained, monkeypatch):
    """Where the user works: it holds my.py, what that imports, and a finished run of it."""
    folder, tables = trained[0], {name: dict(getattr(own_files, name)) for name in ("_RUN", "_IN_FORCE")}
    for name, table in tables.items():
        monkeypatch.setattr(own_files, name, table)
    monkeypatch.chdir(folder)
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    yield folder
    for path in sorted(folder.rglob("*"), reverse=True):
        if path not in kept:
            path.unlink() if path.is_file() else path.is_dir() and not any(path.iterdir()) and path.rmdir()
    for path, data in kept.items():
        path.write_bytes(data)


@pytest.fixture
def own(folder):
    return dataclasses.replace(OWN, cell="my.py:own")


def write(folder, text="", new=""):
    """my.py, with this text of it changed, and its neighbour."""
    assert text in CELL
    (folder / "my.py").write_text((CELL.replace(text, new) if text else CELL).replace("LOG", str(folder / "log")))
    (folder / "beside.py").write_text("SCALE = 1\n")


def times_run(folder):
    return (folder / "log").read_text().count("ran") if (folder / "log").exists() else 0


def norm_of_W_h(factory):
    """It starts as `gain` times an orthogonal matrix."""
    return float(np.linalg.norm(factory(4, gain=0.5).init(jax.random.key(0), 2)["W_h"]))


def test_a_run_of_an_own_cell_is_the_one_of_the_same_cell_in_the_table(folder, trained):
    _, run, builtin = trained
    assert run.metrics == builtin.metrics and run.config.cell == f"{folder}/my.py:own"
    record = runs.read_config("run")
    assert record["config"]["cell"] == "my.py:own" and record["config"]["cell_options"] == {"gain": 0.5, "depth": 1}
    source = record["sources"]["cell 'my.py:own'"]
    assert source == {"file": f"{folder}/my.py", "sha256": source_of_file(folder / "my.py").sha256}
    assert source_of(own_files.find("cell", f"{folder}/my.py:own")).sha256 == source["sha256"]  # named in any way
    assert {path.name for path in (folder / "run/source").iterdir()} == {"my.py", "beside.py"}
    again = rnnjax.load("run")
    jax.tree.map(np.testing.assert_array_equal, again.params, run.params)
    assert again.result["cell"] == "my.py:own" and "cell my.py:own, task adding, settings seq_len=4" in repr(again)
    page = write_report(["run"], "report").read_text()
    assert "my.py:own" in page and str(folder) not in page and times_run(folder) == 1
    shutil.rmtree("report")


def test_a_changed_file_is_refused_and_its_wording_is_not(folder, own):
    write(folder, '"""An RNN.', '"""A plain RNN.')
    assert rnnjax.load("run").result == rnnjax.fit(own, "run", **QUIET).result
    for change in ((folder, "gain=SCALE * gain", "gain=2 * gain"), None):
        if change:
            write(*change)
        else:  # what it imports
            write(folder)
            (folder / "beside.py").write_text("SCALE = 2 * 1\n")
        with pytest.raises(runs.RunRefused, match=r"cell 'my.py:own' changed since this run began .*my\.py\).*accept"):
            rnnjax.fit(own, "run", **QUIET)
        with pytest.raises(runs.RunRefused, match=r"run is of cell 'my.py:own', and .*/my.py is not there, or changed"):
            rnnjax.load("run")
        assert rnnjax.fit(own, "run", accept_changes=True, **QUIET).result["complete"]
    write(folder)
    assert rnnjax.load("run").result


def test_a_file_that_changed_runs_anew_with_what_it_imports_and_never_in_the_midst_of_a_run(folder, own, trained):
    _, run, _ = trained
    first = own_files.find("cell", own.cell)
    (folder / "beside.py").write_text("SCALE = 3.0\n")
    assert own_files.find("cell", own.cell) is first and times_run(folder) == 1  # as a run under way sees it
    assert own_files.source(own.cell).texts["beside.py"] == b"SCALE = 1\n"
    checked(own)  # as the next run does
    second = own_files.find("cell", own.cell)
    assert [norm_of_W_h(f) for f in (first, second)] == pytest.approx([0.5 * 2, 3 * 0.5 * 2]) and times_run(folder) == 2
    with pytest.raises(BadSetting, match=r"cell 'my.py:own' changed since this run began .*; allowed: fit"):
        run.resume(steps=2)
    run.save("again")  # records what it was made of
    assert (folder / "again/source/beside.py").read_text() == "SCALE = 1\n"
    write(folder)
    assert rnnjax.load("again").metrics == run.metrics
    assert own_files.find("cell", own.cell) is first and times_run(folder) == 2  # a text that was run is not run again


def test_what_a_file_imports_is_what_lies_beside_it(folder):
    """And not what another file found under that name, nor what the user imported."""
    (folder / "sub").mkdir()
    write(folder / "sub")
    (folder / "sub/beside.py").write_text("SCALE = 5\n")
    theirs = sys.modules["beside"] = types.ModuleType("beside")
    try:
        factories = [own_files.find("cell", f"{folder}/{place}my.py:own") for place in ("", "sub/")]
        assert [norm_of_W_h(f) for f in factories] == pytest.approx([0.5 * 2, 5 * 0.5 * 2])
        assert sys.modules["beside"] is theirs
    finally:
        del sys.modules["beside"]
    (folder / "time.py").write_text("")  # what Python itself has is not taken from beside
    write(folder, "from beside import SCALE", "import time\nfrom beside import SCALE")
    time = sys.modules["time"]
    checked(Config(cell="my.py:own", **SMALL))
    assert sys.modules["time"] is time


def test_a_run_is_loaded_by_a_file_of_its_text_and_no_other_runs(folder, own):
    (folder / "moved").mkdir()
    shutil.move("my.py", "moved/my.py")
    shutil.move("beside.py", "moved/beside.py")
    own_files._IN_FORCE.clear()
    own_files._RUN.clear()
    before = times_run(folder)
    with pytest.raises(runs.RunRefused, match=r"run/source has a copy of, named by --config.cell=FILE.py:own or load"):
        rnnjax.load("run")
    (folder / "other.py").write_text((folder / "moved/my.py").read_text() + "\nX = 1\n")
    with pytest.raises(runs.RunRefused):
        rnnjax.load("run", own_file="other.py")
    record = runs.read_config("run")  # a hostile one names a file within itself
    record["sources"]["cell 'my.py:own'"]["file"] = str(folder / "run/source/my.py")
    runs.write_json(folder / "run/config.json", record)
    with pytest.raises(runs.RunRefused):
        rnnjax.load("run")
    assert times_run(folder) == before
    assert rnnjax.load("run", own_file="run/source/my.py").result
    own_files._IN_FORCE.clear()
    assert rnnjax.load("run", own_file="moved/my.py").config.cell == f"{folder}/moved/my.py:own"
    assert rnnjax.load("run").result  # the file was asked for
    again = rnnjax.fit(dataclasses.replace(own, cell="moved/my.py:own"), "run", **QUIET)  # it is this very run
    assert again.result == rnnjax.load("run").result
    assert not list(folder.rglob("__pycache__"))


def test_a_sweep_over_own_cells_and_others(folder):
    trials = parse_trials(Config(**SMALL), ["cell=rnn,my.py:own", "cell.gain=0.5,2", "seed=0:2"])
    buckets = grid.buckets(trials)
    assert [len(bucket.trials) for bucket in buckets] == [4, 4]
    assert "cell=my.py:own" in bucket_labels(buckets)[grid.bucket_id(buckets[1].config)]
    rows = rnnjax.sweep(Config(**SMALL), {"cell": ["my.py:own"]}, "sweep")
    assert [row["cell"] for row in rows] == ["my.py:own"]
    assert rnnjax.load(rows[0]["workdir"]).config.cell == f"{folder}/my.py:own"
    write(folder, "depth: int = 1", "depth: int = 2")
    with pytest.raises(runs.RunRefused, match=r"holds 1 trials, such as .* cell 'my.py:own' changed"):
        rnnjax.sweep(Config(**SMALL), {"cell": ["my.py:own"]}, "sweep")


def test_a_trial_moves_with_its_file_and_two_files_of_one_name_are_refused(folder):
    (folder / "sub").mkdir()
    write(folder / "sub")
    trials = [Config(cell=f"{place}my.py:own", **SMALL) for place in ("", "sub/")]
    assert len(set(map(grid.trial_id, trials))) == 1 and len(set(map(grid.bucket_id, trials))) == 1
    with pytest.raises(BadSetting, match=r"cell='.*sub/my.py:own' and '.*my.py:own': allowed: files of two names"):
        grid.grid(Config(**SMALL), {"cell": ["my.py:own", "sub/my.py:own"]})


def test_a_worker_runs_the_file_and_refuses_another_text(folder, own, monkeypatch):
    """What a Ray task does, in this process."""
    monkeypatch.setattr("rnnjax.sweeps.ray_executor.run_sweep", lambda *args: True)
    monkeypatch.setattr(jax.config, "update", lambda *args: None)
    digests = {name: source.sha256 for name, source in outputs.sources(own).items()}
    assert digests and run_share([own], "sweep", rnnjax.sweeps.lanes.Options(), None, digests)
    write(folder, "SCALE * gain", "SCALE + gain")
    own_files._IN_FORCE.clear()  # as in a process that is new
    with pytest.raises(runs.RunRefused, match=r"cell 'my.py:own': another on this worker"):
        run_share([own], "sweep", rnnjax.sweeps.lanes.Options(), None, digests)


def test_an_own_task(folder):
    config = checked(Config(task="my.py:sums", task_options={"variant": "one_hot"}, cell="rnn", **SMALL))
    assert set(outputs.sources(config)) == {"task 'my.py:sums'"} and outputs.config_dict(config)["task"] == "my.py:sums"
    tasks = [make_task(c) for c in (config, Config(**SMALL))]
    assert tasks[0].baseline == tasks[1].baseline and tasks[0].input_size == tasks[1].input_size


def test_gradient_flow_of_an_own_cell(folder):
    compared = gradient_flow.compare(["my.py:own"], Config(**SMALL), 1, {})
    assert [c.cell for c in compared] == ["my.py:own"] and np.isfinite(compared[0].initial).all()
    runs.save_arrays(folder / "arrays.npz", gradient_flow.arrays_of(compared))
    assert set(runs.load_arrays(folder / "arrays.npz")) == {"my.py.own.initial"}


def test_flags_are_those_of_the_file(folder):
    values = flags.FlagValues()
    command_line.define_config(values)
    argv = ["train", "--config.cell=my.py:own", "--config.cell.gain=0.3", "--config.cell.depth=2"]
    command_line.define_options(argv, values)
    assert "how large W_h is at the start. [traced]" in values["config.cell.gain"].help
    values(argv)
    config = command_line.load_config(values)
    assert config == Config(cell=f"{folder}/my.py:own", cell_options={"gain": 0.3, "depth": 2})


BAD = {
    "mine.py:own": r"cell '.*/mine.py:own': no such file; did you mean '.*/my.py'\?",
    "my.py:onw": r"cell '.*/my.py:onw': no such function in the file; did you mean 'own'\?",
    "my.py:elsewhere": r"no such function in the file; it has own, sums",
    "my.py:SCALE": r"cell '.*/my.py:SCALE' is of type int; allowed: a function that returns a Cell",
    "my.py:Path": r"a cell is a PosixPath; allowed: a Cell|raises TypeError",
    "my.py:sums": r"a cell is a Task; allowed: a Cell",
    "my.py": r"unknown config.cell 'my.py'; allowed: rnn, .*, FILE.py:NAME",
    "syntax.py:own": r"cell '.*/syntax.py:own': line 2: SyntaxError: .*",
    "raises.py:own": r"line 3: ZeroDivisionError: division by zero",
    "two_lines.py:own": r"line 1: ValueError: a b",
    "exits.py:own": r"line 1: SystemExit: 3",
    "imports.py:own": r"line 1 of .*/syntax.py|line 2 of .*/syntax.py: SyntaxError",
    "bytes.py:own": r"null bytes",
    "trains.py:own": r"the file trains when it is run; allowed: under if __name__ == '__main__'",
    "folder:own": r"no such file",
    ":own": r"no such file",
}
TEXTS = {
    "syntax.py": "x = 1\ndef own(:\n",
    "raises.py": "def f():\n    return 1\nx = 1 / 0\n",
    "two_lines.py": "raise ValueError('a\\n b')\n",
    "exits.py": "raise SystemExit(3)\n",
    "imports.py": "import syntax\n",
    "bytes.py": "\0",
    "trains.py": "import rnnjax\nrnnjax.fit(rnnjax.Config(cell='trains.py:own'))\n",
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_one_line(name, folder):
    for file, text in TEXTS.items():
        Path(file).write_text(text)
    (folder / "folder").mkdir()
    before = dict(sys.modules)
    with pytest.raises(BadSetting, match=BAD[name]) as error:
        checked(Config(cell=name, **SMALL))
    assert "\n" not in str(error.value)
    assert name.startswith("my.py") or not [m for m in set(sys.modules) - set(before) if m.startswith("own_")]


def test_a_task_that_is_none_is_one_line(folder):
    (folder / "three.py").write_text("def three(seq_len):\n    return 3\n")
    with pytest.raises(BadSetting, match=r"task '.*three.py:three' returns int; allowed: a Task"):
        checked(Config(task="three.py:three", **SMALL))
