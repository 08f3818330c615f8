"""What a step did to a model: its answers and its accuracy before and after."""

from __future__ import annotations

from dataclasses import dataclass

from toolchain.core.quantities import percent_text


@dataclass(frozen=True)
class ComparedModels:
    """A model after a step, compared with the model before it, `base`, on `images` images of `origin`.

    agreement: share of equal answers. base_accuracy, accuracy: before and after the step.
    """

    base: str
    images: int
    origin: str
    agreement: float
    base_accuracy: float
    accuracy: float

    def __str__(self) -> str:
        """Return `against cnn-small: 97.7 % equal answers, accuracy 89.36 % before and 88.96 % after, on ...`."""
        before, after = percent_text(self.base_accuracy), percent_text(self.accuracy)
        # Only 1 itself is shown as 100 %.
        equal = "100 %" if self.agreement == 1 else percent_text(min(self.agreement, 0.999), 1)
        return (
            f"against {self.base}: {equal} equal answers, accuracy {before} before and {after} after, on "
            f"{self.images:,} images of {self.origin}"
        )
