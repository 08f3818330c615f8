"""Preprocess: whether candidate and baseline want their images alike, as one application that feeds both gives them.

Each file is read as its own metadata says, so a candidate that wants its images turned reads them as well as its
baseline here, and nonsense in the application that shipped the baseline.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from toolchain.evaluation.compare import Comparison, Files
from toolchain.gate.limit import Limit, LimitDefinition, Measure, Verdict
from toolchain.stats.decision import Outcome


class PreprocessLimit(Limit):
    """How many settings by which it takes images (turn, pixel values, label offset) may be unlike the baseline's.

    Judged without the table too, and then said only where it fails: an application feeds both files alike.
    """

    measure: ClassVar[Measure] = "count"
    max: int = Field(default=0, ge=0, le=3, strict=True)


def judge_preprocess(limit: PreprocessLimit, files: Files) -> Verdict:
    """Judge how many settings of the candidate's preprocess an application would get wrong that feeds the baseline."""
    baseline, candidate = files.baseline, files.candidate
    unlike = candidate.preprocess.unlike(baseline.preprocess)
    outcome = Outcome.PASS if len(unlike) <= limit.max else Outcome.FAIL
    reason = f"{candidate.name} wants {candidate.input}, {baseline.name} {baseline.input}"
    if unlike:
        reason += f": an application that feeds both alike gives {candidate.name} wrong images ({'; '.join(unlike)})"
    if outcome is Outcome.FAIL:
        reason += (
            "; make a candidate that takes the baseline's images, or correct what the file or its sidecar says; where "
            'the application changes too, set action = "warn" in the policy\'s [preprocess]'
        )
    return Verdict("preprocess", outcome, limit.action, limit.max, len(unlike), None, reason)


def likely_cause(files: Files, comparison: Comparison) -> str:
    """Return, for the end of a reason why accuracy fell, how the candidate was given its images, where that may be why.

    Either it says that it wants them in another way than the baseline, or it reads less than half of what the baseline
    reads.
    """
    candidate = files.candidate
    if unlike := candidate.preprocess.unlike(files.baseline.preprocess):
        source = candidate.preprocess_source or "record"
        return f"; likely cause: {candidate.name} was given {'; '.join(unlike)}, as its {source} says"
    if comparison.candidate_accuracy < comparison.baseline_accuracy / 2:
        return f"; check that {candidate.name} wants its images as {candidate.input}, and correct its sidecar if not"
    return ""


PREPROCESS = LimitDefinition(
    name="preprocess",
    settings=PreprocessLimit,
    about="Settings by which it takes images unlike the baseline. Left out, any such setting fails.",
    example={"max": 0},
    evidence=("files",),
    judge=judge_preprocess,
    always=True,
)
