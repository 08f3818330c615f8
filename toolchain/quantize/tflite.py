"""Float TFLite artifact to an int8 one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from targets.artifact import Artifact
from toolchain.errors import StageError
from toolchain.export.slim_tflite import slim_tflite
from toolchain.noise import noise_to
from toolchain.quantize.ranges import Ranges
from toolchain.steps import Quantize

if TYPE_CHECKING:
    from ai_edge_quantizer.quantizer import Quantizer


def quantized_tflite(artifact: Artifact, step: Quantize, ranges: Ranges | None, log: Path | None = None) -> bytes:
    """Return the bytes of the quantized file.

    `dynamic-int8` is ai-edge-quantizer's dynamic_wi8_afp32, `static-int8` its static_wi8_ai8, `static-int8-act16` its
    static_wi8_ai16, each per channel; input and output stay float unless the step asks for `integer_io`.
    Raises StageError when the file is quantized already or ai-edge-quantizer cannot quantize it.
    """
    try:
        with noise_to(log) as noise:
            refuse_quantized(artifact)
            content = tflite_content(artifact.path.read_bytes(), step, ranges)
    except (RuntimeError, ValueError, KeyError) as error:
        raise StageError(
            f"{artifact.path.name}: ai-edge-quantizer cannot quantize it ({error}); the whole story is in {noise}"
        ) from error
    return slim_tflite(content)


def tflite_content(content: bytes, step: Quantize, ranges: Ranges | None) -> bytes:
    """Return the quantized file of a float one, with its tensors' names; raises what ai-edge-quantizer raises."""
    statistics = _statistics(content, ranges) if ranges else None
    return bytes(_quantizer(content, step).quantize(statistics, enable_progress_report=False).quantized_model)


def _quantizer(content: bytes, step: Quantize) -> Quantizer:
    from ai_edge_quantizer import qtyping, recipe
    from ai_edge_quantizer.quantizer import Quantizer

    shipped = {
        "dynamic-int8": recipe.dynamic_wi8_afp32,
        "static-int8": recipe.static_wi8_ai8,
        "static-int8-act16": recipe.static_wi8_ai16,
    }
    quantizer = Quantizer(content)
    quantizer.load_quantization_recipe(shipped[step.scheme]())
    if step.calibrated and not step.integer_io:
        for edge in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
            quantizer.update_quantization_recipe(".*", edge, algorithm_key="no_quantize")
    return quantizer


def _statistics(content: bytes, ranges: Ranges) -> dict[str, Any]:
    """Return the ranges as ai-edge-quantizer takes them: arrays of each tensor's rank."""
    from ai_edge_litert.interpreter import Interpreter

    ranks = {tensor["name"]: len(tensor["shape"]) for tensor in Interpreter(model_content=content).get_tensor_details()}
    return {
        name: {key: np.full((1,) * ranks[name], end, np.float32) for key, end in zip(("min", "max"), ends, strict=True)}
        for name, ends in ranges.bounds.items()
    }


def refuse_quantized(artifact: Artifact) -> None:
    """Raise StageError on a file that is quantized already."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(artifact.path))
    if any(tensor["quantization_parameters"]["scales"].size for tensor in interpreter.get_tensor_details()):
        raise StageError(f"{artifact.path.name} is quantized already; give the float file it was made from")
