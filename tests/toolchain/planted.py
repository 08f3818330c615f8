"""Regressions planted in real artifacts: what goes wrong in a press, done on purpose to the file's own bytes."""

from __future__ import annotations

import copy
import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.sample import CalibrationSet
from targets.artifact import Artifact, file_sha256
from targets.metadata import save_sidecar
from tests.lazily import torch
from toolchain.checkpoint.float_model import FloatModel


@dataclass
class Layer:
    """A quantized layer, in every format alike; the output channel is the first axis.

    weights: int8 [C, ...]. scale: float32 [C], of the weights. bias: int32 or float32 [C]. bias_scale: float32 [C].
    """

    weights: NDArray[np.int8]
    scale: NDArray[np.float32]
    bias: NDArray[np.int32] | NDArray[np.float32]
    bias_scale: NDArray[np.float32]


Change = Callable[[list[Layer]], None]
CONV1, CONV2, CONV3, CONV4, CONV5, POOL, CLASSIFIER = range(7)
"""The layers of `cnn-small`, in the order that both formats hold them."""


def planted(artifact: Artifact, path: Path, change: Change) -> Artifact:
    """Write a copy of a quantized file whose layers, first to last, were changed in place, with its sidecar."""
    edit = _edit_onnx if artifact.format == "onnx" else _edit_tflite
    return _written(artifact, path, edit(artifact.path.read_bytes(), change))


def scale_times(factor: float, layer: int) -> Change:
    """One layer's scale is wrong by a factor: all that it gives out is."""

    def change(layers: list[Layer]) -> None:
        layers[layer].scale *= np.float32(factor)
        layers[layer].bias_scale *= np.float32(factor)

    return change


def zeroed(channel: int | slice, layer: int) -> Change:
    """A channel of a layer, or several, is lost: its weights and its bias are 0."""

    def change(layers: list[Layer]) -> None:
        layers[layer].weights[channel] = 0
        layers[layer].bias[channel] = 0

    return change


def swapped(first: int, second: int) -> Change:
    """Two classes changed places in the last layer, while the sidecar still lists them as before."""

    def change(layers: list[Layer]) -> None:
        for array in vars(layers[-1]).values():
            array[[first, second]] = array[[second, first]]

    return change


def swapped_in_sidecar(artifact: Artifact, path: Path, first: int, second: int) -> Artifact:
    """Write a copy of a file whose sidecar lists two classes in each other's place."""
    classes = list(artifact.classes)
    classes[first], classes[second] = classes[second], classes[first]
    return _written(artifact, path, artifact.path.read_bytes(), classes=tuple(classes))


def turned(artifact: Artifact, path: Path) -> Artifact:
    """Write a copy of a file whose sidecar says that it wants its images transposed, which it was not trained on."""
    preprocess = replace(artifact.preprocess, orientation="transpose")
    return _written(artifact, path, artifact.path.read_bytes(), preprocess=preprocess)


def _written(artifact: Artifact, path: Path, content: bytes, **facts: Any) -> Artifact:
    path.write_bytes(content)
    made = replace(artifact, path=path, sha256=file_sha256(path), **facts)
    save_sidecar(made)
    return made


def _edit_onnx(content: bytes, change: Change) -> bytes:
    import onnx
    from onnx.numpy_helper import from_array, to_array

    model = onnx.load_from_string(content)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    made_by = {node.output[0]: node for node in model.graph.node}
    names, layers = [], []
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            weights, scale = made_by[node.input[1]].input[:2]
            # A convolution's bias is float; that of the logits has a scale that follows the weights'.
            bias = node.input[2] if node.input[2] in stored else made_by[node.input[2]].input[0]
            names.append((weights, scale, bias))
            held = [to_array(stored[name]).copy() for name in names[-1]]
            layers.append(Layer(*held, bias_scale=np.ones_like(held[1])))
    change(layers)
    for places, layer in zip(names, layers, strict=True):
        if layer.bias.dtype == np.float32:
            layer.bias *= layer.bias_scale
        for name, array in zip(places, vars(layer).values(), strict=False):
            stored[name].CopyFrom(from_array(array, name))
    return model.SerializeToString(deterministic=True)


def _edit_tflite(content: bytes, change: Change) -> bytes:
    from ai_edge_litert import schema_py_generated as schema

    from toolchain.formats.tflite.layers import parsed
    from toolchain.formats.tflite.slim import packed, slim_tflite

    model = parsed(content)
    (graph,) = model.subgraphs
    kinds = schema.BuiltinOperator
    weighted = {kinds.CONV_2D, kinds.DEPTHWISE_CONV_2D, kinds.FULLY_CONNECTED}
    chosen = [op for op in graph.operators if model.operatorCodes[op.opcodeIndex].builtinCode in weighted]
    places = [[graph.tensors[index] for index in op.inputs[1:3]] for op in chosen]
    layers = [_layer(model, *pair) for pair in places]
    change(layers)
    for (weights, bias), layer in zip(places, layers, strict=True):
        _store(model, weights, layer.weights, layer.scale)
        _store(model, bias, layer.bias, layer.bias_scale)
    return bytes(slim_tflite(packed(model, len(content))))


