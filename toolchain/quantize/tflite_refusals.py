"""What LiteRT refuses of a quantized file, said of the float file's layers, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from targets.artifact import Artifact
from targets.errors import RunFailed
from toolchain.core.errors import StageError
from toolchain.formats.activations import open_bare
from toolchain.formats.tflite.layers import parsed, tflite_graph
from toolchain.quantize.step import Quantize

_NODE = re.compile(r"Node number (\d+) \(\w+\) failed")
_TENSOR = re.compile(r"Tensor (\d+) has")


@contextmanager
def refusals_explained(artifact: Artifact, step: Quantize, made: Path) -> Iterator[None]:
    """Raise StageError about the float `artifact` where LiteRT refuses the file `made` of it."""
    try:
        if artifact.format == "tflite":
            _prepared(made.read_bytes())
        yield
    except RunFailed as error:
        if artifact.format != "tflite":
            raise
        where = _where(made.read_bytes(), str(error))
        raise StageError(
            f"{artifact.path.name}: LiteRT cannot run what {step.scheme} makes of it{where}; {way_out(step)}"
        ) from error


def way_out(step: Quantize) -> str:
    """Return the schemes to take where this one fails."""
    if step.row.activations == "int16":
        return "take --scheme static-int8, or one that computes in float between layers: weight-int8, dynamic-int8"
    if step.calibrated:
        return "take --scheme weight-int8, dynamic-int8 or float16, which compute in float between layers"
    return "take --scheme float16, which leaves all operators as they are"


def _prepared(content: bytes) -> None:
    try:
        open_bare(content)
    except (RuntimeError, ValueError) as error:
        raise RunFailed(str(error)) from error


def _where(content: bytes, said: str) -> str:
    """Return ` (ADD behind layer conv1)` for what LiteRT says of an operator or a tensor, or nothing."""
    graph = tflite_graph(parsed(content))
    node, tensor = _NODE.search(said), _TENSOR.search(said)
    if node:
        numbers = [int(node[1])]
    else:
        numbers = [at for at, one in enumerate(graph.nodes) if tensor and tensor[1] in (*one.inputs, *one.outputs)]
    if not numbers or numbers[0] >= len(graph.nodes):
        return ""
    before = [layer for layer in graph.layers if layer.node <= numbers[0]]
    kind = graph.nodes[numbers[0]].kind
    if not before:
        return f" ({kind} before the first layer)"
    last = before[-1]
    return f" (layer {last.name})" if last.node == numbers[0] else f" ({kind} behind layer {last.name})"
