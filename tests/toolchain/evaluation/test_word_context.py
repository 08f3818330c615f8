"""A character that looks like a letter and a digit is read as what stands around it."""

from __future__ import annotations

import numpy as np
import pytest

from toolchain.evaluation.word_context import in_words, probabilities

CLASSES = tuple("0O1Ix7")


def chances(*characters: dict[str, float]) -> np.ndarray:
    """Return a row for each character, with what its classes leave spread over the others."""
    rows = []
    for given in characters:
        rest = (1 - sum(given.values())) / (len(CLASSES) - len(given))
        rows.append([given.get(name, rest) for name in CLASSES])
    return np.array(rows)


LIKELY_ZERO = {"0": 0.7, "O": 0.28}
X, SEVEN = {"x": 0.95}, {"7": 0.95}


def read(*characters: dict[str, float], classes: tuple[str, ...] = CLASSES) -> str:
    found = in_words(chances(*characters), [range(len(characters))], classes)
    return "".join(CLASSES[best] for best in found)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ([X, LIKELY_ZERO, X], "xOx"),
        ([SEVEN, LIKELY_ZERO, SEVEN], "707"),
        ([SEVEN, {"O": 0.7, "0": 0.28}, SEVEN], "707"),
        ([LIKELY_ZERO], "0"),
        ([X, X, SEVEN], "xx7"),
    ],
    ids=["among letters", "among digits", "O among digits", "alone", "a sure digit stays"],
)
def test_a_character_is_read_by_its_word(word: list[dict[str, float]], expected: str) -> None:
    assert read(*word) == expected


def test_words_do_not_reach_into_each_other() -> None:
    rows = chances(X, X, LIKELY_ZERO, SEVEN)
    assert [CLASSES[best] for best in in_words(rows, [[0, 1], [2, 3]], CLASSES)] == ["x", "x", "0", "7"]
    assert [CLASSES[best] for best in in_words(rows[:3], [[0, 1, 2]], CLASSES)] == ["x", "x", "O"]


def test_classes_without_digits_are_read_as_the_model_says() -> None:
    rows = chances(X, LIKELY_ZERO, X)
    assert (in_words(rows, [[0, 1, 2]], tuple("abcdef")) == rows.argmax(1)).all()


def test_logits_become_probabilities_and_probabilities_stay() -> None:
    logits = np.array([[2.0, 0.0, -1.0]], np.float32)
    expected = np.exp([[2.0, 0.0, -1.0]]) / np.exp([2.0, 0.0, -1.0]).sum()
    assert np.allclose(probabilities(logits), expected)
    assert np.allclose(probabilities(expected.astype(np.float32)), expected)
