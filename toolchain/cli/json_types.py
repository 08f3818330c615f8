"""What `--json` prints where no dataclass has just these keys: one type for each object.

Times are in nanoseconds, sizes in bytes, and shares fractions from 0 to 1. A key that is not always printed is marked
`NotRequired`; every other key is always there, with null where a value is not known.
"""

from __future__ import annotations

from typing import Any, NotRequired

# The one of `typing` cannot be read by pydantic under Python 3.11.
from typing_extensions import TypedDict

from calibration.ink import Paper
from calibration.load import Entry
from targets.artifact import Format
from targets.profiles import DeviceProfile
from targets.session import Operator, RuntimeFacts
from toolchain.commands.quantize import FallbackTrial
from toolchain.evaluation.class_groups import GroupMetrics
from toolchain.evaluation.compare import Comparison
from toolchain.evaluation.compared_models import ComparedModels
from toolchain.evaluation.metrics import Averages, ClassMetrics, Confusion, Hypothesis
from toolchain.evaluation.mistakes import Mistake
from toolchain.evaluation.timings import LatencyRatio
from toolchain.formats.graph import Kernel
from toolchain.gate.limit import Verdict
from toolchain.recipe import Recipe
from toolchain.report.report import CheckpointFacts


class Duties(TypedDict):
    """What is done with an upright glyph, dark strokes being high values as in EMNIST.

    caller: what the program that uses the file does, in this order. file: what the file does itself. answer: what the
    caller does with the output.
    """

    caller: list[str]
    file: list[str]
    answer: list[str]


class Sidecar(TypedDict):
    """The keys of a sidecar that are not facts of the model.

    file: its name. bytes: its size.
    """

    file: str
    bytes: int
    duties: Duties


class ImageSet(TypedDict):
    """Images that were read."""

    origin: str
    count: int
    sha256: str


class Fallback(TypedDict):
    """The search of `--fallback`: all its trials, and the one whose file was written."""

    images: ImageSet
    trials: list[FallbackTrial]
    chosen: FallbackTrial


class QuantizeMore(TypedDict):
    """Of `--fallback`."""

    fallback: NotRequired[Fallback]
    verdict: NotRequired[Verdict]


class InspectMore(TypedDict):
    """bytes_by_dtype: the bytes that tensors of each dtype take."""

    bytes_by_dtype: dict[str, int]


class DataList(TypedDict):
    """The known data sets."""

    data: list[Entry]


class DataFetch(TypedDict):
    """The folder of the images, and the files in it."""

    folder: str
    files: list[str]


class TrainedData(TypedDict):
    """The images of a training; fitted: how many a classifier of scikit-learn was fitted to."""

    origin: str
    sha256: str
    images: int
    fitted: NotRequired[int]


class TrainedTest(TypedDict):
    """The result on the test split; compared, differing: of scikit-learn's own answers and the file's."""

    origin: str
    sha256: str
    images: int
    right: int
    accuracy: float
    compared: NotRequired[int]
    differing: NotRequired[int]


class Epoch(TypedDict):
    """The figures of one pass over the training images."""

    epoch: int
    steps: int
    lr: float
    loss: float
    held_out_loss: float | None
    held_out_accuracy: float | None
    seconds: float


class Fold(TypedDict):
    """The fit of one fold."""

    fold: int
    seed: int
    fitted: int
    images: int
    right: int
    accuracy: float
    interval: tuple[float, float]
    seconds: float


class FoldsData(TypedDict):
    """The images of a cross-validation."""

    origin: str
    sha256: str
    images: int


class Folds(TypedDict):
    """A cross-validation: mean and sample standard deviation of the accuracy, and its lowest and highest value."""

    data: FoldsData
    folds: list[Fold]
    mean: float
    deviation: float
    spread: tuple[float, float]


class Train(TypedDict):
    """A training. The keys of networks and those of scikit-learn's models differ; settings: the options of each."""

    model: str
    classes: list[str]
    settings: dict[str, Any]
    seed: int
    data: TrainedData
    test: NotRequired[TrainedTest]
    out: str
    parameters: int
    options: NotRequired[dict[str, Any]]
    preprocess: NotRequired[dict[str, Any]]
    device: NotRequired[str]
    start: NotRequired[dict[str, Any]]
    epoch: NotRequired[int]
    held_out_accuracy: NotRequired[float | None]
    epochs: NotRequired[list[Epoch]]
    notes: NotRequired[list[str]]
    contents: NotRequired[str]
    cross_validation: NotRequired[Folds]


class Press(TypedDict):
    """A press. out: its folder. next_steps: command lines."""

    out: str
    report: dict[str, Any]
    next_steps: list[str]


class Demo(TypedDict):
    """A press of a small model; out: its folder."""

    out: str
    report: dict[str, Any]


class Compress(TypedDict):
    """A checkpoint after a step. out: the file that was written, with its sha256. history: all its steps so far."""

    out: str
    sha256: str
    history: list[str]
    compared: ComparedModels
    warnings: NotRequired[list[str]]


class EvaluateMetrics(TypedDict):
    """Every figure; confusion: counts, rows the truth, columns the answer."""

    images: int
    right: int
    accuracy: float
    interval: tuple[float, float]
    macro: Averages
    micro: Averages
    per_class: list[ClassMetrics]
    confusions: list[Confusion]
    confusion: list[list[int]]
    kappa: float | None
    kinds: list[GroupMetrics]
    look_alikes: list[GroupMetrics]
    copies: int


