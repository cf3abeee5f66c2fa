"""Series: forecast the next values of a table of your own, of a named series, or of one that is made."""

import os
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from rnnjax.tasks.common import SPLITS, at_least_float32, check_integer, mean_over, unknown
from rnnjax.tasks.series_data import naive_rows, origins, prepare
from rnnjax.tasks.series_references import errors, reference_forecasts
from rnnjax.tasks.series_report import Window, forecast, report
from rnnjax.tasks.signals import signal, signal_path
from rnnjax.tasks.tables import Table, read_table
from rnnjax.types import Array, Batch, Task

QUANTILES = (0.1, 0.5, 0.9)


def series(
    seq_len: int,
    *,
    path: str | os.PathLike | None = None,
    source: str = "sines",
    target: str | None = None,
    inputs: str | None = None,
    horizon: int = 24,
    strategy: Literal["direct", "recursive"] = "direct",
    quantiles: bool = False,
    levels: bool = True,
    season: int | None = None,
    missing: Literal["refuse", "previous", "linear"] = "refuse",
    date: str | None = None,
    where: str | None = None,
    dates: Literal["dmy", "mdy", "unix"] | None = None,
    decimal: Literal[".", ","] | None = None,
) -> Task:
    """Forecasting: from each window of a series, the `horizon` values that follow it.

    Args:
      seq_len: steps of a window.
      path: a CSV file of your own, see `read_table`; without one, the series named `source`.
      source: a series by its name: temperature, weather, shares, sunspots, sines, mackey_glass or lorenz, see `signal`.
      target: the column to forecast, or several with commas between.
      inputs: further columns to read, which are not forecast.
      horizon: how many values to forecast.
      strategy: direct gives all `horizon` values at once; recursive gives the next one, and reads it as if it were
        known to give the one after.
      quantiles: forecast the quantiles .1 and .9 beside the median.
      levels: the network reads the targets' values beside their changes; false where a value tells what a network
        should not learn by heart, such as the time of the one year that it is trained on.
      season: in steps, 1 for none; by default what a step of the dates says (24 hours, 12 months), or is found.
      missing: what is done about cells without a value: refuse, previous or linear, see `read_table`.
      date: the column that says when; by default it is found, and "rows" is for rows in the order in which they stand.
      where: COLUMN=VALUE, the rows to take, such as symbol=AAPL.
      dates: dmy or mdy where 01/02/2020 could be either, unix for seconds since 1970.
      decimal: the decimal mark; by default what the numbers show.

    The first 70 % of the rows are to train, 15 % to validate and the last 15 % to test; all columns are scaled by mean
    and deviation of the training part. A window may reach back into the part before its own, its targets may not.

    A network corrects the naive forecast that is better on the training part: the last value, or the value a season
    before. Inputs `[T, B, D]`: the targets and the other columns, and how much the targets have changed since the step
    before and since the value that is repeated. Batch.targets `[T, B, horizon, K]`: how much the naive forecast of the
    next values, made at that step, is to be corrected. Outputs `[T, B, O]`: the same, and each quantile of it. All
    changes are in units of what MASE divides by. In training every step of the second half of a window counts (forking
    sequences, Wen et al. 2017), in validation and test the last step alone.

    The score is MASE (Hyndman & Koehler 2006), the mean absolute error over that of y_{t-season} as a forecast of y_t
    in the training part, and the loss is the same; or the pinball loss (Koenker & Bassett 1978). Of a recursive
    forecast both are of one step, and the report has all steps. Inputs that are not forecast are taken to keep their
    last value.

    Raises ValueError, in one line, for a table that cannot be read or is too short.
    """
    for name, value, lowest in (("seq_len", seq_len, 1), ("horizon", horizon, 1)):
        check_integer("series", name, value, lowest)
    if strategy not in ("direct", "recursive"):
        raise unknown("strategy", strategy, ("direct", "recursive"))
    if quantiles and strategy == "recursive":
        raise ValueError("task 'series': quantiles=True needs strategy='direct': what is read again is one value")
    if path is not None and source != "sines":
        raise ValueError(f"task 'series': path and source={source!r} are both given; allowed: one of them")
    of_file: dict[str, Any] = {"missing": missing, "date": date, "dates": dates, "decimal": decimal}

    def read(path: str | os.PathLike | None, target: str | None) -> Table:
        return _read(path, source=source, target=target, inputs=inputs, where=where, **of_file)

    table = read(path, target)
    K = table.targets
    data = prepare(table, K, season, horizon)
    ahead = horizon if strategy == "direct" else 1
    window = Window(data, seq_len, horizon, ahead, QUANTILES if quantiles else (0.5,), levels)
    for split in SPLITS:
        origins(data, split, window.rows, horizon)  # raises where there is none
    form, scores = _Form(window), _scores(window)
    return Task(
        form.sample,
        form.loss,
        form.metrics,
        input_size=window.input_size,
        output_size=ahead * K * len(window.quantiles),
        tokens=False,
        readout="every",
        score="mase",
        baseline=scores["last value"],
        solved=min(scores.values()),
        causal=True,
        references=lambda: scores,
        report=lambda model, params, key: report(window, model, params),
        data=data.x,
        forecast=lambda model, params, steps, path=None: forecast(
            window, model, params, steps, None if path is None else read(path, ",".join(data.targets))
        ),
    )


