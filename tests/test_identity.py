"""What a run is: its config, the sources of a user's own, and what changes numbers. Whose a directory is. Damage."""

import functools
import json
import os
import re
import runpy
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnnjax import runs
from rnnjax.cells import CELLS, rnn
from rnnjax.reports.settings import find_runs, group_by_problem
from rnnjax.runs import directories
from rnnjax.runs.files import TEMPORARY, json_object, json_text
from rnnjax.runs.read import group_by_setting, read_run, setting_labels
from rnnjax.runs.sources import source_of, source_of_data
from rnnjax.tasks import TASKS
from rnnjax.training import outputs
from rnnjax.training.config import Config
from rnnjax.training.devices import device_info

ROOT = Path(__file__).parent.parent
OWN_CELL = '''"""A cell of my own."""
from helper import double
import os


def own(hidden_size):
    """h_t = 2 h_{t-1}."""
    return double(hidden_size)  # a comment


def get_config():
    return dict(lr=1e-3)
'''
HELPER = "from deeper import TWO\n\ndef double(x):\n    return TWO * x\n"
INFO = {"numbers": {"x64": False, "prng": "threefry2x32", "platform": "cpu", "shards": 2}}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A function that writes the user's files, with a change in one of them, and returns the factory in them."""
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    texts = {"own.py": OWN_CELL, "helper.py": HELPER, "deeper.py": "TWO = 2\n", "unused.py": "X = 1\n"}

    def write(name="own.py", old="", new=""):
        assert old in texts[name]
        for file, text in texts.items():
            (folder / file).write_text(text.replace(old, new) if file == name and old else text)
        return runpy.run_path(str(folder / "own.py"))["own"]

    return write


def contents(folder):
    return {str(path.relative_to(folder)): path.is_dir() or path.read_bytes() for path in folder.rglob("*")}


# ---- sources


@pytest.mark.parametrize(
    "name, old, new, changed",
    [
        ("own.py", "  # a comment", "", False),
        ("own.py", "h_t = 2 h_{t-1}.", "h_t = 2 h_{t-1}, a doubling.", False),
        ("own.py", '"""A cell of my own."""', "", False),
        ("own.py", "lr=1e-3", "lr=1e-2", False),
        ("own.py", "(hidden_size)  #", "( hidden_size )\n    #", False),
        ("unused.py", "1", "2", False),
        ("own.py", "double(hidden_size)", "-double(hidden_size)", True),
        ("own.py", "return dict(lr=1e-3)", "CELLS['own'] = 3; return dict()", True),
        ("helper.py", "TWO * x", "TWO + x", True),
        ("deeper.py", "2", "3", True),
    ],
)
def test_a_digest_changes_with_the_mathematics_and_not_with_the_wording(name, old, new, changed, own):
    before, after = source_of(own()), source_of(own(name, old, new))
    assert (before.sha256 != after.sha256) == changed
    assert set(before.texts) == {"own.py", "helper.py", "deeper.py"} and before.file.endswith("own.py")


def test_only_what_is_not_this_package_s_has_a_source(own):
    assert {name: source_of(factory) for name, factory in (CELLS | TASKS).items()} == dict.fromkeys(CELLS | TASKS)
    relu, tanh = (functools.partial(rnn, activation=name) for name in ("relu", "tanh"))
    assert source_of(relu).sha256 == source_of(functools.partial(rnn, activation="relu")).sha256
    assert source_of(relu).sha256 != source_of(tanh).sha256
    assert source_of(functools.partial(own(), 3)).texts.keys() == {"own.py", "helper.py", "deeper.py"}
    typed = {}
    exec("def a(n): return n\ndef b(n): return n + 1", typed)  # at a prompt: there is no file
    assert source_of(typed["a"]).sha256 != source_of(typed["b"]).sha256


# ---- runs


def cell(factory):
    return {"cell 'own'": source_of(factory)}


