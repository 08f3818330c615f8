"""Convert a normalised ONNX graph to a torch module with the same answers, or say why that is not possible."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from targets.errors import first_line, of_the_system
from targets.onnxruntime.operators import layer_of_weight
from toolchain.checkpoint import onnx_graph
from toolchain.core.converter_log import output_to_log
from toolchain.formats.onnx import edit

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnx import ModelProto
    from torch import nn

_OPSET = 17
"""The newest opset of which onnx2torch knows all common operators."""
_REDUCTIONS = ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSumExp")
"""Their axes are an attribute up to opset 17 and an input from 18 on (ReduceSum changed in 13 already)."""


def to_torch(proto: ModelProto) -> tuple[nn.Module | None, str]:
    """Return a module in eval mode and an empty string, or None and the reason.

    The module takes float32 [N, 1, 28, 28], its layers are torch's own (so that pruning finds them), its logits are
    within 1e-4 of onnxruntime's on 64 seeded images, and torch.export takes it with a dynamic batch axis.
    """
    import onnx_ir as ir
    import torch

    if find_spec("onnx2torch") is None:
        return None, "onnx2torch, which brings ONNX back, is not installed: pip install --no-deps onnx2torch"
    try:
        with output_to_log():
            model = ir.from_proto(onnx_graph.folded(proto))
            # Shapes first, since nothing is inferred about an operator that is newer than the opset of its graph.
            edit.run(model, onnx_graph.pads_apart, edit.infer_shapes, _for_onnx2torch)
            names = _name_layers(model)
            ready = edit.to_proto(model)
            # eval() before the first run, or a batch norm that is not folded would change its statistics.
            module = _static(_renamed(_converter()(ready).eval(), names)).eval()
            images = onnx_graph.seeded_images()
            with torch.no_grad():
                answer = module(torch.from_numpy(images)).numpy()
            # A module that torch cannot trace would run, but could be neither pruned nor converted.
            axes = ({0: torch.export.Dim("batch")},)
            torch.export.export(module, (torch.from_numpy(images[:2]),), dynamic_shapes=axes)
    except Exception as error:
        if of_the_system(error):
            raise
        # onnx2torch raises anything on what it does not know.
        return None, f"onnx2torch cannot bring this ONNX graph back ({first_line(error)}); give the torch checkpoint"
    expected = onnx_graph.answers(onnx_graph.open_session(proto), images)["logits"]
    difference = onnx_graph.largest_difference(expected, answer)
    if difference < onnx_graph.TOLERANCE:
        return module, ""
    return None, f"brought back by onnx2torch it answers differently (by {difference:.2g}); give the torch checkpoint"


@contextmanager
def torchvision_importable() -> Iterator[None]:
    """Let onnx2torch be imported where torchvision is not installed.

    onnx2torch needs it only for NonMaxSuppression and RoiAlign, which no classifier of glyphs has, and no build of
    torchvision works with every CPU build of torch. The stand-in is removed afterwards, so that no other code sees it.
    """
    if "onnx2torch" in sys.modules or find_spec("torchvision") is not None:
        yield
        return
    stand_in: Any = ModuleType("torchvision")
    stand_in.ops = ModuleType("torchvision.ops")
    stand_in.ops.roi_align = _absent
    sys.modules |= {"torchvision": stand_in, "torchvision.ops": stand_in.ops}
    try:
        yield
    finally:
        del sys.modules["torchvision"], sys.modules["torchvision.ops"]


@cache
def _converter() -> Any:
    """Return onnx2torch's `convert`, with the GELU that it lacks."""
    from torch import nn

    with torchvision_importable():
        from onnx2torch import convert
        from onnx2torch.node_converters.registry import add_converter
        from onnx2torch.utils.common import OperationConverterResult, onnx_mapping_from_node

    def gelu(node: Any, graph: Any) -> Any:  # noqa: ARG001 (the signature is onnx2torch's)
        module = nn.GELU(approximate=node.attributes.get("approximate", "none"))
        return OperationConverterResult(torch_module=module, onnx_mapping=onnx_mapping_from_node(node))

    add_converter(operation_type="Gelu", version=_OPSET)(gelu)
    return convert


