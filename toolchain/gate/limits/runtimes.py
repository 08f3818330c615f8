"""Runtimes: whether the same file answers alike on other runtimes and other kernels."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from targets.target import RuntimeFacts
from toolchain.errors import EvidenceError
from toolchain.evaluation.strict_json import count, members, text, told
from toolchain.gate.outcome import Part, Verdict
from toolchain.gate.tables import RuntimesLimit
from toolchain.gate.threshold import side, within
from toolchain.stats.decision import Outcome

LISTED = 200
"""So many differences of a place are kept, the first ones; their number is always told."""
_NAMED = 5


@dataclass(frozen=True)
class Difference:
    """An image that two places read differently: its index in the data set, and the class names of both answers."""

    image: int
    truth: str
    here: str
    there: str

    def __str__(self) -> str:
        """Return it in words."""
        return f"image {self.image}: '{self.here}' here, '{self.there}' there, truth '{self.truth}'"


@dataclass(frozen=True)
class Place:
    """How one place answered, against the place that the candidate was judged on.

    images: how many it read: all, or none where it was left out. largest: the largest difference of a logit.
    differing: how many images were answered otherwise; differences: the first LISTED of them. left_out: why nothing
    was read there. available: False where that is because the place is not here.
    """

    runtime: RuntimeFacts
    images: int
    largest: float
    differing: int
    differences: tuple[Difference, ...] = ()
    left_out: str = ""
    available: bool = True

    def __post_init__(self) -> None:
        """Reject counts that cannot be, so that nothing passes by them."""
        read = not self.left_out and self.available
        fits = self.images > 0 if read else self.images == 0 and bool(self.left_out)
        counted = 0 <= self.differing <= self.images and len(self.differences) == min(self.differing, LISTED)
        if not (fits and counted and isfinite(self.largest) and self.largest >= 0):
            raise EvidenceError(f"{self.runtime.target}: its counts do not fit together; gather the evidence again")

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types; `from_dict` is the inverse."""
        differences = [asdict(one) for one in self.differences]
        return asdict(self) | {"differences": differences}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Place:
        """Rebuild from `to_dict`; raises EvidenceError on anything else."""
        try:
            members([values["largest"]], int, float)
            members([values["available"]], bool)
            text(values["left_out"])
            read = {
                "runtime": RuntimeFacts.from_dict(values["runtime"]),
                "images": count(values["images"]),
                "differing": count(values["differing"]),
                "differences": tuple(map(_difference, members(values["differences"], dict))),
            }
            return cls(**values | read)
        except (KeyError, TypeError, OverflowError) as error:
            raise EvidenceError(f"not stored answers of a place ({told(error)}); gather the evidence again") from error


def _difference(values: dict[str, Any]) -> Difference:
    members([values[name] for name in ("truth", "here", "there")], str)
    return Difference(**values | {"image": count(values["image"])})


def judge_runtimes(limit: RuntimesLimit, places: tuple[Place, ...]) -> Verdict:
    """Judge the number of images that are answered otherwise, at most `limit.max` a place.

    Raises EvidenceError when a place that the limit names was not asked, or none was.
    """
    asked = [place for place in places if not limit.targets or place.runtime.target in limit.targets]
    known = {place.runtime.target for place in asked if place.available}
    missing = [name for name in limit.targets if name not in known]
    read = [place for place in asked if not place.left_out]
    if missing or not read:
        raise EvidenceError(
            f"the evidence holds no answers of {', '.join(missing) or 'another place'}; gather it again where there is"
        )
    parts = tuple(_part(limit, place) for place in read)
    worst = max(read, key=lambda place: place.differing)
    outcome = within("runtimes", worst.differing, limit.max)
    reason = f"{_told(read, limit, outcome)}, {side(outcome)} {limit.max:,} a place{_differences(read, limit)}"
    absent = [f"{place.runtime.target}: {place.left_out}" for place in asked if place.left_out]
    reason += f"; left out: {'; '.join(absent)}" if absent else ""
    return Verdict("runtimes", outcome, limit.action, limit.max, worst.differing, None, reason, parts=parts)


def _part(limit: RuntimesLimit, place: Place) -> Part:
    note = (
        f"{place.differing:,} of {place.images:,} answered otherwise, largest difference of a logit {place.largest:.2g}"
    )
    outcome = within(place.runtime.target, place.differing, limit.max)
    return Part(place.runtime.target, outcome, limit.max, place.differing, None, place.images, note)


def _told(read: list[Place], limit: RuntimesLimit, outcome: Outcome) -> str:
    """Return how many images each place answers otherwise; of a FAIL only the places that do too many."""
    shown = [place for place in read if outcome is Outcome.PASS or place.differing > limit.max]
    counts = ", ".join(f"{place.differing:,} on {place.runtime.target}" for place in shown)
    return f"of {read[0].images:,} images answered otherwise: {counts}"


def _differences(read: list[Place], limit: RuntimesLimit) -> str:
    """Return the first images that each failing place answers otherwise."""
    words = ""
    for place in read:
        if place.differing > limit.max:
            more = f" and {place.differing - _NAMED:,} more" if place.differing > _NAMED else ""
            words += f"; {place.runtime.target}: {'; '.join(map(str, place.differences[:_NAMED]))}{more}"
    return words
