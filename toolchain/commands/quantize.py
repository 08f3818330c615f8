"""Quantize one file; where it would read too badly, keep the fewest layers in float with which it does not."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from calibration.dataset import Dataset
from calibration.load import load, load_or_why, train_split
from calibration.sample import CalibrationSet, draw, unseen
from targets.artifact import Artifact
from targets.host.text import argument, instead_of
from targets.metadata import load_artifact
from toolchain.checkpoint import CheckpointRequest
from toolchain.commands.export import labelled, onnx_artifact
from toolchain.core.context import Progress, RunContext
from toolchain.core.errors import EvidenceError, PreprocessUnknown, StageError, UsageProblem
from toolchain.core.files import refuse_existing, refuse_source, whole_files
from toolchain.core.json_codec import to_json
from toolchain.core.quantities import counted, points_text
from toolchain.evaluation.compare import compare
from toolchain.evaluation.evaluate import Evaluation, evaluate
from toolchain.explain.explanation import explain
from toolchain.formats import catalog as formats
from toolchain.formats.write_artifact import refuse_model
from toolchain.gate.candidate import open_session
from toolchain.gate.limit import Verdict
from toolchain.gate.limits.drop import DropLimit, judge_drop
from toolchain.quantize import quantize
from toolchain.quantize.fidelity import sample
from toolchain.quantize.ranges import read_ranges
from toolchain.quantize.schemes import QUANTIZERS
from toolchain.recipe import Quantize
from toolchain.stats import paired_difference
from toolchain.stats.decision import Outcome

_NEEDS_NO_IMAGES = "--scheme dynamic-int8, weight-int8 or float16, which need none"


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
    _check(path, step, output, data, force=context.force)
    if limit is None:
        raise UsageProblem("a fallback needs a margin for the drop; give a policy with [drop]")
    train = train_split(data, context.data_root, "--fallback tries files on training images; leave it out")
    test = load(data, "test", context.data_root)
    read = read_here(context)
    with tempfile.TemporaryDirectory() as folder:
        source = _float_artifact(path, CheckpointRequest(), train, Path(folder), context.seed)
        calibration = _calibration(step, train, test, context.seed)
        compared = None if step.needs_images else sample(train, context.seed)

        def make(step: Quantize, path: Path) -> Artifact:
            return quantize(source, step, calibration, path, recipe=step.scheme, compared=compared)

        fallback = quantize_with_fallback(
            source,
            step,
            output,
            make=make,
            limit=limit,
            train=train,
            test=test,
            calibration=calibration,
            read=read,
            context=context,
        )
        verdict = judge_drop(limit, compare(read(source, test), read(fallback.artifact, test)))
        return fallback, replace(verdict, artifact=fallback.artifact.path.name)


def _check(path: Path, step: Quantize, output: Path, data: str | None, *, force: bool) -> None:
    """Raise UsageProblem before any work where the request is impossible, StageError where the file is unsuitable."""
    file_format = formats.of(path)
    if file_format is None or file_format.name not in QUANTIZERS:
        if explanation := instead_of(path):
            raise StageError(f"{path} {explanation}")
        if file_format and file_format.parent:
            raise StageError(f"{path.name} cannot be quantized; quantize the .{file_format.parent} that it was made of")
        fix = f"convert it first: `glyphpress export {argument(path)} -o NAME.onnx`"
        raise StageError(f"{path.name} is neither {formats.suffixes(map(formats.get, QUANTIZERS), 'nor')}; {fix}")
    if output.suffix != path.suffix:
        raise UsageProblem(f"{output} should end in {path.suffix}, like {path.name}: quantizing does not convert")
    if reason := step.refusal(file_format.name):
        raise UsageProblem(f"{path.name}: no {step.scheme} in this format: {reason}")
    if not file_format.saturates and step.reduce_range is not None:
        saturating = formats.suffixes((other for other in formats.formats() if other.saturates), "and")
        raise UsageProblem(f"--full-range is for {saturating} files, and {path.name} is none; leave it out")
    if step.needs_images and not data:
        raise UsageProblem(f"{step.scheme} takes its ranges from images; give --data, or take {_NEEDS_NO_IMAGES}")
    refuse_source(output, path)
    refuse_model(output, force=force)
    if step.ranges:
        read_ranges(Path(step.ranges))


def _train_split(data: str, data_root: Path | None, step: Quantize) -> Dataset:
    reason = (
        "--bias-correction needs training images; leave it out"
        if step.ranges
        else f"{step.scheme} takes its ranges from training images; take --ranges FILE of an earlier --save-ranges, or "
        f"{_NEEDS_NO_IMAGES}"
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


_VALIDATION = 5000
"""Number of images of the train split on which trials are judged, at most."""
_RANKED = 128
"""Number of those images on which the layers are ranked by their error."""

Read = Callable[[Artifact, Dataset], Evaluation]
"""Evaluates a file where it will run."""
Make = Callable[[Quantize, Path], Artifact]
"""Quantizes the float file by a step into a path."""


@dataclass(frozen=True)
class FallbackTrial:
    """One file that was tried: the layers kept in float, its size, and the verdict on its drop.

    bound: upper bound of the drop, with the limit's confidence.
    """

    keep: tuple[str, ...]
    bytes: int
    bound: float
    verdict: Verdict

    @property
    def passed(self) -> bool:
        """Whether the drop is within the limit."""
        return self.verdict.outcome is Outcome.PASS

    def __str__(self) -> str:
        """Return `keep features.conv4 float: 21,345 bytes, drop 0.12 [0.31] pp, PASS`."""
        layers = ", ".join(self.keep) or "nothing"
        drop, bound = (points_text(value, 3) for value in (self.verdict.measured or 0.0, self.bound))
        return f"keep {layers} float: {self.bytes:,} bytes, drop {drop} [{bound}] pp, {self.verdict.outcome}"


@dataclass(frozen=True)
class Fallback:
    """The result of a search. trials: in order, the plain file first. chosen: the trial whose file was written."""

    artifact: Artifact
    images: Dataset
    trials: tuple[FallbackTrial, ...]
    chosen: FallbackTrial

    def lines(self) -> list[str]:
        """Return one line for each trial, and the conclusion."""
        count = len(self.chosen.keep)
        conclusion = f"{counted(count, 'layer')} kept float" if count else "nothing to keep"
        if not self.chosen.passed:
            best = min(self.trials, key=lambda trial: (trial.verdict.measured or 0.0, trial.bytes))
            conclusion = f"no trial passes, so nothing more is kept; the best: {best}"
        return [
            f"trials on {len(self.images):,} images of {self.images.origin}",
            *(f"trial {number}: {trial}" for number, trial in enumerate(self.trials)),
            conclusion,
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        images = {"origin": self.images.origin, "count": len(self.images), "sha256": self.images.sha256}
        return {"images": images, "trials": [to_json(trial) for trial in self.trials], "chosen": to_json(self.chosen)}


def read_here(context: RunContext) -> Read:
    """Return a function that evaluates a file with its format's usual runtime on this machine."""

    def read(artifact: Artifact, images: Dataset) -> Evaluation:
        with open_session(artifact, threads=context.threads) as session:
            return evaluate(session, images, progress=context.progress)

    return read


