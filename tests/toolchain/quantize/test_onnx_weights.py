"""Dynamic int8 in ONNX answers as onnxruntime's own quantizer would, which needs four times the weights in memory."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from toolchain.formats.onnx.edit import edited
from toolchain.quantize.onnx_weights import dynamic_onnx

Floats = np.ndarray[Any, np.dtype[np.float32]]
WIDTH = 24
IMAGES = np.random.default_rng(1).standard_normal((5, WIDTH)).astype(np.float32)
GEMM, MATMUL = "Gemm", "MatMul"


def weights(*shape: int, seed: int = 0) -> Floats:
    """Return weights whose channels differ much in size, one of them all zero."""
    rng = np.random.default_rng(seed)
    made = (rng.standard_normal(shape) * np.exp(rng.standard_normal(shape[-1:]))).astype(np.float32)
    made[..., 0] = 0
    return made


def graph(nodes: list[NodeProto], stored: dict[str, Floats], opset: int = 18) -> ModelProto:
    borders = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", WIDTH]) for name in ("x", "y")]
    constants = [numpy_helper.from_array(values, name) for name, values in stored.items()]
    made = helper.make_graph(nodes, "dense", borders[:1], borders[1:], constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def dense(opset: int = 18) -> ModelProto:
    """Return each way to multiply, and a Relu that two layers read."""
    nodes = [
        helper.make_node(GEMM, ["x", "a", "bias"], ["1"], transB=1),
        helper.make_node("Relu", ["1"], ["2"]),
        helper.make_node(MATMUL, ["2", "b"], ["3"]),
        helper.make_node(GEMM, ["2", "c", "bias"], ["4"], alpha=1.0, beta=1.0),
        helper.make_node("Add", ["3", "4"], ["5"]),
        helper.make_node(GEMM, ["5", "d", "bias"], ["6"], alpha=0.5),
        helper.make_node(MATMUL, ["6", "e"], ["y"]),
    ]
    stored = {name: weights(WIDTH, WIDTH, seed=number) for number, name in enumerate("abcde")}
    return graph(nodes, stored | {"bias": weights(WIDTH)}, opset)


def answers(model: ModelProto) -> Floats:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    answer: Floats = session.run(None, {"x": IMAGES})[0]
    return answer


@pytest.mark.parametrize(
    "per_channel", [pytest.param(True, id="row56-channels"), pytest.param(False, id="row56-whole")]
)
@pytest.mark.parametrize("level", [64, 127])
def test_it_answers_as_onnxruntimes_own(tmp_path: Path, per_channel: bool, level: int) -> None:
    quantize_dynamic(
        dense(),
        tmp_path / "theirs.onnx",
        weight_type=QuantType.QInt8,
        per_channel=per_channel,
        reduce_range=level == 64,
        op_types_to_quantize=["MatMul"],
    )
    theirs = onnx.load(tmp_path / "theirs.onnx")
    ours = edited(dense(), partial(dynamic_onnx, per_channel=per_channel, largest_level=level))
    assert Counter(node.op_type for node in ours.graph.node) == Counter(node.op_type for node in theirs.graph.node)
    np.testing.assert_array_equal(answers(ours), answers(theirs))


def test_row56_a_layer_that_is_kept_stays_as_it_was() -> None:
    made = edited(dense(), partial(dynamic_onnx, per_channel=True, largest_level=127, keep={"a", "e"}))
    kinds = Counter(node.op_type for node in made.graph.node)
    # The one with a factor is none of those that integers do.
    assert (kinds["MatMulInteger"], kinds["Gemm"], kinds["MatMul"]) == (2, 2, 1)


def test_row56_tied_weights_that_are_read_both_ways_stay_float() -> None:
    """Onnxruntime's quantizer turns such a weight over twice, and answers with the wrong one."""
    tied = [helper.make_node(GEMM, ["x", "a"], ["1"], transB=1), helper.make_node(GEMM, ["1", "a"], ["y"])]
    stored = {"a": weights(WIDTH, WIDTH)}
    exact = answers(graph(tied, stored))
    np.testing.assert_array_equal(
        answers(edited(graph(tied, stored), partial(dynamic_onnx, per_channel=True, largest_level=127))), exact
    )


def test_row56_weights_that_two_layers_share_are_stored_once() -> None:
    shared = [helper.make_node(GEMM, ["x", "a"], ["1"], transB=1), helper.make_node(GEMM, ["1", "a"], ["y"], transB=1)]
    stored = {"a": weights(WIDTH, WIDTH)}
    exact = answers(graph(shared, stored))
    made = edited(graph(shared, stored), partial(dynamic_onnx, per_channel=True, largest_level=127))
    assert sum(tensor.data_type == TensorProto.INT8 and len(tensor.dims) == 2 for tensor in made.graph.initializer) == 1
    assert np.abs(answers(made) - exact).max() < 0.03 * np.abs(exact).max()


def test_row56_a_file_of_an_older_opset_gets_one_that_has_the_operator() -> None:
    exact = answers(dense(opset=9))
    made = edited(dense(opset=9), partial(dynamic_onnx, per_channel=True, largest_level=127))
    assert np.abs(answers(made) - exact).max() < 0.03 * np.abs(exact).max()
