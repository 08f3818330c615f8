"""The table of classes: readable in a narrow window, with classes of any name."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from rich.console import Console

from tests.fixtures.small_readers import written
from toolchain.evaluation.metrics import Metrics, measure
from toolchain.report.per_class import Order, ordered, per_class_csv, per_class_table

BYCLASS = tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


def guessed(classes: tuple[str, ...]) -> Metrics:
    """20,000 images of which half are read right, and the others as any class."""
    chance = np.random.default_rng(0)
    labels, guesses = chance.integers(0, len(classes), (2, 20_000))
    return measure(written(np.where(chance.random(20_000) < 0.5, labels, guesses), labels, classes=classes))


def lines(metrics: Metrics, order: Order = "class") -> list[str]:
    console = Console(file=io.StringIO(), width=240)
    console.print(per_class_table(ordered(metrics, order)))
    return [line.rstrip() for line in str(console.file.getvalue()).splitlines()]  # type: ignore[attr-defined]


@pytest.mark.parametrize("count", [10, 26, 47, 62])
def test_it_fits_100_columns_with_a_line_for_each_class(count: int) -> None:
    printed = lines(guessed(BYCLASS[:count]))
    assert [line.split()[0] for line in printed[1:]] == list(BYCLASS[:count])
    assert max(map(len, printed)) <= 100


def test_by_accuracy_the_worst_come_first_and_classes_without_images_last() -> None:
    metrics = measure(written(np.array([1, 1, 1, 3]), np.array([0, 1, 1, 2]), classes=tuple("abcd")))
    assert [line.split()[0] for line in lines(metrics, "accuracy")[1:]] == ["a", "c", "b", "d"]


def test_the_rare_wrong_answers_are_summed_on_the_terminal_and_listed_in_the_file() -> None:
    answers = np.array([0, 5, 5, 5, 4, 4, 3, 3, 2, 1])
    metrics = measure(written(answers, np.zeros(10, np.int64), classes=tuple("=b[def")))
    (row,) = [line for line in lines(metrics) if line.startswith("=")]
    assert row.endswith("f (3), d (2), e (2), others (2)")
    first = next(csv.DictReader(io.StringIO(per_class_csv(metrics))))
    assert (first["class"], first["misread as"]) == ("'=", "f (3), d (2), e (2), b (1), [ (1)")