def quantize_with_fallback(
    artifact: Artifact,
    step: Quantize,
    path: Path,
    *,
    make: Make,
    limit: DropLimit | None,
    train: Dataset,
    test: Dataset,
    calibration: CalibrationSet | None,
    read: Read,
    context: RunContext,
) -> Fallback:
    """Quantize a float artifact into `path` by `make`, and keep layers in float where the drop exceeds the limit.

    Layers are ranked by the noise that each adds itself (`toolchain.explain`). First the number of the worst layers
    that must be kept is found, by doubling and then halving, then whether any of them can be quantized after all; at
    most `step.fallback` files are tried besides the plain one. Where none passes, the plain file is written.

    Trials are judged by the paired drop, as in a press, but on images of `train` that are not in `calibration`: a file
    chosen on the test split would be biased to pass there.

    Raises UsageProblem without a limit, EvidenceError where the images are too few for any file to pass, and what
    `make` raises.
    """
    if limit is None:
        raise UsageProblem("a fallback needs the policy's limit [drop], which it does not have; add it")
    refuse_model(path, force=context.force)
    facts = calibration.facts() if calibration else None
    images = unseen(train, test, _VALIDATION, context.seed, facts, at_most=True)
    if paired_difference.decide(0, 0, len(images), limit.max, limit.confidence).item() != Outcome.PASS:
        raise EvidenceError(
            f"{len(images):,} images of {train.origin} that do not calibrate the file are too few to show a drop "
            f"within {limit.max * 100:.4g} pp even if no answer changes; allow a larger drop with --max-drop, "
            "calibrate on fewer images with --calibration-images, or add data"
        )
    base = read(artifact, images)
    with tempfile.TemporaryDirectory() as folder:
        made: dict[tuple[str, ...], Artifact] = {}

        def attempt(keep: Sequence[str]) -> FallbackTrial:
            layers = tuple(sorted({*step.keep, *keep}))
            trial_path = Path(folder, str(len(made)), path.name)
            made[layers] = make(step.model_copy(update={"keep": layers}), trial_path)
            comparison = compare(base, read(made[layers], images))
            bound = paired_difference.upper_bound(
                comparison.lost, comparison.gained, comparison.images, limit.confidence
            )
            return FallbackTrial(layers, made[layers].size, float(bound), judge_drop(limit, comparison))

        trials = [attempt(())]
        if not trials[0].passed:
            few = images.take(np.arange(min(_RANKED, len(images))), "blame")
            blamed = explain(artifact, made[trials[0].keep], few, progress=context.progress).blame()
            trials += _search([layer.layer for layer in blamed], attempt, step.fallback, context.progress)
        passing = [trial for trial in trials if trial.passed]
        chosen = min(passing, key=lambda trial: (len(trial.keep), trial.bytes)) if passing else trials[0]
        artifact = _copied(made[chosen.keep], path, force=context.force)
    return Fallback(artifact, images, tuple(trials), chosen)


