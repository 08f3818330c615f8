from __future__ import annotations

from dataclasses import replace
from string import ascii_letters, digits

import numpy as np
import pytest

from tests.fixtures.small_readers import written
from tests.fixtures.svg import HOSTILE, Picture
from toolchain.evaluation.metrics import Metrics, measure
from toolchain.report.charts.matrix import matrix_svg

LETTERS = tuple(digits + ascii_letters)


def metrics(size: int, each: int = 40) -> Metrics:
    """Return the metrics of a file that reads a tenth of each class as the next one."""
    labels = np.repeat(np.arange(size), each)
    answers = np.where(np.arange(len(labels)) % 10 == 0, (labels + 1) % size, labels)
    return measure(written(answers, labels, classes=LETTERS[:size]))


@pytest.mark.parametrize("size", [10, 47, 62])
def test_every_count_is_written_and_none_lies_on_another(size: int) -> None:
    picture = Picture(matrix_svg(metrics(size), LETTERS[:size], title="x.onnx on digits: 90 % read right")).check()
    assert picture.words.count("36") == size
    assert picture.words.count("4") == size + 2 * ("4" in LETTERS[:size])
    assert picture.words.count("40") == size
    assert picture.words.count("90.0%") == size
    assert picture.width <= 62 + 82 + 20 * 62


def test_numbers_of_thousands_keep_to_their_cells() -> None:
    labels = np.repeat(np.arange(62), 1)
    many = measure(written(labels, labels, classes=LETTERS))
    counts = many.confusion * 5700
    picture = Picture(matrix_svg(replace(many, confusion=counts), LETTERS, title="x"))
    assert picture.words.count("5.7k") == 62


def test_names_cannot_become_markup() -> None:
    labels = np.arange(20) % 2
    svg = matrix_svg(measure(written(1 - labels, labels, classes=(HOSTILE, "b"))), (HOSTILE, "b"), title=HOSTILE)
    assert "20 mistakes on 20 images" in Picture(svg).title
