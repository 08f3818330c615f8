"""Two evaluations, paired image by image."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.fixtures.small_readers import digits, linear_reader, pair, written
from toolchain.core.errors import EvidenceError
from toolchain.core.json_codec import from_json, to_json
from toolchain.evaluation.compare import Comparison, Pairs, compare
from toolchain.evaluation.evaluate import Evaluation
from toolchain.gate.candidate import evaluate_file
from toolchain.stats import paired_difference

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
    base, candidate = pair(2, 1, 8)
    shuffled = {name: getattr(candidate, name)[list(order)] for name in ("logits", "labels", "sample_ids")}
    for both in ((base, replace(candidate, **shuffled)), (replace(candidate, **shuffled), base)):
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
        "no file has 9223372036854775808 bytes": {"artifact_bytes": 2**63},
        "the data set or a class has no name": {"origin": None},
    }


@pytest.mark.parametrize("message", changes(pair(0, 0, 20)[0]))
def test_what_does_not_belong_together_is_refused_with_the_place_where_it_differs(message: str) -> None:
    base, candidate = pair(0, 0, 20)
    with pytest.raises(EvidenceError, match=message):
        Pairs.of(base, replace(candidate, **changes(candidate)[message]))


def test_two_classes_of_one_name_cannot_be_told_apart() -> None:
    base, candidate = (replace(evaluation, classes=("0", *tuple("023456789"))) for evaluation in pair(0, 0, 20))
    with pytest.raises(EvidenceError, match="two classes have the same name"):
        Pairs.of(base, candidate)


answers = st.integers(1, 40).flatmap(
    lambda n: st.tuples(*[hnp.arrays(np.int64, n, elements=st.integers(0, 9)) for _ in range(3)])
)


@settings(max_examples=50)
@given(answers)
def test_counts_are_those_of_a_plain_loop(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, before, after = case
    comparison = compare(written(before, labels), written(after, labels))
    triples = list(zip(labels.tolist(), before.tolist(), after.tolist(), strict=True))
    assert comparison.lost == sum(b == y != a for y, b, a in triples)
    assert comparison.gained == sum(a == y != b for y, b, a in triples)
    assert comparison.flips == sum(a != b for _, b, a in triples)
    assert comparison.drop == pytest.approx(comparison.baseline_accuracy - comparison.candidate_accuracy)
    for k, row in enumerate(comparison.per_class):
        assert row.images == sum(y == k for y, _, _ in triples)
        assert row.lost == sum(b == y != a for y, b, a in triples if y == k)
    assert sum(row.lost for row in comparison.per_class) == comparison.lost
    for confusion in comparison.confusions:
        key = int(confusion.truth), int(confusion.read)
        assert (
            confusion.extra == sum((y, a) == key for y, _, a in triples) - sum((y, b) == key for y, b, _ in triples) > 0
        )


def test_bounds_are_tangos(tmp_path: Path) -> None:
    comparison = compare(*pair(12, 5, 2_000))
    assert comparison.interval == paired_difference.interval(12, 5, 2_000)
    assert (comparison.lower, comparison.upper) == (
        paired_difference.lower_bound(12, 5, 2_000),
        paired_difference.upper_bound(12, 5, 2_000),
    )
    assert comparison.drop == 7 / 2_000


def rows(evaluation: Evaluation, chosen: np.ndarray) -> Evaluation:
    return replace(
        evaluation, **{name: getattr(evaluation, name)[chosen] for name in ("logits", "labels", "sample_ids")}
    )


def test_copies_of_images_make_no_interval_narrower() -> None:
    both = pair(8, 3, 940)
    once = compare(*both)
    again = compare(*(rows(evaluation, np.tile(np.arange(940), 20)) for evaluation in both))
    assert again == replace(once, copies=19 * 940)
    # As honest sets have them: two pictures in a thousand stand there twice.
    few = compare(*(rows(evaluation, np.r_[np.arange(940), 5, 700]) for evaluation in both))
    assert few == replace(once, copies=2)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 39), DIGITS), max_size=60))
def test_no_copy_under_any_label_makes_a_candidate_look_better(copies: list[tuple[int, int]]) -> None:
    both = pair(6, 3, 40)
    chosen = np.r_[np.arange(40), np.array([row for row, _ in copies], int)]
    labels = np.r_[both[0].labels, np.array([label for _, label in copies], int)]
    once = compare(*both)
    more = compare(*(replace(rows(evaluation, chosen), labels=labels) for evaluation in both))
    assert (more.images, more.copies) == (40, len(copies))
    assert more.lost >= once.lost
    assert more.gained <= once.gained
    assert more.candidate_accuracy <= once.candidate_accuracy


def test_worst_classes_and_new_confusions_are_named() -> None:
    comparison = compare(*pair(14, 3, 1_000))
    assert [row.label for row in comparison.worst()] == ["3"]
    assert str(comparison.confusions[0]) == "3 read as 8: +14"


def test_the_same_file_twice_changes_nothing() -> None:
    base, _ = pair(5, 5, 500)
    comparison = compare(base, base)
    assert (comparison.lost, comparison.gained, comparison.flips, comparison.drop, comparison.worst()) == (
        0,
        0,
        0,
        0.0,
        (),
    )
    assert comparison.upper > 0


@settings(max_examples=20)
@given(answers)
def test_a_comparison_comes_back_from_json(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, before, after = case
    comparison = compare(written(before, labels), written(after, labels))
    assert from_json(Comparison, json.dumps(to_json(comparison), allow_nan=False)) == comparison


def test_what_is_no_comparison_is_refused() -> None:
    stored = to_json(compare(*pair(1, 1, 50)))
    for broken in (stored | {"per_class": [{}]}, {k: v for k, v in stored.items() if k != "lost"}, {}):
        with pytest.raises(ValueError, match="is missing"):
            from_json(Comparison, json.dumps(broken))


def test_evaluations_that_do_not_belong_together_are_refused() -> None:
    base, other = pair(5, 5, 500)
    turn = np.r_[1:500, 0]
    moved = replace(other, labels=other.labels[turn], logits=other.logits[turn], sample_ids=other.sample_ids[turn])
    foreign = replace(other, sample_ids=np.r_[other.sample_ids[:-2], np.array([b"a" * 32, b"b" * 32])])
    short = replace(other, labels=other.labels[:9], logits=other.logits[:9], sample_ids=other.sample_ids[:9])
    labels = other.labels.copy()
    labels[7] = (labels[7] + 1) % 10
    for candidate, message in (
        (moved, "the same images in another order, first at image 0"),
        (foreign, "other images: 2 of 500 differ, first image 498"),
        (short, "on 500 and 9 images"),
        (replace(other, labels=labels), "under other labels: 1 of 500, first image 7"),
        (replace(other, classes=tuple("0123456798")), "other classes"),
    ):
        with pytest.raises(EvidenceError, match=message):
            compare(base, candidate)


def test_a_class_that_two_real_files_read_differently_is_the_worst(tmp_path: Path) -> None:
    base = evaluate_file(linear_reader(tmp_path / "float.onnx"), digits())
    broken = evaluate_file(linear_reader(tmp_path / "broken.onnx", dead=(4,)), digits())
    comparison = compare(base, broken)
    assert comparison.worst()[0].label == "4"
    assert comparison.worst()[0].drop > 0.8
    assert comparison.confusions[0].truth == "4"
