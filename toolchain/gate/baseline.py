"""The stored baseline of a gate: made from a float file, and refused where it is stale or foreign.

Foreign is a baseline of other images, of a digest that the policy does not name, or of another line of models: the
candidate's line began with another checkpoint than the baseline's, and neither was made from the other. Only what is
known is held against it: a file without a sidecar, or with one of before checkpoints were recorded, may be of any line.
Stale is a baseline that another major version of the candidate's runtime answered, or under other damage than the
policy asks for. Minor versions are recorded in the evidence and accepted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from calibration.dataset import Dataset
from toolchain.core.context import RunContext
from toolchain.core.errors import EvidenceError, UsageProblem
from toolchain.core.files import refuse_existing
from toolchain.core.progress import Progress, silent
from toolchain.core.quantities import beside, percent_text
from toolchain.core.versions import tool_versions
from toolchain.evaluation.paired_answers import Answers
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
    """Return the file with all that the policy's limits read of it once, the baseline for all candidates."""
    for name, limit in policy.limits():
        if prepare := definition(name).prepare:
            judged = prepare(limit, judged, test, progress)
    return judged


def check(policy: Policy, base: JudgedFile, own: JudgedFile) -> None:
    """Raise EvidenceError where `base` is not the baseline that the policy names, or a stored one is stale or foreign.

    An artifact as the baseline is held against the policy's [baseline] only: it was chosen here and now.
    """
    check_pin(policy, base.stored.digest if base.stored else None, base.evaluation.artifact)
    if base.stored is None:
        return
    _check_line(base.stored, own)
    _check_runtime(base, own)
    for name, limit in policy.limits():
        if check_limit := definition(name).check_stored:
            check_limit(limit, base.stored)


def check_pin(policy: Policy, digest: str | None, name: str) -> None:
    """Raise EvidenceError unless the baseline of this digest, None where it has none, is the one the policy names."""
    if policy.baseline is None or policy.baseline.digest in (None, digest):
        return
    assert policy.baseline.digest
    pinned = policy.baseline.digest[:12]
    found = f"the stored baseline of {name} has digest {digest[:12]}" if digest else f"{name} is no stored baseline"
    raise EvidenceError(
        f"the policy was written for the stored baseline {pinned}, but {found}; give that one, or change the policy's "
        "[baseline]"
    )


def check_floor(policy: Policy, name: str, answers: Answers, labels: Answers) -> None:
    """Raise EvidenceError where the baseline's answers are too bad for a drop from them to say anything.

    Without the policy's `min_accuracy` it must come a quarter of the way from chance to all; chance is what the best
    constant answer reads.
    """
    seen = float(np.equal(answers, labels).mean())
    chance = float(np.bincount(labels).max() / len(labels))
    asked = policy.baseline.min_accuracy if policy.baseline else None
    floor = chance + (1 - chance) / 4 if asked is None else asked
    if seen < floor:
        raise EvidenceError(
            f"the baseline {name} reads {beside(seen, floor, percent_text)} of the images, and chance "
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
        return cls(checkpoint, frozenset(one for one in (sha256, parent, checkpoint) if one))


def _check_line(stored: Baseline, own: JudgedFile) -> None:
    source = own.artifact or own.stored
    if source is None:
        return
    seen = stored.evaluation
    theirs = _Line.of(own.evaluation.artifact_sha256, source.parent_sha256, source.checkpoint_sha256)
    ours = _Line.of(seen.artifact_sha256, stored.parent_sha256, stored.checkpoint_sha256)
    if ours.root and theirs.root and not ours.known & theirs.known:
        raise EvidenceError(
            f"the stored baseline is foreign: {seen.artifact} came from checkpoint {ours.root[:12]}, "
            f"{own.evaluation.artifact} from {theirs.root[:12]}; store a baseline of the candidate's own float file, "
            "or give the float file itself to compare different models"
        )


def _check_runtime(base: JudgedFile, own: JudgedFile) -> None:
    then, now = base.evaluation.facts, own.evaluation.facts
    if then.runtime == now.runtime and then.version.split(".")[0] != now.version.split(".")[0]:
        raise EvidenceError(
            f"the stored baseline is stale: {then.runtime} {then.version} answered it, {now.version} the candidate; "
            "store it again"
        )
