"""Interleaved latency: fair to all, ratios by round, and honest about what a few samples can carry."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from targets.artifact import Artifact, file_sha256
from targets.null import NullTarget
from targets.ort import OrtCpu
from targets.preprocess import Preprocess
from targets.target import TimingPlan
from tests.targets.models import artifact, conv_net
from toolchain.errors import EvidenceError, UsageProblem
from toolchain.report.timings import profile_text
from toolchain.verdict.latency import LatencyRatio, profile, time_interleaved

PLAN = TimingPlan(min_runs=500, max_runs=500, min_seconds=0)


@pytest.fixture
def subject(tmp_path: Path) -> Artifact:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"scripted")
    return Artifact(path, "onnx", file_sha256(path), (), (), Preprocess(), ("a", "b"))


def _drifting(factor: float, seed: int, clock: list[float]) -> NullTarget:
    """Return a target on a machine whose speed wanders from block to block, alike for everyone who runs on it."""

    def times(random: np.random.Generator, count: int) -> np.ndarray:
        clock[0] *= np.exp(random.normal(0, 0.02))
        return factor * 100_000 * clock[0] * np.exp(random.normal(0, 0.05, count))

    return NullTarget(times=times, seed=seed)


def _ratio(subject: Artifact, factor: float, seed: int) -> LatencyRatio:
    clock = [1.0]
    sessions = [_drifting(f, 2 * seed + k, clock).open(subject) for k, f in enumerate((1.0, factor))]
    base, candidate = time_interleaved(sessions, PLAN, seed=seed)
    return LatencyRatio.of(candidate, base, seed=seed)


@pytest.mark.slow
def test_the_same_file_twice_is_not_told_apart_and_a_fifth_slower_is(subject: Artifact) -> None:
    same = [_ratio(subject, 1.0, seed) for seed in range(100)]
    assert 90 <= sum(r.low <= 1 <= r.high for r in same) <= 100, "a 95 % interval"
    slower = [_ratio(subject, 1.2, seed) for seed in range(20)]
    assert all(r.low > 1.05 for r in slower)
    assert sum(r.low <= 1.2 <= r.high for r in slower) >= 16


def test_every_block_is_kept_and_the_plan_holds_for_the_whole(subject: Artifact) -> None:
    sessions = [NullTarget(seed=k).open(subject) for k in range(3)]
    heard: list[tuple[int, int]] = []
    plan = TimingPlan(min_runs=95, max_runs=1000, min_seconds=0)
    timings = time_interleaved(
        sessions, plan, rounds=10, progress=lambda _label, done, total: heard.append((done, total))
    )
    for own in timings:
        assert own.blocks == tuple(range(0, 100, 10))
        assert len(own.samples_ns) == 100
    assert heard == [(k, 10) for k in range(1, 11)]


def test_turns_are_drawn_by_the_seed_and_every_round_has_all(subject: Artifact) -> None:
    def order(seed: int) -> list[int]:
        turns: list[int] = []

        def target(k: int) -> NullTarget:
            return NullTarget(times=lambda _random, n: turns.append(k) or np.full(n, 1000))

        plan = TimingPlan(min_runs=6, max_runs=6, min_seconds=0)
        time_interleaved([target(k).open(subject) for k in range(3)], plan, rounds=6, seed=seed)
        return turns

    turns = order(1)
    assert turns == order(1)
    assert turns != order(2)
    rounds = [turns[k : k + 3] for k in range(0, 18, 3)]
    assert all(sorted(turn) == [0, 1, 2] for turn in rounds)
    assert len({tuple(turn) for turn in rounds}) > 1


def test_a_ratio_needs_three_rounds_for_an_interval(subject: Artifact) -> None:
    two = time_interleaved([NullTarget(times=t).open(subject) for t in (1000, 2000)], PLAN, rounds=2)
    ratio = LatencyRatio.of(two[1], two[0])
    assert ratio.ratio == pytest.approx(2, rel=0.02)
    assert (ratio.low, ratio.high, ratio.rounds) == (None, None, 2)


def test_timings_of_different_runs_are_not_compared(subject: Artifact) -> None:
    [a] = time_interleaved([NullTarget().open(subject)], PLAN, rounds=5)
    [b] = time_interleaved([NullTarget().open(subject)], PLAN, rounds=4)
    with pytest.raises(EvidenceError, match="same rounds"):
        LatencyRatio.of(a, b)
    with pytest.raises(EvidenceError, match="no time"):
        LatencyRatio.of(a, replace(a, samples_ns=a.samples_ns * 0))


@pytest.mark.parametrize("rounds", [0, 501])
def test_rounds_that_cannot_be_are_refused(subject: Artifact, rounds: int) -> None:
    with pytest.raises(UsageProblem, match="rounds"):
        time_interleaved([NullTarget().open(subject)], PLAN, rounds=rounds)


def test_nothing_and_a_foreign_format_are_refused(subject: Artifact) -> None:
    with pytest.raises(UsageProblem, match="nothing to profile"):
        profile([])
    with pytest.raises(UsageProblem, match="does not run"):
        profile([replace(subject, format="tflite")], target=OrtCpu())


def test_a_profile_of_real_files_keeps_the_raw_nanoseconds(tmp_path: Path) -> None:
    small = artifact(conv_net(tmp_path / "small.onnx"))
    large = artifact(conv_net(tmp_path / "large.onnx", channels=64))
    done = profile([small, large], plan=TimingPlan(min_runs=300, min_seconds=0.05), rounds=5)
    assert done.rows[0].ratio is None
    assert done.rows[1].ratio.low > 1.2, "sixteen times the work takes longer"
    done.save_samples(tmp_path / "samples.npz")
    with np.load(tmp_path / "samples.npz", allow_pickle=False) as stored:
        for k, row in enumerate(done.rows):
            np.testing.assert_array_equal(stored[f"samples_ns_{k}"], row.timings.samples_ns)
            assert stored[f"samples_ns_{k}"].dtype == np.int64
            assert tuple(stored[f"blocks_{k}"]) == row.timings.blocks
        meta = json.loads(str(stored["meta"]))
    assert meta == json.loads(json.dumps(done.to_dict(), allow_nan=False))
    assert meta["rows"][0]["machine"]["architecture"]
    with pytest.raises(UsageProblem, match="already there"):
        done.save_samples(tmp_path / "samples.npz")


def test_the_table_shows_a_dash_and_says_why(subject: Artifact) -> None:
    text = profile_text(
        profile([subject, subject], target=NullTarget(times=lambda _random, n: np.full(n, 67_300)), plan=PLAN)
    )
    row = next(line for line in text.splitlines() if line.startswith("net.onnx  "))
    assert row.split()[-3:] == ["-", "-", "-"], "p99, p99.9 and the ratio of the first"
    assert row.count("67.3 us") == 4, "first run, p50, p90 and p95"
    assert "no p99, p99.9: 500 samples are too few" in text
    assert "SIMULATED" in text
