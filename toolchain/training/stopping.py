"""Early stopping: which epoch was the best so far, and when to wait no longer for a better one."""

from __future__ import annotations

from collections.abc import Sequence


def is_best(accuracies: Sequence[float | None]) -> bool:
    """Return whether the last epoch is better than all before it; of equal ones the first is the best."""
    return best_epoch(accuracies) == len(accuracies)


def is_over(accuracies: Sequence[float | None], patience: int) -> bool:
    """Return whether `patience` epochs went by without a better one; never with a patience of 0."""
    return 0 < patience <= len(accuracies) - best_epoch(accuracies)


def best_epoch(accuracies: Sequence[float | None]) -> int:
    """Return the number of the best epoch, 1 for the first; 0 where there is none."""
    return max(range(1, len(accuracies) + 1), key=lambda epoch: accuracies[epoch - 1] or 0.0, default=0)
