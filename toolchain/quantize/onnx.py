"""Quantize a float ONNX artifact with onnxruntime's tools; `FloatOnnx` opens one for calibration."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from targets.artifact import Artifact
from targets.errors import translated
from targets.onnxruntime.onnx_file import without_weights
from toolchain.checkpoint.onnx_graph import open_session
from toolchain.checkpoint.onnx_normal import refuse_not_finite, refuse_quantized
from toolchain.core.converter_log import output_to_log
from toolchain.core.errors import StageError
from toolchain.formats.graph import Values
from toolchain.formats.onnx.edit import (
    Edit,
    add_constant,
    constant,
    describe_as,
    insert_first,
    numbers,
    pack_int4,
    run,
    set_constant,
    to_proto,
    values,
)
from toolchain.formats.onnx.edit import node as new_node
from toolchain.formats.onnx.estimators import refuse_estimator
from toolchain.formats.onnx.file import read, read_onnx, rewrite, slim_onnx, write_model
from toolchain.formats.onnx.layers import onnx_activations, onnx_graph
from toolchain.formats.uint8_input import PixelInput, absorb_onnx, integer_io
from toolchain.quantize.calibrate import BiasedLayer, FloatFile
from toolchain.quantize.onnx_layers import (
    KINDS,
    is_float_constant,
    keep_apart,
    masked_tensors,
    name_kept_layers,
    name_masked,
    name_of,
    producer,
    weighted,
)
from toolchain.quantize.onnx_weights import dynamic_onnx, expand_at_load, four_bits, widen_scales
from toolchain.quantize.ranges import Ranges
from toolchain.quantize.step import Quantize

if TYPE_CHECKING:
    import onnx_ir as ir

VIEWS = {"Flatten", "Identity", "MaxPool", "Pad", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
"""Operators whose output has only values of their input, and zero."""
_BIASED = ("Conv", "ConvTranspose", "Gemm", "InstanceNormalization", "LayerNormalization")
"""Operators whose third input onnxruntime takes for a bias."""


def static(artifact: Artifact, step: Quantize, ranges: Ranges | None, log: Path | None) -> bytes:
    """Return a QDQ file: symmetric weights, activations in `ranges`.

    Logits stay float unless the step has `integer_io`. Weights of 4 bits run on the kernels of 8
    (`toolchain.formats.onnx.edit`). Raises StageError as `_quantized` does.
    """
    assert ranges, "a calibrated scheme has ranges"
    return _quantized(artifact, log, lambda prepared: static_onnx(prepared, artifact, step, ranges))


def dynamic(artifact: Artifact, step: Quantize, _ranges: Ranges | None, log: Path | None) -> bytes:
    """Return a file whose MatMul and Gemm quantize their input at run time; convolutions are as in `weight_only`.

    ConvInteger is several times slower than a float Conv. Errors as in `static`.
    """
    in_integers = partial(dynamic_onnx, per_channel=step.per_channel, largest_level=step.largest_level)
    return _expanded(artifact, step, log, in_integers)


def weight_only(artifact: Artifact, step: Quantize, _ranges: Ranges | None, log: Path | None) -> bytes:
    """Return a file whose weights are expanded to float when it is loaded; errors as in `static`."""
    return _expanded(artifact, step, log)


def _expanded(artifact: Artifact, step: Quantize, log: Path | None, *edits: Callable[..., bool]) -> bytes:
    """Return a file after `edits`, which take `keep`, in which all other weights are expanded when it is loaded."""
    all_edits: list[Callable[..., bool]] = [
        *edits,
        partial(expand_at_load, bits=step.weight_bits, per_channel=step.per_channel),
    ]

    def convert(prepared: Path) -> ir.Model:
        kept_layers = name_kept_layers(prepared, step.keep, artifact.path.name)
        return run(read(prepared), *(partial(edit, keep=kept_layers) for edit in all_edits))

    return _quantized(artifact, log, convert)


def _quantized(artifact: Artifact, log: Path | None, make: Callable[[Path], ir.Model]) -> bytes:
    """Prepare a float file (`prepare`), let `make` quantize it, and return the bytes, which onnx.checker has accepted.

    Raises StageError when onnxruntime cannot quantize its graph or the graph has no weights, CheckpointError when the
    file is quantized already.
    """
    import onnx
    import onnx_ir as ir

    name = artifact.path.name
    with (
        tempfile.TemporaryDirectory() as folder,
        output_to_log(log) as log_file,
        translated(
            lambda why: StageError(f"{name}: onnxruntime cannot quantize it ({why}); details are in {log_file}")
        ),
    ):
        proto = read_onnx(artifact.path)
        refuse_quantized(proto, artifact.path)
        refuse_not_finite(proto, artifact.path)
        refuse_estimator(proto, name)
        del proto
        prepared = Path(folder) / "prepared.onnx"
        prepare(artifact.path, prepared)
        if not weighted(ir.from_proto(without_weights(prepared))):
            raise StageError(f"{name} has no layer with weights to quantize ({', '.join(KINDS)}); it stays as it is")
        model = slim_onnx(make(prepared))
        onnx.checker.check_model(model, full_check=True)
        content: bytes = model.SerializeToString(deterministic=True)
        return content


def prepare(source: Path, prepared: Path) -> None:
    """Write the file with batch norms folded and shapes inferred, as quantization needs it.

    quant_pre_process could do both, but would hold the weights four times, and it needs sympy for symbolic shapes.
    """
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    quant_pre_process(source, prepared, skip_optimization=True, skip_onnx_shape=True, skip_symbolic_shape=True)
    optimized = prepared.with_name("optimized.onnx")
    open_session(prepared, optimized)
    onnx.shape_inference.infer_shapes_path(optimized, prepared)
    rewrite(prepared, separate_biases)


def separate_biases(model: ir.Model) -> bool:
    """Give each layer its own bias where several share one, as the runs of a repeated layer do.

    onnxruntime would copy a shared bias too, but under a numbered name that another value may have already.
    """
    names = {value.name for value in values(model.graph)}
    used: set[ir.Value] = set()
    changed = False
    for node in model.graph:
        bias = node.inputs[2] if node.op_type in _BIASED and len(node.inputs) > 2 else None
        if bias is None or not bias.is_initializer():
            continue
        if bias in used:
            name = next(name for number in count(2) if (name := f"{bias.name}_{number}") not in names)
            names.add(name)
            node.replace_input_with(2, add_constant(model.graph, name, numbers(bias)))
            changed = True
        used.add(bias)
    return changed


def static_onnx(prepared: Path, artifact: Artifact, step: Quantize, ranges: Ranges) -> ir.Model:
    """Return the QDQ graph of a prepared file, which it may change; tensors keep their names.

    Raises what onnxruntime raises.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import TensorsData, save_tensors_data

    kept_layers = name_kept_layers(prepared, step.keep, artifact.path.name)
    masks = name_masked(prepared)
    pixels = PixelInput.of(artifact.preprocess) if step.integer_io else None
    if pixels:
        rewrite(prepared, partial(absorb_onnx, pixels=pixels))
    # onnxruntime takes ranges of others only from a calibration cache, as if they were those of its min-max.
    cache, quantized = prepared.with_name("ranges.json"), prepared.with_name("quantized.onnx")
    bounds = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.bounds.items()}
    save_tensors_data(TensorsData(CalibrationMethod.MinMax, bounds), cache)
    quantize_static(
        prepared,
        quantized,
        quant_format=QuantFormat.QDQ,
        per_channel=step.per_channel,
        activation_type=QuantType.QInt8 if step.activations == "int8" else QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        reduce_range=step.reduced,
        nodes_to_exclude=[*kept_layers.values(), *masks],
        extra_options=_extra(artifact, pixels),
        calibration_cache_path=cache,
    )
    source = read(prepared)
    weight_edits: list[Edit] = [partial(widen_scales, source=source)]
    if step.weight_bits == 4:
        weight_edits = [partial(four_bits, source=source), *weight_edits, pack_int4]
    return run(
        read(quantized),
        partial(keep_apart, kept_layers=kept_layers),
        *weight_edits,
        partial(_expand_recurrent, per_channel=step.per_channel),
        integer_io if pixels else float_logits,
    )


