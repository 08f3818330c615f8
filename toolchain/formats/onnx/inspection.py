"""Inspect an .onnx file: its contents, and its multiply-accumulates from the shapes of tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from targets.artifact import ONNX_METADATA_KEY
from targets.host.text import json_value
from targets.onnxruntime.onnx_file import scales
from toolchain.formats.inspection import InspectedLayer, Inspection, StoredTensor, uncounted_note
from toolchain.formats.onnx.estimators import answers_of, estimator_in, learned
from toolchain.formats.onnx.file import image_inputs, read_onnx, weight_files
from toolchain.formats.onnx.layers import onnx_graph

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto


_SCALED = ("QuantizeLinear", "DequantizeLinear")


def inspect_onnx(path: Path) -> Inspection:
    """Return the contents of an ONNX file; MACs from shape inference, for one image. Raises CheckpointError."""
    proto = read_onnx(path, weights=False)
    graph = proto.graph
    sizes = _sizes(proto)
    shapes = {name: tuple(size or 1 for size in shape) for name, shape in sizes.items()}
    counts, quantization = _scale_counts(graph, shapes), scales(graph)
    parameters = _parameter_counts(graph)
    names = {tensor: layer.name for layer in onnx_graph(proto).layers for tensor in layer.chain}
    macs, unknown = onnx_macs(graph, sizes)
    layers = tuple(
        InspectedLayer(
            node.name or names.get(node.output[0]) or node.output[0],
            node.op_type,
            shapes.get(node.output[0], ())[1:],
            sum(parameters.get(name, 0) for name in node.input) + learned(node),
            macs.get(node.output[0], 0),
        )
        for node in graph.node
        if node.op_type != "Constant"
    )
    opsets = ", ".join(f"{entry.domain or 'ai.onnx'} {entry.version}" for entry in proto.opset_import)
    estimator = estimator_in(proto)
    holds = [f"{estimator.title}: {estimator.size}"] if estimator else []
    beside = [f"weights in {file.name}, {file.stat().st_size:,} bytes more" for file in weight_files(path)]
    return Inspection.of(
        path,
        "onnx",
        [_tensor(tensor, counts) for tensor in graph.initializer],
        parameters=_parameters(graph),
        layers=layers,
        macs=None if unknown else sum(layer.macs for layer in layers),
        inputs=tuple(_described(value, quantization) for value in image_inputs(proto)),
        outputs=tuple(_described(value, quantization) for value in graph.output),
        metadata=_metadata(proto),
        notes=(f"opset {opsets}, IR {proto.ir_version}", *holds, *beside, *uncounted_note(unknown)),
    )


def count_onnx(proto: ModelProto) -> tuple[int, int | None]:
    """Return an ONNX model's parameters, and its MACs for one image or None where not all of them can be counted."""
    macs, unknown = onnx_macs(proto.graph, _sizes(proto))
    return _parameters(proto.graph), None if unknown else sum(macs.values())


def _parameters(graph: GraphProto) -> int:
    return sum(_parameter_counts(graph).values()) + sum(map(learned, graph.node))


def _sizes(proto: ModelProto) -> dict[str, tuple[int, ...]]:
    """Return every known shape of one image, 0 for an axis that is not known."""
    import onnx

    with _one_image(proto), _classifier_shapes(proto.graph):
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    shapes = {
        value.name: tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
    }
    return shapes | {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}


@contextmanager
def _one_image(proto: ModelProto) -> Iterator[None]:
    """Let open axes of inputs and outputs be 1 inside the block, so that shapes computed from them are known."""
    ends = (*proto.graph.input, *proto.graph.output)
    axes = [axis for value in ends for axis in value.type.tensor_type.shape.dim if not axis.dim_value]
    names = {axis.dim_param for axis in axes} - {""}
    inner = [axis for value in proto.graph.value_info for axis in value.type.tensor_type.shape.dim]
    axes += [axis for axis in inner if axis.dim_param in names]
    before = [axis.dim_param for axis in axes]
    for axis in axes:
        axis.dim_value = 1
    try:
        yield
    finally:
        for axis, name in zip(axes, before, strict=True):
            axis.Clear()
            if name:
                axis.dim_param = name


