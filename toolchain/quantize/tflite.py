"""Quantize a float TFLite artifact with litert-quantizer; `FloatTflite` opens one for calibration."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from targets.artifact import Artifact
from targets.errors import translated
from targets.litert.cpu import refuse_huge
from toolchain.core.converter_log import output_to_log
from toolchain.core.errors import StageError
from toolchain.formats.graph import Values, layers_to_keep
from toolchain.formats.tflite.file import mapped, packed, parsed, slim_tflite
from toolchain.formats.tflite.layers import WEIGHTED, tflite_activations, tflite_graph
from toolchain.formats.uint8_input import PixelInput, absorb_tflite
from toolchain.quantize.calibrate import NO_VALUE, BiasedLayer, FloatFile
from toolchain.quantize.ranges import Ranges
from toolchain.quantize.step import Quantize
from toolchain.quantize.tflite_graph import masked, operators, quantizable, store, unsuited, widen_scales

if TYPE_CHECKING:
    from litert_quantizer.quantizer import Quantizer

LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
"""Operators with a bias that calibration can correct."""
VIEWS = ("EXPAND_DIMS", "MAX_POOL_2D", "PAD", "RESHAPE", "SQUEEZE", "TRANSPOSE")
"""Operators whose output has only values of their input, and zero."""
FOUR_BIT_KERNELS = ("CONV_2D", "FULLY_CONNECTED")
"""Operators that LiteRT has 4-bit kernels for."""
HUGE = 1e30
"""Ranges beyond this give a scale with which LiteRT aborts the whole process."""
ONE_SCALE = "BATCH_MATMUL"
"""Its kernels use only the first scale of a constant, even where the file has one for each channel."""


def quantized_tflite(artifact: Artifact, step: Quantize, ranges: Ranges | None, log: Path | None) -> bytes:
    """Return the bytes of the quantized file, whose input and output are float unless the step has `integer_io`.

    Schemes are litert-quantizer's dynamic_wi[8|4]_afp32, static_wi8_ai[8|16], static_wi4_ai8,
    weight_only_wi[8|4]_afp32, and float casting. Other layers than `FOUR_BIT_KERNELS` keep 8 bits. Raises StageError
    when the file is quantized already, litert-quantizer cannot quantize it, or it has no weights.
    """
    name = artifact.path.name

    def failed(reason: str) -> StageError:
        # The reason names internal tensors, so it goes to the log; the user gets advice.
        sys.stderr.write(f"{reason}\n")
        return StageError(
            f"{name}: litert-quantizer cannot make {step.scheme} of it; {step.other_schemes()}; the reason is in "
            f"{log_file}"
        )

    with output_to_log(log) as log_file, translated(failed):
        refuse_quantized(artifact)
        return bytes(slim_tflite(tflite_content(artifact, artifact.path.read_bytes(), step, ranges)))


def tflite_content(artifact: Artifact, source: bytes, step: Quantize, ranges: Ranges | None) -> bytes:
    """Quantize `source`, the artifact's file or a changed copy of it; tensors keep their names.

    Raises the errors of litert-quantizer, and StageError where there is nothing to quantize.
    """
    file = artifact.path.name
    pixels = PixelInput.of(artifact.preprocess) if step.integer_io else None
    source = quantizable(absorb_tflite(source, pixels) if pixels else source)
    model = parsed(source)
    if not any(kind in WEIGHTED for graph in model.subgraphs for kind, _ in operators(model, graph)):
        raise StageError(f"{file} has no layer with weights to quantize ({', '.join(WEIGHTED)}); it stays as it is")
    quantizer = _quantizer(source, step, rounded=ranges is not None and ranges.learned)
    keep_float(quantizer, model, step, file)
    statistics = _statistics(model.subgraphs[0], ranges, step, pixels, file) if ranges else None
    content = bytes(quantizer.quantize(statistics, enable_progress_report=False).quantized_model)
    return widen_scales(content, source) if ranges else content


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


def _statistics(graph: Any, ranges: Ranges, step: Quantize, pixels: PixelInput | None, file: str) -> dict[str, Any]:
    """Return the ranges as litert-quantizer takes them: arrays of the tensor's rank, in place of numbers.

    pixels: what the input takes in place of float pixels. Raises StageError for a range beyond HUGE.
    """
    for name, ends in ranges.bounds.items():
        if (end := max(ends, key=abs)) and abs(end) > HUGE:
            raise StageError(
                f"{file}: tensor {name} holds {end:.1e}, so integers over its range would round its ordinary values to "
                f"0; {step.other_schemes()}"
            )
    bounds: dict[str, Any] = dict(ranges.bounds)
    if pixels:
        # With this range litert-quantizer computes the pixels' scale and zero point.
        darkest_and_lightest = (np.array([0, 255], np.float32) - pixels.zero_point) * np.float32(pixels.scale)
        bounds[graph.tensors[graph.inputs[0]].name.decode()] = darkest_and_lightest
    ranks = {tensor.name.decode(): 0 if tensor.shape is None else len(tensor.shape) for tensor in graph.tensors}
    return {
        name: {key: np.full((1,) * ranks[name], end, np.float32) for key, end in zip(("min", "max"), ends, strict=True)}
        for name, ends in bounds.items()
    }


def refuse_quantized(artifact: Artifact) -> None:
    """Raise StageError on a file that is quantized already."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(artifact.path))
    refuse_huge(interpreter, artifact.path)
    if any(tensor["quantization_parameters"]["scales"].size for tensor in interpreter.get_tensor_details()):
        raise StageError(f"{artifact.path.name} is quantized already; give the float file it was made from")


