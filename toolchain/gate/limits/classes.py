"""Classes: fall in accuracy of each class, where a FAIL is corrected for the number of classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from toolchain.evaluation.compare import Pairs, comparison
from toolchain.gate.limit import LimitDefinition, Verdict
from toolchain.gate.limits.drop import DropLimit
from toolchain.gate.multiple_tests import Question, decide, judge_together
from toolchain.stats.decision import Outcome


class ClassesLimit(DropLimit):
    """Fall in accuracy of each class by itself; a class fails only after Holm's correction for their number."""


def judge_classes(limit: ClassesLimit, pairs: Pairs) -> Verdict:
    """Judge the fall in accuracy of each class by itself; the outcome is the worst one's (`multiple_tests`)."""
    rows = comparison(pairs).per_class
    questions = [Question(row.label, row.lost, row.gained, row.images, limit.max) for row in rows]
    return judge_together("classes", questions, confidence=limit.confidence, action=limit.action, what="class")


def _simulate(
    limit: ClassesLimit, lost: NDArray[np.int64], gained: NDArray[np.int64], each: NDArray[np.int64]
) -> NDArray[np.str_]:
    parts = decide(lost, gained, each, limit.max, limit.confidence)
    failed, passed = (parts == Outcome.FAIL).any(1), (parts == Outcome.PASS).all(1)
    return np.select([failed, passed], [Outcome.FAIL, Outcome.PASS], Outcome.INCONCLUSIVE)


CLASSES = LimitDefinition(
    name="classes",
    settings=ClassesLimit,
    about="Fall in accuracy of each class by itself.",
    example={"max": "3pp"},
    judge=judge_classes,
    simulate=_simulate,
)
