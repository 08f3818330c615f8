"""Padding of convolutions and pools: `auto_pad` as numbers, and uneven padding as operators that torch has too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from toolchain.formats.onnx.edit import add_constant, infer_shapes
from toolchain.formats.onnx.edit import node as new_node

if TYPE_CHECKING:
    import onnx_ir as ir

_POOLS = ("MaxPool", "AveragePool", "LpPool")
_WINDOWED = ("Conv", "ConvTranspose", *_POOLS)


def explicit_pads(model: ir.Model) -> bool:
    """Replace `auto_pad` by `pads`, which are known since all images have one size.

    An operator whose sizes cannot be inferred keeps its `auto_pad`.
    """
    return any("auto_pad" in node.attributes for node in model.graph) and _each_window(model, _resolve)


def pads_apart(model: ir.Model) -> bool:
    """Put a Pad in front of each window that is padded unevenly, as torch's layers cannot be.

    An average that leaves padding out is multiplied by what its windows lack; an uneven ConvTranspose gets a Slice.
    """
    return _each_window(model, _take_apart)


def _each_window(model: ir.Model, change: Callable[[ir.Node], None]) -> bool:
    infer_shapes(model)
    for node in list(model.graph):
        if node.op_type in _WINDOWED and node.domain == "":
            change(node)
    return True


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
    half, name = len(pads) // 2, str(node.outputs[0].name)
    fill = -np.inf if node.op_type == "MaxPool" else 0.0
    graph = _graph(node)
    amounts = add_constant(graph, f"{name}_pads", np.array([0, 0, *pads[:half], 0, 0, *pads[half:]]))
    filler = add_constant(graph, f"{name}_fill", np.float32(fill))
    pad = new_node("Pad", [node.inputs[0], amounts, filler], [f"{name}_padded"])
    graph.insert_before(node, pad)
    node.replace_input_with(0, pad.outputs[0])
    del node.attributes["pads"]
    if node.op_type == "AveragePool" and not node.attributes.get_int("count_include_pad", 0):
        _fill_up(node, _lacking(node, pads, sizes))


def _lacking(node: ir.Node, pads: list[int], sizes: Sequence[int]) -> NDArray[np.float32]:
    """Return for each window the mean over its unpadded part divided by the mean over all of it."""
    kernel = node.attributes.get_ints("kernel_shape")
    strides, half = _numbers(node, "strides", 1, len(sizes)), len(pads) // 2
    shares = np.ones((1, 1, *([1] * len(sizes))), np.float32)
    for axis, (size, window, step) in enumerate(zip(sizes, kernel, strides, strict=True)):
        inside = np.pad(np.ones(size, np.float32), (pads[axis], pads[axis + half]))
        share = np.lib.stride_tricks.sliding_window_view(inside, window)[::step].mean(1)
        shares = shares * share.reshape([-1 if at == axis else 1 for at in range(-2, len(sizes))])
    return (1 / shares).astype(np.float32)


def _fill_up(node: ir.Node, factors: NDArray[np.float32]) -> None:
    mean = node.outputs[0]
    _follow(node, "Mul", [add_constant(_graph(node), f"{mean.name}_factors", factors)])


def _slice_behind(node: ir.Node, begins: list[int], ends: list[int]) -> None:
    graph, name = _graph(node), node.outputs[0].name
    # A large number is "to the end", where nothing is cut off.
    stops = [-end if end else np.iinfo(np.int64).max for end in ends]
    bounds = (("starts", begins), ("stops", stops), ("axes", list(range(2, 2 + len(ends)))))
    constants = [add_constant(graph, f"{name}_{bound}", np.array(numbers)) for bound, numbers in bounds]
    del node.attributes["pads"]
    node.outputs[0].shape = None
    _follow(node, "Slice", constants)


def _follow(node: ir.Node, kind: str, constants: list[ir.Value]) -> None:
    """Let another operator take the node's output and stand in for it everywhere else."""
    output = node.outputs[0]
    after = new_node(kind, [output, *constants], [str(output.name)])
    result = after.outputs[0]
    output.name = f"{output.name}_whole"
    output.replace_all_uses_with(result, replace_graph_outputs=True)
    after.replace_input_with(0, output)
    _graph(node).insert_after(node, after)


def _graph(node: ir.Node) -> ir.Graph:
    """Return the graph that a node was taken from."""
    graph = node.graph
    assert graph is not None, "it was taken from a graph"
    return graph


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
