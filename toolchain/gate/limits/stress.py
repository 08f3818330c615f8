"""Stress: the verdict on accuracy again, under seeded scanner damage (`calibration.corrupt`).

Each kind of damage is one paired question on all images (`evaluation.damaged`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from calibration.dataset import Dataset, Labels
from toolchain.core.context import Progress
from toolchain.core.errors import EvidenceError
from toolchain.core.quantities import percent_text, points_text
from toolchain.evaluation.compare import Answers, Pairs
from toolchain.evaluation.damaged import StressAnswers, in_turn
from toolchain.evaluation.evaluate import distinct_rows
from toolchain.gate.baseline import Baseline
from toolchain.gate.candidate import JudgedFile, Sources, require_images
from toolchain.gate.limit import MOST, LimitDefinition, MarginLimit, Verdict
from toolchain.gate.multiple_tests import Question, judge_together
from toolchain.stats.decision import Outcome

DamageKind = Literal["skew", "blur", "threshold", "speckle", "faint", "thick"]


class StressLimit(MarginLimit):
    """Fall in accuracy under scanner damage, for each kind by itself, strengths 1 to 5 in turn over the images."""

    kinds: tuple[DamageKind, ...] = Field(
        default=("skew", "blur", "threshold", "speckle", "faint", "thick"), description="each is judged by itself"
    )
    strengths: tuple[Annotated[int, Field(ge=1, le=5)], ...] = Field(
        default=(1, 2, 3, 4, 5), description="1 to 5, in turn over the images"
    )
    seed: int = Field(default=0, ge=0, le=MOST, description="of the damage's chance")


@dataclass(frozen=True, eq=False)
class StressPairs:
    """Both files' answers under one kind of damage; arrays int64 [N], in the order of the undamaged images."""

    kind: str
    seed: int
    strengths: Answers = field(repr=False)
    before: Answers = field(repr=False)
    after: Answers = field(repr=False)

    def __post_init__(self) -> None:
        """Reject arrays of different lengths."""
        if not self.strengths.shape == self.before.shape == self.after.shape:
            raise EvidenceError(f"strengths and answers under '{self.kind}' are not as many; gather the evidence again")


def pair_stress(baseline: tuple[StressAnswers, ...], candidate: tuple[StressAnswers, ...]) -> tuple[StressPairs, ...]:
    """Pair both files' answers to each kind of damage that the candidate was read under; the baseline may hold more.

    Raises EvidenceError, saying which, where the baseline lacks a kind or saw other damage.
    """
    stored = {answers.kind: answers for answers in baseline}
    return tuple(_paired(stored.get(answers.kind), answers) for answers in candidate)


def _paired(baseline: StressAnswers | None, candidate: StressAnswers) -> StressPairs:
    advice = "store the baseline again under this policy, or give the policy that it was stored under"
    if baseline is None:
        raise EvidenceError(f"the baseline was not read under '{candidate.kind}'; {advice}")
    if baseline.seed != candidate.seed:
        raise EvidenceError(
            f"the baseline was damaged by seed {baseline.seed}, the candidate by {candidate.seed} "
            f"('{candidate.kind}'); {advice}"
        )
    if not np.array_equal(baseline.strengths, candidate.strengths):
        theirs, ours = (", ".join(map(str, np.unique(answers.strengths))) for answers in (baseline, candidate))
        raise EvidenceError(
            f"the images that baseline and candidate saw under '{candidate.kind}' had other strengths ({theirs} and "
            f"{ours}, on {len(baseline.strengths)} and {len(candidate.strengths)} images); {advice}"
        )
    if baseline.sha256 != candidate.sha256:
        raise EvidenceError(
            f"baseline and candidate saw other images under '{candidate.kind}', though seed and strengths are the "
            "same: made from other test images, or by another version of glyphpress; store the baseline again"
        )
    return StressPairs(candidate.kind, candidate.seed, candidate.strengths, baseline.answers, candidate.answers)


def judge_stress(
    limit: StressLimit, stress: tuple[StressPairs, ...], labels: Labels, sample_ids: NDArray[np.bytes_] | None = None
) -> Verdict:
    """Judge the fall in accuracy under each kind of damage; the outcome is the worst one's (`multiple_tests`).

    labels: int64 [N], of the undamaged images in the same order. sample_ids: S32 [N], their hashes, of which equal ones
    count once, by the copy that says the worst of the candidate; None where all images differ. Parts and reason name
    the strength at which most was lost. Raises EvidenceError when a kind that the limit names was not read, or by
    another seed or other strengths.
    """
    by_kind = {pairs.kind: pairs for pairs in stress}
    effects = [
        _effect(_as_asked(limit, kind, by_kind.get(kind), labels), labels, sample_ids)
        for kind in dict.fromkeys(limit.kinds)
    ]
    verdict = judge_together(
        "stress",
        [Question(effect.kind, effect.lost, effect.gained, effect.images, limit.max) for effect in effects],
        confidence=limit.confidence,
        action=limit.action,
        what="kind of damage",
    )
    parts_and_effects = list(zip(verdict.parts, effects, strict=True))
    parts = tuple(
        replace(part, note=f"{part.note}; baseline {effect.before}; {effect.peak}")
        for part, effect in parts_and_effects
    )
    if verdict.outcome is Outcome.PASS:
        return replace(verdict, parts=parts)
    peaks = (f"'{effect.kind}' {effect.peak}" for part, effect in parts_and_effects if part.outcome is verdict.outcome)
    return replace(verdict, parts=parts, reason="; ".join((verdict.reason, *peaks)))


