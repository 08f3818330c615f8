"""Which shapes are probed: words, or the layers of a model, each as often as it is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from toolchain.commands.probe_models import Shape
from toolchain.core.errors import UsageProblem
from toolchain.formats import catalog
from toolchain.formats.onnx.read import read_onnx

if TYPE_CHECKING:
    from onnx import NodeProto


def wanted_shapes(words: Sequence[str]) -> tuple[Counter[Shape], tuple[str, ...]]:
    """Return the shapes with how often each is there, and what of a model no shape stands for.

    words: shapes, or one float .onnx file. Raises UsageProblem for anything else, and
    CheckpointError for a file that is no ONNX.
    """
    files = [word for word in words if (file_format := catalog.of(Path(word))) and file_format.loads]
    if not files:
        return Counter(map(Shape.parse, words)), ()
    if len(words) > 1:
        raise UsageProblem(f"{files[0]} holds shapes of its own; give it alone, or shapes alone")
    if not Path(files[0]).is_file():
        raise UsageProblem(f"{files[0]}: no such file; give the .onnx that `glyphpress export` makes")
    return _of_model(Path(files[0]))


def _of_model(path: Path) -> tuple[Counter[Shape], tuple[str, ...]]:
    from onnx import shape_inference

    graph = shape_inference.infer_shapes(read_onnx(path, weights=False)).graph
    weights = {one.name: tuple(one.dims) for one in graph.initializer}
    sizes = {one.name: [axis.dim_value for axis in one.type.tensor_type.shape.dim] for one in graph.value_info}
    found: Counter[Shape] = Counter()
    left: list[str] = []
    for node in graph.node:
        weight = next((weights[name] for name in node.input[1:2] if name in weights), None)
        if weight is None or node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        shape = _shape(node, weight, sizes)
        if shape:
            found[shape] += 1
        else:
            left.append(f"{node.op_type} {'x'.join(map(str, weight))}")
    if not found:
        raise UsageProblem(f"{path} has no layer whose shape can be probed; give shapes such as 16x32x3@14x14")
    return found, tuple(left)


def _shape(node: NodeProto, weight: tuple[int, ...], sizes: Mapping[str, list[int]]) -> Shape | None:
    """Return a layer's shape; None for a convolution of groups or of unequal sides, or one of unknown size."""
    if node.op_type != "Conv":
        turned = any(one.name == "transB" and one.i for one in node.attribute)
        inputs, outputs = weight[::-1] if turned else weight
        return Shape(inputs, outputs)
    groups = next((one.i for one in node.attribute if one.name == "group"), 1)
    size = sizes.get(node.output[0], [])
    if groups > 1 or len(weight) != 4 or weight[2] != weight[3] or len(size) != 4 or not 1 <= max(size[2:]) <= 28:
        return None
    return Shape(weight[1], weight[0], weight[2], size[2], size[3])
