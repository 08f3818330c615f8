"""What a quantized file still computes or stores in float."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from math import prod

from toolchain.formats.tflite.layers import parsed
from toolchain.quantize.step import Quantize


def left_in_float(content: bytes, kind: str) -> tuple[str, ...]:
    """Return the kinds of operators of a statically quantized file that compute in float, sorted.

    Conversions at its inputs and outputs do not count.
    """
    return tuple(sorted(_onnx_float_kinds(content) if kind == "onnx" else _tflite_float_kinds(content)))


def _onnx_float_kinds(content: bytes) -> set[str]:
    import onnx
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(content)).graph
    floats = {
        value.name
        for value in (*graph.value_info, *graph.output)
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    known = {"QuantizeLinear", "DequantizeLinear", *QDQRegistry, *QLinearOpsRegistry}
    constants = {tensor.name for tensor in graph.initializer}
    float_kinds = set()
    for node in graph.node:
        if constants.issuperset(node.input):
            # Folded when the file is loaded.
            constants.update(node.output)
        elif node.op_type not in known and set(node.output) & floats:
            float_kinds.add(node.op_type)
    return float_kinds


def _tflite_float_kinds(content: bytes) -> set[str]:
    from ai_edge_litert.schema_py_generated import TensorType

    return {kind for kind, types in operators(content).items() if TensorType.FLOAT32 in types and kind != "DEQUANTIZE"}


def operators(content: bytes) -> dict[str, set[int]]:
    """Return each kind of operator of a TFLite file, and the types (`TensorType`) of its outputs."""
    from ai_edge_litert import schema_py_generated as schema

    model = parsed(content)
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    output_types: dict[str, set[int]] = {}
    for graph in model.subgraphs:
        for node in graph.operators:
            kind = names[model.operatorCodes[node.opcodeIndex].builtinCode]
            output_types.setdefault(kind, set()).update(
                graph.tensors[index].type for index in node.outputs if index >= 0
            )
    return output_types


_NOT_FLOAT = ""
"""Name under which weights of other types than float32 are counted."""
MOSTLY = 0.5
"""Share of float weights above which a file is not what its scheme promises."""


def weights_left(content: bytes, kind: str, step: Quantize) -> str:
    """Return a note where most weights of a quantized file are still float32; an empty string otherwise.

    Empty too where the step itself keeps layers in float.
    """
    counts = _onnx_weights(content) if kind == "onnx" else _tflite_weights(content)
    total = counts.total()
    small = counts.pop(_NOT_FLOAT, 0)
    if step.keep or not total or counts.total() <= MOSTLY * total:
        return ""
    kinds = ", ".join(kind for kind, count in counts.most_common(3) if count)
    return (
        f"{(total - small) / total:.0%} of the weights stay float32, those of {kinds}, which {step.scheme} does not "
        f"quantize; {'' if step.calibrated else 'try --scheme static-int8, '}prune or distill the model, or write "
        "these layers otherwise"
    )


def _onnx_weights(content: bytes) -> Counter[str]:
    """Return how many float32 weights the operators of each kind read; weights of other types count as _NOT_FLOAT."""
    import onnx

    graph = onnx.load_from_string(content).graph
    readers: dict[str, str] = {}
    for node in graph.node:
        readers |= {name: node.op_type for name in node.input if name not in readers}
    counts: Counter[str] = Counter()
    for tensor in graph.initializer:
        if _is_weight(tensor.dims):
            is_float = tensor.data_type == onnx.TensorProto.FLOAT
            counts[readers.get(tensor.name, "nothing") if is_float else _NOT_FLOAT] += prod(tensor.dims)
    return counts


def _tflite_weights(content: bytes) -> Counter[str]:
    from ai_edge_litert import schema_py_generated as schema

    model = parsed(content)
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    counts: Counter[str] = Counter()
    for graph in model.subgraphs:
        readers: dict[int, str] = {}
        for node in graph.operators:
            kind = names[model.operatorCodes[node.opcodeIndex].builtinCode]
            readers |= {index: kind for index in node.inputs if index not in readers}
        for number, tensor in enumerate(graph.tensors):
            buffer, shape = model.buffers[tensor.buffer], [] if tensor.shape is None else [int(n) for n in tensor.shape]
            if _is_weight(shape) and (buffer.data is not None or buffer.size):
                is_float = tensor.type == schema.TensorType.FLOAT32
                counts[readers.get(number, "nothing") if is_float else _NOT_FLOAT] += prod(shape)
    return counts


def _is_weight(shape: Iterable[int]) -> bool:
    """Return whether a constant has two or more axes longer than 1; biases, scales and shapes have one."""
    return sum(size > 1 for size in shape) > 1
