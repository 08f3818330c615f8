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
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from targets.errors import first_line, translated
from toolchain.checkpoint.logits_output import choose
from toolchain.checkpoint.onnx_checks import (
    fixed_batch,
    image_layout,
    input_shape,
    refuse_not_finite,
    refuse_quantized,
)
from toolchain.checkpoint.onnx_pads import explicit_pads
from toolchain.checkpoint.onnx_run import TOLERANCE, answers, largest_difference, open_session, seeded_images
from toolchain.checkpoint.state import listing
from toolchain.core.errors import CheckpointError
from toolchain.formats.onnx import edit
from toolchain.formats.onnx.file import read_onnx

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnx import ModelProto

__all__ = ["NormalisedOnnx", "normalise", "normalised"]

OPSET = 17
BATCH_AXIS = "batch"


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
    import onnx_ir as ir
    from onnx_ir.passes.common import RemoveInitializersFromInputsPass

    proto = read_onnx(path)
    refuse_quantized(proto, path)
    refuse_not_finite(proto, path)
    layout, shape, batch = image_layout(proto, path), input_shape(proto), fixed_batch(proto)
    images = seeded_images(batch)
    before = _reference(open_session(proto), images.reshape(len(images), *shape), batch)
    shapes = {key: value.shape for key, value in before.items()}
    chosen = choose(shapes, str(path), classes or _only_width(shapes, path), label_offset, batch=len(images))
    outputs = len(proto.graph.output)
    model = ir.from_proto(proto)
    # The model holds the weights from here on.
    del proto
    edit.run(model, RemoveInitializersFromInputsPass(), partial(keep_output, name=chosen), edit.drop_unused)
    lifted = _lift(model, path)
    softmax = "" if keep_softmax else final_softmax(model)
    edit.run(
        model,
        partial(free_batch, batch=batch),
        partial(take_nchw, layout=layout, shape=shape),
        explicit_pads,
        *([] if keep_softmax else [remove_softmax]),
        partial(name_logits, width=before[chosen].shape[1:]),
        edit.drop_unused,
        edit.forget_shapes,
    )
    was_chosen = len(before) > 1 or outputs > 1
    notes = (
        *([f"output {chosen} {list(before[chosen].shape[1:])} of {outputs} taken as the logits"] * was_chosen),
        *lifted,
        *([f"batch axis, fixed at {batch}, made dynamic"] * (batch is not None)),
        *([f"{layout} input turned to NCHW inside the graph"] * (layout != "NCHW")),
        *([f"{softmax} at the end removed"] * bool(softmax)),
    )
    proto = edit.to_proto(model)
    _check(proto, path, images, before[chosen], softmax=softmax, fixed=batch is not None)
    return NormalisedOnnx(proto, notes)


