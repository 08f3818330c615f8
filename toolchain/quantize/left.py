"""What a static scheme leaves in float: operators that the quantizer or the runtime has no integers for."""

from __future__ import annotations


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
    return {node.op_type for node in graph.node if node.op_type not in known and set(node.output) & floats}


def _tflite(content: bytes) -> set[str]:
    from ai_edge_litert.schema_py_generated import TensorType

    made = operators(content)
    return {kind for kind, types in made.items() if TensorType.FLOAT32 in types and kind != "DEQUANTIZE"}


def operators(content: bytes) -> dict[str, set[int]]:
    """Return each kind of operator of a TFLite file, and the types (`TensorType`) of what it gives."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    found: dict[str, set[int]] = {}
    for graph in model.subgraphs:
        for node in graph.operators:
            kind = names[model.operatorCodes[node.opcodeIndex].builtinCode]
            found.setdefault(kind, set()).update(graph.tensors[index].type for index in node.outputs if index >= 0)
    return found
