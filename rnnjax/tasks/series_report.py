"""What a trained network makes of a series: its errors on the whole test part beside the references, and forecasts."""

import csv
import dataclasses
import functools
import io
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rnnjax.plots import Line, Plot
from rnnjax.tasks.series_data import SeriesData, columns_of, naive_rows, origins
from rnnjax.tasks.series_references import errors, reference_forecasts, truth
from rnnjax.tasks.tables import Table, times_after
from rnnjax.types import Array, Forecast, Report

WINDOWS = 256  # that are read at a time
METRICS = ("mae", "rmse", "mase", "mae_at_horizon")
BLOCKS = 5  # forecasts in a row that the figure shows
MOST_TARGETS = 4  # with a figure of their own


@dataclasses.dataclass(frozen=True, eq=False)  # so that it can be static in `jax.jit`
class Window:
    """How a series is forecast."""

    data: SeriesData
    seq_len: int  # T, steps that are read
    horizon: int  # steps that are judged
    ahead: int  # steps that the network gives at once
    quantiles: tuple[float, ...]
    levels: bool  # whether the network reads the targets' values beside their changes

    @property
    def rows(self) -> int:
        """How many known rows a window needs: what is read, and the season before."""
        return self.seq_len + self.data.lag

    @property
    def median(self) -> int:
        """The place of the median among the quantiles."""
        return self.quantiles.index(0.5)

    def inputs(self, rows: Array) -> Array:
        """What a network reads of rows `[T + lag, ..., D]` after the first `lag`: `[T, ..., input size]`.

        These are the columns, those of the targets where `levels`; how much each target has changed since `lag` rows
        before, in the units of MASE; and since the row before, in its deviations, if that is another one.
        """
        data, lag = self.data, self.data.lag
        K = len(data.targets)
        parts = [rows[lag:] if self.levels else rows[lag:, ..., K:]]
        parts.append((rows[lag:, ..., :K] - rows[:-lag, ..., :K]) * self.unit)
        if lag > 1:
            parts.append((rows[lag:, ..., :K] - rows[lag - 1 : -1, ..., :K]) * (data.deviation[:K] / data.step))
        return jnp.concatenate(parts, axis=-1)

    @property
    def input_size(self) -> int:
        """How many numbers a network reads at a step."""
        K = len(self.data.targets)
        return len(self.data.mean) - (0 if self.levels else K) + (2 * K if self.data.lag > 1 else K)

    @property
    def unit(self) -> np.ndarray:
        """Deviations in units of MASE `[K]`."""
        return self.data.deviation[: len(self.data.targets)] / self.data.scale


def report(window: Window, model: Callable, params: Any) -> Report:
    """Errors of the median on every window of the validation and the test part, beside the references'.

    numbers: `test_mae`, `test_rmse` and `test_mase` are means over all steps ahead, `test_mae_at_horizon` is of the
    last one; `test_mae_ridge` and the like are the references', and `validation_...` are of that part.
    """
    data = window.data
    numbers: dict[str, Any] = {}
    for split in ("validation", "test"):
        where = origins(data, split, window.rows, window.horizon)
        own = predict(window, model, params, where)
        found = {"": own[..., window.median]} | reference_forecasts(data, where, window.rows, window.horizon)
        scores = {name: errors(values, data, where) for name, values in found.items()}
        for name, score in scores.items():
            score["mae_at_horizon"] = float(score["mae_by_step"][-1])
            suffix = f"_{name}".replace(" ", "_") if name else ""
            numbers |= {f"{split}_{metric}{suffix}": score[metric] for metric in METRICS}
    if len(window.quantiles) > 1:
        true = truth(data, where, window.horizon)
        inside = (own[..., 0] <= true) & (true <= own[..., -1])
        numbers["test_coverage"] = float(inside.mean())
    numbers["season"] = float(data.season)
    references = [name for name in scores if name]
    others = ", ".join(f"{name} {scores[name]['mae']:.4g}" for name in references)
    ahead = f"1 to {window.horizon} steps" if window.horizon > 1 else "1 step"
    summary = (
        f"on the test part, {ahead} ahead: MAE {scores['']['mae']:.4g} ({others}), RMSE {scores['']['rmse']:.4g}, "
        f"MASE {scores['']['mase']:.3g}"
    )
    if "test_coverage" in numbers:
        summary += f"; between the quantiles {window.quantiles[0]} and {window.quantiles[-1]} lie "
        summary += f"{100 * numbers['test_coverage']:.0f} %"
    summary += "".join(f"; {note}" for note in data.table.notes)
    best = min(references, key=lambda name: numbers[f"validation_mae_{name}".replace(" ", "_")])
    plots = {"error_by_step": _error_plot(window, scores)}
    for k, name in enumerate(data.targets[:MOST_TARGETS]):
        plots[f"forecast_test{f'_{k + 1}' if k else ''}"] = _test_plot(window, k, name, where, own, found[best], best)
    return Report(summary, numbers, {"report_by_step.csv": _table(scores)}, plots)


