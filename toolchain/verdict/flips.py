"""Flips: how often the answer changes at all, even where accuracy does not."""

from __future__ import annotations

from toolchain.verdict.outcome import Verdict
from toolchain.verdict.pairs import Pairs
from toolchain.verdict.tables import FlipsLimit


def judge_flips(limit: FlipsLimit, pairs: Pairs) -> Verdict:
    """Judge the share of images that are answered otherwise, by one-sided score bounds of a share."""
    raise NotImplementedError
