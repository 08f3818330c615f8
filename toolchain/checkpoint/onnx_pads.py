"""Padding of windows in numbers: `auto_pad` is worked out, and what onnx2torch does not know becomes operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnx import ModelProto

_POOLS = ("MaxPool", "AveragePool", "LpPool")
_WINDOWED = ("Conv", "ConvTranspose", *_POOLS)


def explicit_pads(proto: ModelProto) -> ModelProto:
    """Return the graph with `pads` where it had `auto_pad`: with one size of image these are known.

    An operator whose sizes cannot be inferred keeps its `auto_pad`.
    """
    if not any(attribute.name == "auto_pad" for node in proto.graph.node for attribute in node.attribute):
        return proto
    return _each_window(proto, _resolve)


def pads_apart(proto: ModelProto) -> ModelProto:
    """Return the graph with a Pad in front of each window that is padded unevenly, as torch's layers cannot be.

    An average that leaves padding out is multiplied by what its windows lack; an uneven ConvTranspose gets a Slice.
    """
    return _each_window(proto, _take_apart)


def _each_window(proto: ModelProto, change: Callable[[ir.Node], None]) -> ModelProto:
    import onnx_ir as ir
    from onnx import shape_inference

    model = ir.from_proto(shape_inference.infer_shapes(proto))
    for node in list(model.graph):
        if node.op_type in _WINDOWED and node.domain in ("", "ai.onnx"):
            change(node)
    changed: ModelProto = ir.to_proto(model)
    return changed


def _resolve(node: ir.Node) -> None:
    import onnx_ir as ir

    mode = node.attributes.get_string("auto_pad", "NOTSET")
    pads = _pads(node, mode)
    if mode != "NOTSET" and pads is not None:
        del node.attributes["auto_pad"]
        node.attributes.add(ir.AttrInt64s("pads", pads))


def _pads(node: ir.Node, mode: str) -> list[int] | None:
    """Return the beginnings, then the ends, as ONNX defines `mode`; None where a size is not known."""
    sizes, kernel = _spatial(node.inputs[0]), _kernel(node)
    if sizes is None or kernel is None or mode not in ("VALID", "SAME_UPPER", "SAME_LOWER"):
        return None
    if mode == "VALID":
        return [0] * (2 * len(sizes))
    strides, dilations = (_numbers(node, name, 1, len(sizes)) for name in ("strides", "dilations"))
    spans = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    if node.op_type == "ConvTranspose":
        grown = _numbers(node, "output_padding", 0, len(sizes))
        totals = [span + more - step for span, more, step in zip(spans, grown, strides, strict=True)]
    else:
        totals = [
            max(0, (ceil(size / step) - 1) * step + span - size)
            for size, step, span in zip(sizes, strides, spans, strict=True)
        ]
    if min(totals) < 0:
        return None
    less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return less + more if mode == "SAME_UPPER" else more + less


def _take_apart(node: ir.Node) -> None:
    sizes = _spatial(node.inputs[0])
    pads = list(node.attributes.get_ints("pads", ()))
    half = len(pads) // 2
    if not pads or pads[:half] == pads[half:] or sizes is None:
        return
    if node.op_type == "ConvTranspose":
        _slice_behind(node, pads[:half], pads[half:])
    elif node.attributes.get_int("ceil_mode", 0) == 0 and node.op_type != "LpPool":
        _pad_in_front(node, pads, sizes)


def _pad_in_front(node: ir.Node, pads: list[int], sizes: Sequence[int]) -> None:
    import onnx_ir as ir

    half, name = len(pads) // 2, str(node.outputs[0].name)
    fill = -np.inf if node.op_type == "MaxPool" else 0.0
    amounts = _constant(f"{name}_pads", np.array([0, 0, *pads[:half], 0, 0, *pads[half:]]))
    pad = ir.node("Pad", [node.inputs[0], amounts, _constant(f"{name}_fill", np.float32(fill))])
    pad.outputs[0].name = f"{name}_padded"
    _insert(node, [pad], before=True)
    node.replace_input_with(0, pad.outputs[0])
    del node.attributes["pads"]
    if node.op_type == "AveragePool" and not node.attributes.get_int("count_include_pad", 0):
        _fill_up(node, _lacking(node, pads, sizes))


def _lacking(node: ir.Node, pads: list[int], sizes: Sequence[int]) -> NDArray[np.float32]:
    """Return, for each window, by how much a mean over all of it falls short of the mean over what is no padding."""
    kernel = node.attributes.get_ints("kernel_shape")
    strides, half = _numbers(node, "strides", 1, len(sizes)), len(pads) // 2
    shares = np.ones((1, 1, *([1] * len(sizes))), np.float32)
    for axis, (size, window, step) in enumerate(zip(sizes, kernel, strides, strict=True)):
        inside = np.pad(np.ones(size, np.float32), (pads[axis], pads[axis + half]))
        share = np.lib.stride_tricks.sliding_window_view(inside, window)[::step].mean(1)
        shares = shares * share.reshape([-1 if at == axis else 1 for at in range(-2, len(sizes))])
    return (1 / shares).astype(np.float32)


def _fill_up(node: ir.Node, factors: NDArray[np.float32]) -> None:
    import onnx_ir as ir

    mean = node.outputs[0]
    filled = ir.node("Mul", [mean, _constant(f"{mean.name}_factors", factors)])
    _follow(node, filled)


def _slice_behind(node: ir.Node, begins: list[int], ends: list[int]) -> None:
    import onnx_ir as ir

    name = node.outputs[0].name
    # A large number is "to the end", where nothing is cut off.
    stops = [-end if end else np.iinfo(np.int64).max for end in ends]
    bounds = (("starts", begins), ("stops", stops), ("axes", list(range(2, 2 + len(ends)))))
    cut = ir.node("Slice", [node.outputs[0], *(_constant(f"{name}_{word}", np.array(at)) for word, at in bounds)])
    del node.attributes["pads"]
    node.outputs[0].shape = None
    _follow(node, cut)


def _follow(node: ir.Node, after: ir.Node) -> None:
    """Let `after`, which takes the node's output, stand in for it everywhere else."""
    output, made = node.outputs[0], after.outputs[0]
    made.name, output.name = output.name, f"{output.name}_whole"
    output.replace_all_uses_with(made, replace_graph_outputs=True)
    after.replace_input_with(0, output)
    _insert(node, [after], before=False)


def _insert(node: ir.Node, nodes: list[ir.Node], *, before: bool) -> None:
    graph = node.graph
    assert graph is not None, "it was taken from a graph"
    for one in nodes:
        for value in one.inputs:
            if value is not None and value.const_value is not None and value.producer() is None:
                graph.register_initializer(value)
    (graph.insert_before if before else graph.insert_after)(node, nodes)


def _constant(name: str, values: Any) -> ir.Value:
    import onnx_ir as ir

    array = np.asarray(values)
    tensor = ir.tensor(array, name=name)
    return ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)


def _spatial(value: ir.Value | None) -> list[int] | None:
    """Return the sizes of a map behind its batch and channels, None where one is not known."""
    sizes = list(value.shape)[2:] if value is not None and value.shape is not None else []
    known = [size for size in sizes if isinstance(size, int)]
    return known if known and len(known) == len(sizes) else None


def _kernel(node: ir.Node) -> list[int] | None:
    if "kernel_shape" in node.attributes:
        return list(node.attributes.get_ints("kernel_shape"))
    return _spatial(node.inputs[1]) if len(node.inputs) > 1 else None


def _numbers(node: ir.Node, name: str, usual: int, count: int) -> list[int]:
    return list(node.attributes.get_ints(name, [usual] * count))
