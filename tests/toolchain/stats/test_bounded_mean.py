"""The score interval of a bounded mean: Tango's as a case, the likelihood it maximises, and its coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.fixtures.lazy import optimize
from toolchain.core.errors import EvidenceError
from toolchain.stats import bounded_mean, paired_difference
from toolchain.stats.bounded_mean import Sample
from toolchain.stats.decision import Outcome, normal_quantile

COSTS = np.array([-20.0, -1.0, 0.0, 1.0, 20.0])


def sample(*counts: int, values: NDArray[np.float64] = COSTS) -> Sample:
    return Sample(values, np.array(counts, np.float64), float(values[0]), float(values[-1]))


@settings(max_examples=15)
@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 20_000), st.floats(0.6, 0.995), st.floats(0.001, 0.2))
def test_costs_of_nothing_and_one_are_tangos(
    lost: int, gained: int, kept: int, confidence: float, margin: float
) -> None:
    count = max(1, lost + gained + kept)
    made = sample(gained, count - lost - gained, lost, values=np.array([-1.0, 0.0, 1.0]))
    table = lost, gained, count
    assert bounded_mean.upper_bound(made, confidence) == pytest.approx(
        paired_difference.upper_bound(*table, confidence), abs=1e-12
    )
    assert bounded_mean.lower_bound(made, confidence) == pytest.approx(
        paired_difference.lower_bound(*table, confidence), abs=1e-12
    )
    assert bounded_mean.decide(made, margin, confidence) == paired_difference.decide(*table, margin, confidence)


def most_likely_variance(made: Sample, mean: float) -> float:
    """The variance under the most likely shares with that mean, found by a general optimiser."""
    seen = made.counts > 0
    constraints = [
        {"type": "eq", "fun": lambda p: p.sum() - 1},
        {"type": "eq", "fun": lambda p: p @ made.values - mean},
    ]
    start = np.full(len(made.values), 1 / len(made.values))
    found = optimize.minimize(
        lambda p: -(made.counts[seen] @ np.log(np.maximum(p[seen], 1e-300))) / made.count,
        start,
        bounds=[(0, 1)] * len(made.values),
        constraints=constraints,
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert found.success
    return float(found.x @ (made.values - mean) ** 2)


@pytest.mark.parametrize(
    ("counts", "mean"),
    [
        pytest.param((1, 4, 20, 6, 2), 1.5, id="all seen"),
        pytest.param((0, 4, 20, 6, 0), 0.2, id="ends not seen, nor needed"),
        pytest.param((0, 4, 20, 6, 0), 3.0, id="the largest not seen, but needed"),
        pytest.param((0, 4, 20, 6, 0), -5.0, id="the smallest not seen, but needed"),
        pytest.param((0, 0, 30, 0, 0), 0.7, id="one value only"),
    ],
)
def test_the_variance_is_that_of_the_most_likely_truth(counts: tuple[int, ...], mean: float) -> None:
    made = sample(*counts)
    assert bounded_mean.null_variance(made, mean) == pytest.approx(most_likely_variance(made, mean), rel=1e-3)


@settings(max_examples=40)
@given(
    st.lists(st.integers(0, 40), min_size=5, max_size=5).filter(lambda counts: sum(counts) > 0),
    st.integers(0, 20_000),
)
def test_the_statistic_falls_so_that_the_bound_is_the_only_crossing(counts: list[int], kept: int) -> None:
    counts[2] += kept
    grid = np.linspace(-19.9, 19.9, 400)
    made = Sample(COSTS, np.broadcast_to(np.array(counts, np.float64), (len(grid), 5)), -20.0, 20.0)
    found = bounded_mean.score(made, grid)
    assert np.all(np.diff(found) <= 1e-9 * np.maximum(1, np.abs(found[1:])))


def test_what_nobody_saw_still_leaves_room() -> None:
    unseen = Sample.of(np.zeros(18_800), -20.0, 20.0)
    z = normal_quantile(0.95)
    assert bounded_mean.upper_bound(unseen) == pytest.approx(20 * z * z / (18_800 + z * z), rel=1e-9)
    assert bounded_mean.lower_bound(unseen) == -bounded_mean.upper_bound(unseen)
    assert bounded_mean.decide(unseen, 0.002) == Outcome.INCONCLUSIVE
    assert bounded_mean.upper_bound(Sample.of(np.full(50, 20.0), -20.0, 20.0)) == 20.0


@pytest.mark.parametrize(
    ("images", "shares", "most"),
    [
        # Shares of a saving of 20 and of 1, a loss of 1 and of 20.
        pytest.param(18_800, (0.0001, 0.005, 0.005, 0.0001), 0.055, id="two dear losses expected, two dear savings"),
        pytest.param(18_800, (0.0, 0.005, 0.005, 0.0003), 0.055, id="six dear losses expected, no savings"),
        pytest.param(4_000, (0.001, 0.005, 0.005, 0.001), 0.055, id="four of each"),
        pytest.param(1_000, (0.0, 0.005, 0.005, 0.0003), 0.055, id="less than one expected"),
    ],
)
def test_rare_dear_losses_pass_no_more_often_than_they_may(images: int, shares: tuple[float, ...], most: float) -> None:
    cells = np.array([*shares[:2], 1 - sum(shares), *shares[2:]])
    truth = float(cells @ COSTS)
    draws = np.random.default_rng(5).multinomial(images, cells, size=20_000)
    different, times = np.unique(draws, axis=0, return_counts=True)
    judged = bounded_mean.decide(Sample(COSTS, different.astype(np.float64), -20.0, 20.0), truth)
    assert times[judged == Outcome.PASS].sum() / 20_000 <= most
    assert times[judged == Outcome.FAIL].sum() / 20_000 <= most


@pytest.mark.parametrize("dear", [2, 20])
@pytest.mark.parametrize("margin", [0.01, 0.1])
@pytest.mark.parametrize("images", [500, 1_014, 5_000], ids=lambda images: f"row49-{images}")
def test_at_the_margin_neither_side_errs_more_often_than_it_says(images: int, margin: float, dear: int) -> None:
    """Dear and plain misreadings each carry half of the rise, and as many are lost as would be without any gained."""
    shares = [share * margin / 2 for share in (0.5 / dear, 0.5, 1.5, 1.5 / dear)]
    cells = np.array([*shares[:2], 1 - sum(shares), *shares[2:]])
    costs = np.array([-dear, -1.0, 0.0, 1.0, dear])
    draws = np.random.default_rng(6).multinomial(images, cells, size=20_000)
    different, times = np.unique(draws, axis=0, return_counts=True)
    judged = bounded_mean.decide(Sample(costs, different.astype(np.float64), -dear, dear), margin)
    for outcome in (Outcome.PASS, Outcome.FAIL):
        # The chances are below 5.4 %; 20,000 draws add 0.15 points of their own.
        assert times[judged == outcome].sum() / 20_000 <= 0.058


def test_the_number_of_images_has_the_power_it_promises() -> None:
    cells, margin = np.array([0.0005, 0.004, 0.99, 0.005, 0.0005]), 0.02
    seen = Sample(COSTS, cells * 4_000, -20.0, 20.0)
    needed = bounded_mean.images_needed(seen, margin)
    assert needed is not None
    assert needed > 4_000
    draws = np.random.default_rng(2).multinomial(needed, cells, size=4_000)
    passed = np.mean(bounded_mean.decide(Sample(COSTS, draws.astype(np.float64), -20.0, 20.0), margin) == Outcome.PASS)
    assert passed == pytest.approx(0.8, abs=0.04)
    assert bounded_mean.images_needed(sample(0, 0, 0, 5, 0), 1.0) is None


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [([], -1, 1), ([0.0, float("nan")], -1, 1), ([0.0, 2.0], -1, 1), ([0.0], 0, 0), ([0.0], float("nan"), 1)],
)
def test_what_has_no_bounded_mean_is_refused(values: list[float], low: float, high: float) -> None:
    with pytest.raises(EvidenceError):
        Sample.of(values, low, high)
