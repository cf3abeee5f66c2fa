"""The ways through time side by side: which there are, that a wrong one is found, and the launcher."""

import csv
import math
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from rnnjax.cells import gru, lru
from rnnjax.engine.runners import RUNNERS
from rnnjax.reports import ways as module
from rnnjax.reports.ways import Subject, Way, largest_exponent, methods_of, ways, ways_table, write_ways

ROOT = Path(__file__).parents[1]


def subject(cell, T=6):
    return Subject(cell, cell.init(jax.random.key(0), 2), jax.random.normal(jax.random.key(1), (T, 2, 2)))


@pytest.fixture(autouse=True)
def measured_once(monkeypatch):
    monkeypatch.setattr(module, "median_seconds", lambda program, *arguments: 0.001)


def test_the_methods_are_those_of_the_form():
    assert {m.partition(":")[0] for m in methods_of(gru(3))} >= {"scan", "deferred"}
    assert {m.partition(":")[0] for m in methods_of(lru(3))} >= {"scan", "associative"}
    assert not {"associative", "chunked"} & {m.partition(":")[0] for m in methods_of(gru(3))}


@pytest.mark.parametrize("make", [gru, lru])
def test_all_ways_agree(make):
    found = ways(subject(make(3)))
    assert len(found) > 1 and all(way.agrees and way.values < 1e-5 and way.gradients < 1e-5 for way in found)


@pytest.mark.parametrize("wrong", ["values", "gradients"])
def test_a_wrong_way_is_found(wrong, monkeypatch):
    right = RUNNERS["scan"].run

    def broken(*args):
        carry, ys = right(*args)
        return carry, 1.01 * ys if wrong == "values" else ys + 0.01 * (ys - jax.lax.stop_gradient(ys))

    monkeypatch.setitem(RUNNERS, "deferred", RUNNERS["deferred"]._replace(run=broken))
    way = next(way for way in ways(subject(gru(3)), ["deferred"]))
    assert not way.agrees and getattr(way, wrong) > 1e-3
    assert "(too far)" in ways_table([way]) and "**" not in ways_table([way])


def test_the_quickest_that_agrees_is_bold_and_the_numbers_are_written(tmp_path):
    found = [
        Way("scan", 0.002, 2**20, 0.0, 0.0, None),
        Way("newton", 0.001, None, 1e-7, 1e-6, 7),
        Way("deferred", 0.0001, None, 0.5, 0.5, None),
    ]
    table = ways_table(found).splitlines()
    assert table[2] == "| scan | 2 | 1.0 MiB |  | 0e+00 | 0e+00 |"
    assert table[3] == "| **newton** | 1 |  | 7 | 1e-07 | 1e-06 |"
    rows = list(csv.DictReader(write_ways({"a": found}, tmp_path).open()))
    assert [row["subject"] for row in rows] == ["a"] * 3 and rows[1]["iterations"] == "7"


def test_the_exponent_of_a_linear_network_is_that_of_its_matrix():
    cell = lru(1)
    s = subject(cell, T=40)
    modulus = abs(complex(cell.weights(s.params).lam[0]))
    assert largest_exponent(s) == pytest.approx(math.log(modulus), rel=1e-4)
    assert "perturbations fade" in module.about_exponent(-0.1)
    assert "do not fade" in module.about_exponent(0.1)


def test_the_launcher_prints_a_table_and_refuses_what_cannot_be(tmp_path):
    script = [sys.executable, ROOT / "experiments" / "ways.py"]
    sizes = ["--seq_len=5,7", "--hidden_size=3", "--batch_size=2"]
    done = subprocess.run(
        [*script, "--cell=rnn", "--methods=scan", *sizes, "--out=numbers"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "rnn, T = 5" in done.stdout and "rnn, T = 7" in done.stdout
    assert len(list(csv.DictReader((tmp_path / "numbers" / "ways.csv").open()))) == 2
    wrong = subprocess.run([*script, "--cell=rnn", "--methods=associative", *sizes], cwd=tmp_path, capture_output=True)
    assert wrong.returncode == 2 and b"--methods=associative: allowed: scan, deferred" in wrong.stderr
