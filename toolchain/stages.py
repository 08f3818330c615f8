"""Single stages, for those who build a pipeline of their own: what `export`, `quantize` and `prune` call."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from calibration.dataset import Dataset, Split, load
from calibration.sample import draw
from targets.artifact import Artifact, Format, explained, load_artifact
from toolchain.checkpoint import CheckpointRequest, settle
from toolchain.errors import UsageProblem
from toolchain.export import export
from toolchain.export.program import save_program
from toolchain.files import refuse_existing
from toolchain.model import FloatModel
from toolchain.progress import Progress, silent
from toolchain.prune import prune
from toolchain.quantize import quantize
from toolchain.steps import Prune, Quantize
from toolchain.steps.quantize import refusal


def export_checkpoint(
    checkpoint: str,
    words: CheckpointRequest,
    output: Path,
    *,
    data: str | None = None,
    data_root: Path | None = None,
    seed: int = 0,
    force: bool = False,
) -> Artifact:
    """Convert a checkpoint to what the suffix of `output` says; raises what `settle` and `export` raise."""
    kinds: dict[str, Format] = {".onnx": "onnx", ".tflite": "tflite"}
    if output.suffix not in kinds:
        raise UsageProblem(f"{output} names no format; let it end in .onnx or .tflite")
    refuse_existing(output, force=force)
    settled = settle(checkpoint, words, _images(data, "train", data_root), seed=seed)
    return export(settled.model, kinds[output.suffix], output, force=force)


def prune_checkpoint(
    checkpoint: str,
    words: CheckpointRequest,
    step: Prune,
    output: Path,
    *,
    data: str,
    data_root: Path | None = None,
    seed: int = 0,
    threads: int = 0,
    force: bool = False,
    progress: Progress = silent,
) -> FloatModel:
    """Prune and fine-tune a checkpoint and write it as a torch.export program (.pt2)."""
    if output.suffix != ".pt2":
        raise UsageProblem(f"{output}: a pruned model has shapes of its own, so it is saved as .pt2; name it so")
    refuse_existing(output, force=force)
    images = load(data, "train", data_root)
    settled = settle(checkpoint, words, images, seed=seed)
    pruned = prune(settled.model, step, images, seed=seed, threads=threads, progress=progress)
    digest = save_program(pruned, output, force=force)
    return replace(pruned, checkpoint_sha256=digest, origin_sha256=pruned.root_sha256)


def quantize_file(
    path: Path,
    step: Quantize,
    output: Path,
    *,
    data: str | None = None,
    data_root: Path | None = None,
    seed: int = 0,
    force: bool = False,
) -> Artifact:
    """Quantize an artifact, or a float .onnx that glyphpress did not make, into `output`.

    Raises UsageProblem when a calibrated scheme is asked for without `data`, the format has no such files, or the
    suffix changes.
    """
    if output.suffix != path.suffix:
        raise UsageProblem(f"{output} should end in {path.suffix}, like {path.name}: quantizing does not convert")
    if reason := refusal(step, path.suffix.removeprefix(".")):
        raise UsageProblem(f"{path.name}: no {step.scheme} in this format: {reason}")
    if step.calibrated and not data:
        raise UsageProblem(f"{step.scheme} takes its ranges from images; give --data, or take --scheme dynamic-int8")
    refuse_existing(output, force=force)
    train = _images(data, "train", data_root)
    images = None
    if step.calibrated and train is not None:
        images = draw(train, step.calibration_images, seed=seed, exclude=_images(data, "test", data_root))
    with tempfile.TemporaryDirectory() as folder:
        source = _float_artifact(path, train, Path(folder), seed)
        return quantize(source, step, images, output, recipe=step.scheme, force=force)


def _float_artifact(path: Path, train: Dataset | None, folder: Path, seed: int) -> Artifact:
    if explained(path) or path.suffix != ".onnx":
        return load_artifact(path)
    settled = settle(str(path), CheckpointRequest(), train, seed=seed)
    return export(settled.model, "onnx", folder / path.name)


def _images(data: str | None, split: Split, data_root: Path | None) -> Dataset | None:
    return load(data, split, data_root) if data else None
