"""A sweep's trials are the solo runs of their configs, bit for bit, whatever interrupts it and whatever it runs on."""

import dataclasses
import json
import os
import runpy
import subprocess
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sweep as launcher
from command_line import BadSetting

from rnnjax import runs
from rnnjax.cells import CELLS, rnn
from rnnjax.sweeps import grid as sweep
from rnnjax.sweeps import ray_executor as ray_sweep
from rnnjax.sweeps.tracing import traced_lanes
from rnnjax.training import BLAME, make_train, outputs
from rnnjax.training.config import Config, hyperparameters
from rnnjax.training.tracing import traced_run
from rnnjax.types import Cell

ROOT = Path(__file__).parent.parent

TINY = Config(cell="rnn", seq_len=4, hidden_size=3, batch_size=2, steps=6, eval_every=2, eval_batch=2)
AXES = {"lr": [1e-3, 3e-2], "seed": [0, 2**32 - 1, 7]}


class StopAfter:
    """A stop request that comes during chunk number `chunks`."""

    def __init__(self, chunks):
        self.left = chunks  # a sweep asks once a chunk

    @property
    def requested(self):
        self.left -= 1
        return self.left <= 0


NEVER = types.SimpleNamespace(requested=False)


def contents(workdir, trial):
    """What must be bitwise equal: the metric log, the gradient map and the parameters."""
    folder = launcher.trial_directory(workdir, trial)
    return {name: (folder / name).read_bytes() for name in ("metrics.jsonl", "gradient_flow.npz", "params.npz")}


@pytest.fixture(scope="module", autouse=True)
def lanes_are_compiled_once():
    """A sweep that goes on makes its program anew; here it may keep it."""
    kept, make_lanes = {}, sweep.make_lanes

    def make(config, devices=None, width=1):
        key = config, tuple(devices or ()), width
        if key not in kept:
            kept[key] = make_lanes(config, devices, width)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "make_lanes", make)
        yield


@pytest.fixture(scope="module")
def solo(tmp_path_factory):
    """The same files, written by a loop over `train.chunk` for each trial alone."""
    folder = tmp_path_factory.mktemp("solo")
    train = make_train(TINY)
    init, chunk = jax.jit(train.init), jax.jit(train.chunk)
    for trial in sweep.grid(TINY, AXES):
        values = {name: np.float32(getattr(trial, name)) for name in ("lr", "weight_decay", "clip")}
        state, rows, flow = init(jax.random.key(trial.seed), values), [], []
        while not rows or rows[-1]["step"] < trial.steps:
            state, record = chunk(state, values)
            rows.append(outputs.metrics_row(record))
            flow.append(outputs.flow_row(record))
        with runs.open_run(launcher.trial_directory(folder, trial), {}, {}) as run:
            runs.append_rows(run, rows)
            runs.save_arrays(run.path / "gradient_flow.npz", outputs.stack_rows(flow))
            runs.save_params(run, state.params)
    return folder


def assert_same(workdir, expected, trials):
    for trial in trials:
        assert contents(workdir, trial) == contents(expected, trial)
    assert {path.name for path in (workdir / "trials").iterdir()} == {sweep.trial_id(trial) for trial in trials}
    assert not list((workdir / "buckets").iterdir())
    assert not [path for path in workdir.rglob("*") if path.name == "lock" or path.name.startswith(".tmp-")]


def test_trials_are_solo_runs_after_any_interruption(solo, tmp_path):
    trials = sweep.grid(TINY, AXES)
    for lanes, width, chunks in ((1, 1, 20), (2, 1, 4), (2, 1, 1)):
        workdir = tmp_path / f"{lanes}-{chunks}"
        options, times = launcher.Options(lanes=lanes, width=width), 1
        while not launcher.run_sweep(trials, workdir, StopAfter(chunks), options):
            times += 1
        assert times == -(-len(trials) * 3 // (lanes * chunks))
        assert_same(workdir, solo, trials)


def test_a_grid_that_grows_runs_only_what_is_new(solo, tmp_path):
    trials = sweep.grid(TINY, AXES)
    assert not launcher.run_sweep(trials[:3], tmp_path, StopAfter(4), launcher.Options(lanes=2))
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("trials/*/*")}
    assert len({path.parent for path in stamps}) == 2  # the third trial has done one of its three chunks
    stop = StopAfter(100)
    assert launcher.run_sweep(trials, tmp_path, stop, launcher.Options(lanes=1))
    assert stop.left == 100 - (2 + 3 * 3)
    assert_same(tmp_path, solo, trials)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    assert launcher.run_sweep(trials, tmp_path, StopAfter(0))  # nothing is left to do


