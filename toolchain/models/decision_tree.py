"""decision-tree: one tree of questions about single pixels (Breiman et al. 1984, CART)."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from toolchain.models.estimator import Conversion, Estimator, probabilities


class DecisionTree(Estimator):
    """Settings of `sklearn.tree.DecisionTreeClassifier`. Its scores are the shares of the classes in the leaf."""

    max_depth: int | None = Field(default=None, ge=1, le=1000, description="most questions for an image")

    def build(self, *, seed: int, threads: int) -> Any:  # noqa: ARG002 (a tree is fitted on one thread)
        """Return the classifier before it is fitted."""
        from sklearn.tree import DecisionTreeClassifier

        return DecisionTreeClassifier(max_depth=self.max_depth, random_state=seed)

    def conversion(self, classes: int) -> Conversion:
        """Return how the fitted tree is converted."""
        return probabilities(classes)
