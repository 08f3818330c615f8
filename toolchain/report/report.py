"""Report: what a press found, with everything needed to judge it again or to repeat it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from calibration.sample import facts_problem
from targets.artifact import Fidelity, file_sha256
from targets.host.text import json_text
from targets.preprocess import Preprocess
from targets.session import Timings
from toolchain.core.errors import EvidenceError, StageError
from toolchain.core.files import MARK, refuse_other, write_whole
from toolchain.core.json_codec import ByItself, Count, from_json, to_json
from toolchain.core.json_schema import stored_schema
from toolchain.evaluation.compare import ClassDrop, Comparison, NewConfusion
from toolchain.evaluation.evaluate import Evaluation
from toolchain.evaluation.timings import SLOWER, LatencyRatio
from toolchain.gate.limit import Part, Verdict, overall
from toolchain.gate.policy import Policy
from toolchain.report.judgement import check_verdict
from toolchain.report.machine_facts import machine_schema
from toolchain.stats.decision import Outcome

_ABOVE_ZERO = (
    *("bytes", "images", "shrink", "p50_ns", "p99_ns", "p50_ratio", "instructions", "instructions_ratio", "packed"),
    *("own_ratio", "own_shrink", "float_ratio"),
)
"""Fields of a row that are above 0 where they are known."""


@dataclass(frozen=True)
class CheckpointFacts:
    """The model that was pressed. name: the file or shipped model; model: its class. macs: of one image."""

    name: str
    model: str
    sha256: str
    parameters: Count | None = None
    macs: Count | None = None
    history: tuple[str, ...] = ()


@dataclass(frozen=True)
class DatasetFacts:
    """The images that the files were judged on."""

    origin: str
    images: Count
    classes: tuple[str, ...]
    sha256: str


@dataclass(frozen=True)
class Row:
    """One artifact: a row of the report's table.

    packed: bytes once packed (`packed_size`). shrink: how many times smaller than the float baseline. drop, bound: fall
    in accuracy against the baseline and its one-sided 95 % upper bound, fractions. p50_ns, p99_ns: None where the
    samples cannot carry them. p50_ratio: to the baseline's, taken round by round (`LatencyRatio`), with its 95 %
    interval. own_ratio, own_shrink: the same against the float file in the same runtime; on an emulated target its
    ratio is of instructions, without an interval. float_ratio: the same against the fastest float file that passes, in
    whatever format. added: nobody asked for it; the press made it because no file that was asked for is both small and
    not slower than float. The baseline itself has no drop and no verdicts; `outcome` is None where nothing was judged.
    instructions: of one inference, where the target is emulated. reasons: why it is slower or larger than float, where
    it is. fidelity: how close its logits are to those of the float file that it was made from.
    """

    name: str
    format: str
    recipe: str
    sha256: str
    bytes: int
    target: str
    images: int
    accuracy: float
    baseline: bool = False
    shrink: float | None = None
    drop: float | None = None
    bound: float | None = None
    p50_ns: float | None = None
    p99_ns: float | None = None
    p50_ratio: float | None = None
    p50_ratio_interval: tuple[float, float] | None = None
    verdicts: tuple[Verdict, ...] = ()
    winner: bool = False
    notes: tuple[str, ...] = ()
    instructions: float | None = None
    instructions_ratio: float | None = None
    packed: int | None = None
    own_ratio: float | None = None
    own_ratio_interval: tuple[float, float] | None = None
    own_shrink: float | None = None
    reasons: tuple[str, ...] = ()
    float_ratio: float | None = None
    float_ratio_interval: tuple[float, float] | None = None
    added: bool = False
    fidelity: Annotated[Fidelity, ByItself()] | None = None

    def check(self) -> None:
        """Raise EvidenceError for figures that cannot be, as in a report that was edited."""
        for verdict in self.verdicts:
            check_verdict(verdict)
        shares = {"drop": self.drop, "bound": self.bound}
        intervals = {
            name: getattr(self, name) for name in ("p50_ratio_interval", "own_ratio_interval", "float_ratio_interval")
        }
        above_zero = {name: getattr(self, name) for name in _ABOVE_ZERO}
        wrong = [name for name, value in shares.items() if value is not None and not -1 <= value <= 1]
        wrong += [name for name, value in above_zero.items() if value is not None and not value > 0]
        wrong += [name for name, ends in intervals.items() if ends is not None and not 0 < ends[0] <= ends[1]]
        wrong += ["accuracy"] * (not 0 <= self.accuracy <= 1)
        wrong += ["p99_ns"] * (None not in (self.p50_ns, self.p99_ns) and (self.p50_ns or 0) > (self.p99_ns or 0))
        wrong += ["winner"] * (self.winner and self.outcome not in (None, Outcome.PASS))
        if wrong:
            raise EvidenceError(f"{self.name}: {', '.join(wrong)} cannot be {getattr(self, wrong[0])}")

    @property
    def cost(self) -> float | None:
        """What an inference costs there: nanoseconds, or instructions where the target is emulated."""
        return self.instructions if self.instructions is not None else self.p50_ns

    @property
    def outcome(self) -> Outcome | None:
        """The outcome of all verdicts on the artifact."""
        return overall(self.verdicts) if self.verdicts else None

    @property
    def slower(self) -> bool:
        """Whether it is shown to cost over 2 % more than the float baseline, or than float in its runtime."""
        return self.slower_than_baseline or self.slower_than_own

    @property
    def slower_than_baseline(self) -> bool:
        """Whether it is shown to cost over 2 % more than the float baseline."""
        return _shown_above(self.instructions_ratio, self.p50_ratio_interval)

    @property
    def slower_than_own(self) -> bool:
        """Whether it is shown to cost over 2 % more than the float file in the same runtime."""
        return _shown_above(self.own_ratio if self.instructions is not None else None, self.own_ratio_interval)

    @property
    def larger(self) -> bool:
        """Whether it is over 2 % larger than the float baseline, or than the float file in its format."""
        return any(times is not None and times * SLOWER < 1 for times in (self.shrink, self.own_shrink))

    @classmethod
    def of(
        cls,
        evaluation: Evaluation,
        *,
        format: str,
        recipe: str,
        comparison: Comparison | None = None,
        timings: Timings | None = None,
        ratio: LatencyRatio | None = None,
        verdicts: tuple[Verdict, ...] = (),
        notes: tuple[str, ...] = (),
        fidelity: Fidelity | None = None,
    ) -> Row:
        """Return the row of an artifact; without a comparison it is the baseline."""
        p50, p99 = (None, None) if timings is None else (timings.percentile(50), timings.percentile(99))
        interval = (ratio.low, ratio.high) if ratio and ratio.low is not None and ratio.high is not None else None
        return cls(
            name=evaluation.artifact,
            format=format,
            recipe=recipe,
            sha256=evaluation.artifact_sha256,
            bytes=evaluation.artifact_bytes,
            target=evaluation.facts.target,
            images=len(evaluation),
            accuracy=evaluation.accuracy,
            baseline=comparison is None,
            shrink=comparison.baseline_bytes / comparison.candidate_bytes if comparison else 1.0,
            drop=comparison.drop if comparison else None,
            bound=comparison.upper if comparison else None,
            p50_ns=p50,
            p99_ns=p99,
            p50_ratio=ratio.ratio if ratio else 1.0 if p50 and comparison is None else None,
            p50_ratio_interval=interval,
            verdicts=verdicts,
            notes=notes,
            fidelity=fidelity,
        )


@dataclass(frozen=True)
class Failure:
    """A file that was asked for and could not be made or read. reason: the message of its stage's error."""

    name: str
    reason: str


