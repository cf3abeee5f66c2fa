"""One page on many runs: what each cell reached, how surely, with which setting, and where its gradient went."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rnnjax.figures import length_plots, plotting, setting_plots
from rnnjax.figures.plot_style import cell_color
from rnnjax.intervals import told_apart
from rnnjax.reports.html_page import escape, figures_html, page_html, table_html
from rnnjax.reports.settings import (
    best_settings,
    find_runs,
    group_by_problem,
    rank,
    runs_csv,
    settings_csv,
)
from rnnjax.runs import check_own_directory, own_directory, write_file
from rnnjax.runs.read import varied_settings


def write_report(paths: Sequence[str], out: str) -> Path:
    """Writes the page and the tables into the directory `out`; returns the page's path.

    Raises ValueError, in one line, where there is no finished run to report on or a file is damaged.
    """
    finished, unfinished = find_runs(paths)
    out = check_own_directory(out, "report")
    tables = group_by_problem(finished)
    page = _page(tables, finished, unfinished, paths)
    own_directory(out, "report")
    write_file(out / "settings.csv", settings_csv(tables))
    write_file(out / "runs.csv", runs_csv(finished))
    write_file(out / "index.html", page)
    return out / "index.html"


def _page(tables, finished, unfinished, paths):
    count = f"{len(finished)} finished run{'s' * (len(finished) != 1)}"
    left_out = f"; {len(unfinished)} unfinished left out" if unfinished else ""
    body = [f"<h1>Recurrent networks: {count}</h1><p>From {escape(', '.join(map(str, paths)))}{left_out}.</p>"]
    body.append(HOW_TO_READ)
    body += [_problem(settings) for settings in tables]
    body.append(_differences(finished))
    return page_html("Recurrent networks: report", "\n".join(body))


def _problem(settings):
    best = best_settings(settings)
    varied = varied_settings([s.config for s in settings], without=("cell", "seed"))
    first = best[0].runs[0]
    lower = not first.result["higher_is_better"]
    name = first.result["score_name"].replace("_", " ")
    known = next(iter(first.result.get("references", {})), "no memory")
    known = "best predictor without memory" + (f" ({known})" if known != "no memory" else "")
    parts = [
        f"<section><h2>{escape(_title(first.config))}</h2>"
        f"<p>Score: validation {escape(name)}, {'lower' if lower else 'higher'} is better. The {known} has "
        f"{_number(first.result['baseline'])}; solved means {'at most' if lower else 'at least'} "
        f"{_number(first.result['solved_threshold'])} at some evaluation.</p>"
        "<h3>Best setting of each cell</h3>",
        _summary_table(best, varied),
        _rivals(best, settings),
    ]
    runs = [run for setting in best for run in setting.runs]
    figures = [("Learning curves of these settings", lambda **o: plotting.learning_curve(runs, **o))]
    numbers = {n: {s.config[n] for s in settings if n in s.config} for n in varied}
    numbers = {n: values for n, values in numbers.items() if all(type(v) in (int, float) for v in values)}
    if 1 < len(numbers.get("lr", ())) <= setting_plots.MAX_COLUMNS:
        figures.append(
            ("Learning rate and cell: median score, and how many seeds solved it", _lr_map(settings, best, name))
        )
    for n in (n for n, values in numbers.items() if len(values) > setting_plots.MAX_COLUMNS):
        caption = f"{n}: median score of each setting; full where a seed solved the task"
        figures.append((caption, _scatter(settings, best, n, name)))
    if length_plots.has_lengths(runs):
        caption = "Score by length of the test sequences, for these settings"
        figures.append((caption, lambda **o: length_plots.score_by_length(runs, **o)))
    parts.append(figures_html(figures))
    parts.append(_gradient_maps(best))
    if len(settings) > len(best):
        ordered = sorted(settings, key=lambda s: (s.config["cell"], rank(s)))
        parts.append(
            f"<details><summary>All {len(settings)} settings</summary>{_summary_table(ordered, varied)}</details>"
        )
    return "".join(parts) + "</section>"


def _summary_table(settings, varied):
    """A row for each setting, with a column for each of the `varied` fields."""
    header = ["cell", *varied, "score", "solved", "at step", "gradient reach", "time a run", "steps/s"]
    rows = []
    for s in settings:
        low, middle, high = map(_number, s.quartiles)
        score = f"<b>{middle}</b>" + (f" [{low} to {high}]" if len(s.runs) > 1 else "")
        rate = f"{s.solved}/{len(s.runs)} [{s.interval[0]:.0%} to {s.interval[1]:.0%}]"
        diverged = f", {s.diverged} diverged" if s.diverged else ""
        swatch = f"<i style='background:{cell_color(s.config['cell'])}'></i>"
        cells = [swatch + escape(s.config["cell"]), *(escape(_number(s.config.get(n))) for n in varied), score]
        cells += [rate + diverged, _number(s.solved_at), _reach(s.reach), _duration(s.seconds)]
        rows.append([*cells, _number(s.steps_per_second)])
    return table_html(header, rows)


def _rivals(best, settings):
    """A sentence on how many other settings of a cell its seeds cannot tell from the best."""
    found = []
    for top in best:
        others = [s for s in settings if s is not top and s.config["cell"] == top.config["cell"]]
        equal = sum(not told_apart(*_scores_of_common_seeds(top, other)) for other in others)
        found += [f"{equal} of the {len(others)} others of {escape(top.config['cell'])}"] if others else []
    if not found:
        return ""
    return (
        "<p>Settings that the seeds cannot tell from the best (exact sign test at 95 % over the seeds in common; fewer "
        f"than 6 seeds tell nothing apart): {', '.join(found)}.</p>"
    )


def _scores_of_common_seeds(*settings):
    scores = [{run.config.get("seed"): score for run, score in zip(s.runs, s.scores, strict=True)} for s in settings]
    return [[of_one[seed] for seed in scores[0] if all(seed in other for other in scores)] for of_one in scores]


def _lr_map(settings, best, name):
    """The figure of the best median at each cell and learning rate, whatever else was varied."""
    cells = [s.config["cell"] for s in best]
    rates = sorted({s.config["lr"] for s in settings})
    values = np.full((len(cells), len(rates)), np.nan)
    texts = [["" for _ in rates] for _ in cells]
    for i, cell in enumerate(cells):
        for j, lr in enumerate(rates):
            here = [s for s in settings if (s.config["cell"], s.config["lr"]) == (cell, lr)]
            if here:
                top = min(here, key=rank)
                values[i, j] = top.quartiles[1]
                texts[i][j] = f"{_number(top.quartiles[1])}\n{top.solved}/{len(top.runs)}"
    lower = not settings[0].runs[0].result["higher_is_better"]
    columns = [_number(rate) for rate in rates]
    options = {"column_label": "learning rate", "label": f"median {name}", "lower_is_better": lower}
    return lambda **o: setting_plots.heat_map(values, texts, cells, columns, **options, **o)


def _scatter(settings, best, varied, name):
    """The figure of every setting's median against the number `varied`, of which a random search drew many."""
    points = {}
    for cell in (s.config["cell"] for s in best if varied in s.config):  # an option is of some cells only
        of_cell = [s for s in settings if s.config["cell"] == cell]
        points[cell] = zip(*((s.config[varied], s.quartiles[1], s.solved > 0) for s in of_cell), strict=True)
    points = {cell: tuple(columns) for cell, columns in points.items()}
    return lambda **o: setting_plots.score_scatter(points, column_label=varied, label=f"median {name}", **o)


