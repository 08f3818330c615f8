"""The device of a training: chosen, named, refused where it is missing; no tensor of a step stays on another one."""

from __future__ import annotations

import re

import numpy as np
import pytest

from targets.errors import TargetUnavailable
from tests.fixtures.lazy import torch
from toolchain import models
from toolchain.training.device import as_tensor, device_name, device_of, training_device
from toolchain.training.loss import Lesson, loss_on
from toolchain.training.settings import TrainSettings


@pytest.fixture(autouse=True)
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_auto_is_the_processor_where_torch_has_no_gpu() -> None:
    device = training_device("auto")
    assert device == torch.device("cpu") == training_device("cpu")
    assert re.search(r"\w{3}", device_name(device))


def test_a_missing_gpu_is_refused_with_the_way_out() -> None:
    with pytest.raises(TargetUnavailable, match=r"torch .*(without CUDA|no GPU).*--device auto or cpu"):
        training_device("cuda")


def test_a_step_computes_where_the_model_is() -> None:
    """On torch's device without memory, which stands for a GPU: it too refuses tensors of another device."""
    glyphs, labels = np.zeros((4, 28, 28), np.uint8), np.array([0, 1, 1, 2])
    lesson = Lesson(lambda images: np.ones((len(images), 3), np.float32), temperature=2.0, soft=0.5)
    module = models.build("lenet5", classes=3).to("meta")
    settings = TrainSettings(balance=0.0, class_weights=True)
    loss_function = loss_on(labels, settings, classes=3, columns=3, first=0, lesson=lesson, device=device_of(module))
    loss = loss_function(module(as_tensor(module, np.zeros((4, 1, 28, 28), np.float32))), labels, glyphs)
    loss.backward()
    assert loss.device.type == "meta"
    with pytest.raises(RuntimeError, match="device"):
        module(as_tensor(models.build("lenet5", classes=3), np.zeros((4, 1, 28, 28), np.float32)))
