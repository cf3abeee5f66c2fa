"""Run directories under injected damage: what was published stands, damage is seen, nothing else is touched."""

import contextlib
import io
import json
import os
import pickle
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rnnjax import runs
from rnnjax.runs import checkpoints, identity

CONFIG = {"cell": "lstm", "lr": 1e-3, "gain": None}
INFO = {"devices": ["cpu:0"]}


def make_tree(seed):
    keys = jax.random.split(jax.random.key(seed), 3)
    params = {"W_h": jax.random.normal(keys[0], (3, 4)), "layers": [{"b": jnp.arange(4, dtype=jnp.bfloat16) / 3}]}
    return {
        "params": params,
        "optimizer": optax.adam(1e-3).init(params),
        "key": jax.random.key(seed),
        "keys": keys,
        "done": jnp.array([True, False]),
        "empty": jnp.zeros((0, 3)),
        "float64": np.array([1 / 3, np.nan]),
        "step": np.int64(2**40 + seed),
    }


def bits(tree):
    def leaf_bits(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return str(jax.random.key_impl(leaf)), np.asarray(jax.random.key_data(leaf)).tobytes()
        return str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes()

    return jax.tree.structure(tree), [leaf_bits(leaf) for leaf in jax.tree.leaves(tree)]


def contents(folder):
    return {str(path.relative_to(folder)): path.is_dir() or path.read_bytes() for path in folder.rglob("*")}


@pytest.fixture
def run(tmp_path):
    with runs.open_run(tmp_path / "run", CONFIG, INFO) as run:
        yield run


@pytest.fixture
def two_checkpoints(run):
    for step in (1, 2):
        runs.append_rows(run, [{"step": step}])
        runs.save_checkpoint(run, step, make_tree(step))
    return run


# ---- the directory


def test_config_says_what_ran(run):
    record = runs.read_config(run.path)
    assert record["config"] == CONFIG and record["devices"] == INFO["devices"] and not run.resumed
    assert record["versions"]["jax"] == jax.__version__ and record["versions"]["numpy"] == np.__version__
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(runs.__file__).parent, capture_output=True, text=True)
    if head.returncode == 0 and (Path(runs.__file__).parent.parent / ".git").exists():
        assert record["git"].removesuffix("-dirty") == head.stdout.strip()


def test_same_config_resumes_and_another_is_refused(tmp_path):
    for resumed in (False, True):
        with runs.open_run(tmp_path / "run", CONFIG, INFO) as run:
            assert run.resumed == resumed
    before = contents(tmp_path)
    with pytest.raises(
        runs.RunRefused, match=r"lr was 0\.001, now 0\.1; gain was null, now absent; clip was absent, now 2"
    ):
        runs.open_run(tmp_path / "run", {"cell": "lstm", "lr": 0.1, "clip": 2}, INFO)
    assert contents(tmp_path) == before
    (tmp_path / "run" / "config.json").write_bytes(b"\0" * 100)
    with pytest.raises(runs.RunRefused, match=r"config\.json is damaged"):
        runs.open_run(tmp_path / "run", CONFIG, INFO)
    (tmp_path / "run" / "config.json").unlink()
    (tmp_path / "run" / "metrics.jsonl").touch()
    with pytest.raises(runs.RunRefused, match=r"without its config\.json"):
        runs.open_run(tmp_path / "run", CONFIG, INFO)


def test_resuming_with_other_versions_warns(tmp_path, caplog, monkeypatch):
    runs.close_run(runs.open_run(tmp_path / "run", CONFIG, INFO))
    monkeypatch.setattr(identity, "_versions", lambda: {"jax": "9.9"})
    runs.close_run(runs.open_run(tmp_path / "run", CONFIG, INFO))
    assert f"resuming with jax 9.9 what {jax.__version__} began" in caplog.text


