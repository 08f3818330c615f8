"""Multiply-accumulates: the same of one model in every form, whatever they are written as; what is unknown is said."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from targets.artifact import Format
from targets.preprocess import Preprocess
from tests.fixtures.lazy import blocks, torch
from toolchain.checkpoint.float_model import FloatModel, TorchModel
from toolchain.checkpoint.inspection import counted, inspect_file
from toolchain.export import export

# 28 rows of 28: heads of 4 x 7; what is read at the end is 10 x 28.
PROJECTIONS, ATTENTION, HEAD = 4 * 28 * 28 * 28, 2 * 28 * 28 * 28, 28 * 10
MACS = {
    "Attending": PROJECTIONS + ATTENTION + HEAD,
    "Encoding": PROJECTIONS + ATTENTION + 2 * 28 * 28 * 64 + HEAD,
    "Gated": 28 * (3 * 24 * 28 + 3 * 24 * 24) * 2 + 28 * 48 * 10,
    "Remembering": 28 * (4 * 32 * 28 + 4 * 32 * 32) + 32 * 10,
    "Functional": 28 * 28 * 16 + 28 * 16 + 26 * 26 * 4 * 9 + (28 + 26 * 26 * 4) * 10,
    "Upsampling": 28 * 28 * 4 * 9 + 57 * 57 * 4 * 10,
}


def model_of(name: str) -> FloatModel:
    torch.manual_seed(0)
    return TorchModel(name, Preprocess(), tuple("0123456789"), "0" * 64, getattr(blocks, name)().eval())


@pytest.mark.parametrize("name", MACS, ids=[f"row25-{name}" for name in MACS])
def test_products_are_counted_where_no_layer_makes_them(name: str, tmp_path: Path) -> None:
    model = model_of(name)
    module: Any = model.module
    assert counted(model) == (sum(weight.numel() for weight in module.parameters()), MACS[name])
    batch = {0: torch.export.Dim("batch", min=1, max=99)}
    program = torch.export.export(module, (torch.zeros(2, 1, 28, 28),), dynamic_shapes=(batch,))
    torch.export.save(program, tmp_path / "m.pt2")
    assert inspect_file(str(tmp_path / "m.pt2")).macs == MACS[name]
    torch.jit.trace(module, torch.zeros(1, 1, 28, 28), check_trace=False).save(str(tmp_path / "m.ts"))
    assert inspect_file(str(tmp_path / "m.ts")).macs == MACS[name]
    assert inspect_file(str(export(model, "onnx", tmp_path / "m.onnx").path)).macs == MACS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Attending", "Upsampling"])
def test_row25_a_tflite_file_counts_the_same(name: str, tmp_path: Path) -> None:
    kind: Format = "tflite"
    assert inspect_file(str(export(model_of(name), kind, tmp_path / "m.tflite").path)).macs == MACS[name]


def test_row25_counting_is_quiet_and_leaves_torch_as_it_was() -> None:
    model = model_of("Remembering")
    before = torch.backends.mkldnn.enabled, torch.backends.mha.get_fastpath_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        counted(model)
    assert (torch.backends.mkldnn.enabled, torch.backends.mha.get_fastpath_enabled()) == before


def test_row25_an_attention_is_a_layer_with_all_of_its_weights() -> None:
    from toolchain.checkpoint.inspection import module_layers

    model = model_of("Attending")
    layers = {layer.name: layer for layer in module_layers(model.torch_module("counting"), "m").layers}
    assert layers["attention"].kind == "MultiheadAttention"
    assert layers["attention"].macs == PROJECTIONS + ATTENTION
    assert layers["attention"].parameters == 4 * (28 * 28 + 28)


def test_row25_what_cannot_be_counted_is_named_and_never_left_out_silently(tmp_path: Path) -> None:
    class Transformed(torch.nn.Module):  # type: ignore[name-defined,misc]  # torch is imported lazily
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(28 * 15, 10)

        def forward(self, image: Any) -> Any:
            return self.head(torch.fft.rfft(image).abs().flatten(1))

    model = TorchModel("fft", Preprocess(), tuple("0123456789"), "0" * 64, Transformed().eval())
    assert counted(model)[1] is None
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("Strange", ["flat"], ["odd"], domain="mine"),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", ["N", 1, 28, 28]), ("y", ["N", 10]))
    ]
    weight = numpy_helper.from_array(np.zeros((784, 10), np.float32), "w")
    made = helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight]),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)],
    )
    onnx.save(made, tmp_path / "odd.onnx")
    found = inspect_file(str(tmp_path / "odd.onnx"))
    assert (found.macs, found.notes[-1]) == (None, "MACs of Strange cannot be counted, so there is no sum")
    assert next(layer.macs for layer in found.layers if layer.kind == "MatMul") == 7840