def _reference(session: Any, images: NDArray[np.float32], batch: int | None) -> dict[str, NDArray[Any]]:
    parts = [answers(session, part) for part in np.split(images, len(images) // batch if batch else 1)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0] if parts[0][name].ndim}


def _only_width(shapes: dict[str, tuple[int, ...]], path: Path) -> int:
    wide = [shape[1] for shape in shapes.values() if len(shape) == 2]
    if len(wide) != 1:
        raise CheckpointError(f"{path} answers {listing(map(str, shapes.items()))}; say how many classes there are")
    return wide[0]


def keep_output(model: ir.Model, name: str) -> bool:
    """Drop every output but one."""
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
        # The converter raises what its parts do.
        if opset >= 13:
            return ()
        raise CheckpointError(
            f"{path}: opset {opset} cannot be lifted to {OPSET} ({first_line(error)}); export it with that"
        ) from error
    return (f"opset {opset} lifted to {OPSET}",) if lifted else ()


def free_batch(model: ir.Model, batch: int | None) -> bool:
    """Make the input's batch axis dynamic and let each Reshape infer it.

    batch: the size that it is fixed to. A constant target that begins with it gets -1 there (0, which copies the axis,
    where the target already infers another); a target computed from the batch size is replaced by the constant that it
    amounts to. Whether the result still answers the same is for the caller to check.
    """
    import onnx_ir as ir

    graph = model.graph
    edit.forget_shapes(model)
    for value in (*graph.inputs[:1], *graph.outputs):
        if value.shape is not None and len(value.shape):
            value.shape = ir.Shape([BATCH_AXIS, *list(value.shape)[1:]])
    computed = []
    for node in [node for node in graph if node.op_type == "Reshape"]:
        target = edit.constant(node.inputs[1])
        if target is None:
            computed.append(node)
            continue
        sizes = [int(size) for size in target.ravel()]
        _forget_allowzero(node, sizes)
        if batch is not None and sizes and sizes[0] == batch:
            _set_target(graph, node, _inferred(sizes[1:]))
    _settle_computed(model, computed)
    return True


def _inferred(rest: list[int]) -> list[int]:
    """Return a target of Reshape whose first axis is the batch's."""
    return [0 if -1 in rest else -1, *rest]


def _set_target(graph: ir.Graph, node: ir.Node, sizes: list[int]) -> None:
    """Give a Reshape its own target, since other operators may read the old one."""
    name = f"{node.outputs[0].name}_1_constant"
    node.replace_input_with(1, edit.add_constant(graph, name, np.array(sizes, np.int64)))


def _forget_allowzero(node: ir.Node, target: list[int]) -> None:
    # torch's exporter sets it on every reshape; without a 0 in the target it means nothing, few converters know it,
    # and with it the 0 of `_inferred` would.
    if 0 not in target:
        node.attributes.pop("allowzero", None)


def _settle_computed(model: ir.Model, nodes: list[ir.Node]) -> None:
    """Replace targets computed from the batch size (`x.view(x.size(0), -1)`) by what they are at two batch sizes."""
    if not nodes:
        return
    try:
        twos, threes = (_targets(model, nodes, batch) for batch in (2, 3))
    except CheckpointError:
        # Another operator depends on the batch size; the comparison with the original reports that.
        return
    for node, two, three in zip(nodes, twos, threes, strict=True):
        if two.shape != three.shape:
            continue
        changing = np.flatnonzero(two != three)
        _forget_allowzero(node, two.tolist())
        if len(changing) == 0:
            _set_target(model.graph, node, two.tolist())
        elif list(changing) == [0] and two[0] == 2:
            _set_target(model.graph, node, _inferred(two[1:].tolist()))


def _targets(model: ir.Model, nodes: list[ir.Node], batch: int) -> list[NDArray[Any]]:
    """Return the second input of each node, as it is for `batch` images."""
    import onnx_ir as ir

    graph = model.graph
    targets = [target for node in nodes if (target := node.inputs[1]) is not None]
    outputs = list(graph.outputs)
    graph.outputs.clear()
    for target in dict.fromkeys(targets):
        target.type = ir.TensorType(ir.DataType.INT64)
        graph.outputs.append(target)
    try:
        session = open_session(edit.to_proto(model))
    finally:
        graph.outputs.clear()
        graph.outputs.extend(outputs)
    shape = [batch, *(size if isinstance(size, int) else 0 for size in list(graph.inputs[0].shape or ())[1:])]
    sizes = answers(session, np.zeros(shape, np.float32))
    return [np.asarray(sizes[str(target.name)]).ravel() for target in targets]


def take_nchw(model: ir.Model, layout: str, shape: tuple[int, ...]) -> bool:
    """Name the input `image` and let it be [batch, 1, 28, 28]; shape: of one image, as the graph takes it."""
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
    """Turn the image inside the graph; old: the name of the input, which the turned image bears now."""
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


def _end(model: ir.Model) -> ir.Node | None:
    """Return what makes the output, past operators that change nothing."""
    node = model.graph.outputs[0].producer()
    while node is not None and node.op_type == "Identity" and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node


def final_softmax(model: ir.Model) -> str:
    """Return the kind of softmax in which the graph ends, empty where it ends in none."""
    node = _end(model)
    return node.op_type if node is not None and node.op_type in ("Softmax", "LogSoftmax") else ""


def remove_softmax(model: ir.Model) -> bool:
    """Remove the softmax at the end: it changes no decision, and its small probabilities cannot be quantized."""
    node = _end(model)
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

    return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([BATCH_AXIS, *shape]))


def _check(
    proto: ModelProto, path: Path, images: NDArray[np.float32], before: NDArray[Any], *, softmax: str, fixed: bool
) -> None:
    """Raise CheckpointError where the graph is not valid, or answers otherwise than `before`."""
    fault: Exception | None = None
    try:
        after = _checked_answers(proto, images)
    except (CheckpointError, ValueError) as error:
        fault, reason = error, first_line(error)
    else:
        if softmax:
            after = _softmax(after, log=softmax == "LogSoftmax")
        difference = largest_difference(before, after)
        if difference < TOLERANCE:
            return
        reason = f"answers differ by {difference:.2g}"
    fix = "its batch axis is fixed; export it with a dynamic one" if fixed else f"export it with opset {OPSET}"
    raise CheckpointError(f"{path} cannot be brought to a dynamic batch and opset {OPSET} ({reason}); {fix}") from fault


def _checked_answers(proto: ModelProto, images: NDArray[np.float32]) -> NDArray[Any]:
    import onnx

    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ValueError(str(error)) from error
    return answers(open_session(proto), images)["logits"]


def _softmax(logits: NDArray[Any], *, log: bool) -> NDArray[Any]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    normal: NDArray[Any] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return normal if log else np.exp(normal)