@pytest.mark.parametrize(
    "name",
    ["", "/", ".", "..", "../run", "a/../../run", "a\nb", "a\0b", "a\x1b[31m", "a\u202eb", "\udcff", "x" * 256, "file"],
)
def test_hostile_names_are_refused(name, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "file").touch()
    monkeypatch.chdir(tmp_path / "here")
    before = contents(tmp_path)
    with pytest.raises(runs.RunRefused) as error:
        runs.open_run(name, CONFIG, INFO)
    assert str(error.value).isprintable()
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "place", ["run", "run/lock", "run/config.json", "run/metrics.jsonl", "run/checkpoint-00000001"]
)
def test_links_are_refused(place, tmp_path):
    target = tmp_path / "elsewhere"
    if place in ("run", "run/checkpoint-00000001"):
        target.mkdir()
    else:
        target.write_text("{}")
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).symlink_to(target)
    before = contents(tmp_path)
    with pytest.raises(runs.RunRefused, match=" is a link"):
        runs.open_run(f"{tmp_path}/run/", CONFIG, INFO)
    assert contents(tmp_path) == before


def test_leftovers_of_a_killed_save_go_at_the_next_start(tmp_path):
    with runs.open_run(tmp_path / "run", CONFIG, INFO) as run:
        for name in ("params.npz", "checkpoint-00000001/arrays/d", "old-checkpoint-00000002/manifest.json"):
            file = run.path / f".tmp-{name}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        (run.path / "trials").mkdir()
        theirs = (
            run.path / ".tmp-mine.txt",
            run.path / "trials" / ".tmp-params.npz",
        )  # of nothing that is published here
        for file in theirs:
            file.touch()
    with runs.open_run(tmp_path / "run", CONFIG, INFO):
        assert set(tmp_path.rglob(".tmp-*")) == set(theirs)


# ---- the log


def test_rows_come_back_as_they_were(run):
    rows = [{"step": 0, "loss": jnp.float32(0.1)}, {"step": 1, "loss": np.nan, "flow": np.arange(2.0)}]
    runs.append_rows(run, rows[:1])
    runs.append_rows(run, rows[1:])
    back = runs.read_rows(run.path)
    assert np.float32(back[0]["loss"]) == np.float32(0.1) and np.isnan(back[1]["loss"])
    assert back[1]["flow"] == [0, 1] and [row["step"] for row in back] == [0, 1]


def test_a_torn_line_and_rows_past_the_checkpoint_go_when_the_run_resumes(two_checkpoints):
    run = two_checkpoints
    log = run.path / "metrics.jsonl"
    intact = log.read_bytes()
    runs.append_rows(run, [{"step": 3}])
    with open(log, "ab") as file:
        file.write(b'{"step": 4, "lo')
    assert [row["step"] for row in runs.read_rows(run.path)] == [1, 2, 3]
    assert runs.latest_checkpoint(run, make_tree(0))[0] == 2
    assert log.read_bytes() == intact
    log.write_bytes(b"x" + intact[1:])
    with pytest.raises(ValueError, match="line 1 is damaged"):
        runs.read_rows(run.path)


@pytest.mark.parametrize("name", ["metrics.jsonl", "gradient_flow.npz"])
@pytest.mark.parametrize("damage", [None, b"", b"{", b"\0garbage\n" * 50])
def test_what_grows_comes_back_from_the_checkpoint(name, damage, run, caplog):
    """Deleted, emptied, truncated or garbage: neither is training begun anew nor are rows missing."""
    runs.append_rows(run, [{"step": 1}])
    runs.save_arrays(run.path / "gradient_flow.npz", {"step": np.array([1]), "layer0.h": np.ones((1, 3))})
    runs.save_checkpoint(run, 1, make_tree(1))
    file = run.path / name
    intact = file.read_bytes()
    file.unlink() if damage is None else file.write_bytes(damage)
    assert runs.latest_checkpoint(run, make_tree(0))[0] == 1
    assert file.read_bytes() == intact and not caplog.records