@contextmanager
def _classifier_shapes(graph: GraphProto) -> Iterator[None]:
    """Let the graph say the shapes that a classifier answers for one image: shape inference does not know them."""
    known = {value.name for value in (*graph.value_info, *graph.output)}
    added = [value for node in graph.node for value in answers_of(node) if value.name not in known]
    graph.value_info.extend(added)
    try:
        yield
    finally:
        del graph.value_info[len(graph.value_info) - len(added) :]


def _scale_counts(graph: GraphProto, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, int]]:
    return {
        node.input[0]: (prod(shapes.get(node.input[1], ())), prod(shapes[node.input[2]]) if len(node.input) > 2 else 0)
        for node in graph.node
        if node.op_type in _SCALED
    }


def _parameter_counts(graph: GraphProto) -> dict[str, int]:
    """Return the number of weights in each initializer that holds some: not in scales, zero points, shapes or axes."""
    from onnx import TensorProto

    scaling = {name for node in graph.node if node.op_type in _SCALED for name in node.input[1:]}
    scaling |= {name for n in graph.node if n.op_type == "QLinearConv" for name in (*n.input[1:3], *n.input[4:8])}
    scaling |= {name for n in graph.node if n.op_type == "QLinearMatMul" for name in (*n.input[1:3], *n.input[4:])}
    return {
        tensor.name: prod(tensor.dims)
        for tensor in graph.initializer
        if tensor.name not in scaling and tensor.data_type not in (TensorProto.INT64, TensorProto.BOOL)
    }