def series_source(
    path: str | os.PathLike | None = None, source: str = "sines", **_: Any
) -> tuple[str, str, str | None]:
    """What `series` reads with these arguments: what to call it, where it lies, and its sha256 if that is no file."""
    if path is not None:
        return "the file of task.path", os.fspath(path), None
    if (file := signal_path(source)) is not None:
        return f"the series {source!r}", os.fspath(file), None
    return f"the series {source!r}", source, signal(source).sha256


def pinball(error: Array, levels: tuple[float, ...]) -> Array:
    """Twice the pinball loss (Koenker & Bassett 1978) of quantiles, of truth - forecast `[..., Q]`: |error| at .5."""
    q = jnp.asarray(levels, error.dtype)
    return 2 * jnp.maximum(q * error, (q - 1) * error)


class _Form(NamedTuple):
    """The windows of a series, and how outputs fit them."""

    window: Window

    def sample(
        self, key: Array, batch_size: int, *, split: str = "train", seq_len: int | None = None, data: Any = None
    ) -> Batch:
        """Windows that end anywhere in the split; in validation and test at even distances from a random one on."""
        series, ahead, lag = self.window.data, self.window.ahead, self.window.data.lag
        if split not in series.parts:
            raise unknown("split", split, SPLITS)
        x = jnp.asarray(series.x if data is None else data)
        T = self.window.seq_len if seq_len is None else seq_len
        check_integer("series", "seq_len", T, 1)
        where = origins(series, split, T + lag, ahead)
        if split == "train":
            at = jax.random.randint(key, (batch_size,), 0, len(where))
        else:
            at = (jnp.arange(batch_size) + jax.random.uniform(key)) * (len(where) / batch_size)
            at = jnp.minimum(at.astype(int), len(where) - 1)
        rows = where.start + at + jnp.arange(1 - T - lag, 1)[:, None]  # [T + lag, B]
        t = rows[lag:, :, None]
        known = x[..., : len(series.targets)]
        change = known[t + jnp.arange(1, ahead + 1)] - known[t + naive_rows(ahead, lag)]  # [T, B, ahead, K]
        counts = jnp.arange(T) >= (T // 2 if split == "train" else T - 1)
        weights = jnp.broadcast_to(counts[:, None], (T, batch_size))
        return Batch(self.window.inputs(x[rows]), change * self.window.unit, None, weights)

    def error(self, outputs: Array, batch: Batch) -> Array:
        """truth - forecast `[T, B, ahead, K, Q]`, in units of MASE."""
        shape = (*batch.targets.shape, len(self.window.quantiles))
        return batch.targets[..., None] - at_least_float32(outputs).reshape(shape)

    def loss(self, outputs: Array, batch: Batch) -> Array:
        """The pinball loss over all steps ahead, targets and quantiles."""
        values = pinball(self.error(outputs, batch), self.window.quantiles)
        return mean_over(batch.weights, jnp.mean(values, axis=(-3, -2, -1)))

    def metrics(self, outputs: Array, batch: Batch) -> dict[str, Array]:
        """Errors of the median: MASE, and in the data's units MAE and RMSE, which are means over targets."""
        error = self.error(outputs, batch)[..., self.window.median]
        mean = lambda values: mean_over(batch.weights, jnp.mean(values, axis=(-2, -1)))  # noqa: E731
        return {
            "mase": mean(jnp.abs(error)),
            "mae": mean(jnp.abs(error * self.window.data.scale)),
            "rmse": jnp.sqrt(mean(jnp.square(error * self.window.data.scale))),
        }


def _read(path: str | os.PathLike | None, *, source: str, target: str | None, **options: Any) -> Table:
    if path is not None:
        return read_table(path, target=target, **options)
    for name, value in options.items():
        if name not in ("inputs", "where") and value not in (None, "refuse"):
            raise ValueError(f"task 'series': {name}={value!r} is for a file of your own; allowed: with path")
    return signal(source, target=target, inputs=options["inputs"], where=options["where"])


def _scores(window: Window) -> dict[str, float]:
    """The score of each reference on the whole validation part."""
    data, rows, ahead = window.data, window.rows, window.ahead
    where = origins(data, "validation", rows, ahead)
    found = reference_forecasts(data, where, rows, ahead)
    return {name: errors(values, data, where)["mase"] for name, values in found.items()}