def test_without_a_checkpoint_the_log_starts_again(run):
    runs.append_rows(run, [{"step": 1}])
    assert runs.latest_checkpoint(run, make_tree(0)) is None
    assert runs.read_rows(run.path) == []


# ---- checkpoints


def test_checkpoint_is_bitwise(run):
    tree = make_tree(3)
    runs.save_checkpoint(run, 3, tree)
    step, back = runs.latest_checkpoint(run, make_tree(0))
    assert step == 3 and bits(back) == bits(tree)
    assert all(type(a) is type(b) for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(tree), strict=True) if a.ndim)
    abstract = {"W": jax.ShapeDtypeStruct((2,), jnp.bfloat16), "key": jax.eval_shape(lambda: jax.random.key(0))}
    runs.save_checkpoint(run, 4, concrete := {"W": jnp.ones(2, jnp.bfloat16), "key": jax.random.key(1)})
    assert bits(runs.latest_checkpoint(run, abstract)[1]) == bits(concrete)
    runs.save_checkpoint(run, 5, jnp.zeros((0, 2)))
    assert runs.latest_checkpoint(run, jnp.zeros((0, 2)))[1].shape == (0, 2)


def test_the_newest_are_kept_and_a_step_can_be_saved_again(run):
    for step in (1, 2, 10, 10):
        runs.save_checkpoint(run, step, jnp.array(step))
    assert sorted(path.name for path in run.path.glob("*checkpoint*")) == ["checkpoint-00000002", "checkpoint-00000010"]


def test_a_checkpoint_of_another_tree_is_an_error_and_not_damage(two_checkpoints):
    for other in ({"params": 0}, make_tree(0) | {"more": 0}, make_tree(0) | {"done": jnp.zeros(2)}):
        with pytest.raises(ValueError, match="another tree"):
            runs.latest_checkpoint(two_checkpoints, other)


def expect_step_1(run, caplog, name):
    caplog.clear()
    step, tree = runs.latest_checkpoint(run, make_tree(0))
    assert step == 1 and bits(tree) == bits(make_tree(1)), name
    (record,) = caplog.records
    assert name in record.getMessage() and "step 2" in record.getMessage() and "\n" not in record.getMessage()


def files_of(checkpoint):
    return sorted(path for path in checkpoint.rglob("*") if path.is_file())


def test_every_flipped_bit_is_seen(two_checkpoints, caplog):
    files = files_of(two_checkpoints.path / "checkpoint-00000002")
    assert len(files) > 5
    generator = random.Random(0)
    for flip in range(100):
        path = files[flip % len(files)]
        intact = path.read_bytes()
        damaged = bytearray(intact)
        damaged[generator.randrange(len(intact))] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        expect_step_1(two_checkpoints, caplog, path.name)
        path.write_bytes(intact)
    runs.append_rows(two_checkpoints, [{"step": 2}])  # the fall back to step 1 took it off the log
    assert runs.latest_checkpoint(two_checkpoints, make_tree(0))[0] == 2


