"""Confusables: characters that look alike, and what it costs to take one for another."""

from __future__ import annotations

from toolchain.verdict.outcome import Verdict
from toolchain.verdict.pairs import Pairs
from toolchain.verdict.tables import ConfusablesLimit, CostLimit


def judge_confusables(limit: ConfusablesLimit, pairs: Pairs) -> Verdict:
    """Judge, for each group of look-alikes, how much more often one is read as another of its group."""
    raise NotImplementedError


def judge_cost(limit: CostLimit, pairs: Pairs) -> Verdict:
    """Judge the rise of the mean cost of an image's misreading."""
    raise NotImplementedError
