"""Published tables as sweeps: what a place shows, that every protocol can run, and the launcher."""

import csv
import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from rnnjax.reproductions import TABLES, Place, Table, markdown, reproduce, write_table
from rnnjax.reproductions.table import steps_to_solve
from rnnjax.training import Config
from rnnjax.training.settings import checked

ROOT = Path(__file__).parents[1]
TINY = Config(seq_len=3, hidden_size=3, batch_size=2, steps=4, eval_every=2, eval_batch=4, gradient_flow=False)


@pytest.mark.parametrize("name", TABLES)
def test_every_protocol_can_run(name):
    table = TABLES[name]()
    assert all(checked(place.config) for place in table.places)
    assert len({(place.row, place.column) for place in table.places}) == len(table.places)


def test_a_place_shows_the_median_of_what_was_solved_and_the_score_of_what_was_not():
    solved = [{"solved_at": n, "score": 0.01, "steps": 1000, "diverged": None} for n in (100, 300, 1200)]
    missed = {"solved_at": None, "score": 0.1234, "steps": 1000, "diverged": None}
    lost = missed | {"score": None, "diverged": 7}
    assert steps_to_solve(solved) == "300"
    assert steps_to_solve([*solved[1:], missed]) == "750 (2 of 3)"
    assert steps_to_solve([missed]) == "not in 1,000 (0.12)"
    assert steps_to_solve([lost]) == "not in 1,000 (inf)"


def test_a_table_goes_on_where_it_stopped_and_is_written(tmp_path):
    places = [
        Place("lstm", "T = 3", TINY, "14,000", seeds=2),
        Place("gru", "T = 3", dataclasses.replace(TINY, cell="gru"), seeds=1),
    ]
    table = Table("Steps", "Nobody (2000)", "As published.", tuple(places), "a second")
    found = reproduce(table, tmp_path / "runs")
    assert len(found) == 2 and len(list((tmp_path / "runs" / "trials").iterdir())) == 3
    assert reproduce(table, tmp_path / "runs") == found
    path = write_table(table, found, tmp_path / "runs")
    assert path.read_text() == markdown(table, found)
    assert f"| lstm | {found[0]} (14,000) |\n| gru | {found[1]} |" in path.read_text()
    rows = list(csv.DictReader((tmp_path / "runs" / "table.csv").open()))
    assert [(row["cell"], row["published"], row["ours"]) for row in rows] == [
        ("lstm", "14,000", found[0]),
        ("gru", "", found[1]),
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--table=long_ading"], "--table=long_ading: allowed: long_adding, chrono"),
        (["--table=chrono", "--rows=lem", "--workdir=runs"], "--rows=lem: allowed: b_f = 1, chrono"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_written(flags, message, tmp_path):
    command = [sys.executable, ROOT / "experiments" / "reproduce.py", *flags]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr
    assert list(tmp_path.iterdir()) == []
