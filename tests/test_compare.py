"""A comparison: sizes that match, what the seeds support, and a table that reads what sweeps left."""

import csv
import dataclasses
import json
import math

import numpy as np
import pytest

import rnnjax
from rnnjax import runs
from rnnjax.reports.compare_page import markdown, table, write_page
from rnnjax.reports.comparison import differ, differences, over_seeds, read_comparison, rule
from rnnjax.sweeps import matching, timing
from rnnjax.sweeps.lanes import trial_directory
from rnnjax.sweeps.matching import count_parameters, matched, models_of, nearest_size, nearest_time
from rnnjax.training.config import Config
from rnnjax.training.refusals import BadSetting

TINY = Config(seq_len=4, hidden_size=12, steps=4, eval_every=2, eval_batch=4, batch_size=2)
NO_CLOCK = {"seconds": lambda config: pytest.fail("a clock was read")}


OF_A_LAYER = {  # parameters of H units that read D numbers
    "rnn": lambda H, D: H * (H + D + 1),
    "lstm": lambda H, D: 4 * H * (H + D + 1),
    "gru": lambda H, D: 3 * H * (H + D + 1) + H,
    "mgu": lambda H, D: 2 * H * (H + D + 1) + H,
}


def closed_form(cell, H, layers=1):
    """Parameters of a network on adding, with its readout."""
    return OF_A_LAYER[cell](H, 2) + (layers - 1) * OF_A_LAYER[cell](H, H) + H + 1


@pytest.mark.parametrize("cell", OF_A_LAYER)
def test_parameters_are_those_of_the_closed_form(cell):
    for H, layers in ((5, 1), (12, 2)):
        config = dataclasses.replace(TINY, cell=cell, hidden_size=H, num_layers=layers)
        assert count_parameters(config) == closed_form(cell, H, layers)


def test_no_width_has_a_nearer_number_of_parameters():
    H = TINY.hidden_size
    models = models_of(TINY, ["gru", "rnn", "lstm"])
    for model in matched(models, "parameters", **NO_CLOCK):
        off = {n: abs(closed_form(model.label, n) - closed_form("gru", H)) for n in range(1, 200)}
        assert model.config.hidden_size == min(off, key=lambda n: (off[n], n))


@pytest.mark.parametrize(("options", "unit"), [("", 8), (":heads=2", 4), (":positions=alibi", 4), (":heads=1", 2)])
def test_a_model_that_attends_has_a_size_that_its_heads_divide(options, unit):
    models = models_of(dataclasses.replace(TINY, hidden_size=40), ["lstm", f"transformer{options}"])
    _, (_, config) = matched(models, "parameters", **NO_CLOCK)
    attends = lambda H: 12 * H * H + 13 * H + 3 * H + 2 * H + H + 1  # noqa: E731  # block, entrance, last norm, readout
    assert count_parameters(config) == attends(config.hidden_size)
    off = {n: abs(attends(n) - closed_form("lstm", 40)) for n in range(unit, 100, unit)}
    assert config.hidden_size == min(off, key=lambda n: (off[n], n))
    with pytest.raises(BadSetting, match="heads=4; allowed: a divisor of hidden_size=30"):
        matched(models_of(dataclasses.replace(TINY, hidden_size=30), ["lstm", "transformer"]), "width", **NO_CLOCK)


def test_the_nearest_size_is_found_among_multiples_and_the_smaller_of_two():
    for unit in (1, 3, 8):
        for target in (1, 7, 64, 65, 72, 1000, 5000):
            expected = min(range(unit, 120, unit), key=lambda n: (abs(n * n - target), n))
            assert nearest_size(lambda n: n * n, target, unit) == expected
    assert nearest_size(lambda n: 10 * n, 25) == 2


@pytest.mark.parametrize("unit", [1, 8])
@pytest.mark.parametrize("start", [8, 64, 512])
@pytest.mark.parametrize("time", [lambda n: 1 + 0.02 * n, lambda n: 0.3 + 1e-4 * n * n, lambda n: 0.05 * n])
def test_a_size_of_that_time_is_found_in_few_readings(time, start, unit):
    read = []

    def seconds(size):
        read.append(size)
        return time(size)

    for target in (2.0, 4.0):
        del read[:]
        found = nearest_time(seconds, target, unit, start)
        nearest = min(range(unit, 2000, unit), key=lambda n: abs(math.log(time(n) / target)))
        error = abs(math.log(time(found) / target))
        assert error <= max(0.06, abs(math.log(time(nearest) / target)) + 1e-9)
        assert len(read) == len(set(read)) <= matching.SIZES


