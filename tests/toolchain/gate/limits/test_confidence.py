"""Rejects and calibration error: as defined, judged by bounds that cover, and never passed by what cannot be told."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targets.preprocess import Preprocess
from tests.fixtures.small_readers import FACTS, digits, linear_reader, written
from toolchain.core.errors import EvidenceError
from toolchain.evaluation.compare import FileFacts, Pairs
from toolchain.evaluation.evaluate import Evaluation
from toolchain.gate.candidate import evaluate_file
from toolchain.gate.limits.confidence import EceLimit, RejectsLimit, ece, judge_ece, judge_rejects, rejection
from toolchain.stats.decision import Outcome

Answered = tuple[np.ndarray, np.ndarray]
"""Confidence float32 [N] and whether it was right bool [N]."""


def pairs(before: Answered, after: Answered) -> Pairs:
    labels = np.arange(len(before[1])) % 10
    files = [FileFacts(name, "0" * 64, 1000, FACTS, Preprocess()) for name in ("float.onnx", "int8.onnx")]
    answers = [np.where(right, labels, (labels + 1) % 10) for _, right in (before, after)]
    sure = [confidence.astype(np.float32) for confidence, _ in (before, after)]
    ids = np.arange(len(labels)).astype("S32")
    return Pairs(*files, "drawn", "0" * 64, tuple("0123456789"), labels, *answers, *sure, ids)


def drawn(count: int, rng: np.random.Generator, *, noise: float) -> tuple[Answered, Answered]:
    """Two readers of the same images: how hard an image is is shared, `noise` is what the second adds to its doubts."""
    hard = rng.normal(4, 2, count)
    own = hard + rng.normal(0, noise, count)
    right = rng.random(count) < 1 / (1 + np.exp(-hard))
    return (1 / (1 + np.exp(-hard)), right), (1 / (1 + np.exp(-own)), right)


def rejects(**changes: Any) -> RejectsLimit:
    return RejectsLimit(**{"max": 0.02, "error": 0.02} | changes)


@pytest.mark.parametrize(
    ("confidence", "right", "error", "expected"),
    [
        pytest.param([0.9, 0.8, 0.7, 0.6], [1, 1, 1, 1], 0.01, 0.0, id="nothing wrong"),
        pytest.param([0.9, 0.8, 0.7, 0.6], [1, 1, 1, 0], 0.01, 0.25, id="the least sure is wrong"),
        pytest.param([0.6, 0.7, 0.8, 0.9], [0, 1, 1, 1], 0.01, 0.25, id="whatever the order"),
        pytest.param([0.9, 0.8, 0.7, 0.6], [1, 1, 1, 0], 0.25, 0.0, id="as many wrong as may be"),
        pytest.param([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 1], 0.25, 0.0, id="right ones make up for a wrong one"),
        pytest.param([0.9, 0.8, 0.7, 0.6], [0, 1, 1, 1], 0.01, 1.0, id="the surest is wrong"),
        pytest.param([0.9, 0.7, 0.7, 0.7], [1, 1, 1, 0], 0.01, 0.75, id="equally sure ones go together"),
        pytest.param([0.9, 0.9, 0.9, 0.9], [1, 1, 1, 0], 0.01, 1.0, id="no threshold tells them apart"),
        pytest.param(np.linspace(1, 0, 100), np.arange(100) >= 29, 0.29, 0.0, id="29 of 100 are 29 %"),
    ],
)
def test_the_reject_rate_is_the_smallest_that_keeps_the_error(
    confidence: list[float], right: list[int], error: float, expected: float
) -> None:
    assert rejection(np.array(confidence, np.float32), np.array(right, bool), error).rate == pytest.approx(expected)


@given(st.integers(1, 40), st.integers(0, 10_000), st.sampled_from([0.01, 0.05, 0.2, 0.5]))
def test_the_reject_rate_is_what_trying_every_threshold_finds(count: int, seed: int, error: float) -> None:
    rng = np.random.default_rng(seed)
    confidence = rng.integers(1, 9, count).astype(np.float32) / 10
    right = rng.random(count) < confidence
    tried = [(confidence >= level) for level in np.unique(confidence)]
    found = [1 - kept.mean() for kept in tried if (~right[kept]).mean() <= error]
    held = rejection(confidence, right, error)
    assert held.rate == pytest.approx(min(found, default=1.0))
    assert (held.threshold is None) == (not found)
    if held.threshold is not None:
        assert (confidence < held.threshold).mean() == pytest.approx(held.rate)


def test_the_calibration_error_is_that_of_guo_et_al() -> None:
    confidence = np.array([0.95, 0.95, 0.55, 0.55], np.float32)
    right = np.array([True, False, True, False])
    assert ece(confidence, right) == pytest.approx(0.5 * 0.45 + 0.5 * 0.05, abs=1e-6)
    assert ece(confidence, right, bins=1) == pytest.approx(0.25, abs=1e-6)
    assert ece(np.ones(8, np.float32), np.ones(8, bool)) == 0.0
    assert ece(np.zeros(8, np.float32), np.ones(8, bool)) == 1.0
    rng = np.random.default_rng(0)
    honest = rng.uniform(0.2, 1, 200_000).astype(np.float32)
    assert ece(honest, rng.random(200_000) < honest) < 0.01


@pytest.mark.parametrize("statistic", [lambda c, r: rejection(c, r, 0.01).rate, ece])
@pytest.mark.parametrize(
    "confidence", [np.array([], np.float32), np.array([0.5, np.nan], np.float32), np.array([0.5, 1.5], np.float32)]
)
def test_no_images_nan_or_no_probability_is_an_error(statistic: Any, confidence: np.ndarray) -> None:
    with pytest.raises(EvidenceError, match="probabilities"):
        statistic(confidence, np.ones(len(confidence), bool))


@settings(max_examples=25)
@given(st.integers(1, 300), st.integers(0, 1000), st.sampled_from([1e-6, 0.01, 0.3]))
def test_the_same_answers_pass_any_margin(count: int, seed: int, margin: float) -> None:
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.1, 1, count)
    same = confidence, rng.random(count) < confidence
    for verdict in (
        judge_rejects(rejects(max=margin, error=0.01), pairs(same, same)),
        judge_ece(EceLimit(max=margin), pairs(same, same)),
    ):
        assert verdict.outcome is Outcome.PASS
        assert (verdict.measured, verdict.bound) == (0.0, 0.0)


def test_verdicts_go_all_three_ways_and_say_what_a_scanner_would_see() -> None:
    rng = np.random.default_rng(4)
    base, own = drawn(18_800, rng, noise=0.05)
    verdict = judge_rejects(rejects(), pairs(base, own))
    assert verdict.outcome is Outcome.PASS
    assert verdict.bound is not None
    assert verdict.measured is not None
    assert verdict.measured < verdict.bound < 0.02
    base, worse = drawn(18_800, rng, noise=1.5)
    verdict = judge_rejects(rejects(), pairs(base, worse))
    assert verdict.outcome is Outcome.FAIL
    before, after = (rejection(c.astype(np.float32), r, 0.02).rate for c, r in (base, worse))
    assert verdict.measured == pytest.approx(after - before)
    for words in (f"{before:.2%}", f"{after:.2%}", "at most 2.00 % of the accepted wrong", "below a confidence of 0.8"):
        assert words.replace("%", " %").replace("  ", " ") in verdict.reason
    assert "with the baseline's threshold kept the candidate rejects" in verdict.reason
    assert verdict.reason.count("of the accepted wrong") == 2
    few = judge_rejects(rejects(max=0.001), pairs(*drawn(800, rng, noise=0.3)))
    assert few.outcome is Outcome.INCONCLUSIVE
    assert few.samples_needed is not None
    assert few.samples_needed > 800
    assert "images like these would decide" in few.reason


def test_a_candidate_that_must_reject_everything_never_passes() -> None:
    rng = np.random.default_rng(1)
    count = 4000
    confidence = rng.uniform(0.2, 1, count)
    base = confidence, rng.random(count) < 0.5
    base[1][np.argsort(-confidence)[:4]] = True  # a handful can be accepted, so nearly all are rejected already
    own = confidence.copy(), base[1].copy()
    own[1][np.argsort(-confidence)[:4]] = False
    verdict = judge_rejects(rejects(max=0.5), pairs(base, own))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "all by the candidate" in verdict.reason
    assert "no threshold brings the candidate to that error" in verdict.reason


def test_another_confidence_is_seen_by_the_calibration_error_alone_and_either_way() -> None:
    base, _ = drawn(8000, np.random.default_rng(2), noise=0)
    sharper = base[0] ** 0.5
    verdict = judge_ece(EceLimit(max=0.01), pairs(base, (sharper, base[1])))
    assert verdict.outcome is Outcome.FAIL
    assert "of the candidate (mean confidence" in verdict.reason
    assert judge_rejects(rejects(max=0.001), pairs(base, (sharper, base[1]))).outcome is Outcome.PASS
    calmer = judge_ece(EceLimit(max=0.01), pairs((sharper, base[1]), base))
    assert calmer.outcome is Outcome.FAIL
    assert calmer.measured == pytest.approx(verdict.measured)
    assert "change (a fall) of" in calmer.reason


def test_confidences_that_turn_from_too_low_to_too_high_are_no_small_change() -> None:
    right = np.arange(8000) % 10 > 0
    unsure, sure = (np.full(8000, share) for share in (0.8, 0.999))
    assert ece(unsure.astype(np.float32), right) == pytest.approx(ece(sure.astype(np.float32), right), abs=0.002)
    for before, after, words in ((unsure, sure, "low to too high"), (sure, unsure, "high to too low")):
        verdict = judge_ece(EceLimit(max=0.01), pairs((before, right), (after, right)))
        assert verdict.outcome is Outcome.FAIL
        assert verdict.measured == pytest.approx(0.199, abs=0.001)
        assert f"turn from too {words} a confidence of 19.9" in verdict.reason


def test_a_small_turn_within_the_margin_passes() -> None:
    right = np.random.default_rng(5).random(40_000) < 0.9
    before, after = (np.full(40_000, right.mean() + step) for step in (-0.004, 0.004))
    assert judge_ece(EceLimit(max=0.01), pairs((before, right), (after, right))).outcome is Outcome.PASS
    assert judge_ece(EceLimit(max=0.005), pairs((before, right), (after, right))).outcome is Outcome.FAIL


def test_the_same_evidence_gives_the_same_verdict() -> None:
    both = pairs(*drawn(2000, np.random.default_rng(3), noise=0.3))
    assert judge_rejects(rejects(), both) == judge_rejects(rejects(), both)
    assert judge_ece(EceLimit(max=0.01), both) == judge_ece(EceLimit(max=0.01), both)


def test_a_higher_confidence_gives_a_wider_bound() -> None:
    both = pairs(*drawn(400, np.random.default_rng(3), noise=0.3))
    bounds = [judge_rejects(rejects(max=0.5, confidence=c), both).bound for c in (0.9, 0.99, 0.998)]
    assert None not in bounds
    assert bounds == sorted(bounds)


def test_18_800_images_are_judged_within_a_second_or_two() -> None:
    both = pairs(*drawn(18_800, np.random.default_rng(0), noise=0.2))
    start = time.process_time()
    judge_rejects(rejects(), both)
    judge_ece(EceLimit(max=0.01), both)
    # 0.7 s when nothing else runs.
    assert time.process_time() - start < 4


@pytest.mark.slow
def test_a_true_rise_at_the_margin_passes_in_at_most_about_one_of_twenty_draws() -> None:
    """Coverage by the judges' own path: the candidate is as bad as the margin, so every PASS is a false one."""
    rng = np.random.default_rng(0)
    base, own = drawn(2_000_000, rng, noise=0.5)
    before, after = (rejection(c.astype(np.float32), r, 0.02).rate for c, r in (base, own))
    truth = after - before
    drift = ece(own[0].astype(np.float32), own[1]) - ece(base[0].astype(np.float32), base[1])
    assert truth > 0.01
    assert drift > 0.005
    outcomes = []
    for _ in range(40):
        some = rng.integers(0, 2_000_000, 1000)
        both = pairs(*((confidence[some], right[some]) for confidence, right in (base, own)))
        outcomes.append((judge_rejects(rejects(max=truth), both).outcome, judge_ece(EceLimit(max=drift), both).outcome))
    for judged in zip(*outcomes, strict=True):
        # Of 40 draws at 5 %, more than 6 come up once in 300 seeds.
        assert sum(outcome is Outcome.PASS for outcome in judged) <= 6
        assert sum(outcome is Outcome.FAIL for outcome in judged) <= 6


