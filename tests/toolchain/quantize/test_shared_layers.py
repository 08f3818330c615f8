"""Layers that run several times, and weights that layers share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from calibration.dataset import Dataset
from calibration.sample import draw
from targets.artifact import Format
from targets.preprocess import Preprocess
from tests.fixtures.lazy import functional, nn, torch
from toolchain.checkpoint.float_model import TorchModel
from toolchain.export import export
from toolchain.quantize import quantize
from toolchain.recipe import Quantize


def looped() -> Any:
    """Return a small reader whose middle layer runs three times."""

    class Looped(nn.Module):  # type: ignore[name-defined]  # torch is imported when the test runs
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(1, 8, 3, stride=4, padding=1)
            self.step = nn.Conv2d(8, 8, 3, padding=1)
            self.last = nn.Linear(8 * 49, 10)

        def forward(self, x: Any) -> Any:
            x = functional.relu(self.first(x))
            for _ in range(3):
                x = x + functional.relu(self.step(x))
            return self.last(x.flatten(1))

    return Looped()


def tied() -> Any:
    """Return a small reader in which two layers share their weight and bias."""
    module = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=4, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.Flatten(),
        nn.Linear(8 * 49, 10),
    )
    module[4].weight, module[4].bias = module[2].weight, module[2].bias
    return module


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
@pytest.mark.parametrize("build", [looped, tied], ids=["row10-loop", "row10-tied"])
def test_layers_that_are_used_again_are_quantized(build: Any, kind: Format, digits: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = TorchModel("shared", Preprocess(), tuple("0123456789"), "0" * 64, build().eval())
    source = export(model, kind, tmp_path / f"shared.float.{kind}")
    images = draw(digits, 64, seed=0)
    made = quantize(source, Quantize(scheme="static-int8"), images, tmp_path / f"shared.{kind}", recipe="static-int8")
    assert made.fidelity is not None
    assert made.fidelity.sqnr_db is not None
    assert made.fidelity.sqnr_db > 25
