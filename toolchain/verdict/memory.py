"""Memory: the peak of resident memory that a session adds to a process."""

from __future__ import annotations

from toolchain.verdict.outcome import Verdict
from toolchain.verdict.tables import MemoryLimit


def judge_memory(limit: MemoryLimit, peak: int) -> Verdict:
    """Judge the peak, in bytes."""
    raise NotImplementedError