def _gradient_maps(best):
    """A map of the run with the middle score of each setting, on one colour scale."""
    flows = {}
    for setting in best:
        order = sorted(range(len(setting.runs)), key=lambda k: setting.scores[k])
        run = setting.runs[order[(len(order) - 1) // 2]]
        if run.flow:
            flows[f"{setting.config['cell']}, seed {run.config.get('seed')}"] = _over_parts(run.flow)
    if not flows:
        return ""
    limits = plotting.gradient_limits(list(flows.values()))
    figures = [(name, lambda f=flow, **o: plotting.gradient_map(f, limits=limits, **o)) for name, flow in flows.items()]
    return (
        "<h3>Where the gradient went</h3><p>|dL/dh<sub>t</sub>| over all parts of the state, for the run with the "
        "middle score of each setting above; one colour scale.</p>" + figures_html(figures)
    )


def _over_parts(flow):
    """The norm over the carry parts of each layer: "layer0.c", "layer0.h" -> "layer0"."""
    norms: dict[str, np.ndarray] = {}
    for name in flow:
        if name != "step":
            layer = name.rpartition(".")[0] or name
            norms[layer] = np.hypot(norms.get(layer, 0), flow[name])
    return {"step": flow["step"]} | norms


def _differences(runs):
    """What differs between the runs, and, folded, what they share."""
    about = [
        {"git": run.about.get("git"), "devices": run.about.get("devices")} | dict(run.about.get("versions", {}))
        for run in runs
    ]
    varied = varied_settings([run.config for run in runs])
    rows = [[escape(name), _tally([run.config[name] for run in runs if name in run.config])] for name in varied]
    made = [[escape(name), _tally([a.get(name) for a in about])] for name in about[0]]
    same = [[escape(name), escape(_number(value))] for name, value in runs[0].config.items() if name not in varied]
    table = (
        table_html(["setting", "values (and in how many runs)"], rows) if rows else "<p>None: all have one config.</p>"
    )
    return (
        f"<section><h2>What differs between the runs</h2>{table}"
        f"<details><summary>What they share</summary>{table_html(['setting', 'value'], same)}</details>"
        f"<details><summary>Versions and devices</summary>{table_html(['what', 'values'], made)}</details></section>"
    )


def _tally(values):
    texts = [_number(value) for value in values]
    distinct = sorted(set(texts), key=lambda text: (-texts.count(text), text))
    shown = ", ".join(f"{text} ({texts.count(text)})" if len(distinct) > 1 else text for text in distinct[:12])
    return escape(shown + (f" and {len(distinct) - 12} more" if len(distinct) > 12 else ""))


def _title(config):
    options = {name.removeprefix("task."): value for name, value in config.items() if name.startswith("task.")}
    shown = [f"{name} {value}" for name, value in options.items() if value is not None]
    lengths = f"{config['min_seq_len']} to {config['seq_len']}" if config.get("min_seq_len") else config["seq_len"]
    return ", ".join([str(config["task"]), *shown, f"T = {lengths}"])


def _reach(value):
    return "none, or not finite" if value is not None and math.isnan(value) else _number(value)


def _number(value):
    if value is None:
        return "–"
    if not isinstance(value, float) or not math.isfinite(value):
        return str(value)
    return str(int(value)) if value == int(value) else f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _duration(seconds):
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.2g} s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


HOW_TO_READ = """<p class="note">Scores are those of the last evaluation, on validation data: the median over seeds,
with quartiles in brackets. The success rate has its 95 % Wilson interval. A cell's best setting was chosen by the very
scores shown, which flatters it where many were tried. Gradient reach: how many steps back |dL/dh<sub>t</sub>| stays
above 1/1000 of its last value, rms over the training batches since the evaluation before. "At step", reach, time and
steps/s are medians too.</p>"""
