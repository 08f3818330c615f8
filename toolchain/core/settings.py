"""Settings that a person writes, in a policy or a recipe: a typo is refused, quantities carry their units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from targets.host.text import as_written
from toolchain.core import quantities
from toolchain.core.errors import UsageProblem
from toolchain.core.json_codec import problem_text

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

FROM_FILE = "from file"
"""Validation context of values out of a TOML file, where a quantity without its unit is refused."""


class Strict(BaseModel):
    """A frozen table of settings; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _no_truth_values(cls, values: object) -> object:
        """Refuse true and false for a number: pydantic would take 1 and 0."""
        for name, value in values.items() if isinstance(values, dict) else ():
            field = cls.model_fields.get(name)
            if isinstance(value, bool) and field and {field.annotation, *get_args(field.annotation)} & {int, float}:
                wrong = PydanticCustomError("truth_value", "Input should be a valid number")
                raise ValidationError.from_exception_data(
                    cls.__name__, [InitErrorDetails(type=wrong, loc=(name,), input=value)]
                )
        return values

    @classmethod
    def from_options(cls, **options: Any) -> Self:
        """Build it from a command's options; raises UsageProblem with the first one that is wrong."""
        try:
            return cls(**options)
        except ValidationError as error:
            key, reason = first_problem(error)
            raise UsageProblem(f"`{key}`: {reason}" if key else reason) from error


class Step(Strict):
    """The settings of one step of a recipe. ends: it works on a file, so no other step can follow."""

    ends: ClassVar[bool] = False
    kind: str

    @property
    def needs_training(self) -> bool:
        """Return whether it needs training images."""
        return True

    def check_order(self, before: Sequence[Step], after: Sequence[Step]) -> None:
        """Raise ValueError where it cannot stand between these steps of a recipe."""


def first_problem(error: ValidationError) -> tuple[str, str]:
    """Return the dotted key of the first wrong value (empty: the whole table), and what is wrong with it."""
    first = error.errors()[0]
    return ".".join(map(str, first["loc"])), problem_text(first["msg"])


def refused(key: str, problem: ErrorDetails) -> str:
    """Return the key of a file, its value as it stands there, and what is wrong with it."""
    return f"'{key}' cannot be {as_written(problem['input'])}: {problem_text(problem['msg'])}"


def _quantity(unit: quantities.Unit, *, below: float | None = None) -> Any:
    """Return the annotation of a positive number in base units that is written with one of `unit`'s suffixes."""

    def read(value: object, info: ValidationInfo) -> object:
        if isinstance(value, str):
            number = unit.parse(value)
            if not 0 < number < (below or math.inf):
                most = f" and less than {unit.text(below)}" if below else ""
                raise ValueError(f"give more than {unit.text(0)}{most}")
            return number
        if info.context == FROM_FILE:
            raise ValueError(f'{as_written(value)} needs quotes and a unit, such as "{unit.example}"')
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
    Accuracy = float
    Bytes = float
    Seconds = float
    Ratio = float
else:
    Points = _quantity(quantities.POINTS, below=1.0)
    Accuracy = _quantity(quantities.ACCURACY, below=1.0)
    Bytes = _quantity(quantities.SIZE)
    Seconds = _quantity(quantities.DURATION)
    Ratio = _quantity(quantities.RATIO)
