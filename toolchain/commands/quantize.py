"""Quantize one file, and judge it where layers may be kept in float."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from calibration.dataset import Dataset
from calibration.load import load, load_or_why, train_split
from calibration.sample import CalibrationSet, draw
from targets.artifact import Artifact
from targets.host.text import argument, instead_of
from targets.metadata import load_artifact
from toolchain.checkpoint import CheckpointRequest
from toolchain.commands.export import labelled, onnx_artifact
from toolchain.core.context import RunContext
from toolchain.core.errors import PreprocessUnknown, UsageProblem
from toolchain.core.files import refuse_existing, refuse_source
from toolchain.formats import catalog as formats
from toolchain.formats.write_artifact import refuse_model
from toolchain.quantize import quantize
from toolchain.quantize.fidelity import sample
from toolchain.quantize.ranges import read_ranges
from toolchain.quantize.schemes import QUANTIZERS
from toolchain.recipe import Quantize

if TYPE_CHECKING:
    from toolchain.commands.quantize_fallback import Fallback
    from toolchain.gate.limits.drop import DropLimit
    from toolchain.gate.outcome import Verdict

NEEDS_NO_IMAGES = "--scheme dynamic-int8, weight-int8 or float16, which need none"


def quantize_file(
    path: Path,
    step: Quantize,
    output: Path,
    *,
    data: str | None = None,
    save_ranges: Path | None = None,
    context: RunContext,
) -> Artifact:
    """Quantize an artifact, or a float .onnx that glyphpress did not make, into `output`.

    save_ranges: the file to which the ranges of a static scheme are saved. Raises UsageProblem when images are needed
    and `data` is not given, the format has no such files, the suffix changes, or the step has a fallback
    (`quantize_within`).
    """
    if step.fallback:
        raise UsageProblem("a fallback needs a margin for the drop; call quantize_within, or leave fallback out")
    _check(path, step, output, data, force=context.force)
    if save_ranges:
        refuse_existing(save_ranges, force=context.force)
    request, train = labelled(CheckpointRequest(), data, context.data_root)
    if data and step.needs_images:
        train = _train_split(data, context.data_root, step)
    test = load_or_why(data, "test", context.data_root) if data and train else None
    with tempfile.TemporaryDirectory() as folder:
        source = _float_artifact(path, request, train, Path(folder), context.seed)
        images = _calibration(step, train, test if isinstance(test, Dataset) else None, context.seed)
        return quantize(
            source,
            step,
            images,
            output,
            recipe=step.scheme,
            force=context.force,
            save_ranges=save_ranges,
            compared=sample(train, context.seed) if train and not images else None,
        )


def quantize_within(
    path: Path,
    step: Quantize,
    output: Path,
    limit: DropLimit | None,
    *,
    data: str,
    context: RunContext,
) -> tuple[Fallback, Verdict]:
    """Quantize as `quantize_file` does, but keep layers in float where the drop would exceed `limit`.

    Returns the search and the verdict on the written file, measured on the test split, which no choice was made on.
    Raises what `quantize_file` and `quantize_with_fallback` raise.
    """
    from toolchain.commands.quantize_fallback import quantize_with_fallback, read_here
    from toolchain.evaluation.compare import compare
    from toolchain.gate.limits.drop import judge_drop

    _check(path, step, output, data, force=context.force)
    if limit is None:
        raise UsageProblem("a fallback needs a margin for the drop; give a policy with [drop]")
    train = train_split(data, context.data_root, "--fallback tries files on training images; leave it out")
    test = load(data, "test", context.data_root)
    read = read_here(context)
    with tempfile.TemporaryDirectory() as folder:
        source = _float_artifact(path, CheckpointRequest(), train, Path(folder), context.seed)
        fallback = quantize_with_fallback(
            source,
            step,
            _calibration(step, train, test, context.seed),
            output,
            recipe=step.scheme,
            limit=limit,
            train=train,
            test=test,
            read=read,
            compared=None if step.needs_images else sample(train, context.seed),
            context=context,
        )
        verdict = judge_drop(limit, compare(read(source, test), read(fallback.artifact, test)))
        return fallback, replace(verdict, artifact=fallback.artifact.path.name)


def _check(path: Path, step: Quantize, output: Path, data: str | None, *, force: bool) -> None:
    """Raise UsageProblem before any work where the request is impossible."""
    file_format = formats.of(path)
    if file_format is None or file_format.name not in QUANTIZERS:
        if explanation := instead_of(path):
            raise UsageProblem(f"{path} {explanation}")
        if file_format and file_format.parent:
            raise UsageProblem(
                f"{path.name} cannot be quantized; quantize the .{file_format.parent} that it was made of"
            )
        fix = f"convert it first: `glyphpress export {argument(path)} -o NAME.onnx`"
        raise UsageProblem(f"{path.name} is neither {formats.suffixes(map(formats.get, QUANTIZERS), 'nor')}; {fix}")
    if output.suffix != path.suffix:
        raise UsageProblem(f"{output} should end in {path.suffix}, like {path.name}: quantizing does not convert")
    if reason := step.refusal(file_format.name):
        raise UsageProblem(f"{path.name}: no {step.scheme} in this format: {reason}")
    if not file_format.saturates and step.reduce_range is not None:
        saturating = formats.suffixes((other for other in formats.formats() if other.saturates), "and")
        raise UsageProblem(f"--full-range is for {saturating} files, and {path.name} is none; leave it out")
    if step.needs_images and not data:
        raise UsageProblem(f"{step.scheme} takes its ranges from images; give --data, or take {NEEDS_NO_IMAGES}")
    refuse_source(output, path)
    refuse_model(output, force=force)
    if step.ranges:
        read_ranges(Path(step.ranges))


def _train_split(data: str, data_root: Path | None, step: Quantize) -> Dataset:
    reason = (
        "--bias-correction needs training images; leave it out"
        if step.ranges
        else f"{step.scheme} takes its ranges from training images; take --ranges FILE of an earlier --save-ranges, or "
        f"{NEEDS_NO_IMAGES}"
    )
    return train_split(data, data_root, reason)


def _calibration(step: Quantize, train: Dataset | None, test: Dataset | None, seed: int) -> CalibrationSet | None:
    if not step.needs_images or train is None:
        return None
    return draw(train, step.calibration_images, seed=seed, exclude=test, at_most=True)


def _float_artifact(path: Path, request: CheckpointRequest, train: Dataset | None, folder: Path, seed: int) -> Artifact:
    file_format = formats.of(path)
    if file_format is None or not file_format.loads:
        return load_artifact(path)
    try:
        return onnx_artifact(str(path), request, train, folder, seed)
    except PreprocessUnknown as error:
        raise PreprocessUnknown(f"{error}; options go to `glyphpress adopt {argument(path)} --data DATA`") from error
