"""ONNX Runtime's profiler: the kernels that ran, found again in the file after its graph was optimized.

The optimizer keeps a node's name in what it makes of it, or the name of the tensor that a fused node wrote; so nodes
without a name are given one first, which changes nothing of what runs.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from targets.artifact import Artifact
from targets.errors import RunFailed
from targets.host.clock import PROFILE_RUNS, PROFILE_WARMUP, typical_ns
from targets.onnxruntime.protobuf import without_weights
from targets.session import Operator

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto
_EVENT = re.compile(r"(?P<name>.*)_kernel_time")
_NUMBER = re.compile(r"\[node (\d+)\]")
_OWN = re.compile(r"(?:_pre_q)?(?:_nchwc|_token_\d+)?$")
"""What the optimizer puts behind the name of a node or tensor."""


def ort_operators(artifact: Artifact, options: Any, prepared: Callable[[Any], Callable[[], object]]) -> list[Operator]:
    """Return the kernels of an inference; raises RunFailed where ONNX Runtime refuses the file.

    options: of the session. prepared: returns the call that infers in an open session.
    """
    import onnx
    import onnxruntime

    if artifact.format == "ort":
        raise RunFailed(f"{artifact.path}: its graph is optimized already; profile the .onnx that it was made of")
    model = numbered(onnx.load(artifact.path))
    with tempfile.TemporaryDirectory() as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder, "profile"))
        try:
            session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            said = " ".join(str(error).split())[:300]
            raise RunFailed(f"{artifact.path}: ONNX Runtime refuses it ({said}); export it again") from error
        call = prepared(session)
        for _ in range(PROFILE_WARMUP + PROFILE_RUNS):
            call()
        events = json.loads(Path(session.end_profiling()).read_text())
    layers = _layers(without_weights(artifact.path).graph)
    return list(_operators(events, layers))


def _operators(events: list[dict[str, Any]], layers: dict[str, str]) -> Iterable[Operator]:
    """Yield the kernels in the order of the last inference, by their last `RUNS`."""
    took: dict[str, list[int]] = {}
    kernels: dict[str, str] = {}
    for event in events:
        if event["cat"] == "Node" and (found := _EVENT.fullmatch(event["name"])):
            took.setdefault(found["name"], []).append(event["dur"])
            kernels[found["name"]] = event["args"]["op_name"]
    for name, durations in took.items():
        yield Operator(kernels[name], layers.get(origin(name), ""), typical_ns(durations[-PROFILE_RUNS:]))


def origin(name: str) -> str:
    """Return the node (`[node K]`) or tensor of the file that a node of the optimized graph is named after."""
    number = _NUMBER.match(name)
    return number[0] if number else _OWN.sub("", name)


def numbered(model: ModelProto) -> ModelProto:
    """Return the model (changed in place) with nodes that bear their number as a name."""
    for number, node in enumerate(model.graph.node):
        node.name = f"[node {number}]"
    return model


def _layers(graph: GraphProto) -> dict[str, str]:
    """Return the layer of every node (`[node K]`) and of every tensor that one writes.

    A node belongs to the layer whose weight it takes, else bears its own name, else goes with what it reads.
    """
    weights = {tensor.name: layer_of_weight(tensor.name) for tensor in graph.initializer}
    flow: dict[str, str] = {}
    found = {}
    for number, node in enumerate(graph.node):
        if all(name in weights for name in node.input if name):
            layer = next((weights[name] for name in node.input if name), "")
            weights |= dict.fromkeys(node.output, layer)
            found[f"[node {number}]"] = layer
            continue
        own = next((weights[name] for name in node.input if weights.get(name)), "")
        layer = own or node.name or next((flow[name] for name in node.input if name in flow), "")
        flow |= dict.fromkeys(node.output, layer)
        found[f"[node {number}]"] = layer
    return found | flow


def layer_of_weight(weight: str) -> str:
    """Return the layer of a weight named as torch names it (`features.conv1.weight`), empty for any other constant."""
    layer = re.match(r"(.+)\.(?:weight|bias)", weight)
    return layer[1] if layer else ""
