"""Estimate whether int8 will help on a target, by measuring small models there, each of one layer's shape.

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
from targets import catalog
from targets.artifact import Artifact, Format
from targets.errors import TargetUnavailable
from targets.host.cache import cached
from targets.metadata import load_artifact
from targets.preprocess import Preprocess
from targets.session import RuntimeFacts, TimingPlan, Timings, taints_of
from targets.target import Target
from toolchain.checkpoint import normalised
from toolchain.checkpoint.float_model import OnnxModel
from toolchain.core.context import RunContext
from toolchain.core.errors import StageError, UsageProblem
from toolchain.core.json_codec import to_json
from toolchain.core.versions import tool_versions
from toolchain.export import EXPORTERS, export
from toolchain.formats import catalog as formats
from toolchain.formats.onnx.file import read_onnx
from toolchain.profiling.latency import profile
from toolchain.quantize import quantize
from toolchain.recipe import Quantize

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

_DEFAULTS = ("16x32x3@14x14", "32x64x3@7x7", "576x128")
_PAYS = 0.95
"""int8 pays below this share of float's cost."""
_PLAN, _ROUNDS = TimingPlan(min_runs=200, min_seconds=0.2), 10
_COPIES = 4
"""Number of copies of the layer, all on the same input: a chain would need layers of another shape in between."""
_CLASSES = tuple("0123456789")
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


def probe_pair(shape: Shape, kind: Format, seed: int) -> tuple[Artifact, Artifact]:
    """Return the float and the int8 file of a shape, from the user's cache if they are there."""

    def build(folder: Path) -> None:
        proto = probe_model(shape, seed)
        path = folder / "source.onnx"
        path.write_bytes(proto.SerializeToString())
        model = OnnxModel("probe", Preprocess(), _CLASSES, "0" * 64, normalised(path, len(_CLASSES)), proto)
        if not EXPORTERS[kind].takes_onnx:
            from toolchain.checkpoint.onnx_torch import to_torch

            module, refusal = to_torch(proto)
            model = replace(model, module=module, refusal=refusal)
        source = export(model, kind, folder / f"float.{kind}")
        quantize(source, Quantize(scheme="static-int8"), _images(), folder / f"int8.{kind}", recipe="static-int8")

    tools = tool_versions(*EXPORTERS[kind].packages, "onnxruntime", "litert-quantizer")
    folder = cached(f"int8-probe/{shape}.{kind}", f"{tools} {seed} {_COPIES} side by side", build)
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
        """Add several copies of a layer on the current value, and the sum of their outputs."""
        from onnx import helper

        source, branches = self.last, []
        for _ in range(_COPIES):
            self.last = source
            build()
            branches.append(self.last)
        self.last, *others = branches
        for other in others:
            inputs, self.last = [self.last, other], f"v{len(self.nodes)}"
            self.nodes.append(helper.make_node("Add", inputs, [self.last]))


