"""One page on many runs: what each cell reached, how surely, with which setting, and where its gradient went.

    python experiments/report.py --runs=runs/s1 --out=runs/s1/report

Reads run directories, or what lies in a sweep or any other parent of them, and writes index.html (one file that loads
nothing), settings.csv (a line for each setting: runs that differ in the seed alone) and runs.csv.
"""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from command_line import BadSetting, define_path, define_paths, main_with_errors

from rnnjax.figures import plotting, setting_plots
from rnnjax.figures.plot_style import cell_color
from rnnjax.intervals import median, quantile, told_apart, wilson_interval
from rnnjax.reports.html_page import escape, figures_html, page_html, table_html
from rnnjax.runs import EXIT_DONE, check_own_directory, own_directory, write_file
from rnnjax.runs.read import RunData, diverged_at, group_by_setting, read_run, recorded_reach

PROBLEM = ("task", "variant", "seq_len", "min_seq_len", "text_path")  # runs that differ in these are never compared
NEEDED = ("score_name", "score", "baseline", "solved_threshold", "higher_is_better", "solved_at")


class Setting(NamedTuple):
    """Runs that differ in the seed alone, and what they reached."""

    config: dict[str, Any]
    runs: list[RunData]
    scores: list[float]  # of each run; one that is not a number counts as the worst there is
    quartiles: tuple[float, float, float]
    solved: int  # runs that met the task's threshold at some evaluation
    interval: tuple[float, float]  # 95 % of the success rate
    solved_at: float | None  # median step, of those that solved it
    reach: float | None  # median gradient reach of the last evaluation
    seconds: float | None  # median of a run
    steps_per_second: float | None  # likewise
    diverged: int  # runs


def write_report(paths: Sequence[str], out: str) -> Path:
    """Writes the page and the tables into the directory `out`; returns the page's path.

    Raises ValueError, in one line, where there is no finished run to report on or a file is damaged.
    """
    finished, unfinished = find_runs(paths)
    out = check_own_directory(out, "report")
    problems: dict[tuple, list[RunData]] = {}
    for run in finished:
        problems.setdefault(tuple(run.config.get(name) for name in PROBLEM), []).append(run)
    tables = [[summarise(group) for group in group_by_setting(runs)] for runs in problems.values()]
    page = _page(tables, finished, unfinished, paths)
    own_directory(out, "report")
    write_file(out / "settings.csv", settings_csv(tables))
    write_file(out / "runs.csv", runs_csv(finished))
    write_file(out / "index.html", page)
    return out / "index.html"


def find_runs(paths: Sequence[str]) -> tuple[list[RunData], list[Path]]:
    """The finished runs in these directories or below them, and where the unfinished ones are."""
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise ValueError(f"{path} is not a directory; allowed: a run directory, or a parent of some")
        if (path / "config.json").is_file() and not (path / "trials").is_dir():
            inside = [path]
        else:
            below = [file.parent for file in path.glob("**/config.json") if file.parent != path]
            inside = sorted(run for run in below if run.parent.name != "buckets")  # a sweep's own, while it goes on
        if not inside:
            raise ValueError(f"{path} holds no run: there is no config.json in it or below")
        found |= dict.fromkeys(inside)
    unfinished = [path for path in found if not (path / "result.json").is_file()]
    runs = [read_run(path) for path in found if path not in unfinished]
    if not runs:
        raise ValueError(
            f"{unfinished[0] / 'result.json'} is missing; {len(unfinished)} of {len(found)} runs unfinished"
        )
    for run in runs:
        if missing := [name for name in NEEDED if name not in run.result]:
            raise ValueError(f"{run.path / 'result.json'} is damaged: it holds no {missing[0]!r}")
        if not run.rows:
            raise ValueError(f"{run.path / 'metrics.jsonl'} holds no evaluations")
    return runs, unfinished


def summarise(runs: list[RunData]) -> Setting:
    """What the runs of one setting reached."""
    results = [run.result for run in runs]
    worst = -math.inf if results[0]["higher_is_better"] else math.inf
    scores = [worst if r["score"] is None or math.isnan(r["score"]) else float(r["score"]) for r in results]
    solved = [r["solved_at"] for r in results if r["solved_at"] is not None]
    return Setting(
        runs[0].config,
        runs,
        scores,
        tuple(quantile(scores, q) for q in (0.25, 0.5, 0.75)),
        len(solved),
        wilson_interval(len(solved), len(runs)),
        _median(solved),
        _median([recorded_reach(r) for r in results]),
        _median([r.get("seconds") for r in results]),
        _median([r.get("steps_per_second") for r in results]),
        sum(diverged_at(run) is not None for run in runs),
    )


def best_settings(settings: Sequence[Setting]) -> list[Setting]:
    """For each cell, the setting with the best median score; the best cell first."""
    best: dict[str, Setting] = {}
    for setting in settings:
        cell = setting.config["cell"]
        if cell not in best or _rank(setting) < _rank(best[cell]):
            best[cell] = setting
    return sorted(best.values(), key=_rank)


