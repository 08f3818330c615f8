"""Flips: the share of changed answers, by exact bounds, where accuracy says nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fixtures.lazy import stats
from tests.fixtures.small_readers import written
from toolchain.evaluation.compare import Pairs
from toolchain.gate.gate import Evidence, judge
from toolchain.gate.limit import Verdict
from toolchain.gate.limits.flips import FlipsLimit, decide, judge_flips
from toolchain.gate.policy import policy_from
from toolchain.stats.decision import Outcome


def wandering(flips: int, count: int) -> Pairs:
    """Both files read the first `flips` images wrongly, each in a way of its own, and all others rightly."""
    labels = np.zeros(count, np.int64)
    before, after = labels.copy(), labels.copy()
    before[:flips], after[:flips] = 1, 2
    return Pairs.of(written(before, labels, name="a.onnx"), written(after, labels, name="b.onnx"))


def judged(flips: int, count: int, limit: float = 0.01, confidence: float = 0.95) -> Verdict:
    return judge_flips(FlipsLimit(max=limit, confidence=confidence), wandering(flips, count))


@pytest.mark.parametrize(
    ("flips", "count", "outcome"),
    [
        pytest.param(40, 18_800, Outcome.PASS, id="an honest int8"),
        pytest.param(0, 300, Outcome.PASS, id="none, on enough images"),
        pytest.param(0, 260, Outcome.INCONCLUSIVE, id="none, on too few images"),
        pytest.param(180, 18_800, Outcome.INCONCLUSIVE, id="just below the limit"),
        pytest.param(190, 18_800, Outcome.INCONCLUSIVE, id="just beyond the limit"),
        pytest.param(260, 18_800, Outcome.FAIL, id="shown beyond the limit"),
        pytest.param(50, 50, Outcome.FAIL, id="every answer"),
    ],
)
def test_flips_are_decided_both_ways(flips: int, count: int, outcome: Outcome) -> None:
    found = judged(flips, count)
    assert found.outcome is outcome
    assert found.measured == flips / count
    assert (found.samples_needed is not None) == (outcome is Outcome.INCONCLUSIVE)
    if found.samples_needed:
        assert found.samples_needed > count
        assert f"about {found.samples_needed:,} images like these" in found.reason


def test_answers_that_wander_fail_though_no_accuracy_is_lost() -> None:
    # Every image is of one class, which a constant answer would read.
    policy = policy_from({"baseline": {"min_accuracy": "90%"}, "drop": {"max": "0.3pp"}, "flips": {"max": "1%"}})
    drop, flips = judge(policy, Evidence(wandering(400, 18_800)))
    assert (drop.outcome, drop.measured) == (Outcome.PASS, 0.0)
    assert flips.outcome is Outcome.FAIL
    assert flips.reason == (
        "2.13 % of 18,800 answers (400) changed, at least 1.96 % with 95 % confidence, beyond the limit "
        "of 1 %; most often 1 to 2: 400"
    )


def test_a_share_at_the_limit_needs_no_number_that_does_not_exist() -> None:
    found = judged(100, 10_000)
    assert (found.outcome, found.samples_needed) == (Outcome.INCONCLUSIVE, None)
    assert "no number of images can decide a share that equals the limit" in found.reason


@settings(max_examples=60)
@given(st.integers(0, 300), st.integers(300, 3_000), st.floats(0.001, 0.3), st.floats(0.55, 0.999))
def test_the_decision_is_what_exact_bounds_say(flips: int, count: int, limit: float, confidence: float) -> None:
    found = judged(flips, count, limit, confidence)
    exact = stats.binomtest(flips, count).proportion_ci(2 * confidence - 1, method="exact")
    said = Outcome.PASS if exact.high < limit else Outcome.FAIL if exact.low > limit else Outcome.INCONCLUSIVE
    assert found.outcome is said
    assert found.bound == pytest.approx(exact.low if said is Outcome.FAIL else exact.high, abs=1e-12)


@pytest.mark.parametrize("limit", [0.001, 0.008, 0.013, 0.05], ids=lambda limit: f"row49-{limit:.1%}")
def test_at_the_limit_neither_side_errs_more_often_than_it_says(limit: float) -> None:
    for count in (*range(100, 1_500, 37), 4_000, 18_800):
        flips = np.arange(count + 1)
        chances, outcomes = stats.binom.pmf(flips, count, limit), decide(flips, count, limit, 0.95)
        for outcome in (Outcome.PASS, Outcome.FAIL):
            assert chances[outcomes == outcome].sum() <= 0.05, (count, outcome)


def test_the_number_of_images_has_the_power_it_promises() -> None:
    needed = judged(8, 1_000).samples_needed
    assert needed is not None
    draws, times = np.unique(np.random.default_rng(1).binomial(needed, 0.008, size=4_000), return_counts=True)
    passed = times[decide(draws, needed, 0.01, 0.95) == Outcome.PASS]
    assert passed.sum() / 4_000 == pytest.approx(0.8, abs=0.03)
