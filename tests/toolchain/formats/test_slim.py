"""What slimming removes from a file, and what it must keep: answers, kernels, names and bytes on the second time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from onnx import TensorProto, helper, numpy_helper

from calibration.dataset import Dataset
from calibration.load import load
from calibration.sample import draw
from targets.artifact import Artifact, Format
from targets.litert.cpu import LiteRtCpu
from targets.preprocess import Preprocess
from tests.fixtures.lazy import nn
from tests.fixtures.planted_regressions import _static_onnx
from toolchain.checkpoint import CheckpointRequest, settle
from toolchain.checkpoint.float_model import TorchModel
from toolchain.export import export
from toolchain.formats.onnx.file import slim_onnx, write_model
from toolchain.formats.tflite.file import slim_tflite
from toolchain.quantize import quantize
from toolchain.recipe import Quantize


def answers(content: bytes, resolver: OpResolverType) -> tuple[np.ndarray, list[str], dict]:
    interpreter = Interpreter(model_content=content, num_threads=1, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    (source,), (sink,) = interpreter.get_input_details(), interpreter.get_output_details()
    given = []
    for image in np.random.default_rng(0).random((8, *source["shape"]), np.float32):
        interpreter.set_tensor(source["index"], image)
        interpreter.invoke()
        given.append(interpreter.get_tensor(sink["index"]))
    names = [tensor["name"] for tensor in interpreter.get_tensor_details() if tensor["name"]]
    return np.stack(given), names, interpreter.get_signature_list()


@pytest.fixture(scope="module")
def raw(float_model, floats: dict[Format, Artifact], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files as the converter and the quantizer write them."""
    import litert_torch
    import torch
    from litert_quantizer import recipe
    from litert_quantizer.quantizer import Quantizer

    path = tmp_path_factory.mktemp("raw") / "raw.tflite"
    litert_torch.convert(float_model.torch_module("the test"), (torch.zeros(1, 1, 28, 28),)).export(str(path))
    quantizer = Quantizer(str(path))
    quantizer.load_quantization_recipe(recipe.dynamic_wi8_afp32())
    return {"float": path.read_bytes(), "int8": bytes(quantizer.quantize(enable_progress_report=False).quantized_model)}


@pytest.mark.parametrize("resolver", [OpResolverType.AUTO, OpResolverType.BUILTIN_REF])
@pytest.mark.parametrize("which", ["float", "int8"])
def test_a_slim_tflite_file_is_smaller_and_computes_the_same_bits(
    which: str, resolver: OpResolverType, raw: dict[str, bytes]
) -> None:
    slim = bytes(slim_tflite(raw[which]))
    assert len(slim) < len(raw[which]) - 3000
    before, _, signature = answers(raw[which], resolver)
    after, names, slim_signature = answers(slim, resolver)
    assert np.array_equal(before, after)
    assert slim_signature == signature
    assert "features/relu1" in names
    # The kernels' own scratch tensors may share a name.
    layers = [name for name in names if name.startswith(("features/", "classifier"))]
    assert len(set(layers)) == len(layers) > 20


def test_a_slim_int8_file_stores_equal_zero_points_once(floats: dict[Format, Artifact], tmp_path) -> None:
    step = Quantize(scheme="dynamic-int8")
    quantized = quantize(floats["tflite"], step, None, tmp_path / "a.tflite", recipe="dynamic")
    # 8 bytes for each of 128 channels, which five tensors have: the file has the run of zeros at most twice.
    assert quantized.path.read_bytes().count(bytes(8 * 128)) <= 2


def test_a_slim_onnx_graph_keeps_weights_and_answers(floats: dict[Format, Artifact]) -> None:
    model = onnx.load(floats["onnx"].path)
    assert "features.conv1.weight" in {tensor.name for tensor in model.graph.initializer}
    assert not model.graph.value_info
    assert not any(node.name or node.doc_string or node.metadata_props for node in model.graph.node)


