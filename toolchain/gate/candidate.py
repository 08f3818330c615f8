"""The candidate or the baseline of a gate: the artifact itself or only its stored answers, and how it is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from calibration.dataset import Dataset
from calibration.listener import listener
from calibration.sample import image_hashes
from targets.artifact import Artifact, file_format
from targets.catalog import default_for, get
from targets.metadata import outputs_note
from targets.preprocess import Preprocess
from targets.session import Session
from toolchain.core.context import Progress, RunContext, silent
from toolchain.core.errors import EvidenceError, UsageProblem
from toolchain.evaluation.damaged import Damage, StressAnswers, answers_under
from toolchain.evaluation.evaluate import Evaluation, evaluate
from toolchain.evaluation.untracked import Training, open_artifact
from toolchain.gate.baseline import Baseline, is_baseline
from toolchain.gate.limit import LimitDefinition


@dataclass(frozen=True)
class JudgedFile:
    """A file's answers, and the file itself where it is at hand.

    artifact: None for a saved evaluation or a stored baseline, which can answer nothing new. stress: what a stored
    baseline holds of the answers under damage. target: the target that gave the answers. stored: the stored baseline
    that it came from.
    """

    evaluation: Evaluation
    artifact: Artifact | None = None
    stress: tuple[StressAnswers, ...] = ()
    target: str | None = None
    stored: Baseline | None = None

    def file(self, why: str) -> Artifact:
        """Return the artifact; raises UsageProblem, ending in what it is needed for, where it is not at hand."""
        if self.artifact is None:
            raise without_file(self.evaluation.artifact, why)
        return self.artifact

    def session(self, why: str, threads: int = 0) -> Session:
        """Open the artifact on the target that gave its answers."""
        return open_session(self.file(why), self.target, threads)

    def under_damage(
        self, limit: Damage, dataset: Dataset, *, progress: Progress = silent
    ) -> tuple[StressAnswers, ...]:
        """Read the data set under the damage of a limit; raises UsageProblem where the file is not at hand."""
        with self.session("be read under damage ([stress])") as session:
            return answers_under(limit, session, dataset, progress=progress)


@dataclass(frozen=True)
class Sources:
    """What the evidence on one candidate is collected from (`LimitDefinition.collect`).

    test, train: the images behind the evaluations, and those that the candidate was trained on; None where they are
    not at hand. context: its threads are those of what is timed or weighed.
    """

    candidate: JudgedFile
    baseline: JudgedFile
    test: Dataset | None = None
    train: Dataset | None = None
    context: RunContext = field(default_factory=lambda: RunContext(threads=1))

    def file(self, limit: LimitDefinition) -> Artifact:
        """Return the candidate's file; raises UsageProblem, naming the limit, where it is not at hand."""
        return self.candidate.file(f"{limit.file_must} ([{limit.name}])")

    def test_images(self, limit: LimitDefinition) -> Dataset:
        """Return the test images; raises UsageProblem, naming the limit, where they are not at hand."""
        return require_images(self.test, limit.name)

    def training_images(self, limit: LimitDefinition) -> Dataset:
        """Return the training images; raises UsageProblem, naming the limit, where they are not at hand."""
        return require_images(self.train, limit.name)


def require_images(images: Dataset | None, limit: str) -> Dataset:
    """Return the images; raises UsageProblem, naming the limit that needs them, where they are not at hand."""
    if images is None:
        raise UsageProblem(f"the policy's [{limit}] needs the images: add --data, or drop the limit")
    return images


def without_file(name: str, why: str) -> UsageProblem:
    """Return the error about a file that is not at hand. why: what it is needed for, after "which cannot"."""
    return UsageProblem(
        f"{name} is only a saved evaluation, which cannot {why}; give the artifact itself, or drop the limit"
    )


def open_session(artifact: Artifact, target: str | None = None, threads: int = 0) -> Session:
    """Open an artifact on a target's name, or where its format runs by default.

    Raises UnknownTarget, TargetUnavailable, RunFailed, and UsageProblem when the target takes other files.
    """
    runner = get(target) if target else default_for(artifact.format)
    if artifact.format not in runner.formats:
        kinds = " or ".join(f".{kind}" for kind in sorted(runner.formats))
        fit = default_for(artifact.format).name
        raise UsageProblem(f"{runner.name} runs {kinds} files, not {artifact.path.name}; take --target {fit}")
    return runner.open(artifact, threads=threads)


def evaluate_file(
    path: Path,
    dataset: Dataset,
    *,
    train: Training | None = None,
    target: str | None = None,
    context: RunContext | None = None,
) -> Evaluation:
    """Evaluate an artifact's file on every image of a data set. train: as in `open_artifact`."""
    context = context or RunContext()
    with open_session(open_artifact(path, train), target, context.threads) as session:
        _tell_outputs(session.artifact)
        return evaluate(session, dataset, progress=context.progress)


def _tell_outputs(artifact: Artifact) -> None:
    if note := outputs_note(artifact):
        listener().say(note)


def is_saved(path: Path) -> bool:
    """Return whether the name is that of a saved evaluation or baseline rather than an artifact."""
    return path.suffix.lower() == ".npz"


def read_judged_file(
    path: Path,
    dataset: Dataset | None,
    *,
    train: Training | None = None,
    likely: Preprocess | None = None,
    target: str | None = None,
    progress: Progress = silent,
) -> JudgedFile:
    """Return what an `.npz` holds, or open an artifact and evaluate it on `dataset` on all cores.

    train, likely: as in `open_artifact`. An `.npz` is a saved evaluation or a stored baseline, as its schema says.
    Raises EvidenceError for one of other images than `dataset`, UsageProblem for an artifact without a data set.
    """
    if is_saved(path) and is_baseline(path):
        stored = Baseline.load(path)
        evaluation = _of_these_images(stored.evaluation, path, dataset)
        return JudgedFile(evaluation, stress=stored.stress, stored=stored)
    if is_saved(path):
        return JudgedFile(_of_these_images(Evaluation.load(path), path, dataset))
    if dataset is None:
        file_format(path)
        raise UsageProblem(f"{path.name} is an artifact, so it needs images to read: add --data")
    artifact = open_artifact(path, train, likely=likely)
    with open_session(artifact, target) as session:
        _tell_outputs(artifact)
        return JudgedFile(evaluate(session, dataset, progress=progress), artifact, target=target)


def _of_these_images(evaluation: Evaluation, path: Path, dataset: Dataset | None) -> Evaluation:
    if dataset is not None and evaluation.dataset_sha256 != dataset.sha256:
        raise EvidenceError(
            f"{path} was evaluated on other images ({evaluation.origin}, {len(evaluation):,} images, sha256 "
            f"{evaluation.dataset_sha256[:12]}) than these ({dataset.origin}, {len(dataset):,} images, sha256 "
            f"{dataset.sha256[:12]}); evaluate it again"
        )
    # The digest above is only what the file says of itself; here it is held to the images.
    rows = evaluation.labels, evaluation.sample_ids
    if dataset is not None and not all(map(np.array_equal, rows, (dataset.labels, image_hashes(dataset.images)))):
        raise EvidenceError(
            f"{path} says that it is of {dataset.origin}, but its images or labels are not those, one by one: it was "
            "changed after it was saved; evaluate it again"
        )
    return evaluation