def shapes_of(arguments: Sequence[str]) -> tuple[Counter[Shape], tuple[str, ...]]:
    """Return the count of each shape, and the layers of a model that no shape represents.

    arguments: shapes, or one float .onnx file. Raises UsageProblem for anything else, StageError for a file that
    is not there or has no such layer, and CheckpointError for one that is no ONNX.
    """
    files = [word for word in arguments if (file_format := formats.of(Path(word))) and file_format.loads]
    if not files:
        return Counter(map(Shape.parse, arguments)), ()
    if len(arguments) > 1:
        raise UsageProblem(f"{files[0]} holds shapes of its own; give it alone, or shapes alone")
    if not Path(files[0]).is_file():
        raise StageError(f"{files[0]}: no such file; give the .onnx that `glyphpress export` makes")
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
        raise StageError(
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


@dataclass(frozen=True)
class Ratio:
    """Cost of int8 over that of float for one shape in one format; below 1 int8 helps.

    low, high: 95 % interval, of latencies only. cost: of the small float model, in nanoseconds or instructions. times:
    number of such layers in the model.
    """

    shape: str
    format: Format
    ratio: float
    low: float | None = None
    high: float | None = None
    cost: float = 1.0
    times: int = 1


@dataclass(frozen=True)
class Int8Probe:
    """The result on a target.

    left_out: layers of a model that no shape represents. taints: what disturbed the machine while it was timed.
    """

    facts: RuntimeFacts
    ratios: tuple[Ratio, ...]
    left_out: tuple[str, ...] = ()
    taints: tuple[str, ...] = ()

    def overall(self) -> dict[Format, float]:
        """Return the ratio of each format over all shapes, each weighted by its cost in float."""
        return {kind: _weighted(rows, [row.ratio for row in rows]) for kind, rows in self._by_format().items()}

    def interval(self) -> dict[Format, tuple[float, float] | None]:
        """Return bounds of `overall`, as if all shapes erred to the same side; None for instructions."""
        intervals: dict[Format, tuple[float, float] | None] = {}
        for kind, rows in self._by_format().items():
            bounds = [(row.low, row.high) for row in rows if row.low is not None and row.high is not None]
            complete = len(bounds) == len(rows)
            intervals[kind] = (
                (_weighted(rows, [low for low, _ in bounds]), _weighted(rows, [high for _, high in bounds]))
                if complete
                else None
            )
        return intervals

    def _by_format(self) -> dict[Format, list[Ratio]]:
        kinds = dict.fromkeys(row.format for row in self.ratios)
        return {kind: [row for row in self.ratios if row.format == kind] for kind in kinds}

    def advice(self) -> list[str]:
        """Return the conclusion, a line for each format, and the layers that no shape represents."""
        cost, bounds = "instructions" if self.facts.cost == "instructions" else "time", self.interval()
        lines = [
            f"{kind}: int8 takes {ratio:.2f} of float's {cost} on {self.facts.target}: "
            + _conclusion(ratio, bounds[kind], cost)
            for kind, ratio in self.overall().items()
        ]
        return [*lines, *(f"left out: {layer}" for layer in self.left_out)]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and the conclusions as JSON types."""
        return to_json(self) | {"overall": self.overall(), "interval": self.interval(), "advice": self.advice()}


def _weighted(ratios: Sequence[Ratio], values: Sequence[float]) -> float:
    """Return the mean of values, one for each shape, weighted by the shape's cost in float times its count."""
    weights = [row.cost * row.times for row in ratios]
    return sum(weight * value for weight, value in zip(weights, values, strict=True)) / sum(weights)


def _conclusion(ratio: float, bounds: tuple[float, float] | None, cost: str) -> str:
    low, high = bounds or (ratio, ratio)
    if high < _PAYS:
        return "quantize"
    if low < _PAYS:
        return (
            "undecided, it may pay or not: give your model's float .onnx, or time its files with `glyphpress profile`"
        )
    gain = "speed" if cost == "time" else "instructions"
    return f"it will not pay in {gain} there; the file still shrinks to a quarter"


def probe_int8(target_name: str, shapes: Sequence[str], context: RunContext) -> Int8Probe:
    """Measure a float and an int8 model of every shape on a target, in every format that it runs.

    shapes: such as `576x128`, or one float .onnx file, whose layers count as often as they occur; without any,
    three usual ones. Raises UsageProblem for an invalid shape or a target without a cost, and what the target raises.
    """
    target, (counts, left_out) = catalog.get(target_name), shapes_of(shapes or _DEFAULTS)
    state = target.probe()
    if not state.ok:
        raise TargetUnavailable(f"{target.name}: {state.reason}; {state.fix}")
    cases = [(kind, shape) for kind in EXPORTERS if kind in target.formats for shape in counts]
    if not cases:
        names = formats.suffixes(map(formats.get, EXPORTERS), "nor")
        raise UsageProblem(f"{target.name} runs neither {names} files; take another target")
    measure = _counted if target.cost == "instructions" else _timed
    result = measure(target, cases, context)
    ratios = tuple(replace(row, times=counts[shape]) for row, (_, shape) in zip(result.ratios, cases, strict=True))
    return replace(result, ratios=ratios, left_out=left_out)


def _counted(target: Target, cases: Sequence[tuple[Format, Shape]], context: RunContext) -> Int8Probe:
    files: list[Artifact] = []
    for done, (kind, shape) in enumerate(cases, 1):
        files += probe_pair(shape, kind, context.seed)
        context.progress("small models", done, len(cases))
    # Two inferences, since counts hardly vary, and one emulator for all files, since its start takes longest.
    counts = target.count(files, runs=2, together=True, progress=context.progress)
    costs = [count.median for count in counts]
    ratios = [
        Ratio(str(shape), kind, int8 / base, cost=base)
        for (kind, shape), base, int8 in zip(cases, costs[::2], costs[1::2], strict=True)
    ]
    return Int8Probe(counts[0].facts, tuple(ratios))


def _timed(target: Target, cases: Sequence[tuple[Format, Shape]], context: RunContext) -> Int8Probe:
    ratios: list[Ratio] = []
    timed: list[Timings] = []
    for done, (kind, shape) in enumerate(cases, 1):
        pair = probe_pair(shape, kind, context.seed)
        with target.open(pair[0]) as session:
            facts = session.facts
        if facts.cost != "latency":
            raise UsageProblem(f"{target.name} is simulated and has no cost to measure; probe the device itself")
        one_thread = RunContext(context.seed, threads=1)
        first, second = profile(pair, target=target, plan=_PLAN, rounds=_ROUNDS, context=one_thread).rows
        timed += [first.timings, second.timings]
        ratio, cost = second.ratio, first.timings.percentile(50)
        if ratio is None or cost is None:
            raise UsageProblem(f"{shape}: too short for the clock of {target.name}; give a larger shape")
        ratios.append(Ratio(str(shape), kind, ratio.ratio, ratio.low, ratio.high, cost))
        context.progress("probing int8", done, len(cases))
    return Int8Probe(facts, tuple(ratios), taints=taints_of(timed))
