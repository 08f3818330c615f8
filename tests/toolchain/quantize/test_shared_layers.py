"""Layers that run several times, and weights that layers share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.dataset import Dataset
from calibration.sample import draw
from targets.artifact import Format
from targets.preprocess import Preprocess
from tests.fixtures.lazy import functional, nn, torch
from toolchain.checkpoint.float_model import TorchModel
from toolchain.export import export
from toolchain.quantize import quantize
from toolchain.quantize.onnx import separate_biases
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


def test_norms_that_share_a_bias_get_one_each() -> None:
    """Onnxruntime would copy it under a name that another value may have: no transformer of zero biases was made."""
    import onnx_ir as ir
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("LayerNormalization", [source, "scale", "bias"], [target])
        for source, target in (("image", "bias_2"), ("bias_2", "logits"))
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 8]) for name in ("image", "logits")]
    constants = [numpy_helper.from_array(np.ones(8, np.float32), name) for name in ("scale", "bias")]
    graph = helper.make_graph(nodes, "norms", ends[:1], ends[1:], constants)
    model = ir.from_proto(helper.make_model(graph))
    assert separate_biases(model)
    names = [node.inputs[2].name for node in model.graph]
    assert len({*names, "bias_2", "image", "logits"}) == 5
