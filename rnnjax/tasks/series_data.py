"""A series as a network reads it: split by time, scaled by its training part, with its season."""

from typing import NamedTuple

import numpy as np

from rnnjax.tasks.common import SPLITS, check_integer
from rnnjax.tasks.tables import Table

SEASONS = {
    "minute": 60,
    "hour": 24,
    "day": 7,
    "weekday": 5,
    "week": 52,
    "month": 12,
    "quarter": 4,
}  # steps, by what a step is
LONGEST_SEASON = 1000  # that is looked for
ALIKE = 0.3  # the autocorrelation from which on a lag counts as a season


class SeriesData(NamedTuple):
    """A table made ready. N rows, D columns that a network reads, of which the first K are the targets."""

    table: Table
    targets: tuple[str, ...]
    y: np.ndarray  # [N, K], in the data's own units
    x: np.ndarray  # [N, D]: (column - mean) / deviation
    mean: np.ndarray  # [D], of the training part
    deviation: np.ndarray  # [D]
    parts: dict[str, tuple[int, int]]  # split -> its first row, and the one after its last
    season: int  # in steps, 1 where there is none
    scale: np.ndarray  # [K], what MASE divides by: see `mase_scale`
    step: np.ndarray  # [K], the deviation of the change from one row to the next
    lag: int  # how far back the forecast lies that a network corrects: the season, or 1


def prepare(table: Table, targets: int, season: int | None, horizon: int) -> SeriesData:
    """Splits a table by time into 70, 15 and 15 % and scales it by the mean and deviation of the first part.

    Args:
      table: its first columns are the targets.
      targets: K, how many.
      horizon: how many steps are to be forecast.
      season: in steps; None finds it, by what a step of the dates is or else by autocorrelation.

    Raises ValueError, in one line, for too few rows and for a column that is constant in the training part.
    """
    columns = columns_of(table)
    N = len(columns)
    ends = (0, N * 70 // 100, N * 85 // 100, N)
    parts = {split: (ends[i], ends[i + 1]) for i, split in enumerate(SPLITS)}
    train = columns[: ends[1]]
    for name, values in zip(table.columns, train.T, strict=True):
        if len(values) and np.ptp(values) == 0:
            raise ValueError(
                f"task 'series': column {name!r} of {table.name} is {values[0]:g} in all of the first {ends[1]} rows, "
                f"from which a network is to learn; a column must vary there"
            )
    if len(train) < 3:
        raise ValueError(f"task 'series': {table.name} has {N} rows, of which 70 % are to learn from; it must have 5")
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    y = columns[:, :targets]
    if season is None:
        season = find_season(train[:, 0], table.step)
    else:
        check_integer("series", "season", season, 1, len(train) - 1)
    scale, x = mase_scale(train[:, :targets], season), (columns - mean) / deviation
    lag = better_lag(train[:, :targets] / scale, season, horizon)
    step = np.diff(train[:, :targets], axis=0).std(axis=0)
    step = np.where(step > 0, step, scale)  # of a straight line it is 0
    return SeriesData(table, tuple(table.columns)[:targets], y, x, mean, deviation, parts, season, scale, step, lag)


def columns_of(table: Table) -> np.ndarray:
    """The columns of a table `[N, D]`."""
    return np.stack(list(table.columns.values()), axis=1)


def mase_scale(train: np.ndarray, season: int) -> np.ndarray:
    """The mean of |y_t - y_{t-m}| over a training part `[N, K]`, m the season (Hyndman & Koehler 2006, section 3).

    Where that is 0, as a series repeats itself exactly, m is 1.
    """
    scale = np.abs(train[season:] - train[:-season]).mean(axis=0)
    return np.where(scale > 0, scale, np.abs(np.diff(train, axis=0)).mean(axis=0))


def better_lag(train: np.ndarray, season: int, horizon: int) -> int:
    """The season, or 1: whichever naive forecast `naive_rows` errs less on a training part, over all steps ahead."""

    def error(lag):
        o = np.arange(season - 1, len(train) - horizon)[:, None]
        naive = train[o + naive_rows(horizon, lag)]
        return np.abs(train[o + np.arange(1, horizon + 1)] - naive).mean() if len(o) else np.inf

    return season if season > 1 and error(season) < error(1) else 1


def naive_rows(horizon: int, lag: int) -> np.ndarray:
    """Where the values stand, from the last known row on, that a naive forecast of the next `horizon` repeats.

    They are the `lag` last ones over and over: h - lag ceil(h / lag).
    """
    h = np.arange(1, horizon + 1)
    return h - lag * -(-h // lag)


def find_season(values: np.ndarray, step: str | None = None) -> int:
    """The season of values `[N]`, in steps; 1 for none.

    It is what a step of the dates says (24 hours, 7 days, 12 months), if the values have two of it. Else it is the lag
    whose autocorrelation, of the values without their straight line, is highest of all after it first fell below 0,
    if above .3.
    """
    known = SEASONS.get(step or "")
    if known and len(values) >= 2 * known:
        return known
    N = len(values)
    t = np.arange(N) - (N - 1) / 2
    rest = values - values.mean() - t * (t @ values) / (t @ t)
    spectrum = np.abs(np.fft.rfft(rest, 2 * N)) ** 2
    correlation = np.fft.irfft(spectrum)[: min(N // 2, LONGEST_SEASON) + 1]
    if correlation[0] <= 1e-12 * max(1.0, float(values @ values)):  # nothing but a straight line
        return 1
    correlation = correlation / correlation[0]
    below = np.flatnonzero(correlation < 0)
    if not below.size:
        return 1
    lag = int(below[0] + np.argmax(correlation[below[0] :]))
    return lag if correlation[lag] > ALIKE else 1


def origins(data: SeriesData, split: str, rows: int, horizon: int) -> range:
    """The last known row of every window of a part: all the `horizon` rows after it are in the part.

    The `rows` up to it that a window needs may reach back into the part before, which is known by then.

    Raises ValueError where there is none.
    """
    first, end = data.parts[split]
    name, needed = data.table.name, rows + horizon
    if end - first < horizon:
        raise ValueError(
            f"task 'series': horizon is {horizon}, but the {split} part of {name} has {end - first} of its "
            f"{len(data.y)} rows; it must have as many as horizon or more"
        )
    if end < needed:
        raise ValueError(
            f"task 'series': with seq_len={rows - data.lag} and horizon={horizon} a window takes {needed} rows, but "
            f"the {split} part of {name} ends after {end}; it must have as many or more"
        )
    return range(max(first, rows) - 1, end - horizon)
