"""Reasons: why a pressed file is slower or larger than another one, found in the graph that its runtime makes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from targets import catalog
from targets.artifact import Artifact
from targets.errors import RunFailed
from targets.host.fresh_process import operators
from targets.host.machine import multiplies_bytes
from targets.session import Operator
from targets.target import Target
from toolchain.checkpoint.inspection import inspect_file
from toolchain.formats.onnx.optimized import optimized_graph

if TYPE_CHECKING:
    from onnx import NodeProto


UNSEEN = "the graph shows no reason; `glyphpress profile --per-op` tells what each operator takes"


def reasons_for(artifact: Artifact, base: Artifact, target: Target, *, slower: bool, larger: bool) -> tuple[str, ...]:
    """Return why an artifact is slower on a target, or larger, than `base`, a reason a line; none for neither.

    Graphs are taken as this machine's runtime makes them. Raises RunFailed where it refuses a file.
    """
    found: list[str] = []
    if slower:
        look = {"onnx": _in_onnx, "ort": _in_ort, "tflite": _in_tflite}[artifact.format]
        seen = look(artifact, base) if target.default_kernels else []
        found += [*seen, *_without_instructions(artifact, target)] or [UNSEEN + _most(artifact, target)]
    if larger:
        found.append(_bytes(artifact))
    return tuple(found)


def _without_instructions(artifact: Artifact, target: Target) -> Iterator[str]:
    """Yield that the processor has no instructions for what an int8 file does, where that is known of it."""
    flags = target.isa()
    if not flags or multiplies_bytes(flags) or not _computes_in_int8(artifact):
        return
    missing = "dot-product instructions (asimddp)" if "asimd" in flags else "VNNI"
    yield (
        f"the processor has no {missing}: each product of bytes takes several instructions, where float takes one; "
        "weight-int8 is as small and runs like float"
    )


def _most(artifact: Artifact, target: Target) -> str:
    """Return the operator that takes most of the time, where this machine's runtimes tell it."""
    kernels = _kernels(artifact) if target.name == catalog.default_for(artifact.format).name else []
    if not kernels:
        return ""
    most = max(kernels, key=lambda one: one.ns)
    return f"; most is {most.kernel}{f' of {most.layer}' if most.layer else ''}, {_share([most], kernels)}"


def _computes_in_int8(artifact: Artifact) -> bool:
    """Return whether layers of a file multiply int8 by int8, rather than only store it."""
    if artifact.format == "tflite":
        return any("QC8" in one.kernel or "QS8" in one.kernel for one in _kernels(artifact))
    kinds = {node.op_type for node in optimized(artifact).nodes} if artifact.format == "onnx" else set()
    return any(kind.startswith(("QLinear", "QGemm", "DynamicQuantize", "MatMulInteger")) for kind in kinds)


def _in_onnx(artifact: Artifact, base: Artifact) -> list[str]:
    graph = optimized(artifact)
    found = [reason for look in _LOOKS for reason in look(graph)]
    if found and base.format == "onnx" and (more := len(graph.nodes) - (before := len(optimized(base).nodes))) > 0:
        found.append(f"{more} nodes more than the {before} of {base.path.name}, once both are optimized")
    return found


def _convolutions(graph: Optimized) -> Iterator[str]:
    if count := graph.count("ConvInteger"):
        yield (
            f"ConvInteger ({count}): ONNX Runtime has no fast kernel for it; quantize convolutions statically, or not "
            "at all"
        )


def _signed(graph: Optimized) -> Iterator[str]:
    kinds = Counter(
        node.op_type
        for node in graph.nodes
        # Of all of these the third input is the zero point of the first one.
        if (node.op_type.startswith("QLinear") or node.op_type == "QGemm")
        and len(node.input) > 2
        and graph.constants.get(node.input[2]) == "INT8"
    )
    if kinds:
        yield (
            f"signed activations (int8) in {_listed(kinds)}: ONNX Runtime's fast kernels on x86 take unsigned ones; "
            "quantize activations to uint8"
        )


def _stored(graph: Optimized) -> Iterator[str]:
    kinds = Counter(
        graph.constants[node.input[0]].lower()
        for node in graph.nodes
        if node.op_type == "DequantizeLinear" and node.input[0] in graph.constants
    )
    if kinds:
        yield f"DequantizeLinear of stored {_listed(kinds)} is fused into no kernel and runs in each inference"


_GELU = {"Erf", "Gelu", "FastGelu", "QuickGelu", "BiasGelu"}


def _islands(graph: Optimized) -> Iterator[str]:
    if kinds := graph.between_integers():
        yield (
            f"float between integers: {_listed(kinds)}, without an integer kernel, is dequantized and quantized again"
            + "; this is GELU, and a model with ReLU stays among integers" * bool(_GELU & set(kinds))
        )


