"""The comparison of cures: what it trains, and what it calls a help."""

import json
import math
from collections import Counter
from types import SimpleNamespace

import cures
import numpy as np
import pytest
import seeds

from rnnjax.sweeps import lanes
from rnnjax.training.config import Config
from rnnjax.training.dotted import flat_settings

INF = math.inf


def test_each_cure_has_two_networks_and_changes_nothing_else():
    assert set(Counter(pair.cure for pair in cures.PAIRS).values()) == {2}
    for pair in cures.PAIRS:
        untreated, treated = cures.trials_of(pair, Config(**cures.BASE))
        assert [trial.seed for trial in untreated] == [trial.seed for trial in treated] == list(range(seeds.SEEDS))
        for a, b in zip(untreated, treated, strict=True):
            a, b = flat_settings(a), flat_settings(b)
            assert {n for n in a if a[n] != b[n]} == set(pair.changes)


def test_a_run_that_diverged_counts_as_the_worst_whatever_it_had_reached_before(tmp_path):
    trials = [Config(seed=seed) for seed in range(4)]
    results = [(0.01, 250, None), (float("nan"), None, 7), (0.03, 500, 700), (None, None, None)]
    write_results(tmp_path, trials, results)
    found = cures.outcome(trials, tmp_path)
    assert found["scores"] == [0.01, INF, INF, INF]
    assert (found["solved"], found["diverged"]) == (1, 3)


def write_results(workdir, trials, results):
    for trial, (score, solved_at, diverged) in zip(trials, results, strict=True):
        path = lanes.trial_directory(workdir, trial)
        path.mkdir(parents=True)
        values = {
            "score": score,
            "solved_at": solved_at,
            "diverged": diverged,
            "higher_is_better": False,
            "baseline": 0.2,
        }
        (path / "result.json").write_text(json.dumps(values))


def test_the_error_ratio_of_any_two_errors_is_a_number():
    pairs = [(0.2, 0.1), (INF, INF), (INF, 0.1), (0.1, INF), (0.0, 0.0), (0.0, 0.1), (0.1, 0.0), (2.1e33, 2.1e33)]
    assert [cures.error_ratio(a, b) for a, b in pairs] == [0.5, 1.0, 0.0, INF, 1.0, INF, 0.0, 1.0]


@pytest.mark.parametrize(
    ("untreated", "treated", "helps"),
    [
        ([0.1] * 12, [0.04] * 12, "yes"),
        ([0.1] * 12, [0.04] * 10 + [0.1] * 2, "yes"),
        ([0.1] * 12, [0.04] * 9 + [0.1] * 3, "undecided"),  # as likely as not to flip with other last bits
        ([0.1] * 12, [0.1] * 9 + [0.04] * 3, "undecided"),
        ([0.1] * 12, [0.1] * 10 + [0.04] * 2, "no"),
        ([0.1] * 12, [0.09] * 12, "no"),  # surely lower, and not by enough
        ([0.1] * 12, [0.2] * 12, "no"),
        ([INF] * 12, [0.01] * 12, "yes"),
        ([INF] * 12, [INF] * 12, "no"),
        ([0.1] * 12, [INF] * 12, "no"),
        ([INF] * 10 + [0.1] * 2, [INF] * 3 + [0.01] * 9, "undecided"),
        ([0.1] * 5, [0.01] * 5, "undecided"),  # too few seeds for any verdict
    ],
)
def test_a_cure_helps_or_does_not_only_where_the_interval_says_so(untreated, treated, helps):
    for order in (slice(None), slice(None, None, -1)):
        found = cures.compare(*(outcome_of(scores[order]) for scores in (untreated, treated)))
        assert found["helps"] == helps
    line = cures.table([{"cure": "x", "network": "y", "steps": 5} | found]).splitlines()[-1]
    assert line.startswith("| x | y | 5 |") and line.endswith(f" | {helps} |") and "nan" not in line


def test_a_cure_that_does_nothing_is_seldom_called_a_help_and_a_strong_one_always():
    rng = np.random.default_rng(0)
    errors = 0.1 * rng.lognormal(sigma=0.5, size=(500, 2, 12))
    for factor, share_of_yes in ((1.0, (0, 0.025)), (cures.WORTH, (0.005, 0.04)), (0.2, (0.99, 1))):
        verdicts = [cures.compare(outcome_of(a), outcome_of(factor * b))["helps"] for a, b in errors]
        assert share_of_yes[0] <= verdicts.count("yes") / 500 <= share_of_yes[1]


def outcome_of(scores):
    return {"scores": list(scores), "solved": 0, "diverged": sum(map(math.isinf, scores)), "baseline": 0.2}


@pytest.mark.slow
def test_the_whole_program_on_tiny_networks(tmp_path, monkeypatch):
    """Trains and tells, and says that 3 seeds are too few."""
    monkeypatch.setattr(seeds, "SEEDS", 3)
    small = {"steps": 2, "eval_every": 1, "eval_batch": 4, "hidden_size": 2, "batch_size": 2, "seq_len": 4}
    monkeypatch.setattr(cures, "BASE", {"task": "adding"} | small)
    monkeypatch.setattr(cures, "PAIRS", [cures.Pair("clip", "tanh", {"cell": "rnn"}, {"clip": 0.1})])
    monkeypatch.setattr(cures, "WORKDIR", SimpleNamespace(value=str(tmp_path)), raising=False)
    assert cures.main(None) == 0
    table = (tmp_path / "cures.md").read_text()
    assert "too few for an interval" in table and table.rstrip().endswith("[-inf, inf] | undecided |")
    (row,) = json.loads((tmp_path / "cures.json").read_text())
    assert len(row["ratios"]) == 3 and row["helps"] == "undecided" and row["interval"] == [None, None]
    assert (tmp_path / "cures.png").stat().st_size and (tmp_path / "cures_dark.png").stat().st_size