def test_files_truncated_zeroed_deleted_or_added_are_seen(two_checkpoints, caplog):
    checkpoint = two_checkpoints.path / "checkpoint-00000002"
    for path in files_of(checkpoint):
        intact = path.read_bytes()
        for damaged in (intact[:-1], intact[: len(intact) // 2], b"", bytes(len(intact)), None):
            path.unlink() if damaged is None else path.write_bytes(damaged)
            expect_step_1(two_checkpoints, caplog, path.name)
        path.write_bytes(intact)
    (checkpoint / "arrays" / "more").touch()
    expect_step_1(two_checkpoints, caplog, "more")


def test_leaves_that_differ_from_the_manifest_are_seen(two_checkpoints, caplog):
    """Files that hold what they should, as a whole, but not the leaves that were saved."""
    first, second = (two_checkpoints.path / f"checkpoint-0000000{step}" for step in (1, 2))
    manifest = json.loads((second / "manifest.json").read_text())["manifest"]
    shutil.rmtree(second / "arrays")
    shutil.copytree(first / "arrays", second / "arrays")
    copies = {name: digest for name, digest in manifest["files"].items() if name.startswith("copy-of-")}
    manifest["files"] = json.loads((first / "manifest.json").read_text())["manifest"]["files"] | copies
    (second / "manifest.json").write_bytes(checkpoints._sealed(manifest))
    expect_step_1(two_checkpoints, caplog, "leaf 'key'")


def test_after_a_fallback_the_run_replaces_the_damaged_one(two_checkpoints, caplog):
    run = two_checkpoints
    (run.path / "checkpoint-00000002" / "manifest.json").write_text("")
    expect_step_1(run, caplog, "manifest.json")
    runs.save_checkpoint(run, 2, make_tree(2))
    (run.path / "checkpoint-00000002" / "manifest.json").write_text("")
    runs.save_checkpoint(run, 1, make_tree(1))  # stopped before step 2: the damaged one of the future goes
    assert [path.name for path in run.path.glob("checkpoint-*")] == ["checkpoint-00000001"]
    (run.path / "checkpoint-00000001" / "manifest.json").unlink()
    assert runs.latest_checkpoint(run, make_tree(0)) is None


@contextlib.contextmanager
def full_disk(limit):
    """Writes past `limit` bytes of a file fail, in every thread of this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("limit", [0, 100, 3000, 20_000])
def test_a_full_disk_is_an_error_of_that_save(limit, run, tmp_path, caplog):
    def noise(seed):
        return {"W": jax.random.normal(jax.random.key(seed), (100, 100))}

    runs.append_rows(run, [{"step": 1}])
    runs.save_checkpoint(run, 1, noise(1))
    runs.save_params(run, noise(1))
    before = contents(tmp_path)
    with full_disk(limit):
        with pytest.raises(OSError, match="step 2"):
            runs.save_checkpoint(run, 2, noise(2))
        assert not caplog.records  # nor the tracebacks of Orbax's threads
        with pytest.raises(OSError):
            runs.append_rows(run, [{"step": 2, "text": "x" * 30_000}])
        with pytest.raises(OSError):
            runs.save_params(run, noise(2))
    assert contents(tmp_path) == before
    runs.save_checkpoint(run, 2, noise(2))
    assert bits(runs.latest_checkpoint(run, noise(0))[1]) == bits(noise(2))


# ---- processes

SAVER = """
import os, signal, sys
import numpy as np
from rnnjax import runs

def tree(step):
    return {"W": np.full((50, 50), step, np.float32), "step": np.array(step)}

def train(run, last):
    saved = runs.latest_checkpoint(run, tree(0))
    for step in range(saved[0] + 1 if saved else 1, last + 1):
        runs.append_rows(run, [{"step": step, "loss": 1 / step}])
        runs.save_checkpoint(run, step, tree(step))

def save_3(run, kill_at):
    runs.save_checkpoint(run, 2, tree(2))  # the first in a process also imports
    runs.append_rows(run, [{"step": 3, "loss": 1 / 3}])
    seen = 0
    def hook(event, arguments):
        nonlocal seen
        if event == "open" or event.partition(".")[0] in ("os", "shutil"):
            seen += 1
            if seen == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    runs.save_checkpoint(run, 3, tree(3))
    return seen

if __name__ == "__main__":
    operations, workdirs = 0, sys.argv[2:]
    count = os.pipe()
    for number, workdir in enumerate(workdirs):  # a process each, forked after the slow imports
        process = os.fork()
        if process == 0:
            with runs.open_run(workdir, {"lr": 1}, {}) as run:
                if sys.argv[1] == "any time":
                    train(run, 10**6)
                seen = save_3(run, kill_at=operations * number // len(workdirs))
            os.write(count[1], str(seen).encode())
            os._exit(0)
        print(os.waitpid(process, 0)[1], flush=True)
        if number == 0 and sys.argv[1] == "stages":
            operations = int(os.read(count[0], 10))  # the first is not killed
    if sys.argv[1] == "any time":
        signal.pause()
"""


def test_kill_9_at_each_stage_of_a_save(tmp_path, caplog):
    saver = {"__name__": "saver"}
    exec(SAVER, saver)
    (tmp_path / "saver.py").write_text(SAVER)
    with runs.open_run(tmp_path / "base", {"lr": 1}, {}) as run:
        saver["train"](run, 2)
    workdirs = [shutil.copytree(tmp_path / "base", tmp_path / f"run{n}") for n in range(21)]
    command = [sys.executable, tmp_path / "saver.py", "stages", *workdirs]
    ended = subprocess.run(command, capture_output=True, text=True).stdout.split()
    steps = []
    for workdir in workdirs:
        with runs.open_run(workdir, {"lr": 1}, {}) as run:
            assert not list(workdir.rglob(".tmp-*"))
            step, tree = runs.latest_checkpoint(run, saver["tree"](0))
            assert bits(tree) == bits(saver["tree"](step))
            assert [row["step"] for row in runs.read_rows(workdir)] == list(range(1, step + 1))
            steps.append(step)
    assert ended == ["0"] + ["9"] * 20 and set(steps[1:]) == {2, 3}
    assert not caplog.records  # no checkpoint was passed over: each stood whole or not at all


def wait_for(condition, process):
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.0005)


def gone(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True


def test_kill_9_at_any_time(tmp_path, request):
    """Also: a live lock is refused and names its process, a dead one is taken over."""
    script = tmp_path / "saver.py"
    script.write_text(SAVER)
    saver = {"__name__": "saver"}
    exec(SAVER, saver)
    workdirs = [tmp_path / f"run{n}" for n in range(4)]
    parent = subprocess.Popen(
        [sys.executable, script, "any time", *workdirs],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    request.addfinalizer(parent.wait)
    request.addfinalizer(lambda: os.killpg(parent.pid, signal.SIGKILL))
    generator = random.Random(0)
    killed_inside = 0
    for workdir in workdirs:
        wait_for(lambda workdir=workdir: list(workdir.glob("checkpoint-*")), parent)
        process = int((workdir / "lock").read_text().split()[1])
        with pytest.raises(runs.RunBusy, match=f"in use by process {process} on {socket.gethostname()} since"):
            runs.open_run(workdir, {"lr": 1}, {})
        wait_for(lambda workdir=workdir: list(workdir.glob(".tmp-checkpoint-*")), parent)
        time.sleep(generator.random() * 0.02)
        os.kill(process, signal.SIGKILL)
        wait_for(lambda process=process: gone(process), parent)
        killed_inside += bool(list(workdir.glob(".tmp-*")))
        assert (workdir / "lock").exists()
        reached = max(row["step"] for row in runs.read_rows(workdir))
        with runs.open_run(workdir, {"lr": 1}, {}) as run:
            assert run.resumed and not list(workdir.glob(".tmp-*"))
            step, tree = runs.latest_checkpoint(run, saver["tree"](0))
            assert step >= reached - 1 and bits(tree) == bits(saver["tree"](step))
            saver["train"](run, step + 3)
            rows = [{"step": n, "loss": 1 / n} for n in range(1, step + 4)]
            assert (workdir / "metrics.jsonl").read_text() == "".join(json.dumps(row) + "\n" for row in rows)
    assert killed_inside
    assert {path.name for path in tmp_path.iterdir()} == {script.name, *(path.name for path in workdirs)}


def test_one_lock_at_a_time(run):
    with pytest.raises(runs.RunBusy, match=f"process {os.getpid()}"):
        runs.open_run(run.path, CONFIG, INFO)
    with pytest.raises(runs.RunBusy):  # also with another config: nobody reads a directory that another one writes
        runs.open_run(run.path, {}, INFO)


def test_a_directory_that_its_last_owner_removes_is_made_again(tmp_path, monkeypatch):
    """Another process's close_run, between this one's mkdir and its open of the lock."""
    real, removed = os.open, []

    def open_late(path, *args, **options):
        if not removed:
            removed.append(path)
            (tmp_path / "run").rmdir()
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", open_late)
    with runs.open_run(tmp_path / "run", CONFIG, INFO) as run:
        assert removed == [tmp_path / "run" / "lock"]
        assert runs.read_config(run.path)["config"] == CONFIG


def test_discarding_leaves_what_is_not_the_runs(tmp_path):
    for folder in ("mine", "ours"):
        with runs.open_run(tmp_path / folder, CONFIG, INFO) as run:
            runs.append_rows(run, [{"step": 1}])
            runs.save_checkpoint(run, 1, make_tree(1))
            runs.save_params(run, make_tree(1)["params"])
            if folder == "ours":
                (run.path / "notes").mkdir()
                (run.path / "notes" / "a.txt").touch()
            runs.discard_run(run)
    assert set(contents(tmp_path)) == {"ours", "ours/notes", "ours/notes/a.txt"}


def test_stop_signals():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    for number in (signal.SIGTERM, signal.SIGINT):
        with runs.stop_signals() as stop:
            assert not stop.requested
            os.kill(os.getpid(), number)
            assert stop.requested
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(1)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    try:
        with runs.stop_signals(last=True):
            pass
        os.kill(os.getpid(), signal.SIGTERM)  # while the program shuts down: it was done
        assert signal.getsignal(signal.SIGINT) == before[1]
    finally:
        signal.signal(signal.SIGTERM, before[0])


# ---- array files


def test_arrays_are_bitwise_and_reproducible(tmp_path):
    arrays = {"a/W": np.array([[1, np.nan]], ">f4"), "b": np.ones((2, 0)), "file": np.int32(3), "c": 1j * np.ones(2)}
    arrays |= {
        "half": np.arange(3).astype(jnp.bfloat16),
        "scalar": jnp.bfloat16(1.5),
        "F": np.asfortranarray(np.eye(2)),
    }
    for name in ("1.npz", "2.npz"):
        runs.save_arrays(tmp_path / name, arrays)
    assert (tmp_path / "1.npz").read_bytes() == (tmp_path / "2.npz").read_bytes()
    back = runs.load_arrays(tmp_path / "1.npz")
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert back[name].dtype == np.asarray(array).dtype and back[name].shape == array.shape
        assert back[name].tobytes() == np.asarray(array).tobytes()
    with np.load(tmp_path / "1.npz", allow_pickle=False) as numpys:  # any numpy reads it
        np.testing.assert_array_equal(numpys["a/W"], arrays["a/W"])
        np.testing.assert_array_equal(numpys["half:bfloat16"], arrays["half"].view(np.uint16))


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "a//b", "", "a\\b", "a\nb", "a:b", "./a"])
def test_tensor_names_are_checked(name, tmp_path):
    with pytest.raises(ValueError, match="tensor name"):
        runs.save_arrays(tmp_path / "a.npz", {name: np.ones(1)})
    assert not list(tmp_path.iterdir())


def test_params_come_back_by_name_and_by_structure(run):
    params = {"layers": [{"W_h": jnp.eye(2)}, {"W_h": jnp.ones((1, 2), jnp.bfloat16)}]}
    runs.save_params(run, params)
    flat = runs.load_params(run.path)
    assert list(flat) == ["layers/0/W_h", "layers/1/W_h"]
    np.testing.assert_array_equal(flat["layers/0/W_h"], np.eye(2))
    assert bits(runs.load_params(run.path / "params.npz", params)) == bits(params)
    with pytest.raises(ValueError, match="another tree"):
        runs.load_params(run.path, {"layers": [{"W_h": jnp.eye(3)}, {"W_h": jnp.ones((1, 2), jnp.bfloat16)}]})
    with pytest.raises(ValueError, match="'a/b'"):
        runs.save_params(run, {"a": {"b": 1}, "a/b": 2})


class Payload:
    def __reduce__(self):
        return Path.touch, (Path("ran"),)


def npy(array=None, shape=None, dtype="<f8", data=b""):
    file = io.BytesIO()
    if array is not None:
        np.lib.format.write_array(file, array)
    else:
        np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue() + data


HOSTILE = {
    "pickled object": ({"a.npy": npy(np.array([Payload()], object))}, zipfile.ZIP_STORED, "dtype object"),
    "pickle behind a number": ({"a.npy": pickle.dumps(Payload())}, zipfile.ZIP_STORED, "magic"),
    "escaping name": ({"../../x.npy": npy(np.ones(1))}, zipfile.ZIP_STORED, "tensor name"),
    "absolute name": ({"/x.npy": npy(np.ones(1))}, zipfile.ZIP_STORED, "tensor name"),
    "not an array": ({"a.py": b"x"}, zipfile.ZIP_STORED, "unexpected member"),
    "structured": ({"a.npy": npy(np.zeros(1, "f4,i4"))}, zipfile.ZIP_STORED, "dtype"),
    "zip bomb": ({"a.npy": npy(np.zeros(10**7))}, zipfile.ZIP_DEFLATED, "compressed"),
    "huge header": ({"a.npy": npy(shape=(2**40,), data=bytes(8))}, zipfile.ZIP_STORED, "does not hold the shape"),
    "negative shape": ({"a.npy": npy(shape=(-1, -1), data=bytes(8))}, zipfile.ZIP_STORED, "does not hold the shape"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_arrays_run_and_write_nothing(case, tmp_path, monkeypatch):
    members, compression, message = HOSTILE[case]
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("a.npz", "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, compression)

    def allocates(*args, **kwargs):
        raise AssertionError("read before it was checked")

    monkeypatch.setattr(np.lib.format, "read_array", allocates)
    with pytest.raises(ValueError, match=message):
        runs.load_arrays("a.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_members_that_share_bytes_are_refused(tmp_path):
    """The other kind of bomb: many names for the same megabyte."""
    data = npy(np.zeros(10**5))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", data)
        for n in range(100):
            twin = zipfile.ZipInfo(f"{n}.npy")
            twin.header_offset, twin.CRC = archive.filelist[0].header_offset, archive.filelist[0].CRC
            twin.file_size = twin.compress_size = len(data)
            archive.filelist.append(twin)
    with pytest.raises(ValueError, match="declare more bytes"):
        runs.load_arrays(tmp_path / "a.npz")


def test_damaged_arrays_are_seen(tmp_path):
    path = tmp_path / "a.npz"
    runs.save_arrays(path, {"a": np.arange(50.0), "b": np.ones(3)})
    intact, expected = path.read_bytes(), runs.load_arrays(path)
    for position in range(0, len(intact), 3):
        path.write_bytes(intact[:position] + bytes([intact[position] ^ 1 << position % 8]) + intact[position + 1 :])
        try:
            back = runs.load_arrays(path)
        except ValueError:
            continue
        for name, array in back.items():  # a flip in the archive's own idle fields changes no value
            np.testing.assert_array_equal(array, expected[name])
    for size in (0, 10, len(intact) // 2, len(intact) - 1):
        path.write_bytes(intact[:size])
        with pytest.raises(ValueError, match=r"a\.npz is damaged"):
            runs.load_arrays(path)
    with pytest.raises(FileNotFoundError):
        runs.load_arrays(tmp_path / "missing.npz")


def test_a_file_is_replaced_whole(tmp_path):
    runs.write_file(tmp_path / "a.txt", "one")
    with pytest.raises(OSError), full_disk(2):
        runs.write_file(tmp_path / "a.txt", "another")
    assert contents(tmp_path) == {"a.txt": b"one"}
