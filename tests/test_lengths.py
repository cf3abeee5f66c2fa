"""Longer than trained: scores by length, and lengths that grow while training."""

import dataclasses
import json
import math
from fractions import Fraction

import jax
import numpy as np
import pytest
from trials import parse_trials

import rnnjax
from rnnjax import Batch, Config
from rnnjax.figures.length_plots import score_by_length
from rnnjax.keys import Purpose, purpose_key
from rnnjax.reports.runs_page import write_report
from rnnjax.reports.settings import find_runs, runs_csv
from rnnjax.runs.read import read_run, varied_settings
from rnnjax.tasks import SPLITS, TASKS
from rnnjax.tasks.common import draw_seq_len
from rnnjax.training.curriculum import longest_drawn
from rnnjax.training.dotted import with_defaults
from rnnjax.training.lengths import batch_that_fits, evaluate
from rnnjax.training.refusals import BadSetting
from rnnjax.training.settings import checked, parse_setting
from rnnjax.training.train import make_train

KEY = jax.random.key(3)
SMALL = Config(task="parity", cell="rnn", seq_len=6, min_seq_len=2, hidden_size=4, batch_size=4)
SMALL = dataclasses.replace(SMALL, steps=4, eval_every=2, eval_batch=4, gradient_flow=False)
LONGER = dataclasses.replace(SMALL, eval_lengths=(3, 300))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A sweep of two trials that are scored at lengths, its directory, and one of them trained alone."""
    folder = tmp_path_factory.mktemp("sweep")
    rows = rnnjax.sweep(LONGER, {"seed": [0, 1]}, folder / "sweep")
    return rows, folder / "sweep", rnnjax.fit(LONGER, progress=False)


def test_scores_by_length_are_those_of_the_model_on_fresh_sequences(sweep):
    """Counted in NumPy; the baseline is that of the length in closed form."""
    *_, run = sweep
    assert list(run.result["lengths"]) == ["3", "300"]
    for length, size in ((3, 256), (300, 128)):
        scores = dict(run.result["lengths"][str(length)])
        assert scores.pop("baseline") == pytest.approx(0.5 + 0.5 / length)
        assert scores == run.evaluate(seq_len=length)
        right = []
        for key in jax.random.split(purpose_key(Purpose.TESTING, SPLITS.index("test")), 1024 // size):
            batch = run.train.task.sample(key, size, split="test", seq_len=length)
            assert batch.inputs.shape[:2] == (length, size)
            right.append(np.asarray(run.model(batch.inputs)).argmax(-1) == np.asarray(batch.targets))
        assert scores["accuracy"] == pytest.approx(np.mean(right), abs=2e-4)


def test_a_trial_of_a_sweep_is_scored_as_the_run_alone_is(sweep):
    rows, path, run = sweep
    assert rows[0]["lengths"] == run.result["lengths"] and rows[1]["lengths"] != rows[0]["lengths"]
    assert rows[0]["eval_lengths"] == (3, 300)
    assert rnnjax.load(rows[1]["workdir"]).evaluate(seq_len=3)["loss"] == rows[1]["lengths"]["3"]["loss"]
    assert "300" in runs_csv(find_runs([str(path)])[0])


def test_a_program_is_compiled_once_a_length_for_all_trials():
    train = make_train(SMALL)
    for seed in (0, 1):
        params = train.init(jax.random.key(seed), {"lr": 1e-3, "weight_decay": 0.0, "clip": 1.0}).params
        for length in (2, 3):
            evaluate(train, params, seq_len=length)
    assert train.score._cache_size() == 2


def test_the_batch_is_cut_by_the_length_alone():
    sizes = {length: batch_that_fits(length) for length in (None, 1, 256, 257, 1000, 10**6)}
    assert list(sizes.values()) == [256, 256, 256, 128, 64, 1]


@pytest.mark.parametrize("text, value", [("100,200", (100, 200)), ("7", (7,)), ("none", ()), ("None", ())])
def test_lengths_as_text(text, value):
    assert parse_setting("eval_lengths", text) == value


def test_a_list_as_json_has_it_is_the_tuple_and_one_left_out_is_none():
    assert Config(eval_lengths=[3, 4]) == Config(eval_lengths=(3, 4))
    old = with_defaults({"task": "copy", "cell": "gru"})
    assert varied_settings([old, with_defaults(json.loads(json.dumps(old)))]) == []
    assert {old["eval_lengths"], with_defaults({"eval_lengths": [3]})["eval_lengths"]} == {(), (3,)}


def fixed(seq_len):
    """A task whose length cannot be asked for."""
    task = TASKS["adding"](seq_len)
    return task._replace(sample=lambda key, batch_size, *, split="train": task.sample(key, batch_size, split=split))


def stubborn(seq_len):
    """A task that draws no length but its own."""

    def sample(key, batch_size, *, split="train", seq_len=None) -> Batch:
        if seq_len is not None:
            raise RuntimeError("only mine\nand more")
        return TASKS["adding"](10).sample(key, batch_size)

    return TASKS["adding"](seq_len)._replace(sample=sample)


@pytest.mark.parametrize(
    "config, message",
    [
        (
            {"eval_lengths": (0,)},
            r"^config.eval_lengths=\(0,\); allowed: integers between commas, 1 or more",
        ),
        ({"eval_lengths": (5, 5)}, r"eval_lengths=\(5, 5\); allowed: integers between commas, 1 or more, each once"),
        ({"eval_lengths": (2.5,)}, r"eval_lengths=\(2.5,\); allowed: integers between"),
        ({"eval_lengths": 5}, r"^config.eval_lengths=5: allowed: integers between commas, or none$"),
        ({"eval_lengths": (4, 1)}, r"eval_lengths=\(4, 1\): task 'parity': seq_len is 1; it must be an integer, 2 or"),
        ({"task": "fixed", "eval_lengths": (9,)}, "the sample of task 'fixed' takes no seq_len; allowed: none, or"),
        ({"task": "stubborn", "eval_lengths": (9,)}, r"eval_lengths=\(9,\): only mine$"),
    ],
)
def test_lengths_that_cannot_be_are_refused_in_one_line(config, message, monkeypatch):
    monkeypatch.setitem(TASKS, "fixed", fixed)
    monkeypatch.setitem(TASKS, "stubborn", stubborn)
    lowest = None if "task" in config else 2
    with pytest.raises(BadSetting, match=message) as error:
        checked(dataclasses.replace(SMALL, min_seq_len=lowest, **config))
    assert "\n" not in str(error.value)


def test_lengths_are_no_axis_of_a_grid():
    with pytest.raises(BadSetting, match=r"eval_lengths is no axis; allowed: --config\.eval_lengths=3,4$"):
        parse_trials(SMALL, ["eval_lengths=3,4"])


@pytest.mark.slow
def test_the_figure_has_a_line_a_setting_the_training_lengths_and_the_baseline(sweep, tmp_path):
    rows, path, run = sweep
    runs = [read_run(row["workdir"]) for row in rows]
    (axes,) = score_by_length(runs, tmp_path / "figure.png").axes
    lines = {line.get_label(): line for line in axes.lines if line.get_xdata().size}
    assert set(lines) == {"gru", "no memory"}
    both = np.array([[row["lengths"][n]["accuracy"] for n in ("3", "300")] for row in rows])
    np.testing.assert_allclose(lines["gru"].get_ydata(), both.mean(0), rtol=1e-6)  # the median of two
    np.testing.assert_allclose(lines["no memory"].get_ydata(), [2 / 3, 0.5 + 1 / 600])
    shaded = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    assert shaded.x0 < 2 < 6 < shaded.x1 and shaded.x1 / shaded.x0 < 3.3
    assert axes.get_xscale() == "log" and axes.get_ylabel() == "test accuracy\n(higher is better)"
    spoilt = dict(runs[0].result["lengths"]) | {"300": {"accuracy": float("nan"), "baseline": 0.5}}
    (axes,) = score_by_length([runs[0]._replace(result=runs[0].result | {"lengths": spoilt})]).axes
    assert axes.lines[1].get_ydata().tolist() == [rows[0]["lengths"]["3"]["accuracy"], -np.inf]
    with pytest.raises(ValueError, match="the runs were scored at lengths 3, 300; none; allowed: eval_lengths that"):
        score_by_length([runs[0], runs[1]._replace(result=runs[1].result | {"lengths": {}})])
    page = write_report([str(path)], str(tmp_path / "report")).read_text()
    assert "Score by length" in page
    saved = run.save(tmp_path / "saved")
    assert (saved / "score_by_length.png").read_bytes().startswith(b"\x89PNG")
    assert not list(path.glob("trials/*/*.png"))


@pytest.mark.parametrize(
    "lowest, highest, steps, curriculum",
    [(2, 6, 10, 0.5), (1, 9, 7, 1.0), (3, 4, 100, 0.001), (5, 40, 2**31 - 1, 1.0), (1, 300, 2**31 - 1, 0.9)],
)
def test_the_longest_length_grows_linearly(lowest, highest, steps, curriculum):
    """Against exact fractions; at the steps where it grows, beside them and at both ends."""
    config = Config(seq_len=highest, min_seq_len=lowest, steps=steps, curriculum=curriculum)
    ramp, growth = max(1, round(curriculum * steps)), highest - lowest
    near = {k * ramp // growth + d for k in range(growth + 1) for d in (-1, 0, 1)} | {0, steps - 1}
    at = sorted(step for step in near if 0 <= step < steps)
    found = jax.jit(jax.vmap(lambda step: longest_drawn(config, step)))(np.array(at, np.int32))
    expected = [lowest + math.floor(growth * min(Fraction(step, ramp), 1)) for step in at]
    assert found.tolist() == expected
    assert expected[0] == lowest and (expected[-1] == highest) == (ramp < steps)


@pytest.mark.parametrize(
    "name, options, more",
    [
        ("adding", {"variant": "pascanu"}, [0, 1]),  # of up to a tenth of its length on top
        ("copy", {"copy_length": 2}, [4]),
        ("parity", {}, [0]),
        ("text", {}, [0]),
    ],
)
def test_a_bound_on_drawn_lengths_holds_and_changes_nothing_else(name, options, more):
    task = TASKS[name](18, min_seq_len=11, **options)
    sample = jax.jit(lambda longest: task.sample(KEY, 100, longest=longest))
    bounded, free = sample(13), sample(18)
    assert set(np.asarray(bounded.lengths)) == {length + extra for length in (11, 12, 13) for extra in more}
    assert max(np.asarray(free.lengths)) > 13 + max(more)
    assert jax.tree.map(np.shape, free) == jax.tree.map(np.shape, bounded)
    for a, b in zip(jax.tree.leaves(free), jax.tree.leaves(jax.jit(lambda: task.sample(KEY, 100))()), strict=True):
        np.testing.assert_array_equal(a, b)


def test_where_all_lengths_are_equal_no_bound_holds():
    assert set(draw_seq_len(KEY, (50,), 9, None, longest=4).tolist()) == {9}
    batch = jax.eval_shape(lambda: TASKS["copy"](9, min_seq_len=2).sample(KEY, 5, seq_len=12, longest=4))
    assert batch.inputs.shape[0] == 32 and batch.lengths is None


def test_training_draws_the_lengths_of_its_curriculum_and_validation_all(monkeypatch):
    drawn = {"train": [], "validation": []}
    task = TASKS["parity"](6, min_seq_len=2)

    def sample(key, batch_size, *, split="train", seq_len=None, longest=None):
        batch = task.sample(key, batch_size, split=split, seq_len=seq_len, longest=longest)
        jax.debug.callback(lambda n: drawn[split].append(set(np.asarray(n).tolist())), batch.lengths, ordered=True)
        return batch

    monkeypatch.setitem(TASKS, "watched", lambda seq_len, min_seq_len: task._replace(sample=sample))
    config = dataclasses.replace(SMALL, task="watched", cell="rnn", curriculum=0.8, steps=10, eval_every=10)
    rnnjax.fit(dataclasses.replace(config, batch_size=200, eval_batch=100), progress=False)
    jax.effects_barrier()
    longest = [2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    assert drawn == {"train": [set(range(2, n + 1)) for n in longest], "validation": [{2, 3, 4, 5, 6}]}


@pytest.mark.parametrize(
    "config, message",
    [
        ({"curriculum": 1.5}, r"^config.curriculum=1.5; allowed: a fraction of the steps, from 0 \(none\) to 1$"),
        ({"curriculum": math.nan}, r"^config.curriculum=nan; allowed: a fraction"),
        (
            {"curriculum": 0.5, "min_seq_len": None},
            r"=0.5 changes nothing with min_seq_len=None and seq_len=6;",
        ),
        ({"curriculum": 0.5, "min_seq_len": 6}, "changes nothing with min_seq_len=6 and seq_len=6; allowed: a min_seq"),
        ({"curriculum": 0.5, "task": "brief"}, "the sample of task 'brief' takes no longest; allowed: 0, or sample"),
    ],
)
def test_a_curriculum_without_lengths_to_grow_over_is_refused(config, message, monkeypatch):
    monkeypatch.setitem(TASKS, "brief", lambda seq_len, min_seq_len: fixed(seq_len))
    with pytest.raises(BadSetting, match=message):
        checked(dataclasses.replace(SMALL, **config))


def test_a_run_with_a_curriculum_is_not_made_longer(sweep):
    *_, run = sweep
    curriculum = dataclasses.replace(run, config=dataclasses.replace(run.config, curriculum=0.5))
    with pytest.raises(BadSetting, match=r"curriculum=0\.5 is a fraction of 4 steps in all; allowed: curr"):
        curriculum.resume(steps=2)
