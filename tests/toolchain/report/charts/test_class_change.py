"""The change of each class: order, places, and what is not drawn."""

from __future__ import annotations

import pytest

from tests.fixtures.svg import HOSTILE, Picture, level_ends
from toolchain.evaluation.compare import ClassDrop
from toolchain.report.charts.class_change import class_change_svg


def drop(label: str, images: int, lost: int, gained: int) -> ClassDrop:
    return ClassDrop(label, images, lost, gained, (lost - gained) / max(images, 1))


CLASSES = [drop("a", 400, 4, 0), drop("b", 400, 0, 8), drop("c", 400, 2, 2), drop("d", 400, 0, 0), drop("e", 0, 0, 0)]


@pytest.mark.parametrize("width", [358, 720])
def test_the_largest_change_comes_first_at_its_place(width: int) -> None:
    picture = Picture(class_change_svg(CLASSES, width=width)).check()
    names = sorted((one.y, one.text) for one in picture.texts() if one.text in "abcde")
    assert [name for _, name in names] == ["b", "a", "c"]
    marks = {float(one.get("cy", 0)): one for one in picture.all("circle")}
    (best, worse, same) = (marks[y - 4] for y, _ in names)
    zero = picture.text("0").x
    unit = (zero - picture.text("-2").x) / 2
    assert float(best.get("cx", 0)) == pytest.approx(zero - 2 * unit, abs=0.3)
    assert float(worse.get("cx", 0)) == pytest.approx(zero + unit, abs=0.3)
    assert float(same.get("cx", 0)) == pytest.approx(zero, abs=0.3)
    assert worse.get("fill") == worse.get("stroke") != best.get("stroke")
    assert best.get("fill") == "var(--paper, #ffffff)"
    assert "-0 +8" in picture.words
    assert "2 classes did not change." in " ".join(picture.words)
    assert "Of 5 classes 1 are read worse: a by 1.00; 1 better: b by 2.00" in picture.title


def test_an_interval_reaches_as_far_as_the_class_has_few_images() -> None:
    def length(images: int) -> float:
        picture = Picture(class_change_svg([drop("a", images, images // 10, 0), drop("w", 20, 9, 0)]))
        bar = next(one for one in picture.all("g") if one[0].text.startswith("a:"))[1]
        start, end = level_ends(bar)
        return end - start

    assert 1.5 * length(4000) < length(400) < length(40)


def test_the_rest_is_counted() -> None:
    many = [drop(f"class {k}", 100, k + 1, 0) for k in range(30)]
    picture = Picture(class_change_svg(many, most=10)).check()
    assert "20 classes changed less." in " ".join(picture.words)
    assert len(picture.all("circle")) == 10


def test_no_change_is_said_and_a_hostile_label_stays_text() -> None:
    assert "No class lost or gained an image." in Picture(class_change_svg([])).check().words
    assert not Picture(class_change_svg([drop(HOSTILE * 3, 10, 1, 0)])).check().all("script")