def changed_files(report: Report, folder: Path) -> list[str]:
    """Return a line for each file in the folder of a press that is no longer the one that the report is about.

    A folder without any of its files, such as one to which the report alone was copied, has none.
    """
    files = {row.name: folder / row.name for row in report.rows}
    files = {name: file for name, file in files.items() if file.parent == folder}
    there = {name for name, file in files.items() if file.is_file()}
    lines = [
        f"{row.name} was changed after the press (sha256 {digest[:12]}…, not {row.sha256[:12]}…), so this report is "
        "not about it; press again"
        for row in report.rows
        if row.name in there and (digest := file_sha256(files[row.name])) != row.sha256
    ]
    gone = [name for name in files if there and name not in there]
    return lines + [f"{name} is no longer in {folder}; press again, or look for where it was moved" for name in gone]


def _shown_above(instructions_ratio: float | None, interval: tuple[float, float] | None) -> bool:
    """Return whether the ratio of instructions, or where there is none the low end of `interval`, exceeds `SLOWER`."""
    if instructions_ratio is not None:
        return instructions_ratio > SLOWER
    return interval is not None and interval[0] > SLOWER


@dataclass(frozen=True)
class Report:
    """Everything a press found.

    rows: the baseline first. comparisons: each candidate against the baseline. preprocess_note: how it was found.
    calibration: `CalibrationSet.facts()`, None where nothing was calibrated. policy: `Policy.to_dict()`. prefer: the
    measure that chose the winner; winners: the file that wins by each measure (`winner.Prefer`).
    failures: files that were asked for and are missing.
    command: the command line of the press. machine: that on which files were timed, as `machine_facts` tells it; tools:
    package versions. created: when the press ended, as an ISO 8601 date and time with its offset; empty in reports of
    versions that did not record it.
    """

    SCHEMA: ClassVar = "glyphpress/report/1"

    checkpoint: CheckpointFacts
    dataset: DatasetFacts
    preprocess: Annotated[Preprocess, ByItself()]
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...] = ()
    preprocess_note: str = ""
    calibration: dict[str, Any] | None = None
    policy: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    tools: dict[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    prefer: str = "balanced"
    winners: dict[str, str] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()
    created: str = ""

    def raise_unless_complete(self) -> None:
        """Raise StageError where a file that was asked for is missing."""
        if self.failures:
            missing = ", ".join(failure.name for failure in self.failures)
            requested = len(self.failures) + sum(not row.added for row in self.rows)
            raise StageError(
                f"{len(self.failures)} of {requested} files could not be made: {missing}; the report says why, and "
                "keeps what was made"
            )

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The verdicts on every artifact that was asked for."""
        return tuple(verdict for row in self.rows if not row.added for verdict in row.verdicts)

    def save(self, path: Path, *, force: bool = False) -> None:
        """Write the report as JSON."""
        write_whole(path, json_text(to_json(self), indent=1) + "\n", force=force)

    @classmethod
    def load(cls, path: Path) -> Report:
        """Read a report from its file or from the folder of a press; raises EvidenceError on anything else."""
        file = path / MARK if path.is_dir() else path
        if not file.is_file():
            raise EvidenceError(f"{file}: no report there; give the folder that `glyphpress press --out` wrote")
        refuse_other(file, cls.SCHEMA)
        try:
            report = from_json(cls, file.read_bytes(), whole=False)
            for row in report.rows:
                row.check()
        except (ValueError, EvidenceError) as error:
            raise EvidenceError(f"{file}: not a stored report ({error}); press again to make one") from error
        if report.calibration is not None and (problem := facts_problem(report.calibration)):
            raise EvidenceError(f"{file}: the facts of its calibration images are not usable: {problem}; press again")
        rows = {row.sha256: (row.bytes, row.images, row.drop) for row in report.rows}
        for compared in report.comparisons:
            figures = compared.candidate_bytes, compared.images + compared.copies, compared.drop
            if rows.get(compared.candidate_sha256) != figures:
                raise EvidenceError(f"{file}: the row of {compared.candidate} is not as its comparison; press again")
        return report


def report_schema() -> dict[str, Any]:
    """Return the JSON schema of `report.json`; reports of older versions keep to it too, without the later keys."""
    parts = (CheckpointFacts, DatasetFacts, Row, Failure, Preprocess, Fidelity, Verdict, Part, Comparison, ClassDrop)
    schema = stored_schema(Report, parts=(*parts, NewConfusion), tables={"policy": Policy}, older=True)
    drawn = {"origin": "string", "images": "integer", "seed": "integer", "sha256": "string"}
    facts: dict[str, Any] = {"properties": {key: {"type": kind} for key, kind in drawn.items()}, "required": [*drawn]}
    facts["additionalProperties"] = True
    schema["properties"] |= {
        "calibration": {"anyOf": [{"type": "object", **facts}, {"type": "null"}], "default": None},
        "machine": machine_schema(),
    }
    return schema
