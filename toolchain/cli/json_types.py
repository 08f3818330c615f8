"""What `--json` prints where no dataclass has just these keys: one type for each object.

Times are in nanoseconds, sizes in bytes, and shares fractions from 0 to 1. A key that is not always printed is marked
`NotRequired`; every other key is always there, with null where a value is not known.
"""

from __future__ import annotations

from typing import Any, NotRequired

# The one of `typing` cannot be read by pydantic under Python 3.11.
from typing_extensions import TypedDict

from calibration.load import Entry
from targets.profiles import DeviceProfile
from toolchain.cli.json_answers import ImageSet
from toolchain.commands.plugins import Row
from toolchain.commands.quantize import FallbackTrial
from toolchain.evaluation.compare import Comparison
from toolchain.evaluation.compared_models import ComparedModels
from toolchain.gate.limit import Verdict
from toolchain.recipe import Recipe
from toolchain.report.report import CheckpointFacts


class Duties(TypedDict):
    """Who does what with a picture and with the answer.

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


class Plugins(TypedDict):
    """The plug-ins of installed packages."""

    plugins: list[Row]


class DeployMore(TypedDict):
    """What was put on a board; port: of the service, 0 without one. After --rollback nothing was put there."""

    board: str
    name: str
    port: int
    sha256: NotRequired[str]
    answers: NotRequired[int]
    pushed: NotRequired[dict[str, int]]


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