def test_one_program_a_bucket(monkeypatch, tmp_path):
    made = []
    make_lanes = sweep.make_lanes
    monkeypatch.setattr(sweep, "make_lanes", lambda *args: made.append(make_lanes(*args)) or made[-1])
    config = dataclasses.replace(TINY, steps=2, gradient_flow=False)
    trials = sweep.grid(config, {"seq_len": [3, 4], "lr": [0.1, 0.2], "seed": [0, 1, 2]})
    assert launcher.run_sweep(trials, tmp_path, NEVER, launcher.Options(lanes=2))
    assert [lanes.chunk._cache_size() for lanes in made] == [1, 1]


def leaky(steps_traced=None):
    """A factory of a cell without gates or a W_h; it counts how often its step is traced."""

    def make(hidden_size):
        def step(params, h, x):
            if steps_traced is not None:
                steps_traced.append(1)
            return 0.9 * h + jnp.tanh(x @ params["W"])

        return Cell(
            lambda key, D: {"W": jnp.ones((D, hidden_size))},
            lambda weights, batch: jnp.zeros((*batch, hidden_size)),
            step,
        )

    return make


def test_what_cannot_run_is_one_line_before_anything_is_written(monkeypatch, tmp_path):
    monkeypatch.setitem(CELLS, "leaky", leaky())
    bad = dataclasses.replace(TINY, cell="leaky", orthogonality=1.0)  # it has no W_h: found by a trace of the run
    workdir = tmp_path / "s"
    attempts = {
        "sweep": lambda: launcher.run_sweep([TINY, bad], workdir, NEVER),
        "train": lambda: traced_run(bad),
        "dry_run": lambda: launcher.describe([bad], None, launcher.Options()),
    }
    for attempt in attempts.values():
        with pytest.raises(BadSetting, match="cannot run with these settings") as error:
            attempt()
        assert "\n" not in str(error.value) and "needs a cell made of gates or a W_h" in str(error.value)
    assert not workdir.exists()


def test_the_trace_that_checks_a_run_is_the_one_that_is_compiled(monkeypatch):
    traced = []
    monkeypatch.setitem(CELLS, "leaky", leaky(traced))
    config = dataclasses.replace(TINY, cell="leaky")
    run = traced_run(config)
    lanes = traced_lanes(config, jax.devices()[:1], 1, 2)
    count = len(traced)
    values = {name: jnp.float32(value) for name, value in hyperparameters(config).items()}
    run.chunk(run.init(jax.random.key(0), values), values)
    inputs = lanes.place(sweep.lane_inputs([config] * 2))
    lanes.chunk(lanes.init(*inputs), inputs[1], lanes.data)
    assert count and len(traced) == count


def test_grid_drops_duplicates_and_buckets_what_is_static():
    trials = launcher.parse_trials(TINY, ["lr=1e-3,0.001,1e-2", "seed=0:3", "cell=rnn,gru", "clip=0,1"])
    assert len(trials) == 2 * 3 * 2 * 2
    found = sweep.buckets(trials)
    assert [bucket.config.cell for bucket in found] == ["rnn", "gru"]
    assert [len(bucket.trials) for bucket in found] == [12, 12]
    assert len(sweep.buckets(sweep.grid(TINY, {"cell.gain": [1.0, 2.0], "seed": [0, 1]}))) == 1
    assert len({sweep.trial_id(trial) for trial in trials}) == len(trials)


@pytest.mark.parametrize(
    "grid",
    ["lr", "lr=", "lr=fast", "lr=nan", "sed=0:8", "seed=3:1", "cell=lsmt", "hidden_size=0:2", "../x=1"],
)
def test_a_bad_grid_is_one_line(grid):
    with pytest.raises(BadSetting) as error:
        launcher.parse_trials(TINY, [grid])
    assert "\n" not in str(error.value) and "--config." not in str(error.value)
    assert f"--grid={grid}" in str(error.value) or "unknown setting" in str(error.value)


