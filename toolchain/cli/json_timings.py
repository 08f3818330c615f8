"""What `--json` prints of measurements where no dataclass has just these keys; see `toolchain.cli.json_types`."""

from __future__ import annotations

from typing import Any, NotRequired

from typing_extensions import TypedDict

from targets.session import Operator, RuntimeFacts
from toolchain.evaluation.timings import LatencyRatio
from toolchain.profiling.latency_history import Point, Ratio
from toolchain.profiling.run_comparison import RunNoise
from toolchain.stats.decision import Outcome


class CountedInstructions(TypedDict):
    """Instructions of single inferences on an emulated processor."""

    artifact_sha256: str
    facts: RuntimeFacts
    samples: list[int]
    batch: int
    median: float


class MeasuredAgreement(TypedDict):
    """How the answers differ from the reference's (`toolchain.profiling.measurements.Agreement`)."""

    reference: str
    images: int
    differing: int
    largest: float
    scale: float
    match: bool


class ProfileRow(TypedDict):
    """One file on one target; the last keys are there where it was timed.

    percentiles_ns: without the time in which the system ran others in the middle of a sample; raw_percentiles_ns: with
    it; interrupted_samples: how many samples that concerns; interrupted_share: its share of the measured time.
    """

    artifact: str
    sha256: str
    bytes: int
    packed: int | None
    target: str
    facts: RuntimeFacts | None
    cost: str | None
    refused: str
    missing: bool
    agreement: MeasuredAgreement | None
    instructions: CountedInstructions | None
    instructions_ratio: float | None
    peak_bytes: int | None
    ratio: LatencyRatio | None
    ratio_p95: LatencyRatio | None
    slower: bool
    larger: bool
    reasons: list[str]
    batch: NotRequired[int]
    inner: NotRequired[int]
    warmup: NotRequired[int]
    load_ns: NotRequired[int]
    first_run_ns: NotRequired[int]
    samples: NotRequired[int]
    machine: NotRequired[dict[str, Any]]
    percentiles_ns: NotRequired[dict[str, float | None]]
    interrupted_samples: NotRequired[int]
    interrupted_share: NotRequired[float]
    raw_percentiles_ns: NotRequired[dict[str, float | None]]


class Profile(TypedDict):
    """The measurements of files on targets. taints: why the machine was not quiet."""

    rows: list[ProfileRow]
    plan: dict[str, Any]
    taints: list[str]
    threads: int
    rounds: int
    seed: int
    machine: dict[str, Any]


class OperatorTimes(TypedDict):
    """The operators of one file on one target, in the order of execution; runs: how often it ran."""

    artifact: str
    sha256: str
    target: str
    threads: int
    batch: int
    ns: float
    runs: int
    taints: list[str]
    operators: list[Operator]


class ProfileOperators(TypedDict):
    """The times of operators."""

    breakdowns: list[OperatorTimes]


class SweepPoint(TypedDict):
    """One file with one number of threads and one batch size; refused: why it was not timed."""

    artifact: str
    target: str
    threads: int
    batch: int
    refused: str
    facts: NotRequired[RuntimeFacts]
    samples: NotRequired[int]
    p50_ns: float | None
    image_ns: float | None
    speed_up: LatencyRatio | None


class ProfileSweep(TypedDict):
    """Times over threads and batch sizes. taints: why the machine was not quiet."""

    points: list[SweepPoint]
    taints: list[str]


class ProbeMore(TypedDict):
    """The conclusions, for each format: int8's cost over float's, its interval, and what to do."""

    overall: dict[str, float]
    interval: dict[str, tuple[float, float] | None]
    advice: list[str]


class TimedLine(TypedDict):
    """One file in one stored run."""

    run: str
    artifact: str
    sha256: str
    facts: RuntimeFacts
    batch: int
    samples: int
    rounds: int
    percentiles_ns: dict[str, float | None]
    interrupted_samples: int
    interrupted_share: float
    raw_percentiles_ns: dict[str, float | None]
    ratio: LatencyRatio | None


class ReportTimings(TypedDict):
    """Stored timings."""

    lines: list[TimedLine]
    notes: list[str]


class SavedRow(TypedDict):
    """One file of a saved run."""

    artifact: str
    sha256: str
    target: str
    p50_ns: float | None
    samples: int
    instructions: float | None


class SavedRun(TypedDict):
    """One saved run."""

    path: str
    created: str
    commit: str
    machine: dict[str, Any]
    taints: list[str]
    tools: dict[str, str]
    files: list[SavedRow]


class ProfileList(TypedDict):
    """The saved runs of a folder; unreadable: why files in it could not be read."""

    runs: list[SavedRun]
    unreadable: list[str]


class RunName(TypedDict):
    """A saved run."""

    path: str
    created: str
    commit: str


class ComparedRow(TypedDict):
    """A file of the later run and the same file, or the only one on that target, in the earlier run."""

    artifact: str
    target: str
    base_artifact: str
    same_content: bool
    base_percentiles_ns: dict[str, float | None]
    percentiles_ns: dict[str, float | None]
    ratio: LatencyRatio | None
    noise: RunNoise | None
    instructions_ratio: float | None
    runs_before: int
    runs_after: int
    outcome: Outcome
    taints: list[str]


class ProfileCompare(TypedDict):
    """A comparison of two saved runs."""

    base: RunName
    run: RunName
    rows: list[ComparedRow]
    outcome: Outcome
    notes: list[str]


class NamedChange(TypedDict):
    """A new level (`toolchain.profiling.latency_history.Change`), whether it is slower, and the commit of its start.

    commit_before: of the last run that is surely at the old level. The names of commits are empty where none is known.
    """

    index: int
    earliest: int
    latest: int
    size: Ratio
    runs_before: int
    runs_after: int
    since: Ratio
    standing: bool
    sure: bool
    reasons: list[str]
    kind: str
    commit: str
    earliest_commit: str
    latest_commit: str
    commit_before: str


class Series(TypedDict):
    """The runs of one file and the changes of its level; current: whether the newest run of all is among them."""

    artifact: str
    target: str
    threads: int
    batch: int
    machine: dict[str, Any]
    points: list[Point]
    changes: list[NamedChange]
    current: bool
    outcome: Outcome
    said: list[str]


class ProfileHistory(TypedDict):
    """The latencies of saved runs over time."""

    series: list[Series]
    outcome: Outcome
    level: float