def _search(
    blamed: Sequence[str], attempt: Callable[[Sequence[str]], FallbackTrial], most: int, progress: Progress
) -> list[FallbackTrial]:
    """Return the trials: with more and more of the worst layers, then with fewer, then without single ones."""
    trials: list[FallbackTrial] = []

    def passes(keep: Sequence[str]) -> bool:
        progress("fallback trials", len(trials), most)
        trials.append(attempt(keep))
        return trials[-1].passed

    # At least one layer is quantized.
    low, high, limit = 0, 0, len(blamed) - 1
    while len(trials) < most and low < limit and (not high or high - low > 1):
        size = (low + high) // 2 if high else min(max(1, 2 * low), limit)
        if passes(blamed[:size]):
            high = size
        else:
            low = size
    needed = list(blamed[:high])
    # The last layer that was added is needed; of the others the one with the least noise is tried first.
    for layer in reversed(needed[:-1]):
        if len(trials) < most and passes([other for other in needed if other != layer]):
            needed.remove(layer)
    progress("fallback trials", len(trials), len(trials))
    return trials


def _copied(made: Artifact, path: Path, *, force: bool) -> Artifact:
    """Copy a trial's file and sidecar to `path`."""
    copied = replace(made, path=path)
    with whole_files(path, copied.sidecar, force=force) as (part, side):
        shutil.copyfile(made.path, part)
        shutil.copyfile(made.sidecar, side)
    return copied
