"""Float TFLite artifact to an int8 one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calibration.sample import CalibrationSet
from targets.artifact import Artifact
from toolchain.errors import StageError
from toolchain.export.slim_tflite import slim_tflite
from toolchain.noise import noise_to
from toolchain.steps import Quantize

if TYPE_CHECKING:
    from ai_edge_quantizer.quantizer import Quantizer

SIGNATURE = "serving_default"


def quantized_tflite(
    artifact: Artifact, step: Quantize, calibration: CalibrationSet | None, log: Path | None = None
) -> bytes:
    """Return the bytes of the quantized file.

    `dynamic-int8` is ai-edge-quantizer's dynamic_wi8_afp32, `static-int8` its static_wi8_ai8, `static-int8-act16` its
    static_wi8_ai16, each per channel; input and output stay float unless the step asks for `integer_io`.
    Raises StageError when the file is quantized already or ai-edge-quantizer cannot quantize it.
    """
    try:
        with noise_to(log) as noise:
            signature = _input_name(artifact)
            quantizer = _quantizer(artifact, step)
            ranges = _ranges(quantizer, artifact, calibration, signature) if calibration else None
            content = bytes(quantizer.quantize(ranges, enable_progress_report=False).quantized_model)
    except (RuntimeError, ValueError, KeyError) as error:
        raise StageError(
            f"{artifact.path.name}: ai-edge-quantizer cannot quantize it ({error}); the whole story is in {noise}"
        ) from error
    return slim_tflite(content)


def _quantizer(artifact: Artifact, step: Quantize) -> Quantizer:
    from ai_edge_quantizer import qtyping, recipe
    from ai_edge_quantizer.quantizer import Quantizer

    shipped = {
        "dynamic-int8": recipe.dynamic_wi8_afp32,
        "static-int8": recipe.static_wi8_ai8,
        "static-int8-act16": recipe.static_wi8_ai16,
    }
    quantizer = Quantizer(str(artifact.path))
    quantizer.load_quantization_recipe(shipped[step.scheme]())
    if step.calibrated and not step.integer_io:
        for edge in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
            quantizer.update_quantization_recipe(".*", edge, algorithm_key="no_quantize")
    return quantizer


def _ranges(quantizer: Quantizer, artifact: Artifact, calibration: CalibrationSet, signature: str) -> dict[str, Any]:
    """Return the min-max ranges of every tensor over the whole calibration set.

    The library's own `calibrate` averages the ranges of successive images, which clips the strongest activations.
    """
    from ai_edge_quantizer.calibrator import Calibrator
    from ai_edge_quantizer.utils.qsv_utils import min_max_update

    pixels = artifact.preprocess.apply(calibration.images).reshape(-1, *artifact.inputs[0].shape)

    def samples() -> Iterator[dict[str, NDArray[np.float32]]]:
        for image in pixels:
            yield {signature: image}

    calibrator = Calibrator(artifact.path.read_bytes(), num_threads=1, qsv_update_func=min_max_update)
    calibrator.calibrate({SIGNATURE: list(samples())}, quantizer._recipe_manager)
    ranges: dict[str, Any] = calibrator.get_model_qsvs()
    return ranges


def _input_name(artifact: Artifact) -> str:
    """Return the name that the signature gives the input; raises StageError on a file that is quantized already."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(artifact.path))
    if any(tensor["quantization_parameters"]["scales"].size for tensor in interpreter.get_tensor_details()):
        raise StageError(f"{artifact.path.name} is quantized already; give the float file it was made from")
    name: str = interpreter.get_signature_list()[SIGNATURE]["inputs"][0]
    return name