def test_dry_run_says_what_would_run_and_writes_nothing(tmp_path, capsys):
    trials = sweep.grid(TINY, AXES | {"cell": ["rnn", "gru"]})
    launcher.describe(trials, str(tmp_path / "s"), launcher.Options())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"12 trials in 2 buckets on {jax.local_device_count()} device")
    assert "cell=gru: 6 of 6 trials to run" in lines[2] and "MiB" in lines[2] and lines[3].startswith("in all about")
    assert not (tmp_path / "s").exists()


MANY_DEVICES = """
import random, sys, types
import jax, numpy as np
from pathlib import Path
import sweep as launcher
from rnnjax.sweeps import grid as sweep
from tests.test_sweep import NEVER, TINY, StopAfter, contents
trials = sweep.grid(TINY, {{"lr": [1e-3, 1e-2, 0.1, 1.0], "seed": [0, 1, 2, 3]}})
assert jax.device_count() == 8
"""
SAME_BITS = """
first = {{}}
for n in {numbers}:
    shuffled = random.Random(n).sample(trials, 16)
    count = sweep.lane_count(17, n, {width})  # more than 16 lanes: the rest is padding
    lanes = sweep.make_lanes(TINY, jax.devices()[:n], {width})
    inputs = lanes.place(sweep.lane_inputs(shuffled + [trials[0]] * (count - 16)))
    states, records = lanes.chunk(lanes.init(*inputs), inputs[1])
    host = jax.device_get((states.params, states.opt_state, records))
    for k, trial in enumerate(shuffled):
        bits = [leaf[k].tobytes() for leaf in jax.tree.leaves(host)]
        assert first.setdefault(trial, bits) == bits, (n, trial)
"""
RESUME = """
folders = [Path({folder!r}, name) for name in ("whole", "parts")]
whole = launcher.Options(width={width}, devices=jax.devices()[:2])
assert launcher.run_sweep(trials[:10], folders[0], NEVER, whole)
for k, n in enumerate({numbers}):
    options = launcher.Options(devices=jax.devices()[:n], width=None if k else {width})  # it is remembered
    assert not launcher.run_sweep(trials[:10], folders[1], StopAfter(1), options)
assert launcher.run_sweep(trials[:10], folders[1], NEVER)
for trial in trials[:10]:
    assert contents(folders[0], trial) == contents(folders[1], trial)
"""


def run_with_eight_devices(script):
    paths = os.pathsep.join([str(ROOT), str(ROOT / "experiments")])
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "PYTHONPATH": paths}
    command = [sys.executable, "-c", MANY_DEVICES.format(root=str(ROOT)) + script]
    subprocess.run(command, env=environment, check=True, cwd=ROOT)


@pytest.mark.slow
def test_any_number_of_devices_gives_the_same_bits():
    run_with_eight_devices(SAME_BITS.format(width=1, numbers=(1, 8)))


@pytest.mark.slow
@pytest.mark.parametrize("width, numbers", [(1, (1, 2, 4, 8)), (2, (2, 4, 8)), (4, (2, 4, 8))])
def test_each_number_of_devices_gives_the_same_bits(width, numbers):
    run_with_eight_devices(SAME_BITS.format(width=width, numbers=numbers))


@pytest.mark.slow
@pytest.mark.parametrize("width, numbers", [(1, (8, 1, 3)), (2, (2, 4, 3))])
def test_resumes_with_another_number_of_devices(width, numbers, tmp_path):
    run_with_eight_devices(RESUME.format(width=width, numbers=numbers, folder=str(tmp_path)))


# ---- lanes that diverge


