"""random-forest: the mean answer of many decision trees, each fitted to other images and pixels (Breiman 2001)."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from toolchain.models.estimator import MOST_IMAGES, Conversion, Estimator, probabilities


class RandomForest(Estimator):
    """Settings of `sklearn.ensemble.RandomForestClassifier`. Its scores are the mean probabilities of its trees."""

    images: int = Field(
        default=20_000,
        ge=2,
        le=MOST_IMAGES,
        description="most training images, each class with its share; the file grows with them",
    )
    trees: int = Field(default=150, ge=1, le=10_000, description="number of trees")
    max_depth: int | None = Field(default=None, ge=1, le=1000, description="most questions of a tree for an image")

    def build(self, *, seed: int, threads: int) -> Any:
        """Return the classifier before it is fitted."""
        from sklearn.ensemble import RandomForestClassifier

        return RandomForestClassifier(
            n_estimators=self.trees, max_depth=self.max_depth, random_state=seed, n_jobs=threads or -1
        )

    def conversion(self, classes: int) -> Conversion:
        """Return how the fitted forest is converted."""
        return probabilities(classes)
