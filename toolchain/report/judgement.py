"""Judgement: all that a run of the gate concluded, of one candidate or of several that compete; `verdict.json`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from glyphpress.registry import Plugin, loaded
from targets.host.text import json_text
from targets.session import RuntimeFacts, Timings
from toolchain.core.errors import EvidenceError, PolicyError
from toolchain.core.files import refuse_other, write_whole
from toolchain.core.json_codec import from_json, to_json
from toolchain.core.json_schema import stored_schema
from toolchain.core.quantities import points_text, size_text, time_text
from toolchain.core.versions import tool_versions
from toolchain.evaluation.compare import ClassDrop, Comparison, FileFacts, NewConfusion, comparison
from toolchain.gate.gate import Evidence
from toolchain.gate.limit import Measure, Part, Verdict, overall, raise_for
from toolchain.gate.limits import REGISTRY, definition
from toolchain.gate.policy import Policy, policy_from, whole_form
from toolchain.stats.decision import Outcome
from toolchain.stats.paired_difference import upper_bound

_ROUNDING = 1e-9
_RISK = 0.05
_TOOLS = ("ai-edge-litert", "numpy", "onnxruntime")

Standing = Literal["passed", "warned", "stopped", "beaten"]


@dataclass(frozen=True)
class Judged:
    """One candidate. p50: median latency in seconds, None where it was not timed.

    path: where it lies, relative to the folder the gate ran in, or only its name. evidence_sha256: digest of the
    stored evidence, None where it was not stored.
    """

    file: FileFacts
    outcome: Outcome
    verdicts: tuple[Verdict, ...]
    comparison: Comparison
    p50: float | None = None
    path: str = ""
    evidence_sha256: str | None = None

    def __post_init__(self) -> None:
        """Reject an outcome that the verdicts do not give."""
        if self.outcome is not overall(self.verdicts):
            raise EvidenceError(f"{self.file.name}: {self.outcome} is not what its verdicts say; run the gate again")

    def check(self) -> None:
        """Raise EvidenceError for figures that cannot be or are another file's, as in a verdict that was edited."""
        for verdict in self.verdicts:
            check_verdict(verdict)
        compared = self.comparison.candidate_sha256, self.comparison.candidate_bytes
        if compared != (self.file.sha256, self.file.bytes) or not (self.p50 is None or self.p50 > 0):
            raise EvidenceError(f"{self.file.name}: its comparison or its latency is not its own; run the gate again")

    @classmethod
    def of(
        cls, evidence: Evidence, verdicts: tuple[Verdict, ...], file: Path | None, evidence_sha256: str | None
    ) -> Judged:
        """Return what was concluded of the candidate that the evidence is of."""
        candidate = evidence.pairs.candidate
        return cls(
            file=candidate,
            outcome=overall(verdicts),
            verdicts=verdicts,
            comparison=comparison(evidence.pairs),
            p50=_median(evidence.timings),
            path=_relative(file) if file is not None else candidate.name,
            evidence_sha256=evidence_sha256,
        )


