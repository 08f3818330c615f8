"""Verdict and Outcome: what the gate says of each limit, and of all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from toolchain.core.errors import EvidenceError, GateFailed, GateInconclusive
from toolchain.core.json_codec import Number
from toolchain.stats.decision import Outcome

Action = Literal["fail", "warn"]


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
    """One limit, judged. Values are in base units: fractions, bytes, seconds, ratios, counts (`limit.Measure`).

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
