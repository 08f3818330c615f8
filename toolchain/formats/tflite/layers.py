"""The layers of a TFLite file: its graph, which parts are float, the results of layers, and the kernels that run them.

A tensor's name is its index as text: names in the file need not be unique.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from targets import catalog
from targets.artifact import Artifact, TensorSpec
from targets.errors import in_one_line
from targets.host.runtime_session import TensorCodec, quiet_stderr
from targets.litert.operators import layer_of_tensor
from targets.session import Operator
from toolchain.core.errors import StageError
from toolchain.formats.graph import (
    AT_RUN_TIME,
    BETWEEN_FLOATS,
    FLOAT_WEIGHTS,
    LEFT_FLOAT,
    Constant,
    Diagnosis,
    FloatParts,
    Graph,
    Kernel,
    Layer,
    Node,
    Trace,
    Values,
    listed,
)
from toolchain.formats.tflite.file import enum_names, mapped, operator_kinds, packed, parsed, shape_of, unpacked

WEIGHTED = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "TRANSPOSE_CONV": 1, "FULLY_CONNECTED": 1, "BATCH_MATMUL": 1}
"""Operator with weights -> index of the input that holds them."""
_ACTIVATIONS = ["RELU", "RELU6", "LEAKY_RELU", "LOGISTIC", "TANH", "HARD_SWISH", "ELU", "GELU"]
FOLLOWED = frozenset([*_ACTIVATIONS, "QUANTIZE", "DEQUANTIZE"])


def tflite_graph(model: Any) -> Graph:
    """Return the operators and layers of the first subgraph."""
    graph = model.subgraphs[0]
    dtypes = enum_names("TensorType")
    kinds = [
        code.customCode.decode() if code.customCode else kind
        for code, kind in zip(model.operatorCodes, operator_kinds(model), strict=True)
    ]
    nodes = tuple(
        Node(kinds[operator.opcodeIndex], _keys(operator.inputs), _keys(operator.outputs))
        for operator in graph.operators
    )
    constants = {
        str(number): Constant(str(number), dtypes[tensor.type].lower(), prod(shape_of(tensor)))
        for number, tensor in enumerate(graph.tensors)
        if model.buffers[tensor.buffer].data is not None or model.buffers[tensor.buffer].size
    }
    names = {str(number): layer_of_tensor(tensor.name.decode()) for number, tensor in enumerate(graph.tensors)}
    codecs = _codecs(graph, dtypes)
    for node in nodes:
        first = node.inputs[0] if node.inputs else ""
        if node.kind in ("DEQUANTIZE", "CAST") and first in constants:
            source = constants[first]
            through = (*source.through, node.kind)
            constants[node.outputs[0]] = Constant(source.name, source.dtype, source.size, through)
        elif node.kind == "DEQUANTIZE" and first in codecs:
            codecs[node.outputs[0]] = codecs[first]
    return Graph(nodes, _keys(graph.outputs), constants, codecs, WEIGHTED, FOLLOWED, names)


def _codecs(graph: Any, dtypes: dict[int, str]) -> dict[str, TensorCodec]:
    """Return the quantization of every tensor that has a single scale."""
    codecs = {}
    for number, tensor in enumerate(graph.tensors):
        quantization = tensor.quantization
        if quantization is not None and quantization.scale is not None and len(quantization.scale) == 1:
            dtype, points = dtypes[tensor.type].lower(), quantization.zeroPoint
            zero_point = int(points[0]) if points is not None and len(points) else 0
            spec = TensorSpec(str(number), shape_of(tensor), dtype, float(quantization.scale[0]), zero_point)
            codecs[str(number)] = TensorCodec(spec)
    return codecs


def _keys(tensors: Any) -> tuple[str, ...]:
    """Return the names of tensors given by index; -1 is an omitted input, whose name is empty."""
    return tuple("" if index < 0 else str(index) for index in (tensors if tensors is not None else ()))


class TfliteFloatParts(FloatParts):
    """Which operators and weights of a quantized TFLite file are still float, in all subgraphs."""

    def __init__(self, content: bytes) -> None:
        """Parse the file."""
        self._model = parsed(content)
        self._kinds = operator_kinds(self._model)

    def operators(self) -> set[str]:
        """Return the kinds of operators that compute in float."""
        names = enum_names("TensorType")
        return {
            kind
            for graph in self._model.subgraphs
            for node in graph.operators
            if (kind := self._kinds[node.opcodeIndex]) != "DEQUANTIZE"
            and any(names[graph.tensors[index].type] == "FLOAT32" for index in node.outputs if index >= 0)
        }

    def constants(self) -> Iterator[tuple[Sequence[int], bool, str | None]]:
        """Yield the shape of each stored tensor, whether it is float32, and the kind of its first reader."""
        names = enum_names("TensorType")
        for graph in self._model.subgraphs:
            readers: dict[int, str] = {}
            for node in graph.operators:
                kind = self._kinds[node.opcodeIndex]
                readers |= {index: kind for index in node.inputs if index not in readers}
            for number, tensor in enumerate(graph.tensors):
                buffer = self._model.buffers[tensor.buffer]
                if buffer.data is not None or buffer.size:
                    yield shape_of(tensor), names[tensor.type] == "FLOAT32", readers.get(number)


class TfliteTrace(Trace):
    """The results of layers in LiteRT's own kernels: a delegate does not return inner tensors."""

    def __init__(self, artifact: Artifact) -> None:
        """Read the file."""
        self.content = mapped(artifact.path)
        super().__init__(artifact, tflite_graph(parsed(self.content)))

    def session(self, replaced: Sequence[str]) -> tuple[Any, dict[str, int]]:
        """Return an interpreter with inputs in place of the tensors `replaced`, and tensor -> index of its input."""
        source, indices = self._with_inputs(replaced) if replaced else (self.artifact.path, {})
        try:
            with quiet_stderr():
                return open_bare(source), indices
        except (ValueError, RuntimeError) as error:
            name = self.artifact.path.name
            raise StageError(f"{name}: LiteRT cannot show its layers ({in_one_line(error)})") from error

    def _with_inputs(self, replaced: Sequence[str]) -> tuple[bytes, dict[str, int]]:
        """Return the file with inputs in place of the tensors `replaced`, and tensor -> index of its input."""
        model, indices = unpacked(self.content), dict[str, int]()
        graph = model.subgraphs[0]
        for tensor in replaced:
            exact_input = copy.copy(graph.tensors[int(tensor)])
            exact_input.name = b"exact " + tensor.encode()
            indices[tensor] = len(graph.tensors)
            graph.tensors.append(exact_input)
        for operator in graph.operators:
            operator.inputs = [indices.get(str(index), index) for index in operator.inputs]
        graph.inputs = [*graph.inputs, *indices.values()]
        # LiteRT need not compute a result that nothing reads any more, unless it is an output.
        graph.outputs = [*graph.outputs, *map(int, indices)]
        model.signatureDefs = None
        return packed(model, len(self.content)), indices

    def run(self, session: tuple[Any, dict[str, int]], pixels: NDArray[Any], inputs: Values) -> dict[str, NDArray[Any]]:
        """Return the results of layers by tensor; inputs: the values of the tensors that the session replaced."""
        interpreter, indices = session
        source, *others = interpreter.get_input_details()
        interpreter.set_tensor(source["index"], TensorCodec(self.artifact.inputs[0]).encode(pixels))
        floats = {detail["index"] for detail in others if detail["dtype"] == np.float32}
        for tensor, values in inputs.items():
            index, codec = indices[tensor], self.graph.codecs.get(tensor)
            interpreter.set_tensor(index, codec.encode(values) if codec and index not in floats else values)
        interpreter.invoke()
        return {layer.result: interpreter.get_tensor(int(layer.result)) for layer in self.graph.layers}


