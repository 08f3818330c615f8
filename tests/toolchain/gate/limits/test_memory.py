"""Memory: judged exactly, and never by a figure that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from calibration.dataset import Dataset
from targets.artifact import Artifact, Format
from toolchain.core.errors import EvidenceError, UsageProblem
from toolchain.gate.candidate import evaluate_file, read_judged_file
from toolchain.gate.collect import compare_files, gather
from toolchain.gate.limits.memory import MemoryLimit, judge_memory
from toolchain.gate.policy import Policy
from toolchain.stats.decision import Outcome

LIMIT = MemoryLimit(max=12_000_000)


@pytest.mark.parametrize(
    ("peak", "outcome"), [(11_550_720, Outcome.PASS), (12_000_000, Outcome.PASS), (12_000_001, Outcome.FAIL)]
)
def test_up_to_the_limit_it_passes(peak: int, outcome: Outcome) -> None:
    verdict = judge_memory(LIMIT, peak)
    assert (verdict.limit, verdict.outcome, verdict.measured, verdict.threshold) == ("memory", outcome, peak, LIMIT.max)
    assert ("12.0 MB" if peak <= LIMIT.max else "12,000,001 bytes") in verdict.reason


@pytest.mark.parametrize("peak", [0, -4096])
def test_no_memory_at_all_is_no_measurement(peak: int) -> None:
    with pytest.raises(EvidenceError, match="cannot be; measure it again"):
        judge_memory(LIMIT, peak)


@pytest.mark.slow
def test_it_is_measured_where_the_answers_came_from_and_on_devices_alone(
    floats: dict[Format, Artifact], digits_test: Dataset
) -> None:
    policy = Policy(memory=MemoryLimit(max=1_000_000_000))
    for word, simulated in (("ort-cpu", False), ("null", True)):
        own = read_judged_file(floats["onnx"].path, digits_test, target=word)
        if simulated:
            with pytest.raises(UsageProblem, match="is measured on devices, and null is none"):
                gather(policy, own, own, digits_test)
        else:
            assert (gather(policy, own, own, digits_test).memory or 0) > 1_000_000


def test_a_target_that_would_run_nothing_is_refused(
    floats: dict[Format, Artifact], digits_test: Dataset, tmp_path: Path
) -> None:
    saved = tmp_path / "saved.npz"
    evaluate_file(floats["onnx"].path, digits_test).save(saved)
    assert compare_files(saved, saved, None).images == len(digits_test)
    with pytest.raises(UsageProblem, match="--target ort-cpu would run nothing"):
        compare_files(saved, saved, None, target="ort-cpu")
    assert compare_files(saved, floats["onnx"].path, digits_test, target="ort-cpu").images == len(digits_test)
