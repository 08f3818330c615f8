"""Plan of a whole policy: how often an unchanged candidate passes all of its limits at once, by simulation.

Each limit alone may pass in 80 of 100 runs and all of them together in few. Drawn are images of which the candidate
loses and gains the same share of every class, and each is decided as the gate does. Limits that need more than right
and wrong (confidences, damage, bytes, times) are left out and named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolchain.core.errors import UsageProblem
from toolchain.core.quantities import POINTS
from toolchain.gate.limits import definitions
from toolchain.gate.policy import Policy
from toolchain.stats.decision import Outcome

SIZES = (1_000, 2_000, 4_000, 6_000, 8_000, 10_000, 12_000, 15_000, 18_800)
MOST_IMAGES = 1_000_000
"""The search for a sufficient number of images stops here."""
DRAWS = 4_000

Counts = NDArray[np.int64]


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

    limits: of each limit alone; all: of all together. None where MOST_IMAGES are not enough.
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

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        return asdict(self)


def plan_policy(
    policy: Policy,
    discordance: float,
    *,
    classes: int = 47,
    power: Sequence[float] = (0.8, 0.9),
    sizes: Sequence[int] = SIZES,
    draws: int = DRAWS,
    seed: int = 0,
) -> PolicyPlan:
    """Simulate `draws` candidates without a drop on each number of images, balanced over the classes.

    discordance: share of the images that only one of the two files reads rightly; these alone count as flips. Raises
    UsageProblem for a policy without a limit that can be simulated, or where there are fewer images than classes.
    """
    limits = [name for name, _ in policy.limits()]
    decide = {name: known.simulate for name, known in definitions().items() if known.simulate}
    asked = [name for name in limits if name in decide]
    if not asked:
        raise UsageProblem(f"the policy limits none of {', '.join(decide)}, so there is nothing to simulate")
    if not 0 < discordance < 1:
        raise UsageProblem(f"a discordance of {POINTS.text(discordance)} cannot be simulated; give one such as 1%")
    if not 1 <= classes <= min(sizes):
        raise UsageProblem(f"{min(sizes):,} images cannot be of {classes:,} classes; give 1 to {min(sizes):,} classes")

    @cache
    def simulated(images: int) -> PolicyRow:
        random = np.random.default_rng((seed, images))
        each = np.full(classes, images // classes)
        each[: images % classes] += 1
        lost = random.binomial(each, discordance / 2, (draws, classes))
        gained = random.binomial(each - lost, discordance / 2 / (1 - discordance / 2))
        return _row(policy, {name: decide[name](getattr(policy, name), lost, gained, each) for name in asked}, images)

    def least(chance: float, name: str = "") -> int | None:
        def suffices(images: int) -> bool:
            row = simulated(images)
            return (row.passes[name] if name else row.all_pass) >= chance

        return _least(suffices, classes)

    needed = tuple(
        PolicyNeeded(chance, {name: least(chance, name) for name in asked}, least(chance)) for chance in power
    )
    left_out = tuple(name for name in limits if name not in decide)
    return PolicyPlan(discordance, classes, draws, left_out, needed, tuple(map(simulated, sorted(set(sizes)))))


def _least(suffices: Callable[[int], bool], images: int) -> int | None:
    """Return the smallest number of images that suffices, to 1 %, or None above MOST_IMAGES. images: where to begin."""
    short = images
    while not suffices(images):
        if images == MOST_IMAGES:
            return None
        short, images = images, min(2 * images, MOST_IMAGES)
    while images - short > max(1, short // 100):
        middle = (short + images) // 2
        if suffices(middle):
            images = middle
        else:
            short = middle
    return images


def _row(policy: Policy, outcomes: dict[str, NDArray[np.str_]], images: int) -> PolicyRow:
    together = np.stack([*outcomes.values()])
    fails = [outcomes[name] == Outcome.FAIL for name in outcomes if getattr(policy, name).action == "fail"]
    return PolicyRow(
        images=images,
        passes={name: float((decided == Outcome.PASS).mean()) for name, decided in outcomes.items()},
        all_pass=float((together == Outcome.PASS).all(axis=0).mean()),
        wrong_fail=float(np.any(fails, axis=0).mean()) if fails else 0.0,
    )
