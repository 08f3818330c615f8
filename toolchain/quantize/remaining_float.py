"""What a quantization leaves in float: operators without integers, and weights that nothing quantizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from math import prod

from toolchain.formats.tflite.layers import parsed
from toolchain.quantize.step import Quantize


def left_in_float(content: bytes, kind: str) -> tuple[str, ...]:
    """Return the kinds of operators of a statically quantized file that compute in float, sorted; its border aside."""
    return tuple(sorted(_onnx(content) if kind == "onnx" else _tflite(content)))


def _onnx(content: bytes) -> set[str]:
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
    found = set()
    for node in graph.node:
        if constants.issuperset(node.input):
            # Folded when the file is loaded.
            constants.update(node.output)
        elif node.op_type not in known and set(node.output) & floats:
            found.add(node.op_type)
    return found


def _tflite(content: bytes) -> set[str]:
    from ai_edge_litert.schema_py_generated import TensorType

    made = operators(content)
    return {kind for kind, types in made.items() if TensorType.FLOAT32 in types and kind != "DEQUANTIZE"}


def operators(content: bytes) -> dict[str, set[int]]:
    """Return each kind of operator of a TFLite file, and the types (`TensorType`) of what it gives."""
    from ai_edge_litert import schema_py_generated as schema

    model = parsed(content)
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    found: dict[str, set[int]] = {}
    for graph in model.subgraphs:
        for node in graph.operators:
            kind = names[model.operatorCodes[node.opcodeIndex].builtinCode]
            found.setdefault(kind, set()).update(graph.tensors[index].type for index in node.outputs if index >= 0)
    return found


MOSTLY = 0.5
"""Share of the weights beyond which a file is not what its scheme promises."""


def weights_left(content: bytes, kind: str, step: Quantize) -> str:
    """Return a note where most weights of a quantized file are still float32; an empty string otherwise.

    Layers that were kept float by the step itself are no surprise, and not told.
    """
    found = _onnx_weights(content) if kind == "onnx" else _tflite_weights(content)
    every, left = sum(found.values()), found.copy()
    left.subtract({kinds: count for kinds, count in found.items() if not kinds})
    total = sum(left.values())
    if step.keep or not every or total <= MOSTLY * every:
        return ""
    named = ", ".join(kinds for kinds, count in left.most_common(3) if count)
    return (
        f"{total / every:.0%} of the weights stay float32, those of {named}, which {step.scheme} does not quantize; "
        f"{'' if step.calibrated else 'try --scheme static-int8, '}prune or distill the model, or write these layers "
        "otherwise"
    )


def _onnx_weights(content: bytes) -> Counter[str]:
    """Return how many numbers of weights operators of each kind read as float32; of other types under an empty name."""
    import onnx

    graph = onnx.load_from_string(content).graph
    readers: dict[str, str] = {}
    for node in graph.node:
        readers |= {name: node.op_type for name in node.input if name not in readers}
    found: Counter[str] = Counter()
    for tensor in graph.initializer:
        if _is_weight(tensor.dims):
            small = tensor.data_type != onnx.TensorProto.FLOAT
            found["" if small else readers.get(tensor.name, "nothing")] += prod(tensor.dims)
    return found


def _tflite_weights(content: bytes) -> Counter[str]:
    from ai_edge_litert import schema_py_generated as schema

    model = parsed(content)
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    found: Counter[str] = Counter()
    for graph in model.subgraphs:
        readers: dict[int, str] = {}
        for node in graph.operators:
            kind = names[model.operatorCodes[node.opcodeIndex].builtinCode]
            readers |= {index: kind for index in node.inputs if index not in readers}
        for number, tensor in enumerate(graph.tensors):
            buffer, shape = model.buffers[tensor.buffer], [] if tensor.shape is None else [int(n) for n in tensor.shape]
            if _is_weight(shape) and (buffer.data is not None or buffer.size):
                small = tensor.type != schema.TensorType.FLOAT32
                found["" if small else readers.get(number, "nothing")] += prod(shape)
    return found


def _is_weight(shape: Iterable[int]) -> bool:
    """Return whether a constant is a matrix or more; biases, scales and shapes have a single axis."""
    return sum(size > 1 for size in shape) > 1
