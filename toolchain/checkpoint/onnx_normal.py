"""Any float ONNX classifier of glyphs -> the one form that the rest of the press works on.

Opset 17 or newer, one input `image` float32 [batch, 1, 28, 28] with a dynamic batch axis, one output `logits`
[batch, width], no softmax at the end, pads in numbers (no auto_pad). NHWC (and flat) inputs get a Transpose (Reshape)
inside the graph, so that one layout reaches every later stage; where the graph began with the opposite Transpose, both
go.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from targets.errors import first_line, translated
from toolchain.checkpoint.onnx_batch import BATCH_AXIS, fixed_batch, free_batch
from toolchain.checkpoint.onnx_files import image_layout, input_shape, refuse_not_finite, refuse_quantized
from toolchain.checkpoint.onnx_pads import explicit_pads
from toolchain.checkpoint.onnx_run import TOLERANCE, answers, differs, open_session, seeded_images
from toolchain.checkpoint.state import listing
from toolchain.checkpoint.trial import choose
from toolchain.core.errors import CheckpointError
from toolchain.formats.onnx import edit
from toolchain.formats.onnx.read import read_onnx

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["NormalisedOnnx", "normalise", "normalised"]

OPSET = 17


@dataclass(frozen=True)
class NormalisedOnnx:
    """The rewritten graph, checked against the original, and one note for each thing that was changed."""

    proto: ModelProto
    notes: tuple[str, ...]


def normalised(path: Path, classes: int | None = None, label_offset: int | None = None) -> ModelProto:
    """Return the graph of a float ONNX file in the form above; see `normalise`."""
    return normalise(path, classes, label_offset).proto


def normalise(
    path: Path, classes: int | None, label_offset: int | None = None, *, keep_softmax: bool = False
) -> NormalisedOnnx:
    """Rewrite a float ONNX classifier and check it on 64 seeded images: the same logits within 1e-4 (the same
    probabilities where a softmax was removed), `onnx.checker` content.

    Raises CheckpointError when it is no ONNX file, is quantized, takes anything but one 28x28 image, has no output or
    several that can be the logits, cannot be lifted to opset 13, or has a batch size that cannot be made dynamic.
    """
    with translated(lambda reason: CheckpointError(f"{path} is a damaged ONNX file ({reason}); export it again")):
        return _normalised(path, classes, label_offset, keep_softmax=keep_softmax)


def _normalised(path: Path, classes: int | None, label_offset: int | None, *, keep_softmax: bool) -> NormalisedOnnx:
    proto = read_onnx(path)
    refuse_quantized(proto, path)
    refuse_not_finite(proto, path)
    layout = image_layout(proto, path)
    # From memory, since onnxruntime wants small weights inside the file.
    session = open_session(proto)
    batch = fixed_batch(proto.graph)
    images = seeded_images(batch)
    before = _reference(session, images.reshape(len(images), *input_shape(proto)), batch)
    shapes = {key: value.shape for key, value in before.items()}
    classes = classes or _only_width(shapes, path)
    chosen = choose(shapes, str(path), classes, label_offset, batch=len(images))
    notes = []
    if len(before) > 1 or len(proto.graph.output) > 1:
        notes.append(
            f"output {chosen} {list(before[chosen].shape[1:])} of {len(proto.graph.output)} taken as the logits"
        )
    _keep_output(proto, chosen)
    proto, lifted = _lift(proto, path)
    notes += lifted
    if batch is not None:
        notes.append(f"batch axis, fixed at {batch}, made dynamic")
    notes += _rewrite(proto, layout)
    proto = explicit_pads(proto)
    notes += [] if keep_softmax else _remove_softmax(proto)
    _name_output(proto)
    _check(proto, path, images, before[chosen], notes=notes)
    return NormalisedOnnx(proto, tuple(notes))


def _reference(session: Any, images: NDArray[np.float32], batch: int | None) -> dict[str, NDArray[Any]]:
    parts = [answers(session, part) for part in np.split(images, len(images) // batch if batch else 1)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0] if parts[0][name].ndim}


def _only_width(shapes: dict[str, tuple[int, ...]], path: Path) -> int:
    wide = [shape[1] for shape in shapes.values() if len(shape) == 2]
    if len(wide) != 1:
        raise CheckpointError(f"{path} answers {listing(map(str, shapes.items()))}; say how many classes there are")
    return wide[0]


def _keep_output(proto: ModelProto, name: str) -> None:
    for output in [output for output in proto.graph.output if output.name != name]:
        proto.graph.output.remove(output)
    edit.drop_unused(proto.graph)


def _lift(proto: ModelProto, path: Path) -> tuple[ModelProto, list[str]]:
    from onnx import version_converter

    opset = next(entry for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    if opset.version >= OPSET:
        return proto, []
    try:
        lifted = version_converter.convert_version(proto, OPSET)
    except Exception as error:
        if opset.version >= 13:
            return proto, []
        raise CheckpointError(
            f"{path}: opset {opset.version} cannot be lifted to {OPSET} ({first_line(error)}); export it with that"
        ) from error
    lifted.ir_version = max(lifted.ir_version, 8)
    return lifted, [f"opset {opset.version} lifted to {OPSET}"]


def _rewrite(proto: ModelProto, layout: str) -> list[str]:
    free_batch(proto)
    graph = proto.graph
    edit.make_free(graph, "image")
    notes = []
    if layout == "NCHW":
        edit.rename(graph, graph.input[0].name, "image")
    else:
        _adapt_input(proto, layout)
        notes.append(f"{layout} input turned to NCHW inside the graph")
    _declare(graph.input[0], "image", (1, 28, 28))
    return notes


def _adapt_input(proto: ModelProto, layout: str) -> None:
    from onnx import helper

    graph = proto.graph
    old, shape = graph.input[0].name, input_shape(proto)
    users = edit.consumers(graph, old)
    if layout == "NHWC" and len(users) == 1 and _turns_to_nchw(users[0]):
        turned = users[0].output[0]
        graph.node.remove(users[0])
        edit.rename(graph, turned, "image")
        return
    if layout == "NHWC":
        node = helper.make_node("Transpose", ["image"], [old], name="to_nhwc", perm=[0, 2, 3, 1])
    else:
        edit.make_free(graph, "flat_shape")
        graph.initializer.append(helper.make_tensor("flat_shape", 7, [len(shape) + 1], [-1, *shape]))
        node = helper.make_node("Reshape", ["image", "flat_shape"], [old], name="to_flat")
    graph.node.insert(0, node)


def _turns_to_nchw(node: Any) -> bool:
    return node.op_type == "Transpose" and list(node.attribute[0].ints) == [0, 3, 1, 2] and len(node.output) == 1


def _declare(value: Any, name: str, shape: tuple[int, ...]) -> None:
    from onnx import TensorProto, helper

    value.CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH_AXIS, *shape]))


def _remove_softmax(proto: ModelProto) -> list[str]:
    graph = proto.graph
    last = edit.producer(graph, graph.output[0].name)
    while last is not None and last.op_type == "Identity":
        last = edit.producer(graph, last.input[0])
    notes = []
    if last is not None and last.op_type in ("Softmax", "LogSoftmax"):
        notes.append(f"{last.op_type} at the end removed")
        graph.output[0].name = last.input[0]
    return notes


def _name_output(proto: ModelProto) -> None:
    graph = proto.graph
    if graph.output[0].name != "logits":
        edit.make_free(graph, "logits")
        edit.rename(graph, graph.output[0].name, "logits")


def _check(
    proto: ModelProto, path: Path, images: NDArray[np.float32], before: NDArray[Any], *, notes: list[str]
) -> None:
    fault: Exception | None = None
    try:
        after = _checked_answers(proto, images, before.shape[1:])
    except (CheckpointError, ValueError) as error:
        fault, reason = error, first_line(error)
    else:
        if any("removed" in note for note in notes):
            after = _softmax(after, log=any("LogSoftmax" in note for note in notes))
        difference = differs(before, after)
        if difference < TOLERANCE:
            return
        reason = f"answers differ by {difference:.2g}"
    fixed = any("batch axis" in note for note in notes)
    fix = "its batch axis is fixed; export it with a dynamic one" if fixed else f"export it with opset {OPSET}"
    raise CheckpointError(f"{path} cannot be brought to a dynamic batch and opset {OPSET} ({reason}); {fix}") from fault


def _checked_answers(proto: ModelProto, images: NDArray[np.float32], width: tuple[int, ...]) -> NDArray[Any]:
    import onnx

    _declare(proto.graph.output[0], "logits", width)
    edit.drop_unused(proto.graph)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ValueError(str(error)) from error
    return answers(open_session(proto), images)["logits"]


def _softmax(logits: NDArray[Any], *, log: bool) -> NDArray[Any]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    normal: NDArray[Any] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return normal if log else np.exp(normal)
