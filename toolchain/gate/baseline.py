"""The stored baseline of a gate: made from a float file, and refused where it is stale or foreign.

A baseline is foreign where it is of other images, of a digest that the policy does not name, or of another line of
models: the candidate goes back to another checkpoint, and neither file was made from the other. A file whose origin is
not recorded (no sidecar, or an old one) may belong to any line. A baseline is stale where another major version of the
candidate's runtime gave its answers, or where they were taken under other damage than the policy asks for. Minor
versions are recorded in the evidence and accepted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from calibration.dataset import Dataset
from toolchain.core.context import Progress, RunContext, silent
from toolchain.core.errors import EvidenceError, UsageProblem
from toolchain.core.files import refuse_existing
from toolchain.core.quantities import beside, percent_text
from toolchain.core.versions import tool_versions
from toolchain.evaluation.compare import Answers
from toolchain.evaluation.untracked import Training
from toolchain.gate.baseline_file import Baseline
from toolchain.gate.candidate import JudgedFile, read_judged_file
from toolchain.gate.limits import definition
from toolchain.gate.policy import Policy

__all__ = ["Baseline", "check", "check_floor", "check_pin", "make", "prepared", "store"]


def store(
    path: Path,
    policy: Policy,
    dataset: Dataset,
    out: Path,
    *,
    train: Training | None = None,
    target: str | None = None,
    context: RunContext | None = None,
) -> Baseline:
    """Read `dataset` with a float artifact, under damage too where `policy` has [stress], and store what it answered.

    path: an artifact, or a saved evaluation where the policy has no [stress]. Raises UsageProblem over an existing
    file unless the context forces it, and for a name that does not end in .npz, and what `read_judged_file` raises.
    """
    if out.suffix != ".npz":
        raise UsageProblem(f"{out} should end in .npz, as every stored baseline does; rename it")
    context = context or RunContext()
    refuse_existing(out, force=context.force)
    judged = read_judged_file(path, dataset, train=train, target=target, progress=context.progress)
    baseline = make(judged, policy, dataset, progress=context.progress)
    baseline.save(out, force=context.force)
    return baseline


def make(judged: JudgedFile, policy: Policy, dataset: Dataset, *, progress: Progress = silent) -> Baseline:
    """Return the baseline of a file; raises UsageProblem where it is no artifact but must be read under damage."""
    # Without `stored`, so that what another stored baseline does not hold is asked for, and refused.
    read = prepared(policy, replace(judged, stored=None), dataset, progress)
    stress = read.stress if policy.needs("stress") else ()
    line = judged.artifact or judged.stored
    return Baseline(
        judged.evaluation,
        stress,
        line.parent_sha256 if line else None,
        line.checkpoint_sha256 if line else None,
        tool_versions()["glyphpress"],
    )


def prepared(policy: Policy, judged: JudgedFile, test: Dataset | None, progress: Progress = silent) -> JudgedFile:
    """Return the file with what the policy's limits read only once: of a baseline, for all candidates together."""
    for name, limit in policy.limits():
        if prepare := definition(name).prepare:
            judged = prepare(limit, judged, test, progress)
    return judged


def check(policy: Policy, baseline: JudgedFile, candidate: JudgedFile) -> None:
    """Raise EvidenceError where `baseline` is not the one that the policy names, or is stored and stale or foreign.

    Where the baseline is an artifact, only the policy's [baseline] is checked: it was chosen for this very run.
    """
    check_pin(policy, baseline.stored.digest if baseline.stored else None, baseline.evaluation.artifact)
    if baseline.stored is None:
        return
    _check_line(baseline.stored, candidate)
    _check_runtime(baseline, candidate)
    for name, limit in policy.limits():
        if check_limit := definition(name).check_stored:
            check_limit(limit, baseline.stored)


def check_pin(policy: Policy, digest: str | None, name: str) -> None:
    """Raise EvidenceError unless the baseline of this digest, None where it has none, is the one the policy names."""
    if policy.baseline is None or policy.baseline.digest in (None, digest):
        return
    assert policy.baseline.digest
    pinned = policy.baseline.digest[:12]
    given = f"the stored baseline of {name} has digest {digest[:12]}" if digest else f"{name} is no stored baseline"
    raise EvidenceError(
        f"the policy was written for the stored baseline {pinned}, but {given}; give that one, or change the policy's "
        "[baseline]"
    )


def check_floor(policy: Policy, name: str, answers: Answers, labels: Answers) -> None:
    """Raise EvidenceError where the baseline's answers are too bad for a drop from them to say anything.

    Without the policy's `min_accuracy` the floor is a quarter of the way from chance to 100 %; chance is the accuracy
    of the best constant answer.
    """
    accuracy = float(np.equal(answers, labels).mean())
    chance = float(np.bincount(labels).max() / len(labels))
    min_accuracy = policy.baseline.min_accuracy if policy.baseline else None
    floor = chance + (1 - chance) / 4 if min_accuracy is None else min_accuracy
    if accuracy < floor:
        raise EvidenceError(
            f"the baseline {name} reads {beside(accuracy, floor, percent_text)} of the images, and chance "
            f"is {percent_text(chance)}, so nothing can be judged against it: at least {percent_text(floor)} is "
            "required; check its preprocess and classes, give another baseline, or set [baseline] min_accuracy"
        )


@dataclass(frozen=True)
class _Line:
    """Where a file comes from, as far as is known: its root checkpoint, and digests of itself and of its ancestors."""

    root: str | None
    known: frozenset[str]

    @classmethod
    def of(cls, sha256: str, parent: str | None, checkpoint: str | None) -> _Line:
        return cls(checkpoint, frozenset(digest for digest in (sha256, parent, checkpoint) if digest))


def _check_line(stored: Baseline, candidate: JudgedFile) -> None:
    source = candidate.artifact or candidate.stored
    if source is None:
        return
    evaluation = stored.evaluation
    candidate_line = _Line.of(candidate.evaluation.artifact_sha256, source.parent_sha256, source.checkpoint_sha256)
    baseline_line = _Line.of(evaluation.artifact_sha256, stored.parent_sha256, stored.checkpoint_sha256)
    if baseline_line.root and candidate_line.root and not baseline_line.known & candidate_line.known:
        raise EvidenceError(
            f"the stored baseline is foreign: {evaluation.artifact} came from checkpoint {baseline_line.root[:12]}, "
            f"{candidate.evaluation.artifact} from {candidate_line.root[:12]}; store a baseline of the "
            "candidate's own float file, or give the float file itself to compare different models"
        )


def _check_runtime(baseline: JudgedFile, candidate: JudgedFile) -> None:
    stored_facts, facts = baseline.evaluation.facts, candidate.evaluation.facts
    if stored_facts.runtime == facts.runtime and stored_facts.version.split(".")[0] != facts.version.split(".")[0]:
        raise EvidenceError(
            f"the stored baseline is stale: {stored_facts.runtime} {stored_facts.version} answered it, "
            f"{facts.version} the candidate; store it again"
        )
