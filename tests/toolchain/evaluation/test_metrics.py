"""Metrics against scikit-learn and scipy."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.fixtures.lazy import metrics, stats
from tests.fixtures.small_readers import written
from toolchain.core.errors import EvidenceError
from toolchain.evaluation.metrics import Confusion, Hypothesis, measure
from toolchain.stats.share import wilson

answers = st.integers(1, 60).flatmap(
    lambda n: st.tuples(*[hnp.arrays(np.int64, n, elements=st.integers(0, 9)) for _ in range(2)])
)


@settings(max_examples=60)
@given(answers)
def test_agrees_with_scikit_learn(case: tuple[np.ndarray, np.ndarray]) -> None:
    labels, predictions = case
    measured = measure(written(predictions, labels))
    for average, ours in (("macro", measured.macro), ("micro", measured.micro)):
        reference = metrics.precision_recall_fscore_support(labels, predictions, average=average, zero_division=0)[:3]
        assert (ours.precision, ours.recall, ours.f1) == pytest.approx(reference)
    assert np.array_equal(measured.confusion, metrics.confusion_matrix(labels, predictions, labels=range(10)))
    each = metrics.precision_recall_fscore_support(labels, predictions, labels=range(10), zero_division=0)
    ours_each = [(row.precision or 0.0, row.recall or 0.0, row.f1, row.images) for row in measured.per_class]
    assert np.allclose(ours_each, np.transpose(each))
    assert measured.accuracy == np.mean(labels == predictions)
    if len(np.unique((labels, predictions))) > 1:
        assert measured.kappa == pytest.approx(metrics.cohen_kappa_score(labels, predictions))
    else:
        assert measured.kappa is None, "both always name one class, so there is no agreement beyond chance"


def test_copies_of_images_make_no_interval_narrower() -> None:
    labels = np.arange(60) % 10
    once = written(np.where(np.arange(60) < 6, 9 - labels, labels), labels)
    chosen = np.tile(np.arange(60), 5)
    rows = {name: getattr(once, name)[chosen] for name in ("logits", "labels", "sample_ids")}
    again = replace(once, **rows)
    assert measure(again).interval == measure(once).interval
    assert (measure(again).images, measure(again).copies, again.accuracy) == (60, 240, once.accuracy)


@given(st.integers(1, 20_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_interval_agrees_with_scipy(case: tuple[int, int]) -> None:
    reference = stats.binomtest(*case).proportion_ci(0.95, method="wilson")
    assert wilson(*case) == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_an_interval_of_nothing_is_refused() -> None:
    with pytest.raises(EvidenceError, match="at least one image"):
        wilson(0, 0)


def test_the_most_confused_pairs_come_first_and_right_answers_never() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    predictions = np.array([0, 7, 7, 7, 1, 0, 2, 2])
    confusions = measure(written(predictions, labels)).confusions
    assert confusions == (Confusion("0", "7", 2), Confusion("1", "7", 1), Confusion("2", "0", 1))


def test_a_class_without_images_has_no_recall_and_one_never_answered_no_precision() -> None:
    measured = measure(written(np.array([0, 7]), np.array([0, 1])))
    assert (measured.per_class[7].recall, measured.per_class[7].precision) == (None, 0.0)
    assert (measured.per_class[1].recall, measured.per_class[1].precision) == (0.0, None)
    assert json.loads(json.dumps(measured.to_dict(), allow_nan=False))["confusion"][1][7] == 1


@pytest.mark.parametrize(("claim", "verdict"), [(0.7, "accepted"), (0.8, "undecided"), (0.9, "rejected")])
def test_a_claim_is_decided_by_the_interval(claim: float, verdict: str) -> None:
    labels = np.zeros(400, np.int64)
    predictions = np.where(np.arange(400) < 324, 0, 1)
    tested = Hypothesis.test(claim, measure(written(predictions, labels)))
    assert tested.verdict == verdict
    assert f"is {verdict}: 81.00 % of 400 images" in tested.sentence()
