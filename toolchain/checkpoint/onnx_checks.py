"""Checks of an ONNX graph: float, finite weights, and one 28x28 image as its input."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain.checkpoint.state import listing
from toolchain.core.errors import CheckpointError
from toolchain.formats.onnx.file import image_inputs

if TYPE_CHECKING:
    from onnx import ModelProto

MASKS = ("Add", "Min", "Pad", "Sub", "Where")
"""Operators by which a constant can mask values in front of a softmax or a maximum."""
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


def refuse_not_finite(proto: ModelProto, path: Path) -> None:
    """Raise CheckpointError on NaN or infinite weights.

    Minus infinity is allowed in a constant that only masks values in front of a softmax or a maximum.
    """
    import numpy as np
    from onnx import numpy_helper

    weights = ((tensor.name, numpy_helper.to_array(tensor)) for tensor in proto.graph.initializer)
    not_finite = {
        name: values for name, values in weights if values.dtype.kind == "f" and not np.isfinite(values).all()
    }
    multiplied = {name for node in proto.graph.node if node.op_type not in (*MASKS, *MASK_VIEWS) for name in node.input}
    broken = [name for name, values in not_finite.items() if name in multiplied or not (values < np.inf).all()]
    if broken:
        raise CheckpointError(f"{path}: weights are not finite ({listing(broken)}); the training diverged, train again")


def refuse_quantized(proto: ModelProto, path: Path) -> None:
    """Raise CheckpointError on a quantized graph: pressing starts from the float model."""
    kinds = sorted(
        {node.op_type for node in proto.graph.node if node.op_type in _QUANTIZED or node.op_type.startswith("QLinear")}
    )
    if kinds:
        raise CheckpointError(
            f"{path} is quantized already ({listing(kinds)}), and what was rounded cannot be pressed again; "
            f"give the float model it was made from (to judge this file use evaluate, compare or profile)"
        )


def image_layout(proto: ModelProto, path: Path) -> str:
    """Return NCHW, NHWC or flat ([N, 784] or [N, 28, 28]); an open size counts as the size that an image has.

    Raises CheckpointError, showing the input, when the graph takes anything but one float32 image.
    """
    from onnx import TensorProto

    inputs = image_inputs(proto)
    if len(inputs) != 1:
        raise CheckpointError(
            f"{path} has {len(inputs)} inputs ({listing(i.name for i in inputs)}); give a model of one image"
        )
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
    shape = tuple(axis.dim_value for axis in image_inputs(proto)[0].type.tensor_type.shape.dim[1:])
    return shape if 0 not in shape else (1, 28, 28)


def fixed_batch(proto: ModelProto) -> int | None:
    """Return the batch size that the image is fixed to, None when it is dynamic."""
    axis = image_inputs(proto)[0].type.tensor_type.shape.dim[0]
    return axis.dim_value if axis.HasField("dim_value") and axis.dim_value > 0 else None
