"""Bounded programs: activations lose no more than rounding, and rewritten branches of `where` keep every answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from calibration.dataset import Dataset
from calibration.sample import CalibrationSet, draw
from targets.artifact import Format
from targets.preprocess import Preprocess
from tests.fixtures.lazy import nn, torch
from toolchain.checkpoint.float_model import FloatModel, TorchModel
from toolchain.export import export
from toolchain.export.bounded import bounded
from toolchain.quantize import quantize
from toolchain.recipe import Quantize

if TYPE_CHECKING:
    from torch import Tensor


ROUNDING_DB = {
    "dynamic-int8": 34.0,
    "dynamic-int4": 17.0,
    "static-int8": 24.0,
    "static-int8-act16": 36.0,
    "static-int4": 17.0,
    "weight-int8": 36.0,
    "weight-int4": 17.0,
    "float16": 45.0,
}
"""What rounding leaves of each of them here; it is least for tanh. Files with an unbounded range had 10 dB or less."""
TFLITE_ONLY = {"dynamic-int4", "static-int8-act16"}


def activations() -> dict[str, Callable[[Tensor], Tensor]]:
    return {
        "softplus": nn.Softplus(),
        "softplus-beta": lambda x: nn.functional.softplus(x, beta=2.0, threshold=5.0),
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
        "relu": nn.ReLU(),
        "relu6": nn.ReLU6(),
        "leaky-relu": nn.LeakyReLU(0.2),
        "rrelu": nn.RReLU(),
        "rrelu-in-place": nn.RReLU(0.1, 0.5, inplace=True),
        "threshold": nn.Threshold(0.1, 0.0),
        "hardtanh": nn.Hardtanh(-2.0, 3.0),
        "hardsigmoid": nn.Hardsigmoid(),
        "hardshrink": nn.Hardshrink(),
        "sigmoid": nn.Sigmoid(),
        "softmin": nn.Softmin(1),
        "softmax": nn.Softmax(1),
        "softmax2d": nn.Softmax2d(),
        **by_hand(),
        "glu": lambda x: nn.functional.glu(torch.cat([x, x.flip(1)], 1), 1),
    }


def by_hand() -> dict[str, Callable[[Tensor], Tensor]]:
    """Return activations whose branch that is not taken overflows, or nearly does."""

    def in_place(x: Tensor) -> Tensor:
        grown = x.exp()
        grown.add_(1)
        return torch.where(x > 20, x, grown.log())

    return {
        "hand-softplus": lambda x: torch.where(x > 20, x, torch.log1p(torch.exp(x))),
        "hand-softplus-scaled": lambda x: torch.where(x * 2 > 10, x, torch.log1p(torch.exp(x * 2)) / 2),
        "hand-softplus-turned": lambda x: torch.where(x < 20, (1 + x.exp()).log(), x),
        "hand-softplus-not": lambda x: torch.where(~(x > 20), (1 + x.exp()).log(), x),
        "hand-softplus-in-place": in_place,
        "hand-softplus-by-tensor": lambda x: torch.where(x > torch.full_like(x, 20), x, x.exp().log1p()),
        "hand-mish": lambda x: x * torch.tanh(torch.where(x > 20, x, x.exp().log1p())),
        "hand-elu": lambda x: torch.where(x > 0, x, 0.5 * (x.exp() - 1)),
        "hand-selu": lambda x: 1.0507 * torch.where(x >= 0, x, 1.6733 * torch.expm1(x)),
        "hand-sigmoid": lambda x: torch.where(x >= 0, 1 / (1 + torch.exp(-x)), x.exp() / (1 + x.exp())),
        "hand-sigmoid-plain": lambda x: x + 1 / (1 + torch.exp(-x)),
        "hand-swish": lambda x: x / (1 + torch.exp(-x)),
        "hand-softmax": lambda x: x.exp() / x.exp().sum(1, keepdim=True),
        "hand-logsumexp": lambda x: x + x.exp().sum(1, keepdim=True).log(),
        "hand-logaddexp": lambda x: torch.log(x.exp() + (-x).exp()),
    }


ACTIVATIONS = (
    *("softplus", "softplus-beta", "mish", "elu", "selu", "celu", "logsigmoid", "logaddexp", "logsumexp"),
    *("logsumexp-flat", "logsoftmax", "softsign", "softshrink", "tanh", "tanhshrink", "gelu", "gelu-tanh", "silu"),
    *(
        "hardswish",
        "prelu",
        "relu",
        "relu6",
        "leaky-relu",
        "rrelu",
        "rrelu-in-place",
        "threshold",
        "hardtanh",
        "hardsigmoid",
        "hardshrink",
    ),
    *("sigmoid", "softmin", "softmax", "softmax2d", "glu"),
    *("hand-softplus", "hand-softplus-scaled", "hand-softplus-turned", "hand-softplus-not", "hand-softplus-in-place"),
    *("hand-softplus-by-tensor", "hand-mish", "hand-elu", "hand-selu", "hand-sigmoid", "hand-sigmoid-plain"),
    *("hand-swish", "hand-softmax", "hand-logsumexp", "hand-logaddexp"),
)


def activated(name: str) -> FloatModel:
    """Return a model with the activation between a convolution of large weights and a dense layer."""

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
            logits: Tensor = self.logits(self.act(self.first(x)).flatten(1))
            return logits

    return TorchModel(name, Preprocess(), tuple("0123456789"), "0" * 64, Activated().eval())


@pytest.fixture(scope="module")
def images(digits: Dataset) -> CalibrationSet:
    return draw(digits, 64, seed=0)


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
@pytest.mark.parametrize("name", [pytest.param(name, id=f"row1-{name}") for name in ACTIVATIONS])
def test_an_activation_costs_no_more_than_rounding(
    name: str, kind: Format, images: CalibrationSet, tmp_path: Path
) -> None:
    exact = export(activated(name), kind, tmp_path / f"float.{kind}")
    sqnr = {}
    for scheme in ROUNDING_DB.keys() - (TFLITE_ONLY if kind == "onnx" else ()):
        quantized = quantize(
            exact, Quantize.from_options(scheme=scheme), images, tmp_path / f"{scheme}.{kind}", recipe="x"
        )
        assert quantized.fidelity is not None
        sqnr[scheme] = quantized.fidelity.sqnr_db
    assert all(decibels > ROUNDING_DB[scheme] for scheme, decibels in sqnr.items()), sqnr


BOUNDED: dict[str, Callable[[Tensor], Tensor]] = {
    "below": lambda x: torch.where(x > 0, x, x.exp() - 1),
    "above": lambda x: torch.where(x >= -1, (-x).exp(), 2 - x),
    "not": lambda x: torch.where(torch.logical_not(x < 2), x, 3 * (x + 1).exp()),
    "scaled": lambda x: torch.where(x * 2 < 1, (x * 2).exp2(), x),
    "divisor": lambda x: torch.where(x > 0.5, 1 / x, x + 7 / x),
    "both": lambda x: torch.where(x > 0, (-x).exp(), x.expm1()),
    "read-elsewhere": lambda x: torch.where(x > 0, x, x.exp()) + x.exp(),
    "twice": lambda x: torch.where(x > 0, torch.where(x > 1, x, x.exp()), x.exp()),
    "by-channel": lambda x: torch.where(x.mean(1, keepdim=True) > 0, x, x.mean(1, keepdim=True).exp() * x),
}
KEPT: dict[str, Callable[[Tensor], Tensor]] = {
    "another-tensor": lambda x: torch.where(x.flip(1) > 0, x, x.exp()),
    "turned-between": lambda x: torch.where(x > 0, x, x.exp().flip(1)),
    "summed-between": lambda x: torch.where(x > 0, x, x.exp().cumsum(1)),
    "multiple": lambda x: torch.where(x * 3 > 0, x, x.exp()),
    "equal": lambda x: torch.where(x == 0, x, x.exp()),
    "leaky": lambda x: torch.where(x > 0, x, x * 0.1),
}


def _programs(act: Callable[[Tensor], Tensor]) -> tuple[nn.Module, nn.Module, bool]:
    """Return a program's module as it is and bounded, and whether a clamp was put in."""

    class Acting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return act(x)

    plain, changed = (torch.export.export(Acting(), (torch.zeros(2, 64),)) for _ in range(2))
    changed = bounded(changed)
    return plain.module(), changed.module(), any("clamp" in node.name for node in changed.graph.nodes)


@pytest.mark.parametrize("form", [*BOUNDED, *KEPT])
def test_row1_every_answer_stays_the_same_to_the_bit(form: str) -> None:
    plain, changed, clamped = _programs((BOUNDED | KEPT)[form])
    images = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    images[0, :8] = torch.tensor([0.0, -0.0, 0.5, 1.0, 2.0, -1.0, float("inf"), float("-inf")])
    for scale in (1, 3, 60):
        torch.testing.assert_close(changed(images * scale), plain(images * scale), rtol=0, atol=0, equal_nan=True)
    assert clamped is (form in BOUNDED)


def test_row1_values_of_the_branch_not_taken_are_bounded() -> None:
    _, changed, _ = _programs(BOUNDED["below"])
    held = dict[str, float]()

    class Watched(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> object:
            value = super().run_node(n)
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                held[n.name] = float(value.max())
            return value

    Watched(changed).run(torch.full((2, 64), 30.0))
    assert max(held.values()) == 30.0