class Evaluate(TypedDict):
    """The answers of a file to a test split; errors: of `--errors`; hypothesis: of `--hypothesis`."""

    artifact: str
    artifact_sha256: str
    artifact_bytes: int
    facts: RuntimeFacts
    preprocess: dict[str, Any]
    origin: str
    dataset_sha256: str
    classes: list[str]
    preprocess_source: NotRequired[str]
    metrics: EvaluateMetrics
    errors: NotRequired[list[Mistake]]
    hypothesis: NotRequired[Hypothesis]


class ExplainedFile(TypedDict):
    """One of the two files."""

    file: str
    sha256: str


class LayerError(TypedDict):
    """An error (`toolchain.explain.explanation.Error`), and its ratio of signal to noise in decibels."""

    sqnr_db: float | None
    signal: float
    noise: float
    cosine: float | None
    saturated: float | None


class ExplainedLayer(TypedDict):
    """One layer: the error of its result in the whole file, and its own alone."""

    layer: str
    operator: str
    weights: str
    values: str
    whole: LayerError
    alone: LayerError
    kernel: Kernel | None


class Explain(TypedDict):
    """The error of every layer, in the order of execution."""

    base: ExplainedFile
    candidate: ExplainedFile
    format: Format
    images: ImageSet
    layers: list[ExplainedLayer]
    float_operators: list[Kernel]


Answer = TypedDict("Answer", {"class": str, "confidence": float})
"""One possible reading of a character."""


class ReadCharacter(TypedDict):
    """A character in a picture; box: its left, top, right and bottom."""

    read: str
    line: int
    word: int
    box: tuple[int, int, int, int]
    answers: list[Answer]
    mark: bool
    joined: bool


class ReadPicture(TypedDict):
    """What a picture says; rotate: degrees by which it was turned clockwise before."""

    file: str
    width: int
    height: int
    paper: Paper
    rotate: int
    text: str
    lines: list[str]
    confidence: float
    turned_confidence: float
    notes: list[str]
    characters: list[ReadCharacter]


class Read(TypedDict):
    """What a file read in pictures."""

    artifact: str
    artifact_sha256: str
    classes: list[str]
    facts: RuntimeFacts
    pictures: list[ReadPicture]


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
    """One file on one target; the last keys are there where it was timed."""

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


class ProfileSweep(TypedDict):
    """Times over threads and batch sizes. taints: why the machine was not quiet."""

    points: list[SweepPoint]
    taints: list[str]


class ProbeMore(TypedDict):
    """The conclusions, for each format: int8's cost over float's, its interval, and what to do."""

    overall: dict[str, float]
    interval: dict[str, tuple[float, float] | None]
    advice: list[str]


class GateMore(TypedDict):
    """Of the candidate that won, of the first one if none did; next_steps: command lines."""

    verdicts: list[Verdict]
    comparison: Comparison
    next_steps: list[str]


class GateBaseline(TypedDict):
    """A stored baseline; digest: for `[baseline]` in a policy. damage: kinds of scanner damage that it holds too."""

    digest: str
    path: str
    images: int
    damage: list[str]


class RunFacts(TypedDict):
    """One press of a comparison."""

    run: str
    created: str
    checkpoint: CheckpointFacts
    dataset_sha256: str
    winner: str | None
    passed: int


class RunLine(TypedDict):
    """One file of one press; not_comparable: for each figure, why it may not be compared with the first press's."""

    file: str
    run: str
    name: str
    sha256: str
    bytes: int
    drop: float | None
    bound: float | None
    p50_ns: float | None
    p50_ratio: float | None
    p50_ratio_interval: tuple[float, float] | None
    instructions: float | None
    instructions_ratio: float | None
    winner: bool
    drop_interval: tuple[float, float] | None
    outcome: str | None
    not_comparable: dict[str, list[str]]


class ReportRuns(TypedDict):
    """A comparison of presses."""

    runs: list[RunFacts]
    lines: list[RunLine]
    notes: list[str]


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
    ratio: LatencyRatio | None


class ReportTimings(TypedDict):
    """Stored timings."""

    lines: list[TimedLine]
    notes: list[str]


class RecipeList(TypedDict):
    """The shipped recipes."""

    recipes: list[Recipe]


class TargetRow(TypedDict):
    """A target of this machine, and whether it is available."""

    name: str
    formats: list[str]
    ok: bool
    reason: str
    fix: str


class TargetsList(TypedDict):
    """Targets and device profiles."""

    targets: list[TargetRow]
    profiles: list[DeviceProfile]


class TargetsProbe(TypedDict):
    """Whether a target is available; if not, why, and how to fix it."""

    name: str
    ok: bool
    reason: str
    fix: str


class TargetsShow(TypedDict):
    """A target has formats and settings; a device profile has the other keys."""

    name: str
    summary: str
    formats: NotRequired[list[str]]
    settings: NotRequired[dict[str, Any]]
    reach: NotRequired[str]
    emulate: NotRequired[str]
    cpu: NotRequired[str]
    features: NotRequired[list[str]]
    memory: NotRequired[str]
    runtime: NotRequired[str]
    threads: NotRequired[int]
    budgets: NotRequired[dict[str, str]]


class TargetsSetup(TypedDict):
    """What was done on a board, a line for each step."""

    name: str
    done: list[str]


class DeployMore(TypedDict):
    """What was put on a board; port: of the service, 0 without one. The file's keys are missing after --rollback."""

    board: str
    name: str
    port: int
    file: NotRequired[str]
    sha256: NotRequired[str]
    answers: NotRequired[int]
    pushed: NotRequired[int]


class Kiosk(TypedDict):
    """The address of the page, its model files, and the folder of `--save`."""

    url: str
    files: list[dict[str, Any]]
    save: str | None


class Version(TypedDict):
    """Versions of Python and of the installed packages, and what machine this is."""

    python: str
    machine: dict[str, str]
    packages: dict[str, str]
