"""Edits of ONNX graphs: what each leaves behind, in ONNX Runtime and in the order that decides about a file's bytes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto

from toolchain.core.errors import StageError
from toolchain.formats.onnx import edit
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
    """The zero point of the weights stays, since a Gemm reads them; the one of the bias is what is meant without it."""
    proto = onnx.parser.parse_model(QDQ)
    slim = edit.edited(onnx.parser.parse_model(QDQ), slimming)
    assert np.array_equal(answers(slim, image=IMAGES), answers(proto, image=IMAGES))
    assert len(slim.SerializeToString()) < len(proto.SerializeToString())
    read = [{name for node in model.graph.node for name in node.input} for model in (proto, slim)]
    assert slimming is shorten_names or read[0] - read[1] == gone
    again = ir.from_proto(slim)
    assert slimming is shorten_names or not slimming(again), "a second time there is nothing left to do"


def test_a_default_is_dropped_and_what_says_something_else_is_kept() -> None:
    slim = edit.edited(onnx.parser.parse_model(QDQ), drop_defaults)
    assert [[one.name for one in node.attribute] for node in slim.graph.node if node.attribute] == [
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