@pytest.mark.parametrize("width", [pytest.param(1, marks=pytest.mark.slow), 8])
def test_a_diverged_lane_leaves_the_others_untouched(width):
    trials = sweep.grid(TINY, {"seed": range(8)})
    lanes = sweep.make_lanes(TINY, width=width)
    keys, values = sweep.lane_inputs(trials)

    def run(lr):
        states = lanes.init(*lanes.place((keys, values | {"lr": lr})))
        for _ in range(2):
            states, record = lanes.chunk(states, lanes.place(values | {"lr": lr}))
        return jax.device_get((states.params, states.opt_state, states.diverged, states.blame, record))

    good = run(values["lr"])
    assert (good[2] == -1).all()
    for k in range(8):
        for bad in (np.nan, 1e38):
            lr = values["lr"].copy()
            lr[k] = bad
            other = run(lr)
            for a, b in zip(jax.tree.leaves(good), jax.tree.leaves(other), strict=True):
                assert np.delete(a, k, 0).tobytes() == np.delete(b, k, 0).tobytes()
            blame = "update" if np.isnan(bad) else "loss"  # an update of 1e38 is finite; what comes of it is not
            assert 0 <= other[2][k] < 4 and BLAME[other[3][k]] == blame
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(other[:2]))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_run_is_frozen_at_its_last_finite_parameters(optimizer):
    config = dataclasses.replace(
        TINY,
        cell_options={"activation": "relu"},
        optimizer=optimizer,
        lr=1e-1 if optimizer == "sgd" else 1e12,
        weight_decay=1e6,
    )
    train = make_train(dataclasses.replace(config, eval_every=1))
    init, chunk = jax.jit(train.init), jax.jit(train.chunk)
    for clip in (0.0, 1.0):
        clipped = dataclasses.replace(config, clip=clip)
        key, values = jax.tree.map(lambda leaf: leaf[0], sweep.lane_inputs([clipped]))
        check_freezes(init(key, values), lambda state, values=values: chunk(state, values))


def check_freezes(state, chunk):
    states, records = [], []
    for _ in range(40):
        states.append(jax.device_get(state._replace(key=None)))
        state, record = chunk(state)
        records.append(jax.device_get(record))
    at = int(state.diverged)
    assert 0 < at < 39
    broken = [name for name in ("loss", "grad_norm") if not np.isfinite(records[at][name])]
    assert BLAME[int(state.blame)] == {"loss": "loss", "grad_norm": "gradient"}.get(
        broken[0] if broken else "", "update"
    )
    for a, b in zip(jax.tree.leaves(states[at]), jax.tree.leaves(states[-1]._replace(step=at)), strict=True):
        frozen = np.asarray(b).tobytes() == np.asarray(a).tobytes()
        assert frozen or a.shape == ()  # `diverged` and `blame` themselves
        assert np.isfinite(a).all()
    for record in records[:at]:
        assert np.isfinite(record["loss"]) and record["diverged"] == -1


GOOD = dataclasses.replace(TINY, cell_options={"activation": "relu"}, optimizer="sgd", seq_len=2, steps=4)
BAD = dataclasses.replace(GOOD, lr=1e30)


@pytest.fixture
def good_and_bad(tmp_path):
    assert launcher.run_sweep((GOOD, BAD), tmp_path, NEVER)
    return [sweep.trial_id(trial) for trial in (GOOD, BAD)]


def test_replay_runs_a_trial_again_alone(good_and_bad, tmp_path, capsys):
    good, bad = good_and_bad
    results = [json.loads((tmp_path / "trials" / name / "result.json").read_text()) for name in good_and_bad]
    assert results[0]["diverged"] is None and 0 <= results[1]["diverged"] < 4
    assert launcher.replay(str(tmp_path), good, True) == 0
    out = capsys.readouterr().out
    assert out.count("  as before\n") == 2 and "did not diverge" in out
    assert launcher.replay(str(tmp_path), bad, False) == 0
    out = capsys.readouterr().out
    assert "  as before\n" in out and f"diverged at step {results[1]['diverged']}" in out
    for name in ("../trials", "x", "0" * 16):
        with pytest.raises(BadSetting, match="allowed: the name of a directory"):
            launcher.replay(str(tmp_path), name, False)


@pytest.mark.slow
def test_replay_shows_the_first_operation_that_is_not_finite(good_and_bad, tmp_path):
    with pytest.raises(FloatingPointError, match="invalid value"):
        launcher.replay(str(tmp_path), good_and_bad[1], True)


# ---- random search


def test_samples_are_those_of_the_seed_and_lie_in_their_ranges():
    def draw(count, *more):
        return launcher.parse_trials(TINY, more, ["lr=log:1e-5:1e-1", "hidden_size=uniform:3:9"], count)

    trials = draw(400)
    assert draw(50) == trials[:50] and len(draw(5, "seed=0:3")) == 15
    logs = np.log10([trial.lr for trial in trials])
    assert -5 <= logs.min() < -4.9 and -1.1 < logs.max() <= -1
    np.testing.assert_allclose(np.quantile(logs, [0.25, 0.5, 0.75]), [-4, -3, -2], atol=0.3)
    sizes = [trial.hidden_size for trial in trials]
    assert {type(size) for size in sizes} == {int} and set(sizes) == set(range(3, 10))
    for name in ("min_seq_len", "embedding_size"):  # whole by its type, `int | None`, and not by its default
        base = dataclasses.replace(TINY, seq_len=50)
        drawn = [getattr(t, name) for t in launcher.parse_trials(base, [], [f"{name}=uniform:10:50"], 4)]
        assert {type(value) for value in drawn} == {int}
    sampled = launcher.parse_trials(TINY, [], ["cell.gain=uniform:0.5:2"], 2)
    assert all(type(trial.cell_options["gain"]) is float for trial in sampled)


