from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calibration.load import load
from tests.fixtures.small_readers import written
from toolchain.core.errors import UsageProblem
from toolchain.evaluation.metrics import measure
from toolchain.evaluation.mistakes import surest_mistakes
from toolchain.report.error_sheet import chance_text, error_sheet, save_error_sheet


def test_each_wrong_character_stands_where_its_turn_is(tmp_path: Path) -> None:
    data = load("builtin:digits")
    wrong = np.arange(len(data)) % 50 == 0
    evaluation = written(np.where(wrong, (data.labels + 1) % 10, data.labels), data.labels)
    mistakes = surest_mistakes(evaluation, 12)
    assert len(mistakes) == 12
    sheet = np.asarray(error_sheet(evaluation, measure(evaluation), mistakes, data.images))
    for number, mistake in enumerate(mistakes):
        row, column = divmod(number, 10)
        x, y = 24 + column * 98, 96 + row * 128
        shown = sheet[y + 1 : y + 84 : 3, x + 1 : x + 84 : 3, 0]
        assert np.array_equal(shown, 255 - data.images[mistake.index])
        assert (sheet[y + 88 : y + 120, x : x + 84] < 200).any(), "its truth and answer stand below"
    path = tmp_path / "sheet.png"
    save_error_sheet(path, evaluation, measure(evaluation), mistakes, data.images)
    assert Image.open(path).size == (sheet.shape[1], sheet.shape[0])
    with pytest.raises(UsageProblem, match="--force"):
        save_error_sheet(path, evaluation, measure(evaluation), mistakes, data.images)


def test_a_file_without_mistakes_and_long_names() -> None:
    data = load("builtin:digits")
    names = tuple(f"a very long name of class {number}\n\x1b[31m" for number in range(10))
    right = written(data.labels, data.labels, classes=names)
    assert error_sheet(right, measure(right), (), data.images).size == (1014, 120)
    wrong = written((data.labels + 1) % 10, data.labels, classes=names)
    assert error_sheet(wrong, measure(wrong), surest_mistakes(wrong, 3), data.images).width == 1014


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0%"), (0.0001, "<1%"), (0.5, "50%"), (0.9978, ">99%"), (1.0, "100%")]
)
def test_a_probability_is_certain_only_where_it_is(share: float, text: str) -> None:
    assert chance_text(share) == text
