"""Fallback: where a quantized file reads too badly, the fewest layers that must stay float for it to pass.

It is judged as a press is, by the paired drop, but on images of the train split that neither calibrate the file nor
judge it in the end: a choice that was made on the test split would pass there by having been chosen.
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
from toolchain.core.context import RunContext
from toolchain.core.errors import EvidenceError, UsageProblem
from toolchain.core.files import whole_files
from toolchain.core.progress import Progress
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
"""Images of the train split that trials are judged on, where it has so many."""
BLAMED = 128
"""Of those, on how many the layers are blamed."""

Read = Callable[[Artifact, Dataset], Evaluation]
"""Opens a file where it will run, and evaluates it."""


@dataclass(frozen=True)
class FallbackTrial:
    """One file that was tried: the layers that stay float in it, its bytes, and what the gate says of its drop.

    bound: what the drop is at most, with the limit's confidence.
    """

    keep: tuple[str, ...]
    bytes: int
    bound: float
    verdict: Verdict

    @property
    def passed(self) -> bool:
        """Whether it holds the limit."""
        return self.verdict.outcome is Outcome.PASS

    def __str__(self) -> str:
        """Return `keep features.conv4: drop 0.12 [0.31] pp, PASS`."""
        kept = ", ".join(self.keep) or "nothing"
        drop, bound = (points_text(value, 3) for value in (self.verdict.measured or 0.0, self.bound))
        return f"keep {kept} float: {self.bytes:,} bytes, drop {drop} [{bound}] pp, {self.verdict.outcome}"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class Fallback:
    """What a search found. trials: in their order, the plain file first. chosen: the one that was written."""

    artifact: Artifact
    images: Dataset
    trials: tuple[FallbackTrial, ...]
    chosen: FallbackTrial

    def lines(self) -> list[str]:
        """Return a line a trial, and what came of them."""
        where = f"trials on {len(self.images):,} images of {self.images.origin}"
        told = [f"trial {number}: {trial}" for number, trial in enumerate(self.trials)]
        if self.chosen.passed:
            kept = len(self.chosen.keep)
            return [where, *told, f"{kept} layer{'' if kept == 1 else 's'} kept float" if kept else "nothing to keep"]
        best = min(self.trials, key=lambda one: (one.verdict.measured or 0.0, one.bytes))
        return [where, *told, f"no trial passes, so nothing more is kept; the best: {best}"]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        images = {"origin": self.images.origin, "count": len(self.images), "sha256": self.images.sha256}
        return {"images": images, "trials": [one.to_dict() for one in self.trials], "chosen": self.chosen.to_dict()}


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
    **ways: Any,
) -> Fallback:
    """Quantize as `quantize` does (`ways` go to it), and where the drop is beyond the limit keep layers float.

    Layers are blamed by the noise that each adds itself (`toolchain.explain`). First the number of blamed layers that
    must be kept is found, by doubling and then halving, then whether one of them can be done without; at most
    `step.fallback` files are tried beside the plain one. Where none passes, the plain file is written.

    Raises UsageProblem without a limit, EvidenceError where the images are too few for any file to pass, and what
    `quantize` raises.
    """
    if limit is None:
        raise UsageProblem("fallback searches for what holds the policy's [drop], which it does not have; add it")
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
            place = Path(folder, str(len(made)), path.name)
            tried = step.model_copy(update={"keep": layers})
            made[layers] = quantize(artifact, tried, calibration, place, recipe=recipe, **ways)
            seen = compare(base, read(made[layers], images))
            bound = paired_difference.upper_bound(seen.lost, seen.gained, seen.images, limit.confidence)
            return FallbackTrial(layers, made[layers].size, float(bound), judge_drop(limit, seen))

        trials = [attempt(())]
        if not trials[0].passed:
            sample = images.take(np.arange(min(BLAMED, len(images))), "blame")
            blamed = explain(artifact, made[trials[0].keep], sample, progress=context.progress).blame()
            trials += _search([one.layer for one in blamed], attempt, step.fallback, context.progress)
        passing = [one for one in trials if one.passed]
        chosen = min(passing, key=lambda one: (len(one.keep), one.bytes)) if passing else trials[0]
        written = _written(made[chosen.keep], path, force=context.force)
    return Fallback(written, images, tuple(trials), chosen)


def _search(
    blamed: Sequence[str], attempt: Callable[[Sequence[str]], FallbackTrial], most: int, progress: Progress
) -> list[FallbackTrial]:
    """Return the trials: ever more of the blamed layers, then fewer, then without one of them."""
    trials: list[FallbackTrial] = []

    def passes(keep: Sequence[str]) -> bool:
        progress("fallback trials", len(trials), most)
        trials.append(attempt(keep))
        return trials[-1].passed

    # One layer at least is quantized.
    low, high, limit = 0, 0, len(blamed) - 1
    while len(trials) < most and low < limit and (not high or high - low > 1):
        size = (low + high) // 2 if high else min(max(1, 2 * low), limit)
        if passes(blamed[:size]):
            high = size
        else:
            low = size
    kept = list(blamed[:high])
    # The last one that was added is needed; of the others the least blamed may go first.
    for layer in reversed(kept[:-1]):
        if len(trials) < most and passes([one for one in kept if one != layer]):
            kept.remove(layer)
    progress("fallback trials", len(trials), len(trials))
    return trials


def _written(made: Artifact, path: Path, *, force: bool) -> Artifact:
    """Give a file that was tried its name, together with its sidecar."""
    written = replace(made, path=path)
    with whole_files(path, written.sidecar, force=force) as (part, side):
        shutil.copyfile(made.path, part)
        shutil.copyfile(made.sidecar, side)
    return written