@pytest.fixture
def begun(own, tmp_path):
    """The path of a run that has a checkpoint, and the sources that it was made from."""
    with runs.open_run(tmp_path / "run", {"cell": "own"}, INFO, cell(own())) as run:
        runs.append_rows(run, [{"step": 1}])
        runs.save_checkpoint(run, 1, jnp.ones(2))
    return tmp_path / "run"


def test_a_changed_source_is_refused_and_goes_on_on_purpose(begun, own):
    changed = cell(own("helper.py", "TWO * x", "x"))
    before = contents(begun)
    with pytest.raises(runs.RunRefused, match=r"cell 'own' changed since this run began .*own\.py.*--accept_changes"):
        runs.open_run(begun, {"cell": "own"}, INFO, changed)
    with pytest.raises(runs.RunRefused, match=r"cell 'own' changed .*/source holds what it was made from"):
        runs.check_sources(begun, changed)
    assert contents(begun) == before
    assert (begun / "source" / "helper.py").read_text() == HELPER
    runs.close_run(runs.open_run(begun, {"cell": "own"}, INFO, changed, accept_changes=True))
    record = runs.read_config(begun)
    assert record["sources"]["cell 'own'"]["sha256"] == changed["cell 'own'"].sha256
    assert record["history"][0]["after"] == "checkpoint-00000001" and "cell 'own' changed" in str(record["history"])
    assert "return x" in (begun / "source-2" / "helper.py").read_text()
    runs.close_run(runs.open_run(begun, {"cell": "own"}, INFO, changed))  # from now on it is this one
    runs.check_sources(begun, changed)


def test_a_run_that_has_done_nothing_begins_anew_under_the_new_source(own, tmp_path):
    changed = cell(own("deeper.py", "2", "3"))
    runs.close_run(runs.open_run(tmp_path / "run", {}, INFO, cell(own())))
    runs.close_run(runs.open_run(tmp_path / "run", {}, INFO, changed))
    record = runs.read_config(tmp_path / "run")
    assert record["sources"]["cell 'own'"]["sha256"] == changed["cell 'own'"].sha256 and "history" not in record


@pytest.mark.parametrize("name, value", [("x64", True), ("prng", "rbg"), ("platform", "gpu"), ("shards", 1)])
def test_what_changes_numbers_is_compared(name, value, begun, own):
    info = {"numbers": INFO["numbers"] | {name: value}}
    with pytest.raises(runs.RunRefused, match=f"{name} was .* when this run began, now .*--accept_changes"):
        runs.open_run(begun, {"cell": "own"}, info, cell(own()))
    runs.close_run(runs.open_run(begun, {"cell": "own"}, info, cell(own()), accept_changes=True))
    assert runs.read_config(begun)["numbers"][name] == value


def test_numbers_are_those_in_force():
    assert device_info()["numbers"]["x64"] is False
    with jax.enable_x64(True), jax.default_prng_impl("rbg"):
        numbers = device_info()["numbers"]
    assert numbers["x64"] is True and numbers["prng"] == "rbg" and numbers["platform"] == jax.default_backend()


def test_a_finished_run_is_untouched_and_its_data_are_part_of_it(tmp_path):
    text = tmp_path / "book.txt"
    text.write_text("one text")
    sources = {"the file of task.path": source_of_data(str(text))}
    with runs.open_run(tmp_path / "run", {"lr": 1}, INFO, sources) as run:
        assert runs.finished_run(run.path, {"lr": 1}, sources) is None
        runs.write_json(run.path / "result.json", {"score": 0.5, "complete": False})
        assert runs.finished_run(run.path, {"lr": 1}, sources) is None  # trained, and not yet scored
        runs.write_json(run.path / "result.json", {"score": 0.5, "complete": True})
    before = contents(run.path)
    assert runs.finished_run(run.path, {"lr": 1}, sources)["score"] == 0.5
    with pytest.raises(runs.RunRefused, match="lr was 1, now 2"):
        runs.finished_run(run.path, {"lr": 2}, sources)
    text.write_text("another text")
    now = {"the file of task.path": source_of_data(str(text))}
    with pytest.raises(runs.RunRefused, match=r"the file of task.path changed since this run began .*book\.txt"):
        runs.finished_run(run.path, {"lr": 1}, now)
    assert runs.finished_run(run.path, {"lr": 1}, now, accept_changes=True)["score"] == 0.5
    assert contents(run.path) == before


