"""Forms of a TFLite graph that litert-quantizer stumbles over: each is quantized by every static scheme, and sound."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from calibration.dataset import Dataset
from calibration.sample import CalibrationSet, draw
from targets.preprocess import Preprocess
from toolchain.export import export
from toolchain.model import FloatModel
from toolchain.quantize import quantize
from toolchain.steps import Quantize

if TYPE_CHECKING:
    from torch import Tensor, nn

WAYS = {
    "static-int8": (Quantize(scheme="static-int8"), 32.0),
    "integer-io": (Quantize(scheme="static-int8", integer_io=True), 32.0),
    "static-int8-act16": (Quantize(scheme="static-int8-act16"), 36.0),
    "static-int4": (Quantize(scheme="static-int4"), 16.0),
}
"""What each leaves of the logits here at least, in dB; a broken file keeps 3 or less."""
FORMS = ("squeeze-dead", "squeeze-mean", "bias-scaled", "bias-of-tokens", "pool-uncounted", "pad-value", "running-sum")


def form(name: str) -> nn.Module:
    """Return what stands between the convolution and the dense layer, on [1, 8, 13, 13]."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Squeeze(nn.Module):
        def __init__(self, gate: Callable[[Tensor], Tensor], shift: float) -> None:
            super().__init__()
            self.down, self.up, self.gate, self.shift = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1), gate, shift

        def forward(self, x: Tensor) -> Tensor:
            return x * self.gate(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True)) + self.shift)))

    class Scaled(nn.Module):
        """A dense layer over the channels of each pixel, times a number for each."""

        def __init__(self, *, flat: bool) -> None:
            super().__init__()
            self.dense, self.gamma, self.flat = nn.Linear(8, 8), nn.Parameter(torch.rand(8)), flat

        def forward(self, x: Tensor) -> Tensor:
            channels_last = x.flatten(2).transpose(1, 2) if self.flat else x.permute(0, 2, 3, 1)
            answer: Tensor = self.dense(channels_last) * self.gamma
            return answer

    class Does(nn.Module):
        def __init__(self, does: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.does = does

        def forward(self, x: Tensor) -> Tensor:
            return self.does(x)

    forms: dict[str, Callable[[], nn.Module]] = {
        # A ReLU that is never active holds nothing but zeros.
        "squeeze-dead": lambda: Squeeze(torch.sigmoid, -50.0),
        "squeeze-mean": lambda: Squeeze(functional.hardsigmoid, 0.0),
        "bias-scaled": lambda: Scaled(flat=False),
        "bias-of-tokens": lambda: Scaled(flat=True),
        # Both are reductions over a window, whose bodies are subgraphs.
        "pool-uncounted": lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
        "running-sum": lambda: Does(lambda x: torch.cumsum(x, 2) * 0.1),
        "pad-value": lambda: Does(lambda x: functional.pad(x, (1, 2, 0, 1), value=0.5)),
    }
    return forms[name]()


def formed(name: str) -> FloatModel:
    """Return a model with the form between a convolution of large weights and a dense layer."""
    import torch
    from torch import nn

    class Formed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.form = nn.Conv2d(1, 8, 4, stride=2), form(name)
            with torch.no_grad():
                self.first.weight *= 3
            self.logits = nn.Linear(self.form(torch.zeros(1, 8, 13, 13)).numel(), 10)

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.logits(self.form(torch.relu(self.first(x))).flatten(1))
            return answer

    return FloatModel(name, Formed().eval(), Preprocess(), tuple("0123456789"), "0" * 64)


@pytest.fixture(scope="module")
def images(digits: Dataset) -> CalibrationSet:
    return draw(digits, 64, seed=0)


@pytest.mark.parametrize("name", [pytest.param(name, id=f"row13-{name}") for name in FORMS])
def test_every_static_scheme_takes_it(name: str, images: CalibrationSet, tmp_path: Path) -> None:
    exact = export(formed(name), "tflite", tmp_path / "float.tflite")
    kept: dict[str, Any] = {}
    for way, (step, _) in WAYS.items():
        made = quantize(exact, step, images, tmp_path / f"{way}.tflite", recipe="x")
        assert made.fidelity is not None
        kept[way] = made.fidelity.sqnr_db
    assert all(kept[way] > least for way, (_, least) in WAYS.items()), kept
