"""Plan: how many images a policy's limits need, and what they decide on them, before anybody collects any.

`plan` is of the margin on accuracy alone. Its chances are exact, of the decision that the gate itself takes
(`paired_difference.decide`). `plan_policy` is of a whole policy, by simulation: each limit alone may pass in 80 of 100
runs and all of them together in few. It draws images of which the candidate loses and gains the same share of every
class, and decides each draw as the gate does. Limits that need more than right and wrong answers (confidences, damage,
bytes, times) are left out and named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from toolchain.core.errors import UsageProblem
from toolchain.core.quantities import POINTS
from toolchain.gate.limits import definition, definitions
from toolchain.gate.policy import Policy
from toolchain.stats import paired_difference
from toolchain.stats.decision import Outcome
from toolchain.stats.paired_difference import Floats, Truth, chance

SIZES = (500, 1_000, 2_000, 4_000, 10_000, 18_800)
"""Numbers of images that a plan shows besides the required ones; the last is EMNIST's balanced test split."""

MOST_IMAGES = 10_000_000
"""More images than anybody labels; the exact chances take memory and time that grow with the images."""

POLICY_SIZES = (1_000, 2_000, 4_000, 6_000, 8_000, 10_000, 12_000, 15_000, 18_800)
MOST_SIMULATED = 1_000_000
"""The search for a sufficient number of images stops here."""
DRAWS = 4_000


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


@dataclass(frozen=True)
class PolicyRow:
    """What a policy says of an unchanged candidate on `images` images: chance of PASS by limit, of all, and of FAIL."""

    images: int
    passes: dict[str, float]
    all_pass: float
    wrong_fail: float


@dataclass(frozen=True)
class PolicyNeeded:
    """About how many images, within 5 %, an unchanged candidate needs for the chance `power` to pass.

    limits: of each limit alone; all: of all together. None where MOST_SIMULATED are not enough.
    """

    power: float
    limits: dict[str, int | None]
    all: int | None


@dataclass(frozen=True)
class PolicyPlan:
    """What a policy asks for. left_out: its limits that were not simulated."""

    discordance: float
    classes: int
    draws: int
    left_out: tuple[str, ...]
    needed: tuple[PolicyNeeded, ...]
    rows: tuple[PolicyRow, ...]


def plan_policy(
    policy: Policy,
    discordance: float,
    *,
    classes: int = 47,
    power: Sequence[float] = (0.8, 0.9),
    sizes: Sequence[int] = POLICY_SIZES,
) -> PolicyPlan:
    """Simulate DRAWS candidates without a drop on each number of images, balanced over the classes.

    discordance: share of the images that only one of the two files reads rightly; these alone count as flips. Raises
    UsageProblem for a policy without a limit that can be simulated, or where there are fewer images than classes.
    """
    limits = [name for name, _ in policy.limits()]
    decide = {name: simulate for name in limits if (simulate := definition(name).simulate)}
    asked = list(decide)
    if not asked:
        names = ", ".join(name for name, limit in definitions().items() if limit.simulate)
        raise UsageProblem(f"the policy limits none of {names}, so there is nothing to simulate")
    if not 0 < discordance < 1:
        raise UsageProblem(f"a discordance of {POINTS.text(discordance)} cannot be simulated; give one such as 1%")
    if not 1 <= classes <= min(sizes):
        raise UsageProblem(f"{min(sizes):,} images cannot be of {classes:,} classes; give 1 to {min(sizes):,} classes")

    @cache
    def simulated(images: int) -> PolicyRow:
        random = np.random.default_rng((0, images))
        each = np.full(classes, images // classes)
        each[: images % classes] += 1
        lost = random.binomial(each, discordance / 2, (DRAWS, classes))
        gained = random.binomial(each - lost, discordance / 2 / (1 - discordance / 2))
        return _policy_row(
            policy, {name: decide[name](getattr(policy, name), lost, gained, each) for name in asked}, images
        )

    def least(chance: float, name: str = "") -> int | None:
        def suffices(images: int) -> bool:
            row = simulated(images)
            return (row.passes[name] if name else row.all_pass) >= chance

        return _least(suffices, classes)

    needed = tuple(
        PolicyNeeded(chance, {name: least(chance, name) for name in asked}, least(chance)) for chance in power
    )
    left_out = tuple(name for name in limits if name not in decide)
    return PolicyPlan(discordance, classes, DRAWS, left_out, needed, tuple(map(simulated, sorted(set(sizes)))))


def _least(suffices: Callable[[int], bool], images: int) -> int | None:
    """Return the fewest images that suffice, to 1 %, or None above MOST_SIMULATED. images: where to begin."""
    short = images
    while not suffices(images):
        if images == MOST_SIMULATED:
            return None
        short, images = images, min(2 * images, MOST_SIMULATED)
    while images - short > max(1, short // 100):
        middle = (short + images) // 2
        if suffices(middle):
            images = middle
        else:
            short = middle
    return images


def _policy_row(policy: Policy, outcomes: dict[str, NDArray[np.str_]], images: int) -> PolicyRow:
    together = np.stack([*outcomes.values()])
    fails = [outcomes[name] == Outcome.FAIL for name in outcomes if getattr(policy, name).action == "fail"]
    return PolicyRow(
        images=images,
        passes={name: float((decided == Outcome.PASS).mean()) for name, decided in outcomes.items()},
        all_pass=float((together == Outcome.PASS).all(axis=0).mean()),
        wrong_fail=float(np.any(fails, axis=0).mean()) if fails else 0.0,
    )
