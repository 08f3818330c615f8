"""What an .ort file says of itself: a graph that ONNX Runtime has optimized and stored in its own format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from targets.artifact import TensorSpec
from targets.errors import ArtifactError
from targets.ort import _port, _runtime


def described(path: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return the inputs and outputs that it declares; raises ArtifactError."""
    session = _session(path)
    sides = (session.get_inputs(), session.get_outputs())
    inputs, outputs = (tuple(_port(node, {}).spec for node in nodes) for nodes in sides)
    return inputs, outputs


def metadata(path: Path) -> dict[str, str]:
    """Return the metadata that it took over from the .onnx file it was made of; raises ArtifactError."""
    found: dict[str, str] = _session(path).get_modelmeta().custom_metadata_map
    return found


def _session(path: Path) -> Any:
    ort = _runtime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        raise ArtifactError(
            f"{path}: no .ort file, or one of another ONNX Runtime ({said}); convert it again"
        ) from error
