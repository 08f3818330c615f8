"""Edits of ONNX graphs: what each leaves behind, in ONNX Runtime and in the order that decides about a file's bytes."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto, helper, numpy_helper

from toolchain.core.errors import StageError
from toolchain.formats.onnx import edit
from toolchain.formats.onnx.edit import edited, pack_int4
from toolchain.formats.onnx.file import drop_defaults, drop_requantized_reshapes, drop_zero_points, shorten_names

QDQ = """<ir_version: 8, opset_import: ["" : 17]>
qdq (float[N,4] image) => (float[N,2] logits)
<float s = {0.5}, uint8 z = {3}, int64[2] shape = {-1, 4}, int8[2,4] w = {1, -2, 3, 0, 5, 6, -7, 8},
 float[2] ws = {0.25, 0.5}, int8[2] wz = {0, 0}, int32[2] b = {3, -4}, float[2] bs = {0.125, 0.25},
 int32[2] bz = {0, 0}>
{
    q = QuantizeLinear(image, s, z)
    d = DequantizeLinear(q, s, z)
    r = Reshape(d, shape)
    q2 = QuantizeLinear(r, s, z)
    d2 = DequantizeLinear(q2, s, z)
    weight = DequantizeLinear<axis=0>(w, ws, wz)
    bias = DequantizeLinear<axis=0>(b, bs, bz)
    logits = Gemm<alpha=1.0, transB=1>(d2, weight, bias)
}"""
BRANCHING = """<ir_version: 8, opset_import: ["" : 17]>
branching (float[N,4] x, bool c) => (float[N,4] y)
{
    image = Relu(x)
    y = If(c) <
        then_branch = yes () => (float[N,4] a) { a = Neg(image) },
        else_branch = no () => (float[N,4] e) { e = Abs(image) }
    >
}"""
IMAGES = np.random.default_rng(0).normal(0, 20, (9, 4)).astype(np.float32)


def answers(proto: onnx.ModelProto, **inputs: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(proto, full_check=True)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def kinds(proto: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


@pytest.mark.parametrize(
    ("slimming", "gone"),
    [
        (drop_zero_points, {"bz"}),
        (drop_requantized_reshapes, {"d", "r"}),
        (drop_defaults, set()),
        (shorten_names, set()),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_edit_of_slimming_keeps_the_answers_to_the_bit(slimming: edit.Edit, gone: set[str]) -> None:
    """The zero point of the weights stays, since a Gemm reads them; that of the bias is the default."""
    proto = onnx.parser.parse_model(QDQ)
    slim = edited(onnx.parser.parse_model(QDQ), slimming)
    assert np.array_equal(answers(slim, image=IMAGES), answers(proto, image=IMAGES))
    assert len(slim.SerializeToString()) < len(proto.SerializeToString())
    inputs = [{name for node in model.graph.node for name in node.input} for model in (proto, slim)]
    assert slimming is shorten_names or inputs[0] - inputs[1] == gone
    again = ir.from_proto(slim)
    assert slimming is shorten_names or not slimming(again), "a second time there is nothing left to do"


def test_a_default_is_dropped_and_what_says_something_else_is_kept() -> None:
    slim = edited(onnx.parser.parse_model(QDQ), drop_defaults)
    assert [[attribute.name for attribute in node.attribute] for node in slim.graph.node if node.attribute] == [
        ["axis"],
        ["axis"],
        ["transB"],
    ]


@pytest.mark.parametrize(("raised", "shown"), [(StageError("refused: do this"), StageError), (KeyError("w"), KeyError)])
def test_an_error_leaves_as_it_is_with_the_name_of_its_edit(raised: Exception, shown: type[Exception]) -> None:
    def refuse_it(_model: ir.Model) -> bool:
        raise raised

    with pytest.raises(shown) as caught:
        edit.run(ir.from_proto(onnx.parser.parse_model(QDQ)), edit.drop_unused, refuse_it)
    assert caught.value is raised
    assert "'refuse_it'" in caught.value.__notes__[0]


def test_names_are_given_in_subgraphs_too_and_initializers_keep_their_order() -> None:
    branching = ir.from_proto(onnx.parser.parse_model(BRANCHING))
    edit.make_free(branching.graph, "image")
    edit.rename(branching.graph, {branching.graph.inputs[0]: "image"})
    proto = edit.to_proto(branching)
    inputs = {"image": IMAGES, "c": np.array(True)}
    assert np.array_equal(answers(proto, **inputs), -np.maximum(IMAGES, 0))
    model = ir.from_proto(onnx.parser.parse_model(QDQ))
    before = list(model.graph.initializers)
    edit.rename(model.graph, {model.graph.initializers["z"]: "zero"})
    assert list(model.graph.initializers) == ["zero" if name == "z" else name for name in before]


def test_a_lifted_graph_keeps_its_weights_which_the_converter_never_sees() -> None:
    weights = np.random.default_rng(1).normal(0, 1, (64, 64)).astype(np.float32)
    text = '<ir_version: 7, opset_import: ["" : 11]> g (float[N,64] x) => (float[N,64] y) { y = MatMul(x, w) }'
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    images = np.random.default_rng(2).normal(0, 1, (3, 64)).astype(np.float32)
    before = answers(proto, x=images)
    model = ir.from_proto(proto)
    given = model.graph.initializers["w"].const_value
    assert edit.lift(model, 17, ir_version=8)
    assert (model.opset_imports[""], model.ir_version) == (17, 8)
    assert model.graph.initializers["w"].const_value is given
    assert np.array_equal(answers(edit.to_proto(model), x=images), before)
    assert not edit.lift(model, 17)


def test_an_operator_is_replaced_and_the_output_keeps_its_name_type_and_metadata() -> None:
    model = ir.from_proto(onnx.parser.parse_model(QDQ))
    model.graph.outputs[0].metadata_props["kind"] = "USER_OUTPUT"
    gemm = model.graph[-1]
    product = edit.node("Gemm", gemm.inputs, ["product"], transB=1)
    half = edit.add_constant(model.graph, "half", np.float32(0.5))
    edit.substitute(gemm, [product, edit.node("Mul", [product.outputs[0], half], ["scaled"])])
    proto = edit.to_proto(model)
    assert kinds(proto)[-2:] == ["Gemm", "Mul"]
    (output,) = proto.graph.output
    assert output.name == "logits"
    assert [(entry.key, entry.value) for entry in output.metadata_props] == [("kind", "USER_OUTPUT")]
    whole = answers(onnx.parser.parse_model(QDQ), image=IMAGES)
    assert np.array_equal(answers(proto, image=IMAGES), whole * np.float32(0.5))


def test_a_new_constant_takes_a_name_from_another_value() -> None:
    model = ir.from_proto(onnx.parser.parse_model(QDQ))
    added = edit.add_constant(model.graph, "weight", np.int64(1))
    proto = edit.to_proto(model)
    assert added.const_value is not None
    assert {tensor.name: tensor.data_type for tensor in proto.graph.initializer}["weight"] == TensorProto.INT64
    assert np.array_equal(answers(proto, image=IMAGES), answers(onnx.parser.parse_model(QDQ), image=IMAGES))


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
        output = f"{kind}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

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
    model: onnx.ModelProto, *, optimized_file: Path | None = None, optimized: bool = True
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if optimized_file:
        options.optimized_model_filepath = str(optimized_file)
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
        session(model, optimized_file=tmp_path / "run.onnx")
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
    assert {tensor.data_type for tensor in model.graph.initializer} == {TensorProto.INT4, TensorProto.FLOAT}
    assert session(model).run(None, {})[0].tolist() == values