def test_times_out_of_order_end_the_search():
    noisy = {8: 1.0, 16: 0.9, 24: 0.8}
    assert nearest_time(lambda n: noisy.get(n, 0.5), 0.95, 8, 8) in noisy


def test_a_model_matched_by_time_or_width():
    models = models_of(TINY, ["lstm", "rnn", "gru"])
    work = lambda config: config.hidden_size * {"lstm": 4, "rnn": 1, "gru": 3}[config.cell]  # noqa: E731
    assert [m.config.hidden_size for m in matched(models, "time", work)] == [12, 48, 16]
    assert [m.config.hidden_size for m in matched(models, "width", **NO_CLOCK)] == [12, 12, 12]


def test_a_model_may_have_options_and_settings_of_its_own():
    config = dataclasses.replace(TINY, cell_options={"peepholes": True})
    models = models_of(config, ["rnn:activation=relu", "lstm:coupled=true:lr=0.01", "lstm"])
    assert [m.label for m in models] == ["rnn:activation=relu", "lstm:coupled=true:lr=0.01", "lstm"]
    assert [dict(m.config.cell_options) for m in models] == [
        {"activation": "relu"},
        {"peepholes": True, "coupled": True},
        {"peepholes": True},
    ]
    assert [m.config.lr for m in models] == [1e-3, 0.01, 1e-3]


BAD = {
    "lstm": "allowed: two or more",
    "lstm,lsmt": "unknown cell 'lsmt'; did you mean 'lstm'?",
    "lstm,gru:gian=2": "cell 'gru' has no option 'gian'; did you mean 'gain'?",
    "lstm,gru:gain=big": "models='gru:gain=big': cell.gain='big': allowed: a number",
    "lstm,gru:seed=3": "seed is the same for all models; allowed: as --config.seed",
    "lstm,gru:task.variant=pascanu": "task.variant is the same for all models",
    "lstm,gru:hidden_size=3": "hidden_size is the same for all models",
    "lstm,gru,lstm": "models='lstm' and 'lstm' are the same; allowed: each once",
    "lstm,lstm:coupled=false": "models='lstm:coupled=false' and 'lstm' are the same",
    "lstm,gain=2": "allowed: CELL, or CELL:OPTION=VALUE",
    "lstm,gru:gain=2:x": "allowed: CELL, or CELL:OPTION=VALUE",
    "lstm,": "allowed: CELL, or CELL:OPTION=VALUE",
}


@pytest.mark.parametrize("texts", BAD)
def test_a_model_that_cannot_be_is_one_line(texts):
    with pytest.raises(BadSetting, match=r"^[^\n]*$") as raised:
        models_of(TINY, texts.split(","))
    assert BAD[texts] in str(raised.value)


def test_an_option_that_no_model_has_is_refused():
    config = dataclasses.replace(TINY, cell_options={"peepholes": True})
    with pytest.raises(BadSetting, match="has no option 'peepholes'"):
        models_of(config, ["rnn", "gru"])
    with pytest.raises(BadSetting, match="unknown match 'parameter'; did you mean 'parameters'"):
        matched(models_of(TINY, ["rnn", "gru"]), "parameter", **NO_CLOCK)


