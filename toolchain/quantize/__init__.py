"""Quantize: convert a float artifact to one of fewer bits."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from toolchain.core.errors import StageError
from toolchain.core.packages import require

if TYPE_CHECKING:
    from collections import Counter

    from calibration.dataset import Images
    from calibration.sample import CalibrationSet
    from targets.artifact import Artifact, Fidelity
    from toolchain.checkpoint.float_model import Range
    from toolchain.formats.write_artifact import Origin
    from toolchain.quantize.calibrate import Calibrated
    from toolchain.quantize.step import Quantize

FULL_RANGE = "8-bit weights: answers may differ on x86 processors without VNNI, where sums of products saturate"
MOSTLY = 0.5
"""Share of float weights above which the sidecar notes that the file is not what its scheme promises."""


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
    from toolchain.formats.write_artifact import write_artifact
    from toolchain.quantize.calibrate import Calibrated, calibrated

    _refuse(artifact, step, save_ranges)
    step = step.for_target(saturates=saturates)
    with tempfile.TemporaryDirectory() as folder:
        prepared = Calibrated(artifact)
        if step.calibrated:
            prepared = calibrated(artifact, step, calibration, Path(folder), log, learned=learned)
        content = step.row.quantizer(artifact.format)(prepared.source, step, prepared.ranges, log)
        notes = _notes(artifact, step, prepared, calibration, content)
        # A file from here on: the comparison needs the memory.
        made = Path(folder) / f"made.{artifact.format}"
        made.write_bytes(content)
        del content
        compare = _comparison(artifact, step, calibration.images if calibration and compared is None else compared)
        origin = _origin(artifact, step, recipe, prepared, notes)
        with _refusals_explained(artifact, step, made):
            quantized = write_artifact(path, origin, partial(shutil.copyfile, made), force=force, compare=compare)
    # Last, so that a killed run leaves no ranges without their file.
    if save_ranges and prepared.ranges:
        try:
            prepared.ranges.save(save_ranges, force=force)
        except OSError as error:
            raise StageError(f"{save_ranges} could not be written ({error.strerror}); {path} is finished") from error
    return quantized


def _refuse(artifact: Artifact, step: Quantize, save_ranges: Path | None) -> None:
    """Raise StageError for a format without such a scheme or a scheme without ranges, PackageMissing as `require`."""
    from toolchain.formats import catalog
    from toolchain.quantize.schemes import QUANTIZERS

    if opaque := catalog.get(artifact.format).opaque:
        raise StageError(f"{artifact.path} {opaque}")
    if reason := step.refusal(artifact.format):
        raise StageError(f"{artifact.path.name}: no {step.scheme} in this format: {reason}")
    for package in QUANTIZERS[artifact.format].packages:
        require(package.replace("-", "_"))
    if save_ranges and not step.calibrated:
        raise StageError(f"{step.scheme} has no ranges to save; leave --save-ranges out")


def _origin(artifact: Artifact, step: Quantize, recipe: str, prepared: Calibrated, notes: tuple[str, ...]) -> Origin:
    from toolchain.formats.uint8_input import PixelInput
    from toolchain.formats.write_artifact import Origin
    from toolchain.quantize.schemes import QUANTIZERS, REGISTRY

    packages = (*QUANTIZERS[artifact.format].packages, *REGISTRY.package(step.scheme))
    facts = prepared.ranges.calibration if prepared.ranges else None
    origin = Origin.of(artifact, recipe, *packages, calibration=facts, notes=notes)
    return replace(origin, preprocess=PixelInput.of(artifact.preprocess).given) if step.integer_io else origin


def _comparison(artifact: Artifact, step: Quantize, images: Images | None) -> Callable[[Artifact], Fidelity] | None:
    """Return what compares the quantized file with the float one; None without images."""
    from toolchain.quantize.fidelity import COMPARED, fidelity

    return None if images is None else partial(fidelity, artifact, images=images[:COMPARED], bits=step.weight_bits)


@contextmanager
def _refusals_explained(artifact: Artifact, step: Quantize, made: Path) -> Iterator[None]:
    """Raise StageError, naming the layer of the float `artifact`, where its runtime refuses the quantized file `made`.

    RunFailed passes unchanged where the runtime's message cannot be traced to a layer.
    """
    from targets.errors import RunFailed
    from toolchain.formats import catalog

    file_format = catalog.get(artifact.format)
    try:
        file_format.check_runs(made)
        yield
    except RunFailed as error:
        operator = file_format.refused_operator(made, str(error))
        if operator is None:
            raise
        raise StageError(
            f"{artifact.path.name}: {file_format.runtime} cannot run what {step.scheme} makes of it{operator}; "
            f"{step.other_schemes()}"
        ) from error


def _notes(
    artifact: Artifact, step: Quantize, prepared: Calibrated, calibration: CalibrationSet | None, content: bytes
) -> tuple[str, ...]:
    """Return the notes of the sidecar, one line each."""
    from toolchain.formats import catalog

    file_format = catalog.get(artifact.format)
    float_parts = file_format.float_parts(content)
    notes = [*artifact.notes, *prepared.notes]
    if file_format.saturates and step.row.saturating and not step.reduced:
        notes.append(FULL_RANGE)
    if calibration and calibration.note and step.needs_images:
        notes.append(calibration.note)
    if step.calibrated and (operators := float_parts.operators()):
        notes.append(f"computed in float: {', '.join(sorted(operators))}")
    if step.keep:
        notes.append(f"kept float: {', '.join(dict.fromkeys(step.keep))}")
    elif not step.row.stays_float and (note := _weights_note(step, float_parts.weights())):
        notes.append(note)
    return tuple(notes)


def _weights_note(step: Quantize, counts: Counter[str]) -> str:
    """Return a note where most weights are still float32, otherwise an empty string.

    counts: as `FloatParts.weights` returns them.
    """
    from toolchain.formats.graph import NOT_FLOAT

    total = counts.total()
    small = counts.pop(NOT_FLOAT, 0)
    if not total or counts.total() <= MOSTLY * total:
        return ""
    kinds = ", ".join(kind for kind, count in counts.most_common(3) if count)
    return (
        f"{(total - small) / total:.0%} of the weights stay float32, those of {kinds}, which {step.scheme} does not "
        f"quantize; {'' if step.calibrated else 'try --scheme static-int8, '}prune or distill the model, or build it "
        "with other layers"
    )
