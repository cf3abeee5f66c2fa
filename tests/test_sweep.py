"""A sweep's trials are the solo runs of their configs, bit for bit, whatever interrupts it and whatever it runs on."""

import dataclasses
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from experiments import outputs  # noqa: E402
from experiments import sweep as launcher  # noqa: E402
from experiments.flags import BadSetting  # noqa: E402
from rnnjax import runs, sweep  # noqa: E402
from rnnjax.config import Config  # noqa: E402
from rnnjax.training import make_train  # noqa: E402

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
    for lanes, width, chunks in ((1, 1, 20), (2, 1, 4), (3, 1, 1), (1, 1, 1)):
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
    trials = sweep.grid(dataclasses.replace(TINY, steps=2), {"seq_len": [3, 4], "lr": [0.1, 0.2], "seed": [0, 1, 2]})
    assert launcher.run_sweep(trials, tmp_path, NEVER, launcher.Options(lanes=2))
    assert [lanes.chunk._cache_size() for lanes in made] == [1, 1]


def test_grid_drops_duplicates_and_buckets_what_is_static():
    trials = launcher.parse_trials(TINY, ["lr=1e-3,0.001,1e-2", "seed=0:3", "cell=rnn,gru", "clip=0,1"])
    assert len(trials) == 2 * 3 * 2 * 2
    found = sweep.buckets(trials)
    assert [bucket.config.cell for bucket in found] == ["rnn", "gru"]
    assert [len(bucket.trials) for bucket in found] == [12, 12]
    assert len(sweep.buckets(sweep.grid(TINY, {"gain": [None, 1.0, 2.0], "seed": [0, 1]}))) == 2  # set or not
    assert len({sweep.trial_id(trial) for trial in trials}) == len(trials)


@pytest.mark.parametrize(
    "grid",
    ["lr", "lr=", "lr=fast", "lr=nan", "sed=0:8", "seed=3:1", "cell=lsmt", "hidden_size=0:2", "../x=1"],
)
def test_a_bad_grid_is_one_line(grid):
    with pytest.raises(BadSetting) as error:
        launcher.parse_trials(TINY, [grid])
    assert "\n" not in str(error.value)


def test_dry_run_says_what_would_run_and_writes_nothing(tmp_path, capsys):
    trials = sweep.grid(TINY, AXES | {"cell": ["rnn", "gru"]})
    launcher.describe(trials, str(tmp_path / "s"), launcher.Options())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"12 trials in 2 buckets on {jax.local_device_count()} device")
    assert "cell=gru: 6 of 6 trials to run" in lines[2] and "MiB" in lines[2] and lines[3].startswith("in all about")
    assert not (tmp_path / "s").exists()


MANY_DEVICES = """
import dataclasses, json, random, sys, types
import jax, numpy as np
sys.path.insert(0, {root!r})
from pathlib import Path
from experiments import sweep as launcher
from rnnjax import sweep
from tests.test_sweep import TINY, StopAfter, contents
trials = sweep.grid(TINY, {{"lr": [1e-3, 1e-2, 0.1, 1.0], "seed": [0, 1, 2, 3]}})
assert jax.device_count() == 8
"""


def run_with_devices(count, script):
    environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}
    command = [sys.executable, "-c", MANY_DEVICES.format(root=str(ROOT)) + script]
    subprocess.run(command, env=environment, check=True, cwd=ROOT)


def test_any_number_of_devices_gives_the_same_bits():
    run_with_devices(
        8,
        """
chosen = {}
for width in (1, 2):
    for n in (1, 2, 4, 8):
        shuffled = random.Random(n).sample(trials, 16)
        count = sweep.lane_count(16 if n < 8 else 17, n, width)  # more than 16 lanes: the rest is padding
        lanes = sweep.make_lanes(TINY, jax.devices()[:n], width)
        inputs = lanes.place(sweep.lane_inputs(shuffled + [trials[0]] * (count - 16)))
        states, records = lanes.chunk(lanes.init(*inputs), inputs[1])
        host = jax.device_get((states.params, states.opt_state, records))
        for k, trial in enumerate(shuffled):
            bits = [leaf[k].tobytes() for leaf in jax.tree.leaves(host)]
            assert chosen.setdefault((width, trial), bits) == bits, (width, n, trial)
""",
    )


def test_resumes_with_another_number_of_devices(tmp_path):
    run_with_devices(
        8,
        f"""
for width, numbers in ((1, (8, 1, 3)), (2, (1, 4, 2))):
    folders = [Path({str(tmp_path)!r}, f"{{width}}-{{name}}") for name in ("whole", "parts")]
    whole = launcher.Options(width=width, devices=jax.devices()[:2])
    assert launcher.run_sweep(trials[:10], folders[0], StopAfter(10**6), whole)
    for n in numbers:
        options = launcher.Options(devices=jax.devices()[:n], width=width if n == numbers[0] else None)
        done = launcher.run_sweep(trials[:10], folders[1], StopAfter(1), options)
        assert not done
    assert launcher.run_sweep(trials[:10], folders[1], StopAfter(10**6))
    for trial in trials[:10]:
        assert contents(folders[0], trial) == contents(folders[1], trial)
""",
    )
