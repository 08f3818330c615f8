"""What every step shares: its values stay as they are, and an unknown key is an error."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from toolchain.core.errors import UsageProblem
from toolchain.core.quantity_fields import problem_text


class Strict(BaseModel):
    """A frozen table of settings in which a typo is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def asked(cls, **words: Any) -> Self:
        """Build it from what a command was given; raises UsageProblem with the first thing that is wrong."""
        try:
            return cls(**words)
        except ValidationError as error:
            where, reason = first_problem(error)
            raise UsageProblem(f"{where}: {reason}" if where else reason) from error


def first_problem(error: ValidationError) -> tuple[str, str]:
    """Return where the first thing that is wrong stands (empty: in the whole), and what is wrong with it."""
    first = error.errors()[0]
    return ".".join(map(str, first["loc"])), problem_text(first)
