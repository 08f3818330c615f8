"""Memory: judged exactly, and never by a figure that cannot be."""

from __future__ import annotations

import pytest

from toolchain.errors import EvidenceError
from toolchain.verdict.memory import judge_memory
from toolchain.verdict.outcome import Outcome
from toolchain.verdict.tables import MemoryLimit

LIMIT = MemoryLimit(max=12_000_000)


@pytest.mark.parametrize(
    ("peak", "outcome"), [(11_550_720, Outcome.PASS), (12_000_000, Outcome.PASS), (12_000_001, Outcome.FAIL)]
)
def test_up_to_the_limit_it_passes(peak: int, outcome: Outcome) -> None:
    verdict = judge_memory(LIMIT, peak)
    assert (verdict.limit, verdict.outcome, verdict.measured, verdict.threshold) == ("memory", outcome, peak, LIMIT.max)
    assert "12.0 MB" in verdict.reason


@pytest.mark.parametrize("peak", [0, -4096])
def test_no_memory_at_all_is_no_measurement(peak: int) -> None:
    with pytest.raises(EvidenceError, match="cannot be; measure it again"):
        judge_memory(LIMIT, peak)
