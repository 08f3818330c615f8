"""Evidence: the evaluations, comparison and timings that a policy needs, from artifacts or from saved evaluations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from calibration.dataset import Dataset
from targets.artifact import Artifact
from targets.catalog import default_for, get
from targets.target import Session, TimingPlan, Timings
from toolchain.adoption import open_artifact
from toolchain.errors import EvidenceError, UsageProblem
from toolchain.progress import Progress, silent
from toolchain.verdict.compare import Comparison, compare
from toolchain.verdict.evaluate import Evaluation, evaluate
from toolchain.verdict.latency import profile, timeable
from toolchain.verdict.policy import Policy

# Single inferences, so that the tail stays visible, and enough of them for a P99.
GATE_PLAN = TimingPlan(min_runs=1000, min_seconds=2.0, inner=1)


@dataclass(frozen=True)
class Evidence:
    """What `gate.judge` is given; timings only where the policy limits them."""

    comparison: Comparison
    timings: Timings | None = None
    baseline_timings: Timings | None = None


def open_session(artifact: Artifact, target: str | None = None, threads: int = 0) -> Session:
    """Open an artifact on a target's name, or where its format runs by default.

    Raises UnknownTarget, TargetUnavailable, RunFailed, and UsageProblem when the target takes other files.
    """
    place = get(target) if target else default_for(artifact.format)
    if artifact.format not in place.formats:
        kinds = " or ".join(f".{kind}" for kind in sorted(place.formats))
        fit = default_for(artifact.format).name
        raise UsageProblem(f"{place.name} runs {kinds} files, not {artifact.path.name}; take --target {fit}")
    return place.open(artifact, threads=threads)


def evaluate_file(
    path: Path, dataset: Dataset, *, target: str | None = None, threads: int = 0, progress: Progress = silent
) -> Evaluation:
    """Evaluate an artifact's file on every image of a data set; `threads` 0 takes all cores."""
    with open_session(open_artifact(path, dataset), target, threads) as session:
        return evaluate(session, dataset, progress=progress)


def saved(path: Path) -> bool:
    """Return whether the name is that of a saved evaluation rather than an artifact."""
    return path.suffix.lower() == ".npz"


def read_evaluation(
    path: Path, dataset: Dataset | None, *, target: str | None = None, progress: Progress = silent
) -> Evaluation:
    """Return the evaluation saved in an `.npz`, or evaluate an artifact on `dataset`.

    Raises EvidenceError for a saved evaluation of other images than `dataset`, UsageProblem for an artifact without
    a data set.
    """
    if not saved(path):
        if dataset is None:
            raise UsageProblem(f"{path.name} is an artifact, so it needs images to read: add --data")
        return evaluate_file(path, dataset, target=target, progress=progress)
    evaluation = Evaluation.load(path)
    if dataset is not None and evaluation.dataset_sha256 != dataset.sha256:
        raise EvidenceError(
            f"{path} was evaluated on other images ({evaluation.origin}) than {dataset.origin}; evaluate it again"
        )
    return evaluation


def compare_files(
    baseline: Path,
    candidate: Path,
    dataset: Dataset | None,
    *,
    target: str | None = None,
    progress: Progress = silent,
) -> Comparison:
    """Pair two artifacts or saved evaluations image by image."""
    return compare(
        read_evaluation(baseline, dataset, target=target, progress=progress),
        read_evaluation(candidate, dataset, target=target, progress=progress),
    )


def gather(
    policy: Policy,
    baseline: Path,
    candidate: Path,
    dataset: Dataset | None,
    *,
    target: str | None = None,
    threads: int = 1,
    progress: Progress = silent,
) -> Evidence:
    """Return all that `policy` needs to judge `candidate`; accuracy on all cores, latency on `threads`.

    Raises UsageProblem when a latency is limited and only a saved evaluation is given, since it cannot be timed.
    """
    for path, asked in ((candidate, policy.needs_timings), (baseline, policy.needs_baseline_timings)):
        if asked and saved(path):
            raise UsageProblem(f"{path.name} is a saved evaluation, which cannot be timed; give the artifact itself")
    comparison = compare_files(baseline, candidate, dataset, target=target, progress=progress)
    if not policy.needs_timings:
        return Evidence(comparison)
    files = [baseline, candidate] if policy.needs_baseline_timings else [candidate]
    rows = profile(
        [timeable(path) for path in files],
        target=get(target) if target else None,
        threads=threads,
        plan=GATE_PLAN,
        progress=progress,
    ).rows
    base = rows[0].timings if policy.needs_baseline_timings else None
    return Evidence(comparison, rows[-1].timings, base)