def _absent(*_args: object, **_kwargs: object) -> None:
    raise NotImplementedError("torchvision is not installed")


def _for_onnx2torch(model: ir.Model) -> bool:
    """Declare the graph as opset 17; where an operator means something else there, the comparison finds it."""
    import onnx_ir as ir

    model.opset_imports[""] = min(model.opset_imports[""], _OPSET)
    for node in model.graph:
        if node.op_type in _REDUCTIONS and len(node.inputs) == 2:
            axes = edit.constant(node.inputs[1])
            node.resize_inputs(1)
            if axes is not None:
                node.attributes.add(ir.AttrInt64s("axes", axes.tolist()))
    return True


def _name_layers(model: ir.Model) -> dict[str, str]:
    """Name nodes after the layers of their weights; return the layers' names by onnx2torch's names for them."""
    layers: dict[str, str] = {}
    names = {node.name for node in model.graph}
    for node in model.graph:
        weight = node.inputs[1] if len(node.inputs) > 1 else None
        layer = layer_of_weight(str(weight.name)) if weight is not None else ""
        if layer and layer not in names:
            node.name = layer
            names.add(layer)
            layers[layer.replace(".", "/")] = layer
    return layers


def _renamed(module: Any, names: dict[str, str]) -> Any:
    """Return the module with its layers under the names that they had before the export."""
    for node in module.graph.nodes:
        if node.op == "call_module" and node.target in names:
            module.add_submodule(names[node.target], module.get_submodule(node.target))
            node.target = names[node.target]
    return module


def _static(module: Any) -> nn.Module:
    """Replace modules that read a constant at every run, which torch.export refuses, by torch's own functions."""
    _note_shapes(module)
    rewrites = {
        "OnnxReshape": _reshape,
        "OnnxPadDynamic": _pad,
        "OnnxSlice": _slice,
        "OnnxSqueezeDynamicAxes": _squeeze,
        "OnnxReduceSumDynamicAxes": _sum,
        "OnnxSplit13": _split,
        "OnnxTile": _tile,
        "OnnxMatMul": _linear,
    }
    for node in list(module.graph.nodes):
        part = module.get_submodule(node.target) if node.op == "call_module" else None
        rewrite = rewrites.get(type(part).__name__)
        if rewrite is None or any(argument.op != "get_attr" for argument in (*node.args[1:], *node.kwargs.values())):
            continue
        with module.graph.inserting_before(node):
            new = rewrite(module, node, part)
        node.replace_all_uses_with(new)
        module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()
    return module  # type: ignore[no-any-return]  # a GraphModule, from a package without types


def _note_shapes(module: Any) -> None:
    """Store in the `meta` of every node the shape of its output for two images."""
    import torch
    from torch.fx import Interpreter

    class Shapes(Interpreter):
        def run_node(self, n: Any) -> Any:
            result = super().run_node(n)
            n.meta["shape"] = tuple(result.shape) if isinstance(result, torch.Tensor) else ()
            return result

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Shapes(module).run(torch.zeros(2, 1, 28, 28))


def _reshape(module: Any, node: Any, _part: Any) -> Any:
    import torch

    data, sizes = node.args[0], _numbers(module, node.args[1])
    shape = data.meta.get("shape", ())
    if len(sizes) == 2 and len(shape) > 1 and sizes[0] in (-1, 0, shape[0]) and sizes[1] in (-1, math.prod(shape[1:])):
        # flatten has no fixed width, so that the model still runs after channels in front of it are pruned.
        return module.graph.call_function(torch.flatten, (data, 1))
    # In ONNX a 0 copies the input's axis.
    target = [module.graph.call_method("size", (data, axis)) if size == 0 else size for axis, size in enumerate(sizes)]
    return module.graph.call_function(torch.reshape, (data, target))


