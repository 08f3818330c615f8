"""Multiply-accumulates of ONNX operators, from the shapes of what they read and write."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

Shape = tuple[int, ...]
Shapes = dict[str, Shape]

_CONVOLUTIONS = {"Conv": 1, "FusedConv": 1, "ConvInteger": 1, "QLinearConv": 3}
"""Operator -> which input is the weight."""
_SECOND = {"QLinearMatMul": 3, "QGemm": 3}
"""Operator -> which input is the second factor, where it is not the next."""
_LEFT_OUT = ("DFT", "STFT", "DeformConv", "If", "Loop", "Scan")
_DOMAINS = ("", "ai.onnx", "com.microsoft", "ai.onnx.ml")
_HEAVY = ("MatMul", "Gemm", "Conv", "Attention", "LSTM", "GRU", "RNN", "MoE", "Einsum", "FFT")


def onnx_macs(graph: GraphProto, shapes: Shapes) -> tuple[dict[str, int], set[str]]:
    """Return the multiply-accumulates of one image by a node's first output, and kinds that cannot be counted.

    shapes: by tensor, with as many images as the graph's first input has, and 0 for what is not known.
    """
    counts: dict[str, int] = {}
    left_out: set[str] = set()
    images = max(1, next((shapes[one.name][0] for one in graph.input if shapes.get(one.name)), 1))
    for node in graph.node:
        count = _count(node, shapes)
        if count is None:
            left_out.add(node.op_type)
        else:
            counts[node.output[0]] = count // images
    return counts, left_out


def _count(node: NodeProto, shapes: Shapes) -> int | None:
    """Return a node's products; None of one that multiplies, but whose shapes are open or which nobody knows."""
    kind = node.op_type
    if kind in _LEFT_OUT or node.domain not in _DOMAINS:
        return None
    rule = _convolution if kind in _CONVOLUTIONS else _RULES.get(kind)
    if rule is None:
        return None if any(word in kind for word in _HEAVY) else 0
    read, made = ([shapes.get(name, ()) for name in names] for names in (node.input, node.output))
    try:
        return rule(node, read, made[0])
    except (IndexError, KeyError, ValueError):
        # A shape that inference left open.
        return None


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    from onnx import helper

    return next((helper.get_attribute_value(one) for one in node.attribute if one.name == name), default)


def _known(shape: Shape) -> int:
    if not shape or 0 in shape:
        raise ValueError("open")
    return prod(shape)


def _convolution(node: NodeProto, read: list[Shape], made: Shape) -> int:
    return _known(made) * _known(read[_CONVOLUTIONS[node.op_type]][1:])


def _transposed_convolution(node: NodeProto, read: list[Shape], made: Shape) -> int:  # noqa: ARG001 (as all rules)
    return _known(read[0]) * _known(read[1][1:])


def _product(node: NodeProto, read: list[Shape], made: Shape) -> int:
    one, other = read[0], read[_SECOND.get(node.op_type, 1)]
    depths = [
        one[-2 if _attribute(node, "transA", 0) else -1] if one else 0,
        other[-1 if len(other) == 1 or _attribute(node, "transB", 0) else -2] if other else 0,
    ]
    # Two vectors make a scalar, which has no axes.
    vectors = len(one) == len(other) == 1
    return max(depths) * (1 if vectors else _known(made))


def _packed_product(node: NodeProto, read: list[Shape], made: Shape) -> int:  # noqa: ARG001 (as all rules)
    return int(_attribute(node, "K", 0)) * _known(made)


def _attention(node: NodeProto, read: list[Shape], made: Shape) -> int:  # noqa: ARG001 (as all rules)
    return (_known(read[0]) + _known(made)) * read[1][-2]


def _recurrent(node: NodeProto, read: list[Shape], made: Shape) -> int:  # noqa: ARG001 (as all rules)
    return _known(read[0][:2]) * (_known(read[1]) + _known(read[2]))


def _einsum(node: NodeProto, read: list[Shape], made: Shape) -> int:  # noqa: ARG001 (as all rules)
    equation = _attribute(node, "equation", b"").decode().replace(" ", "")
    terms, _, result = equation.partition("->")
    names = terms.split(",")
    if "." in equation or not result or len(names) != 2:
        raise ValueError(equation)
    sizes = {
        letter: size for name, shape in zip(names, read, strict=True) for letter, size in zip(name, shape, strict=True)
    }
    return prod(sizes.values()) if set(sizes) - set(result) else 0


_RULES: dict[str, Callable[[NodeProto, list[Shape], Shape], int]] = {
    **dict.fromkeys(("MatMul", "MatMulInteger", "QLinearMatMul", "FusedMatMul", "DynamicQuantizeMatMul"), _product),
    **dict.fromkeys(("MatMulIntegerToFloat", "Gemm", "FusedGemm", "QGemm"), _product),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    "ConvTranspose": _transposed_convolution,
    "MatMulNBits": _packed_product,
    "Attention": _attention,
    "Einsum": _einsum,
}
