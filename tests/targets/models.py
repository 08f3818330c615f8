"""Tiny files for the target tests: a seeded conv net in ONNX, a file that answers NaN, and TFLite of the same shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from targets.artifact import Artifact
from targets.metadata import adopt
from targets.preprocess import Preprocess

CLASSES = tuple("0123456789")


def conv_net(
    path: Path,
    *,
    batch: int | str = "batch",
    classes: int = 10,
    channels: int = 4,
    nhwc: bool = False,
    weight: float = 1.0,
    names: tuple[str, str] = ("image", "logits"),
) -> Path:
    """Write a conv, relu, linear net on 28x28 glyphs."""
    random = np.random.default_rng(0)
    source, sink = names
    weights = {
        "w": random.normal(size=(channels, 1, 5, 5)) * 0.2,
        "fc": random.normal(size=(channels * 12 * 12, classes)) * 0.05 * weight,
    }
    nodes = [
        helper.make_node("Conv", ["nchw" if nhwc else source, "w"], ["c"], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("MatMul", ["f", "fc"], [sink]),
    ]
    if nhwc:
        nodes.insert(0, helper.make_node("Transpose", [source], ["nchw"], perm=[0, 3, 1, 2]))
    shape = [batch, 28, 28, 1] if nhwc else [batch, 1, 28, 28]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(source, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(sink, TensorProto.FLOAT, [batch, classes])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return _save(graph, path)


def integer_net(path: Path) -> Path:
    """Write a net with int8 input (scale 1/255, zero point -128) and uint8 output (scale 0.5, zero point 128)."""
    random = np.random.default_rng(0)
    constants = {
        "s": np.float32(1 / 255),
        "z": np.int8(-128),
        "fc": (random.normal(size=(784, 10)) * 0.5).astype(np.float32),
        "os": np.float32(0.5),
        "oz": np.uint8(128),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["image", "s", "z"], ["x"]),
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("MatMul", ["f", "fc"], ["y"]),
        helper.make_node("QuantizeLinear", ["y", "os", "oz"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", TensorProto.INT8, ["batch", 1, 28, 28])],
        [helper.make_tensor_value_info("logits", TensorProto.UINT8, ["batch", 10])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return _save(graph, path)


def _save(graph: onnx.GraphProto, path: Path) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def artifact(path: Path, classes: int = 10, **preprocess: Any) -> Artifact:
    """Adopt a file written here."""
    return adopt(path, preprocess=Preprocess(**preprocess), classes=tuple(map(str, range(classes))))


def glyphs(count: int, seed: int = 0) -> np.ndarray:
    """Return random uint8 images [N, 28, 28]."""
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28), dtype=np.uint8)


def stored(source: Path, path: Path) -> Path:
    """Let ONNX Runtime optimize a file and store it in its own format."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    return path
