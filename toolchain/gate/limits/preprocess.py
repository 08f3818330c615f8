"""Preprocess: whether candidate and baseline expect images in the same form, since one application may feed both.

The gate gives each file its images as its own metadata says. So a candidate that expects turned images is as accurate
here as its baseline, but would read nonsense in an application that was written for the baseline.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from toolchain.evaluation.compare import ComparedFiles, Comparison
from toolchain.gate.limit import Limit, LimitDefinition, Measure, Verdict
from toolchain.stats.decision import Outcome


class PreprocessLimit(Limit):
    """How many settings of the preprocessing (orientation, pixel values, label offset) may differ from the baseline's.

    Without its table it is judged too, with a maximum of 0, but reported only where it fails.
    """

    measure: ClassVar[Measure] = "count"
    max: int = Field(default=0, ge=0, le=3, strict=True)


def judge_preprocess(limit: PreprocessLimit, files: ComparedFiles) -> Verdict:
    """Judge in how many settings the candidate's preprocessing differs from the baseline's."""
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


def likely_cause(files: ComparedFiles, comparison: Comparison) -> str:
    """Return, for the end of a reason, that wrong preprocessing may be why accuracy fell; empty where it is unlikely.

    It is likely where the candidate's settings differ from the baseline's, or its accuracy is below half of that and no
    press has just made it.
    """
    candidate = files.candidate
    if unlike := candidate.preprocess.unlike(files.baseline.preprocess):
        source = candidate.preprocess_source or "record"
        return f"; likely cause: {candidate.name} was given {'; '.join(unlike)}, as its {source} says"
    if candidate.preprocess_source != "press" and comparison.candidate_accuracy < comparison.baseline_accuracy / 2:
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
