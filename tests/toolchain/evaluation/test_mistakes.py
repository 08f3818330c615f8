from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.fixtures.small_readers import written
from toolchain.evaluation.mistakes import mistakes_of, surest_mistakes

LABELS = np.array([0, 1, 2, 3, 4, 0])
READ = np.array([0, 7, 2, 8, 9, 6])


def test_the_surest_come_first_with_both_probabilities() -> None:
    evaluation = written(READ, LABELS)
    logits = np.zeros((6, 10), np.float32)
    logits[np.arange(6), READ] = [9, 1, 9, 5, 3, 2]
    logits[3, 3] = 4
    evaluation = replace(evaluation, logits=logits)
    found = surest_mistakes(evaluation, 10)
    assert [(one.index, one.truth, one.read) for one in found] == [
        (3, "3", "8"),
        (4, "4", "9"),
        (5, "0", "6"),
        (1, "1", "7"),
    ]
    spread = np.exp(5) + np.exp(4) + 8
    assert found[0].confidence == pytest.approx(np.exp(5) / spread)
    assert found[0].truth_confidence == pytest.approx(np.exp(4) / spread)
    assert surest_mistakes(evaluation, 2) == found[:2]
    assert mistakes_of(evaluation, "1", "7", 5) == found[3:]
    assert mistakes_of(evaluation, "7", "1", 5) == ()


def test_probabilities_are_taken_as_they_are() -> None:
    answers = np.full((6, 10), 0.02, np.float32)
    answers[np.arange(6), READ] = 0.82
    found = surest_mistakes(replace(written(READ, LABELS), logits=answers), 1)[0]
    assert (found.confidence, found.truth_confidence) == pytest.approx((0.82, 0.02))


def test_a_repeated_image_is_shown_once() -> None:
    evaluation = written(READ, LABELS)
    again = replace(
        evaluation, sample_ids=np.array(["a", "b", "c", "b", "d", "e"], "S32"), labels=np.array([0, 1, 2, 1, 4, 0])
    )
    assert len(surest_mistakes(again, 10)) == 3
