"""Float ONNX artifact to a quantized one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from targets.artifact import Artifact
from targets.errors import translated
from targets.onnxruntime.protobuf import without_weights
from toolchain.checkpoint.onnx_files import refuse_not_finite, refuse_quantized
from toolchain.checkpoint.onnx_run import open_session
from toolchain.core.converter_log import output_to_log
from toolchain.core.errors import StageError
from toolchain.formats.onnx.edit import value_names
from toolchain.formats.onnx.pack_int4 import pack_int4
from toolchain.formats.onnx.read import read_onnx
from toolchain.formats.onnx.slim import slim_onnx
from toolchain.formats.onnx.uint8_input import absorb, integer_borders
from toolchain.formats.onnx.write import write_model
from toolchain.formats.uint8_input import PixelInput
from toolchain.quantize.bias_overflow import STORED, onnx_with_room
from toolchain.quantize.dynamic_onnx import dynamic_onnx
from toolchain.quantize.keep_onnx import keep_apart, named_layers
from toolchain.quantize.masked_onnx import named_masks
from toolchain.quantize.onnx_layers import KINDS, of_one_channel, weighted
from toolchain.quantize.ranges import Ranges
from toolchain.quantize.step import Quantize
from toolchain.quantize.weight_only import expand_at_load
from toolchain.quantize.weights import integers

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto


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

    def made(prepared: Path) -> ModelProto:
        import onnx

        kept = named_layers(prepared, step.keep, artifact.path.name)
        model = dynamic_onnx(onnx.load(prepared), per_channel=step.per_channel, largest_level=level, keep=kept)
        return expand_at_load(model, bits=step.weight_bits, per_channel=step.per_channel, keep=kept)

    return _quantized(artifact, log, made)


def weight_only(
    artifact: Artifact,
    step: Quantize,
    _ranges: Ranges | None,
    log: Path | None,
    *,
    saturates: bool,  # noqa: ARG001 (of every scheme; no weight meets integers)
) -> bytes:
    """Return a file whose layers expand their weights when it is loaded; errors as in `static`."""

    def made(prepared: Path) -> ModelProto:
        import onnx

        kept = named_layers(prepared, step.keep, artifact.path.name)
        return expand_at_load(onnx.load(prepared), bits=step.weight_bits, per_channel=step.per_channel, keep=kept)

    return _quantized(artifact, log, made)


def _quantized(artifact: Artifact, log: Path | None, make: Callable[[Path], ModelProto]) -> bytes:
    """Open a float file, hand it to `make` as `prepare` leaves it, and return the bytes, which pass onnx.checker.

    Raises StageError when the file is quantized already, onnxruntime cannot quantize its graph, or it has nothing to.
    """
    import onnx

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
        if not weighted(without_weights(prepared)):
            raise StageError(f"{name} has no layer with weights to quantize ({', '.join(KINDS)}); it stays as it is")
        model = slim_onnx(make(prepared))
        onnx.checker.check_model(model, full_check=True)
        content: bytes = model.SerializeToString(deterministic=True)
        return content


def prepare(source: Path, prepared: Path) -> None:
    """Fold batch norms and infer shapes, as quantization needs; symbolic shapes would pull in sympy for nothing.

    quant_pre_process does all but the last step too, and holds the weights four times meanwhile.
    """
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    quant_pre_process(source, prepared, skip_optimization=True, skip_onnx_shape=True, skip_symbolic_shape=True)
    optimized = prepared.with_name("optimized.onnx")
    open_session(prepared, optimized)
    onnx.shape_inference.infer_shapes_path(optimized, prepared)
    write_model(_biases_apart(onnx.load(prepared)), prepared)


def _biases_apart(model: ModelProto) -> ModelProto:
    """Give each layer a bias of its own, as where one layer runs several times.

    onnxruntime copies a shared bias too, but under the name with a number behind it, which another value may have.
    """
    import onnx

    biases = {tensor.name: tensor for tensor in model.graph.initializer}
    names, seen = value_names(model.graph), set[str]()
    for node in model.graph.node:
        bias = node.input[2] if node.op_type in ("Conv", "ConvTranspose", "Gemm") and len(node.input) > 2 else ""
        if bias in seen:
            node.input[2] = next(name for number in count(2) if (name := f"{bias}_{number}") not in names)
            names.add(node.input[2])
            copied = onnx.TensorProto.FromString(biases[bias].SerializeToString())
            copied.name = node.input[2]
            model.graph.initializer.append(copied)
        elif bias in biases:
            seen.add(bias)
    return model


def static_onnx(
    prepared: Path, artifact: Artifact, step: Quantize, ranges: Ranges, *, reduce_range: bool
) -> ModelProto:
    """Return the QDQ graph of a prepared file, with its tensors' names; raises what onnxruntime raises."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import TensorsData, save_tensors_data

    kept = named_layers(prepared, step.keep, artifact.path.name)
    masks = named_masks(prepared)
    pixels = PixelInput.of(artifact.preprocess) if step.integer_io else None
    if pixels:
        write_model(absorb(onnx.load(prepared), pixels), prepared)
    # A calibration cache is how onnxruntime takes ranges that it did not find itself; they pass for its min-max.
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
    model = keep_apart(onnx.load(quantized), kept)
    source = onnx.load(prepared)
    if step.weight_bits == 4:
        model = four_bits(model, source)
    model = onnx_with_room(model, source)
    if step.weight_bits == 4:
        model = pack_int4(model)
    model = expand_at_load(model, per_channel=step.per_channel, keep=weighted(model))
    return integer_borders(model) if pixels else float_logits(model)


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


