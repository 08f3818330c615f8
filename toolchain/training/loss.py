"""The loss of a batch: on its labels, and on the answers of a teacher."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import Images, Labels
from toolchain.checkpoint.float_model import FloatModel
from toolchain.training.batches import Mix
from toolchain.training.settings import TrainSettings

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_SUM_ERROR = 1e-3
_LEAST_PROBABILITY = np.float32(1e-3)
"""A forest answers 0 for what none of its trees says, whose logarithm would outweigh everything else."""


@dataclass(frozen=True)
class Lesson:
    """A teacher's answers, and their weight in the loss.

    answers: uint8 [N, 28, 28] to float32 logits [N, classes]. temperature: softens the probabilities of teacher and
    student (1: as they are). soft: weight of the teacher's answers, 0 to 1; the labels have the rest.
    """

    answers: Callable[[Images], NDArray[np.float32]]
    temperature: float
    soft: float

    def divergence(self, logits: Tensor, glyphs: Images) -> Tensor:
        """Return the mean Kullback-Leibler divergence from the teacher's probabilities, times the squared temperature.

        logits: float32 [N, classes] of the student on glyphs, uint8 [N, 28, 28]. The square makes the size of gradients
        independent of the temperature (Hinton, arXiv:1503.02531, 2).
        """
        import torch
        from torch.nn.functional import kl_div, log_softmax

        answers = torch.from_numpy(_as_logits(self.answers(glyphs))).to(logits.device)
        student, teacher = (log_softmax(values / self.temperature, dim=1) for values in (logits, answers))
        return kl_div(student, teacher, reduction="batchmean", log_target=True) * self.temperature**2


def _as_logits(answers: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return logits of a teacher that answers with probabilities, as a random forest does; all others as they are."""
    if answers.min() < 0 or answers.max() > 1 or np.abs(answers.sum(axis=1) - 1).max() > _SUM_ERROR:
        return answers
    logits: NDArray[np.float32] = np.log(np.maximum(answers, _LEAST_PROBABILITY))
    return logits


def notes_on(teacher: FloatModel, model: FloatModel) -> tuple[str, ...]:
    """Return the teacher's history as notes for the model it teaches; none where the model teaches itself."""
    if teacher.checkpoint_sha256 == model.checkpoint_sha256:
        return ()
    return tuple(f"teacher {teacher.name}: {line}" for line in teacher.history)


@contextmanager
def taught_by(teacher: FloatModel, *, temperature: float, soft: float, threads: int) -> Iterator[Lesson]:
    """Yield the lesson of a teacher, which is exported to ONNX: torch would spend half of a training on its answers.

    Raises what `export` raises.
    """
    from targets import catalog
    from toolchain.export import export

    with tempfile.TemporaryDirectory() as folder:
        artifact = export(teacher, "onnx", Path(folder) / f"{teacher.name}.onnx")
        with catalog.default_for("onnx").open(artifact, threads=threads) as session:
            yield Lesson(session.run, temperature, soft)


@dataclass(frozen=True)
class Loss:
    """The loss of a batch: on labels, and on the lesson where there is one.

    prior: float32 [columns], added to logits before the loss on labels. classes: how many. first: column of class 0.
    weights: float32 [columns], of the loss on labels of each class.
    """

    prior: Tensor
    label_smoothing: float
    classes: int
    first: int
    lesson: Lesson | None = None
    weights: Tensor | None = None

    def __call__(self, logits: Tensor, labels: Labels, glyphs: Images, mix: Mix | None = None) -> Tensor:
        """Return the scalar loss of float32 [N, columns] on labels 0 to classes - 1 and uint8 [N, 28, 28].

        mix: how the glyphs were made of those that have the labels.
        """
        hard = self._hard(logits, labels)
        if mix:
            hard = mix.share * hard + (1 - mix.share) * self._hard(logits, labels[mix.partners])
        if self.lesson is None:
            return hard
        class_logits = logits[:, self.first : self.first + self.classes]
        return (1 - self.lesson.soft) * hard + self.lesson.soft * self.lesson.divergence(class_logits, glyphs)

    def _hard(self, logits: Tensor, labels: Labels) -> Tensor:
        import torch
        from torch.nn.functional import cross_entropy

        target = torch.from_numpy(labels + self.first).to(logits.device)
        return cross_entropy(logits + self.prior, target, self.weights, label_smoothing=self.label_smoothing)


def loss_on(
    labels: Labels,
    settings: TrainSettings,
    *,
    classes: int,
    columns: int,
    first: int,
    lesson: Lesson | None,
    device: torch.device | None = None,
) -> Loss:
    """Return the loss for training images with these labels, for logits of that many columns on a device (CPU)."""
    import torch

    frequencies = torch.from_numpy(_log_frequencies(labels, classes, columns, first)).to(device)
    weights = (-frequencies).exp() if settings.class_weights else None
    return Loss(frequencies * settings.balance, settings.label_smoothing, classes, first, lesson, weights)


def _log_frequencies(labels: Labels, classes: int, columns: int, first: int) -> NDArray[np.float32]:
    """Return float32 [columns]: the logarithm of each class's frequency over the mean frequency; 0 in other columns.

    One image is added to each class, so that a class without images stays finite.
    """
    counts = np.bincount(labels, minlength=classes) + 1.0
    logs = np.zeros(columns, np.float32)
    logs[first : first + classes] = np.log(counts / counts.mean())
    return logs
