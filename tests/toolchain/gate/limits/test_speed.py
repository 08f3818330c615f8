"""Latency verdicts: the interval over rounds decides, a noisy machine is told apart from a slow file."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from tests.fixtures.lazy import stats
from tests.fixtures.timings import BUSY, DEVICE, QUIET, STORMY, noisy_timings, ratio
from toolchain.core.errors import EvidenceError
from toolchain.gate.limit import Verdict
from toolchain.gate.limits.speed import TimeLimit, judge_time
from toolchain.profiling.latency import ROUNDS
from toolchain.report.report import Row
from toolchain.stats.bootstrap import resampled, trimmed_mean
from toolchain.stats.decision import Outcome


@pytest.mark.parametrize(
    ("q", "most", "spread", "outcome"),
    [
        pytest.param(50, 150e-6, BUSY, Outcome.PASS, id="median far below, busy"),
        pytest.param(95, 200e-6, BUSY, Outcome.PASS, id="tail far below, busy"),
        pytest.param(50, 150e-6, STORMY, Outcome.INCONCLUSIVE, id="median, too noisy to say"),
        pytest.param(95, 450e-6, STORMY, Outcome.INCONCLUSIVE, id="tail, too noisy to say"),
        pytest.param(50, 70e-6, BUSY, Outcome.FAIL, id="median far above, busy"),
        pytest.param(95, 80e-6, BUSY, Outcome.FAIL, id="tail far above, busy"),
        pytest.param(50, 90e-6, QUIET, Outcome.FAIL, id="median a little above, quiet"),
    ],
)
def test_a_time_is_judged_by_its_bound(q: float, most: float, spread: float, outcome: Outcome) -> None:
    verdict = judge_time(TimeLimit(max=most), f"p{q:g}", q, noisy_timings(np.random.default_rng(1), spread=spread))
    assert verdict.outcome is outcome
    assert (verdict.bound <= most) == (outcome is Outcome.PASS)
    assert (verdict.samples_needed is not None) == (outcome is Outcome.INCONCLUSIVE)
    for said in ("with 99 % confidence (ort-cpu, 1 thread, batch 1, 20 rounds)", f"{most * 1e6:.0f}"):
        assert said in verdict.reason


@pytest.mark.parametrize("q", [50.0, 95.0])
@pytest.mark.parametrize(
    ("factor", "spread", "outcome"),
    [
        pytest.param(2.0, BUSY, Outcome.FAIL, id="twice the work"),
        pytest.param(1.1, QUIET, Outcome.FAIL, id="a tenth slower, quiet"),
        pytest.param(1.1, STORMY, Outcome.INCONCLUSIVE, id="a tenth slower, too noisy to say"),
        pytest.param(0.5, BUSY, Outcome.PASS, id="half the work"),
        pytest.param(1.0, QUIET, Outcome.PASS, id="the same, quiet"),
    ],
)
def test_a_ratio_is_judged_by_its_bound(q: float, factor: float, spread: float, outcome: Outcome) -> None:
    random = np.random.default_rng(3)
    base, own = (noisy_timings(random, median=100_000 * f, spread=spread) for f in (1, factor))
    verdict = ratio(own, base, 1.05, q)
    assert verdict.outcome is outcome
    assert verdict.measured == pytest.approx(factor, rel=3 * spread)
    assert (verdict.bound <= 1.05) == (outcome is Outcome.PASS)


@pytest.mark.slow
def test_twice_the_work_always_fails_and_the_same_file_twice_never_does() -> None:
    random = np.random.default_rng(4)
    alarms = found = 0
    for _ in range(100):
        base, same, slow = (noisy_timings(random, median=m, spread=BUSY) for m in (1e5, 1e5, 2e5))
        alarms += any(ratio(same, base, limit, q).outcome is Outcome.FAIL for limit in (1.0, 1.05) for q in (50, 95))
        found += all(ratio(slow, base, 1.05, q).outcome is Outcome.FAIL for q in (50, 95))
    assert alarms <= 1
    assert found >= 99


@pytest.mark.parametrize("rounds", [3, 4, 5, 10, 20])
def test_the_middle_rounds_are_those_of_each_resample(rounds: int) -> None:
    values = np.random.default_rng(rounds).standard_t(2, rounds)
    weights = resampled(rounds, 1)
    expected = [stats.trim_mean(np.repeat(values, row.astype(int)), 0.2) for row in weights[:200]]
    np.testing.assert_allclose(trimmed_mean(values, weights)[:200], expected)


def test_a_burst_of_other_work_does_not_decide() -> None:
    random = np.random.default_rng(12)
    bursts = np.where(np.arange(ROUNDS) == 4, 1.0, 0.0)
    base, own = noisy_timings(random), noisy_timings(random, drift=bursts)
    assert ratio(own, base, 1.02).outcome is Outcome.PASS
    tail = judge_time(TimeLimit(max=150e-6), "p95", 95.0, own)
    assert tail.outcome is not Outcome.PASS, "one round of twenty can move the P95 of all samples"


def test_a_drifting_machine_is_unfair_to_no_ratio_but_blurs_a_time() -> None:
    random = np.random.default_rng(5)
    drift = np.cumsum(random.normal(0, 0.15, ROUNDS))
    base, own = (noisy_timings(random, median=m, drift=drift) for m in (100_000, 90_000))
    assert ratio(own, base, 1.0).outcome is Outcome.PASS
    assert ratio(base, own, 1.0).outcome is Outcome.FAIL
    median = own.percentile(50) / 1e9
    blurred = judge_time(TimeLimit(max=1.1 * median), "p50", 50.0, own)
    assert blurred.outcome is Outcome.INCONCLUSIVE
    assert "too close to decide against the limit" in blurred.reason
    assert "time on a quieter machine" in blurred.reason


def test_as_many_inferences_as_are_said_to_decide_mostly_do() -> None:
    random = np.random.default_rng(6)

    def judged(rounds: int) -> Verdict:
        base, own = (
            noisy_timings(random, median=median, spread=0, rounds=rounds, drift=random.normal(0, 0.05, rounds))
            for median in (100_000, 101_000)
        )
        return ratio(own, base, 1.05)

    later = []
    while len(later) < 20:
        first = judged(ROUNDS)
        assert first.outcome is Outcome.INCONCLUSIVE or first.samples_needed is None
        if (first.samples_needed or 1e9) < 40_000:
            assert first.samples_needed > 200 * ROUNDS
            later.append(judged(first.samples_needed // 200).outcome)
    assert later.count(Outcome.PASS) >= 12, "the advice itself is taken from a noisy ratio"
    assert Outcome.FAIL not in later


def test_the_advice_names_inferences_and_time() -> None:
    random = np.random.default_rng(7)
    base, own = (noisy_timings(random, spread=BUSY) for _ in range(2))
    verdict = ratio(own, base, 1.0 + 2 * abs(ratio(own, base, 9.0).measured - 1))
    said = re.search(r"about ([\d,]+) inferences of each file \((\d+) s\) would decide", verdict.reason)
    needed = int(said[1].replace(",", ""))
    assert needed == verdict.samples_needed
    assert needed == int(f"{needed:.1e}".split("e")[0].replace(".", "")) * 10 ** (len(str(needed)) - 2)
    assert int(said[2]) == pytest.approx(needed * (own.samples_ns.mean() + base.samples_ns.mean()) / 1e9, rel=0.2)


def test_what_lies_on_the_limit_is_not_sent_to_time_for_hours() -> None:
    base = noisy_timings(np.random.default_rng(8), spread=0)
    even = np.where(np.arange(ROUNDS) % 2, 1.1, 1 / 1.1).repeat(200)
    own = replace(base, samples_ns=(base.samples_ns * even).astype(np.int64))
    verdict = ratio(own, base, 1.0)
    assert (verdict.outcome, verdict.samples_needed) == (Outcome.INCONCLUSIVE, None)
    assert "an hour of timing would not decide: move the limit" in verdict.reason


@pytest.mark.parametrize("q", [50.0, 95.0])
def test_times_without_rounds_do_not_decide(q: float) -> None:
    alone = replace(noisy_timings(np.random.default_rng(9)), blocks=(0,))
    for verdict in (judge_time(TimeLimit(max=1.0), "time", q, alone), ratio(alone, alone, 9.0, q)):
        assert verdict.outcome is Outcome.INCONCLUSIVE
        assert verdict.bound is None
        assert "4,000 samples in 1 round cannot show how sure it is" in verdict.reason


def test_what_cannot_be_compared_is_an_error() -> None:
    one = noisy_timings(np.random.default_rng(10))
    with pytest.raises(EvidenceError, match="same rounds"):
        ratio(one, replace(one, blocks=(0, 2000)), 1.0)
    with pytest.raises(EvidenceError, match="other threads or batch"):
        ratio(one, replace(one, batch=8), 1.0)
    stopped = replace(one, samples_ns=one.samples_ns * 0)
    with pytest.raises(EvidenceError, match="which cannot be"):
        judge_time(TimeLimit(max=1.0), "p50", 50.0, stopped)
    with pytest.raises(EvidenceError, match="has no duration"):
        ratio(stopped, one, 1.0)
    for blocks in ((0, 200, 200, 400), (0, 200, 9999)):
        with pytest.raises(EvidenceError, match="empty"):
            judge_time(TimeLimit(max=1.0), "p50", 50.0, replace(one, blocks=blocks))


def test_several_threads_and_runtimes_are_named() -> None:
    one = noisy_timings(np.random.default_rng(11))
    threaded = [replace(one, facts=replace(DEVICE, target=name, threads=2)) for name in ("litert-cpu", "ort-cpu")]
    assert "(litert-cpu against ort-cpu, 2 threads, batch 1, 20 rounds)" in ratio(*threaded, 2.0).reason


@pytest.mark.parametrize(("low", "slower"), [(0.9, False), (1.005, False), (1.03, True)])
def test_a_file_is_called_slower_only_by_what_is_worth_telling(low: float, slower: bool) -> None:
    row = Row("a", "onnx", "a", "", 1, "ort-cpu", 1, 1.0, p50_ratio_interval=(low, low + 0.1))
    assert row.slower is slower
