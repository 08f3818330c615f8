"""E-divisive on made series: false alarms as often as stated, steps at the right place, and no step by outliers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from toolchain.stats.change_points import LEVEL, MIN_SEGMENT, change_points, shift

NOISE = 0.02


def series(*levels: tuple[int, float], seed: int, outliers: int = 0) -> np.ndarray:
    """Return logarithms of times with noise around levels, each (count, factor); outliers: how many are doubled."""
    random = np.random.default_rng(seed)
    values = np.concatenate([np.full(count, math.log(factor)) for count, factor in levels])
    values += random.normal(0, NOISE, len(values))
    values[random.choice(len(values), outliers, replace=False)] += math.log(2)
    return values


@pytest.mark.parametrize("outliers", [0, 2], ids=["noise", "noise and outliers"])
def test_of_series_without_a_change_about_one_in_a_hundred_alarms(outliers: int) -> None:
    alarms = sum(bool(change_points(series((16, 1.0), seed=seed, outliers=outliers))) for seed in range(150))
    # Of 150 at 1 % more than 6 come in one of 1,000 runs of this test.
    assert alarms <= 6
    assert LEVEL == 0.01


def test_a_step_of_a_tenth_is_found_at_its_place() -> None:
    found = [change_points(series((20, 1.0), (6, 1.1), seed=seed)) for seed in range(12)]
    assert sum(points == [20] for points in found) >= 10
    assert all(abs(points[-1] - 20) <= 2 for points in found)


def test_two_steps_are_two_and_a_level_that_ends_is_one() -> None:
    steps = [change_points(series((12, 1.0), (10, 1.1), (10, 0.95), seed=seed)) for seed in range(5)]
    assert sum(points == [12, 22] for points in steps) >= 4
    ends = [change_points(series((16, 1.0), (10, 1.2), (12, 1.0), seed=seed)) for seed in range(5)]
    assert sum(points == [16, 26] for points in ends) >= 4


@pytest.mark.parametrize("where", [0, 10, 20])
def test_one_outlier_is_no_step(where: int) -> None:
    alarms = 0
    for seed in range(20):
        values = series((21, 1.0), seed=seed)
        values[where] += 5
        alarms += bool(change_points(values))
    # As many as without an outlier: of 20 at 1 % more than 2 come in one of 1,000 runs of this test.
    assert alarms <= 2


def test_a_step_with_outliers_is_found_and_its_size_is_not_theirs() -> None:
    values = series((30, 1.0), (12, 1.1), seed=4, outliers=3)
    (index,) = change_points(values)
    assert abs(index - 30) <= 1
    size = shift(values[:index], values[index:])
    assert size.low is not None
    assert size.high is not None
    assert math.log(1.05) < size.low < math.log(1.1) < size.high < math.log(1.15)


@pytest.mark.parametrize("values", [[], [1.0], [1.0] * (2 * MIN_SEGMENT - 1), [1.0] * 30], ids=len)
def test_too_few_values_or_equal_ones_show_nothing(values: list[float]) -> None:
    assert change_points(values) == []


def test_the_same_seed_gives_the_same_points() -> None:
    values = series((10, 1.0), (6, 1.06), seed=2)
    assert change_points(values, seed=1) == change_points(values, seed=1)


@pytest.mark.parametrize(("m", "n"), [(4, 4), (5, 12), (4, 20), (30, 30)])
def test_the_interval_of_a_shift_is_that_of_the_rank_sum_test(m: int, n: int) -> None:
    random = np.random.default_rng(m)
    before, after = random.normal(0, 1, m), random.normal(0.5, 1, n)
    size = shift(before, after)
    assert size.low is not None
    assert size.high is not None
    for bound, inside in ((size.low, 1), (size.high, -1)):
        # The test keeps a shift just inside of the interval, and drops one outside of it.
        kept = mannwhitneyu(after - (bound + inside * 1e-9), before).pvalue
        dropped = mannwhitneyu(after - (bound - inside * 1e-9), before).pvalue
        assert dropped <= 0.0501 < kept + 0.01 * (m + n >= 40)


def test_three_values_on_either_side_have_no_interval() -> None:
    assert (shift([1, 2, 3], [4, 5, 6]).low, shift([1, 2, 3], [4, 5, 6]).median) == (None, 3)
