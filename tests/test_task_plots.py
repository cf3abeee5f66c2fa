"""What a task asks to be drawn: read off matplotlib's own objects, published with the run and removed with it."""

import csv
import dataclasses
import io
import re

import numpy as np
import pytest
from forecast import as_csv

import rnnjax
from rnnjax import runs
from rnnjax.figures.task_plots import draw, forecast_plot
from rnnjax.plots import Line, Plot
from rnnjax.tasks import TASKS, adding
from rnnjax.types import Forecast, Report

X = np.arange(6)
GAP = np.array([1.0, 2.0, np.nan, 2.0, 3.0, 4.0])
PLOT = Plot(
    "a_title $x$",
    "day",
    "sales",
    (
        Line("truth", X, X * 2.0, "truth"),
        Line("network", X, GAP, low=GAP - 1, high=GAP + 2),
        Line("naive", X, X * 0.5, "reference"),
    ),
    spans=(("validation", 0, 3), ("test", 3, 5)),
    x_ticks=tuple((float(x), f"May {x}") for x in X),
)


@pytest.mark.parametrize("dark", [False, True])
def test_a_plot_is_drawn_as_it_is_said(dark, tmp_path):
    figure = draw(PLOT, tmp_path / "forecast.png", dark)
    axes = figure.axes[0]
    drawn = {line.get_label(): line for line in axes.lines}
    for line in PLOT.lines:
        np.testing.assert_array_equal(drawn[line.label].get_ydata(), line.y)
    assert drawn["naive"].get_linestyle() == "--" and drawn["truth"].get_linestyle() == "-"
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == 4 and band[:, 1].min() == 0  # of the first piece, before the gap
    assert [text.get_text() for text in axes.texts] == ["validation", "test"]
    assert [text.get_text() for text in axes.get_xticklabels()] == [f"May {x}" for x in X]
    assert (tmp_path / "forecast.png").stat().st_size > 5000
    assert draw(PLOT._replace(log_y=True)).axes[0].get_yscale() == "log"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"lines": ()}, "has no lines"),
        ({"lines": (Line("a", X, X[:3]),)}, r"line 'a' has x, y, low and high of the shapes \(6,\), \(3,\)"),
        ({"lines": (Line("a", X, X, "modle"),)}, "line 'a' has the role 'modle'; allowed: truth, model, reference"),
    ],
)
def test_a_plot_that_cannot_be_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        draw(PLOT._replace(**change))


FORECAST = Forecast(
    ["2020-01-04", "2020-01-05"],
    {"sales": [4.0, 5.0], "sales 0.1": [3.0, 3.5], "sales 0.9": [5.0, 7.25]},
    ["2020-01-01", "2020-01-02", "2020-01-03"],
    {"sales": [1.0, 2.0, 3.0]},
)


def test_a_forecast_goes_on_from_what_is_known_with_its_quantiles_as_a_band():
    known, expected = forecast_plot(*FORECAST).lines
    assert list(known.y) == [1, 2, 3] and known.role == "truth"
    assert list(expected.x) == [2, 3, 4] and list(expected.y) == [3, 4, 5]
    assert list(expected.low) == [3, 3, 3.5] and list(expected.high) == [3, 5, 7.25]
    assert [name for _, name in forecast_plot(*FORECAST).x_ticks][-1] == "2020-01-05"
    two = FORECAST._replace(values={"a": [1.0, 2.0], "a b": [0.0, 1.0]}, past={"a": [1.0] * 3, "a b": [2.0] * 3})
    assert [line.low for line in forecast_plot(*two).lines] == [None] * 4  # "a b" is another name, no quantile


def test_a_forecast_as_csv():
    rows = list(csv.DictReader(io.StringIO(as_csv(FORECAST))))
    assert [row["time"] for row in rows] == FORECAST.times
    assert [float(row["sales 0.9"]) for row in rows] == [5, 7.25]


def test_plots_of_a_report_are_the_run_s_own_files(tmp_path, monkeypatch):
    def task(seq_len):
        report = lambda model, params, key: Report("well", {}, {"report.csv": "a\n"}, {"forecast": PLOT})  # noqa: E731
        return adding(seq_len)._replace(report=report, forecast=lambda model, params, steps, path=None: FORECAST)

    monkeypatch.setitem(TASKS, "drawn", task)
    sizes = {"hidden_size": 2, "batch_size": 2, "eval_batch": 2, "steps": 1, "eval_every": 1}
    config = rnnjax.Config(task="drawn", cell="rnn", seq_len=3, gradient_flow=False, **sizes)
    run = rnnjax.fit(config, tmp_path / "run", progress=False)
    assert run.result["report"] == {"summary": "well", "files": ["report.csv"], "figures": ["forecast.png"]}
    assert (tmp_path / "run/forecast.png").exists()
    assert run.report().plots["forecast"] is PLOT and run.forecast(2) is FORECAST
    with pytest.raises(ValueError, match="steps=0; allowed: an integer, 1 or more"):
        run.forecast(0)
    runs.remove_run(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    for name in ("config.png", "forecast.csv", "../forecast.png"):
        with pytest.raises(
            ValueError, match=f"a report's figure is called '{re.escape(name)}'; allowed: forecast, err"
        ):
            runs.check_plot_file(name)
    with pytest.raises(ValueError, match=r"task 'adding' forecasts nothing; allowed: a task with Task.forecast"):
        other = {"config": rnnjax.Config(), "train": run.train._replace(task=adding(3))}
        dataclasses.replace(run, **other).forecast(2)
