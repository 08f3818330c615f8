"""What `--json` prints of answers to images where no dataclass has just these keys; see `toolchain.cli.json_types`."""

from __future__ import annotations

from typing import Any, NotRequired

from typing_extensions import TypedDict

from calibration.ink import Paper
from glyphpress.registry import Plugin
from targets.artifact import Format
from targets.session import RuntimeFacts
from toolchain.evaluation.class_groups import GroupMetrics
from toolchain.evaluation.metrics import Averages, ClassMetrics, Confusion, Hypothesis
from toolchain.evaluation.mistakes import Mistake
from toolchain.formats.graph import Kernel


class ImageSet(TypedDict):
    """Images that were read."""

    origin: str
    count: int
    sha256: str


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
    plugins: NotRequired[list[Plugin]]
    one_by_one: NotRequired[bool]
    class_order: NotRequired[list[str]]
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


class UnreadPicture(TypedDict):
    """A picture that could not be read, and why."""

    file: str
    reason: str


class Read(TypedDict):
    """What a file read in pictures; unread: those in which it could not read anything."""

    artifact: str
    artifact_sha256: str
    classes: list[str]
    facts: RuntimeFacts
    pictures: list[ReadPicture]
    unread: list[UnreadPicture]
