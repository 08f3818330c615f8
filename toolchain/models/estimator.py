"""Estimator: the settings of a scikit-learn classifier, and how its answers become one score for each class."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pydantic import Field

from toolchain.core.errors import UsageProblem
from toolchain.core.settings import Strict

if TYPE_CHECKING:
    from onnx import GraphProto

MOST_IMAGES = 1_000_000


class Conversion(NamedTuple):
    """How a fitted classifier becomes ONNX.

    options: of skl2onnx. scores: the graph from its outputs `label` (int64 [N]) and `answers` (float32) to `logits`
    float32 [N, classes]. columns: of `answers`.
    """

    options: dict[str, Any]
    scores: GraphProto
    columns: int


class Estimator(Strict):
    """Settings of a scikit-learn classifier, which is fitted to rows of pixels and becomes an .onnx file."""

    images: int = Field(
        default=MOST_IMAGES, ge=2, le=MOST_IMAGES, description="most training images, each class with its share"
    )

    @classmethod
    def of(cls, model: str, values: dict[str, Any]) -> Self:
        """Return the settings of the classifier `model`; raises UsageProblem for an unknown or impossible one."""
        for key in values.keys() - cls.model_fields.keys():
            raise UsageProblem(f"{model} has no setting '{key}'; it has {', '.join(cls.model_fields)}")
        return cls.from_options(**values)

    @abstractmethod
    def build(self, *, seed: int, threads: int) -> Any:
        """Return the classifier before it is fitted. threads: 0 for all cores."""

    @abstractmethod
    def conversion(self, classes: int) -> Conversion:
        """Return how the fitted classifier is converted."""


def probabilities(classes: int) -> Conversion:
    """Return the conversion of a classifier that answers with the probabilities of its classes."""
    from onnx import parser

    scores = parser.parse_graph(
        "scores (int64[N] label, float[N, K] answers) => (float[N, K] logits) { logits = Identity(answers) }"
    )
    return Conversion({"zipmap": False}, scores, columns=classes)