def _pad(module: Any, node: Any, part: Any) -> Any:
    from torch.nn import functional

    pads = _numbers(module, node.args[1])
    value = node.args[2] if len(node.args) > 2 else node.kwargs.get("constant_value")
    fill = float(module.get_buffer(value.target)) if value is not None else 0.0
    axes = len(pads) // 2
    # ONNX lists all the beginnings, then all the ends; torch pairs them, the last axis first.
    pairs = [size for axis in reversed(range(axes)) for size in (pads[axis], pads[axis + axes])]
    while len(pairs) > 2 and pairs[-2:] == [0, 0]:
        pairs = pairs[:-2]
    return module.graph.call_function(functional.pad, (node.args[0], pairs, part.mode, fill))


def _squeeze(module: Any, node: Any, _part: Any) -> Any:
    import torch

    data, *axes = node.args
    return module.graph.call_function(torch.squeeze, (data, *(tuple(_numbers(module, constant)) for constant in axes)))


def _sum(module: Any, node: Any, part: Any) -> Any:
    import torch

    settings = vars(part)
    axes = [axis for constant in node.args[1:] for axis in _numbers(module, constant)]
    if not axes and settings["_noop_with_empty_axes"]:
        return module.graph.call_function(torch.clone, (node.args[0],))
    axes = axes or list(range(len(node.args[0].meta["shape"])))
    return module.graph.call_function(torch.sum, (node.args[0], axes, bool(settings["_keepdims"])))


def _split(module: Any, node: Any, part: Any) -> Any:
    import torch

    data, *sizes = node.args
    axis = part.axis
    size = _numbers(module, sizes[0]) if sizes else data.meta["shape"][axis] // part.num_splits
    return module.graph.call_function(torch.split, (data, size, axis))


def _tile(module: Any, node: Any, _part: Any) -> Any:
    return module.graph.call_method("repeat", (node.args[0], *_numbers(module, node.args[1])))


def _linear(module: Any, node: Any, _part: Any) -> Any:
    """Replace a product with a matrix by a linear layer, so that pruning finds it."""
    from torch import nn

    data, matrix = node.args[0], module.get_buffer(node.args[1].target)
    if matrix.dim() != 2 or data.op == "get_attr":
        return module.graph.call_module(node.target, node.args)
    layer = nn.Linear(len(matrix), matrix.shape[1], bias=False)
    layer.weight.data = matrix.T.contiguous()
    name = f"{node.target}_linear"
    module.add_submodule(name, layer)
    return module.graph.call_module(name, (data,))


def _numbers(module: Any, node: Any) -> list[int]:
    values: list[int] = module.get_buffer(node.target).tolist()
    return values


def _slice(module: Any, node: Any, _part: Any) -> Any:
    import torch

    data, *inputs = node.args
    # onnx2torch passes the inputs after an omitted one by name.
    given = dict(zip(("starts", "ends", "axes", "steps"), inputs, strict=False)) | node.kwargs
    bounds = {name: _numbers(module, constant) for name, constant in given.items()}
    starts, ends = bounds["starts"], bounds["ends"]
    axes, steps = bounds.get("axes", range(len(starts))), bounds.get("steps", [1] * len(starts))
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        # In ONNX any large number means "to the end"; torch knows only sys.maxsize.
        part = (start, sys.maxsize if end >= 2**31 - 1 else end, step)
        if step < 0:
            # torch has no negative steps: the axis is flipped, and positions count from its other end.
            data = module.graph.call_function(torch.flip, (data, [axis]))
            part = (-start - 1, -end - 1, -step)
        data = module.graph.call_function(torch.ops.aten.slice.Tensor, (data, axis, *part))
    return data