def predict(window: Window, model: Callable, params: Any, where: range) -> np.ndarray:
    """What the model expects of the `horizon` rows after each row of `where`: `[n, horizon, K, Q]`, in data's units."""
    return unscaled(window.data, roll(window, model, params, window.data.x, where, window.horizon))


def unscaled(data: SeriesData, values: np.ndarray) -> np.ndarray:
    """Values `[..., K, Q]` in deviations from the mean, in the data's units."""
    K = len(data.targets)
    return values * data.deviation[:K, None] + data.mean[:K, None]


def roll(window: Window, model: Callable, params: Any, x: np.ndarray, where: range, steps: int) -> np.ndarray:
    """Forecasts of `steps` rows after each row of `where`, in deviations: `[n, steps, K, Q]`.

    The model gives `ahead` rows at once; if that is too few, they are read as if they were known, the medians of the
    targets and the last value of every other column, and so on. It always reads the last seq_len rows.
    """
    found, size, blocks = [], min(WINDOWS, len(where)), -(-steps // window.ahead)
    for first in range(0, len(where), size):
        o = np.asarray(where)[np.minimum(first + np.arange(size), len(where) - 1)]  # every piece has the same shape
        rows = jnp.asarray(x[o + np.arange(1 - window.rows, 1)[:, None]])
        found.append(np.moveaxis(np.asarray(_blocks(window, model, blocks, params, rows), np.float64), 0, 1))
    return np.concatenate(found)[: len(where), :steps]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))  # compiled once for all runs of one program, as in a sweep
def _blocks(window, model, blocks, params, rows):
    """Rows `[T + lag, n, D]` -> the next `[blocks * ahead, n, K, Q]`."""
    network, n = model(params), rows.shape[1]
    K, Q = len(window.data.targets), len(window.quantiles)
    naive = naive_rows(window.ahead, window.data.lag) - 1  # from the end of the known rows

    def block(rows, _):
        change = network(window.inputs(rows))[-1].reshape(n, window.ahead, K, Q) / window.unit[:, None]
        values = jnp.moveaxis(change, 1, 0) + rows[naive][..., :K, None]
        held = jnp.broadcast_to(rows[-1, :, K:], (window.ahead, n, rows.shape[2] - K))
        new = jnp.concatenate([values[..., window.median], held], axis=-1).astype(rows.dtype)
        return jnp.concatenate([rows, new])[-window.rows :], values

    _, values = jax.lax.scan(block, rows, length=blocks)
    return values.reshape(-1, *values.shape[2:])


