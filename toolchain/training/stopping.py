"""Early stopping: the best epoch's weights are the result, and a training ends that waits too long for better ones."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def best_epoch(accuracies: Sequence[float | None]) -> int:
    """Return the number of the best epoch, 1 for the first; of equal ones the first; 0 where there is none."""
    return max(range(1, len(accuracies) + 1), key=lambda epoch: accuracies[epoch - 1] or 0.0, default=0)


class EarlyStopping:
    """Holds the module of the best epoch. patience: epochs without a better one that end the training; 0: never."""

    def __init__(self, patience: int, average: nn.Module) -> None:
        """Take the averaged weights, which change with every step."""
        self._patience, self._average = patience, average
        self.result = copy.deepcopy(average) if patience else average

    def is_over(self, accuracies: Sequence[float | None]) -> bool:
        """Return whether the training ends after these epochs, given by their accuracies on held-out images."""
        return 0 < self._patience <= len(accuracies) - best_epoch(accuracies)

    def end_epoch(self, accuracies: Sequence[float | None]) -> None:
        """Keep the weights as they are now if the last of these epochs is the best one."""
        if self._patience and best_epoch(accuracies) == len(accuracies):
            self.result.load_state_dict(self._average.state_dict())