@pytest.mark.parametrize(
    "sample, count",
    [
        *(
            (f"lr={wrong}", 3)
            for wrong in ("log:0:1", "log:1:1", "uniform:2:1", "normal:0:1", "", "log:1:nan", "log:1")
        ),
        ("lr", 3),
        ("cell=uniform:0:1", 3),
        ("sed=log:1:2", 3),
        ("seed=uniform:0:1.5", 3),
        ("lr=log:1e-5:1", None),
    ],
)
def test_a_bad_range_is_one_line(sample, count):
    with pytest.raises(BadSetting) as error:
        launcher.parse_trials(TINY, [], [sample], count)
    assert "\n" not in str(error.value)


# ---- trials that end early


def test_early_stops_free_their_lanes_and_are_undone_without_the_flags(solo, tmp_path, monkeypatch):
    """With thresholds between what the trials reach: some are solved, some hopeless, and the rest run to the end."""
    trials = sweep.grid(TINY, AXES)
    curves = [[row["eval_mse"] for row in runs.read_rows(launcher.trial_directory(solo, trial))] for trial in trials]
    firsts, bests = zip(*[(c[0], min(c[:2])) for c in curves], strict=True)
    solved, baseline = float(np.quantile(firsts, 0.3)), float(np.quantile(bests, 0.7))
    options = launcher.Options(lanes=2, stop_solved=True, stop_hopeless=0.6)
    expected = []
    for curve in curves:
        reason, length = None, 3
        for n, score in enumerate(curve[:2], start=1):  # 2 steps a chunk of 6; hopeless from step 3.6 on
            if reason is None and (score <= solved or (n == 2 and min(curve[:2]) >= baseline)):
                reason, length = "solved" if score <= solved else "hopeless", n
        expected.append((reason, length))
    assert {reason for reason, _ in expected} == {"solved", "hopeless", None}

    make = sweep.make_lanes

    def with_thresholds(*args):
        lanes = make(*args)
        task = lanes.train.task._replace(solved=solved, baseline=baseline)
        return lanes._replace(train=lanes.train._replace(task=task))

    monkeypatch.setattr(sweep, "make_lanes", with_thresholds)
    stop = StopAfter(100)
    assert launcher.run_sweep(trials, tmp_path, stop, options)
    found = []
    for trial in trials:
        folder, alone = (launcher.trial_directory(at, trial) for at in (tmp_path, solo))
        result, rows = json.loads((folder / "result.json").read_text()), runs.read_rows(folder)
        found.append((result["stopped"], len(rows)))
        assert rows == runs.read_rows(alone)[: len(rows)]
    assert found == expected
    assert 100 - stop.left < 9  # six trials of three chunks in two lanes, had none ended early
    assert launcher.run_sweep(trials, tmp_path, StopAfter(0), options)  # they count as done
    assert launcher.run_sweep(trials, tmp_path, NEVER)
    assert_same(tmp_path, solo, trials)


def test_a_diverged_trial_is_hopeless(tmp_path):
    assert launcher.run_sweep((GOOD, BAD), tmp_path, NEVER, launcher.Options(stop_hopeless=1.0))
    folder = launcher.trial_directory(tmp_path, BAD)
    assert json.loads((folder / "result.json").read_text())["stopped"] == "diverged"
    assert len(runs.read_rows(folder)) == 1


# ---- files that are damaged, and sources that change


