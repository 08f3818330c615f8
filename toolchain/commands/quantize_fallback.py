"""Fallback: find the fewest layers that must stay in float for a quantized file to pass the limit on the drop.

Trials are judged by the paired drop, as in a press, but on images of the train split that do not calibrate the file: a
file chosen on the test split would be biased to pass there.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from calibration.dataset import Dataset
from calibration.sample import CalibrationSet, unseen
from targets.artifact import Artifact
from toolchain.core.context import Progress, RunContext
from toolchain.core.errors import EvidenceError, UsageProblem
from toolchain.core.files import whole_files
from toolchain.core.quantities import points_text
from toolchain.evaluation.compare import compare
from toolchain.evaluation.evaluate import Evaluation, evaluate
from toolchain.explain.explanation import explain
from toolchain.formats.write_artifact import refuse_model
from toolchain.gate.candidate import open_session
from toolchain.gate.limits.drop import DropLimit, judge_drop
from toolchain.gate.outcome import Verdict
from toolchain.quantize import quantize
from toolchain.recipe import Quantize
from toolchain.stats import paired_difference
from toolchain.stats.decision import Outcome

VALIDATION = 5000
"""Number of images of the train split on which trials are judged, at most."""
BLAMED = 128
"""Number of those images on which the layers are ranked by their error."""

Read = Callable[[Artifact, Dataset], Evaluation]
"""Evaluates a file where it will run."""


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
        """Return `keep features.conv4: drop 0.12 [0.31] pp, PASS`."""
        layers = ", ".join(self.keep) or "nothing"
        drop, bound = (points_text(value, 3) for value in (self.verdict.measured or 0.0, self.bound))
        return f"keep {layers} float: {self.bytes:,} bytes, drop {drop} [{bound}] pp, {self.verdict.outcome}"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class Fallback:
    """The result of a search. trials: in order, the plain file first. chosen: the trial whose file was written."""

    artifact: Artifact
    images: Dataset
    trials: tuple[FallbackTrial, ...]
    chosen: FallbackTrial

    def lines(self) -> list[str]:
        """Return one line for each trial, and the conclusion."""
        where = f"trials on {len(self.images):,} images of {self.images.origin}"
        lines = [f"trial {number}: {trial}" for number, trial in enumerate(self.trials)]
        if self.chosen.passed:
            count = len(self.chosen.keep)
            return [
                where,
                *lines,
                f"{count} layer{'' if count == 1 else 's'} kept float" if count else "nothing to keep",
            ]
        best = min(self.trials, key=lambda trial: (trial.verdict.measured or 0.0, trial.bytes))
        return [where, *lines, f"no trial passes, so nothing more is kept; the best: {best}"]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        images = {"origin": self.images.origin, "count": len(self.images), "sha256": self.images.sha256}
        return {"images": images, "trials": [trial.to_dict() for trial in self.trials], "chosen": self.chosen.to_dict()}


def read_here(context: RunContext) -> Read:
    """Return a function that evaluates a file with its format's usual runtime on this machine."""

    def read(artifact: Artifact, images: Dataset) -> Evaluation:
        with open_session(artifact, threads=context.threads) as session:
            return evaluate(session, images, progress=context.progress)

    return read


def quantize_with_fallback(
    artifact: Artifact,
    step: Quantize,
    calibration: CalibrationSet | None,
    path: Path,
    *,
    recipe: str,
    limit: DropLimit | None,
    train: Dataset,
    test: Dataset,
    read: Read,
    context: RunContext,
    **options: Any,
) -> Fallback:
    """Quantize as `quantize` does (`options` go to it), and keep layers in float where the drop exceeds the limit.

    Layers are ranked by the noise that each adds itself (`toolchain.explain`). First the number of the worst layers
    that must be kept is found, by doubling and then halving, then whether any of them can be quantized after all; at
    most `step.fallback` files are tried besides the plain one. Where none passes, the plain file is written.

    Raises UsageProblem without a limit, EvidenceError where the images are too few for any file to pass, and what
    `quantize` raises.
    """
    if limit is None:
        raise UsageProblem("a fallback needs the policy's limit [drop], which it does not have; add it")
    refuse_model(path, force=context.force)
    facts = calibration.facts() if calibration else None
    images = unseen(train, test, VALIDATION, context.seed, facts, at_most=True)
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
            trial_step = step.model_copy(update={"keep": layers})
            made[layers] = quantize(artifact, trial_step, calibration, trial_path, recipe=recipe, **options)
            comparison = compare(base, read(made[layers], images))
            bound = paired_difference.upper_bound(
                comparison.lost, comparison.gained, comparison.images, limit.confidence
            )
            return FallbackTrial(layers, made[layers].size, float(bound), judge_drop(limit, comparison))

        trials = [attempt(())]
        if not trials[0].passed:
            sample = images.take(np.arange(min(BLAMED, len(images))), "blame")
            blamed = explain(artifact, made[trials[0].keep], sample, progress=context.progress).blame()
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
    kept = list(blamed[:high])
    # The last layer that was added is needed; of the others the one with the least noise is tried first.
    for layer in reversed(kept[:-1]):
        if len(trials) < most and passes([other for other in kept if other != layer]):
            kept.remove(layer)
    progress("fallback trials", len(trials), len(trials))
    return trials


def _copied(made: Artifact, path: Path, *, force: bool) -> Artifact:
    """Copy a trial's file and sidecar to `path`."""
    copied = replace(made, path=path)
    with whole_files(path, copied.sidecar, force=force) as (part, side):
        shutil.copyfile(made.path, part)
        shutil.copyfile(made.sidecar, side)
    return copied
