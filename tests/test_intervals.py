"""Intervals and verdicts over seeds: SciPy's exact tests, planted data of known coverage, ties, no numbers."""

import itertools
import math
import statistics

import numpy as np
import pytest
from scipy import stats

from rnnjax.intervals import (
    agreed,
    bootstrap_interval,
    median,
    median_interval,
    needed,
    quantile,
    set_apart,
    told_apart,
    wilson_interval,
)


def test_so_many_seeds_must_agree_as_the_exact_sign_test_asks():
    for n in range(1, 41):
        p = [stats.binomtest(k, n, 0.5).pvalue for k in range(n + 1)]
        least = min([k for k in range(n // 2 + 1, n + 1) if p[k] <= 0.05], default=n + 1)
        assert needed(n) == least
    assert [needed(n) for n in (3, 5, 6, 8, 9, 10, 12)] == [4, 6, 6, 8, 8, 9, 10]


def test_the_median_lies_in_its_interval_as_often_as_promised():
    """Whatever the distribution: log-normal, Cauchy, and one with atoms."""
    rng = np.random.default_rng(0)
    draws = {"lognormal": rng.lognormal(size=(2000, 12)), "cauchy": rng.standard_cauchy((2000, 12))}
    draws["atoms"] = rng.integers(0, 3, (2000, 12)).astype(float)
    for name, middle in (("lognormal", 1.0), ("cauchy", 0.0), ("atoms", 1.0)):
        inside = [low <= middle <= high for low, high in map(median_interval, draws[name].tolist())]
        assert np.mean(inside) > 0.95
        if name != "atoms":
            assert np.mean(inside) == pytest.approx(1 - 2 * stats.binom.cdf(2, 12, 0.5), abs=0.012)


@pytest.mark.parametrize("values", [[0.5] * 12, [0.5] * 10 + [0.0, math.inf], [math.inf] * 12])
def test_ties_and_infinite_values_have_an_interval_without_nan(values):
    middle = values[0]
    assert median_interval(values) == (middle, middle) and median(values) == middle


def test_a_value_that_is_not_a_number_counts_as_any():
    values = [float(v) for v in range(1, 13)]
    assert median_interval(values) == (3.0, 10.0) and median(values) == 6.5
    assert median_interval([math.nan, *values[1:]]) == (3.0, 11.0)
    assert median_interval([math.nan] * 3 + values[3:]) == (-math.inf, math.inf)
    assert math.isnan(median([math.nan, *values[1:]]))
    assert median([math.nan] + [2.0] * 11) == 2.0


def test_too_few_seeds_have_no_interval_and_no_verdict():
    assert median_interval([1.0] * 5) == (-math.inf, math.inf) and median([1.0] * 5) == 1.0
    assert agreed(["healthy"] * 5) is None and agreed(["healthy"] * 6) == "healthy"


def test_a_verdict_needs_ten_of_twelve_and_is_seldom_one_that_most_seeds_lack():
    assert agreed(["NaN"] * 10 + ["healthy"] * 2) == "NaN"
    assert agreed(["NaN"] * 9 + ["healthy"] * 3) is None
    rng = np.random.default_rng(1)
    for shares in ([0.5, 0.5, 0], [0.5, 0.3, 0.2]):  # no verdict is that of more than half
        tables = rng.choice(["vanishing", "healthy", "dead"], (2000, 12), p=shares).tolist()
        assert np.mean([agreed(table) is not None for table in tables]) < 0.05
    tables = rng.choice(["vanishing", "healthy"], (2000, 12), p=[0.98, 0.02]).tolist()
    assert np.mean([agreed(table) == "vanishing" for table in tables]) > 0.99


def test_two_settings_are_told_apart_by_the_seeds_that_they_share():
    low, high = [0.1] * 8, [0.2] * 8
    assert told_apart(low, high) and told_apart(high, low) and told_apart(low, [math.inf] * 8)
    assert not told_apart(low, [0.2] * 7 + [0.1])  # a tie is no difference
    assert (
        not told_apart(low[:5], high[:5]) and not told_apart([], []) and not told_apart([math.inf] * 8, [math.inf] * 8)
    )
    rng = np.random.default_rng(2)
    assert np.mean([told_apart(*rng.standard_cauchy((2, 12)).tolist()) for _ in range(2000)]) < 0.05


@pytest.mark.parametrize(("k", "n"), [(0, 5), (1, 4), (3, 4), (8, 8), (40, 97)])
def test_wilson_interval_is_scipys(k, n):
    expected = stats.binomtest(k, n).proportion_ci(method="wilson")
    np.testing.assert_allclose(wilson_interval(k, n), [expected.low, expected.high], atol=1e-7)


def test_quantile_of_scores_with_infinities():
    values = np.random.default_rng(0).normal(size=7).tolist()
    for q in (0.0, 0.25, 0.5, 0.6, 1.0):
        np.testing.assert_allclose(quantile(values, q), np.quantile(values, q))
    assert quantile([1.0, math.inf, 2.0], 0.5) == 2.0
    assert quantile([1.0, math.inf, 2.0, math.inf], 0.5) == math.inf
    assert quantile([-math.inf, 1.0], 0.5) == -math.inf


@pytest.mark.parametrize("statistic", [statistics.fmean, statistics.median, max])
@pytest.mark.parametrize("values", [[3.0, 1.0, 2.5, 7.0, 7.0], [0.1, 0.4, 0.2], [5.0]])
def test_the_bootstrap_interval_is_that_of_every_resample_there_is(values, statistic):
    every = sorted(statistic(resample) for resample in itertools.product(values, repeat=len(values)))
    cut = math.ceil(0.025 * len(every)) - 1  # so many on either side are outside at most
    expected = every[cut], every[-1 - cut]
    assert bootstrap_interval(values, statistic) == pytest.approx(expected, rel=1e-12)


def test_the_bootstrap_interval_of_many_values_is_that_of_the_normal_theory_and_the_same_each_time():
    values = np.random.default_rng(3).normal(2.0, 3.0, size=200).tolist()
    found = bootstrap_interval(values, statistics.fmean, draws=4000)
    half = 1.96 * np.std(values) / math.sqrt(200)
    np.testing.assert_allclose(found, [np.mean(values) - half, np.mean(values) + half], atol=0.15 * half)
    assert found == bootstrap_interval(values, statistics.fmean, draws=4000)
    assert found != bootstrap_interval(values, statistics.fmean, draws=4000, seed=1)


def test_the_bootstrap_interval_holds_as_often_as_its_docstring_says():
    draws = np.random.default_rng(4).normal(size=(600, 5)).tolist()
    inside = {of: np.mean([low <= 0 <= high for low, high in (bootstrap_interval(v, of) for v in draws)])
              for of in (statistics.fmean, statistics.median)}  # fmt: skip
    assert inside[statistics.fmean] == pytest.approx(0.84, abs=0.04)
    assert inside[statistics.median] == pytest.approx(1 - 2 / 2**5, abs=0.04)


def test_the_bootstrap_interval_leaves_no_value_out():
    assert bootstrap_interval([math.inf, 0.1, 0.2, 0.3, 0.4]) == (0.1, math.inf)
    assert bootstrap_interval([math.nan, 0.1, 0.2, 0.3, 0.4]) == (-math.inf, math.inf)
    assert bootstrap_interval([math.inf] * 5) == (math.inf, math.inf)
    assert bootstrap_interval([-math.inf, -math.inf, math.inf, math.inf]) == (-math.inf, math.inf)
    with pytest.raises(ValueError, match="one or more"):
        bootstrap_interval([])


def test_sets_are_apart_only_where_none_lies_among_the_others_and_they_are_four_or_more():
    low, high = [0.1, 0.2, 0.3, 0.4, 0.5], [0.6, 0.7, 0.8, 0.9, math.inf]
    assert set_apart(low, high) and set_apart(high, low) and set_apart(low[:4], high[:4])
    assert not set_apart(low[:3], high[:3]) and not set_apart([], [])
    assert not set_apart(low, [0.5, *high[:4]]) and not set_apart(low, [*low[1:], 0.6])
    for n in range(1, 8):  # the most extreme rank sum, by SciPy
        p = stats.mannwhitneyu(range(n), range(n, 2 * n), method="exact").pvalue
        assert set_apart(range(n), range(n, 2 * n)) == (p <= 0.05)
