"""What run directories say, as arrays: configs, scores over training, gradient flow. Nothing in them is executed."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rnnjax.intervals import quantile
from rnnjax.runs import load_arrays, read_config, read_result, read_rows
from rnnjax.runs.identity import by_name


class RunData(NamedTuple):
    """What a run directory says."""

    path: Path
    config: dict[str, Any]  # setting -> value, as resolved; options by names such as cell.gain
    rows: list[dict[str, Any]]  # one evaluation each
    flow: dict[str, np.ndarray]  # "step" [E], and |dL/dh_t| [E, T] for each layer and carry part; {} if not recorded
    result: dict[str, Any]  # {} while the run is not finished
    about: dict[str, Any]  # versions, devices, git


def read_run(path: str | os.PathLike) -> RunData:
    """Reads a run directory; nothing in it is executed.

    Raises ValueError with one line that names the file, where it is missing or not what it should be.
    """
    path = Path(path)
    for name in ("config.json", "metrics.jsonl"):
        if not (path / name).is_file():
            raise ValueError(f"{path / name} is missing; a run directory holds config.json and metrics.jsonl")
    about = read_config(path)
    result = read_result(path) or {}
    has_flow = (path / "gradient_flow.npz").exists()
    flow = load_arrays(path / "gradient_flow.npz") if has_flow else {}
    if has_flow and "step" not in flow:
        raise ValueError(f"{path / 'gradient_flow.npz'} is damaged: it holds no 'step'")
    flow = flow if len(flow) > 1 else {}  # steps alone: of a gradient that is not recorded
    return RunData(path, by_name(about.pop("config")), read_rows(path), flow, result, about)


def group_by_setting(runs: Sequence[RunData]) -> list[list[RunData]]:
    """Runs that differ in nothing but the seed, together, in the order of the first of each: of one config, and made
    from the same sources of a user's own."""
    groups: dict[str, list[RunData]] = {}
    for run in runs:
        setting = {name: value for name, value in run.config.items() if name != "seed"}
        sources = {name: source.get("sha256") for name, source in run.about.get("sources", {}).items()}
        groups.setdefault(json.dumps([setting, sources], sort_keys=True), []).append(run)
    return list(groups.values())


def setting_labels(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The cell of each setting, and beside it the fields in which settings of one cell differ."""
    labels = []
    for config in configs:
        same_cell = [other for other in configs if other.get("cell") == config.get("cell")]
        varied = [n for n in varied_settings(same_cell, without=("cell", "seed")) if n in config]
        labels.append(" ".join([str(config.get("cell")), *(f"{n}={_value(config[n])}" for n in varied)]))
    return labels


def varied_settings(configs: Sequence[Mapping[str, Any]], without: Sequence[str] = ()) -> list[str]:
    """The settings in which the configs differ; in an option, those configs that have it."""
    names = [name for name in {name: None for config in configs for name in config} if name not in without]
    values = {n: [c.get(n) for c in configs if n in c or "." not in n] for n in names}
    return [name for name in names if any(value != values[name][0] for value in values[name])]


def score_over_time(runs: Sequence[RunData], name: str, worst: float = np.inf) -> tuple[np.ndarray, np.ndarray]:
    """The training steps of any run's evaluations `[E]`, and each run's score at them `[S, E]`: NaN before its first,
    and its last one kept after the run's end. A score that is not finite is `worst`."""
    columns = []
    for run in runs:
        if not run.rows:
            raise ValueError(f"{run.path / 'metrics.jsonl'} holds no evaluations yet")
        try:
            columns.append(np.array([[row["step"], row[f"eval_{name}"]] for row in run.rows], dtype=float))
        except KeyError as error:
            raise ValueError(f"{run.path / 'metrics.jsonl'} has a row without {error}") from None
        except (TypeError, ValueError):
            raise ValueError(f"{run.path / 'metrics.jsonl'} is damaged: a score is not a number") from None
    steps = np.unique(np.concatenate([column[:, 0] for column in columns]))
    scores = np.full((len(runs), len(steps)), np.nan)
    for score, column in zip(scores, columns, strict=True):
        index = np.searchsorted(column[:, 0], steps, side="right") - 1
        score[index >= 0] = np.where(np.isfinite(column[:, 1]), column[:, 1], worst)[index[index >= 0]]
    return steps, scores


def quartiles(values: np.ndarray) -> np.ndarray:
    """The three quartiles `[3, E]` over the first axis of values `[S, E]`; NaN is no value, and infinite ones count."""
    columns = [[value for value in column if not np.isnan(value)] for column in np.asarray(values, float).T]
    return np.array([[quantile(c, q) if c else np.nan for c in columns] for q in (0.25, 0.5, 0.75)])


def diverged_at(run: RunData) -> int | None:
    """The training step at which something was not finite, None if all was."""
    steps = [row.get("diverged", -1) for row in run.rows[-1:]]
    return int(steps[0]) if steps and steps[0] is not None and steps[0] >= 0 else None


def recorded_reach(result: Mapping[str, Any]) -> float | None:
    """The gradient reach that a result.json holds: NaN where its gradient had none, None where none was recorded."""
    return float("nan") if result.get("gradient_fault") else result.get("gradient_reach")


def _value(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)
