"""What a few seeds say together: medians and rates with 95 % intervals, and a verdict only where the seeds bear it.

The median and the verdict rest on one exact test. If half of all seeds at most lie on one side (or get one verdict), so
do k or more of n with probability P(Bin(n, 1/2) >= k); `needed(n)` is the smallest k at which twice that, for the two
sides, is 5 % at most: 6 of 6, 8 of 8, 8 of 9, 9 of 10, 10 of 12. No spread, no shape and no draw of random numbers
enters, and values may be infinite. One that is not a number could be any: it is never left out.
"""

import itertools
import math
import random
from collections.abc import Callable, Iterable, Sequence

ERROR = 0.05
Z = 1.959964  # the normal's 97.5 % quantile


def needed(n: int) -> int:
    """How many of n seeds must agree for 95 % (the two-sided sign test); n + 1 where not even all n are enough."""
    k, ways = n + 1, 0
    while 2 * (ways + math.comb(n, k - 1)) <= ERROR * 2**n:
        k -= 1
        ways += math.comb(n, k)
    return k


def agreed(labels: Sequence[str]) -> str | None:
    """The label that `needed` of the seeds share: at 95 %, that of more than half of all seeds. None without one."""
    top = max(labels, key=labels.count)
    return top if labels.count(top) >= needed(len(labels)) else None


def told_apart(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether values of the same seeds differ: in `needed` of the pairs or more, the same side is smaller."""
    smaller = (sum(x < y for x, y in zip(*pair, strict=True)) for pair in ((a, b), (b, a)))
    return max(smaller) >= needed(len(a))


def set_apart(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether all values of the one lie below all of the other, and are too many for that to be chance.

    If all were drawn alike it would come about with probability 2 n! m! / (n + m)!, that of the most extreme rank sum
    (Wilcoxon 1945): 2.9 % for 4 and 4 values, 0.8 % for 5 and 5, and 10 % for 3 and 3, of which nothing is said.
    """
    likely = ERROR * math.comb(len(a) + len(b), len(a)) < 2
    return not likely and (max(a) < min(b) or max(b) < min(a))


def bootstrap_interval(
    values: Sequence[float],
    statistic: Callable[[Sequence[float]], float] | None = None,
    draws: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Where a statistic lies in 95 % of all resamples of the values with replacement (Efron 1979, the percentile way).

    Of 7 values or fewer each resample counts, as often as it would be drawn, and nothing is random; of more, `draws`
    are drawn from `seed`. A value that is not a number counts as the lowest for the one end and the highest for the
    other, and so does a statistic that is none.

    With few values it is too narrow for a mean: of 5 normal ones it holds the true mean in 84 of 100 cases. For the
    median of 5 it goes from the lowest to the highest value, which holds that of any distribution in 94 of 100.

    Args:
      values: one or more.
      statistic: of a sorted sequence; by default the median.

    Raises ValueError for no values.
    """
    if not values:
        raise ValueError("there are no values; allowed: one or more")
    statistic, ends = statistic or median, []
    for side, sign in zip(_sides(values), (1, -1), strict=True):
        found = [(sign * statistic(resample), ways) for resample, ways in _resamples(side, draws, seed)]
        ends.append(sign * _tail((-math.inf if math.isnan(value) else value, ways) for value, ways in found))
    return ends[0], ends[1]


def median(values: Sequence[float]) -> float:
    """The median; NaN where it depends on what a value that is not a number would have been."""
    low, high = (quantile(side, 0.5) for side in _sides(values))
    return low if low == high else math.nan


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """The interval between two of the values that holds the median of all seeds at 95 %; infinite for fewer than 6.

    Its ends are the `needed`-th value from either side, an exact interval for any distribution (Thompson 1936).
    """
    n, k = len(values), needed(len(values))
    low, high = _sides(values)
    return (-math.inf, math.inf) if k > n else (low[n - k], high[k - 1])


def quantile(values: Sequence[float], q: float) -> float:
    """The q quantile, linear between order statistics as NumPy's, also where some values are infinite."""
    values = sorted(values)
    i, part = divmod(q * (len(values) - 1), 1)
    below = values[int(i)]
    return below if part == 0 else (1 - part) * below + part * values[int(i) + 1]


def wilson_interval(k: int, n: int, z: float = Z) -> tuple[float, float]:
    """The 95 % interval of a rate of which k of n were seen (Wilson 1927); within [0, 1], and not a point at 0 or n."""
    middle = (k + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(k * (n - k) / n + z * z / 4)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _sides(values):
    """The values sorted, with those that are not numbers as the lowest there are, and as the highest."""
    return [sorted(end if math.isnan(v) else float(v) for v in values) for end in (-math.inf, math.inf)]


def _resamples(values, draws, seed):
    """(resample in order, how often it counts) of sorted values."""
    n = len(values)
    if n > 7:
        rng = random.Random(seed)
        yield from ((sorted(rng.choices(values, k=n)), 1) for _ in range(draws))
        return
    for picked in itertools.combinations_with_replacement(range(n), n):
        orders = math.factorial(n) // math.prod(math.factorial(picked.count(i)) for i in range(n))
        yield [values[i] for i in picked], orders


def _tail(found: Iterable[tuple[float, int]]) -> float:
    """The first of the values, in order, up to which half of the error lies."""
    ordered = sorted(found)
    reached = list(itertools.accumulate(ways for _, ways in ordered))
    return next(value for (value, _), ways in zip(ordered, reached, strict=True) if 2 * ways >= ERROR * reached[-1])
