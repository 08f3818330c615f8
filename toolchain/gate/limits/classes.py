"""Classes: the class that lost the most, told from chance among all of them."""

from __future__ import annotations

from toolchain.evaluation.compare import comparison
from toolchain.evaluation.paired_answers import Pairs
from toolchain.gate.limits.drop import DropLimit
from toolchain.gate.multiple_tests import Question, judge_several
from toolchain.gate.outcome import Verdict


class ClassesLimit(DropLimit):
    """The same of each class by itself; a class is only said to have failed after Holm's correction for all."""


def judge_classes(limit: ClassesLimit, pairs: Pairs) -> Verdict:
    """Judge the fall in accuracy of each class by itself; the outcome is the worst one's (`multiple_tests`)."""
    rows = comparison(pairs).per_class
    questions = [Question(row.label, row.lost, row.gained, row.images, limit.max) for row in rows]
    return judge_several("classes", questions, confidence=limit.confidence, action=limit.action, what="class")