def test_a_config_s_own_cell_task_and_text_are_its_sources(own, tmp_path, monkeypatch):
    monkeypatch.setitem(CELLS, "own", own())
    (tmp_path / "book.txt").write_text("text")
    config = Config(cell="own", task="text", task_options={"path": str(tmp_path / "book.txt")})
    assert set(outputs.sources(config)) == {"cell 'own'", "the file of task.path"}
    assert outputs.sources(Config()) == {} and len(outputs.sources(Config(task="text"))) == 1


def test_runs_of_one_config_and_two_sources_are_two_settings(own, tmp_path):
    found = []
    for seed, sources in enumerate([cell(own()), cell(own("deeper.py", "2", "3"))]):
        with runs.open_run(tmp_path / str(seed), {"seed": seed}, INFO, sources) as run:
            runs.append_rows(run, [{"step": 1}])
        found.append(read_run(run.path))
    assert [len(group) for group in group_by_setting(found)] == [1, 1]


# ---- records that are older than a setting


@pytest.fixture
def older(tmp_path):
    """A run of the LSTM that is finished, recorded before `segments`, `clip` and the options were there but `gain`."""
    settings = outputs.config_dict(Config())
    with runs.open_run(tmp_path / "older", settings, INFO) as run:
        runs.append_rows(run, [{"step": 1, "eval_mse": 0.1}])
        runs.save_checkpoint(run, 1, jnp.ones(2))
        score = {"score": 0.1, "score_name": "mse", "baseline": 0.2, "solved_threshold": 0.1}
        more = {"higher_is_better": False, "solved_at": None, "complete": True}
        runs.write_json(run.path / "result.json", score | more)
    record = runs.read_config(run.path)
    del record["config"]["segments"], record["config"]["clip"]
    record["config"]["cell_options"] = {"gain": 1.0}
    record["config"]["task_options"] = {}
    runs.write_json(run.path / "config.json", record)
    return run.path


def test_a_run_older_than_a_setting_goes_on_at_its_default_alone(older):
    assert runs.finished_run(older, outputs.config_dict(Config()), {})["score"] == 0.1
    runs.close_run(runs.open_run(older, outputs.config_dict(Config()), INFO))
    assert outputs.trained_config(older) == Config(cell_options={"gain": 1.0})
    for settings, line in (
        ({"clip": 2.0}, "clip was 1.0, now 2.0"),
        ({"cell_options": {"peepholes": True}}, "cell.peepholes was false, now true"),
        ({"cell_options": {"gain": 2.0}}, "cell.gain was 1.0, now 2.0"),
    ):
        for reads in (runs.finished_run, runs.open_run):
            with pytest.raises(runs.RunRefused, match=rf"another config: {line}\. Give another"):
                reads(older, outputs.config_dict(Config(**settings)), {})
    runs.lengthen_run(older, outputs.config_dict(Config()), outputs.config_dict(Config(steps=6000)))
    assert runs.read_config(older)["config"]["clip"] == 1.0


def test_runs_from_before_and_after_a_setting_are_one_setting(older, tmp_path):
    for seed, clip in enumerate([1.0, 1.0, 2.0]):
        newer = shutil.copytree(older, tmp_path / f"{seed}")
        config = json.loads(json.dumps(outputs.config_dict(Config(seed=seed, clip=clip))))
        runs.write_json(newer / "config.json", runs.read_config(newer) | {"config": config})
    found, _ = find_runs([str(tmp_path)])
    (settings,) = group_by_problem(found)
    assert sorted(len(setting.runs) for setting in settings) == [1, 3]
    assert all(run.config["clip"] in (1.0, 2.0) and run.config["cell.peepholes"] is False for run in found)
    assert setting_labels([setting.config for setting in settings]) == ["lstm clip=1", "lstm clip=2"]


