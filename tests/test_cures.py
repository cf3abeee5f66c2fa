"""The comparison of cures: what it trains, and what it calls a help."""

import json
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from experiments import cures, lanes
from rnnjax.config import Config


def test_each_cure_has_two_networks_and_changes_nothing_else():
    assert set(Counter(case.cure for case in cures.CASES).values()) == {2}
    for case in cures.CASES:
        without, treated = cures.trials_of(case, Config(**cures.BASE))
        assert [trial.seed for trial in without] == [trial.seed for trial in treated] == list(range(cures.SEEDS))
        for a, b in zip(without, treated, strict=True):
            assert {n for n in asdict(a) if asdict(a)[n] != asdict(b)[n]} == set(case.treatment)


def test_outcomes_are_read_from_results_and_a_diverged_score_is_infinite(tmp_path):
    trials = [Config(seed=seed) for seed in range(3)]
    results = [(0.01, 250, None), (float("nan"), None, 7), (0.03, 500, None)]
    for trial, (score, solved_at, diverged) in zip(trials, results, strict=True):
        path = lanes.trial_directory(tmp_path, trial)
        path.mkdir(parents=True)
        values = {"score": score, "solved_at": solved_at, "diverged": diverged, "gradient_reach": 9, "baseline": 0.2}
        (path / "result.json").write_text(json.dumps(values))
    found = cures.outcome(trials, tmp_path)
    assert found["scores"] == [0.01, float("inf"), 0.03]
    assert (found["median"], found["solved"], found["diverged"]) == (0.03, 2, 1)


@pytest.mark.parametrize(
    ("without", "treated", "helps"),
    [
        ((0.1, 0), (0.04, 0), True),
        ((0.1, 2), (0.06, 2), False),
        ((0.1, 1), (0.1, 2), True),
        ((0.1, 4), (0.2, 1), False),
    ],
)
def test_help_is_half_the_error_or_more_solved(without, treated, helps, tmp_path):
    before, after = ({"median": m, "solved": n, "diverged": 0, "scores": [m]} for m, n in (without, treated))
    assert cures.helped(before, after) == helps
    line = cures.table([{"cure": "x", "ill": "y", "steps": 5, "without": before, "treated": after}]).splitlines()[-1]
    assert line.endswith("| yes |" if helps else "| no |")
