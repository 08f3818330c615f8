"""Small models of one layer's shape, in float and int8, whose costs are compared; and the shapes of a model's layers.

Each model repeats one layer, which makes up nearly all of its cost. It goes through the press's own exporter and
quantizer, so that the result holds for the files of a press. The files are kept in the user's cache.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calibration.load import load
from calibration.sample import CalibrationSet, draw
from targets.artifact import Artifact, Format
from targets.host.cache import cached
from targets.metadata import load_artifact
from targets.preprocess import Preprocess
from toolchain.checkpoint import normalised
from toolchain.checkpoint.float_model import OnnxModel
from toolchain.core.errors import UsageProblem
from toolchain.core.versions import tool_versions
from toolchain.export import EXPORTERS, export
from toolchain.formats import catalog
from toolchain.formats.onnx.file import read_onnx
from toolchain.quantize import quantize
from toolchain.recipe import Quantize

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

LAYERS = 4
"""Number of copies of the layer, all on the same input: a chain would need layers of another shape in between."""
CLASSES = tuple("0123456789")
_FORM = re.compile(r"(\d+)x(\d+)(?:x(\d+)@(\d+)x(\d+))?")


@dataclass(frozen=True)
class Shape:
    """A layer: `INxOUT` of a matrix, or `INxOUTxKERNEL@HEIGHTxWIDTH` of a convolution."""

    inputs: int
    outputs: int
    kernel: int = 0
    height: int = 0
    width: int = 0

    @classmethod
    def parse(cls, word: str) -> Shape:
        """Parse a shape; raises UsageProblem."""
        match = _FORM.fullmatch(word)
        numbers = [int(number) for number in match.groups() if number] if match else []
        if not numbers:
            raise UsageProblem(f"no shape '{word}'; give INxOUT (576x47) or INxOUTxKERNEL@HEIGHTxWIDTH (16x32x3@14x14)")
        if min(numbers) < 1 or max(numbers) > 4096 or max(numbers[3:], default=1) > 28:
            raise UsageProblem(f"shape '{word}' is out of range; give sizes from 1 to 4096, heights and widths to 28")
        return cls(*numbers)

    def __str__(self) -> str:
        """Return the shape as `parse` reads it."""
        window = f"x{self.kernel}@{self.height}x{self.width}" if self.kernel else ""
        return f"{self.inputs}x{self.outputs}{window}"


def probe_pair(shape: str, kind: Format, seed: int) -> tuple[Artifact, Artifact]:
    """Return the float and the int8 file of a shape, from the user's cache if they are there."""

    def build(folder: Path) -> None:
        proto = probe_model(Shape.parse(shape), seed)
        path = folder / "source.onnx"
        path.write_bytes(proto.SerializeToString())
        model = OnnxModel("probe", Preprocess(), CLASSES, "0" * 64, normalised(path, len(CLASSES)), proto)
        if not EXPORTERS[kind].takes_onnx:
            from toolchain.checkpoint.onnx_torch import to_torch

            module, refusal = to_torch(proto)
            model = replace(model, module=module, refusal=refusal)
        source = export(model, kind, folder / f"float.{kind}")
        quantize(source, Quantize(scheme="static-int8"), _images(), folder / f"int8.{kind}", recipe="static-int8")

    tools = tool_versions(*EXPORTERS[kind].packages, "onnxruntime", "litert-quantizer")
    folder = cached(f"int8-probe/{shape}.{kind}", f"{tools} {seed} {LAYERS} side by side", build)
    return load_artifact(folder / f"float.{kind}"), load_artifact(folder / f"int8.{kind}")


@cache
def _images() -> CalibrationSet:
    return draw(load("builtin:digits", "train"), 64, seed=0)


