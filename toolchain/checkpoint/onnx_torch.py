"""A normalised ONNX graph -> a torch module with equal answers, or the reason why there is none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain.checkpoint import onnx_graph as edit
from toolchain.checkpoint.onnx_run import TOLERANCE, answers, differs, open_session, seeded_images
from toolchain.checkpoint.torch_files import first_line

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import nn

# The newest opset all of whose common operators onnx2torch knows.
_OPSET = 17
# Their axes are an attribute up to opset 17 and an input from 18 on (ReduceSum changed in 13 already).
_REDUCTIONS = ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSumExp")


def to_torch(proto: ModelProto) -> tuple[nn.Module | None, str]:
    """Return a module in eval mode and '', or None and the reason.

    The module takes float32 [N, 1, 28, 28], its layers are torch's own (so that pruning finds them), and its logits
    are within 1e-4 of onnxruntime's on 64 seeded images.
    """
    import torch

    try:
        with torchvision_importable():
            from onnx2torch import convert

            module = _static_reshapes(convert(_for_onnx2torch(proto))).eval()
        images = seeded_images()
        with torch.no_grad():
            answer = module(torch.from_numpy(images)).numpy()
    except Exception as error:  # noqa: BLE001 (onnx2torch answers what it does not know with any exception)
        return None, f"onnx2torch cannot bring this ONNX graph back ({first_line(error)}); give the torch checkpoint"
    difference = differs(answers(open_session(proto), images)["logits"], answer)
    if difference >= TOLERANCE:
        return (
            None,
            f"brought back by onnx2torch it answers differently (by {difference:.2g}); give the torch checkpoint",
        )
    return module, ""


@contextmanager
def torchvision_importable() -> Iterator[None]:
    """Let onnx2torch be imported where torchvision is not installed.

    It imports torchvision for NonMaxSuppression and RoiAlign alone, which no classifier of glyphs has, and no build of
    torchvision goes with every CPU build of torch. The stand-in is gone afterwards, so that nobody else meets it.
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


def _absent(*_args: object, **_kwargs: object) -> None:
    raise NotImplementedError("torchvision is not installed")


def _for_onnx2torch(proto: ModelProto) -> ModelProto:
    """Relabel the graph as opset 17; where an operator means something else there, the comparison finds it."""
    from onnx import ModelProto, helper

    older: ModelProto = ModelProto.FromString(proto.SerializeToString())
    for entry in older.opset_import:
        if entry.domain in ("", "ai.onnx") and entry.version > _OPSET:
            entry.version = _OPSET
    for node in older.graph.node:
        if node.op_type in _REDUCTIONS and len(node.input) == 2:
            axes = edit.constant(older.graph, node.input.pop())
            if axes is not None:
                node.attribute.append(helper.make_attribute("axes", np.asarray(axes).tolist()))
    return older


def _static_reshapes(module: Any) -> nn.Module:
    """Put torch's own reshape where onnx2torch reads a constant target at every run, which torch.export refuses."""
    import torch

    for node in list(module.graph.nodes):
        if node.op != "call_module" or type(module.get_submodule(node.target)).__name__ != "OnnxReshape":
            continue
        data, target = node.args
        if target.op != "get_attr":
            continue
        sizes = [int(size) for size in module.get_buffer(target.target)]
        with module.graph.inserting_before(node):
            if 0 in sizes:
                new = _copying_reshape(module.graph, data, sizes)
            else:
                new = module.graph.call_function(torch.reshape, (data, sizes))
        node.replace_all_uses_with(new)
        module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()
    return module  # type: ignore[no-any-return]  # a GraphModule, from a package without types


def _copying_reshape(graph: Any, data: Any, sizes: list[int]) -> Any:
    import torch

    # In ONNX a 0 copies the input's axis.
    target = [graph.call_method("size", (data, axis)) if size == 0 else size for axis, size in enumerate(sizes)]
    return graph.call_function(torch.reshape, (data, target))
