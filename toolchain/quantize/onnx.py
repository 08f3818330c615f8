"""Quantize a float ONNX artifact."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from targets.artifact import Artifact
from targets.errors import translated
from targets.onnxruntime.protobuf import without_weights
from toolchain.checkpoint.onnx_checks import refuse_not_finite, refuse_quantized
from toolchain.checkpoint.onnx_run import open_session
from toolchain.core.converter_log import output_to_log
from toolchain.core.errors import StageError
from toolchain.formats.onnx.edit import (
    add_constant,
    constant,
    describe_as,
    insert_first,
    numbers,
    read,
    rewrite,
    run,
    set_constant,
    values,
)
from toolchain.formats.onnx.edit import node as new_node
from toolchain.formats.onnx.file import read_onnx
from toolchain.formats.onnx.pack_int4 import pack_int4
from toolchain.formats.onnx.slim import slim_onnx
from toolchain.formats.onnx.uint8_input import absorb, integer_borders
from toolchain.formats.uint8_input import PixelInput
from toolchain.quantize.bias_overflow import STORED, onnx_with_room
from toolchain.quantize.dynamic_onnx import dynamic_onnx
from toolchain.quantize.keep_onnx import keep_apart, name_kept_layers, name_masked
from toolchain.quantize.onnx_layers import KINDS, name_of, of_one_channel, weighted
from toolchain.quantize.ranges import Ranges
from toolchain.quantize.step import Quantize
from toolchain.quantize.weight_only import expand_at_load
from toolchain.quantize.weights import integers

if TYPE_CHECKING:
    import onnx_ir as ir


def static(artifact: Artifact, step: Quantize, ranges: Ranges | None, log: Path | None, *, saturates: bool) -> bytes:
    """Return a QDQ file: symmetric weights, activations in `ranges`.

    Logits stay float unless `integer_io` is asked for. Weights of 4 bits run on the kernels of 8
    (`formats.onnx.pack_int4`). int8 weights keep to 7 bits where the target `saturates`, unless the step says
    otherwise. Raises StageError as `_quantized` does.
    """
    assert ranges, "a calibrated scheme has ranges"
    reduce_range = step.reduced(saturates=saturates)
    return _quantized(
        artifact, log, lambda prepared: static_onnx(prepared, artifact, step, ranges, reduce_range=reduce_range)
    )


def dynamic(artifact: Artifact, step: Quantize, _ranges: Ranges | None, log: Path | None, *, saturates: bool) -> bytes:
    """Return a file whose MatMul and Gemm quantize their input at run time; convolutions are as in `weight_only`.

    `saturates` and errors as in `static`.
    """
    # ConvInteger is several times slower than a float Conv, so convolutions keep float arithmetic.
    level = 64 if step.reduced(saturates=saturates) else 127

    def convert(prepared: Path) -> ir.Model:
        kept = name_kept_layers(prepared, step.keep, artifact.path.name)
        return run(
            read(prepared),
            partial(dynamic_onnx, per_channel=step.per_channel, largest_level=level, keep=kept),
            partial(expand_at_load, bits=step.weight_bits, per_channel=step.per_channel, keep=kept),
        )

    return _quantized(artifact, log, convert)


def weight_only(
    artifact: Artifact,
    step: Quantize,
    _ranges: Ranges | None,
    log: Path | None,
    *,
    saturates: bool,  # noqa: ARG001 (of every scheme; no weight meets integers)
) -> bytes:
    """Return a file whose layers expand their weights when it is loaded; errors as in `static`."""

    def convert(prepared: Path) -> ir.Model:
        kept = name_kept_layers(prepared, step.keep, artifact.path.name)
        expand = partial(expand_at_load, bits=step.weight_bits, per_channel=step.per_channel, keep=kept)
        return run(read(prepared), expand)

    return _quantized(artifact, log, convert)


def _quantized(artifact: Artifact, log: Path | None, make: Callable[[Path], ir.Model]) -> bytes:
    """Open a float file, hand it to `make` as `prepare` leaves it, and return the bytes, which pass onnx.checker.

    Raises StageError when the file is quantized already, onnxruntime cannot quantize its graph, or it has nothing to.
    """
    import onnx
    import onnx_ir as ir

    name = artifact.path.name
    with (
        tempfile.TemporaryDirectory() as folder,
        output_to_log(log) as log_file,
        translated(
            lambda why: StageError(f"{name}: onnxruntime cannot quantize it ({why}); all of it is in {log_file}")
        ),
    ):
        proto = read_onnx(artifact.path)
        refuse_quantized(proto, artifact.path)
        refuse_not_finite(proto, artifact.path)
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

    quant_pre_process could do both, but holds the weights four times; symbolic shapes would need sympy for nothing.
    """
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    quant_pre_process(source, prepared, skip_optimization=True, skip_onnx_shape=True, skip_symbolic_shape=True)
    optimized = prepared.with_name("optimized.onnx")
    open_session(prepared, optimized)
    onnx.shape_inference.infer_shapes_path(optimized, prepared)
    rewrite(prepared, biases_apart)