def _layer(model: Any, weights: Any, bias: Any) -> Layer:
    stored = model.buffers[weights.buffer].data.view(np.int8).reshape(weights.shape)
    first = np.moveaxis(stored, weights.quantization.quantizedDimension, 0)
    numbers = model.buffers[bias.buffer].data.view(np.int32)
    return Layer(first.copy(), weights.quantization.scale.copy(), numbers.copy(), bias.quantization.scale.copy())


def _store(model: Any, tensor: Any, array: NDArray[Any], scale: NDArray[np.float32]) -> None:
    stored = np.moveaxis(array, 0, tensor.quantization.quantizedDimension)
    model.buffers[tensor.buffer].data = np.ascontiguousarray(stored).reshape(-1).view(np.uint8)
    tensor.quantization.scale = scale


def blank(drawn: CalibrationSet) -> CalibrationSet:
    """Return a calibration set without any ink."""
    return _other(drawn, np.zeros_like(drawn.images))


def transposed(drawn: CalibrationSet) -> CalibrationSet:
    """Return a calibration set whose rows and columns changed places, as the official files store their images."""
    return _other(drawn, np.ascontiguousarray(drawn.images.transpose(0, 2, 1)))


def _other(drawn: CalibrationSet, images: NDArray[np.uint8]) -> CalibrationSet:
    return replace(drawn, images=images, sha256=hashlib.sha256(images.tobytes()).hexdigest())


def unevenly_scaled(model: FloatModel, factor: float) -> FloatModel:
    """Return a `cnn-small` that answers the same, though every second channel of conv5 gives `factor` times as much.

    ReLU lets a positive factor through, and the depthwise `pool` takes it back, a channel at a time: so the weights
    of both layers are badly scaled between their channels, and quantizing each channel by itself loses nothing.
    """
    module = copy.deepcopy(model.torch_module("scaling"))
    factors = torch.ones(len(module.features.norm5.weight))
    factors[1::2] = factor
    with torch.no_grad():
        module.features.norm5.weight *= factors
        module.features.norm5.bias *= factors
        module.features.pool.weight /= factors[:, None, None, None]
    return model.with_module(module)


def statically(artifact: Artifact, drawn: CalibrationSet, path: Path, *, per_channel: bool) -> Artifact:
    """Quantize a float file to static int8 by the runtime's own tool, with one scale a channel or one a layer."""
    tool = _static_onnx if artifact.format == "onnx" else _static_tflite
    return _written(artifact, path, tool(artifact, artifact.preprocess.apply(drawn.images), per_channel))


def _static_onnx(artifact: Artifact, pixels: NDArray[np.float32], per_channel: bool) -> bytes:
    from onnxruntime import quantization as tool
    from onnxruntime.quantization.shape_inference import quant_pre_process

    batches = iter([{artifact.inputs[0].name: pixels}])

    class Reader(tool.CalibrationDataReader):
        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(batches, None)

    with tempfile.TemporaryDirectory() as folder:
        prepared, made = Path(folder) / "prepared.onnx", Path(folder) / "made.onnx"
        quant_pre_process(artifact.path, prepared, skip_symbolic_shape=True)
        kinds = {"activation_type": tool.QuantType.QUInt8, "weight_type": tool.QuantType.QInt8}
        # 7-bit weights, as our own files have: without VNNI, 8 bits overflow.
        tool.quantize_static(prepared, made, Reader(), per_channel=per_channel, reduce_range=True, **kinds)
        return made.read_bytes()


def _static_tflite(artifact: Artifact, pixels: NDArray[np.float32], per_channel: bool) -> bytes:
    from ai_edge_litert.interpreter import Interpreter
    from litert_quantizer.calibrator import Calibrator
    from litert_quantizer.qtyping import TFLOperationName
    from litert_quantizer.quantizer import Quantizer
    from litert_quantizer.recipe import static_wi8_ai8
    from litert_quantizer.utils.qsv_utils import min_max_update

    steps = copy.deepcopy(static_wi8_ai8())
    for step in steps:
        step["op_config"]["weight_tensor_config"]["granularity"] = "CHANNELWISE" if per_channel else "TENSORWISE"
    quantizer = Quantizer(str(artifact.path))
    quantizer.load_quantization_recipe(steps)
    for edge in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
        quantizer.update_quantization_recipe(".*", edge, algorithm_key="no_quantize")
    ((signature, ports),) = Interpreter(str(artifact.path)).get_signature_list().items()
    feed = [{ports["inputs"][0]: one} for one in pixels.reshape(-1, *artifact.inputs[0].shape)]
    calibrator = Calibrator(artifact.path.read_bytes(), num_threads=1, qsv_update_func=min_max_update)
    calibrator.calibrate({signature: feed}, quantizer._recipe_manager)
    return bytes(quantizer.quantize(calibrator.get_model_qsvs(), enable_progress_report=False).quantized_model)
