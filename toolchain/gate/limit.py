"""Limit: a table of a policy, what the gate knows of it, and its verdict. Each limit is a file of its own (`limits`).

Shares and drops are fractions, sizes bytes, times seconds, ratios plain numbers; people write them with their units.
`confidence` is that of each one-sided decision: PASS and FAIL must both be shown at it, else INCONCLUSIVE.
Bytes, counts and ratios of bytes are measured exactly: no confidence, no INCONCLUSIVE.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from toolchain.core.errors import EvidenceError, GateFailed, GateInconclusive
from toolchain.core.json_codec import Number
from toolchain.core.quantities import sure_text
from toolchain.core.settings import Points
from toolchain.stats.decision import Outcome

Action = Literal["fail", "warn"]
Measure = Literal["share", "cost", "bytes", "seconds", "ratio", "count"]
MOST = 2**31 - 1
"""Of a whole number: more images than any data set has."""
Confidence = Annotated[float, Field(gt=0.5, lt=1, description="of PASS and of FAIL, each shown one-sided")]


class Table(BaseModel):
    """One table of a policy."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Limit(Table):
    """A table that a verdict is given on. measure: what its `measured` and `bound` count."""

    measure: ClassVar[Measure]
    action: Action = Field(default="fail", description="warn: tell, but let it through")


class MarginLimit(Limit):
    """A table that is decided by confidence bounds of a share: its margin, and their one-sided confidence."""

    measure: ClassVar[Measure] = "share"
    max: Points
    confidence: Confidence = 0.95


@dataclass(frozen=True)
class Part:
    """One of many of which a verdict judges each: a class, a group of look-alikes, a kind of damage, a runtime.

    images: how many it was judged on. note: the counts behind it, for people. The rest as in `Verdict`.
    """

    name: str
    outcome: Outcome
    threshold: Number
    measured: Number
    bound: Number | None
    images: int
    note: str = ""
    samples_needed: int | None = None


@dataclass(frozen=True)
class Verdict:
    """One limit, judged. Values are in base units: fractions, bytes, seconds, ratios, counts (`Measure`).

    limit: the policy's table. measured: what was seen, None where it could not be. bound: the confidence bound that
    decided, None where the measured value itself did. samples_needed: images or inferences that would decide.
    artifact: the name of the file that was judged, empty where the evidence did not say. parts: of a limit that
    judges many things of a kind, each of them.
    """

    limit: str
    outcome: Outcome
    action: Action
    threshold: Number
    measured: Number | None
    bound: Number | None
    reason: str
    samples_needed: int | None = None
    artifact: str = ""
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True)
class LimitDefinition:
    """All that the gate knows of one limit: the policy, its schema and template, and the gate are made from these.

    name: the policy's table. settings: what it holds. about, example: what the schema and the template say of it.
    judge: takes the settings and the parts of `Evidence` that `evidence` names, and gives the verdict; `pairs` are then
    those with each different image once (`Pairs.once`), `rows` those of all images.
    simulate: takes the settings and the counts lost, gained and all by class, int64 [draws, K], [draws, K] and [K],
    and gives an `Outcome` for each draw; None where right and wrong answers do not decide it.

    collect: takes the settings and the `candidate.Sources`, and gives the first of the parts; None where the gate
    collects it for all limits. prepare: takes the settings, a file, the test images or None, and the progress, and
    gives the file with what is read of it once. check_stored: takes the settings and a stored baseline, and raises
    EvidenceError where it was not made for them. check_classes: takes the settings and the names of the classes, and
    raises PolicyError where the settings name what is none of them.

    file_must, baseline_must: what the limit asks of the candidate's and of the baseline's file that a saved evaluation
    cannot do. images, training_images: whether it needs the test images, and those that the candidate was trained on.
    device: whether only a device has what it limits. always: judged without its table too, and then only a verdict that
    is no PASS counts; such a limit alone is no policy.
    """

    name: str
    settings: type[Limit]
    about: str
    example: Mapping[str, object]
    judge: Callable[..., Verdict]
    evidence: tuple[str, ...] = ("pairs",)
    simulate: Callable[..., NDArray[np.str_]] | None = None
    collect: Callable[..., object] | None = None
    prepare: Callable[..., Any] | None = None
    check_stored: Callable[..., None] | None = None
    check_classes: Callable[..., object] | None = None
    file_must: str = ""
    baseline_must: str = ""
    images: bool = False
    training_images: bool = False
    device: bool = False
    always: bool = False

    @property
    def timed(self) -> bool:
        """Whether it limits a latency."""
        return "timings" in self.evidence


def within(name: str, measured: float, limit: float) -> Outcome:
    """Return PASS up to the limit; raises EvidenceError on NaN, which is neither PASS nor FAIL."""
    if not math.isfinite(measured):
        raise EvidenceError(f"{name}: measured {measured}, which is no number; measure it again")
    return Outcome.PASS if measured <= limit else Outcome.FAIL


def positive(name: str, measured: float) -> float:
    """Return the measured figure; raises EvidenceError unless it is above 0."""
    if not measured > 0:
        raise EvidenceError(f"{name}: measured {measured}, which cannot be; measure it again")
    return measured


def side(outcome: Outcome) -> str:
    """Return the phrase between a measured figure and its limit."""
    return "within the limit of" if outcome is Outcome.PASS else "beyond the limit of"


_SPANS = {
    Outcome.PASS: ("at most {high}", "within"),
    Outcome.FAIL: ("at least {low}", "beyond"),
    Outcome.INCONCLUSIVE: ("between {low} and {high}", "too close to decide against"),
}


def by_bounds(
    outcome: Outcome,
    low: str,
    high: str,
    limit: str,
    confidence: float,
    *,
    unit: str = "",
    note: str = "",
    side: str = "",
) -> str:
    """Return the bounds as text: `at most 0.21 pp with 95 % confidence, within the margin of 0.3 pp`.

    low, high: the bounds as people read them. limit: the limit as text. unit: follows the bounds. note: follows the
    confidence. side: replaces the phrase before the limit.
    """
    span, usual = _SPANS[outcome]
    sure = f"with {sure_text(confidence)} confidence{note}"
    return f"{span.format(low=low, high=high)}{unit} {sure}, {side or usual} the {limit}"


def overall(verdicts: Iterable[Verdict]) -> Outcome:
    """Return FAIL, else INCONCLUSIVE, else PASS over the verdicts whose action is `fail`; `warn` only tells.

    Raises EvidenceError when there is no verdict at all.
    """
    verdicts = tuple(verdicts)
    if not verdicts:
        raise EvidenceError("nothing was judged; give a policy with at least one limit")
    outcomes = {verdict.outcome for verdict in verdicts if verdict.action == "fail"}
    return next((o for o in (Outcome.FAIL, Outcome.INCONCLUSIVE) if o in outcomes), Outcome.PASS)


def raise_for(verdicts: Iterable[Verdict]) -> None:
    """Raise GateFailed or GateInconclusive, naming files and limits, unless the outcome is PASS.

    The verdicts hold the reasons, which whoever shows them shows once.
    """
    verdicts = tuple(verdicts)
    outcome = overall(verdicts)
    if outcome is Outcome.PASS:
        return
    limits: dict[str, list[str]] = {}
    for verdict in verdicts:
        if verdict.outcome is outcome and verdict.action == "fail":
            limits.setdefault(verdict.artifact, []).append(verdict.limit)
    named = [f"{file} ({', '.join(names)})" if file else ", ".join(names) for file, names in limits.items()]
    family = GateFailed if outcome is Outcome.FAIL else GateInconclusive
    raise family(f"{outcome}: {'; '.join(named)}")
