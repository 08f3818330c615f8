"""Report: what a press found, with everything needed to judge it again or to repeat it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from targets.errors import ArtifactError
from targets.preprocess import Preprocess
from targets.target import Timings
from toolchain.errors import EvidenceError
from toolchain.files import MARK, write_whole
from toolchain.verdict.compare import Comparison
from toolchain.verdict.evaluate import Evaluation
from toolchain.verdict.outcome import Outcome, Verdict, overall
from toolchain.verdict.ratio import LatencyRatio

SCHEMA = "glyphpress/report/1"

SLOWER = 1.02
"""From here on a file is called slower: less is nobody's concern, and the same file twice is never told apart by it."""


@dataclass(frozen=True)
class CheckpointFacts:
    """The model that was pressed. name: the file or shipped model; model: its class. macs: of one image."""

    name: str
    model: str
    sha256: str
    parameters: int | None = None
    macs: int | None = None
    history: tuple[str, ...] = ()


@dataclass(frozen=True)
class DatasetFacts:
    """The images that judged it."""

    origin: str
    images: int
    classes: tuple[str, ...]
    sha256: str


@dataclass(frozen=True)
class Row:
    """One artifact: a line of the table.

    shrink: how many times smaller than the float baseline. drop, bound: fall in accuracy against the baseline and its
    one-sided 95 % upper bound, fractions. p50_ns, p99_ns: None where the samples cannot carry them. p50_ratio: to the
    baseline's, taken round by round (`LatencyRatio`), with its 95 % interval. The baseline itself has no drop and no
    verdicts; `outcome` is None where nothing was judged. instructions: of one inference, where the target is emulated.
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

    @property
    def cost(self) -> float | None:
        """What an inference costs there: nanoseconds, or instructions where the place is emulated."""
        return self.instructions if self.instructions is not None else self.p50_ns

    @property
    def outcome(self) -> Outcome | None:
        """The outcome of all verdicts on the artifact."""
        return overall(self.verdicts) if self.verdicts else None

    @property
    def slower(self) -> bool:
        """Whether its median latency is shown to be above the float baseline's by more than 2 %."""
        return self.p50_ratio_interval is not None and self.p50_ratio_interval[0] > SLOWER

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
        winner: bool = False,
        notes: tuple[str, ...] = (),
    ) -> Row:
        """Return the line of an artifact; without a comparison it is the baseline."""
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
            winner=winner,
            notes=notes,
        )


@dataclass(frozen=True)
class Report:
    """Everything a press found.

    rows: the baseline first. comparisons: each candidate against the baseline. preprocess_note: how it was found.
    calibration: `CalibrationSet.facts()`, None where nothing was calibrated. policy: `Policy.to_dict()`.
    command: the words that made it. machine: state of the host; tools: package versions.
    """

    checkpoint: CheckpointFacts
    dataset: DatasetFacts
    preprocess: Preprocess
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...] = ()
    preprocess_note: str = ""
    calibration: dict[str, Any] | None = None
    policy: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    tools: dict[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The verdicts on every artifact."""
        return tuple(verdict for row in self.rows for verdict in row.verdicts)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types; `from_dict` is the inverse."""
        return {"schema": SCHEMA} | asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Report:
        """Rebuild from `to_dict`; raises EvidenceError on anything else."""
        try:
            if values["schema"] != SCHEMA:
                raise ValueError(f"schema {values['schema']!r}, expected {SCHEMA!r}")
            rebuilt = {
                "checkpoint": CheckpointFacts(**_tuples(values["checkpoint"], "history")),
                "dataset": DatasetFacts(**_tuples(values["dataset"], "classes")),
                "preprocess": Preprocess.from_dict(values["preprocess"]),
                "rows": tuple(_row(row) for row in values["rows"]),
                "comparisons": tuple(Comparison.from_dict(one) for one in values["comparisons"]),
                "command": tuple(values["command"]),
                "notes": tuple(values["notes"]),
            }
            return cls(**{one.name: values[one.name] for one in fields(cls)} | rebuilt)
        except (KeyError, TypeError, ValueError, ArtifactError) as error:
            raise EvidenceError(f"not a stored report ({error}); press again to make one") from error

    def save(self, path: Path, *, force: bool = False) -> None:
        """Write the report as JSON."""
        text = json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False, indent=1)
        write_whole(path, text + "\n", force=force)

    @classmethod
    def load(cls, path: Path) -> Report:
        """Read a report from its file or from the folder of a press; raises EvidenceError on anything else."""
        place = path / MARK if path.is_dir() else path
        if not place.is_file():
            raise EvidenceError(f"{place}: no report there; give the folder that `glyphpress press --out` wrote")
        try:
            values = json.loads(place.read_text(encoding="utf-8"))
        except ValueError as error:
            raise EvidenceError(f"{place}: not a report ({error}); press again to make one") from error
        if not isinstance(values, dict):
            raise EvidenceError(f"{place}: not a report; give the folder that `glyphpress press --out` wrote")
        return cls.from_dict(values)


def _tuples(values: dict[str, Any], *keys: str) -> dict[str, Any]:
    return values | {key: tuple(values[key]) for key in keys}


def _row(values: dict[str, Any]) -> Row:
    verdicts = tuple(Verdict.from_dict(one) for one in values["verdicts"])
    interval = values["p50_ratio_interval"]
    return Row(
        **_tuples(values, "notes") | {"verdicts": verdicts, "p50_ratio_interval": tuple(interval) if interval else None}
    )
