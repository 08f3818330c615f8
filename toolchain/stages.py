"""Single stages, for those who build a pipeline of their own: what `export`, `quantize` and `prune` call."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from calibration.dataset import Dataset, Split, load
from calibration.sample import draw
from targets.artifact import Artifact, Format, explained, load_artifact
from toolchain.checkpoint import CheckpointRequest, settle
from toolchain.errors import UsageProblem
from toolchain.export import export
from toolchain.export.ort_format import export_ort, operators_path
from toolchain.export.program import save_program
from toolchain.files import refuse_existing
from toolchain.model import FloatModel
from toolchain.progress import Progress, silent
from toolchain.prune import Sensitivity, sensitivity
from toolchain.quantize import quantize
from toolchain.quantize.ranges import read_ranges
from toolchain.recipe import Recipe
from toolchain.shaping import Shaper
from toolchain.steps import Distill, Equalize, Prune, Quantize
from toolchain.steps.quantize import refusal


def export_checkpoint(
    checkpoint: str,
    words: CheckpointRequest,
    output: Path,
    *,
    data: str | None = None,
    data_root: Path | None = None,
    seed: int = 0,
    ops_config: bool = False,
    this_cpu: bool = False,
    force: bool = False,
) -> Artifact:
    """Convert a checkpoint to what the suffix of `output` says, or an .onnx artifact to .ort.

    ops_config, this_cpu: of an .ort alone, see `export_ort`. Raises what `settle`, `export` and `export_ort` raise, and
    UsageProblem for another suffix, or for either of them with another format.
    """
    kinds: dict[str, Format] = {".onnx": "onnx", ".ort": "ort", ".tflite": "tflite"}
    if output.suffix not in kinds:
        raise UsageProblem(f"{output} names no format; let it end in .onnx, .ort or .tflite")
    kind = kinds[output.suffix]
    refuse_existing(output, force=force)
    if kind != "ort" and (ops_config or this_cpu):
        option = "--ops-config" if ops_config else "--this-cpu"
        raise UsageProblem(f"{option} is for .ort files, and {output.name} is none; leave it out")
    if kind == "ort":
        if ops_config:
            refuse_existing(operators_path(output), force=force)
        with tempfile.TemporaryDirectory() as folder:
            source = _onnx_artifact(checkpoint, words, _images(data, "train", data_root), Path(folder), seed)
            return export_ort(source, output, ops_config=ops_config, fitted=this_cpu, force=force)
    settled = settle(checkpoint, words, _images(data, "train", data_root), seed=seed)
    return export(settled.model, kind, output, force=force)


def _onnx_artifact(
    checkpoint: str, words: CheckpointRequest, train: Dataset | None, folder: Path, seed: int
) -> Artifact:
    path = Path(checkpoint)
    if path.suffix == ".onnx" and path.is_file() and explained(path):
        return load_artifact(path)
    settled = settle(checkpoint, words, train, seed=seed)
    return export(settled.model, "onnx", folder / f"{settled.model.name}.onnx")


def shape_checkpoint(
    checkpoint: str,
    words: CheckpointRequest,
    step: Prune | Distill | Equalize,
    output: Path,
    *,
    data: str,
    data_root: Path | None = None,
    seed: int = 0,
    threads: int = 0,
    force: bool = False,
    progress: Progress = silent,
) -> FloatModel:
    """Take a checkpoint through one step and write what comes out as a torch.export program (.pt2)."""
    if output.suffix != ".pt2":
        raise UsageProblem(f"{output}: such a model has shapes of its own, so it is saved as .pt2; name it so")
    refuse_existing(output, force=force)
    images = load(data, "train", data_root)
    settled = settle(checkpoint, words, images, seed=seed)
    recipe = Recipe(name=step.kind, steps=(step,))
    shaped = Shaper(images, seed, threads, progress).shaped(settled.model, recipe)
    digest = save_program(shaped, output, force=force)
    return replace(shaped, checkpoint_sha256=digest, origin_sha256=shaped.root_sha256)


def sensitivity_of(
    checkpoint: str,
    words: CheckpointRequest,
    *,
    data: str,
    data_root: Path | None = None,
    seed: int = 0,
    **how: Any,
) -> Sensitivity:
    """Load a checkpoint and the train split of its data, and return what `sensitivity` finds; `how` goes to it."""
    images = load(data, "train", data_root)
    settled = settle(checkpoint, words, images, seed=seed)
    return sensitivity(settled.model, images, seed=seed, **how)


def quantize_file(
    path: Path,
    step: Quantize,
    output: Path,
    *,
    data: str | None = None,
    data_root: Path | None = None,
    seed: int = 0,
    force: bool = False,
    save_ranges: Path | None = None,
) -> Artifact:
    """Quantize an artifact, or a float .onnx that glyphpress did not make, into `output`.

    save_ranges: a file that takes the ranges of a static scheme. Raises UsageProblem when images are needed and `data`
    is not given, the format has no such files, or the suffix changes.
    """
    if output.suffix != path.suffix:
        raise UsageProblem(f"{output} should end in {path.suffix}, like {path.name}: quantizing does not convert")
    if reason := refusal(step, path.suffix.removeprefix(".")):
        raise UsageProblem(f"{path.name}: no {step.scheme} in this format: {reason}")
    if step.needs_images and not data:
        raise UsageProblem(f"{step.scheme} takes its ranges from images; give --data, or take --scheme dynamic-int8")
    for result in filter(None, (output, save_ranges)):
        refuse_existing(result, force=force)
    if step.ranges:
        read_ranges(Path(step.ranges))
    train = _images(data, "train", data_root)
    images = None
    if step.needs_images and train is not None:
        images = draw(train, step.calibration_images, seed=seed, exclude=_images(data, "test", data_root))
    with tempfile.TemporaryDirectory() as folder:
        source = _float_artifact(path, train, Path(folder), seed)
        return quantize(source, step, images, output, recipe=step.scheme, force=force, save_ranges=save_ranges)


def _float_artifact(path: Path, train: Dataset | None, folder: Path, seed: int) -> Artifact:
    if path.suffix != ".onnx":
        return load_artifact(path)
    return _onnx_artifact(str(path), CheckpointRequest(), train, folder, seed)


def _images(data: str | None, split: Split, data_root: Path | None) -> Dataset | None:
    return load(data, split, data_root) if data else None
