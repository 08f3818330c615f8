"""One verdict on many paired questions of one kind: every class, every group of look-alikes, every kind of damage.

The verdict is PASS when all questions pass: when each upper bound lies below its margin, an intersection-union test,
which needs no correction (R. L. Berger 1982, Technometrics 24:295-300). It is FAIL when one fails after Holm's
step-down correction for their number (S. Holm 1979, Scand. J. Statistics 6:65-70), since among many parts some look bad
by chance. Holm's levels are small, so the p-values are exact ones (`paired_difference.tail_beyond`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from toolchain.core.errors import EvidenceError
from toolchain.core.quantities import beside, points_text, sure_text
from toolchain.gate.limit import Action, Part, Verdict
from toolchain.stats import paired_difference
from toolchain.stats.decision import POWER, Outcome
from toolchain.stats.paired_difference import tail_beyond

_tail = lru_cache(maxsize=65_536)(tail_beyond)


@dataclass(frozen=True)
class Question:
    """Paired counts of one part: `worse` images are bad only with the candidate, `better` only with the baseline."""

    name: str
    worse: int
    better: int
    images: int
    margin: float

    @property
    def drop(self) -> float:
        """The observed drop as a share of the images, positive when the candidate is worse."""
        return (self.worse - self.better) / self.images


def judge_together(
    name: str, questions: Sequence[Question], *, confidence: float, action: Action, what: str
) -> Verdict:
    """Judge all questions together.

    what: the name of one part ("class"). The verdict's `samples_needed` are images of each part. Raises EvidenceError
    without a question, or for one without images.
    """
    if not questions:
        raise EvidenceError(f"{name}: there is no {what} to judge; give data that has some")
    if empty := [f"'{question.name}'" for question in questions if question.images < 1]:
        raise EvidenceError(
            f"{name}: no images of {what} {', '.join(empty)}, so it cannot be judged; give data that has"
        )
    parts = _parts(questions, confidence)
    outcome = next(o for o in (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS) if any(p.outcome is o for p in parts))
    deciding = sorted((p for p in parts if p.outcome is outcome), key=_distance)
    closest = deciding[0]
    return Verdict(
        limit=name,
        outcome=outcome,
        action=action,
        threshold=closest.threshold,
        measured=closest.measured,
        bound=closest.bound,
        reason=_reason(parts, deciding, what, confidence),
        samples_needed=_needed_in_all(deciding),
        parts=parts,
    )


def _parts(questions: Sequence[Question], confidence: float) -> tuple[Part, ...]:
    b, c, n, margin = (
        np.array([getattr(question, key) for question in questions]) for key in ("worse", "better", "images", "margin")
    )
    upper = paired_difference.upper_bound(b, c, n, confidence)
    lower = paired_difference.lower_bound(b, c, n, confidence)
    outcomes = [Outcome(str(value)) for value in decide(b, c, n, margin, confidence)]
    undecided = outcomes.count(Outcome.INCONCLUSIVE)
    return tuple(
        Part(
            name=question.name,
            outcome=outcome,
            threshold=question.margin,
            measured=question.drop,
            bound=float(low if outcome is Outcome.FAIL else high),
            images=question.images,
            note=f"{question.worse:,} worse, {question.better:,} better of {question.images:,}",
            samples_needed=_needed(question, confidence, len(questions), undecided)
            if outcome is Outcome.INCONCLUSIVE
            else None,
        )
        for question, outcome, low, high in zip(questions, outcomes, lower, upper, strict=True)
    )


def _needed(question: Question, confidence: float, judged: int, undecided: int) -> int | None:
    """Return how many images would decide this question so surely that all undecided ones are, with `POWER` in all."""
    # Beyond its margin it must fail, and Holm's first step asks that much.
    needed_confidence = confidence if question.drop < question.margin else 1 - (1 - confidence) / judged
    shares = question.worse / question.images, question.better / question.images
    power = 1 - (1 - POWER) / undecided
    return paired_difference.pairs_to_decide(
        *shares, question.margin, judged=question.images, confidence=needed_confidence, power=power
    )


def _needed_in_all(deciding: Sequence[Part]) -> int | None:
    """Return the most that one of the undecided parts needs, None where one of them cannot be decided."""
    needed = [part.samples_needed for part in deciding]
    return max(n for n in needed if n is not None) if None not in needed else None


def _distance(part: Part) -> float:
    """Return how much room is left: below the margin for what passed, otherwise (negative) how far beyond it."""
    figure = part.bound if part.outcome is Outcome.PASS and part.bound is not None else part.measured
    return part.threshold - figure


def _reason(parts: Sequence[Part], deciding: Sequence[Part], what: str, confidence: float) -> str:
    """Return what the parts of the deciding outcome say, the decisive one first."""
    one_margin = len({part.threshold for part in parts}) == 1
    margin = f"the margin of {parts[0].threshold * 100:.4g} pp" if one_margin else "their margins"
    sure = f"{margin} with {sure_text(confidence)} confidence"
    outcome, named = deciding[0].outcome, ", ".join(_part_text(part, one_margin) for part in deciding[:5])
    named += f" and {len(deciding) - 5} more" * (len(deciding) > 5)
    if outcome is Outcome.PASS:
        return f"by {what}, all {len(parts)} stay within {sure}; closest to it is {_part_text(deciding[0], one_margin)}"
    share = f"by {what}, {len(deciding)} of {len(parts)}"
    if outcome is Outcome.FAIL:
        return f"{share} fell beyond {sure}, Holm-corrected for {len(parts)}: {named}"
    return f"{share} cannot be decided against {sure}: {named}; {_advice(deciding, what)}"


def _part_text(part: Part, one_margin: bool) -> str:
    side = "at least" if part.outcome is Outcome.FAIL else "at most"
    own_margin = "" if one_margin else f", margin {part.threshold * 100:.4g} pp"
    drop, bound = (beside(value, part.threshold, points_text) for value in (part.measured, part.bound or 0.0))
    return f"'{part.name}' {drop} pp, {side} {bound} ({part.note}{own_margin})"


def _advice(deciding: Sequence[Part], what: str) -> str:
    if needed := _needed_in_all(deciding):
        return f"about {needed:,} images like these of each {what} would decide ({POWER * 100:.0f} % power)"
    at_margin = next(part.name for part in deciding if part.samples_needed is None)
    return f"the drop of '{at_margin}' equals its margin, so no number of images would decide"


def decide(
    worse: ArrayLike, better: ArrayLike, images: ArrayLike, margin: ArrayLike, confidence: float = 0.95
) -> NDArray[np.str_]:
    """Return an `Outcome` for each question; the last axis holds those that are judged together.

    PASS is that of `paired_difference.decide`. FAIL must be too, and must stand after Holm's correction over the last
    axis.
    """
    b, c, n, limit = np.broadcast_arrays(*(np.asarray(x) for x in (worse, better, images, margin)))
    alone = paired_difference.decide(b, c, n, limit, confidence)
    p_values = np.ones(b.shape)
    for index in zip(*np.nonzero(alone == Outcome.FAIL), strict=True):
        p_values[index] = _tail(int(b[index]), int(c[index]), int(n[index]), float(limit[index]))
    unshown = (alone == Outcome.FAIL) & ~holm(p_values, 1 - confidence)
    return np.where(unshown, Outcome.INCONCLUSIVE, alone)


def holm(p_values: ArrayLike, alpha: float) -> NDArray[np.bool_]:
    """Return which hypotheses Holm's step-down procedure rejects at family-wise error `alpha`, over the last axis."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, axis=-1, kind="stable")
    steps = alpha / np.arange(p.shape[-1], 0, -1)
    stands = np.logical_and.accumulate(np.take_along_axis(p, order, -1) <= steps, axis=-1)
    rejected = np.empty(p.shape, np.bool_)
    np.put_along_axis(rejected, order, stands, axis=-1)
    return rejected
