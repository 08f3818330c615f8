"""One verdict on many paired questions of one kind: every class, every group of look-alikes, every kind of damage.

All must hold. That all do is shown when each upper bound lies below its margin: an intersection-union test, which
needs no correction (R. L. Berger 1982, Technometrics 24:295-300). That one does not is shown after Holm's step-down
correction for their number (S. Holm 1979, Scand. J. Statistics 6:65-70), since among many something always looks bad.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from toolchain.errors import EvidenceError
from toolchain.quantities import points_text
from toolchain.verdict import tango
from toolchain.verdict.outcome import Outcome, Part, Verdict
from toolchain.verdict.tables import Action


@dataclass(frozen=True)
class Question:
    """Paired counts of one part: `worse` images are bad only with the candidate, `better` only with the baseline."""

    name: str
    worse: int
    better: int
    images: int
    margin: float


def judge_several(
    name: str, questions: Sequence[Question], *, confidence: float, action: Action, what: str, note: str = ""
) -> Verdict:
    """Judge all questions together. what: what one is called ("class"); note: closes the reason of what is no PASS.

    Raises EvidenceError without a question, or for one without images.
    """
    if not questions or any(one.images < 1 for one in questions):
        raise EvidenceError(f"{name}: a {what} has no images, so it cannot be judged; give data that has some of each")
    parts = _parts(questions, confidence)
    outcome = next(o for o in (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS) if any(p.outcome is o for p in parts))
    same = sorted((p for p in parts if p.outcome is outcome), key=_distance)
    decisive = same[0]
    sure = f"with {confidence * 100:.4g} % confidence"
    return Verdict(
        limit=name,
        outcome=outcome,
        action=action,
        threshold=decisive.threshold,
        measured=decisive.measured,
        bound=decisive.bound,
        reason=_reason(same, len(parts), what, sure) + (note if outcome is not Outcome.PASS else ""),
        samples_needed=max((p.samples_needed or 0 for p in same), default=0) or None,
        parts=parts,
    )


def _distance(part: Part) -> float:
    """Return how much room is left: below the margin for what passed, otherwise (negative) what was seen beyond it."""
    seen = part.bound if part.outcome is Outcome.PASS and part.bound is not None else part.measured
    return part.threshold - seen


def holm(p_values: Sequence[float], alpha: float) -> list[bool]:
    """Return which hypotheses Holm's step-down procedure rejects at family-wise error `alpha`."""
    rejected = [False] * len(p_values)
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[index] > alpha / (len(p_values) - rank):
            break
        rejected[index] = True
    return rejected


def _parts(questions: Sequence[Question], confidence: float) -> tuple[Part, ...]:
    b, c, n, margin = (
        np.array([getattr(one, key) for one in questions], np.float64)
        for key in ("worse", "better", "images", "margin")
    )
    upper = tango.upper_bound(b, c, n, confidence)
    lower = tango.lower_bound(b, c, n, confidence)
    beyond = tango.p_beyond(b, c, n, margin)
    failed = holm(beyond.tolist(), 1 - confidence)
    parts = []
    for k, one in enumerate(questions):
        passed = bool(upper[k] < one.margin)
        outcome = Outcome.PASS if passed else Outcome.FAIL if failed[k] else Outcome.INCONCLUSIVE
        needed = None
        if outcome is Outcome.INCONCLUSIVE:
            shares = one.worse / one.images, one.better / one.images
            found = tango.pairs_to_decide(*shares, one.margin, confidence=confidence)
            needed = None if found is None else max(found, one.images + 1)
        bound = float(lower[k] if outcome is Outcome.FAIL else upper[k])
        measured = (one.worse - one.better) / one.images
        note = f"{one.worse:,} worse, {one.better:,} better of {one.images:,}"
        parts.append(Part(one.name, outcome, one.margin, measured, bound, one.images, note, needed))
    return tuple(parts)


def _reason(same: list[Part], judged: int, what: str, sure: str) -> str:
    """Return what the parts of the deciding outcome say, the decisive one first."""
    first, margin = same[0], f"margin of {points_text(same[0].threshold)} pp {sure}"
    if first.outcome is Outcome.PASS:
        most = points_text(first.bound or 0.0)
        return f"each of {judged}, by {what}, at most its {margin}; nearest to it '{first.name}', at most {most} pp"
    named = ", ".join(f"'{p.name}' {points_text(p.measured)} pp ({p.note})" for p in same[:5])
    named += f" and {len(same) - 5} more" * (len(same) > 5)
    if first.outcome is Outcome.FAIL:
        return f"beyond the {margin}, Holm-corrected over {judged}: {named}"
    needed = max((p.samples_needed or 0 for p in same), default=0)
    advice = f"; about {needed:,} images of one {what} would decide" if needed else ""
    return f"cannot be told from the {margin}: {named}{advice}"
