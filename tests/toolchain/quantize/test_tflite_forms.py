"""Parts of a graph that are hard to quantize: every static scheme quantizes each, and the result is sound.

Masks of attention, and pads, are tested in ONNX too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from calibration.dataset import Dataset
from calibration.sample import CalibrationSet, draw
from targets.preprocess import Preprocess
from toolchain.checkpoint.float_model import FloatModel, TorchModel
from toolchain.checkpoint.onnx_normal import refuse_not_finite
from toolchain.core.errors import CheckpointError, StageError
from toolchain.export import export
from toolchain.quantize import quantize
from toolchain.recipe import Quantize

if TYPE_CHECKING:
    from torch import Tensor, nn

WAYS = {
    "static-int8": (Quantize(scheme="static-int8"), 28.0),
    "integer-io": (Quantize(scheme="static-int8", integer_io=True), 28.0),
    "static-int8-act16": (Quantize(scheme="static-int8-act16"), 31.0),
    "static-int4": (Quantize(scheme="static-int4"), 14.0),
}
"""Step and least SQNR of the logits here, in dB; norms have the least."""
FORMS = (
    *("squeeze-dead", "bias-scaled", "pool-uncounted", "pool-ceil-uncounted", "pool-of-negatives", "pad-of-nothing"),
    *("matrix-of-batches", "matrix-first", "divided", "unit-length", "layer-norm"),
    *("root-mean-square", "instance-norm", "group-norm"),
    *("mask-added", "mask-least", "mask-filled", "mask-1e4", "mask-causal", "mask-of-bools"),
)

ONNX_DB = {"static-int8": 33.0, "static-int4": 18.0, "weight-int8": 40.0, "dynamic-int8": 35.0}
"""SQNR that each scheme had here, less 4 dB; where a range includes the mask it is at most 10 dB."""
ONNX_FORMS = ("mask-added", "mask-least", "mask-filled", "mask-1e4", "mask-causal", "mask-of-bools", "pad-of-nothing")


def form(name: str) -> nn.Module:
    """Return what stands between the convolution and the dense layer, on [1, 8, 13, 13]."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Squeeze(nn.Module):
        """Squeeze and excitation whose ReLU is never active, and so holds nothing but zeros."""

        def __init__(self) -> None:
            super().__init__()
            self.down, self.up = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            gate: Tensor = self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True)) - 50)).sigmoid()
            return x * gate

    class Scaled(nn.Module):
        """A residual block with a layer scale, whose bias comes out of the converter as [1, 1, 1, 8]."""

        def __init__(self) -> None:
            super().__init__()
            self.wide, self.dense, self.gamma = nn.Linear(8, 8), nn.Linear(8, 8), nn.Parameter(torch.rand(8))

        def forward(self, x: Tensor) -> Tensor:
            changed = self.dense(functional.gelu(self.wide(x.permute(0, 2, 3, 1)))) * self.gamma
            answer: Tensor = x + changed.permute(0, 3, 1, 2)
            return answer

    class Times(nn.Module):
        """A product with a constant matrix of three axes."""

        def __init__(self, *, first: bool) -> None:
            super().__init__()
            self.matrix, self.first = nn.Parameter(torch.rand(8, 13, 13) * torch.logspace(-2, 0, 13) / 3), first

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.matrix @ x if self.first else x @ self.matrix
            return answer

    class Does(nn.Module):
        def __init__(self, does: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.does = does

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.does(x)
            return answer

    def masked(put: Callable[[Tensor, Tensor], Tensor]) -> nn.Module:
        mask = torch.full((13, 13), -torch.inf).triu(1)
        return Does(lambda x: put((x @ x.mT) / 3, mask).softmax(-1) @ x)

    def attention(x: Tensor, **settings: Any) -> Tensor:
        return functional.scaled_dot_product_attention(x, x, x, **settings)

    def padded(x: Tensor) -> Tensor:
        return functional.max_pool2d(functional.pad(x, (1, 0, 1, 0), value=-torch.inf), 2)

    forms: dict[str, Callable[[], nn.Module]] = {
        "squeeze-dead": Squeeze,
        "bias-scaled": Scaled,
        # Reductions over a window, whose bodies are subgraphs.
        "pool-uncounted": lambda: nn.AvgPool2d(2, 2, 1, count_include_pad=False),
        "pool-ceil-uncounted": lambda: nn.AvgPool2d(3, 2, ceil_mode=True, count_include_pad=False),
        # Padded with minus infinity by the converter, and by the model itself.
        "pool-of-negatives": lambda: nn.Sequential(nn.Conv2d(8, 8, 1), nn.MaxPool2d(2, 2, 1)),
        "pad-of-nothing": lambda: nn.Sequential(nn.Conv2d(8, 8, 1), Does(padded)),
        "matrix-of-batches": lambda: Times(first=False),
        "matrix-first": lambda: Times(first=True),
        # Dark pixels have divisors and variances of next to nothing.
        "divided": lambda: Does(lambda x: x / (x.abs().mean(1, keepdim=True) + 1e-3)),
        "unit-length": lambda: Does(lambda x: functional.normalize(x, dim=1)),
        "layer-norm": lambda: Does(lambda x: functional.layer_norm(x.permute(0, 2, 3, 1), (8,))),
        "root-mean-square": lambda: Does(lambda x: functional.rms_norm(x.permute(0, 2, 3, 1), (8,))),
        "instance-norm": lambda: nn.InstanceNorm2d(8),
        "group-norm": lambda: nn.GroupNorm(2, 8),
        # Attention that sees only what comes before.
        "mask-added": lambda: masked(lambda x, mask: x + mask),
        "mask-least": lambda: masked(lambda x, mask: x + mask.clamp(min=torch.finfo(torch.float32).min)),
        "mask-filled": lambda: masked(lambda x, mask: x.masked_fill(mask < 0, -torch.inf)),
        "mask-1e4": lambda: masked(lambda x, mask: torch.where(mask < 0, -1e4, x)),
        "mask-causal": lambda: Does(lambda x: attention(x, is_causal=True)),
        "mask-of-bools": lambda: Does(lambda x: attention(x, attn_mask=torch.ones(13, 13).tril() > 0)),
        # No softmax that could stay float takes it.
        "huge": lambda: Does(lambda x: (x - 3e38).clamp(min=-1)),
        # The scales of its sum are powers of two, which LiteRT's 16-bit ADD refuses.
        "sum-of-ones": lambda: Does(lambda x: 1 + torch.exp(-x)),
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

    return TorchModel(name, Preprocess(), tuple("0123456789"), "0" * 64, Formed().eval())


@pytest.fixture(scope="module")
def images(digits: Dataset) -> CalibrationSet:
    return draw(digits, 64, seed=0)


@pytest.mark.parametrize("name", [pytest.param(name, id=f"row13-{name}") for name in FORMS])
def test_every_static_scheme_takes_it(name: str, images: CalibrationSet, tmp_path: Path) -> None:
    exact = export(formed(name), "tflite", tmp_path / "float.tflite")
    sqnr_db: dict[str, Any] = {}
    for way, (step, _) in WAYS.items():
        made = quantize(exact, step, images, tmp_path / f"{way}.tflite", recipe="x")
        assert made.fidelity is not None
        sqnr_db[way] = made.fidelity.sqnr_db
    assert all(sqnr_db[way] > least for way, (_, least) in WAYS.items()), sqnr_db


def test_row13_a_range_that_would_end_the_program_is_refused(images: CalibrationSet, tmp_path: Path) -> None:
    exact = export(formed("huge"), "tflite", tmp_path / "float.tflite")
    with pytest.raises(StageError, match=r"float.tflite: tensor .* holds -3.0e\+38, .*; take --scheme weight-int8"):
        quantize(exact, Quantize(scheme="static-int8"), images, tmp_path / "huge.tflite", recipe="x")


def test_row13_a_refusal_names_the_layer_and_a_scheme_that_works(images: CalibrationSet, tmp_path: Path) -> None:
    exact = export(formed("sum-of-ones"), "tflite", tmp_path / "float.tflite")
    with pytest.raises(StageError) as refused:
        quantize(exact, Quantize(scheme="static-int8-act16"), images, tmp_path / "wide.tflite", recipe="x")
    message = str(refused.value)
    assert message.startswith("float.tflite: LiteRT cannot run what static-int8-act16 makes of it (ADD behind layer ")
    assert ".first); take --scheme static-int8, " in message
    assert not (tmp_path / "wide.tflite").exists()
    quantize(exact, Quantize(scheme="static-int8"), images, tmp_path / "narrow.tflite", recipe="x")


@pytest.mark.parametrize("name", [pytest.param(name, id=f"row13-{name}") for name in ONNX_FORMS])
def test_every_scheme_takes_masks_in_onnx(name: str, images: CalibrationSet, tmp_path: Path) -> None:
    exact = export(formed(name), "onnx", tmp_path / "float.onnx")
    sqnr_db = {}
    for scheme in ONNX_DB:
        made = quantize(exact, Quantize(scheme=scheme), images, tmp_path / f"{scheme}.onnx", recipe="x")
        assert made.fidelity is not None
        assert made.fidelity.sqnr_db is not None
        sqnr_db[scheme] = made.fidelity.sqnr_db
    assert all(sqnr_db[scheme] > least for scheme, least in ONNX_DB.items()), sqnr_db


@pytest.mark.parametrize(("tensor", "value"), [("mask", np.nan), ("mask", np.inf), ("weights", -np.inf)])
def test_row13_other_values_that_are_not_finite_are_refused(tensor: str, value: float) -> None:
    nodes = [
        onnx.helper.make_node("MatMul", ["image", "weights"], ["scores"]),
        onnx.helper.make_node("Add", ["scores", "mask"], ["masked"]),
        onnx.helper.make_node("Softmax", ["masked"], ["logits"]),
    ]
    ends = [onnx.helper.make_tensor_value_info(name, 1, [4, 4]) for name in ("image", "logits")]
    constants = {name: np.zeros((4, 4), np.float32) for name in ("weights", "mask")}
    constants["mask"][0, 1] = -np.inf
    stored = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = onnx.helper.make_graph(nodes, "attention", ends[:1], ends[1:], stored)
    refuse_not_finite(onnx.helper.make_model(graph), Path("masked.onnx"))
    constants[tensor][0, 0] = value
    graph.initializer.append(numpy_helper.from_array(constants[tensor], tensor))
    del graph.initializer[[one.name for one in graph.initializer].index(tensor)]
    with pytest.raises(CheckpointError, match=rf"weights are not finite \({tensor}\)"):
        refuse_not_finite(onnx.helper.make_model(graph), Path("masked.onnx"))
