"""Confidence: what a scanner that rejects what it is unsure of would notice."""

from __future__ import annotations

from toolchain.verdict.outcome import Verdict
from toolchain.verdict.pairs import Pairs
from toolchain.verdict.tables import EceLimit, RejectsLimit


def judge_rejects(limit: RejectsLimit, pairs: Pairs) -> Verdict:
    """Judge the rise in the share of images that must be rejected to keep the error of the others at `limit.error`."""
    raise NotImplementedError


def judge_ece(limit: EceLimit, pairs: Pairs) -> Verdict:
    """Judge the rise of the expected calibration error."""
    raise NotImplementedError
