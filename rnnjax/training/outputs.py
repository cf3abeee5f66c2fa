"""What a run leaves in its directory besides config, metrics and checkpoints: the same for a single run and a trial."""

import dataclasses
import math
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rnnjax import runs
from rnnjax.diagnostics.gradient_flow import gradient_fault, gradient_reach, total_norm
from rnnjax.engine.steps import layer_names
from rnnjax.figures import length_plots, plotting, task_plots
from rnnjax.keys import Purpose, purpose_key
from rnnjax.runs.files import printable
from rnnjax.runs.identity import Settings
from rnnjax.runs.read import read_run
from rnnjax.runs.sources import Source, source_of, source_of_data
from rnnjax.tasks import DATA
from rnnjax.training import BLAME, Train
from rnnjax.training.config import (
    OWNERS,
    Config,
    factory_of,
    known_options,
    resolved_options,
    task_arguments,
)
from rnnjax.training.dotted import default_settings
from rnnjax.training.lengths import scores_by_length
from rnnjax.training.own_files import is_own, recorded_name, short_name
from rnnjax.training.own_files import source as own_source
from rnnjax.types import Report, Task


def metrics_row(record: dict[str, Any]) -> dict[str, Any]:
    """One line of metrics.jsonl from what a chunk of training returns."""
    row: dict[str, Any] = {"step": int(record["step"])}
    for name, value in record.items():
        if name not in ("step", "flow", "diverged", "blame"):
            row[name] = float(value)
    row["diverged"] = int(record["diverged"])
    row["blame"] = BLAME[int(record["blame"])]
    return row


def flow_row(record: dict[str, Any], bidirectional: bool = False) -> dict[str, np.ndarray]:
    """|dL/dh_t| `[T]` by name, such as `layer0.c` or `layer1.backward.h`, with the step; {} if none was recorded."""
    flow = record["flow"]
    if not flow:
        return {}
    norms = map(np.asarray, jax.tree.leaves(flow))
    return {"step": np.asarray(record["step"])} | dict(zip(layer_names(flow, bidirectional), norms, strict=True))


