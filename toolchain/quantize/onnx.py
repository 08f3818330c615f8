"""Float ONNX artifact to an int8 one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from targets.artifact import Artifact
from toolchain.checkpoint.onnx_files import refuse_not_finite, refuse_quantized
from toolchain.errors import StageError
from toolchain.export.slim_onnx import slim_onnx
from toolchain.noise import noise_to
from toolchain.quantize.ranges import Ranges
from toolchain.quantize.weight_only import expand_at_load
from toolchain.steps import Quantize

if TYPE_CHECKING:
    from onnx import ModelProto


def quantized_onnx(artifact: Artifact, step: Quantize, ranges: Ranges | None, log: Path | None = None) -> bytes:
    """Return the bytes of the quantized file, which pass onnx.checker.

    `static-int8`: QDQ, int8 weights per output channel, uint8 activations in `ranges`; logits stay float.
    `dynamic-int8`: int8 weights; MatMul and Gemm quantize their input at run time, convolutions expand their weights
    when the file is loaded. Weights that meet integers keep to 7 bits unless the step says otherwise
    (`Quantize.reduce_range`). Raises StageError when onnxruntime cannot quantize the graph.
    """
    import onnx

    if step.scheme == "static-int8-act16":
        raise StageError("static-int8-act16 has no ONNX kernels; quantize the .tflite file")
    proto = onnx.load(artifact.path)
    refuse_quantized(proto, artifact.path)
    refuse_not_finite(proto, artifact.path)
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        try:
            with noise_to(log) as noise:
                prepare(artifact.path, prepared)
                if ranges is None:
                    model = _dynamic(prepared, reduce_range=step.reduce_range)
                else:
                    model = static_onnx(prepared, step, ranges)
        except (RuntimeError, ValueError, KeyError, NotImplementedError) as error:
            raise StageError(
                f"{artifact.path.name}: onnxruntime cannot quantize it ({error}); the whole story is in {noise}"
            ) from error
    onnx.checker.check_model(slim_onnx(model), full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def prepare(source: Path, prepared: Path) -> None:
    """Fold batch norms and infer shapes, as quantization needs; symbolic shapes would pull in sympy for nothing."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    quant_pre_process(source, prepared, skip_symbolic_shape=True)


def static_onnx(prepared: Path, step: Quantize, ranges: Ranges) -> ModelProto:
    """Return the QDQ graph of a prepared file, with its tensors' names; raises what onnxruntime raises."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import TensorsData, save_tensors_data

    # A calibration cache is how onnxruntime takes ranges that it did not find itself; they pass for its min-max.
    cache, quantized = prepared.with_name("ranges.json"), prepared.with_name("quantized.onnx")
    bounds = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.bounds.items()}
    save_tensors_data(TensorsData(CalibrationMethod.MinMax, bounds), cache)
    quantize_static(
        prepared,
        quantized,
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        reduce_range=step.reduce_range,
        calibration_cache_path=cache,
    )
    return _float_logits(onnx.load(quantized))


def _float_logits(model: ModelProto) -> ModelProto:
    """Leave out the last QuantizeLinear and DequantizeLinear after a Gemm or MatMul: its kernel gives float anyway.

    One node less to run, and no clipping of the logits to the calibrated range.
    """
    graph = model.graph
    made_by = {name: node for node in graph.node for name in node.output}
    for output in graph.output:
        chain = [made_by[output.name]]
        while len(chain) < 3 and chain[-1].input[0] in made_by:
            chain.append(made_by[chain[-1].input[0]])
        kinds = [node.op_type for node in chain]
        if kinds[:2] == ["DequantizeLinear", "QuantizeLinear"] and kinds[2:] in (["Gemm"], ["MatMul"]):
            chain[2].output[0] = output.name
            graph.node.remove(chain[0])
            graph.node.remove(chain[1])
    return model


def _dynamic(prepared: Path, *, reduce_range: bool) -> ModelProto:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantized = prepared.with_name("quantized.onnx")
    # ConvInteger is several times slower than a float Conv, so convolutions keep float arithmetic.
    quantize_dynamic(
        prepared,
        quantized,
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=reduce_range,
        op_types_to_quantize=["MatMul"],
    )
    return expand_at_load(onnx.load(quantized))
