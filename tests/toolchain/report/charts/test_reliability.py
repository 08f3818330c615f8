"""The reliability diagram: accuracy by confidence, with intervals and counts, before and after."""

from __future__ import annotations

import numpy as np
import pytest

from targets.preprocess import Preprocess
from tests.fixtures.svg import HOSTILE, Picture
from tests.fixtures.timings import DEVICE
from toolchain.evaluation.compare import FileFacts, Pairs
from toolchain.report.charts.reliability import calibration_error, reliability_bins, reliability_svg


def pairs(before: list[tuple[float, bool]], after: list[tuple[float, bool]], name: str = "int8.onnx") -> Pairs:
    """Return pairs whose answers have these confidences, and are right or wrong."""
    labels = np.zeros(len(before), np.int64)
    answers = [np.array([int(not right) for _, right in one], np.int64) for one in (before, after)]
    confidences = [np.array([confidence for confidence, _ in one], np.float32) for one in (before, after)]
    facts = [FileFacts(file, "a" * 64, 1000, DEVICE, Preprocess()) for file in ("float.onnx", name)]
    ids = np.array([f"{k:032}" for k in range(len(before))], "S32")
    return Pairs(*facts, "mine/test", "c" * 64, ("a", "b"), labels, *answers, *confidences, ids)


SURE = [(0.95, True)] * 90 + [(0.95, False)] * 10 + [(0.55, True)] * 30 + [(0.55, False)] * 20
VAIN = [(0.95, True)] * 50 + [(0.95, False)] * 50 + [(0.55, True)] * 30 + [(0.55, False)] * 20


def test_bins_hold_their_answers_and_one_is_in_the_last() -> None:
    confidence = np.array([0.0, 0.05, 0.1, 0.95, 1.0], np.float32)
    bins = reliability_bins(confidence, np.array([True, False, True, True, False]))
    assert {index: one.count for index, one in bins.items()} == {0: 2, 1: 1, 9: 2}
    assert bins[9].accuracy == 0.5
    assert bins[9].confidence == pytest.approx(0.975)
    assert bins[9].interval[0] < 0.5 < bins[9].interval[1]


def test_the_error_is_the_weighted_gap() -> None:
    drawn = pairs(SURE, VAIN)
    bins = reliability_bins(drawn.after_confidence, np.equal(drawn.after, drawn.labels))
    assert calibration_error(bins) == pytest.approx((100 * 0.45 + 50 * 0.05) / 150)
    assert calibration_error({}) == 0


@pytest.mark.parametrize("width", [358, 720])
def test_marks_stand_at_confidence_and_accuracy(width: int) -> None:
    picture = Picture(reliability_svg(pairs(SURE, VAIN), width=width)).check()
    zero, half, top = (
        next(one for one in picture.texts() if one.text == text and one.x < 60) for text in ("0 %", "50 %", "100 %")
    )
    assert half.y - zero.y == pytest.approx(top.y - half.y, abs=0.2)
    legend = min(one.y for one in picture.texts() if one.text.startswith("before"))
    marks = sorted(
        (float(one.get("cx", 0)), float(one.get("cy", 0)))
        for one in picture.all("circle")
        if float(one.get("cy", 0)) < legend - 20
    )
    assert [y for _, y in marks] == pytest.approx(
        [zero.y - 4 + share * (top.y - zero.y) for share in (0.6, 0.5)], abs=0.3
    )
    left = next(one for one in picture.texts() if one.text == "50 %" and one.x > 60)
    right = next(one for one in picture.texts() if one.text == "100 %" and one.x > 60)
    unit = marks[1][0] - marks[0][0]
    assert unit / (right.area.right - left.x) == pytest.approx(0.8, abs=0.08)
    assert "before: mean gap 5.00 points" in picture.words
    assert "after: mean gap 31.67 points" in picture.words
    notes = [one[0].text for one in picture.all("g")]
    assert "before: 100 answers of confidence 95.0%, 90.0% right" in notes


def test_one_image_and_a_hostile_name_are_drawn() -> None:
    svg = reliability_svg(pairs([(0.3, True)], [(1.0, False)], HOSTILE))
    assert not Picture(svg).check().all("script")
    assert "on 1 image." in Picture(svg).title