def kernels(model: onnx.ModelProto, path: Path) -> tuple[list[str], np.ndarray]:
    """The operators that onnxruntime makes of a graph, and its answers to seeded noise."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(path), 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).random((16, 1, 28, 28), np.float32)
    (answers,) = session.run(None, {session.get_inputs()[0].name: images})
    return [node.op_type for node in onnx.load(path).graph.node], answers


def test_row56_a_model_that_is_written_in_pieces_has_protobufs_own_bytes(
    floats: dict[Format, Artifact], tmp_path: Path
) -> None:
    model = onnx.load(floats["onnx"].path)
    bare = onnx.ModelProto(ir_version=8, graph=onnx.GraphProto(name="bare"))
    for proto in (model, bare, onnx.ModelProto(ir_version=8)):
        write_model(proto, tmp_path / "x.onnx")
        assert (tmp_path / "x.onnx").read_bytes() == proto.SerializeToString(deterministic=True)


def test_a_slim_quantized_graph_runs_the_same_kernels_to_the_same_bits(
    floats: dict[Format, Artifact], digits: Dataset, tmp_path: Path
) -> None:
    pixels = floats["onnx"].preprocess.apply(digits.images[:64])
    raw = onnx.load_from_string(_static_onnx(floats["onnx"], pixels, per_channel=True))
    before = kernels(raw, tmp_path / "before.onnx")
    size = raw.ByteSize()
    slim = slim_onnx(raw)
    after = kernels(slim, tmp_path / "after.onnx")
    assert after[0] == before[0]
    assert before[0].count("QLinearConv") == 6
    assert np.array_equal(after[1], before[1])
    assert slim.ByteSize() < size - 5000
    stored = [tensor for tensor in slim.graph.initializer if tensor.name.endswith(".weight")]
    assert [tensor.name for tensor in stored][:2] == ["features.conv1.weight", "features.conv2.weight"]
    assert {tensor.data_type for tensor in stored} == {TensorProto.INT8}
    contents = [(tensor.data_type, numpy_helper.to_array(tensor).tobytes()) for tensor in slim.graph.initializer]
    assert len(set(contents)) == len(contents)
    assert "Reshape" in {node.op_type for node in slim.graph.node}


def test_slimming_twice_changes_nothing_more(raw: dict[str, bytes], floats: dict[Format, Artifact]) -> None:
    once = bytes(slim_tflite(raw["int8"]))
    assert slim_tflite(once) == once
    model = slim_onnx(onnx.load(floats["onnx"].path))
    again = onnx.ModelProto.FromString(model.SerializeToString())
    assert slim_onnx(again).SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


def test_a_batch_norm_of_a_users_own_file_is_folded(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    norm = {name: random.random(4, np.float32) + 0.5 for name in ("scale", "shift", "mean", "variance")}
    weights = {"w": random.random((4, 1, 3, 3), np.float32), "fc": random.random((10, 2704), np.float32) / 100, **norm}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "w"], ["convolved"], kernel_shape=[3, 3]),
            helper.make_node("BatchNormalization", ["convolved", *norm], ["normed"]),
            helper.make_node("Flatten", ["normed"], ["flat"]),
            helper.make_node("Gemm", ["flat", "fc"], ["logits"], transB=1),
        ],
        "own",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, 28, 28])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    path = tmp_path / "own.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    request = CheckpointRequest(classes=tuple("0123456789"), preprocess=Preprocess())
    exported = export(settle(str(path), request, None).model, "onnx", tmp_path / "own.float.onnx")
    stored = onnx.load(exported.path)
    assert [node.op_type for node in stored.graph.node] == ["Conv", "Reshape", "Gemm"]
    unfolded, folded = (kernels(model, tmp_path / "kernels.onnx")[1] for model in (onnx.load(path), stored))
    assert np.abs(unfolded - folded).max() < 1e-4


def test_tensors_of_a_subgraph_keep_their_names() -> None:
    """A branch may read outer tensors by name, so that nothing there is renamed."""
    branch = helper.make_graph(
        [helper.make_node("Identity", ["outer"], ["inner"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, [1])],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Abs", ["image"], ["outer"]),
            helper.make_node("If", ["yes"], ["logits"], then_branch=branch, else_branch=branch),
        ],
        "whole",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.array(True), "yes")],
    )
    model = slim_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))
    onnx.checker.check_model(model, full_check=True)
    assert model.graph.node[0].output[0] == "outer"


def test_weights_that_stand_behind_the_flatbuffer_come_along(tmp_path: Path) -> None:
    # A model of matrices is large enough that litert-quantizer stores their weights so.
    matrices = nn.Sequential(nn.Flatten(), nn.Linear(784, 576), nn.ReLU(), nn.Linear(576, 128), nn.Linear(128, 10))
    model = TorchModel("wide", Preprocess(), tuple("0123456789"), "0" * 64, matrices.eval())
    source = export(model, "tflite", tmp_path / "wide.float.tflite")
    images = draw(load("builtin:digits", "train"), 64, seed=0)
    pressed = quantize(source, Quantize(scheme="static-int8"), images, tmp_path / "wide.int8.tflite", recipe="x")
    test = load("builtin:digits", "test").images[:50]
    with LiteRtCpu().open(source) as exact, LiteRtCpu().open(pressed) as session:
        expected, logits = exact.run(test), session.run(test)
    assert pressed.size < source.size / 3.5
    assert np.abs(logits - expected).max() < 0.1 * np.ptp(expected)


def test_row26_readers_of_the_old_operator_codes_see_the_operators_too(
    floats: dict[Format, Artifact], digits: Dataset, tmp_path: Path
) -> None:
    from ai_edge_litert import schema_py_generated as schema

    drawn = draw(digits, 64, seed=0)
    step = Quantize(scheme="static-int8", integer_io=True)
    quantized = quantize(floats["tflite"], step, drawn, tmp_path / "q.tflite", recipe="x")
    kinds = schema.BuiltinOperator
    codes = set()
    for artifact in (floats["tflite"], quantized):
        for code in schema.ModelT.InitFromPackedBuf(artifact.path.read_bytes(), 0).operatorCodes:
            assert code.deprecatedBuiltinCode == min(code.builtinCode, 127)
            codes.add(code.builtinCode)
    assert {kinds.QUANTIZE, kinds.CONV_2D, kinds.FULLY_CONNECTED} <= codes
