"""Activations keep their values when TFLite files hold integers: no range spans a branch that is not taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from calibration.dataset import Dataset
from calibration.sample import CalibrationSet, draw
from targets.artifact import Artifact
from targets.preprocess import Preprocess
from tests.toolchain.conftest import OnDemand
from toolchain.export import export
from toolchain.model import FloatModel
from toolchain.quantize import quantize
from toolchain.steps import Quantize

if TYPE_CHECKING:
    from torch import Tensor

ROUNDING_DB = {"static-int8": 24.0, "static-int8-act16": 36.0, "dynamic-int8": 34.0}
"""What rounding leaves of each of them here; tanh keeps the least. Collapsed files kept 10 dB or less."""


def activations() -> dict[str, Callable[[Tensor], Tensor]]:
    import torch
    from torch import nn
    from torch.nn import functional

    return {
        "softplus": nn.Softplus(),
        "softplus-beta": lambda x: functional.softplus(x, beta=2.0, threshold=5.0),
        "mish": nn.Mish(),
        "elu": nn.ELU(0.5),
        "selu": nn.SELU(),
        "celu": nn.CELU(2.0),
        "logsigmoid": nn.LogSigmoid(),
        "logaddexp": lambda x: torch.logaddexp(x, -x),
        "logsumexp": lambda x: x + torch.logsumexp(x, 1, keepdim=True),
        "logsumexp-flat": lambda x: x + torch.logsumexp(x, (2, 3))[:, :, None, None],
        "logsoftmax": nn.LogSoftmax(1),
        "softsign": nn.Softsign(),
        "softshrink": nn.Softshrink(),
        "tanh": nn.Tanh(),
        "tanhshrink": nn.Tanhshrink(),
        "gelu": nn.GELU(),
        "gelu-tanh": nn.GELU("tanh"),
        "silu": nn.SiLU(),
        "hardswish": nn.Hardswish(),
        "prelu": nn.PReLU(),
    }


ACTIVATIONS = (
    *("softplus", "softplus-beta", "mish", "elu", "selu", "celu", "logsigmoid", "logaddexp", "logsumexp"),
    *("logsumexp-flat", "logsoftmax", "softsign", "softshrink", "tanh", "tanhshrink", "gelu", "gelu-tanh", "silu"),
    *("hardswish", "prelu"),
)


def activated(name: str) -> FloatModel:
    """Return a model with the activation between a convolution of large weights and a dense layer."""
    import torch
    from torch import nn

    class Activated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first = nn.Conv2d(1, 8, 5, stride=4)
            self.act: Any = activations()[name]
            self.logits = nn.Linear(8 * 6 * 6, 10)
            with torch.no_grad():
                self.first.weight *= 12

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.logits(self.act(self.first(x)).flatten(1))
            return answer

    return FloatModel(name, Activated().eval(), Preprocess(), tuple("0123456789"), "0" * 64)


@pytest.fixture(scope="module")
def images(digits: Dataset) -> CalibrationSet:
    return draw(digits, 64, seed=0)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """The float file of each activation, which was compared with the model when it was made."""
    folder = tmp_path_factory.mktemp("activations")
    return OnDemand(lambda name: export(activated(name), "tflite", folder / f"{name}.tflite"))


@pytest.mark.parametrize("name", [pytest.param(name, id=f"row1-{name}-tflite") for name in ACTIVATIONS])
def test_an_activation_costs_no_more_than_rounding(
    name: str, files: dict[str, Artifact], images: CalibrationSet, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp(name)
    kept = {}
    for scheme in ROUNDING_DB:
        step = Quantize.asked(scheme=scheme)
        made = quantize(files[name], step, images, folder / f"{scheme}.tflite", recipe="x")
        assert made.fidelity is not None
        kept[scheme] = made.fidelity.sqnr_db
    assert all(kept[scheme] > least for scheme, least in ROUNDING_DB.items()), kept


@pytest.mark.parametrize("name", [pytest.param(name, id=f"row1-{name}-onnx") for name in ("logaddexp", "logsigmoid")])
def test_the_same_in_onnx(name: str, images: CalibrationSet, tmp_path: Path) -> None:
    exact = export(activated(name), "onnx", tmp_path / "float.onnx")
    made = quantize(exact, Quantize(scheme="static-int8"), images, tmp_path / "int8.onnx", recipe="x")
    assert made.fidelity is not None
    assert made.fidelity.sqnr_db > ROUNDING_DB["static-int8"]
