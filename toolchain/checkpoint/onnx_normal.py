"""Normalise a float ONNX classifier of glyphs to the one form that the rest of the press works on.

Opset 17 or newer, one input `image` float32 [batch, 1, 28, 28] with a dynamic batch axis, one output `logits`
[batch, width], no softmax at the end, pads in numbers (no auto_pad). NHWC (and flat) inputs get a Transpose (Reshape)
inside the graph, so that every later stage sees one layout; where the graph begins with the opposite Transpose, that
one is removed instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from targets.errors import first_line, translated
from toolchain.checkpoint import onnx_graph
from toolchain.checkpoint.float_model import choose_output
from toolchain.checkpoint.state import listing
from toolchain.core.errors import CheckpointError
from toolchain.formats.onnx import edit
from toolchain.formats.onnx.file import image_inputs, read_onnx

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnx import ModelProto

OPSET = 17
MASKS = ("Add", "Min", "Pad", "Sub", "Where")
"""Operators by which a constant can mask values in front of a softmax or a maximum."""
MASK_VIEWS = ("Cast", "Expand", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
"""Operators that a mask may pass on its way to one of MASKS."""
_QUANTIZED = (
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
    *("ConvInteger", "MatMulInteger", "MatMulNBits"),
)
_LAYOUTS: dict[tuple[object, ...], str] = {(1, 28, 28): "NCHW", (28, 28, 1): "NHWC", (28, 28): "flat", (784,): "flat"}


@dataclass(frozen=True)
class NormalisedOnnx:
    """The rewritten graph, checked against the original, and one note for each change."""

    proto: ModelProto
    notes: tuple[str, ...]


def normalised(path: Path, classes: int, label_offset: int | None = None) -> ModelProto:
    """Return the graph of a float ONNX file in the form above; see `normalise`."""
    return normalise(path, classes, label_offset).proto


def normalise(
    path: Path, classes: int, label_offset: int | None = None, *, keep_softmax: bool = False
) -> NormalisedOnnx:
    """Rewrite a float ONNX classifier, and check it with `onnx.checker` and on 64 seeded images.

    The logits must be the same within 1e-4 (the probabilities where a softmax was removed).

    Raises CheckpointError when it is no ONNX file, is quantized, takes anything but one 28x28 image, has no output or
    several that can be the logits, cannot be lifted to opset 13, or has a batch size that cannot be made dynamic.
    """
    with translated(lambda reason: CheckpointError(f"{path} is a damaged ONNX file ({reason}); export it again")):
        return _normalised(path, classes, label_offset, keep_softmax=keep_softmax)


def _normalised(path: Path, classes: int, label_offset: int | None, *, keep_softmax: bool) -> NormalisedOnnx:
    import onnx_ir as ir
    from onnx_ir.passes.common import RemoveInitializersFromInputsPass

    proto = read_onnx(path)
    refuse_quantized(proto, path)
    refuse_not_finite(proto, path)
    layout, shape, batch = _image_input(proto, path)
    images = onnx_graph.seeded_images(batch)
    before = _reference(onnx_graph.open_session(proto), images.reshape(len(images), *shape), batch)
    chosen = choose_output(before, str(path), classes, label_offset, batch=len(images))
    wanted = before[chosen.key]
    outputs = len(proto.graph.output)
    model = ir.from_proto(proto)
    del proto  # the model holds the weights from here on
    edit.run(model, RemoveInitializersFromInputsPass(), partial(keep_output, name=chosen.key), edit.drop_unused)
    lifted = _lift(model, path)
    softmax = "" if keep_softmax else final_softmax(model)
    edit.run(
        model,
        partial(onnx_graph.free_batch, batch=batch),
        partial(take_nchw, layout=layout, shape=shape),
        onnx_graph.explicit_pads,
        *([] if keep_softmax else [remove_softmax]),
        partial(name_logits, width=wanted.shape[1:]),
        edit.drop_unused,
        edit.forget_shapes,
    )
    proto = edit.to_proto(model)
    _check(proto, path, images, wanted, softmax=softmax, fixed=batch is not None)
    notes = list(lifted)
    if outputs > 1:
        notes.insert(0, chosen.note(str(list(wanted.shape[1:])), outputs))
    if batch is not None:
        notes.append(f"batch axis, fixed at {batch}, made dynamic")
    if layout != "NCHW":
        notes.append(f"{layout} input turned to NCHW inside the graph")
    if softmax:
        notes.append(f"{softmax} at the end removed")
    return NormalisedOnnx(proto, tuple(notes))


def _reference(session: Any, images: NDArray[np.float32], batch: int | None) -> dict[str, NDArray[Any]]:
    parts = [onnx_graph.answers(session, part) for part in np.split(images, len(images) // batch if batch else 1)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0] if parts[0][name].ndim}


def keep_output(model: ir.Model, name: str) -> bool:
    """Remove all outputs except one."""
    chosen = [value for value in model.graph.outputs if value.name == name]
    changed = len(model.graph.outputs) > len(chosen)
    model.graph.outputs.clear()
    model.graph.outputs.extend(chosen)
    return changed


def _lift(model: ir.Model, path: Path) -> tuple[str, ...]:
    """Bring the graph to opset 17 where it can be, and return the note; raises CheckpointError below opset 13."""
    opset = model.opset_imports[""]
    try:
        lifted = edit.lift(model, OPSET, ir_version=8)
    except Exception as error:
        # onnx's converter may raise anything.
        if opset >= 13:
            return ()
        raise CheckpointError(
            f"{path}: opset {opset} cannot be lifted to {OPSET} ({first_line(error)}); export it with that"
        ) from error
    return (f"opset {opset} lifted to {OPSET}",) if lifted else ()


def take_nchw(model: ir.Model, layout: str, shape: tuple[int, ...]) -> bool:
    """Rename the input to `image` and make it [batch, 1, 28, 28]. shape: of one image, as the graph takes it."""
    graph = model.graph
    image = graph.inputs[0]
    old = f"{image.name}_inner" if image.name == "image" else str(image.name)
    edit.make_free(graph, "image")
    edit.rename(graph, {image: "image"})
    if layout != "NCHW":
        _adapt_input(graph, image, old, layout, shape)
    edit.describe_as(image, _declared("image", (1, 28, 28)))
    return True


def _adapt_input(graph: ir.Graph, image: ir.Value, old: str, layout: str, shape: tuple[int, ...]) -> None:
    """Convert the image to the old layout inside the graph. old: the input's name, which the result gets."""
    uses = list(image.uses())
    if layout == "NHWC" and len({use.node for use in uses}) == 1 and _turns_to_nchw(uses[0].node):
        turn = uses[0].node
        turn.outputs[0].replace_all_uses_with(image, replace_graph_outputs=True)
        graph.remove(turn, safe=True)
        return
    if layout == "NHWC":
        node = edit.node("Transpose", [image], [old], name="to_nhwc", perm=[0, 2, 3, 1])
    else:
        target = edit.add_constant(graph, "flat_shape", np.array([-1, *shape], np.int64))
        node = edit.node("Reshape", [image, target], [old], name="to_flat")
    edit.insert_first(graph, [node])
    for user, index in uses:
        user.replace_input_with(index, node.outputs[0])


