"""Reading an ONNX file: its graph and weights, the one image it takes, and what cannot be pressed."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from targets.errors import first_line
from targets.onnxruntime.onnx_file import refuse_huge
from targets.onnxruntime.protobuf import has_broken_text, without_weights
from toolchain.checkpoint.state import listing
from toolchain.core.errors import CheckpointError

if TYPE_CHECKING:
    from onnx import ModelProto

_SLACK = 1 << 16
"""Bytes by which weights in a file of their own may be padded."""
MASKS = ("Add", "Min", "Pad", "Sub", "Where")
"""Operators by which a constant can take values out of a softmax or a maximum that follows."""
MASK_VIEWS = ("Cast", "Expand", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
_QUANTIZED = (
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "ConvInteger",
    "MatMulInteger",
    "MatMulNBits",
)
_LAYOUTS: dict[tuple[Any, ...], str] = {(1, 28, 28): "NCHW", (28, 28, 1): "NHWC", (28, 28): "flat", (784,): "flat"}


def read_onnx(path: Path, *, weights: bool = True) -> ModelProto:
    """Return the model of an ONNX file and its weights, or the graph alone.

    Raises CheckpointError when either is missing, ArtifactError when its weights are read and its operators ask for
    more memory than any reader of characters.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # ships no types

    try:
        if weights:
            refuse_huge(path)
        proto = onnx.load(path, load_external_data=False) if weights else without_weights(path)
        _refuse_false_weights(proto, path)
        if weights:
            onnx.load_external_data_for_model(proto, str(path.parent))
    except DecodeError as error:
        raise CheckpointError(f"{path} is no ONNX file, or is cut off; export it again") from error
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise CheckpointError(
            f"{path}: its weights lie in another file that cannot be read ({first_line(error)}); copy both"
        ) from error
    if has_broken_text(proto):
        raise CheckpointError(f"{path}: a name in it is no UTF-8 text; export it again")
    if not proto.graph.node or not proto.graph.output:
        raise CheckpointError(f"{path} is no ONNX file (no graph in it); export it again")
    return proto


def _refuse_false_weights(proto: ModelProto, path: Path) -> None:
    """Raise CheckpointError where weights lie in no file of the model's folder, or in one of another size than theirs.

    onnx reads such a file whole where no length is given, whatever the size of the weights.
    """
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    for tensor in filter(uses_external_data, proto.graph.initializer):
        info = ExternalDataInfo(tensor)
        beside = path.parent / info.location
        if not beside.resolve().is_relative_to(path.parent.resolve()) or not beside.is_file():
            raise CheckpointError(
                f"{path}: its weights lie in another file that is not beside it ({info.location}); copy both"
            )
        wanted = prod(tensor.dims) * _element_bytes(tensor.data_type)
        reads = info.length or beside.stat().st_size - (info.offset or 0)
        if reads > max(wanted, _SLACK):
            raise CheckpointError(
                f"{path}: {tensor.name} takes {wanted:,} bytes, but is said to have {reads:,} of {info.location}; "
                f"export it again"
            )


def _element_bytes(data_type: int) -> int:
    """Return the bytes of an element, a whole one where several share it."""
    from onnx import helper

    return int(helper.tensor_dtype_to_np_dtype(data_type).itemsize)


def refuse_not_finite(proto: ModelProto, path: Path) -> None:
    """Raise CheckpointError on NaN or infinite weights: nothing made from them could read.

    Minus infinity is no fault in a constant that only masks by it, in front of a softmax or a maximum.
    """
    import numpy as np
    from onnx import numpy_helper

    weights = ((tensor.name, numpy_helper.to_array(tensor)) for tensor in proto.graph.initializer)
    unlike = {name: values for name, values in weights if values.dtype.kind == "f" and not np.isfinite(values).all()}
    multiplied = {name for node in proto.graph.node if node.op_type not in (*MASKS, *MASK_VIEWS) for name in node.input}
    broken = [name for name, values in unlike.items() if name in multiplied or not (values < np.inf).all()]
    if broken:
        raise CheckpointError(f"{path}: weights are not finite ({listing(broken)}); the training diverged, train again")


def refuse_quantized(proto: ModelProto, path: Path) -> None:
    """Raise CheckpointError on a quantized graph: pressing starts from the float model."""
    found = sorted({n.op_type for n in proto.graph.node if n.op_type in _QUANTIZED or n.op_type.startswith("QLinear")})
    if found:
        raise CheckpointError(
            f"{path} is quantized already ({listing(found)}), and what was rounded cannot be pressed again; "
            f"give the float model it was made from (to judge this file use evaluate, compare or profile)"
        )


def image_inputs(proto: ModelProto) -> list[Any]:
    """Return the graph's inputs that are not initializers (before IR version 4 those are listed as inputs too)."""
    initial = {initializer.name for initializer in proto.graph.initializer}
    return [value for value in proto.graph.input if value.name not in initial]


def image_layout(proto: ModelProto, path: Path) -> str:
    """Return NCHW, NHWC or flat ([N, 784] or [N, 28, 28]); any size left open counts as what an image needs.

    Raises CheckpointError, showing the input, when the graph takes anything but one float32 image.
    """
    from onnx import TensorProto

    inputs = image_inputs(proto)
    if len(inputs) != 1:
        raise CheckpointError(
            f"{path} has {len(inputs)} inputs ({listing(i.name for i in inputs)}); give a model of one image"
        )
    for unused in [value for value in proto.graph.input if value.name != inputs[0].name]:
        proto.graph.input.remove(unused)
    tensor = inputs[0].type.tensor_type
    shape = tuple(axis.dim_value or axis.dim_param or "?" for axis in tensor.shape.dim)
    layout = _LAYOUTS.get(shape[1:])
    if layout is None and len(shape) == 4 and not any(isinstance(size, int) and size > 1 for size in shape[1:]):
        layout = "NCHW"
    if layout is None or tensor.elem_type != TensorProto.FLOAT:
        kind = TensorProto.DataType.Name(tensor.elem_type).lower()
        raise CheckpointError(
            f"{path} takes {inputs[0].name} {kind} {list(shape)}, not float [N, 1, 28, 28] or [N, 28, 28, 1]; "
            f"give the float32 model for 28x28 images of one channel"
        )
    return layout


def input_shape(proto: ModelProto) -> tuple[int, ...]:
    """Return the shape of one image as the graph takes it."""
    shape = tuple(axis.dim_value for axis in proto.graph.input[0].type.tensor_type.shape.dim[1:])
    return shape if 0 not in shape else (1, 28, 28)


def weight_files(path: Path) -> tuple[Path, ...]:
    """Return the files beside an ONNX file that hold its weights (external data), sorted; none for most models."""
    from onnx.external_data_helper import uses_external_data

    proto = without_weights(path)
    names = {
        entry.value
        for tensor in proto.graph.initializer
        if uses_external_data(tensor)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return tuple(path.parent / name for name in sorted(names))