def keep_float(quantizer: Quantizer, model: Any, step: Quantize, file: str) -> None:
    """Exclude from quantization the layers that the step keeps, and operators that must stay in float (`unsuited`).

    All operators of the other subgraphs, the bodies of loops and reductions, stay in float too. Raises UsageProblem as
    `layers_to_keep` does; `file` is the name for its messages.
    """
    from litert_quantizer.algorithm_manager import AlgorithmName
    from litert_quantizer.qtyping import TFLOperationName

    main, *bodies = model.subgraphs
    excluded = [(body, node.outputs) for body in bodies for node in body.operators]
    # The quantizer treats inputs and outputs as operators too.
    excluded += [(body, tensors) for body in bodies for tensors in (body.inputs, body.outputs)]
    if step.keep:
        layers = layers_to_keep(tflite_graph(model), step.keep, file)
        excluded += [(main, main.operators[layer.node].outputs) for layer in layers]
    if step.calibrated:
        excluded += [(main, node.outputs) for node in unsuited(model, wide=step.row.activations == "int16")]
    for graph, tensors in excluded:
        # An operator's scope is the names of its outputs, each followed by a semicolon.
        scope = "".join(f"{graph.tensors[index].name.decode()};" for index in tensors)
        quantizer.update_quantization_recipe(
            f"^{re.escape(scope)}$", TFLOperationName.ALL_SUPPORTED, algorithm_key=AlgorithmName.NO_QUANTIZE
        )


