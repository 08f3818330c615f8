"""The difference of two confusion matrices: which cells are drawn as worse and as better, and what names them."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.fixtures.svg import HOSTILE, Picture
from toolchain.report.charts.confusion import confusion_svg

LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def matrices(size: int, *moves: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return a diagonal matrix, and one in which `count` images of `truth` are read as `answer` instead."""
    before = np.eye(size, dtype=np.int64) * 100
    before[before == 0] = 1
    after = before.copy()
    for truth, answer, count in moves:
        after[truth, truth] -= count
        after[truth, answer] += count
    return before, after


def drawn(svg: str, width: str) -> set[tuple[int, int]]:
    """Return the (row, column) of the cells that are drawn with strokes of a width: 0.9 filled, 0.4 flat."""
    cells = set()
    for path in Picture(svg).all("path", stroke_width=width):
        row, x = 0, 0
        for kind, a, b in re.findall(r"([Mmh])(-?\d+)(?: (-?[\d.]+))?", path.get("d", "")):
            if kind == "M":
                row, x = int(float(b)), int(a)
            elif kind == "m":
                x += int(a)
            else:
                cells |= {(row, column) for column in range(x, x + int(a))}
                x += int(a)
    return cells


@pytest.mark.parametrize("size", [10, 47, 62])
@pytest.mark.parametrize("width", [358, 720])
def test_worse_cells_are_filled_and_better_ones_flat_and_all_classes_are_named(size: int, width: int) -> None:
    before, after = matrices(size, (0, 9, 14), (0, 8, 3), (3, 4, -1), (3, 5, 1), (size - 1, 1, 2))
    svg = confusion_svg(before, after, tuple(LETTERS[:size]), width=width)
    picture = Picture(svg).check()
    assert drawn(svg, "0.94") == {(0, 0), (0, 9), (0, 8), (3, 5), (size - 1, size - 1), (size - 1, 1)}
    assert drawn(svg, "0.4") == {(3, 4)}
    names = [one for one in picture.words if one in LETTERS[:size]]
    assert sorted(names) == sorted(2 * LETTERS[:size]), "each class once beside the rows and once above the columns"
    assert "0 read as 9: +14" in picture.words
    assert "3 read as 4: -1" in picture.words
    assert "19 more mistakes than before in all, 6 cells are worse, 1 better" in picture.title
    assert len(svg) < 20_000
    assert (f"{14:+d}" in picture.words) == (size == 10), "cells of ten classes have room for their number"


def test_names_stand_at_their_rows_and_columns() -> None:
    picture = Picture(confusion_svg(*matrices(10, (2, 7, 5)), tuple(LETTERS[:10])))
    number = next(one for one in picture.texts() if one.text == "+5")
    assert any(abs(one.y - number.y) < 0.2 and one.x < number.x for one in picture.texts() if one.text == "2")
    assert any(abs(one.x - number.x) < 0.2 and one.y < number.y for one in picture.texts() if one.text == "7")


def test_the_strongest_change_has_the_strongest_colour() -> None:
    svg = confusion_svg(*matrices(47, (0, 9, 100), (1, 2, 1)), tuple(LETTERS[:47]))
    strong = Picture(svg).all("path", stroke_opacity="1", stroke_width="0.94")
    assert strong[0].get("d") == "M0 0.5h1m8 0h1"
    assert "The strongest colour is a change by 100 images." in " ".join(Picture(svg).words)


def test_a_matrix_that_changed_everywhere_stays_small() -> None:
    random = np.random.default_rng(0)
    before, after = random.integers(0, 50, (2, 62, 62))
    assert len(confusion_svg(before, after, tuple(LETTERS), width=720)) < 40_000


def test_no_change_and_one_class_are_said() -> None:
    before, _ = matrices(10)
    assert "No class is read as another more or less often" in " ".join(
        Picture(confusion_svg(before, before, tuple(LETTERS[:10]))).check().words
    )
    one = np.array([[4]])
    assert "of 1 class changed" in Picture(confusion_svg(one, one, ("a",))).title


def test_long_and_hostile_names_stay_text_inside_the_picture() -> None:
    names = (HOSTILE, "a class with a long name", "&", "ü")
    picture = Picture(confusion_svg(*matrices(4, (0, 1, 3), (2, 3, 1)), names)).check()
    assert not picture.all("script")
    assert any(text.startswith("& read as ü") for text in picture.words)


def test_two_hundred_classes_name_some() -> None:
    picture = Picture(confusion_svg(*matrices(200, (0, 199, 3)), [f"class {k}" for k in range(200)])).check()
    assert "class 0 read as class 199: +3" in picture.words
