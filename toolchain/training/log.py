"""The figures of each epoch: as a line for the user, and as a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from toolchain.core.files import write_whole
from toolchain.core.quantities import duration_text, percent_text

COLUMNS = ("epoch", "steps", "lr", "loss", "held_out_loss", "held_out_accuracy", "seconds")


@dataclass(frozen=True, kw_only=True)
class EpochFigures:
    """What was measured of an epoch.

    epochs, steps: number of all epochs, and of the steps so far. lr: learning rate after the epoch. loss: mean over the
    epoch's steps. held_out_loss, held_out_accuracy: of the averaged weights on the held-out images (cross-entropy, and
    share of 1), None without any. seconds: since the start, without those between a kill and the resumed run.
    """

    epoch: int
    epochs: int
    steps: int
    lr: float
    loss: float
    held_out_loss: float | None
    held_out_accuracy: float | None
    seconds: float


def epoch_line(figures: EpochFigures) -> str:
    """Return what the user sees after an epoch, with the time that the others will take."""
    held_out = "" if figures.held_out_accuracy is None else f", held out {percent_text(figures.held_out_accuracy)}"
    others = figures.epochs - figures.epoch
    remaining = f", {duration_text(figures.seconds / figures.epoch * others)} to go" if others else ""
    spent = duration_text(figures.seconds)
    return f"epoch {figures.epoch}/{figures.epochs}: loss {figures.loss:.3f}{held_out}, {spent}{remaining}"


def write_log(path: Path, epochs: Sequence[EpochFigures]) -> None:
    """Write the figures as CSV with a line for each epoch; replaces the file, which is whole at every moment.

    Numbers have all their digits; an empty field stands for None.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([getattr(figures, column) for column in COLUMNS] for figures in epochs)
    write_whole(path, buffer.getvalue(), force=True)
