"""What every step of a recipe has: settings, and what it says of the steps around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from toolchain.core.strict import Strict


class Step(Strict):
    """The settings of one step. ends: it works on a file, so no other step can follow."""

    ends: ClassVar[bool] = False
    kind: str

    @property
    def needs_training(self) -> bool:
        """Return whether it needs training images."""
        return True

    def check_order(self, before: Sequence[Step], after: Sequence[Step]) -> None:
        """Raise ValueError where it cannot stand between these steps of a recipe."""
