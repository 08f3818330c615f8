"""Run a graph in memory in ONNX Runtime, to compare a rewritten graph with the original."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from targets.errors import first_line
from toolchain.core.errors import CheckpointError

if TYPE_CHECKING:
    from onnx import ModelProto

TOLERANCE = 1e-4
_SEEDED_IMAGES = 64


def open_session(model: ModelProto | Path, save_to: Path | None = None) -> Any:
    """Return an onnxruntime CPU session on a graph that holds its weights, or on a file. Raises CheckpointError.

    save_to: where onnxruntime writes the graph with its constants folded, in standard operators.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # Rewrites are checked against the graph as it is written, not as a runtime would fuse it.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    if save_to is not None:
        options.optimized_model_filepath = str(save_to)
        # It would hold the weights twice more, laid out for kernels that never run.
        options.add_session_config_entry("session.disable_prepacking", "1")
    source = model if isinstance(model, Path) else model.SerializeToString()
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class
        if save_to is not None and "serialization failed" in str(error):
            # It does not say why it could not write.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(save_to)) from error
        raise CheckpointError(f"onnxruntime cannot load the graph ({first_line(error)}); export it again") from error


def folded(proto: ModelProto) -> ModelProto:
    """Return the graph with everything computed that does not depend on the image."""
    import onnx

    with tempfile.TemporaryDirectory(prefix="glyphpress-") as folder:
        path = Path(folder) / "folded.onnx"
        open_session(proto, path)
        return onnx.load(path)


def answers(session: Any, images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """Return every output that is an array, by name. Raises CheckpointError when the graph cannot run."""
    try:
        values = session.run(None, {session.get_inputs()[0].name: images})
    except Exception as error:  # likewise
        raise CheckpointError(f"onnxruntime cannot run the graph ({first_line(error)}); export it again") from error
    names = [output.name for output in session.get_outputs()]
    return {name: value for name, value in zip(names, values, strict=True) if isinstance(value, np.ndarray)}


def seeded_images(batch: int | None = None) -> NDArray[np.float32]:
    """Return float32 [64 or more, 1, 28, 28] in 0 to 1, a multiple of `batch`; always the same."""
    count = _SEEDED_IMAGES if batch is None else batch * max(1, _SEEDED_IMAGES // batch)
    return np.random.default_rng(0).random((count, 1, 28, 28), dtype=np.float32)


def largest_difference(expected: NDArray[Any], answered: NDArray[Any]) -> float:
    """Return the largest absolute difference, relative to the answers where these are larger than 1."""
    if expected.shape != answered.shape or not (np.isfinite(expected).all() and np.isfinite(answered).all()):
        return float("inf")
    return float(np.abs(expected - answered).max() / max(1.0, float(np.abs(expected).max())))
