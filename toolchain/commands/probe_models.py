"""Small models of one layer's shape, in float and int8, that tell what int8 costs of float.

Each repeats one layer, so that this layer is what an inference costs, and goes through the press's own exporter and
quantizer: what is told holds for the files that a press would make. They are kept in the user's cache.
"""

from __future__ import annotations

import re
from collections.abc import Callable
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
from toolchain.export import export
from toolchain.export.exporters import EXPORTERS
from toolchain.quantize import quantize
from toolchain.recipe import Quantize

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

LAYERS = 4
"""So often the layer is repeated, each time on the same input: back again would be a layer of another shape."""
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
        """Read a shape; raises UsageProblem."""
        match = _FORM.fullmatch(word)
        numbers = [int(number) for number in match.groups() if number] if match else []
        if not numbers or min(numbers) < 1 or max(numbers) > 4096 or max(numbers[3:], default=1) > 28:
            raise UsageProblem(f"no shape '{word}'; give INxOUT (576x47) or INxOUTxKERNEL@HEIGHTxWIDTH (16x32x3@14x14)")
        return cls(*numbers)

    def __str__(self) -> str:
        """Return the word."""
        window = f"x{self.kernel}@{self.height}x{self.width}" if self.kernel else ""
        return f"{self.inputs}x{self.outputs}{window}"


def probe_pair(shape: str, kind: Format, seed: int) -> tuple[Artifact, Artifact]:
    """Return the float and the int8 file of a shape, from the user's cache where they were made before."""

    def build(folder: Path) -> None:
        proto = probe_model(Shape.parse(shape), seed)
        path = folder / "source.onnx"
        path.write_bytes(proto.SerializeToString())
        model = OnnxModel("probe", Preprocess(), CLASSES, "0" * 64, normalised(path, len(CLASSES)), path)
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
    """Return a model from glyphs float32 [N, 1, 28, 28] to 10 logits whose layers but first and last have the shape.

    Written in ONNX, since torch and its exporter take ten seconds to import.
    """
    from onnx import TensorProto, helper

    graph = _Graph(seed)
    if shape.kernel:
        # A crop of the middle, since what brings the glyphs to size must cost nothing, and a corner is blank.
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
    taken = helper.make_tensor_value_info("image", TensorProto.FLOAT, ("batch", 1, 28, 28))
    given = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("batch", 10))
    made = helper.make_graph(graph.nodes, "probe", [taken], [given], graph.constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def _layer(graph: _Graph, shape: Shape) -> None:
    if shape.kernel:
        before, after = (shape.kernel - 1) // 2, shape.kernel // 2
        window = (shape.outputs, shape.inputs, shape.kernel, shape.kernel)
        graph.layer("Conv", window, pads=[before, before, after, after])
    else:
        graph.layer("Gemm", (shape.outputs, shape.inputs), transB=1)
    graph.add("Relu")


class _Graph:
    """A chain of operators under way; `last` is the value that the next one takes."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.last = "image"
        self._random = np.random.default_rng(seed)

    def add(self, operator: str, *constants: NDArray[Any], **attributes: Any) -> None:
        from onnx import helper, numpy_helper

        number = len(self.nodes)
        stored = [numpy_helper.from_array(values, f"c{number}_{k}") for k, values in enumerate(constants)]
        taken = [self.last, *(one.name for one in stored)]
        self.last = f"v{number}"
        self.nodes.append(helper.make_node(operator, taken, [self.last], **attributes))
        self.constants += stored

    def layer(self, operator: str, weight: tuple[int, ...], **attributes: Any) -> None:
        """Add a layer whose outputs vary about as much as its inputs (He, arXiv:1502.01852)."""
        drawn = self._random.standard_normal(weight) * np.sqrt(2 / np.prod(weight[1:]))
        self.add(operator, drawn.astype(np.float32), np.zeros(weight[0], np.float32), **attributes)

    def repeat(self, build: Callable[[], None]) -> None:
        """Add a layer several times, each on the value that is last now, and what they give together."""
        source, branches = self.last, []
        for _ in range(LAYERS):
            self.last = source
            build()
            branches.append(self.last)
        self.last, *others = branches
        for other in others:
            self.join(other)

    def join(self, other: str) -> None:
        """Add a value to the last one."""
        from onnx import helper

        taken, self.last = [self.last, other], f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node("Add", taken, [self.last]))