def _tensor(tensor: Any, counts: dict[str, tuple[int, int]]) -> StoredTensor:
    from onnx import helper

    name = _dtype(tensor.data_type)
    bits = 4 if name.endswith("int4") else 8 * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    size = -(-prod(tensor.dims) * bits // 8)
    return StoredTensor(tensor.name, name, tuple(tensor.dims), size, *counts.get(tensor.name, (0, 0)))


def _described(value: ValueInfoProto, quantization: dict[str, tuple[float, int]]) -> str:
    """Return an input or output in one line; quantization: scale and zero point of integer ones, by their names."""
    tensor = value.type.tensor_type
    shape = [axis.dim_param or axis.dim_value or "?" for axis in tensor.shape.dim]
    line = f"{value.name} {_dtype(tensor.elem_type)} [{', '.join(map(str, shape))}]"
    if value.name in quantization:
        scale, zero_point = quantization[value.name]
        line += f" scale {scale:.6g} zero point {zero_point}"
    return line


def _dtype(number: int) -> str:
    from onnx import TensorProto

    name: str = TensorProto.DataType.Name(number).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def _metadata(proto: ModelProto) -> dict[str, Any]:
    """Return the facts in the file."""
    stored = {entry.key: entry.value for entry in proto.metadata_props}
    try:
        ours = json_value(stored.get(ONNX_METADATA_KEY, "{}"))
    except ValueError:
        ours = {"unreadable": stored[ONNX_METADATA_KEY][:200]}
    return ours if isinstance(ours, dict) else {"value": ours}


Shape = tuple[int, ...]
Shapes = dict[str, Shape]

_CONVOLUTIONS = {"Conv": 1, "FusedConv": 1, "ConvInteger": 1, "QLinearConv": 3}
"""Operator -> index of the input that holds the weights."""
_SECOND = {"QLinearMatMul": 3, "QGemm": 3}
"""Operator -> index of the second factor, where it is not 1."""
_LEFT_OUT = ("DFT", "STFT", "DeformConv", "If", "Loop", "Scan")
_DOMAINS = ("", "ai.onnx", "com.microsoft", "ai.onnx.ml")
_HEAVY = ("MatMul", "Gemm", "Conv", "Attention", "LSTM", "GRU", "RNN", "MoE", "Einsum", "FFT")


def onnx_macs(graph: GraphProto, shapes: Shapes) -> tuple[dict[str, int], set[str]]:
    """Return the multiply-accumulates per image by a node's first output, and the kinds that cannot be counted.

    shapes: by tensor, with as many images as the graph's first input has, and 0 for what is not known.
    """
    counts: dict[str, int] = {}
    uncounted: set[str] = set()
    images = max(1, next((shapes[value.name][0] for value in graph.input if shapes.get(value.name)), 1))
    for node in graph.node:
        count = _count(node, shapes)
        if count is None:
            uncounted.add(node.op_type)
        else:
            counts[node.output[0]] = count // images
    return counts, uncounted


def _count(node: NodeProto, shapes: Shapes) -> int | None:
    """Return a node's multiply-accumulates; None where it multiplies and its shapes or its kind are not known."""
    kind = node.op_type
    if kind in _LEFT_OUT or node.domain not in _DOMAINS:
        return None
    rule = _convolution if kind in _CONVOLUTIONS else _RULES.get(kind)
    if rule is None:
        return None if any(part in kind for part in _HEAVY) else 0
    inputs, outputs = ([shapes.get(name, ()) for name in names] for names in (node.input, node.output))
    try:
        return rule(node, inputs, outputs[0])
    except (IndexError, KeyError, ValueError):
        # A shape that inference left open.
        return None


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    from onnx import helper

    return next((helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name), default)


def _known(shape: Shape) -> int:
    if not shape or 0 in shape:
        raise ValueError("a size is not known")
    return prod(shape)


def _convolution(node: NodeProto, inputs: list[Shape], output: Shape) -> int:
    return _known(output) * _known(inputs[_CONVOLUTIONS[node.op_type]][1:])


def _transposed_convolution(node: NodeProto, inputs: list[Shape], output: Shape) -> int:  # noqa: ARG001 (as all rules)
    return _known(inputs[0]) * _known(inputs[1][1:])


def _product(node: NodeProto, inputs: list[Shape], output: Shape) -> int:
    first, second = inputs[0], inputs[_SECOND.get(node.op_type, 1)]
    depths = [
        first[-2 if _attribute(node, "transA", 0) else -1] if first else 0,
        second[-1 if len(second) == 1 or _attribute(node, "transB", 0) else -2] if second else 0,
    ]
    # Two vectors make a scalar, which has no axes.
    vectors = len(first) == len(second) == 1
    return max(depths) * (1 if vectors else _known(output))


def _packed_product(node: NodeProto, inputs: list[Shape], output: Shape) -> int:  # noqa: ARG001 (as all rules)
    return int(_attribute(node, "K", 0)) * _known(output)


def _attention(node: NodeProto, inputs: list[Shape], output: Shape) -> int:  # noqa: ARG001 (as all rules)
    return (_known(inputs[0]) + _known(output)) * inputs[1][-2]


def _recurrent(node: NodeProto, inputs: list[Shape], output: Shape) -> int:  # noqa: ARG001 (as all rules)
    return _known(inputs[0][:2]) * (_known(inputs[1]) + _known(inputs[2]))


def _einsum(node: NodeProto, inputs: list[Shape], output: Shape) -> int:  # noqa: ARG001 (as all rules)
    equation = _attribute(node, "equation", b"").decode().replace(" ", "")
    terms, _, result = equation.partition("->")
    names = terms.split(",")
    if "." in equation or not result or len(names) != 2:
        raise ValueError(equation)
    sizes = {
        letter: size
        for name, shape in zip(names, inputs, strict=True)
        for letter, size in zip(name, shape, strict=True)
    }
    return prod(sizes.values()) if set(sizes) - set(result) else 0


def _kernels(node: NodeProto, inputs: list[Shape], output: Shape) -> int:  # noqa: ARG001 (as all rules)
    """Return the products of the image with each support vector, and of the results with their coefficients."""
    return learned(node)


_RULES: dict[str, Callable[[NodeProto, list[Shape], Shape], int]] = {
    **dict.fromkeys(("MatMul", "MatMulInteger", "QLinearMatMul", "FusedMatMul", "DynamicQuantizeMatMul"), _product),
    **dict.fromkeys(("MatMulIntegerToFloat", "Gemm", "FusedGemm", "QGemm"), _product),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    "ConvTranspose": _transposed_convolution,
    "MatMulNBits": _packed_product,
    "Attention": _attention,
    "Einsum": _einsum,
    "SVMClassifier": _kernels,
}
