"""The timing loop, on a call that costs what the test says."""

from __future__ import annotations

import gc
import time

import numpy as np
import pytest

from targets.errors import RunFailed
from targets.host import runtime_session
from targets.session import RuntimeFacts, TimingPlan, Timings


def test_the_clock_is_finer_than_a_microsecond() -> None:
    assert 1 <= runtime_session.clock_resolution_ns() < 1000


def test_a_coarse_clock_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_session, "perf_counter_ns", lambda: time.perf_counter_ns() // 5_000 * 5_000)
    assert runtime_session.clock_resolution_ns() % 5_000 == 0
    samples, inner, _ = runtime_session.time_calls(lambda: sum(range(2000)), TimingPlan(min_runs=3, min_seconds=0))
    assert inner > 1, "twenty microseconds need more than one call to make 100 steps of 5"
    assert 5_000 < np.median(samples) < 500_000


def test_both_count_and_time_are_reached() -> None:
    plan = TimingPlan(warmup=0, min_runs=3, min_seconds=0.05)
    start = time.perf_counter()
    samples, _, _ = runtime_session.time_calls(lambda: time.sleep(0.002), plan)
    assert time.perf_counter() - start >= 0.05
    assert 3 < len(samples) <= 30
    assert samples.min() >= 2_000_000
    assert len(runtime_session.time_calls(lambda: None, TimingPlan(min_runs=500, min_seconds=0, inner=1))[0]) == 500


def test_warm_up_is_not_among_the_samples() -> None:
    costs = iter([0.02] * 5 + [0.0] * 100)
    samples, _, _ = runtime_session.time_calls(
        lambda: time.sleep(next(costs)), TimingPlan(warmup=5, min_runs=10, min_seconds=0, inner=1)
    )
    assert samples.max() < 15_000_000


def test_garbage_collection_rests_and_returns_even_after_an_error() -> None:
    seen = []
    runtime_session.time_calls(lambda: seen.append(gc.isenabled()), TimingPlan(warmup=0, min_runs=3, min_seconds=0))
    assert not any(seen)
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        runtime_session.time_calls(lambda: 1 // 0, TimingPlan(warmup=0))
    assert gc.isenabled()


@pytest.mark.parametrize(
    "words",
    [
        {"batch": 0},
        {"min_runs": 0},
        {"max_runs": 5},
        {"min_seconds": float("nan")},
        {"min_seconds": -1},
        {"inner": -1},
        {"warmup": -1},
    ],
    ids=str,
)
def test_a_plan_that_times_nothing_is_refused(words: dict[str, float]) -> None:
    with pytest.raises(RunFailed):
        TimingPlan(**words)


def test_percentiles_need_ten_samples_beyond_them() -> None:
    facts = RuntimeFacts("t", "r", "1", "d", 1)

    def timings(count: int, inner: int = 1) -> Timings:
        return Timings("", facts, np.arange(count, dtype=np.int64), 1, inner, 0, 1, 1)

    assert timings(199).percentile(95) is None
    assert timings(200).percentile(95) == pytest.approx(np.percentile(np.arange(200), 95))
    assert timings(9_999).percentile(99.9) is None
    assert timings(10_000).percentile(99.9) is not None
    assert timings(10_000, inner=2).percentile(99) is None, "a mean of several inferences has no tail"
    assert timings(10_000, inner=2).percentile(50) is not None
