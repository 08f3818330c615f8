"""Interleaved latency: fair to all, ratios by round, and honest about what a few samples can carry."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from targets.artifact import Artifact, file_sha256
from targets.null import NullTarget
from targets.onnxruntime.cpu import OrtCpu
from targets.preprocess import Preprocess
from targets.session import RuntimeFacts, Session, TimingPlan, Timings
from tests.fixtures.small_models import artifact, conv_net
from toolchain.core.errors import EvidenceError, UsageProblem
from toolchain.evaluation.timings import LatencyRatio, latency_bounds
from toolchain.profiling.latency import Opening, profile, time_interleaved

PLAN = TimingPlan(min_runs=500, max_runs=500, min_seconds=0)


@pytest.fixture
def reader(tmp_path: Path) -> Artifact:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"scripted")
    return Artifact(path, "onnx", file_sha256(path), (), (), Preprocess(), ("a", "b"))


def _drifting(factor: float, seed: int, clock: list[float]) -> NullTarget:
    """Return a target on a machine whose speed wanders from block to block, alike for everyone who runs on it."""

    def times(random: np.random.Generator, count: int) -> np.ndarray:
        clock[0] *= np.exp(random.normal(0, 0.02))
        return factor * 100_000 * clock[0] * np.exp(random.normal(0, 0.05, count))

    return NullTarget(times=times, seed=seed)


def scripted(reader: Artifact, **script: Any) -> Opening:
    """Return an opening of one session that goes on with its script, for a script would start over in a new one."""
    session = NullTarget(**script).open(reader)
    return lambda: session


def _ratio(reader: Artifact, factor: float, seed: int) -> LatencyRatio:
    clock = [1.0]
    targets = [_drifting(f, 2 * seed + k, clock) for k, f in enumerate((1.0, factor))]
    openings = [partial(nullcontext, target.open(reader)) for target in targets]
    base, candidate = time_interleaved(openings, PLAN, rounds=10, seed=seed)
    return LatencyRatio.of(candidate, base, seed=seed)


@pytest.mark.slow
def test_the_same_file_twice_is_not_told_apart_and_a_fifth_slower_is(reader: Artifact) -> None:
    same = [_ratio(reader, 1.0, seed) for seed in range(100)]
    assert 90 <= sum(r.low <= 1 <= r.high for r in same) <= 100, "a 95 % interval"
    slower = [_ratio(reader, 1.2, seed) for seed in range(20)]
    assert all(r.low > 1.05 for r in slower)
    assert sum(r.low <= 1.2 <= r.high for r in slower) >= 16


@pytest.mark.parametrize(("held", "least", "most"), [(False, 0, 3), (True, 15, 40)], ids=["anew", "held open"])
def test_the_luck_of_a_session_is_no_alarm_since_it_is_drawn_anew_in_every_round(
    reader: Artifact, held: bool, least: int, most: int
) -> None:
    luck = np.random.default_rng(5)

    def lucky() -> Session:
        """Open a session that is up to some per cent slower or faster for as long as it is open."""
        return NullTarget(times=100_000 * np.exp(luck.normal(0, 0.02)), seed=int(luck.integers(1 << 30))).open(reader)

    def alarm() -> bool:
        openings = [partial(nullcontext, lucky()) for _ in range(2)] if held else [lucky, lucky]
        base, candidate = time_interleaved(openings, PLAN, rounds=10, seed=int(luck.integers(1 << 30)))
        ratio = LatencyRatio.of(candidate, base, confidence=0.995)
        return not ratio.low <= 1 <= ratio.high

    assert least <= sum(alarm() for _ in range(40)) <= most


def test_every_block_is_kept_and_the_plan_holds_for_the_whole(reader: Artifact) -> None:
    openings = [scripted(reader, seed=k) for k in range(3)]
    heard: list[tuple[int, int]] = []
    plan = TimingPlan(min_runs=95, max_runs=1000, min_seconds=0)
    timings = time_interleaved(
        openings, plan, rounds=10, progress=lambda _label, done, total: heard.append((done, total))
    )
    for measured in timings:
        assert measured.blocks == tuple(range(0, 100, 10))
        assert len(measured.samples_ns) == 100
    assert heard == [(k, 10) for k in range(1, 11)]


def test_every_round_opens_all_anew_in_an_order_drawn_by_the_seed(reader: Artifact) -> None:
    def order(seed: int) -> list[int]:
        turns: list[int] = []

        def opening(k: int) -> Session:
            turns.append(k)
            return NullTarget().open(reader)

        plan = TimingPlan(min_runs=6, max_runs=6, min_seconds=0)
        time_interleaved([partial(opening, k) for k in range(3)], plan, rounds=6, seed=seed)
        return turns

    turns = order(1)
    assert turns == order(1)
    assert turns != order(2)
    rounds = [turns[k : k + 3] for k in range(0, 18, 3)]
    assert all(sorted(turn) == [0, 1, 2] for turn in rounds)
    assert len({tuple(turn) for turn in rounds}) > 1


def test_a_ratio_needs_three_rounds_for_an_interval(reader: Artifact) -> None:
    two = time_interleaved([scripted(reader, times=t) for t in (1000, 2000)], PLAN, rounds=2)
    ratio = LatencyRatio.of(two[1], two[0])
    assert ratio.ratio == pytest.approx(2, rel=0.02)
    assert (ratio.low, ratio.high, ratio.rounds) == (None, None, 2)


def test_timings_of_different_runs_are_not_compared(reader: Artifact) -> None:
    [a] = time_interleaved([scripted(reader)], PLAN, rounds=5)
    [b] = time_interleaved([scripted(reader)], PLAN, rounds=4)
    with pytest.raises(EvidenceError, match="same rounds"):
        LatencyRatio.of(a, b)
    with pytest.raises(EvidenceError, match="has no duration"):
        LatencyRatio.of(a, replace(a, samples_ns=a.samples_ns * 0))
    with pytest.raises(EvidenceError, match="has no duration"):
        latency_bounds(replace(a, samples_ns=a.samples_ns * 0), 50)


@pytest.mark.parametrize(
    ("count", "inner", "q", "rounds"),
    [
        pytest.param(4000, 1, 95, 20, id="200 in each of 20 rounds"),
        pytest.param(2000, 1, 95, 10, id="two rounds together"),
        pytest.param(1400, 1, 95, 6, id="three or four together"),
        pytest.param(500, 1, 95, 2, id="too few for an interval"),
        pytest.param(180, 1, 95, None, id="too few for the percentile"),
        pytest.param(4000, 2, 95, None, id="means have no tail"),
        pytest.param(4000, 2, 50, 20, id="but a median"),
        pytest.param(40, 1, 50, 20, id="a median of two in a round"),
    ],
)
def test_rounds_are_taken_together_until_they_carry_a_tail(
    reader: Artifact, count: int, inner: int, q: float, rounds: int | None
) -> None:
    plan = TimingPlan(min_runs=count, max_runs=count, min_seconds=0, inner=inner)
    base, candidate = time_interleaved([scripted(reader, times=t) for t in (100_000, 200_000)], plan)
    ratio = LatencyRatio.of(candidate, base, q=q)
    assert (ratio and ratio.rounds) == rounds
    if ratio:
        assert ratio.ratio == pytest.approx(2, rel=0.1)
        assert (ratio.low is not None) == (ratio.rounds > 2)


def test_the_bounds_of_a_percentile_are_those_of_all_samples_in_redrawn_rounds() -> None:
    random = np.random.default_rng(2)
    rounds = 100_000 * random.gamma(40, 1 / 40, (20, 1)) * np.exp(random.gamma(1, 0.1, (20, 300)))
    facts = RuntimeFacts("ort-cpu", "onnxruntime", "1", "cpu", 1)
    timings = Timings("", facts, rounds.astype(np.int64).ravel(), 1, 1, 0, 1, 1, blocks=tuple(range(0, 6000, 300)))
    low, high = latency_bounds(timings, 95, confidence=0.975)
    assert low < timings.percentile(95) < high
    redrawn = [np.percentile(rounds[random.integers(0, 20, 20)], 95) for _ in range(4000)]
    # The expansion for 20 rounds reaches from the tails of 2.5 % to those of 1.6 %.
    np.testing.assert_allclose((low, high), np.percentile(redrawn, [1.6, 98.4]), rtol=0.02)
    again = latency_bounds(timings, 95, confidence=0.9999)
    assert again[0] < low < high < again[1]
    assert latency_bounds(replace(timings, blocks=(0, 3000)), 95) is None


@pytest.mark.parametrize("rounds", [0, 501])
def test_rounds_that_cannot_be_are_refused(reader: Artifact, rounds: int) -> None:
    with pytest.raises(UsageProblem, match="rounds"):
        time_interleaved([scripted(reader)], PLAN, rounds=rounds)


def test_nothing_and_a_foreign_format_are_refused(reader: Artifact) -> None:
    with pytest.raises(UsageProblem, match="nothing to profile"):
        profile([])
    with pytest.raises(UsageProblem, match="does not run"):
        profile([replace(reader, format="tflite")], target=OrtCpu())


def test_a_profile_of_real_files_keeps_the_raw_nanoseconds(tmp_path: Path) -> None:
    small = artifact(conv_net(tmp_path / "small.onnx"))
    large = artifact(conv_net(tmp_path / "large.onnx", channels=64))
    done = profile([small, large], plan=TimingPlan(min_runs=300, min_seconds=0.05, inner=1), rounds=5)
    assert done.rows[0].ratio is None
    assert done.rows[1].ratio.low > 1.2, "sixteen times the work takes longer"
    assert done.to_dict()["rows"][1]["ratio_p95"] is not None
    done.save_samples(tmp_path / "samples.npz")
    with np.load(tmp_path / "samples.npz", allow_pickle=False) as stored:
        for k, row in enumerate(done.rows):
            np.testing.assert_array_equal(stored[f"samples_ns_{k}"], row.timings.samples_ns)
            assert stored[f"samples_ns_{k}"].dtype == np.int64
            assert tuple(stored[f"blocks_{k}"]) == row.timings.blocks
        meta = json.loads(str(stored["meta"]))
    assert meta.pop("schema") == "glyphpress/timings/1"
    assert meta == json.loads(json.dumps(done.to_dict(), allow_nan=False))
    assert meta["rows"][0]["machine"]["architecture"]
    with pytest.raises(UsageProblem, match="already there"):
        done.save_samples(tmp_path / "samples.npz")
