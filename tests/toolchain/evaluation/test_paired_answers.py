"""Pairs: two files' answers on the same images, and nothing that is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fixtures.small_readers import pair, written
from toolchain.core.errors import EvidenceError
from toolchain.evaluation.compare import Pairs
from toolchain.evaluation.evaluate import Evaluation

DIGITS = st.integers(0, 9)


@given(st.lists(st.tuples(DIGITS, DIGITS, DIGITS), min_size=1, max_size=60))
def test_lost_gained_and_flipped_are_those_of_a_plain_loop(answers: list[tuple[int, int, int]]) -> None:
    labels, before, after = (np.array(column) for column in zip(*answers, strict=True))
    pairs = Pairs.of(written(before, labels, name="float.onnx"), written(after, labels, name="int8.onnx"))
    assert pairs.lost.tolist() == [b == y != a for y, b, a in answers]
    assert pairs.gained.tolist() == [a == y != b for y, b, a in answers]
    assert pairs.flipped.tolist() == [a != b for _, b, a in answers]
    assert len(pairs) == len(answers)


def test_each_answer_keeps_the_probability_that_its_own_file_gave() -> None:
    logits = np.array([[0, 0], [2, 0], [0, 1e4]], np.float32)
    labels = np.array([0, 0, 1])
    base = replace(written(labels, labels, classes=("a", "b")), logits=logits)
    pairs = Pairs.of(base, replace(base, logits=np.array([[0.5, 0.5], [0.9, 0.1], [0, 1]], np.float32)))
    assert pairs.before_confidence == pytest.approx([0.5, 1 / (1 + np.exp(-2)), 1])
    assert pairs.after_confidence == pytest.approx([0.5, 0.9, 1]), "what ends in softmax is taken at its word"


@given(st.permutations(range(8)).filter(lambda order: list(order) != list(range(8))))
def test_the_same_images_in_another_order_are_never_paired(order: list[int]) -> None:
    base, own = pair(2, 1, 8)
    shuffled = {name: getattr(own, name)[list(order)] for name in ("logits", "labels", "sample_ids")}
    for both in ((base, replace(own, **shuffled)), (replace(own, **shuffled), base)):
        with pytest.raises(EvidenceError, match="same images in another order, first at image"):
            Pairs.of(*both)


def changes(base: Evaluation) -> dict[str, dict[str, Any]]:
    ids = base.sample_ids.copy()
    ids[7] = b"another image"
    labels = base.labels.copy()
    labels[7] = 9
    return {
        "1 of 20 differ, first image 7": {"sample_ids": ids},
        "under other labels: 1 of 20, first image 7": {"labels": labels},
        "20 and 19 images": {name: getattr(base, name)[:-1] for name in ("logits", "labels", "sample_ids")},
        "on other classes": {"classes": tuple("0123456798")},
        "have no name, digest, size or runtime": {"artifact_sha256": "none"},
        "no file has so many bytes": {"artifact_bytes": 2**63},
        "the data set or a class has no name": {"origin": None},
    }


@pytest.mark.parametrize("message", changes(pair(0, 0, 20)[0]))
def test_what_does_not_belong_together_is_refused_with_the_place_where_it_differs(message: str) -> None:
    base, own = pair(0, 0, 20)
    with pytest.raises(EvidenceError, match=message):
        Pairs.of(base, replace(own, **changes(own)[message]))


def test_two_classes_of_one_name_cannot_be_told_apart() -> None:
    base, own = (replace(one, classes=("0", *tuple("023456789"))) for one in pair(0, 0, 20))
    with pytest.raises(EvidenceError, match="two classes have the same name"):
        Pairs.of(base, own)
