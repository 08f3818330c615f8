"""The loss: weights by inverse frequency, and mixed targets."""

from __future__ import annotations

import numpy as np
import pytest

from tests.fixtures.lazy import torch
from toolchain.training.batches import Mix
from toolchain.training.loss import Lesson, Loss, loss_on
from toolchain.training.settings import TrainSettings

NO_GLYPHS = np.zeros((0, 28, 28), np.uint8)


def on(labels: list[int], **values: float) -> Loss:
    settings = TrainSettings(label_smoothing=0.0).changed(**values)
    return loss_on(np.array(labels), settings, classes=2, columns=3, first=1, lesson=None)


def test_class_weights_count_each_class_alike() -> None:
    loss = on([0] * 89 + [1] * 9, class_weights=True)
    labels, logits = np.array([0] * 9 + [1]), torch.tensor([[0.0, 2.0, 0.0]]).repeat(10, 1)
    value = float(loss(logits, labels, NO_GLYPHS))
    each = [float(loss(logits[:1], labels[index : index + 1], NO_GLYPHS)) for index in (0, 9)]
    assert value == pytest.approx(sum(each) / 2, rel=1e-5)
    assert not loss.prior.any()


def test_plain_settings_weigh_nothing() -> None:
    assert on([0, 0, 1]).weights is None


def test_mixed_targets_share_the_loss() -> None:
    loss, logits = on([0, 1], balance=0.0), torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 1.0]])
    labels = np.array([0, 1])
    own, other = (float(loss(logits, classes, NO_GLYPHS)) for classes in (labels, labels[::-1].copy()))
    value = float(loss(logits, labels, NO_GLYPHS, Mix(0.7, np.array([1, 0]))))
    assert value == pytest.approx(0.7 * own + 0.3 * other)


def test_probabilities_of_a_teacher_are_learned_as_they_are() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], np.float32)
    lesson = Lesson(lambda _images: probabilities, temperature=1.0, soft=1.0)
    images = np.zeros((2, 28, 28), np.uint8)
    same = lesson.divergence(torch.from_numpy(np.log(probabilities)), images)
    flat = lesson.divergence(torch.from_numpy(probabilities), images)
    assert float(same) == pytest.approx(0, abs=1e-6)
    assert float(flat) > 0.05
