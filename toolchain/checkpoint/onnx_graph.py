"""Run an ONNX graph in ONNX Runtime, and rewrite its batch axis and its pads as the other stages need them."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from targets.errors import first_line
from toolchain.core.errors import CheckpointError
from toolchain.formats.onnx import edit

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnx import ModelProto

TOLERANCE = 1e-4
"""Largest difference (`largest_difference`) of two models that count as the same."""
BATCH_AXIS = "batch"
_SEEDED_IMAGES = 64
_WINDOWED = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool")


def open_session(model: ModelProto | Path, save_to: Path | None = None) -> Any:
    """Return an onnxruntime CPU session on a graph that holds its weights, or on a file. Raises CheckpointError.

    save_to: where onnxruntime writes the graph with its constants folded, in standard operators.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # Rewrites are checked against the graph as it is written, not as a runtime would fuse it.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    if save_to is not None:
        options.optimized_model_filepath = str(save_to)
        # Prepacking would save the weights twice more, laid out for kernels that never run.
        options.add_session_config_entry("session.disable_prepacking", "1")
    source = model if isinstance(model, Path) else model.SerializeToString()
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class
        if save_to is not None and "serialization failed" in str(error):
            # onnxruntime does not say why it could not write; a full disk is the likely reason.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(save_to)) from error
        raise CheckpointError(f"onnxruntime cannot load the graph ({first_line(error)}); export it again") from error


def folded(proto: ModelProto) -> ModelProto:
    """Return the graph with everything computed that does not depend on the image."""
    import onnx

    with tempfile.TemporaryDirectory(prefix="glyphpress-") as folder:
        path = Path(folder) / "folded.onnx"
        open_session(proto, path)
        return onnx.load(path)