def settings_csv(tables: Sequence[Sequence[Setting]]) -> str:
    """A line for each setting: its whole config without the seed, and what its runs reached."""
    rows = []
    for settings in tables:
        best = best_settings(settings)
        for s in settings:
            rows.append(
                {name: value for name, value in s.config.items() if name != "seed"}
                | {"seeds": len(s.runs), "score_name": s.runs[0].result["score_name"]}
                | dict(zip(("score_q1", "score_median", "score_q3"), s.quartiles, strict=True))
                | {"baseline": s.runs[0].result["baseline"], "solved": s.solved, "success_rate": s.solved / len(s.runs)}
                | dict(zip(("success_low", "success_high"), s.interval, strict=True))
                | {"median_solved_at": s.solved_at, "median_gradient_reach": s.reach, "diverged": s.diverged}
                | {"median_seconds": s.seconds, "median_steps_per_second": s.steps_per_second}
                | {"best_of_cell": any(s is other for other in best)}
            )
    return _csv(rows)


def runs_csv(runs: Sequence[RunData]) -> str:
    """A line for each run: its directory, config and result."""
    scores = [{n: v for n, v in run.result.items() if not isinstance(v, dict)} for run in runs]
    return _csv([{"run": str(run.path)} | run.config | row for run, row in zip(runs, scores, strict=True)])


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
    varied = _varied([s.config for s in settings], without=("cell", "seed", *PROBLEM))
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
    numbers = {n: {s.config[n] for s in settings} for n in varied if _is_number(settings, n)}
    if 1 < len(numbers.get("lr", ())) <= setting_plots.MAX_COLUMNS:
        figures.append(
            ("Learning rate and cell: median score, and how many seeds solved it", _lr_map(settings, best, name))
        )
    for n in (n for n, values in numbers.items() if len(values) > setting_plots.MAX_COLUMNS):
        caption = f"{n}: median score of each setting; full where a seed solved the task"
        figures.append((caption, _scatter(settings, best, n, name)))
    parts.append(figures_html(figures))
    parts.append(_gradient_maps(best))
    if len(settings) > len(best):
        ordered = sorted(settings, key=lambda s: (s.config["cell"], _rank(s)))
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
                top = min(here, key=_rank)
                values[i, j] = top.quartiles[1]
                texts[i][j] = f"{_number(top.quartiles[1])}\n{top.solved}/{len(top.runs)}"
    lower = not settings[0].runs[0].result["higher_is_better"]
    columns = [_number(rate) for rate in rates]
    options = {"column_label": "learning rate", "label": f"median {name}", "lower_is_better": lower}
    return lambda **o: setting_plots.heat_map(values, texts, cells, columns, **options, **o)


def _scatter(settings, best, varied, name):
    """The figure of every setting's median against the number `varied`, of which a random search drew many."""
    points = {}
    for cell in (s.config["cell"] for s in best):
        of_cell = [s for s in settings if s.config["cell"] == cell]
        points[cell] = zip(*((s.config[varied], s.quartiles[1], s.solved > 0) for s in of_cell), strict=True)
    points = {cell: tuple(columns) for cell, columns in points.items()}
    return lambda **o: setting_plots.score_scatter(points, column_label=varied, label=f"median {name}", **o)


def _is_number(settings, name):
    return all(type(s.config[name]) in (int, float) for s in settings)


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
    varied = _varied([run.config for run in runs])
    rows = [[escape(name), _tally([run.config.get(name) for run in runs])] for name in varied]
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
    variant = f" ({config['variant']})" if config.get("variant") else ""
    lengths = f"{config['min_seq_len']} to {config['seq_len']}" if config.get("min_seq_len") else config["seq_len"]
    text = f", {config['text_path']}" if config.get("text_path") else ""
    return f"{config['task']}{variant}, T = {lengths}{text}"


def _varied(configs, without=()):
    return [n for n in configs[0] if n not in without and any(c.get(n) != configs[0][n] for c in configs)]


def _rank(setting):
    middle = setting.quartiles[1]
    return -middle if setting.runs[0].result["higher_is_better"] else middle


def _median(values):
    values = [value for value in values if value is not None]
    return median(values) if values else None


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


def _csv(rows):
    buffer = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        # A spreadsheet takes a text that starts like this for a formula.
        writer.writerow({n: "'" + v if isinstance(v, str) and v[:1] in "=+-@" else v for n, v in row.items()})
    return buffer.getvalue().encode("utf-8", "backslashreplace").decode()  # of a path that is not UTF-8


HOW_TO_READ = """<p class="note">Scores are those of the last evaluation, on validation data: the median over seeds,
with quartiles in brackets. The success rate has its 95 % Wilson interval. A cell's best setting was chosen by the very
scores shown, which flatters it where many were tried. Gradient reach: how many steps back |dL/dh<sub>t</sub>| stays
above 1/1000 of its last value, rms over the training batches since the evaluation before. "At step", reach, time and
steps/s are medians too.</p>"""


def main(_) -> int:
    if not RUNS.value:
        raise BadSetting("--runs is missing; allowed: run or sweep directories, such as --runs=runs/s1,runs/x")
    if not OUT.value:
        raise BadSetting("--out is missing; allowed: a directory for the page, such as --out=runs/s1/report")
    try:
        page = write_report(RUNS.value, OUT.value)
    except ValueError as error:
        raise BadSetting(str(error)) from error
    print(f"wrote {page}, {page.parent / 'settings.csv'} and {page.parent / 'runs.csv'}")
    return EXIT_DONE


if __name__ == "__main__":
    RUNS = define_paths("runs", "run directories, sweeps or parents of them, separated by commas")
    OUT = define_path("out", None, "the directory to write index.html, settings.csv and runs.csv into")
    main_with_errors(main)