class FloatTflite(FloatFile):
    """An open float TFLite file, through its FlatBuffer. The names of its tensors are those of layers."""

    def __init__(self, artifact: Artifact, _folder: Path) -> None:
        """Unpack the artifact's graph; raises StageError when it is quantized already."""
        from ai_edge_litert import schema_py_generated as schema

        refuse_quantized(artifact)
        self.artifact, self._schema = artifact, schema
        self._model, self._changed = parsed(mapped(artifact.path)), False
        self._graph = self._model.subgraphs[0]
        self._operators = operators(self._model, self._graph)
        self._weighted = [node for kind, node in self._operators if kind in LAYERS]
        inputs = [index for _, node in self._operators for index in node.inputs]
        self.layers = {
            layer: node.inputs[2]
            for node in self._weighted
            if (layer := self._biased_layer(node)) and inputs.count(node.inputs[2]) == 1
        }

    def tensors(self) -> list[str]:
        """Return the float tensors that are computed."""
        outputs = (index for _, node in self._operators for index in node.outputs)
        computed = [*self._graph.inputs, *outputs]
        float32 = self._schema.TensorType.FLOAT32
        return [self._name(index) for index in computed if self._graph.tensors[index].type == float32]

    def inputs(self) -> list[tuple[str, ...]]:
        """Return the inputs of the layers with weights, with the tensors of which each is a view."""
        producers = {index: (kind, node) for kind, node in self._operators for index in node.outputs}

        def views(index: int) -> Iterator[str]:
            yield self._name(index)
            kind, node = producers.get(index, ("", None))
            if node is not None and kind in VIEWS:
                yield from views(node.inputs[0])

        return [tuple(views(node.inputs[0])) for node in self._weighted]

    def run(self, names: Sequence[str], pixels: NDArray[np.float32]) -> Iterator[Values]:
        """Run the float file."""
        return tflite_activations(self.content(), names, pixels)

    def quantized_values(
        self, step: Quantize, ranges: Ranges, names: Sequence[str], pixels: NDArray[np.float32]
    ) -> Iterator[Values]:
        """Run the quantized file, which keeps the names."""
        return tflite_activations(tflite_content(self.artifact, self.content(), step, ranges), names, pixels)

    def add_to_bias(self, layer: BiasedLayer, change: NDArray[np.float32]) -> None:
        """Add to the layer's bias, in a new buffer where other tensors share the old one."""
        tensor = self._graph.tensors[self.layers[layer]]
        buffer = self._model.buffers[tensor.buffer]
        bias = (np.frombuffer(bytes(buffer.data), "<f4") + change).astype("<f4")
        if sum(other.buffer == tensor.buffer for other in self._graph.tensors) > 1:
            store(self._model, tensor, bias)
        else:
            buffer.data = np.frombuffer(bias.tobytes(), np.uint8)
        self._changed = True

    def content(self) -> bytes:
        """Return the file, packed again if it was changed."""
        if not self._changed:
            return self.artifact.path.read_bytes()
        return packed(self._model, self.artifact.size + (1 << 20))

    def masked(self) -> set[str]:
        """Return the tensors padded with NO_VALUE before a maximum, and the masked ones before a softmax."""
        masks = {index for _, chain in masked(self._model) for index in chain}
        padded = {self._name(self._graph.operators[index].outputs[0]) for index in masks}
        for kind, node in self._operators:
            readers = [reader for reader, other in self._operators if node.outputs[0] in other.inputs]
            if kind == "PADV2" and all(reader == "MAX_POOL_2D" for reader in readers):
                value = self._model.buffers[self._graph.tensors[node.inputs[2]].buffer].data
                if value is not None and np.frombuffer(bytes(value), "<f4")[0] <= NO_VALUE:
                    padded.add(self._name(node.outputs[0]))
        return padded

    def _biased_layer(self, node: Any) -> BiasedLayer | None:
        """Return an operator of LAYERS as a layer, None unless it has a bias and an activation of known limits."""
        function = self._schema.ActivationFunctionType
        limits = {
            function.NONE: (-np.inf, np.inf),
            function.RELU: (0.0, np.inf),
            function.RELU6: (0.0, 6.0),
            function.RELU_N1_TO_1: (-1.0, 1.0),
        }
        activation = node.builtinOptions.fusedActivationFunction
        if len(node.inputs) < 3 or node.inputs[2] < 0 or activation not in limits:
            return None
        output = node.outputs[0]
        return BiasedLayer(self._name(output), len(self._graph.tensors[output].shape) - 1, *limits[activation])

    def _name(self, index: int) -> str:
        name: str = self._graph.tensors[index].name.decode()
        return name
