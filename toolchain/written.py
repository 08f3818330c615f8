"""Quantities in a policy or recipe: written with their units, kept in base units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationInfo, WithJsonSchema

from toolchain import quantities

WRITTEN = "written"
"""Validation context of values that a person wrote, where a number without its unit is refused."""


def _quantity(unit: quantities.Unit, *, below: float | None = None) -> Any:
    """Return the annotation of a positive number that is written with one of `unit`'s suffixes."""

    def read(value: object, info: ValidationInfo) -> object:
        if isinstance(value, str):
            return unit.parse(value)
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