# ---- directories


@pytest.fixture
def theirs(tmp_path):
    """A folder of the user's, with names that this program uses too."""
    folder = tmp_path / "project"
    for name in (".tmp-notes", "sub/.tmp-config.json", ".tmp-checkpoint-00000001/d", "result.json", "params.npz"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    return folder


@pytest.mark.parametrize("kind", ["run", "sweep", "report"])
@pytest.mark.parametrize("more", [None, "config.json", "lock"])
def test_a_folder_of_the_user_s_is_refused_and_untouched(kind, more, theirs):
    if more:
        (theirs / more).write_text('{"config": "mine"}')
    before = contents(theirs)
    with pytest.raises(runs.RunRefused, match="project") as error:
        runs.open_run(theirs, {}, {}) if kind == "run" else runs.own_directory(theirs, kind)
    assert "\n" not in str(error.value) and contents(theirs) == before


def test_a_lock_of_the_user_s_alone_is_theirs(tmp_path):
    (tmp_path / "lock").write_text("mine")
    with pytest.raises(runs.RunRefused, match="'lock'"):
        runs.open_run(tmp_path, {}, {})
    assert (tmp_path / "lock").read_text() == "mine"


def test_a_directory_is_its_own_again_and_no_other_kind_s(tmp_path):
    for _ in range(2):
        out = runs.own_directory(tmp_path / "out", "report")
    (out / "index.html").touch()
    assert runs.own_directory(out, "report") == out
    with pytest.raises(runs.RunRefused, match="holds a report of this program"):
        runs.own_directory(out, "diagnosis")
    with pytest.raises(runs.RunRefused, match="without its config"):
        runs.open_run(out, {}, {})
    assert runs.own_directory(out, "diagnosis", "report") == out


def test_every_launcher_that_makes_a_directory_claims_it():
    """None has a way of its own: a directory is made by `own_directory` or `open_run`."""
    made = [path.name for path in (ROOT / "experiments").glob("*.py") if "mkdir(" in path.read_text()]
    assert made == []


# ---- files of others and damaged ones


def test_json_is_strict_and_comes_back():
    value = {"loss": np.float32("inf"), "flow": [1.0, np.nan], "deep": {"a": -np.inf}, "n": 1, "none": None}

    def refuse(constant):
        raise AssertionError(constant)

    text = json_text(value)
    strict = json.loads(text, parse_constant=refuse)
    assert strict["loss"] is None and strict["not_finite"] == {"loss": "inf", "flow/1": "nan", "deep/a": "-inf"}
    back = json_object(text)
    assert back["loss"] == np.inf and np.isnan(back["flow"][1]) and back["deep"]["a"] == -np.inf
    assert back["none"] is None and "not_finite" not in back
    with pytest.raises(ValueError, match="which is not there"):
        json_object('{"not_finite": {"a/b": "inf"}}')


DAMAGE = {
    "empty": lambda data: b"",
    "truncated": lambda data: data[: len(data) // 2],
    "garbage": lambda data: bytes(255 - byte for byte in data) + b"\n",
    "of another kind": lambda data: b"[1, 2]\n",
}
RUN = {"task": "adding", "cell": "rnn", "seed": 0}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run."""
    with runs.open_run(tmp_path_factory.mktemp("finished") / "run", RUN, INFO) as run:
        runs.append_rows(run, [{"step": n, "loss": np.nan, "eval_mse": 0.1 * n} for n in (1, 2)])
        runs.save_arrays(run.path / "gradient_flow.npz", {"step": np.arange(1, 3), "layer0.h": np.ones((2, 3))})
        runs.save_checkpoint(run, 2, {"W": jnp.ones(2)})
        runs.save_params(run, {"W": jnp.ones(2)})
        runs.write_json(run.path / "result.json", {"score": np.inf, "complete": True})
    return run.path


def read_all(path):
    """What launchers read of a run, one after the other."""
    read_run(path)
    runs.load_params(path, {"W": jnp.ones(2)})


@pytest.mark.parametrize("damage", [*DAMAGE, "missing"])
@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "gradient_flow.npz", "params.npz", "result.json"])
def test_each_damaged_file_is_named_in_one_line(name, damage, finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    read_all(run)
    data = (run / name).read_bytes()
    (run / name).unlink() if damage == "missing" else (run / name).write_bytes(DAMAGE[damage](data))
    harmless = {("metrics.jsonl", "empty"), ("result.json", "missing"), ("gradient_flow.npz", "missing")}
    harmless |= {("metrics.jsonl", "truncated")}  # a torn last line
    if (name, damage) in harmless:
        read_all(run)
    else:
        with pytest.raises((ValueError, OSError)) as error:
            read_all(run)
        assert name in str(error.value) and "\n" not in str(error.value)
    # ... and the run goes on with all that its checkpoint has; without its config it is nobody's
    if name == "config.json":
        with pytest.raises(runs.RunRefused, match=r"config\.json"):
            runs.open_run(run, RUN, INFO)
        return
    with runs.open_run(run, RUN, INFO) as again:
        assert runs.latest_checkpoint(again, {"W": jnp.zeros(2)})[0] == 2
        assert len(runs.read_rows(run)) == 2 and len(runs.load_arrays(run / "gradient_flow.npz")["step"]) == 2
        assert runs.finished_run(run, RUN, {}) is None or name != "result.json"


def test_a_config_of_another_version_is_one_line(tmp_path):
    runs.close_run(runs.open_run(tmp_path / "run", {"cell": "rnn", "tempo": 3}, {}))
    with pytest.raises(runs.RunRefused, match=r"config\.json is of another version .*config.tempo"):
        outputs.trained_config(tmp_path / "run")


def test_leftovers_are_known_by_the_names_that_are_published():
    """Else a kill would leave what no start removes."""
    text = "".join((ROOT / name).read_text() for name in ("rnnjax/training/outputs.py", "experiments/train.py"))
    for name in ("result.json", "learning_curve.png", "gradient_map.png", "score_by_length.png", "gradient_flow.npz"):
        assert name in text and name in directories.RUN_FILES


def test_the_files_of_a_task_s_report_are_the_run_s_own(tmp_path):
    for name in ("sample.txt", "report-lengths.csv"):
        assert runs.check_report_file(name) == name
        (tmp_path / f"{TEMPORARY}{name}").write_text("half")
        (tmp_path / name).write_text("whole")
    for name in ("config.json", "notes.txt", "../report.txt", "report/x.txt", "sample.npz"):
        with pytest.raises(ValueError, match=f"^a report's file is called '{re.escape(name)}'; allowed: "):
            runs.check_report_file(name)
    (tmp_path / "notes.txt").write_text("mine")
    directories.remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"sample.txt", "report-lengths.csv", "notes.txt"}
    runs.remove_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_full_disk_is_one_line(tmp_path, capfd, monkeypatch):
    def full(*args):
        raise OSError(28, os.strerror(28))

    with runs.open_run(tmp_path / "run", {}, {}) as run:
        monkeypatch.setattr(os, "posix_fallocate", full)
        with pytest.raises(OSError, match=r"step 1 could not be saved in .*: .*No space left") as error:
            runs.save_checkpoint(run, 1, {"W": jnp.ones(2)})
    assert "\n" not in str(error.value) and capfd.readouterr() == ("", "")
    assert not list((tmp_path / "run").glob("*checkpoint*"))