def forecast(window: Window, model: Callable, params: Any, steps: int, table: Table | None = None) -> Forecast:
    """The `steps` rows after the end of the series, or of another table with its columns, see `roll`.

    Raises ValueError for a table with fewer rows than the model reads.
    """
    data = window.data
    table = data.table if table is None else table
    columns, rows = columns_of(table), window.rows
    N = len(columns)
    if rows > N:
        raise ValueError(
            f"{table.name} has {N} rows; a forecast needs the last {rows}, so it must have as many or more"
        )
    x = (columns - data.mean) / data.deviation
    ahead = unscaled(data, roll(window, model, params, x, range(N - 1, N), steps))[0]  # [steps, K, Q]
    values = {name: ahead[:, k, window.median] for k, name in enumerate(data.targets)}
    for q, level in enumerate(window.quantiles):
        if q != window.median:
            values |= {f"{name} {level}": ahead[:, k, q] for k, name in enumerate(data.targets)}
    shown = range(max(0, N - max(2 * steps, 2 * data.season, 24)), N)
    past = {name: columns[shown.start :, k] for k, name in enumerate(data.targets)}
    return Forecast(times_after(table, steps), values, [_time(table, i) for i in shown], past)


def _time(table: Table, row: int) -> str:
    return table.times[row] or str(row + 1)


def _test_plot(window, k, name, where, own, reference, best):
    """Forecasts one after the other, the test part's first `BLOCKS`, with what came before it."""
    data, H = window.data, window.horizon
    start = data.parts["test"][0]
    starts = np.arange(0, len(where), H)[:BLOCKS]
    first = max(0, start - 3 * max(H, min(data.season, 3 * H)))
    last = min(where[int(starts[-1])] + H + 1, len(data.y))
    gap = np.full((1, len(window.quantiles)), np.nan)  # a gap between a forecast and the next
    blocks, others, x = [], [], []
    for i in starts:
        x.append(np.append(where[int(i)] + np.arange(1, H + 1), np.nan))
        blocks.append(np.concatenate([own[i, :, k], gap]))
        others.append(np.append(reference[i, :, k], np.nan))
    x, blocks, others = np.concatenate(x), np.concatenate(blocks), np.concatenate(others)
    ends = (blocks[:, 0], blocks[:, -1]) if len(window.quantiles) > 1 else (None, None)
    band = f" ({window.quantiles[0]} to {window.quantiles[-1]} quantile)" if ends[0] is not None else ""
    lines = (
        Line("truth", np.arange(first, last), data.y[first:last, k], "truth"),
        Line(f"forecast{band}", x, blocks[:, window.median], "model", *ends),
        Line(best, x, others, "reference"),
    )
    a, b = data.parts["validation"]
    spans = (("train", first, a), ("validation", max(first, a), b), ("test", start, last))
    shown = tuple((label, from_ - 0.5, to - 0.5) for label, from_, to in spans if to > from_ >= first)
    ticks = tuple((float(i), _time(data.table, int(i))) for i in np.unique(np.linspace(first, last - 1, 5).astype(int)))
    title = f"{name}: {H} steps ahead, one forecast after the other" if H > 1 else f"{name}: one step ahead"
    return Plot(title, "", name, lines, shown, ticks)


def _error_plot(window, scores):
    steps = np.arange(1, window.horizon + 1)
    lines = [
        Line(name or "network", steps, score["mae_by_step"], "reference" if name else "model")
        for name, score in scores.items()
    ]
    ends = [end for line in lines for end in (line.y.min(), line.y.max())]
    log_y = min(ends) > 0 and max(ends) > 10 * min(ends)
    title, label = "error on the test part by step ahead", "mean absolute error"
    return Plot(title, "steps ahead", label, tuple(lines), log_y=log_y)


def _table(scores):
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = [(metric, name) for name in scores for metric in ("mae", "rmse")]
    writer.writerow(["step", *(f"{metric}{'_' + name if name else ''}".replace(" ", "_") for metric, name in names)])
    columns = [scores[name][f"{metric}_by_step"] for metric, name in names]
    for step, row in enumerate(zip(*columns, strict=True), start=1):
        writer.writerow([step, *(f"{value:.6g}" for value in row)])
    return file.getvalue()
