"""The student that fits a number of bytes: its depth follows the model's resolutions, its widths are measured.

A finished file holds weights of 4 and 8 bits, scales, biases, a graph and metadata. Its size is not modelled: an
untrained student is exported and quantized, which takes a second or two, and has the size of the trained one.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from toolchain.core.converter_log import default_log
from toolchain.core.errors import StageError
from toolchain.core.quantities import SIZE, counted
from toolchain.models import scaled

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import nn

    from calibration.dataset import Dataset
    from toolchain.checkpoint.float_model import FloatModel
    from toolchain.core.context import RunContext
    from toolchain.quantize.step import Quantize

Channels = tuple[int, ...]

STUDENT = "cnn-small"
"""The architecture that is made to fit."""
PROPORTIONS = (16, 16, 32, 56, 72, 96)
"""Channels that were tuned for 4-bit files of 40 KB; others are multiples of them."""
CONVOLUTIONS = {2: 4, 3: 5, 4: 6}
"""How often the model halves the resolution -> the student's convolutions, which halve it as often."""
USUAL = 3
"""Halvings of the student of a model without convolutions."""
WIDEST = 4.0
"""The largest multiple: training a wider student would take many hours on two cores."""
_SHARE = re.compile(r"\s*1\s*/\s*([1-9][0-9]{0,5})\s*")


def byte_limit(text: str, whole: int) -> int:
    """Return the bytes that `text` allows: a share of a file of `whole` bytes such as `1/20`, or a size such as 16KiB.

    Raises ValueError for any other text, and for a share that is all of the file.
    """
    if share := _SHARE.fullmatch(text):
        if int(share[1]) < 2:
            raise ValueError(f"'{text.strip()}' is the whole file; give a smaller share, such as 1/20")
        return whole // int(share[1])
    try:
        limit = int(SIZE.parse(text))
    except ValueError as error:
        raise ValueError(f"'{text}' is no share of the float file, such as 1/20, and no size, such as 16KiB") from error
    if limit < 1:
        raise ValueError(f"'{text}' is less than a byte; give a size such as 16KiB")
    return limit


def ladder(halvings: int) -> list[Channels]:
    """Return the students of one depth from the narrowest to the widest, all channels multiples of 8.

    halvings: how often the model halves the resolution; a student halves it two to four times.
    """
    depth = CONVOLUTIONS[min(max(halvings, min(CONVOLUTIONS)), max(CONVOLUTIONS))]
    scales = (step / 64 for step in range(1, int(WIDEST * 64) + 1))
    widths = (tuple(scaled(count, scale) for count in PROPORTIONS[:depth]) for scale in scales)
    return list(dict.fromkeys(widths))


def widest_within(limit: int, students: list[Channels], classes: int, size: Callable[[Channels], int]) -> Channels:
    """Return the widest of `students` (from `ladder`) whose file has at most `limit` bytes.

    size: returns the bytes of a real file. It is slow, so it is called only near the limit; what a file holds beside
    its weights hardly depends on the widths. Raises StageError where even the narrowest is larger.
    """
    rest, fitting = 3500, students
    smaller: Channels | None = None
    while True:
        guess = next((student for student in reversed(fitting) if weight_bytes(student, classes) + rest <= limit), None)
        guess = guess or fitting[0]
        if guess == smaller:
            return guess
        measured = size(guess)
        rest = measured - weight_bytes(guess, classes)
        if measured <= limit:
            smaller = guess
            fitting = fitting[fitting.index(guess) :]
        elif guess == fitting[0] and smaller is None:
            raise StageError(
                f"the smallest student, {STUDENT} with channels {_listed(guess)}, takes {counted(measured, 'byte')}"
            )
        else:
            fitting = fitting[: fitting.index(guess)]


def weight_bytes(channels: Channels, classes: int) -> int:
    """Return the bytes of a student's weights in 4 bits, those of one-channel convolutions in 8, scales and biases."""
    last_map = math.ceil(28 / (1 << next(count for count, depth in CONVOLUTIONS.items() if depth == len(channels))))
    convolutions = sum(before * after * 9 for before, after in pairwise(channels))
    last = channels[-1]
    one_channel = channels[0] * 25 + last * last_map * last_map
    return (convolutions + last * classes) // 2 + one_channel + 8 * (sum(channels) + last + classes)