def probabilities(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)


def test_confidence_is_the_softmax_of_logits_and_the_own_answer_of_a_file_that_ends_in_softmax(tmp_path: Path) -> None:
    found = evaluate_file(linear_reader(tmp_path / "reader.onnx"), digits())
    expected = probabilities(found.logits.astype(np.float64)).max(axis=1)
    assert np.allclose(found.confidence, expected, atol=1e-6)
    ended = replace(found, logits=probabilities(found.logits))
    assert np.allclose(ended.confidence, expected, atol=1e-6)
    shifted = replace(found, logits=found.logits + 500)
    assert np.allclose(shifted.confidence, expected, atol=1e-4)


def test_an_8_bit_softmax_of_many_classes_is_still_taken_for_probabilities() -> None:
    rng = np.random.default_rng(0)
    classes = tuple(map(str, range(62)))
    labels = rng.integers(0, 62, 3000)
    shares = probabilities(rng.normal(0, 1, (3000, 62)) + 3 * np.eye(62)[labels])
    rounded = (np.round(shares * 256) / 256).clip(0, 255 / 256).astype(np.float32)
    assert np.abs(rounded.sum(axis=1) - 1).max() > 0.02
    plain = written(labels, labels, classes=classes)
    found: Evaluation = replace(plain, logits=rounded)
    assert np.abs(found.confidence - shares.max(axis=1)).max() < 0.01