def stack_rows(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Rows of `flow_row` as the arrays of gradient_flow.npz: step `[E]`, the rest `[E, T]`; {} of empty ones."""
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]} if rows else {}


def unstack_rows(arrays: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """The inverse of `stack_rows`."""
    return [{name: array[k] for name, array in arrays.items()} for k in range(len(arrays["step"]))] if arrays else []


def summary(config: Config, train: Train, rows: list[dict], flow: dict[str, np.ndarray], seconds: float) -> dict:
    """The contents of result.json."""
    task = train.task
    scores = [row[f"eval_{task.score}"] for row in rows]
    met = [s >= task.solved if task.higher_is_better else s <= task.solved for s in scores]
    solved_at = next((row["step"] for row, ok in zip(rows, met, strict=True) if ok), None)
    result = {
        "task": short_name(config.task),
        "cell": short_name(config.cell),
        "seed": config.seed,
        "score_name": task.score,
        "score": scores[-1],
        "baseline": float(task.baseline),
        "solved_threshold": float(task.solved),
        "higher_is_better": task.higher_is_better,
        "references": references(task),
        "solved_at": solved_at,
        "gradient_reach": None,
        "gradient_fault": None,
        "sequence_steps": None,
        "diverged": rows[-1]["diverged"] if rows[-1]["diverged"] >= 0 else None,
        "blame": rows[-1]["blame"],
        "seconds": round(seconds, 2),
        "steps_per_second": round(rows[-1]["step"] / seconds, 1) if seconds else None,
    }
    of_first = "layer0.forward." if any(name.startswith("layer0.forward.") for name in flow) else "layer0."
    first_layer = [array[-1] for name, array in flow.items() if name.startswith(of_first)]
    if first_layer:
        profile = total_norm([jnp.asarray(norm) for norm in first_layer])
        fault = gradient_fault(profile)
        result |= {"gradient_reach": None if fault else int(gradient_reach(profile)), "gradient_fault": fault}
        result["sequence_steps"] = len(first_layer[0])
    return result


def references(task: Task) -> dict[str, float]:
    """Scores to compare with, by what to call them, the best without memory first."""
    found = task.references() if task.references else {"no memory": task.baseline, "solved": task.solved}
    return {name: float(value) for name, value in found.items()}


def finish(
    run: runs.Run | None, config: Config, train: Train, params: Any, rows: list[dict], flow: dict, seconds: float
) -> dict[str, Any]:
    """The result of a run, with its task's report; in `run`, if any, with parameters and figures.

    Raises RunFailed where something fails once the parameters and the result of training are on disk.
    """
    if run is None:
        result = summary(config, train, rows, flow, seconds) | report_numbers(
            task_report(config, train, params), [], []
        )
        return result | by_length(config, train, params) | {"stopped": None, "complete": True}
    write_trained(run, config, train, params, flow, seconds)
    return complete_result(run, config, train, params, figures=True)


def write_trained(
    run: runs.Run, config: Config, train: Train, params: Any, flow: dict, seconds: float, stopped: str | None = None
) -> None:
    """All that a run has once it is trained, before anything that may fail: params.npz, and a result.json that is not
    yet `complete`. `stopped` says why a run ended before its steps."""
    runs.save_params(run, params)
    result = summary(config, train, runs.read_rows(run.path), flow, seconds)
    runs.write_json(run.path / "result.json", result | {"stopped": stopped, "complete": False})


def complete_result(run: runs.Run, config: Config, train: Train, params: Any, figures: bool = False) -> dict[str, Any]:
    """What follows training: the task's report, and figures; then `complete` becomes true."""
    result, doing = runs.read_result(run.path), f"the report of task {config.task!r}"
    try:
        result |= write_report(run, config, train, params, figures)
        doing = f"its scores at eval_lengths={config.eval_lengths!r}"
        result |= by_length(config, train, params)
        doing = "its figures"
        if figures:
            plotting.learning_curve([run.path], run.path / "learning_curve.png")
            if (run.path / "gradient_flow.npz").exists():
                plotting.gradient_map(run.path, run.path / "gradient_map.png")
            if "lengths" in result:
                data = read_run(run.path)._replace(result=result)
                length_plots.score_by_length([data], run.path / "score_by_length.png")
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise runs.RunFailed(
            f"{run.path} is trained and holds params.npz, metrics.jsonl and result.json, but {doing} failed "
            f"({reason}); the same command goes on from there"
        ) from error
    runs.write_json(run.path / "result.json", result | {"complete": True})
    return result | {"complete": True}


def by_length(config: Config, train: Train, params: Any) -> dict[str, Any]:
    """What `config.eval_lengths` bring to the result: `lengths`, the scores by length; nothing without them."""
    return {"lengths": scores_by_length(config, train, params)} if config.eval_lengths else {}


def write_report(run: runs.Run, config: Config, train: Train, params: Any, figures: bool = False) -> dict[str, Any]:
    """Writes the files of the task's report, if it makes one, and its plots where `figures` are wanted; returns what
    goes into the result."""
    report = task_report(config, train, params)
    if report is None:
        return {}
    for name, text in report.files.items():
        runs.write_file(run.path / runs.check_report_file(name), text)
    plots = {runs.check_plot_file(f"{name}.png"): plot for name, plot in report.plots.items()} if figures else {}
    for name, plot in plots.items():
        task_plots.draw(plot, run.path / name)
    return report_numbers(report, list(report.files), list(plots))


def task_report(config: Config, train: Train, params: Any) -> Report | None:
    """What the task says of a trained model beside its score; None where it makes no report."""
    if train.task.report is None:
        return None
    return train.task.report(train.model, params, purpose_key(Purpose.WRITING, config.seed))


def report_numbers(report: Report | None, files: list[str], figures: list[str]) -> dict[str, Any]:
    """What a report brings to the result: its numbers, and `report`, the line, the files and the figures to show."""
    if report is None:
        return {}
    shown: dict[str, Any] = {"summary": report.summary, "files": files} | ({"figures": figures} if figures else {})
    return report.numbers | {"report": shown}


def report_lines(result: dict[str, Any], path: Path) -> list[str]:
    """What the task's report has to say of a finished run in this directory, fit for a terminal; none without one."""
    report = result.get("report")
    if not report:
        return []
    texts = [path / name for name in report["files"] if name.endswith(".txt")]
    return [for_terminal(report["summary"]), *(for_terminal(text.read_text(encoding="utf-8")) for text in texts)]


def for_terminal(text: str) -> str:
    """The lines of a text, with an escape for whatever else a terminal would act on: a model may write anything."""
    return "\n".join(printable(line) for line in text.split("\n"))


def config_dict(config: Config) -> Settings:
    """The config as config.json holds it: all fields, and all options as they are resolved."""
    options = {f"{kind}_options": resolved_options(config, kind) for kind in OWNERS}
    names = {kind: short_name(getattr(config, kind)) for kind in OWNERS}
    return Settings(dataclasses.asdict(config) | names | options, default_settings(config))


def sources(config: Config) -> dict[str, Source]:
    """What a run computes from beside its config, as it is now: the files of its own cell and task, and its data."""
    found = {}
    for kind in OWNERS:
        name, factory = getattr(config, kind), factory_of(config, kind)
        if (own := own_source(name) if is_own(name) else source_of(factory)) is not None:
            found[f"{kind} {short_name(name)!r}"] = own
    for kind in OWNERS:
        paths = [name for name, option in known_options(config, kind).items() if option.is_path]
        for name in paths if getattr(config, kind) not in DATA else ():
            if (path := resolved_options(config, kind).get(name)) is not None:
                found[f"the file of {kind}.{name}"] = source_of_data(path)
    if config.task in DATA:
        name, file, sha256 = DATA[config.task](**task_arguments(config))
        found[name] = source_of_data(file) if sha256 is None else Source(file, sha256, {})
    return found


def trained_config(workdir: str | os.PathLike, own_file: str | os.PathLike | None = None) -> Config:
    """The config of a run directory whose parameters are to be read, not yet checked.

    The file of a user's own cell or task is run: the recorded one or `own_file`, if it has the recorded text.

    Raises RunRefused, in one line that names the file, where it is damaged or of another version of this program,
    where its cell or task is a user's own that --config would define, or where it was made from other sources than now.
    """
    record = runs.read_config(workdir)
    settings, recorded = dict(record["config"]), record.get("sources", {})
    for kind, table in OWNERS.items():
        if isinstance(name := settings.get(kind), str) and name not in table and ":" in name:
            settings[kind] = recorded_name(workdir, kind, name, recorded.get(f"{kind} {name!r}", {}), own_file)
    try:
        config = Config(**settings)
    except TypeError as error:
        raise runs.RunRefused(f"{workdir}/config.json is of another version of this program: {error}") from None
    for kind, table in OWNERS.items():
        name = f"{kind} {getattr(config, kind)!r}"
        if getattr(config, kind) not in table and not is_own(getattr(config, kind)):
            file = recorded.get(name, {}).get("file", "FILE")
            raise runs.RunRefused(
                f"{workdir} is of {name}, which is not in the library: add --config={file}, the file that defines it"
            )
    runs.check_sources(workdir, sources(config))
    return config


def plain_numbers(value: Any) -> Any:
    """For JSON: arrays as lists of six digits, what is not finite as null."""
    if isinstance(value, dict):
        return {str(name): plain_numbers(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain_numbers(v) for v in value]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return plain_numbers(np.asarray(value).tolist())
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
