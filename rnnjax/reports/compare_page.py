"""The page of a comparison: table, sentences, learning curves and the score of every seed; with CSV, JSON, Markdown."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rnnjax import runs
from rnnjax.figures import compare_plots, plotting
from rnnjax.figures.plot_style import cell_color
from rnnjax.intervals import bootstrap_interval, median
from rnnjax.reports.comparison import Comparison, Row, differences, judged_on, number, rule
from rnnjax.reports.html_page import escape, figures_html, page_html, table_html
from rnnjax.reports.settings import csv_text
from rnnjax.runs.read import read_run
from rnnjax.sweeps.files import TABLES

SAME = {
    "parameters": "as many parameters as the first, as near as a whole hidden size comes",
    "width": "the hidden size of the first",
    "time": "the time of a training step of the first, as near as the clock tells",
}


def write_page(comparison: Comparison, out: str | Path) -> Path:
    """Writes index.html, compare.md, compare.csv, compare.json and the figures into `out`; returns the page's path."""
    out = runs.own_directory(out, "compare", "sweep", *TABLES)
    for name, draw in _figures(comparison).items():
        for dark in (False, True):
            draw(out=out / f"{name}{'_dark' * dark}.png", dark=dark)
    runs.write_file(out / "compare.md", markdown(comparison))
    runs.write_file(out / "compare.csv", csv_text([_numbers(comparison, row) for row in comparison.rows]))
    record = comparison._asdict() | {
        "rows": [row._asdict() for row in comparison.rows],
        "directories": [str(path) for path in comparison.directories],
        "sentences": differences(comparison),
        "rule": rule(len(comparison.rows[0].scores)),
    }
    runs.write_json(out / "compare.json", record)
    runs.write_file(out / "index.html", _page(comparison))
    return out / "index.html"


def markdown(comparison: Comparison) -> str:
    """Table, sentences and rule as Markdown, for a terminal and for a document."""
    header, *lines = table(comparison)
    parts = [f"| {' | '.join(header)} |", "|---|" + "---:|" * (len(header) - 1)]
    parts += [f"| {' | '.join(line)} |" for line in lines]
    parts += ["", f"By the scores on {judged_on(comparison)} data:"]
    sentences = "\n".join(f"- {sentence}" for sentence in differences(comparison))
    return "\n".join([*parts, "", sentences, "", rule(len(comparison.rows[0].scores)), "", notes(comparison)]) + "\n"


def table(comparison: Comparison) -> list[list[str]]:
    """The header, a row a model and a row a reference, as text; a column that says nothing is left out."""
    rows, first = comparison.rows, comparison.rows[0]
    score = comparison.score_name.replace("_", " ")
    columns: dict[str, list[str]] = {
        "model": [row.label for row in rows],
        f"validation {score}": [_over_seeds(row.scores) for row in rows],
        f"test {score}": [_over_seeds(row.tests) for row in rows],
        "solved, at step": [_solved(row) for row in rows],
        "hidden size": [str(row.hidden_size) for row in rows],
        "parameters": [_parameters(row, first) for row in rows],
        "time a step": [_time(row) for row in rows],
        "gradient reach": [_reach(row) for row in rows],
        "diverged": [f"{row.diverged} of {len(row.scores)}" for row in rows],
    }
    empty = {
        f"test {score}": all(row.tests is None for row in rows) and not comparison.test_references,
        "diverged": not any(row.diverged for row in rows),
        "gradient reach": all(row.reach is None for row in rows),
        "time a step": all(row.step is None for row in rows),
    }
    kept = [name for name in columns if not empty.get(name)]
    lines = [kept, *([columns[name][k] for name in kept] for k in range(len(rows)))]
    for name in dict.fromkeys([*comparison.references, *comparison.test_references]):
        cells = {"model": name, kept[1]: number(comparison.references.get(name))}
        cells[f"test {score}"] = number(comparison.test_references.get(name))
        lines.append([cells.get(column, "") for column in kept])
    return lines


