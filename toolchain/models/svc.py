"""svc: a support vector classifier with a radial basis function as its kernel (Cortes and Vapnik 1995)."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from pydantic import Field

from toolchain.models.estimator import MOST_IMAGES, Conversion, Estimator

_SCORES = """
scores (int64[N] label, float[N, P] answers) => (float[N, K] logits) {
    is_won = Greater(answers, zero)
    won = Cast<to = 1>(is_won)
    net_votes = MatMul(won, sides)
    votes = Add(net_votes, seconds)
    confidence = MatMul(answers, sides)
    size = Abs(confidence)
    above_one = Add(size, one)
    thrice = Mul(above_one, three)
    share = Div(confidence, thrice)
    decision = Add(votes, share)
    column = Unsqueeze(label, last_axis)
    is_answer = Equal(column, indices)
    answer = Cast<to = 1>(is_answer)
    raised = Mul(answer, two_thirds)
    logits = Add(decision, raised)
}
"""
"""scikit-learn's `decision_function` of its pairwise classifiers: votes, and less than 1/3 for how clear they were.

Where several classes have most votes, `predict` takes the first of them and `decision_function` the clearest one, so
the score of the predicted class is raised by 2/3: then the highest score is always that of `predict`.
"""


class Svc(Estimator):
    """Settings of `sklearn.svm.SVC`.

    Its scores are the decision function: calibrated probabilities (Platt) would need five more fits, and their maximum
    is not always the class that `predict` answers.
    """

    images: int = Field(
        default=10_000,
        ge=2,
        le=MOST_IMAGES,
        description="most training images, each class with its share; time grows with their square",
    )
    gamma: float | None = Field(
        default=None, gt=0, le=1e9, allow_inf_nan=False, description="of the kernel; None: 1 / (pixels * variance)"
    )
    C: float = Field(
        default=1.0, gt=0, le=1e9, allow_inf_nan=False, description="cost of a training image on the wrong side"
    )

    def build(self, *, seed: int, threads: int) -> Any:  # noqa: ARG002 (neither has an effect on this fit)
        """Return the classifier before it is fitted."""
        from sklearn.svm import SVC

        return SVC(C=self.C, gamma=self.gamma or "scale", decision_function_shape="ovo")

    def conversion(self, classes: int) -> Conversion:
        """Return how the pairwise decisions become a score for each class."""
        from onnx import numpy_helper, parser

        options = {"zipmap": False, "raw_scores": True}
        if classes == 2:
            text = "scores (int64[N] label, float[N, 2] answers) => (float[N, 2] logits) { logits = Identity(answers) }"
            return Conversion(options, parser.parse_graph(text), columns=2)
        pairs = np.array(list(combinations(range(classes), 2)))
        each = np.eye(classes, dtype=np.float32)
        constants = {
            "sides": each[pairs[:, 0]] - each[pairs[:, 1]],
            "seconds": each[pairs[:, 1]].sum(axis=0),
            "indices": np.arange(classes),
            "last_axis": np.array([1]),
            "zero": np.float32(0),
            "one": np.float32(1),
            "three": np.float32(3),
            "two_thirds": np.float32(2 / 3),
        }
        scores = parser.parse_graph(_SCORES)
        scores.initializer.extend(numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items())
        return Conversion(options, scores, columns=len(pairs))
