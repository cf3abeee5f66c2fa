"""What a few seeds say together: medians and rates with 95 % intervals, and a verdict only where the seeds bear it.

The median and the verdict rest on one exact test. If half of all seeds at most lie on one side (or get one verdict), so
do k or more of n with probability P(Bin(n, 1/2) >= k); `needed(n)` is the smallest k at which twice that, for the two
sides, is 5 % at most: 6 of 6, 8 of 8, 8 of 9, 9 of 10, 10 of 12. No spread, no shape and no draw of random numbers
enters, and values may be infinite. One that is not a number could be any: it is never left out.
"""

import math
from collections.abc import Sequence

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
