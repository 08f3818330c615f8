"""Verdicts: non-inferiority decided both ways, too little evidence told apart, nothing passes by default."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.load import load
from targets.session import RuntimeFacts, Timings
from tests.fixtures.small_readers import digits, linear_reader, pair, ridge
from toolchain.core.errors import EvidenceError, GateFailed, GateInconclusive
from toolchain.core.json_codec import from_json, to_json
from toolchain.evaluation.compare import Pairs, compare
from toolchain.evaluation.evaluate import Evaluation
from toolchain.gate.candidate import evaluate_file
from toolchain.gate.gate import Evidence, judge
from toolchain.gate.limit import Verdict, overall, raise_for
from toolchain.gate.limits.drop import DropLimit, judge_drop
from toolchain.gate.policy import Policy, policy_from
from toolchain.stats import paired_difference
from toolchain.stats.decision import Outcome

DEVICE = RuntimeFacts("ort-cpu", "onnxruntime", "1.31", "CPUExecutionProvider", 1)


def policy(**tables: dict[str, Any]) -> Policy:
    return policy_from(tables)


def evidence(*both: Evaluation, **held: Any) -> Evidence:
    return Evidence(Pairs.of(*(both or pair(0, 0, 100))), **held)


BASE, OWN = (one.artifact_sha256 for one in pair(0, 0, 10))


def timings(sha256: str = OWN, *, count: int = 1000, median: float = 100_000, **changes: Any) -> Timings:
    """Return ten rounds that are all alike."""
    samples = np.tile(np.linspace(0.9 * median, 1.1 * median, count // 10), 10).astype(np.int64)
    blocks = tuple(range(0, count, count // 10))
    made = Timings(sha256, DEVICE, samples, batch=1, inner=1, warmup=20, load_ns=1, first_run_ns=1, blocks=blocks)
    return replace(made, **changes)


@pytest.mark.parametrize(
    ("lost", "gained", "count", "outcome"),
    [
        pytest.param(6, 4, 18_800, Outcome.PASS, id="honest int8"),
        pytest.param(0, 0, 18_800, Outcome.PASS, id="the same answers"),
        pytest.param(0, 50, 18_800, Outcome.PASS, id="better"),
        pytest.param(0, 0, 360, Outcome.INCONCLUSIVE, id="the same answers on too few images"),
        pytest.param(30, 5, 18_800, Outcome.PASS, id="small drop, narrow bound"),
        pytest.param(60, 5, 18_800, Outcome.INCONCLUSIVE, id="seen just below the margin"),
        pytest.param(70, 5, 18_800, Outcome.INCONCLUSIVE, id="seen above the margin, but not shown"),
        pytest.param(200, 5, 18_800, Outcome.FAIL, id="shown beyond the margin"),
        pytest.param(300, 10, 360, Outcome.FAIL, id="broken, few images"),
    ],
)
def test_accuracy_is_a_non_inferiority_test(lost: int, gained: int, count: int, outcome: Outcome) -> None:
    (verdict,) = judge(policy(drop={"max": "0.3pp"}), evidence(*pair(lost, gained, count)))
    assert verdict.outcome is outcome
    assert (verdict.samples_needed is not None) == (outcome is Outcome.INCONCLUSIVE)
    assert verdict.measured == (lost - gained) / count
    if verdict.samples_needed:
        assert verdict.samples_needed > count
        assert f"{verdict.samples_needed:,} images" in verdict.reason


ANY = compare(*pair(3, 1, 200))


@settings(max_examples=80)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(130, 30_000), st.floats(0.001, 0.2))
def test_no_drop_at_or_beyond_the_margin_ever_passes(lost: int, gained: int, count: int, margin: float) -> None:
    drop = (lost - gained) / count
    counts = {"lost": lost, "gained": gained, "images": count, "flips": lost + gained, "per_class": ()}
    ends = {"interval": (-1.0, 1.0), "lower": -1.0, "upper": 1.0}
    comparison = replace(ANY, **counts, **ends, drop=drop, baseline_accuracy=0.5, candidate_accuracy=0.5 - drop)
    verdict = judge_drop(DropLimit(max=margin), comparison)
    if comparison.drop >= margin:
        assert verdict.outcome is not Outcome.PASS
    if comparison.drop <= margin:
        assert verdict.outcome is not Outcome.FAIL
    if verdict.outcome is Outcome.INCONCLUSIVE:
        assert verdict.samples_needed is None or verdict.samples_needed > count


def test_the_confidence_is_the_policys() -> None:
    seen = evidence(*pair(30, 5, 18_800))
    bounds = [judge(policy(drop={"max": "0.3pp", "confidence": level}), seen)[0].bound for level in (0.9, 0.99)]
    assert bounds == [float(paired_difference.upper_bound(30, 5, 18_800, level)) for level in (0.9, 0.99)]


def test_a_planted_regression_fails_and_names_the_classes_that_suffered(tmp_path: Path) -> None:
    base = evaluate_file(linear_reader(tmp_path / "float.onnx"), digits())
    broken = evaluate_file(linear_reader(tmp_path / "broken.onnx", dead=(4, 7)), digits())
    (verdict,) = judge(policy(drop={"max": "0.3pp"}), evidence(base, broken))
    assert verdict.outcome is Outcome.FAIL
    suffered = verdict.reason.split("suffered most: ")[1]
    assert suffered.startswith(("'4' (", "'7' ("))
    assert "'4' (" in suffered
    assert "'7' (" in suffered
    with pytest.raises(GateFailed, match=r"^FAIL: broken\.onnx \(drop\)$"):
        raise_for([verdict])


def test_an_honest_rounding_passes_a_margin_that_its_images_can_decide(tmp_path: Path) -> None:
    base = evaluate_file(linear_reader(tmp_path / "float.onnx"), digits())
    rounded = evaluate_file(linear_reader(tmp_path / "rounded.onnx", step=1e-4), digits())
    seen = evidence(base, rounded)
    assert judge(policy(drop={"max": "3pp"}), seen)[0].outcome is Outcome.PASS
    (tight,) = judge(policy(drop={"max": "0.3pp"}), seen)
    assert tight.outcome is Outcome.INCONCLUSIVE
    assert "would decide" in tight.reason
    with pytest.raises(GateInconclusive, match=r"\(drop\)$"):
        raise_for([tight])


def test_real_emnist_images_decide_three_tenths_of_a_point(emnist_root: Path, tmp_path: Path) -> None:
    train, data = (load(f"{emnist_root / 'resplit'}:digits", split) for split in ("train", "test"))
    linear = ridge(train.take(np.arange(6_000), "first 6,000"))
    base, rounded, broken = (
        evaluate_file(linear_reader(tmp_path / name, linear=linear, **damage), data)
        for name, damage in (("a.onnx", {}), ("b.onnx", {"step": 1e-5}), ("c.onnx", {"dead": (4, 7)}))
    )
    assert len(base) == 10_000
    assert base.accuracy > 0.8
    limit = policy(drop={"max": "0.3pp"})
    assert judge(limit, evidence(base, rounded))[0].outcome is Outcome.PASS
    (verdict,) = judge(limit, evidence(base, broken))
    assert verdict.outcome is Outcome.FAIL
    assert {row.label for row in compare(base, broken).worst()[:2]} == {"4", "7"}


@pytest.mark.parametrize(
    ("tables", "size", "outcome"),
    [
        ({"size": {"max": "250B"}}, 250, Outcome.PASS),
        ({"size": {"max": "250B"}}, 251, Outcome.FAIL),
        ({"shrink": {"min": "4x"}}, 250, Outcome.PASS),
        ({"shrink": {"min": "4x"}}, 251, Outcome.FAIL),
    ],
)
def test_sizes_are_judged_to_the_byte(tables: dict[str, Any], size: int, outcome: Outcome) -> None:
    seen = evidence(*pair(0, 0, 100, size=size))
    assert [v.outcome for v in judge(policy(**tables), seen)] == [outcome]


def test_latency_is_judged_by_its_percentile() -> None:
    for limit, outcome in (("110us", Outcome.PASS), ("108us", Outcome.FAIL)):
        (verdict,) = judge(policy(p95={"max": limit}), evidence(timings=timings()))
        assert (verdict.outcome, verdict.measured) == (outcome, pytest.approx(109e-6, rel=1e-3))
    for limit, outcome in (("0.51x", Outcome.PASS), ("0.49x", Outcome.FAIL)):
        (verdict,) = judge(
            policy(p50_ratio={"max": limit}),
            evidence(timings=timings(median=50_000), baseline_timings=timings(BASE, median=100_000)),
        )
        assert (verdict.outcome, verdict.measured) == (outcome, pytest.approx(0.5, rel=1e-4))


@pytest.mark.parametrize(
    ("changes", "message", "needed"),
    [
        pytest.param({"count": 150}, "150 samples cannot show it; time at least 200 inferences", 200, id="too few"),
        pytest.param({"inner": 10}, "mean of 10 inferences", None, id="averaged"),
        pytest.param({"facts": replace(DEVICE, device_type="software")}, "simulated", None, id="simulated"),
    ],
)
def test_a_latency_that_cannot_be_seen_is_inconclusive(changes: dict[str, Any], message: str, needed: int) -> None:
    seen = evidence(timings=timings(**changes), baseline_timings=timings(BASE, **changes))
    verdicts = judge(policy(p95={"max": "1s"}, p95_ratio={"max": "9x"}), seen)
    for verdict in verdicts:
        assert (verdict.outcome, verdict.measured) == (Outcome.INCONCLUSIVE, None)
        assert message in verdict.reason
        assert verdict.samples_needed == needed


@pytest.mark.parametrize(
    ("tables", "held"),
    [
        ({"stress": {"max": "1pp"}}, {}),
        ({"runtimes": {"max": 0}}, {}),
        ({"leaks": {}}, {}),
        ({"packed": {"max": "1KB"}}, {}),
        ({"memory": {"max": "1MB"}}, {}),
        ({"p50": {"max": "1ms"}}, {}),
        ({"p95": {"max": "1ms"}}, {}),
        ({"p50_ratio": {"max": "1x"}}, {"timings": timings()}),
        ({"p95_ratio": {"max": "1x"}}, {"baseline_timings": timings(BASE)}),
    ],
)
def test_a_limit_without_evidence_is_an_error(tables: dict[str, Any], held: dict[str, Any]) -> None:
    with pytest.raises(EvidenceError, match=f"limits {next(iter(tables))}, but the evidence does not hold it"):
        judge(policy(**tables), evidence(**held))


def test_evidence_of_another_file_or_another_place_is_an_error() -> None:
    with pytest.raises(EvidenceError, match="candidate's timings are of another file"):
        evidence(timings=timings("f" * 64))
    elsewhere = timings(BASE, facts=replace(DEVICE, threads=4))
    with pytest.raises(EvidenceError, match="other threads or batch"):
        judge(policy(p50_ratio={"max": "9x"}), evidence(timings=timings(), baseline_timings=elsewhere))
    for size in (0, -1):
        with pytest.raises(EvidenceError, match=f"no file has {size} bytes"):
            judge(policy(size={"max": "1KB"}), evidence(*pair(0, 0, 100, size=size)))


def verdict(outcome: Outcome, action: Any = "fail") -> Verdict:
    return Verdict("size", outcome, action, 1.0, 2.0, None, f"because {outcome}")


def test_the_outcome_is_the_worst_that_counts() -> None:
    good, bad, open_ = (verdict(o) for o in (Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE))
    assert overall([good, open_, bad]) is Outcome.FAIL
    assert overall([good, open_]) is Outcome.INCONCLUSIVE
    assert overall([good, verdict(Outcome.FAIL, "warn")]) is Outcome.PASS
    with pytest.raises(EvidenceError, match="nothing was judged"):
        overall([])
    raise_for([good])
    with pytest.raises(GateFailed, match=r"^FAIL: size$"):
        raise_for([open_, bad])
    with pytest.raises(GateInconclusive, match=r"^INCONCLUSIVE: size$"):
        raise_for([good, open_, verdict(Outcome.FAIL, "warn")])


def test_a_verdict_comes_back_from_json() -> None:
    _, made = judge(policy(drop={"max": "0.3pp"}, classes={"max": "9pp"}), evidence(*pair(1, 0, 50)))
    assert from_json(Verdict, json.dumps(to_json(made), allow_nan=False)) == made
    with pytest.raises(ValueError, match=r'outcome: it should be .*, not "MAYBE"'):
        from_json(Verdict, json.dumps(to_json(made) | {"outcome": "MAYBE"}))