def _extra(artifact: Artifact, pixels: PixelInput | None) -> dict[str, Any]:
    """Return the `extra_options` of quantize_static.

    Biases stay float: onnxruntime makes the same integers of them when a session starts, and the file needs no scales
    and zero points for them.
    """
    from onnxruntime.quantization import QuantType

    options: dict[str, Any] = {"QuantizeBias": False}
    if pixels:
        scale, zero = np.array(pixels.scale, np.float32), np.array(pixels.zero_point, np.uint8)
        source = {"quant_type": QuantType.QUInt8, "scale": scale, "zero_point": zero}
        options["TensorQuantOverrides"] = {artifact.inputs[0].name: [source]}
    return options


def _expand_recurrent(model: ir.Model, *, per_channel: bool) -> bool:
    """Expand at load the weights that static quantization leaves in float: those of recurrent layers."""
    return expand_at_load(model, per_channel=per_channel, keep=weighted(model))


def float_logits(model: ir.Model) -> bool:
    """Remove the QuantizeLinear and DequantizeLinear between a Gemm or MatMul and the output.

    That is one node less to run, and the logits are not clipped to the calibrated range.
    """
    graph = model.graph
    changed = False
    for position, output in enumerate(graph.outputs):
        dequantize = producer(output, "DequantizeLinear")
        quantize = producer(dequantize.inputs[0], "QuantizeLinear") if dequantize else None
        layer = producer(quantize.inputs[0], "Gemm", "MatMul") if quantize else None
        if dequantize and quantize and layer:
            logits = layer.outputs[0]
            describe_as(logits, output)
            graph.outputs[position] = logits
            graph.remove([dequantize, quantize], safe=True)
            _integer_bias(graph, layer)
            changed = True
    return changed


