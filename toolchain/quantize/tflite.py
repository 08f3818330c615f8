"""Quantize a float TFLite artifact with litert-quantizer."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from targets.artifact import Artifact
from targets.errors import translated
from targets.litert.cpu import refuse_huge
from toolchain.core.converter_log import output_to_log
from toolchain.core.errors import StageError
from toolchain.formats.graph import chosen
from toolchain.formats.tflite.layers import WEIGHTED, operator_kinds, parsed, tflite_graph
from toolchain.formats.tflite.slim import slim_tflite
from toolchain.formats.tflite.uint8_input import absorb
from toolchain.formats.uint8_input import PixelInput
from toolchain.quantize.bias_overflow import tflite_with_room
from toolchain.quantize.ranges import Ranges
from toolchain.quantize.refusals import other_schemes
from toolchain.quantize.step import Quantize
from toolchain.quantize.unsuited_tflite import unsuited

if TYPE_CHECKING:
    from litert_quantizer.quantizer import Quantizer


FOUR_BIT_KERNELS = ("CONV_2D", "FULLY_CONNECTED")
"""Operators that LiteRT has 4-bit kernels for."""
HUGE = 1e30
"""Ranges beyond this give a scale with which LiteRT ends the whole program."""
ONE_SCALE = "BATCH_MATMUL"
"""Its kernels use only the first scale of a constant, even where the file has one for each channel."""


def quantized_tflite(
    artifact: Artifact,
    step: Quantize,
    ranges: Ranges | None,
    log: Path | None,
    *,
    saturates: bool,  # noqa: ARG001 (of every format; LiteRT's kernels never do)
) -> bytes:
    """Return the bytes of the quantized file, whose input and output are float unless the step asks for `integer_io`.

    Schemes are litert-quantizer's dynamic_wi[8|4]_afp32, static_wi8_ai[8|16], static_wi4_ai8,
    weight_only_wi[8|4]_afp32, and float casting. Other layers than `FOUR_BIT_KERNELS` keep 8 bits. Raises StageError
    when the file is quantized already, litert-quantizer cannot quantize it, or it has no weights.
    """
    name = artifact.path.name

    def failed(reason: str) -> StageError:
        # The reason names internal tensors, so it goes to the log; the user gets advice.
        sys.stderr.write(f"{reason}\n")
        return StageError(
            f"{name}: litert-quantizer cannot make {step.scheme} of it; {other_schemes(step)}; the reason is in "
            f"{log_file}"
        )

    with output_to_log(log) as log_file, translated(failed):
        refuse_quantized(artifact)
        return bytes(slim_tflite(tflite_content(artifact, artifact.path.read_bytes(), step, ranges)))


def tflite_content(artifact: Artifact, source: bytes, step: Quantize, ranges: Ranges | None) -> bytes:
    """Quantize `source`, the artifact's file or a changed copy of it; tensors keep their names.

    Raises the errors of litert-quantizer, and StageError where there is nothing to quantize.
    """
    pixels = PixelInput.of(artifact.preprocess) if step.integer_io else None
    source = quantizable(absorb(source, pixels) if pixels else source)
    model = parsed(source)
    kinds = operator_kinds(model)
    if not any(kinds[node.opcodeIndex] in WEIGHTED for graph in model.subgraphs for node in graph.operators):
        raise StageError(
            f"{artifact.path.name} has no layer with weights to quantize ({', '.join(WEIGHTED)}); it stays as it is"
        )
    quantizer = _quantizer(source, step, rounded=ranges is not None and ranges.learned)
    keep_float(quantizer, model, step, artifact.path.name)
    statistics = _statistics(source, ranges, step, artifact.path.name) if ranges else None
    if statistics and pixels:
        statistics[_input_tensor(source)] = pixel_range(pixels)
    content = bytes(quantizer.quantize(statistics, enable_progress_report=False).quantized_model)
    return tflite_with_room(content, source) if ranges else content


def _quantizer(source: bytes, step: Quantize, *, rounded: bool) -> Quantizer:
    from litert_quantizer.qtyping import TFLOperationName
    from litert_quantizer.quantizer import Quantizer

    quantizer = Quantizer(source)
    _add_config(quantizer, step, TFLOperationName.ALL_SUPPORTED, max(step.weight_bits, 8), rounded=rounded)
    if step.weight_bits == 4:
        for name in FOUR_BIT_KERNELS:
            _add_config(quantizer, step, TFLOperationName[name], 4, rounded=rounded)
    if step.calibrated:
        whole_tensor = step.model_copy(update={"per_channel": False})
        _add_config(quantizer, whole_tensor, TFLOperationName[ONE_SCALE], 8, rounded=rounded)
        _set_inputs_and_outputs(quantizer, integer=step.integer_io)
    return quantizer


def _add_config(quantizer: Quantizer, step: Quantize, operation: Any, bits: int, *, rounded: bool) -> None:
    """Add the step's configuration for one operation. rounded: training rounded the weights already."""
    from litert_quantizer.algorithm_manager import AlgorithmName
    from litert_quantizer.qtyping import QuantGranularity

    granularity = QuantGranularity.CHANNELWISE if step.per_channel else QuantGranularity.TENSORWISE
    # 4-bit weights get the least squared error, as in `toolchain.quantize.weights`.
    rounding = AlgorithmName.OCTAV if bits == 4 and not rounded else AlgorithmName.MIN_MAX_UNIFORM_QUANT
    scope = {"regex": ".*", "operation_name": operation, "algorithm_key": rounding}
    if step.calibrated:
        wide = 16 if step.row.activations == "int16" else 8
        quantizer.add_static_config(
            **scope, activation_num_bits=wide, weight_num_bits=bits, weight_granularity=granularity
        )
    elif step.row.activations == "dynamic":
        quantizer.add_dynamic_config(**scope, num_bits=bits, granularity=granularity)
    elif not step.row.scaled:
        quantizer.add_weight_only_config(**scope | {"algorithm_key": AlgorithmName.FLOAT_CASTING}, num_bits=bits)
    else:
        quantizer.add_weight_only_config(**scope, num_bits=bits, granularity=granularity)