def probe_model(shape: Shape, seed: int) -> ModelProto:
    """Return a model from float32 [N, 1, 28, 28] to 10 logits; all layers but the first and last have the shape.

    It is built in ONNX, since torch and its exporter take ten seconds to import.
    """
    from onnx import TensorProto, helper

    graph = _GraphBuilder(seed)
    if shape.kernel:
        # A crop of the middle: it costs nothing, and the corners of a glyph are blank.
        corner = np.array([(28 - shape.height) // 2, (28 - shape.width) // 2])
        graph.add("Slice", corner, corner + np.array([shape.height, shape.width]), np.array([2, 3]))
        graph.layer("Conv", (shape.inputs, 1, 1, 1))
    else:
        graph.add("Flatten")
        graph.layer("Gemm", (shape.inputs, 784), transB=1)
    graph.add("Relu")
    graph.repeat(lambda: _layer(graph, shape))
    if shape.kernel:
        graph.add("Flatten")
    graph.layer("Gemm", (10, shape.outputs * (shape.height * shape.width or 1)), transB=1)
    graph.nodes[-1].output[0] = "logits"
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ("batch", 1, 28, 28))
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("batch", 10))
    proto = helper.make_graph(graph.nodes, "probe", [image], [logits], graph.constants)
    return helper.make_model(proto, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def _layer(graph: _GraphBuilder, shape: Shape) -> None:
    if shape.kernel:
        before, after = (shape.kernel - 1) // 2, shape.kernel // 2
        window = (shape.outputs, shape.inputs, shape.kernel, shape.kernel)
        graph.layer("Conv", window, pads=[before, before, after, after])
    else:
        graph.layer("Gemm", (shape.outputs, shape.inputs), transB=1)
    graph.add("Relu")


class _GraphBuilder:
    """Builds a chain of operators; `last` is the value that the next one reads."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.last = "image"
        self._random = np.random.default_rng(seed)

    def add(self, operator: str, *constants: NDArray[Any], **attributes: Any) -> None:
        from onnx import helper, numpy_helper

        number = len(self.nodes)
        stored = [numpy_helper.from_array(values, f"c{number}_{k}") for k, values in enumerate(constants)]
        inputs = [self.last, *(tensor.name for tensor in stored)]
        self.last = f"v{number}"
        self.nodes.append(helper.make_node(operator, inputs, [self.last], **attributes))
        self.constants += stored

    def layer(self, operator: str, weight: tuple[int, ...], **attributes: Any) -> None:
        """Add a layer whose outputs have about the variance of its inputs (He, arXiv:1502.01852)."""
        weights = self._random.standard_normal(weight) * np.sqrt(2 / np.prod(weight[1:]))
        self.add(operator, weights.astype(np.float32), np.zeros(weight[0], np.float32), **attributes)

    def repeat(self, build: Callable[[], None]) -> None:
        """Add LAYERS layers on the current value, and the sum of their outputs."""
        source, branches = self.last, []
        for _ in range(LAYERS):
            self.last = source
            build()
            branches.append(self.last)
        self.last, *others = branches
        for other in others:
            self._add_to_last(other)

    def _add_to_last(self, other: str) -> None:
        from onnx import helper

        inputs, self.last = [self.last, other], f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node("Add", inputs, [self.last]))


def shapes_of(words: Sequence[str]) -> tuple[Counter[Shape], tuple[str, ...]]:
    """Return the count of each shape, and the layers of a model that no shape represents.

    words: shapes, or one float .onnx file. Raises UsageProblem for anything else, and CheckpointError for a file that
    is no ONNX.
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
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    sizes = {value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in graph.value_info}
    counts: Counter[Shape] = Counter()
    left_out: list[str] = []
    for node in graph.node:
        weight = next((weights[name] for name in node.input[1:2] if name in weights), None)
        if weight is None or node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        shape = _shape(node, weight, sizes)
        if shape:
            counts[shape] += 1
        else:
            left_out.append(f"{node.op_type} {'x'.join(map(str, weight))}")
    if not counts:
        raise UsageProblem(
            f"{path} has no float layer whose shape can be probed; give the float file, or shapes such as 16x32x3@14x14"
        )
    return counts, tuple(left_out)


def _shape(node: NodeProto, weight: tuple[int, ...], sizes: Mapping[str, list[int]]) -> Shape | None:
    """Return a layer's shape; None for a convolution with groups, unequal sides or an unknown size."""
    if node.op_type != "Conv":
        transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        inputs, outputs = weight[::-1] if transposed else weight
        return Shape(inputs, outputs)
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    size = sizes.get(node.output[0], [])
    if groups > 1 or len(weight) != 4 or weight[2] != weight[3] or len(size) != 4 or not 1 <= max(size[2:]) <= 28:
        return None
    return Shape(weight[1], weight[0], weight[2], size[2], size[3])