def _turns_to_nchw(node: ir.Node) -> bool:
    axes = node.attributes.get_ints("perm", ())
    return node.op_type == "Transpose" and list(axes) == [0, 3, 1, 2] and len(node.outputs) == 1


def _last_node(model: ir.Model) -> ir.Node | None:
    """Return the node that makes the output, not counting operators that change nothing."""
    node = model.graph.outputs[0].producer()
    while node is not None and node.op_type == "Identity" and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node


def final_softmax(model: ir.Model) -> str:
    """Return `Softmax` or `LogSoftmax` where the graph ends in one, otherwise an empty string."""
    node = _last_node(model)
    return node.op_type if node is not None and node.op_type in ("Softmax", "LogSoftmax") else ""


def remove_softmax(model: ir.Model) -> bool:
    """Remove the softmax at the end: it changes no decision, and its small probabilities cannot be quantized."""
    node = _last_node(model)
    if node is None or not final_softmax(model) or node.inputs[0] is None:
        return False
    model.graph.outputs[0] = node.inputs[0]
    return True


def name_logits(model: ir.Model, width: tuple[int, ...]) -> bool:
    """Name the output `logits` and declare it float32 [batch, *width]."""
    output = model.graph.outputs[0]
    if output.name != "logits":
        edit.make_free(model.graph, "logits")
        edit.rename(model.graph, {output: "logits"})
    edit.describe_as(output, _declared("logits", width))
    return True


def _declared(name: str, shape: tuple[int, ...]) -> ir.Value:
    """Return a value that is float32 [batch, *shape]."""
    import onnx_ir as ir

    return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([onnx_graph.BATCH_AXIS, *shape]))


def _check(
    proto: ModelProto, path: Path, images: NDArray[np.float32], before: NDArray[Any], *, softmax: str, fixed: bool
) -> None:
    """Raise CheckpointError where the graph is not valid, or its answers differ from `before`."""
    import onnx

    cause: Exception | None = None
    try:
        onnx.checker.check_model(proto, full_check=True)
        after = onnx_graph.answers(onnx_graph.open_session(proto), images)["logits"]
    except (CheckpointError, ValueError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        cause, reason = error, first_line(error)
    else:
        if softmax:
            after = _softmax(after, log=softmax == "LogSoftmax")
        difference = onnx_graph.largest_difference(before, after)
        if difference < onnx_graph.TOLERANCE:
            return
        reason = f"answers differ by {difference:.2g}"
    fix = "its batch axis is fixed; export it with a dynamic one" if fixed else f"export it with opset {OPSET}"
    raise CheckpointError(f"{path} cannot be brought to a dynamic batch and opset {OPSET} ({reason}); {fix}") from cause


def _softmax(logits: NDArray[Any], *, log: bool) -> NDArray[Any]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_softmax: NDArray[Any] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return log_softmax if log else np.exp(log_softmax)


def refuse_not_finite(proto: ModelProto, path: Path) -> None:
    """Raise CheckpointError on NaN or infinite weights.

    Minus infinity is allowed in a constant that only masks values in front of a softmax or a maximum.
    """
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


class _ImageInput(NamedTuple):
    """How the graph takes images: NCHW, NHWC or flat; the shape of one; the batch size if it is fixed."""

    layout: str
    shape: tuple[int, ...]
    batch: int | None


def _image_input(proto: ModelProto, path: Path) -> _ImageInput:
    """Return the graph's image input, flat being [N, 784] or [N, 28, 28]; open sizes count as those of an image.

    Raises CheckpointError, showing the input, when the graph takes anything but one float32 image.
    """
    from onnx import TensorProto

    inputs = image_inputs(proto)
    if len(inputs) != 1:
        names = listing(value.name for value in inputs)
        raise CheckpointError(f"{path} has {len(inputs)} inputs ({names}); give a model of one image")
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
    batch, *sizes = (axis.dim_value for axis in tensor.shape.dim)
    return _ImageInput(layout, tuple(sizes) if 0 not in sizes else (1, 28, 28), batch if batch > 0 else None)