def _set_inputs_and_outputs(quantizer: Quantizer, *, integer: bool) -> None:
    """Make inputs and outputs float, or the input uint8 (a QUANTIZE converts it) and the output integers."""
    from litert_quantizer import qtyping

    names = qtyping.TFLOperationName
    if not integer:
        for edge in (names.INPUT, names.OUTPUT):
            quantizer.update_quantization_recipe(".*", edge, algorithm_key="no_quantize")
        return
    config = qtyping.OpQuantizationConfig(
        activation_tensor_config=qtyping.TensorQuantizationConfig(
            num_bits=8, symmetric=False, dtype=qtyping.TensorDataType.UINT
        ),
        weight_tensor_config=qtyping.TensorQuantizationConfig(
            num_bits=8, symmetric=True, granularity=qtyping.QuantGranularity.CHANNELWISE
        ),
        compute_precision=qtyping.ComputePrecision.INTEGER,
    )
    quantizer.update_quantization_recipe(".*", names.INPUT, config)


def _statistics(content: bytes, ranges: Ranges, step: Quantize, file: str) -> dict[str, Any]:
    """Return the ranges as litert-quantizer takes them, arrays of the tensor's rank; raises StageError beyond HUGE."""
    from ai_edge_litert.interpreter import Interpreter

    for name, ends in ranges.bounds.items():
        if (end := max(ends, key=abs)) and abs(end) > HUGE:
            raise StageError(
                f"{file}: tensor {name} holds {end:.1e}, so integers over its range would round its ordinary values to "
                f"0; {other_schemes(step)}"
            )

    ranks = {tensor["name"]: len(tensor["shape"]) for tensor in Interpreter(model_content=content).get_tensor_details()}
    return {
        name: {key: np.full((1,) * ranks[name], end, np.float32) for key, end in zip(("min", "max"), ends, strict=True)}
        for name, ends in ranges.bounds.items()
    }