def _dynamic(graph: Optimized) -> Iterator[str]:
    kinds = Counter(node.op_type for node in graph.nodes if node.op_type.startswith("DynamicQuantize"))
    if kinds:
        yield f"{_listed(kinds)}: activations are measured and quantized anew in each inference"


_LOOKS = (_convolutions, _signed, _stored, _islands, _dynamic)


def _in_ort(artifact: Artifact, base: Artifact) -> list[str]:  # noqa: ARG001 (each format is asked alike)
    return [
        "an .ort is optimized when it is made: float convolutions keep the layout of any processor, not of this one; "
        "export it again with --this-cpu, or ship the .onnx"
    ]


def _in_tflite(artifact: Artifact, base: Artifact) -> list[str]:  # noqa: ARG001
    with catalog.default_for("tflite").open(artifact) as session:
        parts = session.facts.placement.get("XNNPACK", 0)
    kernels = _kernels(artifact)
    found = []
    if parts != 1:
        found.append(f"XNNPACK has {f'the graph in {parts} parts' if parts else 'no part of the graph'}")
    if _has_int16(artifact.path):
        found.append("int16 activations, for which XNNPACK has no kernels")
    if outside := [one for one in kernels if one.kernel.isupper()]:
        found.append(f"outside XNNPACK: {_shared(outside, kernels)}")
    if dynamic := [one for one in kernels if one.kernel.startswith("Convert") and "QD8" in one.kernel]:
        found.append(f"activations are measured and quantized anew in each inference: {_shared(dynamic, kernels)}")
    return found


def _kernels(artifact: Artifact) -> list[Operator]:
    """Return what the usual runtime runs of a file; nothing where it was built without its profiler."""
    try:
        return operators(artifact, catalog.default_for(artifact.format))
    except RunFailed:
        return []


def _has_int16(path: Path) -> bool:
    from ai_edge_litert.interpreter import Interpreter

    return any(tensor["dtype"] == np.int16 for tensor in Interpreter(str(path)).get_tensor_details())


def _shared(some: list[Operator], kernels: list[Operator]) -> str:
    return f"{_listed(Counter(one.kernel for one in some))}, {_share(some, kernels)}"


def _share(some: list[Operator], kernels: list[Operator]) -> str:
    return f"{sum(one.ns for one in some) / max(1.0, sum(one.ns for one in kernels)):.0%} of the time"


def _listed(kinds: Counter[str]) -> str:
    return ", ".join(f"{kind} ({count})" for kind, count in kinds.most_common())


def _bytes(artifact: Artifact) -> str:
    if artifact.format == "ort":
        return (
            "an .ort stores its graph with more room than an .onnx, and weights as they run: 4 bits are 8, 8 may be 32"
        )
    found = inspect_file(str(artifact.path))
    dtypes = found.bytes_by_dtype
    weights = sum(dtypes.values())
    most = ", ".join(f"{size:,} {dtype}" for dtype, size in list(dtypes.items())[:2])
    return f"of its {found.bytes:,} bytes {most} are weights and constants, {found.bytes - weights:,} are the graph"


SCALING = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class Optimized:
    """nodes: in order. constants: the dtype of each, in ONNX's words (`INT8`, `FLOAT`)."""

    nodes: tuple[NodeProto, ...]
    constants: dict[str, str]

    def count(self, kind: str) -> int:
        """Return how many operators of a kind there are."""
        return sum(node.op_type == kind for node in self.nodes)

    def between_integers(self) -> Counter[str]:
        """Return the kinds of operators on a way of floats from a DequantizeLinear to a QuantizeLinear."""
        floats: set[str] = set()
        quantized_later: set[str] = set()
        for node in self.nodes:
            begins = node.op_type == "DequantizeLinear" and node.input[0] not in self.constants
            if begins or (node.op_type not in SCALING and floats & set(node.input)):
                floats.update(node.output)
        for node in reversed(self.nodes):
            if node.op_type == "QuantizeLinear" or quantized_later & set(node.output):
                quantized_later.update(() if node.op_type == "DequantizeLinear" else node.input)
        return Counter(
            node.op_type
            for node in self.nodes
            if node.op_type not in SCALING and floats & set(node.input) and quantized_later & set(node.output)
        )


def optimized(artifact: Artifact) -> Optimized:
    """Optimize an .onnx artifact as `ort-cpu` does; raises RunFailed where ONNX Runtime refuses it."""
    from onnx import TensorProto

    graph = optimized_graph(artifact)
    names = TensorProto.DataType.Name
    return Optimized(tuple(graph.node), {tensor.name: names(tensor.data_type) for tensor in graph.initializer})