@dataclass(frozen=True)
class Judgement:
    """What the gate concluded. policy: `Policy.to_dict()`. winner: the name of the candidate that may ship, or None.

    competitors: of how many candidates the best was to ship, for which the confidences were corrected. tools: package
    versions. plugins: those whose code took part, in gathering the evidence or in judging it.
    """

    SCHEMA: ClassVar = "glyphpress/verdict/1"

    policy: dict[str, Any]
    baseline: FileFacts
    candidates: tuple[Judged, ...]
    competitors: int
    winner: str | None
    outcome: Outcome
    tools: dict[str, str] = field(default_factory=dict)
    plugins: tuple[Plugin, ...] = ()

    def __post_init__(self) -> None:
        """Reject what does not follow from the candidates."""
        try:
            policy_from(self.policy)
        except PolicyError as error:
            absent = [each for each in self.plugins if each.kind == "limit" and each.name not in REGISTRY]
            if not absent:
                raise
            raise EvidenceError(f"the {absent[0]} took part, and is not installed here; install it") from error
        names = Counter(judged.file.name for judged in self.candidates)
        if repeated := [name for name, count in names.items() if count > 1]:
            raise EvidenceError(f"several candidates are called {repeated[0]}; give each file a name of its own")
        if self.winner not in [None, *(judged.file.name for judged in _passing(self.candidates))]:
            raise EvidenceError(f"{self.winner} cannot have won, since it did not pass; run the gate again")
        if self.outcome is not _outcome(self.candidates, self.winner):
            raise EvidenceError(f"{self.outcome} is not what the candidates' verdicts say; run the gate again")

    @classmethod
    def of(
        cls,
        policy: Policy,
        judged: Sequence[tuple[Evidence, tuple[Verdict, ...]]],
        *,
        files: Sequence[Path] = (),
        digests: Sequence[str] = (),
    ) -> Judgement:
        """Return the conclusion of the verdicts on one candidate, or on each of several that compete.

        PASS when a candidate passes: the winner is the fastest (P50) where all that pass were timed, otherwise the
        smallest. FAIL when every one fails, else INCONCLUSIVE. The verdicts must have been given with their number as
        `competitors` (`gate.judge`). files and digests: the candidates' paths and their stored evidence's sha256, in
        the same order. Raises EvidenceError without a candidate, and when the candidates were judged against other
        baselines or on other images.
        """
        _check_together([evidence for evidence, _ in judged])
        none: list[None] = [None] * len(judged)
        candidates = tuple(
            Judged.of(evidence, verdicts, file, sha256)
            for (evidence, verdicts), file, sha256 in zip(judged, files or none, digests or none, strict=True)
        )
        winner = _winner(candidates)
        return cls(
            policy=policy.to_dict(),
            baseline=judged[0][0].pairs.baseline,
            candidates=candidates,
            competitors=len(candidates),
            winner=winner,
            outcome=_outcome(candidates, winner),
            tools=tool_versions(*_TOOLS),
            plugins=tuple(sorted({*loaded(), *(each for evidence, _ in judged for each in evidence.plugins)})),
        )

    def verdicts(self) -> Iterator[tuple[Judged, Verdict, Standing]]:
        """Yield every verdict with its candidate and what it means for the run.

        passed: PASS. Any other outcome is beaten where another candidate ships instead; otherwise warned where the
        limit only warns, and stopped where it keeps the candidate from shipping.
        """
        for judged in self.candidates:
            beaten = self.winner not in (None, judged.file.name)
            for verdict in judged.verdicts:
                unless_passed: Standing = "beaten" if beaten else "warned" if verdict.action == "warn" else "stopped"
                yield judged, verdict, "passed" if verdict.outcome is Outcome.PASS else unless_passed

    @property
    def confidence(self) -> float:
        """Return that of `most_lost`: 95 %, corrected for the choice among the competitors as the verdicts are."""
        return 1 - _RISK / self.competitors

    def most_lost(self, judged: Judged) -> float:
        """Return the upper bound of a candidate's fall in accuracy, of all images, one-sided at `confidence`."""
        compared = judged.comparison
        return float(upper_bound(compared.lost, compared.gained, compared.images, self.confidence))

    def raise_unless_passed(self) -> None:
        """Raise GateFailed or GateInconclusive, with the reasons, unless the outcome is PASS."""
        if self.outcome is not Outcome.PASS:
            deciding = [judged for judged in self.candidates if judged.outcome is self.outcome]
            raise_for(verdict for judged in deciding for verdict in judged.verdicts)

    def save(self, path: Path, *, force: bool = False) -> None:
        """Write `verdict.json`, whose format `verdict_schema` describes."""
        write_whole(path, json_text(to_json(self), indent=1) + "\n", force=force)

    @classmethod
    def load(cls, path: Path) -> Judgement:
        """Read what `save` wrote; raises EvidenceError on anything else."""
        refuse_other(path, cls.SCHEMA)
        try:
            judgement = from_json(cls, path.read_bytes(), whole=False)
            for judged in judgement.candidates:
                judged.check()
        except (OSError, ValueError, EvidenceError) as error:
            raise EvidenceError(f"{path}: not a stored judgement ({error}); run the gate again") from error
        return judgement


def _passing(candidates: Sequence[Judged]) -> list[Judged]:
    return [judged for judged in candidates if judged.outcome is Outcome.PASS]


