"""How well each class was read, and as what it was misread: a table for a terminal, and a CSV file."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import Literal

from rich.table import Table

from toolchain.core.quantities import percent_text
from toolchain.evaluation.metrics import ClassMetrics, Metrics
from toolchain.report.tables import DASH, plain_table, shown, spreadsheet_text

Order = Literal["class", "accuracy"]
"""class: as the model numbers them; accuracy: the class that is read worst first."""
COLUMNS = ("class", "images", "right", "accuracy", "precision", "F1", "misread as")
"""The accuracy of a class, the share of its images that were read correctly, is its recall."""
_ANSWERS = 3


def ordered(metrics: Metrics, order: Order) -> Metrics:
    """Return the metrics with `per_class` in this order; by accuracy, classes without images come last."""
    if order == "class":
        return metrics
    worst_first = sorted(metrics.per_class, key=lambda row: 2.0 if row.recall is None else row.recall)
    return replace(metrics, per_class=tuple(worst_first))


def per_class_cells(row: ClassMetrics) -> tuple[str, ...]:
    """Return the cells of one class, by `COLUMNS`."""
    accuracy, precision = (DASH if share is None else percent_text(share) for share in (row.recall, row.precision))
    counts = f"{row.images:,}", f"{row.right:,}"
    return row.label, *counts, accuracy, precision, percent_text(row.f1), misread_text(row.misread)


def misread_text(misread: dict[str, int], most: int = _ANSWERS) -> str:
    """Return the most frequent wrong answers with their counts, and the sum of the others."""
    answers = list(misread.items())
    others = sum(count for _, count in answers[most:])
    return ", ".join(
        [f"{label} ({count:,})" for label, count in answers[:most]] + [f"others ({others:,})"] * (others > 0)
    )


def per_class_table(metrics: Metrics) -> Table:
    """Return one row for each class."""
    table = plain_table(COLUMNS, left=("class", "misread as"))
    for row in metrics.per_class:
        table.add_row(*map(shown, per_class_cells(row)))
    return table


def per_class_csv(metrics: Metrics) -> str:
    """Return one line for each class, shares from 0 to 1, with every wrong answer; what is undefined is empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in metrics.per_class:
        misread = misread_text(row.misread, len(row.misread))
        figures = (row.images, row.right, row.recall, row.precision, row.f1)
        writer.writerow([spreadsheet_text(row.label), *figures, spreadsheet_text(misread)])
    return stream.getvalue()
