"""Weights of four bits: half a byte each in the file, and the kernels of eight bits."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto, helper, numpy_helper

from toolchain.formats.onnx.edit import edited, pack_int4


class Graph:
    """A QDQ graph as a quantizer writes it: every layer between QuantizeLinear and DequantizeLinear."""

    def __init__(self, least: int, most: int) -> None:
        self.least, self.most = least, most
        self.random = np.random.default_rng(0)
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.top = "image"

    def _constant(self, name: str, values: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def _node(self, kind: str, inputs: list[str], **attributes: int) -> str:
        made = f"{kind}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [made], **attributes))
        return made

    def requantized(self, zero_point: int = 0) -> None:
        scale = self._constant(f"scale{len(self.nodes)}", np.float32(0.05))
        zero = self._constant(f"zero{len(self.nodes)}", np.uint8(zero_point))
        stored = self._node("QuantizeLinear", [self.top, scale, zero])
        self.top = self._node("DequantizeLinear", [stored, scale, zero])

    def layer(self, kind: str, shape: tuple[int, ...], **attributes: int) -> None:
        name = f"layer{len(self.nodes)}"
        weights = self.random.integers(self.least, self.most + 1, shape).astype(np.int8)
        parts = [
            self._constant(f"{name}_weight", weights),
            self._constant(f"{name}_scale", self.random.uniform(0.02, 0.08, shape[0]).astype(np.float32)),
            self._constant(f"{name}_zero", np.zeros(shape[0], np.int8)),
        ]
        weight = self._node("DequantizeLinear", parts, axis=0)
        bias = self._constant(f"{name}_bias", self.random.normal(0, 0.3, shape[0]).astype(np.float32))
        self.top = self._node(kind, [self.top, weight, bias], **attributes)
        if kind == "Conv":
            self.top = self._node("Relu", [self.top])
        self.requantized(zero_point=128 if kind == "Gemm" else 0)

    def model(self, opset: int) -> onnx.ModelProto:
        self.requantized()
        self.layer("Conv", (8, 1, 3, 3))
        self.layer("Conv", (8, 1, 3, 3), group=8)
        self.layer("Conv", (4, 8, 1, 1))
        self.top = self._node("Flatten", [self.top])
        self.requantized()
        self.layer("Gemm", (5, 4 * 24 * 24), transB=1)
        self.nodes[-1].output[0] = "logits"
        graph = helper.make_graph(
            self.nodes,
            "qdq",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 28, 28])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 5])],
            self.constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def session(
    model: onnx.ModelProto, *, kept: Path | None = None, optimized: bool = True
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if kept:
        options.optimized_model_filepath = str(kept)
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def test_packed_layers_take_half_a_byte_a_weight_and_run_on_the_same_kernels_to_the_same_bits(tmp_path: Path) -> None:
    whole = Graph(-8, 7).model(opset=18)
    packed = edited(copy.deepcopy(whole), pack_int4)
    onnx.checker.check_model(packed, full_check=True)
    weights = 8 * 9 + 8 * 9 + 4 * 8 + 5 * 4 * 24 * 24
    assert weights / 2 - 300 < whole.ByteSize() - packed.ByteSize() < weights / 2
    images = np.random.default_rng(1).random((16, 1, 28, 28), np.float32)
    for optimized in (True, False):
        before, after = (
            session(model, optimized=optimized).run(None, {"image": images})[0] for model in (whole, packed)
        )
        assert len(np.unique(before)) > 20
        assert np.array_equal(before, after)
    kinds = []
    for model in (whole, packed):
        session(model, kept=tmp_path / "run.onnx")
        kinds.append(Counter(node.op_type for node in onnx.load(tmp_path / "run.onnx").graph.node))
    assert kinds[0] == kinds[1]
    assert kinds[1]["QLinearConv"] == 3
    assert kinds[1]["QGemm"] == 1


@pytest.mark.parametrize(("least", "most"), [(-9, 7), (-8, 8)])
def test_weights_of_more_bits_stay_as_they_are(least: int, most: int) -> None:
    wide = Graph(least, most).model(opset=18)
    assert edited(copy.deepcopy(wide), pack_int4) == wide


@given(st.lists(st.integers(-8, 7), min_size=2, max_size=9))
def test_every_number_of_four_bits_comes_back(values: list[int]) -> None:
    graph = helper.make_graph(
        [helper.make_node("DequantizeLinear", ["w", "one"], ["out"])],
        "one",
        [],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [len(values)])],
        [numpy_helper.from_array(np.array(values, np.int8), "w"), numpy_helper.from_array(np.float32(1), "one")],
    )
    model = edited(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), pack_int4)
    assert {one.data_type for one in model.graph.initializer} == {TensorProto.INT4, TensorProto.FLOAT}
    assert session(model).run(None, {})[0].tolist() == values
