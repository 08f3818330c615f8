"""The layers of an ONNX file, which of its parts are float, and the results of its layers."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from targets.artifact import Artifact, TensorSpec
from targets.errors import in_one_line
from targets.host.runtime_session import TensorCodec
from targets.onnxruntime.cpu import OrtReference, batch_size
from targets.onnxruntime.onnx_file import append, without_weights
from targets.onnxruntime.operators import layer_of_weight
from toolchain.core.errors import StageError
from toolchain.formats.graph import Constant, FloatParts, Graph, Node, Trace, Values
from toolchain.formats.onnx.file import write_model

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto


WEIGHTED = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul", "MatMulNBits"), 1),
    **dict.fromkeys(("ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul"), 1),
    "QLinearConv": 3,
    "QLinearMatMul": 3,
}
"""Operator with weights -> index of the input that holds them."""
# Not HardSwish and Mish: ONNX Runtime splits them into several operators before it quantizes, so that a layer would end
# at another tensor in the float file than in the quantized one.
_ACTIVATIONS = ["Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "HardSigmoid", "Tanh", "Elu", "Gelu"]
FOLLOWED = frozenset([*_ACTIVATIONS, "QuantizeLinear", "DequantizeLinear", "Cast", "BatchNormalization"])
_QUANTIZER_SUFFIX = re.compile(r"_(quantized|int8|int4|packed)$")
"""Suffixes that quantizers append to the name of a weight."""
_INTEGER_RESULTS = ("QuantizeLinear", "QLinearConv", "QLinearMatMul")
_EXACT = "|exact"
"""Suffix of the input that replaces a layer's result."""


def onnx_graph(model: ModelProto) -> Graph:
    """Return the operators and layers of a model."""
    graph = model.graph
    nodes = tuple(Node(node.op_type, tuple(node.input), tuple(node.output)) for node in graph.node)
    scalars = _scalars(graph)
    constants = _constants(model, nodes)
    names = {constant.name: _layer_name(constant.name) for constant in constants.values()}
    outputs = tuple(output.name for output in graph.output)
    return Graph(nodes, outputs, constants, _codecs(nodes, scalars), WEIGHTED, FOLLOWED, names)


def _layer_name(weight: str) -> str:
    """Return the layer of a weight: as torch names it (`features.conv1.weight`), else the weight's own name."""
    return layer_of_weight(weight) or _QUANTIZER_SUFFIX.sub("", weight)


def _constants(model: ModelProto, nodes: tuple[Node, ...]) -> dict[str, Constant]:
    """Return the tensors stored in the file, and those computed from stored ones alone.

    A computed tensor has the name, type and size of the stored one that its first input comes from.
    """
    from onnx.helper import tensor_dtype_to_np_dtype

    def stored(name: str, tensor: TensorProto) -> Constant:
        return Constant(name, tensor_dtype_to_np_dtype(tensor.data_type).name, prod(tensor.dims))

    constants = {tensor.name: stored(tensor.name, tensor) for tensor in model.graph.initializer}
    for node, proto in zip(nodes, model.graph.node, strict=True):
        inputs = [name for name in node.inputs if name]
        if node.kind == "Constant":
            tensor = next((attribute.t for attribute in proto.attribute if attribute.name == "value"), None)
            if tensor is not None:
                constants[node.outputs[0]] = stored(node.outputs[0], tensor)
        elif inputs and all(name in constants for name in inputs):
            source = constants[inputs[0]]
            computed = Constant(source.name, source.dtype, source.size, (*source.through, node.kind))
            constants |= dict.fromkeys(node.outputs, computed)
    return constants


def _scalars(graph: Any) -> dict[str, Any]:
    """Return the stored tensors of one element, among them scales and zero points of activations, as 0-d arrays."""
    from onnx.numpy_helper import to_array

    return {tensor.name: to_array(tensor).reshape(()) for tensor in graph.initializer if prod(tensor.dims) == 1}


def _codecs(nodes: tuple[Node, ...], scalars: dict[str, Any]) -> dict[str, TensorCodec]:
    """Return the quantization of every tensor that is quantized or dequantized with a single scale."""
    codecs: dict[str, TensorCodec] = {}
    for node in nodes:
        if node.kind in ("QuantizeLinear", "DequantizeLinear"):
            scale, zero_point = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else ""
        elif node.kind in ("QLinearConv", "QLinearMatMul"):
            scale, zero_point = node.inputs[6:8]
        else:
            continue
        if scale in scalars and (not zero_point or zero_point in scalars):
            point = scalars[zero_point] if zero_point else np.uint8(0)
            spec = TensorSpec(node.outputs[0], (-1, -1), point.dtype.name, float(scalars[scale]), int(point))
            codecs[node.outputs[0]] = TensorCodec(spec)
    return codecs


