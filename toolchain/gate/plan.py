"""Plan: how many images an accuracy limit needs, and what it would decide on them, before anybody collects any.

The chances are exact (`exact_power`), of the decision that the gate itself takes (`paired_difference.decide`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolchain.core.errors import UsageProblem
from toolchain.core.quantities import POINTS
from toolchain.stats import paired_difference
from toolchain.stats.decision import Outcome
from toolchain.stats.exact_power import Floats, Truth, chance

SIZES = (500, 1_000, 2_000, 4_000, 10_000, 18_800)
"""Numbers of images that a plan shows besides the required ones; the last is EMNIST's balanced test split."""

MOST_IMAGES = 10_000_000
"""More images than anybody labels; the exact chances take memory and time that grow with the images."""


@dataclass(frozen=True)
class Needed:
    """About how many images, to 1 %, show with chance `power` that a candidate stays within the margin."""

    power: float
    images: int


@dataclass(frozen=True)
class PlanRow:
    """Chances of a decision on `images` images; None where the truth cannot be had at that discordance.

    right_pass: PASS of a candidate with the plan's drop. false_fail: FAIL of the same one. right_fail: FAIL of one
    that drops by twice the margin. false_pass: PASS of one that drops by the margin itself.
    """

    images: int
    right_pass: float
    false_fail: float
    right_fail: float | None
    false_pass: float | None


@dataclass(frozen=True)
class Plan:
    """What a margin asks for. discordance: share of the images that only one of the two reads rightly."""

    margin: float
    discordance: float
    drop: float
    confidence: float
    needed: tuple[Needed, ...]
    rows: tuple[PlanRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        return asdict(self)


def plan(
    margin: float,
    discordance: float,
    *,
    drop: float = 0.0,
    confidence: float = 0.95,
    power: Sequence[float] = (0.8, 0.9),
    sizes: Sequence[int] = SIZES,
) -> Plan:
    """Return the number of images that each power needs, and the table of chances over `sizes` and those numbers.

    drop: the candidate's in truth. Raises UsageProblem for what cannot be: a drop larger than the discordance or not
    below the margin, shares outside 0 to 1, a power or a confidence that is no chance.
    """
    _check(margin, discordance, drop, (confidence, *power), sizes)
    needed = tuple(Needed(level, _needed(margin, discordance, drop, confidence, level)) for level in power)
    counts = sorted({*sizes, *(row.images for row in needed)})
    rows = tuple(_row(count, margin, discordance, drop, confidence) for count in counts)
    return Plan(margin, discordance, drop, confidence, needed, rows)


def chances(truth: Truth, margin: float, confidence: float = 0.95) -> dict[Outcome, float]:
    """Return the chance of each outcome when the gate judges a candidate of which the truth is known."""

    def outcomes(lost: Floats, gained: Floats) -> NDArray[np.str_]:
        return paired_difference.decide(lost, gained, truth.count, margin, confidence)

    fail = chance(truth, lambda *table: outcomes(*table) == Outcome.FAIL)
    unshown = chance(truth, lambda *table: outcomes(*table) != Outcome.PASS)
    return {Outcome.PASS: 1 - unshown, Outcome.FAIL: fail, Outcome.INCONCLUSIVE: unshown - fail}


def _needed(margin: float, discordance: float, drop: float, confidence: float, power: float) -> int:
    """Return about the smallest number of images with that power, from the formula's on in steps of 1 %."""
    shares = (discordance + drop) / 2, (discordance - drop) / 2
    by_formula = paired_difference.pairs_to_decide(*shares, margin, confidence=confidence, power=power)
    if by_formula is None:
        raise UsageProblem(f"a drop of {POINTS.text(drop)} is the margin itself; give a larger margin")
    if by_formula > MOST_IMAGES:
        raise UsageProblem(
            f"a margin of {POINTS.text(margin)} needs about {by_formula:,} images, more than the {MOST_IMAGES:,} that "
            "are planned for; give a larger margin"
        )
    count, step = by_formula, max(1, by_formula // 100)

    def suffices(images: int) -> bool:
        truth = Truth.of(images, drop, discordance)
        return truth is not None and chances(truth, margin, confidence)[Outcome.PASS] >= power

    while not suffices(count):
        count += step
    while count > step and suffices(count - step):
        count -= step
    return count


def _row(count: int, margin: float, discordance: float, drop: float, confidence: float) -> PlanRow:
    planned, twice, at_margin = (
        _chances(count, true_drop, discordance, margin, confidence) for true_drop in (drop, 2 * margin, margin)
    )
    assert planned is not None, "`_check` refuses a drop beyond the discordance"
    return PlanRow(
        images=count,
        right_pass=planned[Outcome.PASS],
        false_fail=planned[Outcome.FAIL],
        right_fail=None if twice is None else twice[Outcome.FAIL],
        false_pass=None if at_margin is None else at_margin[Outcome.PASS],
    )


def _chances(
    count: int, drop: float, discordance: float, margin: float, confidence: float
) -> dict[Outcome, float] | None:
    truth = Truth.of(count, drop, discordance)
    return None if truth is None else chances(truth, margin, confidence)


def _check(margin: float, discordance: float, drop: float, levels: Sequence[float], sizes: Sequence[int]) -> None:
    if not 0 < margin < 1:
        raise UsageProblem(f"a margin of {POINTS.text(margin)} limits nothing; give one such as 0.3pp")
    if not 0 <= discordance <= 1:
        raise UsageProblem(f"a discordance of {POINTS.text(discordance)} is no share of images; give one such as 1%")
    if not abs(drop) <= discordance:
        raise UsageProblem(
            f"a drop of {POINTS.text(drop)} changes more images than a discordance of {POINTS.text(discordance)}; "
            "give a larger discordance"
        )
    if not drop < margin:
        raise UsageProblem(
            f"a candidate that drops by {POINTS.text(drop)} is never shown to stay within {POINTS.text(margin)}; "
            "give a larger margin"
        )
    if not all(0.5 < level < 1 for level in levels):
        raise UsageProblem("confidence and power are chances between 0.5 and 1; give ones such as 0.95 and 0.8")
    if not all(size >= 1 for size in sizes):
        raise UsageProblem("a plan needs numbers of images of at least 1")
