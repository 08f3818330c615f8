"""ONNX Runtime's profiler: the times of kernels, joined to the layers of the file.

The optimizer keeps the name of a node, or of the tensor that a fused node writes, in the names of the nodes that it
makes. So each node is given its number as a name first; this does not change what runs.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from targets.artifact import Artifact
from targets.errors import RunFailed, runtime_errors
from targets.host.runtime_session import PROFILE_RUNS, PROFILE_WARMUP, typical_ns
from targets.onnxruntime.onnx_file import without_weights
from targets.session import Operator

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto
    from onnxruntime import InferenceSession, SessionOptions

_EVENT = re.compile(r"(?P<name>.*)_kernel_time")
_NUMBER = re.compile(r"\[node (\d+)\]")
_ADDED_SUFFIX = re.compile(r"(?:_pre_q)?(?:_nchwc|_token_\d+)?$")
"""Suffix that the optimizer adds to the name of a node or tensor."""


def ort_operators(
    artifact: Artifact, options: SessionOptions, prepared: Callable[[InferenceSession], Callable[[], object]]
) -> list[Operator]:
    """Return the kernels of an inference; raises RunFailed where ONNX Runtime refuses the file.

    options: of the session. prepared: returns the function that runs one inference in an open session.
    """
    import onnx
    import onnxruntime

    if artifact.format == "ort":
        raise RunFailed(f"{artifact.path}: its graph is optimized already; profile the .onnx that it was made from")
    model = numbered(onnx.load(artifact.path))
    with tempfile.TemporaryDirectory() as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder, "profile"))
        with runtime_errors(f"{artifact.path}: ONNX Runtime refuses it"):
            session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        infer = prepared(session)
        for _ in range(PROFILE_WARMUP + PROFILE_RUNS):
            infer()
        events = json.loads(Path(session.end_profiling()).read_text())
    layers = _layers(without_weights(artifact.path).graph)
    return list(_operators(events, layers))


def _operators(events: list[dict[str, Any]], layers: dict[str, str]) -> Iterable[Operator]:
    """Yield the kernels in the order of the last inference, timed by their last PROFILE_RUNS."""
    durations: dict[str, list[int]] = {}
    kernels: dict[str, str] = {}
    for event in events:
        if event["cat"] == "Node" and (match := _EVENT.fullmatch(event["name"])):
            durations.setdefault(match["name"], []).append(event["dur"])
            kernels[match["name"]] = event["args"]["op_name"]
    for name, microseconds in durations.items():
        yield Operator(kernels[name], layers.get(origin(name), ""), typical_ns(microseconds[-PROFILE_RUNS:]))


def origin(name: str) -> str:
    """Return the node (`[node K]`) or tensor of the file from which a node of the optimized graph has its name."""
    number = _NUMBER.match(name)
    return number[0] if number else _ADDED_SUFFIX.sub("", name)


def numbered(model: ModelProto) -> ModelProto:
    """Return the model (changed in place) with `[node K]` as the name of node K."""
    for number, node in enumerate(model.graph.node):
        node.name = f"[node {number}]"
    return model


def _layers(graph: GraphProto) -> dict[str, str]:
    """Return the layer of every node (`[node K]`) and of every tensor that a node writes.

    It is the layer of the weight that a node reads, else the node's own name, else the layer of its input.
    """
    weights = {tensor.name: layer_of_weight(tensor.name) for tensor in graph.initializer}
    flow: dict[str, str] = {}
    by_node = {}
    for number, node in enumerate(graph.node):
        if all(name in weights for name in node.input if name):
            layer = next((weights[name] for name in node.input if name), "")
            weights |= dict.fromkeys(node.output, layer)
            by_node[f"[node {number}]"] = layer
            continue
        weighted = next((weights[name] for name in node.input if weights.get(name)), "")
        layer = weighted or node.name or next((flow[name] for name in node.input if name in flow), "")
        flow |= dict.fromkeys(node.output, layer)
        by_node[f"[node {number}]"] = layer
    return by_node | flow


def layer_of_weight(weight: str) -> str:
    """Return the layer of a weight named as torch names it (`features.conv1.weight`), empty for any other constant."""
    layer = re.match(r"(.+)\.(?:weight|bias)", weight)
    return layer[1] if layer else ""
