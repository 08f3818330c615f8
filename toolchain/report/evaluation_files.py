"""The files that `evaluate` writes: answers, sheet of wrong answers, table of classes, confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from calibration.dataset import ImageSource
from toolchain.core.files import refuse_source, refuse_unfit, write_whole
from toolchain.core.quantities import percent_text
from toolchain.evaluation.evaluate import Evaluation
from toolchain.evaluation.metrics import Metrics
from toolchain.evaluation.mistakes import Mistake
from toolchain.report.charts.matrix import matrix_svg
from toolchain.report.error_sheet import save_error_sheet
from toolchain.report.per_class import per_class_csv


@dataclass(frozen=True)
class EvaluationFiles:
    """Where each is to be written; None where it is not asked for."""

    answers: Path | None
    sheet: Path | None
    table: Path | None
    matrix: Path | None

    def refuse_unfit(self, artifact: Path, *, force: bool) -> None:
        """Raise UsageProblem for a file with another suffix, one that exists, or the artifact itself."""
        for path, suffix in ((self.answers, ".npz"), (self.sheet, ".png"), (self.table, ".csv"), (self.matrix, ".svg")):
            if path:
                refuse_source(path, artifact)
                refuse_unfit(path, suffix, force=force)

    def write(
        self,
        evaluation: Evaluation,
        metrics: Metrics,
        mistakes: Sequence[Mistake],
        images: ImageSource,
        *,
        force: bool,
    ) -> None:
        """Write those that are asked for, each whole or not at all; metrics: of the evaluation, in any order."""
        if self.answers:
            evaluation.save(self.answers, force=force)
        if self.sheet:
            save_error_sheet(self.sheet, evaluation, metrics, mistakes, images, force=force)
        if self.table:
            write_whole(self.table, per_class_csv(metrics), force=force)
        if self.matrix:
            title = f"{evaluation.artifact} on {evaluation.origin}: {percent_text(metrics.accuracy)} read right"
            write_whole(self.matrix, matrix_svg(metrics, evaluation.classes, title=title), force=force)