def four_bits(model: ModelProto, source: ModelProto) -> ModelProto:
    """Return the QDQ model (changed in place) with weights in [-7, 7], rounded anew from the float graph `source`.

    Biases must be float yet (`QuantizeBias`), since their scale is the weights'. Convolutions of one channel keep eight
    bits, as they do in TFLite: they hold few weights and are hit hardest. `toolchain.formats.onnx.pack_int4` stores the
    result in half the bytes.
    """
    from onnx import numpy_helper

    floats = {tensor.name: tensor for tensor in source.graph.initializer}
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    readers = {node.input[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    for name, layer in weighted(source).items():
        reader = readers.get(name + STORED)
        if reader is None or of_one_channel(layer, floats[name].dims):
            continue
        held, factor = (stored[one] for one in reader.input[:2])
        values, scale = integers(numpy_helper.to_array(floats[name]), 4, _axis(reader) if factor.dims else None)
        held.CopyFrom(numpy_helper.from_array(values, held.name))
        factor.CopyFrom(numpy_helper.from_array(scale.reshape(factor.dims), factor.name))
    return model


def _axis(reader: NodeProto) -> int:
    return next((one.i for one in reader.attribute if one.name == "axis"), 1)


def float_logits(model: ModelProto) -> ModelProto:
    """Leave out the last QuantizeLinear and DequantizeLinear after a Gemm or MatMul, in place.

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
            _integer_bias(graph, chain[2])
    return model


def _integer_bias(graph: GraphProto, layer: NodeProto) -> None:
    """Store the layer's bias as int32 in units of its products.

    onnxruntime quantizes a float bias itself only where the answer is quantized too, and its kernel takes no other.
    """
    from onnx import helper, numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    readers = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    if not (set(layer.input[:2]) <= set(readers) and set(layer.input[2:]) & set(constants)):
        return
    names = [readers[name].input[1] for name in layer.input[:2]]
    factors = [numpy_helper.to_array(constants[name]) for name in names]
    scale = np.float32(factors[0]) * factors[1].astype(np.float32)
    bias = numpy_helper.to_array(constants[layer.input[2]])
    stored, factor, zero, given = (f"logits_bias_{part}" for part in ("quantized", "scale", "zero_point", "float"))
    integers = np.rint(bias / scale).astype(np.int32)
    for name, values in ((stored, integers), (zero, np.zeros_like(scale, np.int32))):
        graph.initializer.append(numpy_helper.from_array(values, name))
    graph.node.insert(0, helper.make_node("DequantizeLinear", [stored, factor, zero], [given], axis=0))
    # A product of constants, folded when a session starts: the same bits in fewer bytes.
    graph.node.insert(0, helper.make_node("Mul", names, [factor]))
    layer.input[2] = given