def pixel_range(pixels: PixelInput) -> dict[str, NDArray[np.float32]]:
    """Return the range of the input for which litert-quantizer computes the pixels' scale and zero point."""
    ends = (np.array([0, 255], np.float32) - pixels.zero_point) * np.float32(pixels.scale)
    return {"min": ends[:1].reshape(1, 1, 1, 1), "max": ends[1:].reshape(1, 1, 1, 1)}


def _input_tensor(source: bytes) -> str:
    from ai_edge_litert.interpreter import Interpreter

    name: str = Interpreter(model_content=source).get_input_details()[0]["name"]
    return name


def refuse_quantized(artifact: Artifact) -> None:
    """Raise StageError on a file that is quantized already."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(artifact.path))
    refuse_huge(interpreter, artifact.path)
    if any(tensor["quantization_parameters"]["scales"].size for tensor in interpreter.get_tensor_details()):
        raise StageError(f"{artifact.path.name} is quantized already; give the float file it was made from")


BIAS = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3}
"""Operator -> index of the input that holds its bias."""


def quantizable(content: bytes) -> bytes:
    """Return an equivalent file whose biases are vectors and whose tensor names are unique across subgraphs.

    litert-quantizer gives a bias a scale for each channel along its first axis. That is the wrong axis of
    [1, 1, 1, channels], the shape that the converter gives a bias multiplied by a layer scale.
    """
    from ai_edge_litert import schema_py_generated as schema

    from toolchain.formats.tflite.slim import packed, unpacked

    model = unpacked(content)
    bias_inputs = {getattr(schema.BuiltinOperator, kind): index for kind, index in BIAS.items()}
    changed = False
    for graph in model.subgraphs:
        for bias in _biases(model, graph, bias_inputs):
            if bias.shape is not None and len(bias.shape) > 1 and bias.shape[-1] == np.prod(bias.shape):
                bias.shape = bias.shape[-1:]
                changed = True
    used_names: set[bytes] = set()
    for number, graph in enumerate(model.subgraphs):
        for tensor in graph.tensors:
            if number and tensor.name in used_names:
                tensor.name += f";{number}".encode()
                changed = True
        used_names |= {tensor.name for tensor in graph.tensors}
    if not changed:
        return content
    return packed(model, len(content))


def _biases(model: Any, graph: Any, bias_inputs: dict[int, int]) -> Iterator[Any]:
    for node in graph.operators:
        index = bias_inputs.get(model.operatorCodes[node.opcodeIndex].builtinCode)
        if index is not None and index < len(node.inputs) and node.inputs[index] >= 0:
            yield graph.tensors[node.inputs[index]]


def keep_float(quantizer: Quantizer, model: Any, step: Quantize, file: str) -> None:
    """Exclude from quantization the layers that the step keeps, and operators that must stay in float (`unsuited`).

    All operators of the other subgraphs, the bodies of loops and reductions, stay in float too. Raises UsageProblem as
    `chosen` does.
    """
    from litert_quantizer.algorithm_manager import AlgorithmName
    from litert_quantizer.qtyping import TFLOperationName

    main, *bodies = model.subgraphs
    excluded = [(body, node.outputs) for body in bodies for node in body.operators]
    # The quantizer treats inputs and outputs as operators too.
    excluded += [(body, tensors) for body in bodies for tensors in (body.inputs, body.outputs)]
    if step.keep:
        layers = chosen(tflite_graph(model), step.keep, file)
        excluded += [(main, main.operators[layer.node].outputs) for layer in layers]
    if step.calibrated:
        excluded += [(main, node.outputs) for node in unsuited(model, wide=step.row.activations == "int16")]
    for graph, tensors in excluded:
        # An operator's scope is the names of its outputs, each followed by a semicolon.
        scope = "".join(f"{graph.tensors[index].name.decode()};" for index in tensors)
        quantizer.update_quantization_recipe(
            f"^{re.escape(scope)}$", TFLOperationName.ALL_SUPPORTED, algorithm_key=AlgorithmName.NO_QUANTIZE
        )