def own_rnn(tmp_path, text):
    """A cell of the user's own, in a file."""
    file = tmp_path / "mine.py"
    file.write_text(f"from rnnjax.cells import rnn\n\ndef own(hidden_size):\n    return rnn(hidden_size{text})\n")
    return runpy.run_path(str(file))["own"]


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_trials_of_a_changed_cell_are_refused_and_on_purpose_only_the_missing_are_run(tmp_path, monkeypatch):
    monkeypatch.setitem(CELLS, "own", own_rnn(tmp_path, ""))
    first, second = sweep.grid(dataclasses.replace(TINY, cell="own"), {"seed": [0, 1]})
    workdir = tmp_path / "sweep"
    assert launcher.run_sweep([first], workdir, NEVER)
    monkeypatch.setitem(CELLS, "own", own_rnn(tmp_path, ", activation='relu'"))
    before = files_of(workdir)
    for trials in ([first], [first, second]):
        with pytest.raises(runs.RunRefused, match=rf"trials, such as {sweep.trial_id(first)}, and cell 'own' changed"):
            launcher.run_sweep(trials, workdir, NEVER)
        with pytest.raises(runs.RunRefused, match=r"mine\.py.*--accept_changes"):
            launcher.describe(trials, str(workdir), launcher.Options())
    with pytest.raises(runs.RunRefused, match="cell 'own' changed"):
        launcher.replay(str(workdir), sweep.trial_id(first), False)
    assert files_of(workdir) == before
    assert launcher.run_sweep([first, second], workdir, NEVER, launcher.Options(accept_changes=True))
    assert {path: data for path, data in files_of(workdir).items() if path in before} == before
    records = [runs.read_config(launcher.trial_directory(workdir, trial)) for trial in (first, second)]
    assert records[0]["sources"] != records[1]["sources"]
    copies = [launcher.trial_directory(workdir, trial) / "source" / "mine.py" for trial in (first, second)]
    assert [("relu" in copy.read_text()) for copy in copies] == [False, True]


def test_trials_of_another_default_are_refused_and_those_older_than_a_setting_are_done(tmp_path, monkeypatch):
    """A trial's id names what is not at its default: under another default it is another trial."""
    monkeypatch.setitem(CELLS, "own", lambda H, gain=1.0: rnn(H, gain=gain))
    monkeypatch.setattr(outputs, "sources", lambda config: {})  # as of a cell of the library
    trial, workdir = dataclasses.replace(TINY, cell="own"), tmp_path / "sweep"
    assert launcher.run_sweep([trial], workdir, NEVER)
    before = files_of(workdir)
    monkeypatch.setitem(CELLS, "own", lambda H, gain=1.0, depth=1: rnn(H, gain=gain))
    assert launcher.run_sweep([trial], workdir, NEVER)
    deeper = dataclasses.replace(trial, cell_options={"depth": 2})
    assert sweep.trial_id(deeper) != sweep.trial_id(trial)
    monkeypatch.setitem(CELLS, "own", lambda H, gain=2.0: rnn(H, gain=gain))
    with pytest.raises(runs.RunRefused, match=rf"such as {sweep.trial_id(trial)}, and cell.gain was 1.0, now 2.0"):
        launcher.run_sweep([trial], workdir, NEVER)
    assert launcher.run_sweep([trial], workdir, NEVER, launcher.Options(accept_changes=True))
    assert files_of(workdir) == before


def test_lanes_of_a_program_older_than_a_setting_go_on(solo, tmp_path, monkeypatch):
    trials = sweep.grid(TINY, AXES)[:1]
    assert not launcher.run_sweep(trials, tmp_path, StopAfter(2))
    (record,) = (tmp_path / "buckets").glob("*/config.json")
    stored = runs.read_config(record.parent)
    del stored["config"]["segments"], stored["config"]["cell.activation"]
    runs.write_json(record, stored)
    assert launcher.run_sweep(trials, tmp_path, NEVER)
    assert_same(tmp_path, solo, trials)


def test_lanes_under_way_do_not_go_on_with_another_cell(tmp_path, monkeypatch):
    monkeypatch.setitem(CELLS, "own", own_rnn(tmp_path, ""))
    trial, workdir = dataclasses.replace(TINY, cell="own"), tmp_path / "sweep"
    assert not launcher.run_sweep([trial], workdir, StopAfter(1))
    monkeypatch.setitem(CELLS, "own", own_rnn(tmp_path, ", activation='relu'"))
    with pytest.raises(runs.RunRefused, match="cell 'own' changed since this run began"):
        launcher.run_sweep([trial], workdir, NEVER)
    assert launcher.run_sweep([trial], workdir, NEVER, launcher.Options(accept_changes=True))
    assert "checkpoint-00000001" in str(runs.read_config(launcher.trial_directory(workdir, trial))["history"])


