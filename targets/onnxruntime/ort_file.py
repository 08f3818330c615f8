"""Reads what an .ort file declares: a graph that ONNX Runtime has optimized and stored in its own format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from targets.artifact import TensorSpec
from targets.errors import ArtifactError, in_one_line, translated
from targets.onnxruntime.cpu import load_runtime

SCALES_KEY = "glyphpress.scales"
"""Metadata with the scales of integer inputs and outputs, which the optimized graph no longer tells."""
_DTYPES = {"float": "float32", "double": "float64"}


def described(path: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return its inputs and outputs; raises ArtifactError, also where the scales of integers are missing."""
    session = _session(path)
    with translated(lambda reason: ArtifactError(f"{path}: its metadata is damaged ({reason}); convert it again")):
        scales = json.loads(_metadata(path, session).get(SCALES_KEY, "{}"))
        sides = (session.get_inputs(), session.get_outputs())
        inputs, outputs = (tuple(_spec(path, node, scales) for node in nodes) for nodes in sides)
        return inputs, outputs


def _spec(path: Path, node: Any, scales: dict[str, list[Any]]) -> TensorSpec:
    kind = node.type.removeprefix("tensor(").removesuffix(")")
    dtype = _DTYPES.get(kind, kind)
    if "float" not in dtype and node.name not in scales:
        raise ArtifactError(
            f"{path}: has no scale for the {dtype} values of {node.name}; make it with `glyphpress export`"
        )
    shape = tuple(axis if isinstance(axis, int) else -1 for axis in node.shape)
    return TensorSpec(node.name, shape, dtype, *scales.get(node.name, ()))


def metadata(path: Path) -> dict[str, str]:
    """Return its metadata, copied from the .onnx file it was made from; raises ArtifactError."""
    return _metadata(path, _session(path))


def _metadata(path: Path, session: Any) -> dict[str, str]:
    try:
        values: dict[str, str] = session.get_modelmeta().custom_metadata_map
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{path}: its metadata is damaged ({error.reason}); convert it again") from error
    return values


def _session(path: Path) -> Any:
    ort = load_runtime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ArtifactError(
            f"{path}: not an .ort file, or one of another ONNX Runtime ({in_one_line(error)}); convert it again"
        ) from error