def answers(session: Any, images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """Return every output that is an array, by name. Raises CheckpointError when the graph cannot run."""
    try:
        values = session.run(None, {session.get_inputs()[0].name: images})
    except Exception as error:  # onnxruntime's errors share no base class
        raise CheckpointError(f"onnxruntime cannot run the graph ({first_line(error)}); export it again") from error
    names = [output.name for output in session.get_outputs()]
    return {name: value for name, value in zip(names, values, strict=True) if isinstance(value, np.ndarray)}


def seeded_images(batch: int | None = None) -> NDArray[np.float32]:
    """Return float32 [64 or more, 1, 28, 28] in 0 to 1, a multiple of `batch`; always the same."""
    count = _SEEDED_IMAGES if batch is None else batch * max(1, _SEEDED_IMAGES // batch)
    return np.random.default_rng(0).random((count, 1, 28, 28), dtype=np.float32)


def largest_difference(expected: NDArray[Any], actual: NDArray[Any]) -> float:
    """Return the largest absolute difference, relative to the largest expected value where that is above 1."""
    if expected.shape != actual.shape or not (np.isfinite(expected).all() and np.isfinite(actual).all()):
        return float("inf")
    return float(np.abs(expected - actual).max() / max(1.0, float(np.abs(expected).max())))


def free_batch(model: ir.Model, batch: int | None) -> bool:
    """Make the input's batch axis dynamic and let each Reshape infer it.

    batch: the size that it is fixed to. A constant target that begins with it gets -1 there (0, which copies the axis,
    where the target already infers another); a target computed from the batch size is replaced by the constant that it
    amounts to. The caller must check that the result still answers the same.
    """
    import onnx_ir as ir

    graph = model.graph
    edit.forget_shapes(model)
    for value in (*graph.inputs[:1], *graph.outputs):
        if value.shape is not None and len(value.shape):
            value.shape = ir.Shape([BATCH_AXIS, *list(value.shape)[1:]])
    computed = []
    for node in [node for node in graph if node.op_type == "Reshape"]:
        target = edit.constant(node.inputs[1])
        if target is None:
            computed.append(node)
            continue
        sizes = [int(size) for size in target.ravel()]
        _forget_allowzero(node, sizes)
        if batch is not None and sizes and sizes[0] == batch:
            _set_target(node, _with_inferred_batch(sizes[1:]))
    _make_constant(model, computed)
    return True


def _with_inferred_batch(rest: list[int]) -> list[int]:
    """Return a target of Reshape whose first axis is the batch's."""
    return [0 if -1 in rest else -1, *rest]


def _set_target(node: ir.Node, sizes: list[int]) -> None:
    """Give a Reshape a target of its own, since other operators may read the old one."""
    name = f"{node.outputs[0].name}_1_constant"
    node.replace_input_with(1, edit.add_constant(_graph(node), name, np.array(sizes, np.int64)))


def _forget_allowzero(node: ir.Node, target: list[int]) -> None:
    # torch's exporter sets it on every Reshape. Without a 0 in the target it has no effect, but few converters know it,
    # and it would change the meaning of the 0 that `_with_inferred_batch` writes.
    if 0 not in target:
        node.attributes.pop("allowzero", None)


def _make_constant(model: ir.Model, nodes: list[ir.Node]) -> None:
    """Replace targets computed from the batch size (`x.view(x.size(0), -1)`) by constants, found at two batch sizes."""
    if not nodes:
        return
    try:
        twos, threes = (_targets(model, nodes, batch) for batch in (2, 3))
    except CheckpointError:
        # Another operator depends on the batch size; the comparison with the original reports that.
        return
    for node, two, three in zip(nodes, twos, threes, strict=True):
        if two.shape != three.shape:
            continue
        changing = np.flatnonzero(two != three)
        _forget_allowzero(node, two.tolist())
        if len(changing) == 0:
            _set_target(node, two.tolist())
        elif list(changing) == [0] and two[0] == 2:
            _set_target(node, _with_inferred_batch(two[1:].tolist()))


def _targets(model: ir.Model, nodes: list[ir.Node], batch: int) -> list[NDArray[Any]]:
    """Return the second input of each node, as it is for `batch` images."""
    import onnx_ir as ir

    graph = model.graph
    targets = [target for node in nodes if (target := node.inputs[1]) is not None]
    outputs = list(graph.outputs)
    graph.outputs.clear()
    for target in dict.fromkeys(targets):
        target.type = ir.TensorType(ir.DataType.INT64)
        graph.outputs.append(target)
    try:
        session = open_session(edit.to_proto(model))
    finally:
        graph.outputs.clear()
        graph.outputs.extend(outputs)
    shape = [batch, *(size if isinstance(size, int) else 0 for size in list(graph.inputs[0].shape or ())[1:])]
    sizes = answers(session, np.zeros(shape, np.float32))
    return [np.asarray(sizes[str(target.name)]).ravel() for target in targets]


def explicit_pads(model: ir.Model) -> bool:
    """Replace `auto_pad` by `pads`, which are known since all images have one size.

    An operator whose sizes cannot be inferred keeps its `auto_pad`.
    """
    return any("auto_pad" in node.attributes for node in model.graph) and _each_window(model, _set_pads)


def pads_apart(model: ir.Model) -> bool:
    """Put a Pad in front of each window that is padded unevenly, as torch's layers cannot be.

    An average that leaves padding out is multiplied by what its windows lack; an uneven ConvTranspose gets a Slice.
    """
    return _each_window(model, _take_apart)


def _each_window(model: ir.Model, change: Callable[[ir.Node], None]) -> bool:
    edit.infer_shapes(model)
    for node in list(model.graph):
        if node.op_type in _WINDOWED and node.domain == "":
            change(node)
    return True


def _set_pads(node: ir.Node) -> None:
    import onnx_ir as ir

    mode = node.attributes.get_string("auto_pad", "NOTSET")
    pads = _pads(node, mode)
    if mode != "NOTSET" and pads is not None:
        del node.attributes["auto_pad"]
        node.attributes.add(ir.AttrInt64s("pads", pads))


def _pads(node: ir.Node, mode: str) -> list[int] | None:
    """Return the pads at the beginning of each axis, then those at the end, as ONNX defines `mode`.

    None where a size is not known.
    """
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
    half, name, graph = len(pads) // 2, str(node.outputs[0].name), _graph(node)
    fill = -np.inf if node.op_type == "MaxPool" else 0.0
    amounts = edit.add_constant(graph, f"{name}_pads", np.array([0, 0, *pads[:half], 0, 0, *pads[half:]]))
    filler = edit.add_constant(graph, f"{name}_fill", np.float32(fill))
    pad = edit.node("Pad", [node.inputs[0], amounts, filler], [f"{name}_padded"])
    graph.insert_before(node, pad)
    node.replace_input_with(0, pad.outputs[0])
    del node.attributes["pads"]
    if node.op_type == "AveragePool" and not node.attributes.get_int("count_include_pad", 0):
        factors = edit.add_constant(graph, f"{name}_factors", _unpadded_factors(node, pads, sizes))
        _append(node, "Mul", [factors])


def _unpadded_factors(node: ir.Node, pads: list[int], sizes: Sequence[int]) -> NDArray[np.float32]:
    """Return for each window the mean over its unpadded part divided by the mean over all of it."""
    kernel = node.attributes.get_ints("kernel_shape")
    strides, half = _numbers(node, "strides", 1, len(sizes)), len(pads) // 2
    shares = np.ones((1, 1, *([1] * len(sizes))), np.float32)
    for axis, (size, window, step) in enumerate(zip(sizes, kernel, strides, strict=True)):
        inside = np.pad(np.ones(size, np.float32), (pads[axis], pads[axis + half]))
        share = np.lib.stride_tricks.sliding_window_view(inside, window)[::step].mean(1)
        shares = shares * share.reshape([-1 if other == axis else 1 for other in range(-2, len(sizes))])
    return (1 / shares).astype(np.float32)


def _slice_behind(node: ir.Node, begins: list[int], ends: list[int]) -> None:
    # Slice takes the largest integer for "to the end", where nothing is cut off.
    stops = [-end if end else np.iinfo(np.int64).max for end in ends]
    bounds = (("starts", begins), ("stops", stops), ("axes", list(range(2, 2 + len(ends)))))
    name = node.outputs[0].name
    constants = [edit.add_constant(_graph(node), f"{name}_{bound}", np.array(numbers)) for bound, numbers in bounds]
    del node.attributes["pads"]
    node.outputs[0].shape = None
    _append(node, "Slice", constants)


def _append(node: ir.Node, kind: str, constants: list[ir.Value]) -> None:
    """Add an operator on the node's output, and let everything that read the output read its result."""
    output = node.outputs[0]
    after = edit.node(kind, [output, *constants], [str(output.name)])
    output.name = f"{output.name}_whole"
    output.replace_all_uses_with(after.outputs[0], replace_graph_outputs=True)
    after.replace_input_with(0, output)
    _graph(node).insert_after(node, after)


def _graph(node: ir.Node) -> ir.Graph:
    graph = node.graph
    assert graph is not None, "the node was taken from a graph"
    return graph


def _spatial(value: ir.Value | None) -> list[int] | None:
    """Return the spatial sizes of a feature map, None where one is not known."""
    sizes = list(value.shape)[2:] if value is not None and value.shape is not None else []
    known = [size for size in sizes if isinstance(size, int)]
    return known if known and len(known) == len(sizes) else None


def _kernel(node: ir.Node) -> list[int] | None:
    if "kernel_shape" in node.attributes:
        return list(node.attributes.get_ints("kernel_shape"))
    return _spatial(node.inputs[1]) if len(node.inputs) > 1 else None


def _numbers(node: ir.Node, name: str, default: int, count: int) -> list[int]:
    return list(node.attributes.get_ints(name, [default] * count))