def biases_apart(model: ir.Model) -> bool:
    """Give each layer its own bias where several share one, as a layer that runs several times does.

    onnxruntime would copy a shared bias too, but under a numbered name that another value may have already.
    """
    names = {value.name for value in values(model.graph)}
    used: set[ir.Value] = set()
    changed = False
    for node in model.graph:
        bias = node.inputs[2] if node.op_type in ("Conv", "ConvTranspose", "Gemm") and len(node.inputs) > 2 else None
        if bias is None or not bias.is_initializer():
            continue
        if bias in used:
            name = next(name for number in count(2) if (name := f"{bias.name}_{number}") not in names)
            names.add(name)
            node.replace_input_with(2, add_constant(model.graph, name, numbers(bias)))
            changed = True
        used.add(bias)
    return changed


def static_onnx(prepared: Path, artifact: Artifact, step: Quantize, ranges: Ranges, *, reduce_range: bool) -> ir.Model:
    """Return the QDQ graph of a prepared file, with its tensors' names; raises what onnxruntime raises."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import TensorsData, save_tensors_data

    kept = name_kept_layers(prepared, step.keep, artifact.path.name)
    masks = name_masked(prepared)
    pixels = PixelInput.of(artifact.preprocess) if step.integer_io else None
    if pixels:
        rewrite(prepared, partial(absorb, pixels=pixels))
    # onnxruntime takes ranges that it did not measure from a calibration cache alone, as if they were its min-max.
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
        reduce_range=reduce_range,
        nodes_to_exclude=[*kept.values(), *masks],
        extra_options=_extra(artifact, pixels),
        calibration_cache_path=cache,
    )
    source, four = read(prepared), step.weight_bits == 4
    return run(
        read(quantized),
        partial(keep_apart, kept=kept),
        *([partial(four_bits, source=source)] if four else []),
        partial(onnx_with_room, source=source),
        *([pack_int4] if four else []),
        partial(_expand_recurrent, per_channel=step.per_channel),
        integer_borders if pixels else float_logits,
    )


def _extra(artifact: Artifact, pixels: PixelInput | None) -> dict[str, Any]:
    """Return what quantize_static takes beyond its arguments.

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


def four_bits(model: ir.Model, source: ir.Model) -> bool:
    """Round the weights of a QDQ model to [-7, 7], anew from the float graph `source`.

    Biases must be float yet (`QuantizeBias`), since their scale is the weights'. Convolutions of one channel keep eight
    bits, as they do in TFLite: they hold few weights and are hit hardest. `toolchain.formats.onnx.pack_int4` stores the
    result in half the bytes.
    """
    stored = model.graph.initializers
    for name, layer in weighted(source).items():
        rounded_weight, floats = stored.get(name + STORED), numbers(source.graph.initializers[name])
        readers = (
            []
            if rounded_weight is None
            else [reader for reader in rounded_weight.consumers() if reader.op_type == "DequantizeLinear"]
        )
        if rounded_weight is None or not readers or of_one_channel(layer, floats.shape):
            continue
        factor = stored[name_of(readers[-1].inputs[1])]
        shape = numbers(factor).shape
        rounded, scale = integers(floats, 4, readers[-1].attributes.get_int("axis", 1) if shape else None)
        set_constant(rounded_weight, rounded)
        set_constant(factor, scale.reshape(shape))
    return True


def _expand_recurrent(model: ir.Model, *, per_channel: bool) -> bool:
    """Expand at load what stays float of a static file: the weights of recurrent layers."""
    return expand_at_load(model, per_channel=per_channel, keep=weighted(model))


def float_logits(model: ir.Model) -> bool:
    """Leave out the last QuantizeLinear and DequantizeLinear after a Gemm or MatMul.

    One node less to run, and no clipping of the logits to the calibrated range.
    """
    graph = model.graph
    changed = False
    for position, output in enumerate(graph.outputs):
        chain: list[ir.Node] = []
        value: ir.Value | None = output
        while len(chain) < 3 and value is not None and (producer := value.producer()) is not None:
            chain.append(producer)
            value = producer.inputs[0]
        kinds = [node.op_type for node in chain]
        if kinds[:2] == ["DequantizeLinear", "QuantizeLinear"] and kinds[2:] in (["Gemm"], ["MatMul"]):
            logits = chain[2].outputs[0]
            describe_as(logits, output)
            graph.outputs[position] = logits
            graph.remove(chain[:2], safe=True)
            _integer_bias(graph, chain[2])
            changed = True
    return changed


def _integer_bias(graph: ir.Graph, layer: ir.Node) -> None:
    """Store the layer's bias as int32 in units of its products.

    onnxruntime quantizes a float bias itself only where the answer is quantized too, and its kernel takes no other.
    """
    bias = constant(layer.inputs[2]) if len(layer.inputs) > 2 else None
    readers = [value.producer() if value is not None else None for value in layer.inputs[:2]]
    scales = [reader.inputs[1] for reader in readers if reader is not None and reader.op_type == "DequantizeLinear"]
    if bias is None or len(scales) < 2:
        return
    factors = [numbers(scale) for scale in scales]
    scale = np.float32(factors[0]) * factors[1].astype(np.float32)
    stored = add_constant(graph, "logits_bias_quantized", np.rint(bias / scale).astype(np.int32))
    zero = add_constant(graph, "logits_bias_zero_point", np.zeros_like(scale, np.int32))
    # A product of constants, folded when a session starts: the same bits in fewer bytes.
    product = new_node("Mul", scales, ["logits_bias_scale"])
    given = new_node("DequantizeLinear", [stored, product.outputs[0], zero], ["logits_bias_float"], axis=0)
    insert_first(graph, [product, given])
    layer.replace_input_with(2, given.outputs[0])