def halvings(graph: ModelProto) -> int:
    """Return how often a network halves the resolution on the longest way; USUAL where it has no convolution.

    The strides of convolutions and pools count whose answers are still larger than a pixel.
    """
    from onnx import helper, shape_inference

    inferred = shape_inference.infer_shapes(graph).graph
    pixels = {
        value.name: value.type.tensor_type.shape.dim[-1].dim_value
        for value in (*inferred.value_info, *inferred.output)
        if value.type.tensor_type.shape.dim
    }
    passed: dict[str, int] = {}
    for node in inferred.node:
        halved: int = max((passed.get(name, 0) for name in node.input), default=0)
        if node.op_type in ("Conv", "MaxPool", "AveragePool") and pixels.get(node.output[0], 2) > 1:
            strides = next((helper.get_attribute_value(each) for each in node.attribute if each.name == "strides"), [1])
            halved += int(max(strides)).bit_length() - 1
        passed |= dict.fromkeys(node.output, halved)
    convolves = any(node.op_type == "Conv" for node in inferred.node)
    return max(passed.values()) if convolves else USUAL


@dataclass(frozen=True)
class StudentPlan:
    """The channels that were chosen, and why, as one line."""

    channels: Channels
    reason: str


def plan(
    text: str,
    model: FloatModel,
    quantize: Quantize,
    data: Dataset,
    build: Callable[[Channels], nn.Module],
    *,
    run: RunContext,
) -> StudentPlan:
    """Return the widest student whose quantized .onnx file has at most the bytes that `text` allows (`byte_limit`).

    build: makes an untrained student. data: images that calibrate it, a train split. Raises StageError where no student
    is that small.
    """
    from calibration.sample import draw
    from toolchain.export import export
    from toolchain.quantize import quantize as quantized

    step = quantize.model_copy(update={"fallback": 0, "keep": (), "ranges": None})
    calibration = draw(data, max(step.calibration_images, len(data.classes)), run.seed, at_most=True)
    classes = len(model.classes)
    run.progress("choosing the student", 0, 0)
    with tempfile.TemporaryDirectory() as scratch:
        whole = export(model, "onnx", Path(scratch) / f"{model.name}.float.onnx", log=default_log())
        total, steps = whole.path.stat().st_size, halvings(_graph(whole.path))
        limit = byte_limit(text, total)

        def size(channels: Channels) -> int:
            folder = Path(tempfile.mkdtemp(dir=scratch))
            untrained = replace(
                model.with_module(build(channels)), preprocess=replace(model.preprocess, label_offset=0)
            )
            source = export(untrained, "onnx", folder / "student.float.onnx", log=default_log())
            write = partial(quantized, source, step, calibration, folder / "student.onnx", recipe="student")
            return write(log=default_log()).path.stat().st_size

        of = f"{text.strip()} of {whole.path.name} ({total:,} bytes)" if "/" in text else f"`bytes` = {text.strip()}"
        students = ladder(steps)
        try:
            channels = widest_within(limit, students, classes, size)
        except StageError as error:
            raise StageError(
                f"no student fits in {counted(limit, 'byte')}, {of}: {error}; allow more `bytes`"
            ) from error
    parameters = sum(parameter.numel() for parameter in build(channels).parameters())
    capped = "; the widest, since a wider one would train for many hours" if channels == students[-1] else ""
    times = {1: "once", 2: "twice"}.get(steps, f"{steps} times")
    reason = (
        f"student: channels {_listed(channels)}, {parameters:,} parameters, for at most {limit:,} bytes, {of}; the "
        f"model halves the resolution {times}{capped}"
    )
    return StudentPlan(channels, reason)


def _graph(path: Path) -> ModelProto:
    import onnx

    return onnx.load(path)


def _listed(channels: Channels) -> str:
    return ", ".join(map(str, channels))