@dataclass(frozen=True)
class _Effect:
    """What one kind of damage did. before: the baseline's accuracy under it. peak: where most was lost, in words."""

    kind: str
    images: int
    lost: int
    gained: int
    before: str
    peak: str


def _effect(pairs: StressPairs, labels: Labels, sample_ids: NDArray[np.bytes_] | None) -> _Effect:
    before, after = (np.equal(answers, labels) for answers in (pairs.before, pairs.after))
    fall = before.astype(np.int64) - after
    rows = np.arange(len(labels)) if sample_ids is None else distinct_rows(sample_ids, -fall)
    fall, before = fall[rows], before[rows]
    strengths, index, images = np.unique(pairs.strengths[rows], return_inverse=True, return_counts=True)
    falls = np.bincount(index, fall) / images
    worst = int(np.argmax(falls))
    peak = f"lost most at strength {strengths[worst]} ({points_text(falls[worst])} pp of {images[worst]:,} images)"
    return _Effect(
        pairs.kind,
        len(rows),
        int(np.count_nonzero(fall > 0)),
        int(np.count_nonzero(fall < 0)),
        percent_text(float(before.mean())),
        peak if falls[worst] > 0 else "lost at no strength",
    )


def _as_asked(limit: StressLimit, kind: str, pairs: StressPairs | None, labels: Labels) -> StressPairs:
    """Return the pairs if they are what the limit asks for."""
    advice = "gather the evidence again under this policy"
    if pairs is None:
        raise EvidenceError(f"the policy limits stress under '{kind}', which the evidence does not hold; {advice}")
    if any(array.shape != labels.shape for array in (pairs.strengths, pairs.before, pairs.after)):
        raise EvidenceError(f"the answers under '{kind}' are not of the {len(labels)} images judged; {advice}")
    # Classes of fewer images than there are strengths have only the first of them.
    rounds = int(np.bincount(labels).max())
    expected = in_turn(limit)[:rounds]
    seen = tuple(np.unique(pairs.strengths).tolist())
    if pairs.seed != limit.seed or seen != expected:
        raise EvidenceError(
            f"the answers under '{kind}' are of seed {pairs.seed} and strengths {', '.join(map(str, seen))}; the "
            f"policy asks for seed {limit.seed} and {', '.join(map(str, expected))}; {advice}"
        )
    return pairs


def _check_stored(limit: StressLimit, stored: Baseline) -> None:
    """Refuse early, before the candidate is read under damage, what `pair_stress` would refuse afterwards."""
    by_kind = {answers.kind: answers for answers in stored.stress}
    name, advice = stored.evaluation.artifact, "store it again under this policy"
    if missing := [kind for kind in limit.kinds if kind not in by_kind]:
        raise EvidenceError(
            f"the stored baseline of {name} was not read under {', '.join(missing)}, which the policy's [stress] asks "
            f"for; {advice}"
        )
    for kind in limit.kinds:
        seen = set(by_kind[kind].strengths.tolist())
        if by_kind[kind].seed != limit.seed or seen - set(limit.strengths):
            raise EvidenceError(
                f"the stored baseline of {name} was read under '{kind}' by seed {by_kind[kind].seed} and strengths "
                f"{', '.join(map(str, sorted(seen)))}, not as the policy's [stress] says; {advice}"
            )


def _prepare(limit: StressLimit, judged: JudgedFile, test: Dataset | None, progress: Progress) -> JudgedFile:
    """Return the file with its answers under damage, which are taken now unless it came with what it holds."""
    if judged.stress or judged.stored:
        return judged
    return replace(judged, stress=judged.under_damage(limit, require_images(test, "stress"), progress=progress))


def _collect(_: StressLimit, sources: Sources) -> tuple[StressPairs, ...]:
    return pair_stress(sources.baseline.stress, sources.candidate.stress)


def _judge(limit: StressLimit, stress: tuple[StressPairs, ...], pairs: Pairs) -> Verdict:
    return judge_stress(limit, stress, pairs.labels, pairs.sample_ids)


STRESS = LimitDefinition(
    name="stress",
    settings=StressLimit,
    about="Fall in accuracy under scanner damage, for each kind by itself.",
    example={"max": "1pp"},
    evidence=("stress", "rows"),
    judge=_judge,
    prepare=_prepare,
    collect=_collect,
    check_stored=_check_stored,
    # Of the candidate only: a stored baseline may hold its answers under damage, which only reading it tells.
    file_must="be read under damage",
    images=True,
)