def notes(comparison: Comparison) -> str:
    """How the table is to be read."""
    n = len(comparison.rows[0].scores)
    better = "higher" if comparison.higher_is_better else "lower"
    few = "" if n > 5 else "; of so few seeds from the lowest to the highest"
    return (
        f"Scores: {better} is better; the median over {n} seeds, in parentheses its 95 % bootstrap interval{few}. Each "
        f"model has {SAME[comparison.match]}. Time a step: of a compiled training step alone on one device of this "
        "machine, the median of a few readings, with the lowest and the highest. Gradient reach: how many steps back "
        "|dL/dh_t| stays above 1/1000 of its last value, at the end of training."
    )


def _page(comparison):
    title = f"{comparison.task}: {', '.join(row.label for row in comparison.rows)}"
    header, *lines = table(comparison)
    swatches = [f"<i style='background:{cell_color(row.cell)}'></i>" for row in comparison.rows]
    swatches += ["<i></i>"] * (len(lines) - len(swatches))
    body = [[mark + escape(line[0]), *map(escape, line[1:])] for mark, line in zip(swatches, lines, strict=True)]
    sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in differences(comparison))
    captions = {"curves": "Learning curves: median and quartiles over seeds", "scores": "The last score of every seed"}
    figures = [(captions[name], lambda d=draw, **o: d(**o)) for name, draw in _figures(comparison).items()]
    return page_html(
        title,
        f"<h1>{escape(title)}</h1>{table_html(header, body)}<p class='note'>{escape(notes(comparison))}</p>"
        f"<h2>What the seeds support</h2><p>By the scores on {judged_on(comparison)} data:</p><ul>{sentences}</ul>"
        f"<p class='note'>{escape(rule(len(comparison.rows[0].scores)))}</p>{figures_html(figures)}",
    )


def _figures(comparison):
    found = [read_run(path) for path in comparison.directories]
    points = {row.label: (row.scores, cell_color(row.cell)) for row in comparison.rows}
    label = f"validation {comparison.score_name.replace('_', ' ')}"
    options = {"label": label, "higher_is_better": comparison.higher_is_better}
    return {
        "curves": lambda **o: plotting.learning_curve(found, **o),
        "scores": lambda **o: compare_plots.scores_of_seeds(points, comparison.references, **options, **o),
    }


def _numbers(comparison: Comparison, row: Row) -> dict[str, Any]:
    """A model's line of the CSV."""
    low, high = bootstrap_interval(row.scores)
    found: dict[str, Any] = {"model": row.label, "match": comparison.match, "task": comparison.task}
    found |= {"score_name": comparison.score_name, "score": median(row.scores), "score_low": low, "score_high": high}
    found |= {f"score_seed_{seed}": score for seed, score in enumerate(row.scores)}
    found |= {f"test_seed_{seed}": score for seed, score in enumerate(row.tests or ())}
    found |= {name: getattr(row, name) for name in ("hidden_size", "parameters", "solved", "solved_at", "diverged")}
    found |= {f"step_{name}": value for name, value in (row.step._asdict() if row.step else {}).items()}
    return found | {"gradient_reach": row.reach, "sequence_steps": row.sequence_steps}


def _over_seeds(scores: Sequence[float] | None) -> str:
    if scores is None:
        return "–"
    low, high = map(number, bootstrap_interval(scores))
    middle = number(median(scores))
    return middle if low == high == middle else f"{middle} ({low} to {high})"


def _solved(row):
    at = f", {row.solved_at:g}" if row.solved_at is not None else ""
    return f"{row.solved} of {len(row.scores)}{at}"


def _parameters(row, first):
    off = row.parameters / first.parameters - 1
    return f"{row.parameters}" if row is first else f"{row.parameters} ({off:+.1%})"


def _time(row):
    if row.step is None:
        return "–"
    middle, low, high = (f"{1e3 * seconds:.3g}" for seconds in row.step)
    return f"{middle} ms ({low} to {high})"


def _reach(row):
    if row.reach is None:
        return "–"
    if math.isnan(row.reach):
        return "not finite, or none"
    whole = row.sequence_steps is not None and row.reach >= row.sequence_steps
    return f"{'>= ' if whole else ''}{row.reach:g}"
