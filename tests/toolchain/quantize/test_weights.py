"""A bias that is large beside tiny weights keeps its value; in 32 bits it would saturate or wrap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibration.dataset import Dataset
from calibration.sample import CalibrationSet, draw
from targets.artifact import Artifact, Format
from targets.preprocess import Preprocess
from tests.toolchain.conftest import OnDemand
from toolchain.checkpoint.float_model import FloatModel, TorchModel
from toolchain.export import export
from toolchain.quantize import quantize
from toolchain.quantize.weights import LARGEST_BIAS, Weight, wider
from toolchain.recipe import Quantize

FORMATS: tuple[Format, ...] = ("onnx", "tflite")
FAINT = 1e-7, 2e-6
"""Sizes of weights: far too small beside a bias of 2, and some steps in size."""


def faint_model(groups: int = 1) -> FloatModel:
    import torch
    from torch import nn

    class Faint(nn.Module):
        """Channels of tiny weights and large biases in a convolution, a transposed one, and both dense layers."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first = nn.Conv2d(1, 8, 3, stride=2)
            self.up = nn.ConvTranspose2d(8, 8, 2, stride=2, groups=groups)
            self.down = nn.Conv2d(8, 8, 3, stride=3)
            self.dense = nn.Linear(8 * 8 * 8, 16)
            self.logits = nn.Linear(16, 10)
            with torch.no_grad():
                for layer in (self.first, self.up, self.down, self.dense, self.logits):
                    channels = layer.weight.transpose(0, 1) if layer is self.up else layer.weight
                    for channel, size in enumerate(FAINT):
                        channels[channel] = size * channels[channel].sign()
                        layer.bias[channel] = 2.0 + channel

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.down(self.up(self.first(x).relu()).relu()).relu()
            return self.logits(self.dense(x.flatten(1)).relu())

    return TorchModel("faint", Preprocess(), tuple("0123456789"), "0" * 64, Faint().eval())


@pytest.fixture(scope="module")
def images(digits: Dataset) -> CalibrationSet:
    return draw(digits, 64, seed=0)


@pytest.fixture(scope="module")
def faint(tmp_path_factory: pytest.TempPathFactory) -> dict[Format, Artifact]:
    folder = tmp_path_factory.mktemp("faint")
    model = faint_model()
    return OnDemand(lambda kind: export(model, kind, folder / f"faint.{kind}"))


def test_row15_groups_of_a_transposed_convolution_share_their_scales(images: CalibrationSet, tmp_path: Path) -> None:
    exact = export(faint_model(groups=2), "onnx", tmp_path / "grouped.onnx")
    made = quantize(exact, Quantize(scheme="static-int8"), images, tmp_path / "q.onnx", recipe="x")
    assert made.fidelity is not None
    assert made.fidelity.sqnr_db > 30


@pytest.mark.parametrize("per_channel", [True, False], ids=["row2-per-channel", "row2-per-tensor"])
@pytest.mark.parametrize(
    ("kind", "scheme"),
    [(kind, scheme) for kind in FORMATS for scheme in ("static-int8", "static-int4")]
    + [("tflite", "static-int8-act16")],
)
def test_large_biases_beside_tiny_weights_are_kept(
    kind: Format, scheme: str, per_channel: bool, faint: dict[Format, Artifact], images: CalibrationSet, tmp_path: Path
) -> None:
    step = Quantize.from_options(scheme=scheme, per_channel=per_channel)
    made = quantize(faint[kind], step, images, tmp_path / f"q.{kind}", recipe="x")
    assert made.fidelity is not None
    assert made.fidelity.sqnr_db > (18 if step.weight_bits == 4 else 30)


def test_bias_correction_does_not_lose_them_again(
    faint: dict[Format, Artifact], images: CalibrationSet, tmp_path: Path
) -> None:
    step = Quantize(scheme="static-int4", bias_correction=True)
    made = quantize(faint["onnx"], step, images, tmp_path / "q.onnx", recipe="x")
    assert made.fidelity is not None
    assert made.fidelity.sqnr_db > 18


def test_only_the_channels_that_need_it_change() -> None:
    floats = np.array([[1e-7, -1e-7], [0.5, -0.25]], np.float32)
    weight = Weight(np.array([[64, -64], [64, -32]], np.int8), np.array([1e-7, 0.5], np.float32) / 64, 0)
    widened = wider(weight, floats, np.array([3, 3], np.float32), 0.01)
    assert widened is not None
    assert (widened.integers == [[0, 0], [64, -32]]).all()
    assert widened.scale[1] == weight.scale[1]
    assert np.rint(3 / (np.float64(widened.scale[0]) * 0.01)) == pytest.approx(LARGEST_BIAS)
    assert wider(weight, floats, np.array([1e-8, 3], np.float32), 0.01) is None