def stored(tmp_path, scores, **more):
    """A comparison read from results that were planted: label -> the score of each seed.

    None is one that diverged, NaN one that did with a good score behind it.
    """
    models = matched(models_of(TINY, list(scores)), "width", **NO_CLOCK)
    for model in models:
        for trial, score in zip(over_seeds(model, 5), scores[model.label], strict=True):
            path = trial_directory(tmp_path, trial)
            path.mkdir(parents=True)
            diverged, score = score is None or math.isnan(score), 0.01 if score and math.isnan(score) else score
            result = {"score_name": "mse", "score": score, "higher_is_better": False, "solved_threshold": 0.05}
            result |= {"references": {"no memory": 0.17}, "baseline": 0.17, "gradient_reach": 3, "sequence_steps": 4}
            result |= {"diverged": 2 if diverged else None, "gradient_fault": None}
            result |= {"solved_at": 4 if score is None or score < 0.05 else None} | more
            runs.write_json(path / "result.json", result)
            rows = [{"step": 2, "eval_mse": 0.3, "diverged": -1}, {"step": 4, "eval_mse": score, "diverged": -1}]
            (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            config = {"cell": trial.cell, "task": trial.task, "seed": trial.seed, "hidden_size": 12}
            (path / "config.json").write_text(json.dumps({"config": config, "versions": {}}))
    return read_comparison(models, tmp_path, 5, "width")


CLEAR = {"rnn": [0.16, 0.17, 0.18, 0.15, 0.16], "lstm": [0.04, 0.05, 0.03, 0.05, 0.04]}


def test_a_clear_difference_is_said_with_its_size(tmp_path):
    first, *_ = differences(stored(tmp_path, CLEAR))
    gains = sorted(np.subtract(CLEAR["rnn"], CLEAR["lstm"]))  # .10 .12 .12 .12 .15
    assert first == f"lstm is better than rnn by 0.12 ({gains[0]:.3g} to {gains[-1]:.3g})."


def test_nothing_is_said_where_scores_overlap_though_each_seed_agrees(tmp_path):
    pairs = {"gru": [0.10, 0.20, 0.30, 0.40, 0.50], "lstm": [0.11, 0.21, 0.31, 0.41, 0.51]}
    said = differences(stored(tmp_path, pairs))
    assert said[0] == "Nothing is said between gru and lstm." and "is better" not in " ".join(said)
    assert said[1] == "Runs better than no memory (0.17): gru 1 of 5, lstm 1 of 5."


def test_runs_that_diverged_count_as_the_worst_and_are_never_left_out(tmp_path):
    found = stored(tmp_path, CLEAR | {"gru": [0.01, None, math.nan, 0.02, None]})
    gru = found.rows[2]
    assert gru.scores == [0.01, math.inf, math.inf, 0.02, math.inf] and (gru.diverged, gru.solved) == (3, 2)
    assert differences(found)[1] == "Nothing is said between rnn and gru; lstm and gru."
    line = table(found)[3]
    assert line[0] == "gru" and line[1] == "not finite (0.01 to not finite)" and line[-1] == "3 of 5"
    found = stored(tmp_path / "b", {"irnn": [None] * 5, "lstm": [None] * 5, "gru": CLEAR["lstm"]})
    assert differences(found)[:3] == [
        "gru is better than irnn: 5 of 5 runs of irnn diverged.",
        "gru is better than lstm: 5 of 5 runs of lstm diverged.",
        "Nothing is said between irnn and lstm.",
    ]
    found = stored(tmp_path / "c", {"lstm": CLEAR["lstm"], "gru": [0.2, 0.2, 0.2, 0.2, None]})
    assert differences(found)[0] == (
        "lstm is better than gru by 0.16 (0.15 to without limit; 1 of 5 runs of gru diverged)."
    )


def test_higher_may_be_better(tmp_path):
    found = stored(tmp_path, CLEAR, higher_is_better=True)
    assert differences(found)[0].startswith("rnn is better than lstm by 0.12")
    assert differences(found)[1] == "Runs better than no memory (0.17): rnn 1 of 5, lstm 0 of 5."


def test_models_of_one_distribution_are_seldom_said_to_differ_whatever_the_number_of_seeds():
    rng = np.random.default_rng(0)
    for n in (1, 3, 4, 5, 6, 9):
        shared = rng.normal(size=(2000, 1, n))  # what a seed does to both
        a, b = np.moveaxis(shared + rng.standard_cauchy((2000, 2, n)), 1, 0).tolist()
        assert np.mean([differ(*pair) for pair in zip(a, b, strict=True)]) <= 0.05
    assert not differ([0, 0, 0], [1, 1, 1]) and differ([0] * 6, [1] * 6) and differ([0] * 4, [1] * 4)
    assert "0.8 % of cases" in rule(5) and "6 of the 6 seeds" in rule(6) and "too few" in rule(3)


def test_the_table_shows_models_and_references_from_stored_results(tmp_path):
    more = {"test_mse": 0.5, "test_last_value": 0.25}
    found = stored(tmp_path, CLEAR, **more)
    header, rnn, lstm, *references = table(found)
    assert header[:4] == ["model", "validation mse", "test mse", "solved, at step"]
    assert rnn[:3] == ["rnn", "0.16 (0.15 to 0.18)", "0.5"] and lstm[3] == "3 of 5, 4"
    assert (rnn[5], lstm[5]) == ("193", f"{closed_form('lstm', 12)} ({closed_form('lstm', 12) / 193 - 1:+.1%})")
    assert [line[:3] for line in references] == [["no memory", "0.17", "–"], ["last value", "–", "0.25"]]
    more = {"test_mae": 9.0, "test_mae_last_value": 8.0, "test_mse_no_memory": 0.4} | more
    references = table(stored(tmp_path / "b", CLEAR, **more))[3:]
    assert [line[:3] for line in references] == [["no memory", "0.17", "0.4"]]
    assert differences(found) == [  # on the test data, where all have one score
        "Nothing is said between rnn and lstm.",
        "Runs better than last value (0.25): rnn 0 of 5, lstm 0 of 5.",
    ]
    found = stored(tmp_path / "c", CLEAR)
    page = write_page(found, tmp_path / "page")
    names = {path.name for path in page.parent.iterdir()}
    assert {"compare.md", "compare.csv", "compare.json", "curves.png", "scores_dark.png"} < names
    text = page.read_text()
    assert "lstm is better than rnn" in text and "every run of the one is better than every run of the other" in text
    with open(page.parent / "compare.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["score_seed_3"]) for row in rows] == [0.15, 0.05] and rows[0]["parameters"] == "193"
    assert json.loads((page.parent / "compare.json").read_text())["sentences"] == differences(found)


@pytest.fixture
def clock(monkeypatch):
    """A clock by the hidden size alone; what was timed."""
    read = []

    def time_a_step(config):
        read.append((config.cell, config.hidden_size))
        seconds = config.hidden_size * {"rnn": 1e-3, "gru": 3e-3}[config.cell]
        return timing.Timing(seconds, seconds, seconds)

    monkeypatch.setattr(timing, "time_a_step", time_a_step)
    return read


def test_a_comparison_is_trained_once_and_shown_again(tmp_path, clock):
    config = dataclasses.replace(TINY, hidden_size=6)
    found = rnnjax.compare(config, ["rnn", "gru"], tmp_path / "c", seeds=2, match="time")
    assert [row.hidden_size for row in found.rows] == [6, 2]
    rows = {(row["cell"], row["seed"]): row for row in rnnjax.results(tmp_path / "c")}
    for row in found.rows:
        assert row.scores == [rows[row.cell, seed]["score"] for seed in (0, 1)]
        assert row.step.seconds == pytest.approx(0.006)
    assert "2 seeds are too few" in markdown(found)
    read, before = list(clock), {path: path.stat().st_mtime_ns for path in (tmp_path / "c").rglob("params.npz")}
    again = rnnjax.compare(config, ["rnn", "gru"], tmp_path / "c", seeds=2, match="time")
    assert again == found and clock == read and len(before) == 4
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "c").rglob("params.npz")}
    stopped = type("Stop", (), {"requested": True})
    assert rnnjax.compare(config, ["rnn", "gru"], tmp_path / "c", seeds=3, match="time", stop=stopped) is None


def test_what_is_refused_writes_nothing(tmp_path, clock):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("x")
    for models, where, how, said in (
        ("rnn,gru", "other", {}, "which is not of this program"),
        ("rnn,lsmt", "new", {}, "did you mean 'lstm'"),
        ("rnn,gru", "new", {"seeds": 0}, "seeds=0; allowed: 1 or more"),
        ("rnn,gru", "new", {"match": "speed"}, "unknown match 'speed'"),
    ):
        with pytest.raises((BadSetting, runs.RunRefused), match=said):
            rnnjax.compare(TINY, models.split(","), tmp_path / where, **how)
    assert [path.name for path in tmp_path.rglob("*")] == ["other", "mine.txt"] and not clock


@pytest.mark.slow
def test_a_step_is_timed(monkeypatch):
    monkeypatch.setattr(timing, "LEAST_SECONDS", 0)
    found = timing.time_a_step(dataclasses.replace(TINY, hidden_size=2))
    assert 0 < found.low <= found.seconds <= found.high < 1