def _integer_bias(graph: ir.Graph, layer: ir.Node) -> None:
    """Store the layer's bias as int32 in units of its products.

    The integer kernel takes no other bias, and onnxruntime quantizes a float one only where the output is quantized.
    """
    bias = constant(layer.inputs[2]) if len(layer.inputs) > 2 else None
    scales = [reader.inputs[1] for value in layer.inputs[:2] if (reader := producer(value, "DequantizeLinear"))]
    if bias is None or len(scales) < 2:
        return
    factors = [numbers(scale) for scale in scales]
    scale = np.float32(factors[0]) * factors[1].astype(np.float32)
    stored = add_constant(graph, "logits_bias_quantized", np.rint(bias / scale).astype(np.int32))
    zero = add_constant(graph, "logits_bias_zero_point", np.zeros_like(scale, np.int32))
    # A product of constants, folded when a session starts, takes fewer bytes than its result.
    product = new_node("Mul", scales, ["logits_bias_scale"])
    bias_as_float = new_node("DequantizeLinear", [stored, product.outputs[0], zero], ["logits_bias_float"], axis=0)
    insert_first(graph, [product, bias_as_float])
    layer.replace_input_with(2, bias_as_float.outputs[0])


class FloatOnnx(FloatFile):
    """An open float ONNX file, as `prepare` leaves it."""

    def __init__(self, artifact: Artifact, folder: Path) -> None:
        """Prepare the artifact's graph in a file of the folder; raises CheckpointError when it is quantized already."""
        import onnx_ir as ir

        self.artifact = artifact
        refuse_quantized(without_weights(artifact.path), artifact.path)
        refuse_estimator(without_weights(artifact.path), artifact.path.name)
        self._path = folder / "prepared.onnx"
        prepare(artifact.path, self._path)
        self.model = ir.from_proto(without_weights(self._path))
        self.layers = {layer: node for node in self.model.graph if (layer := _biased_layer(node))}

    def tensors(self) -> list[str]:
        """Return the float tensors that are computed."""
        import onnx_ir as ir

        graph = self.model.graph
        computed = [graph.inputs[0], *(value for node in graph for value in node.outputs)]
        return [name_of(value) for value in computed if value.dtype == ir.DataType.FLOAT]

    def origins(self) -> dict[str, str]:
        """Return for each tensor its layer, where it has one, and the operator that computes it."""
        graph = onnx_graph(without_weights(self._path))
        layers = {tensor: layer.name for layer in graph.layers for tensor in layer.chain}
        return {name: f"{layers.get(name, '')} {node.kind}".strip() for name, node in graph.makers.items()}

    def inputs(self) -> list[tuple[str, ...]]:
        """Return the inputs of the layers with weights, with the tensors of which each is a view."""

        def views(value: ir.Value | None) -> Iterator[str]:
            yield name_of(value)
            if node := producer(value, *VIEWS):
                yield from views(node.inputs[0])

        weights = weighted(self.model)
        nodes = [node for node in self.model.graph if len(node.inputs) > 1 and name_of(node.inputs[1]) in weights]
        return [tuple(views(node.inputs[0])) for node in nodes]

    def masked(self) -> set[str]:
        """Return the tensors between masks and the softmax or maximum that ignores them."""
        return masked_tensors(self._path)

    def run(self, names: Sequence[str], pixels: NDArray[np.float32]) -> Iterator[Values]:
        """Run the float graph."""
        return onnx_activations(self._path, names, pixels)

    def quantized_values(
        self, step: Quantize, ranges: Ranges, names: Sequence[str], pixels: NDArray[np.float32]
    ) -> Iterator[Values]:
        """Run the quantized graph; the values of a quantized tensor are the output of its DequantizeLinear."""
        with tempfile.TemporaryDirectory() as folder:
            prepared, quantized = (Path(folder) / name for name in ("prepared.onnx", "quantized.onnx"))
            shutil.copyfile(self._path, prepared)
            model = static_onnx(prepared, self.artifact, step, ranges)
            write_model(to_proto(model), quantized)
            computed = {name_of(value) for node in model.graph for value in node.outputs}
            dequantized = {name: f"{name}_DequantizeLinear_Output" for name in names}
            dequantized = {name: output if output in computed else name for name, output in dequantized.items()}
            for values in onnx_activations(quantized, list(dequantized.values()), pixels):
                yield {name: values[output] for name, output in dequantized.items()}

    def add_to_bias(self, layer: BiasedLayer, change: NDArray[np.float32]) -> None:
        """Add to the layer's bias; a convolution without a bias gets one."""
        output = name_of(self.layers[layer].outputs[0])

        def add(model: ir.Model) -> bool:
            (node,) = (node for node in model.graph if output in map(name_of, node.outputs))
            if len(node.inputs) < 3:
                node.resize_inputs(3)
                node.replace_input_with(2, add_constant(model.graph, f"{output}_bias", change))
            elif bias := node.inputs[2]:
                set_constant(bias, numbers(bias) + change)
            return True

        rewrite(self._path, add)

    def content(self) -> bytes:
        """Return the prepared file."""
        return self._path.read_bytes()


def _biased_layer(node: ir.Node) -> BiasedLayer | None:
    """Return the node as a layer, None unless it has constant weights and a bias that no other node reads."""
    if node.op_type not in {"Conv", "ConvTranspose", "Gemm"} or not is_float_constant(node.inputs[1]):
        return None
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and (not bias.is_initializer() or len(bias.uses()) > 1 or len(bias.shape or ()) != 1):
        return None
    if bias is None and node.op_type == "Gemm":
        return None
    readers = node.outputs[0].consumers()
    kind = readers[0].op_type if len(readers) == 1 else ""
    if kind == "Relu":
        return BiasedLayer(name_of(readers[0].outputs[0]), 1, 0.0)
    if kind == "Clip":
        ends = [constant(end) for end in readers[0].inputs[1:]]
        limits = (none if end is None else float(end) for end, none in zip(ends, (-np.inf, np.inf), strict=False))
        return BiasedLayer(name_of(readers[0].outputs[0]), 1, *limits)
    return BiasedLayer(name_of(node.outputs[0]), 1)