def _winner(candidates: Sequence[Judged]) -> str | None:
    passing = _passing(candidates)
    timed = all(judged.p50 is not None for judged in passing)
    best = min(passing, key=lambda judged: (judged.p50 or 0.0 if timed else 0.0, judged.file.bytes), default=None)
    return None if best is None else best.file.name


def _outcome(candidates: Sequence[Judged], winner: str | None) -> Outcome:
    if winner is not None:
        return Outcome.PASS
    failed = bool(candidates) and all(judged.outcome is Outcome.FAIL for judged in candidates)
    return Outcome.FAIL if failed else Outcome.INCONCLUSIVE


def _check_together(evidence: Sequence[Evidence]) -> None:
    """Raise EvidenceError unless there is evidence, all of it against one baseline on the same images."""
    if not evidence:
        raise EvidenceError("nothing was judged; give at least one candidate")
    first = evidence[0].pairs
    for other in (proof.pairs for proof in evidence[1:]):
        if other.baseline.sha256 != first.baseline.sha256 or other.dataset_sha256 != first.dataset_sha256:
            names = f"{first.candidate.name} and {other.candidate.name}"
            raise EvidenceError(f"{names} were judged against other baselines or images; judge them together")


def _median(timings: Timings | None) -> float | None:
    nanoseconds = None if timings is None else timings.percentile(50)
    return None if nanoseconds is None else nanoseconds / 1e9


def _relative(path: Path) -> str:
    """Return a file's path relative to the working folder, in POSIX form, or only its name if it is elsewhere."""
    full = path.absolute()
    return full.relative_to(Path.cwd()).as_posix() if full.is_relative_to(Path.cwd()) else path.name


_SPANS: dict[Measure, tuple[float, float]] = {"share": (-1.0, 1.0), "cost": (-math.inf, math.inf)}


def check_verdict(verdict: Verdict) -> None:
    """Raise EvidenceError for a verdict whose figures cannot be, or that passes beyond its limit."""
    if verdict.limit not in REGISTRY:
        raise EvidenceError(f"no limit is called {verdict.limit}; run the gate again")
    settings = definition(verdict.limit).settings
    low, high = _SPANS.get(settings.measure, (0.0, math.inf))
    sign = -1 if "min" in settings.model_fields else 1
    everything: tuple[Part | Verdict, ...] = (*verdict.parts, verdict)
    for judged in everything:
        values = [value for value in (judged.measured, judged.bound) if value is not None]
        if any(not low - _ROUNDING <= value <= high + _ROUNDING for value in values):
            raise EvidenceError(f"{verdict.limit}: {values} cannot be measured; run the gate again")
        # Of many parts each has a limit of its own, and the verdict's figure is that of one of them.
        alone = judged is not verdict or not verdict.parts
        beyond = judged.measured is not None and sign * (judged.measured - judged.threshold) > _ROUNDING
        if judged.outcome is Outcome.PASS and alone and beyond:
            raise EvidenceError(
                f"{verdict.limit}: {judged.measured} cannot pass {judged.threshold}; run the gate again"
            )


def value_text(limit: str, value: float | None) -> str:
    """Return a verdict's value with its unit; `-` for None."""
    return "-" if value is None else _measure_text(definition(limit).settings.measure, value)


def allowed_text(limit: str, threshold: float) -> str:
    """Return what a limit allows: `at most 0.300 pp`."""
    is_minimum = "min" in definition(limit).settings.model_fields
    return f"{'at least' if is_minimum else 'at most'} {value_text(limit, threshold)}"


def _measure_text(measure: Measure, value: float) -> str:
    if measure == "bytes":
        return size_text(value)
    if measure == "seconds":
        return time_text(value)
    if measure == "ratio":
        return f"{value:.3g}x"
    return f"{value:,.0f}" if measure == "count" else f"{points_text(value, 3)} pp"


def verdict_schema() -> dict[str, Any]:
    """Return the JSON schema of `verdict.json`, its policy included."""
    parts = (Judged, Plugin, FileFacts, RuntimeFacts, Verdict, Part, Comparison, ClassDrop, NewConfusion)
    return stored_schema(Judgement, parts=parts, tables={"policy": whole_form()})
