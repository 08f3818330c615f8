"""The table of a cross-validation."""

from __future__ import annotations

from toolchain.core.quantities import percent_text, points_text, time_text
from toolchain.report.tables import plain_table, unbroken
from toolchain.training.folds import CrossValidation


def folds_text(result: CrossValidation) -> str:
    """Return a row for each fold, and below them the mean, standard deviation and spread of their accuracies."""
    table = plain_table(("fold", "fitted", "held out", "right", "accuracy", "95 % interval", "time"), left=())
    for fold in result.folds:
        low, high = fold.interval
        table.add_row(
            str(fold.fold),
            f"{fold.fitted:,}",
            f"{fold.images:,}",
            f"{fold.right:,}",
            percent_text(fold.accuracy),
            f"{percent_text(low)} to {percent_text(high)}",
            time_text(fold.seconds),
        )
    low, high = result.spread
    return unbroken(
        table,
        f"mean {percent_text(result.mean)}, standard deviation {points_text(result.deviation)} pp, "
        f"spread {percent_text(low)} to {percent_text(high)}, over {len(result.folds)} folds of {result.origin}",
    )
