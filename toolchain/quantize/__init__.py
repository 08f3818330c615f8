"""Quantize: convert a float artifact to one of fewer bits."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from toolchain.core.errors import StageError

if TYPE_CHECKING:
    from collections import Counter

    from calibration.dataset import Images
    from calibration.sample import CalibrationSet
    from targets.artifact import Artifact
    from toolchain.checkpoint.float_model import Range
    from toolchain.quantize.calibrate import Calibrated
    from toolchain.quantize.step import Quantize

FULL_RANGE = "weights of 8 bits: may be read otherwise on x86 processors without VNNI, whose products saturate"
MOSTLY = 0.5
"""Share of float weights above which a file is not what its scheme promises."""


def quantize(
    artifact: Artifact,
    step: Quantize,
    calibration: CalibrationSet | None,
    path: Path,
    *,
    recipe: str,
    force: bool = False,
    log: Path | None = None,
    saturates: bool = True,
    save_ranges: Path | None = None,
    learned: Sequence[Range] = (),
    compared: Images | None = None,
) -> Artifact:
    """Quantize a float artifact into `path`, in its own format, with a sidecar.

    recipe: the name that the sidecar records. log: takes the quantizer's output. saturates: whether the 8-bit kernels
    of the target may saturate (`Quantize.reduce_range`). save_ranges: the file to which the ranges of a static scheme
    are saved. learned: ranges of the layers' inputs from training (`FloatModel.input_ranges`), in place of those of the
    images. compared: images on which the file is compared with the float one (`Artifact.fidelity`), by default those
    of the calibration set. Raises StageError when the artifact is quantized already, its format has no such scheme, a
    needed calibration set is missing, or the step's ranges belong to another file.
    """
    from toolchain.formats import catalog
    from toolchain.formats.uint8_input import PixelInput
    from toolchain.formats.write_artifact import Origin, write_artifact
    from toolchain.quantize.calibrate import Calibrated, calibrated
    from toolchain.quantize.fidelity import COMPARED, fidelity
    from toolchain.quantize.refusals import refusal, refusals_explained
    from toolchain.quantize.schemes import QUANTIZERS

    if opaque := catalog.get(artifact.format).opaque:
        raise StageError(f"{artifact.path} {opaque}")
    if reason := refusal(step, artifact.format):
        raise StageError(f"{artifact.path.name}: no {step.scheme} in this format: {reason}")
    if save_ranges and not step.calibrated:
        raise StageError(f"{step.scheme} has no ranges to save; leave --save-ranges out")
    prepared = Calibrated()
    if step.calibrated:
        prepared = calibrated(artifact, step, calibration, log, saturates=saturates, learned=learned)
    with tempfile.TemporaryDirectory() as folder:
        source = artifact
        if prepared.content is not None:
            source = replace(artifact, path=Path(folder) / artifact.path.name)
            source.path.write_bytes(prepared.content)
            prepared = replace(prepared, content=None)
        content = step.row.quantizer(artifact.format)(source, step, prepared.ranges, log, saturates=saturates)
        notes = _notes(artifact, step, prepared, calibration, content, saturates=saturates)
        # A file from here on: the comparison needs the memory.
        made = Path(folder) / f"made.{artifact.format}"
        made.write_bytes(content)
        del content
        facts = prepared.ranges.calibration if prepared.ranges else None
        origin = Origin.of(artifact, recipe, *QUANTIZERS[artifact.format].packages, calibration=facts, notes=notes)
        if step.integer_io:
            origin = replace(origin, preprocess=PixelInput.of(artifact.preprocess).given)
        images = calibration.images if calibration and compared is None else compared
        compare = None
        if images is not None:
            compare = partial(fidelity, artifact, images=images[:COMPARED], bits=step.weight_bits)
        with refusals_explained(artifact, step, made):
            quantized = write_artifact(path, origin, partial(shutil.copyfile, made), force=force, compare=compare)
    # Last, so that a killed run leaves no ranges without their file.
    if save_ranges and prepared.ranges:
        prepared.ranges.save(save_ranges, force=force)
    return quantized


def _notes(
    artifact: Artifact,
    step: Quantize,
    prepared: Calibrated,
    calibration: CalibrationSet | None,
    content: bytes,
    *,
    saturates: bool,
) -> tuple[str, ...]:
    """Return the notes of the sidecar, one line each."""
    from toolchain.formats import catalog

    file_format = catalog.get(artifact.format)
    float_parts = file_format.float_parts(content)
    notes = (*artifact.notes, *prepared.notes)
    if file_format.saturates and step.row.saturating and not step.reduced(saturates=saturates):
        notes += (FULL_RANGE,)
    if calibration and calibration.note and step.needs_images:
        notes += (calibration.note,)
    if step.calibrated and (operators := float_parts.operators()):
        notes += (f"computed in float: {', '.join(sorted(operators))}",)
    notes += (f"kept float: {', '.join(dict.fromkeys(step.keep))}",) if step.keep else ()
    return (*notes, *filter(None, [_weights_note(step, float_parts.weights())]))


def _weights_note(step: Quantize, counts: Counter[str]) -> str:
    """Return a note where most weights are still float32; an empty string where the step itself keeps layers in float.

    counts: as `FloatParts.weights` returns them.
    """
    from toolchain.formats.graph import NOT_FLOAT

    total = counts.total()
    small = counts.pop(NOT_FLOAT, 0)
    if step.keep or not total or counts.total() <= MOSTLY * total:
        return ""
    kinds = ", ".join(kind for kind, count in counts.most_common(3) if count)
    return (
        f"{(total - small) / total:.0%} of the weights stay float32, those of {kinds}, which {step.scheme} does not "
        f"quantize; {'' if step.calibrated else 'try --scheme static-int8, '}prune or distill the model, or write "
        "these layers otherwise"
    )
