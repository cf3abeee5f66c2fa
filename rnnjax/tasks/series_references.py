"""Forecasts without a network: the last value, the season before, and a linear regression on the past."""

from typing import Any, NamedTuple

import numpy as np

from rnnjax.tasks.series_data import SeriesData, naive_rows, origins

PENALTIES = (1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of ridge, times the rows that it is fitted on
MOST_FEATURES = 1024
ROWS = 4096  # at a time


class Ridge(NamedTuple):
    """A linear map of the last L rows: see `fit_ridge`."""

    lags: int  # L
    penalty: float
    weights: np.ndarray  # [L * D, horizon * K]
    mean_in: np.ndarray  # [L * D]
    mean_out: np.ndarray  # [horizon * K]


def reference_forecasts(data: SeriesData, where: range, rows: int, horizon: int) -> dict[str, np.ndarray]:
    """What each reference expects of the `horizon` rows after each row of `where`, knowing the `rows` up to it, as a
    network does: `[n, horizon, K]` by name, in the data's units."""
    o = np.asarray(where)[:, None]
    found = {"last value": data.y[o + naive_rows(horizon, 1)]}
    if data.season > 1:
        found["seasonal naive"] = data.y[o + naive_rows(horizon, data.season)]
    model = fit_ridge(data, rows, horizon)
    K = data.y.shape[1]
    scaled = predict_ridge(model, data.x, where).reshape(len(where), horizon, K)
    found["ridge"] = data.y[o] + scaled * data.deviation[:K]
    return found


def errors(forecast: np.ndarray, data: SeriesData, where: range) -> dict[str, Any]:
    """MAE, RMSE and MASE of forecasts `[n, horizon, K]` after the rows `where`, and the first two by step `[horizon]`.

    In the data's units, means over all targets; MASE (Hyndman & Koehler 2006) is of each target by itself, then the
    mean.
    """
    horizon = forecast.shape[1]
    difference = forecast - truth(data, where, horizon)
    absolute, square = np.abs(difference), np.square(difference)
    return {
        "mae": float(absolute.mean()),
        "rmse": float(np.sqrt(square.mean())),
        "mase": float((absolute.mean(axis=(0, 1)) / data.scale).mean()),
        "mae_by_step": absolute.mean(axis=(0, 2)),
        "rmse_by_step": np.sqrt(square.mean(axis=(0, 2))),
    }


def truth(data: SeriesData, where: range, horizon: int) -> np.ndarray:
    """What came in the `horizon` rows after each of `where`: `[n, horizon, K]`."""
    return data.y[np.asarray(where)[:, None] + np.arange(1, horizon + 1)]


def fit_ridge(data: SeriesData, rows: int, horizon: int) -> Ridge:
    """A ridge regression of all `horizon` changes from the last value on the last L rows of all columns.

        W = (X^T X + penalty I)^-1 X^T Y,    X and Y less their means over the training part's windows

    (Hoerl & Kennard 1970), a row of X a window of the training part. L, of `rows` and its half, quarter and eighth,
    and the penalty are those with the lowest MASE on the validation part.
    """
    key = (
        data.table.sha256,
        data.targets,
        tuple(data.table.columns),
        data.season,
        data.lag,
        rows,
        horizon,
        data.x.shape,
    )
    if key not in _FITTED:
        if len(_FITTED) == 8:  # a process has one series, seldom more
            _FITTED.clear()
        _FITTED[key] = _fit(data, rows, horizon)
    return _FITTED[key]


_FITTED: dict[tuple, Ridge] = {}


def predict_ridge(model: Ridge, x: np.ndarray, where: range) -> np.ndarray:
    """The changes `[n, horizon * K]` that the model expects after the rows `where` of x `[N, D]`."""
    pieces = [where[i : i + ROWS] for i in range(0, len(where), ROWS)]
    found = [(lagged(x, piece, model.lags) - model.mean_in) @ model.weights + model.mean_out for piece in pieces]
    return np.concatenate(found)


def lagged(x: np.ndarray, where: range, lags: int) -> np.ndarray:
    """Rows o, o - 1, ..., o - lags + 1 of x `[N, D]` as one, for each o of `where`: `[n, lags * D]`."""
    index = np.asarray(where)[:, None] - np.arange(lags)
    return x[index].reshape(len(where), -1)


def _fit(data, rows, horizon):
    D, K = data.x.shape[1], data.y.shape[1]
    longest = max(1, min(rows, MOST_FEATURES // D))
    where = origins(data, "train", rows, horizon)
    pieces = [where[i : i + ROWS] for i in range(0, len(where), ROWS)]
    mean_in = sum(lagged(data.x, piece, longest).sum(axis=0) for piece in pieces) / len(where)
    mean_out = sum(_changes(data, piece, horizon).sum(axis=0) for piece in pieces) / len(where)
    gram, moment = 0, 0
    for piece in pieces:
        X, Y = lagged(data.x, piece, longest) - mean_in, _changes(data, piece, horizon) - mean_out
        gram, moment = gram + X.T @ X, moment + X.T @ Y
    checked = origins(data, "validation", rows, horizon)
    wanted = truth(data, checked, horizon) - data.y[np.asarray(checked)][:, None]
    best, lowest = None, np.inf
    for lags in sorted({max(1, longest // part) for part in (1, 2, 4, 8)}):
        F = lags * D
        values, vectors = np.linalg.eigh(gram[:F, :F])
        for penalty in PENALTIES:
            scale = 1 / (np.maximum(values, 0) + penalty * len(where))
            weights = vectors @ (scale[:, None] * (vectors.T @ moment[:F]))
            model = Ridge(lags, penalty * len(where), weights, mean_in[:F], mean_out)
            expected = predict_ridge(model, data.x, checked).reshape(wanted.shape) * data.deviation[:K]
            score = (np.abs(expected - wanted).mean(axis=(0, 1)) / data.scale).mean()
            if score < lowest:
                best, lowest = model, score
    return best


def _changes(data, where, horizon):
    """What the rows after each of `where` have more than it, in deviations: `[n, horizon * K]`."""
    o = np.asarray(where)[:, None]
    K = data.y.shape[1]
    return (data.x[o + np.arange(1, horizon + 1), :K] - data.x[o, :K]).reshape(len(where), -1)