@pytest.mark.parametrize("name, data", [("result.json", b""), ("config.json", b"[]"), ("result.json", b"{")])
def test_a_damaged_trial_is_named_and_run_again_alone(name, data, solo, tmp_path, caplog, capsys):
    trials = sweep.grid(TINY, AXES)[:2]
    assert launcher.run_sweep(trials, tmp_path, NEVER)
    (launcher.trial_directory(tmp_path, trials[0]) / name).write_bytes(data)
    launcher.describe(trials, str(tmp_path), launcher.Options())
    assert "1 of 2 trials to run" in capsys.readouterr().out
    stop = StopAfter(100)
    assert launcher.run_sweep(trials, tmp_path, stop)
    assert stop.left == 100 - 3 and f"{sweep.trial_id(trials[0])}/{name} is damaged" in caplog.text
    assert_same(tmp_path, solo, trials)


def test_a_bucket_whose_record_is_damaged_begins_anew(solo, tmp_path, caplog):
    trials = sweep.grid(TINY, AXES)[:2]
    assert not launcher.run_sweep(trials, tmp_path, StopAfter(1))
    (record,) = tmp_path.glob("buckets/*/config.json")
    record.write_bytes(b"")
    assert launcher.run_sweep(trials, tmp_path, NEVER)
    assert f"{record} is damaged" in caplog.text
    assert_same(tmp_path, solo, trials)


def test_what_fails_after_training_loses_nothing_and_ends_no_sweep(tmp_path, monkeypatch):
    """The score of one trial of two fails: the other is done, and the same sweep later only scores."""
    trials = sweep.grid(dataclasses.replace(TINY, task="text"), {"seed": [0, 1]})

    def fails_for_the_first(run, config, *_):
        if config == trials[0]:
            raise ValueError("too\nfew characters")
        return {"bits": 2.5}

    monkeypatch.setattr(outputs, "write_report", fails_for_the_first)
    with pytest.raises(runs.RunFailed, match=r"1 trials .*params\.npz.* failed \(ValueError: too few char.*goes on"):
        launcher.run_sweep(trials, tmp_path, NEVER)
    results = [runs.read_result(launcher.trial_directory(tmp_path, trial)) for trial in trials]
    assert [result["complete"] for result in results] == [False, True] and results[1]["bits"] == 2.5
    monkeypatch.setattr(outputs, "write_report", lambda *_: {"bits": 1.5})
    assert launcher.run_sweep(trials, tmp_path, StopAfter(0))  # not a chunk is trained
    result = runs.read_result(launcher.trial_directory(tmp_path, trials[0]))
    assert result["complete"] and result["bits"] == 1.5 and result["score"] == results[0]["score"]


def test_a_sweep_is_its_own_directory(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(runs.RunRefused, match=r"notes\.txt"):
        launcher.run_sweep([TINY], tmp_path, NEVER)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_worker_finds_the_own_cell_of_the_config_file_or_refuses_another(tmp_path, monkeypatch):
    """What a Ray task does, in this process."""
    file = tmp_path / "mine.py"
    imports = "from rnnjax.cells import CELLS, rnn\nfrom rnnjax import Config\n"
    cell = 'def own(n):\n    return rnn(n)\n\nCELLS["own"] = own\n'
    file.write_text(f"{imports}\n{cell}\ndef get_config():\n    return Config(cell='own')\n")
    monkeypatch.setitem(CELLS, "own", None)  # put back afterwards
    ran = []
    monkeypatch.setattr(ray_sweep, "run_sweep", lambda *args: ran.append(CELLS["own"](3)) or True)
    monkeypatch.setattr(jax.config, "update", lambda *args: None)
    trial = dataclasses.replace(TINY, cell="own")
    assert ray_sweep.run_share([trial], str(tmp_path / "s"), launcher.Options(), str(file), None) and ran
    digests = {name: source.sha256 for name, source in outputs.sources(trial).items()}
    assert digests and ray_sweep.run_share([trial], str(tmp_path / "s"), launcher.Options(), str(file), digests)
    file.write_text(file.read_text().replace("return rnn(n)", "return rnn(n + 1)"))
    with pytest.raises(runs.RunRefused, match="cell 'own': another on this worker"):
        ray_sweep.run_share([trial], str(tmp_path / "s"), launcher.Options(), str(file), digests)
