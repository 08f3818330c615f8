"""Quantities in a policy or recipe: written with their units, kept in base units."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationInfo, WithJsonSchema

from toolchain.core import quantities

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

WRITTEN = "written"
"""Validation context of values that a person wrote, where a number without its unit is refused."""


def problem_text(problem: ErrorDetails) -> str:
    """Return what is wrong with one written value, without pydantic's names for it."""
    return problem["msg"].removeprefix("Value error, ").replace("Input should be", "it should be", 1)


def _quantity(unit: quantities.Unit, *, below: float | None = None) -> Any:
    """Return the annotation of a positive number that is written with one of `unit`'s suffixes."""

    def read(value: object, info: ValidationInfo) -> object:
        if isinstance(value, str):
            number = unit.parse(value)
            if not 0 < number < (below or math.inf):
                most = f" and less than {unit.text(below)}" if below else ""
                raise ValueError(f"give more than {unit.text(0)}{most}")
            return number
        if info.context == WRITTEN:
            raise ValueError(f'{value!r} needs quotes and a unit, such as "{unit.example}"')
        return value

    return Annotated[
        float,
        BeforeValidator(read),
        PlainSerializer(unit.text),
        Field(gt=0, lt=below, allow_inf_nan=False, strict=True),
        WithJsonSchema({"type": "string", "pattern": unit.pattern, "examples": [unit.example]}),
    ]


if TYPE_CHECKING:
    Points = float
    Bytes = float
    Seconds = float
    Ratio = float
else:
    Points = _quantity(quantities.POINTS, below=1.0)
    Bytes = _quantity(quantities.SIZE)
    Seconds = _quantity(quantities.DURATION)
    Ratio = _quantity(quantities.RATIO)