def tflite_activations(source: Path | bytes, names: Sequence[str], batches: NDArray[np.float32]) -> Iterator[Values]:
    """Yield the tensors `names` of a TFLite file for each of `batches`; integers are dequantized."""
    interpreter = open_bare(source)
    (input_detail,) = interpreter.get_input_details()
    details = {detail["name"]: detail for detail in interpreter.get_tensor_details()}
    for batch in batches:
        interpreter.set_tensor(input_detail["index"], batch)
        interpreter.invoke()
        yield {name: _dequantized(interpreter.get_tensor(details[name]["index"]), details[name]) for name in names}


def open_bare(source: Path | bytes) -> Any:
    """Return an interpreter of a file or of its bytes without delegates, from which inner tensors can be read.

    Raises ValueError or RuntimeError where LiteRT refuses the file.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        **({"model_path": str(source)} if isinstance(source, Path) else {"model_content": source}),
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    return interpreter


def _dequantized(stored: NDArray[Any], detail: dict[str, Any]) -> NDArray[np.float32]:
    quantization = detail["quantization_parameters"]
    if not quantization["scales"].size:
        return stored.astype(np.float32, copy=False)
    values: NDArray[np.float32] = (stored.astype(np.float32) - quantization["zero_points"]) * quantization["scales"]
    return values


_SHAPES = ["QUANTIZE", "DEQUANTIZE", "CAST", "RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "SHAPE"]
_PARTS = ["PAD", "PADV2", "SLICE", "STRIDED_SLICE", "CONCATENATION", "SPLIT", "GATHER", "MAX_POOL_2D"]
_MOVES = frozenset([*_SHAPES, *_PARTS])
"""Kinds that only move values without changing them, or only change their type."""


def tflite_kernels(artifact: Artifact) -> tuple[Kernel, ...]:
    """See `toolchain.formats.catalog.FileFormat.kernels`."""
    graph = tflite_graph(parsed(mapped(artifact.path)))
    layers = {layer.node: layer for layer in graph.layers}
    kernels = []
    for number, node in enumerate(graph.nodes):
        if layer := layers.get(number):
            kernels.append(_layer_kernel(graph, node, layer))
        elif node.kind not in _MOVES and node.outputs[0] not in graph.constants and not _quantized(graph, node.outputs):
            dequantized = graph.makers.get(node.inputs[0], node).kind == "DEQUANTIZE"
            kernels.append(Kernel("", node.kind, False, LEFT_FLOAT if dequantized else BETWEEN_FLOATS))
    return tuple(kernels)


def _layer_kernel(graph: Graph, node: Node, layer: Layer) -> Kernel:
    if layer.weights.dtype == "float32":
        return Kernel(layer.name, node.kind, False, FLOAT_WEIGHTS)
    if layer.weights.through:
        return Kernel(layer.name, node.kind, False, "its weights are dequantized in front of it")
    return Kernel(layer.name, node.kind, True, "" if _quantized(graph, node.inputs) else AT_RUN_TIME)


def _quantized(graph: Graph, tensors: tuple[str, ...]) -> bool:
    """Return whether the first of these tensors holds integers; a dequantized tensor has a codec but holds floats."""
    maker = graph.makers.get(tensors[0])
    return tensors[0] in graph.codecs and not (maker and maker.kind == "DEQUANTIZE")


class TfliteDiagnosis(Diagnosis):
    """Why a TFLite file is slow."""

    def reasons(self, base: Artifact) -> list[str]:  # noqa: ARG002 (OnnxDiagnosis uses it)
        """Return what runs outside XNNPACK, or in its slower kernels."""
        with catalog.default_for(self.artifact.format).open(self.artifact) as session:
            parts = session.facts.placement.get("XNNPACK", 0)
        reasons = []
        if parts != 1:
            reasons.append(f"XNNPACK has {f'the graph in {parts} parts' if parts else 'no part of the graph'}")
        if self._has_int16():
            reasons.append("int16 activations, for which XNNPACK has no kernels")
        if outside := [operator for operator in self.operators if operator.kernel.isupper()]:
            reasons.append(f"outside XNNPACK: {self._kernels_and_time(outside)}")
        converters = [operator for operator in self.operators if operator.kernel.startswith("Convert")]
        if dynamic := [operator for operator in converters if "QD8" in operator.kernel]:
            reasons.append(
                f"activations are measured and quantized anew in each inference: {self._kernels_and_time(dynamic)}"
            )
        return reasons

    def computes_in_int8(self) -> bool:
        """Return whether XNNPACK runs an int8 kernel."""
        return any("QC8" in operator.kernel or "QS8" in operator.kernel for operator in self.operators)

    def _has_int16(self) -> bool:
        from ai_edge_litert.interpreter import Interpreter

        tensors = Interpreter(str(self.artifact.path)).get_tensor_details()
        return any(tensor["dtype"] == np.int16 for tensor in tensors)

    def _kernels_and_time(self, operators: Sequence[Operator]) -> str:
        return f"{listed(Counter(operator.kernel for operator in operators))}, {self.time_share(operators)}"