class OnnxFloatParts(FloatParts):
    """Which operators and weights of a quantized ONNX file are still float."""

    def __init__(self, content: bytes) -> None:
        """Parse the file."""
        import onnx

        self._model = onnx.load_from_string(content)

    def operators(self) -> set[str]:
        """Return the kinds of operators that compute in float."""
        import onnx
        from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

        graph = onnx.shape_inference.infer_shapes(self._model).graph
        floats = {
            value.name
            for value in (*graph.value_info, *graph.output)
            if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        }
        quantizable = {"QuantizeLinear", "DequantizeLinear", *QDQRegistry, *QLinearOpsRegistry}
        constants = {tensor.name for tensor in graph.initializer}
        float_kinds = set()
        for node in graph.node:
            if constants.issuperset(node.input):
                # ONNX Runtime computes it once, when it loads the file.
                constants.update(node.output)
            elif node.op_type not in quantizable and set(node.output) & floats:
                float_kinds.add(node.op_type)
        return float_kinds

    def constants(self) -> Iterator[tuple[Sequence[int], bool, str | None]]:
        """Yield the shape of each initializer, whether it is float32, and the kind of its first reader."""
        import onnx

        graph = self._model.graph
        readers: dict[str, str] = {}
        for node in graph.node:
            readers |= {name: node.op_type for name in node.input if name not in readers}
        for tensor in graph.initializer:
            yield tensor.dims, tensor.data_type == onnx.TensorProto.FLOAT, readers.get(tensor.name)


class OnnxTrace(Trace):
    """The results of layers in ONNX Runtime without graph optimizations.

    So every QuantizeLinear and DequantizeLinear is computed as the file states it, and everything between them in
    float. The integer kernels of an optimized session differ from that by rounding errors.
    """

    def __init__(self, artifact: Artifact) -> None:
        """Read the file."""
        super().__init__(artifact, onnx_graph(without_weights(artifact.path)))

    @property
    def batch(self) -> int:
        """Return how many images to run at once."""
        return self.fixed_batch or batch_size(self.artifact.path)

    def _dtype(self, tensor: str) -> int:
        """Return the ONNX type of a layer's result."""
        import onnx

        if self.graph.makers[tensor].kind in _INTEGER_RESULTS:
            dtype = np.dtype(self.graph.codecs[tensor].spec.dtype)
            return int(onnx.helper.np_dtype_to_tensor_dtype(dtype))
        return int(onnx.TensorProto.FLOAT)

    def session(self, replaced: Sequence[str]) -> Any:
        """Return a session that returns the layers' results, and has inputs in place of the tensors `replaced`."""
        import onnxruntime

        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "traced.onnx")
            write_model(self._with_results(replaced), source)
            try:
                options = OrtReference().options(1)
                # The arena would keep memory for the expanded weights of all layers, not of one at a time.
                options.enable_cpu_mem_arena = False
                return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
            except Exception as error:
                raise StageError(
                    f"{self.artifact.path.name}: ONNX Runtime cannot show its layers ({in_one_line(error)})"
                ) from error

    def _with_results(self, replaced: Sequence[str]) -> ModelProto:
        """Return the model with every layer's result as an output, and inputs in place of the tensors `replaced`."""
        import onnx

        model = onnx.load(self.artifact.path)
        output_names = {output.name for output in model.graph.output}
        for name in dict.fromkeys(layer.result for layer in self.graph.layers):
            if name not in output_names:
                model.graph.output.append(onnx.ValueInfoProto(name=name))
        inputs = {
            tensor: _exact_input(layer.result)
            for layer in self.graph.layers
            if layer.result in replaced
            for tensor in (layer.result, *layer.copies)
        }
        for node in model.graph.node:
            node.input[:] = [inputs.get(name, name) for name in node.input]
        for name in replaced:
            value_info = onnx.helper.make_tensor_value_info(_exact_input(name), self._dtype(name), None)
            model.graph.input.append(value_info)
        return model

    def run(self, session: Any, pixels: NDArray[Any], inputs: Values) -> Mapping[str, NDArray[Any]]:
        """Return the results of layers by tensor; inputs: the values of the tensors that the session replaced."""
        source = self.artifact.inputs[0]
        arrays = {source.name: TensorCodec(source).encode(pixels)}
        for declared in session.get_inputs():
            if declared.name != source.name:
                tensor = declared.name.removesuffix(_EXACT)
                values, codec = inputs[tensor], self.graph.codecs.get(tensor)
                is_float = declared.type == "tensor(float)"
                arrays[declared.name] = codec.encode(values) if codec and not is_float else values
        names = list(dict.fromkeys(layer.result for layer in self.graph.layers))
        return dict(zip(names, session.run(names, arrays), strict=True))


def _exact_input(tensor: str) -> str:
    """Return the name of the input that replaces a layer's result."""
    return tensor + _EXACT


def onnx_activations(path: Path, names: Sequence[str], batches: NDArray[np.float32]) -> Iterator[Values]:
    """Yield the float tensors `names` of an ONNX file for each of `batches`; its input may be among them."""
    import onnx
    import onnxruntime

    graph = without_weights(path).graph
    source = graph.input[0].name
    inner = [name for name in names if name != source]
    output_names = {output.name for output in graph.output}
    outputs = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in inner
        if name not in output_names
    ]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        source_path = Path(folder) / "traced.onnx"
        shutil.copyfile(path, source_path)
        append(source_path, onnx.ModelProto(graph=onnx.GraphProto(output=outputs)))
        session = onnxruntime.InferenceSession(source_path, options, providers=["CPUExecutionProvider"])
    for batch in batches:
        activations = dict(zip(inner, session.run(inner, {source: batch}), strict=True)) if inner else {}
        yield activations | ({source: batch} if source in names else {})
