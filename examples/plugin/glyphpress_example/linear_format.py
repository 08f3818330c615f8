"""The format `.linear`: a linear reader as JSON, `{"weights": [[...] of 784 ...], "bias": [...]}`, a row a class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glyphpress.plugins import ArtifactError, FileFormat, Inspection, StoredTensor, TensorSpec

Floats = NDArray[np.float32]


def read_linear(path: Path) -> tuple[Floats, Floats]:
    """Return the weights, float32 [classes, 784], and the bias, [classes]; raises ArtifactError."""
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        weights, bias = (np.array(values[name], np.float32) for name in ("weights", "bias"))
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: no linear reader ({error}); write it again") from error
    if weights.shape != (len(bias), 784):
        raise ArtifactError(f"{path}: weights are {list(weights.shape)}, not [classes, 784]; write it again")
    return weights, bias


class LinearFormat(FileFormat):
    """Format `linear`."""

    name = "linear"  # type: ignore[assignment]  # a format of this package
    title = "linear reader"
    runtime = "numpy"
    opaque = "has one layer and no graph"

    def tensors(self, path: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Return the image as the input and the logits as the output; the batch may have any size."""
        classes = len(read_linear(path)[1])
        return (TensorSpec("image", (-1, 1, 28, 28), "float32"),), (TensorSpec("logits", (-1, classes), "float32"),)

    def inspect(self, path: Path) -> Inspection:
        """Return the contents of a file."""
        stored = zip(("weights", "bias"), read_linear(path), strict=True)
        tensors = [StoredTensor(name, "float32", array.shape, array.nbytes) for name, array in stored]
        parameters = sum(tensor.bytes // 4 for tensor in tensors)
        return Inspection.of(path, self.name, tensors, parameters=parameters, macs=tensors[0].bytes // 4)
