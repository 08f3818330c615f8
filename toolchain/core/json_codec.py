"""JSON of frozen dataclasses: `to_json` writes their fields as they stand, `from_json` reads them back strictly.

pydantic does both. It is imported, and builds what it needs of a type, when the first value of that type is written or
read. The annotations here say how a field stands in JSON whose type pydantic does not know, or must not convert.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, NewType, TypeVar

from targets.errors import TargetError
from targets.host.text import json_value
from toolchain.core.errors import GlyphpressError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydantic import GetCoreSchemaHandler, TypeAdapter
    from pydantic_core import CoreSchema, ErrorDetails

T = TypeVar("T")


def to_json(value: object) -> dict[str, Any]:
    """Return a dataclass as JSON types, its fields in order, first the name of its form if it has a `SCHEMA`."""
    from pydantic_core import to_jsonable_python

    # In two steps, since its own mode for JSON writes the int of a float field as a float.
    plain: dict[str, Any] = to_jsonable_python(_adapter(type(value)).dump_python(value, warnings=False))
    schema = getattr(value, "SCHEMA", None)
    return {"schema": schema} | plain if schema else plain


def from_json(kind: type[T], text: str, *, whole: bool = True) -> T:
    """Return the dataclass that `to_json` wrote; raises ValueError that names the key and says what is wrong with it.

    Refused are unknown keys, values of another type ("1", 1.0 and true are no integers), numbers that are not finite,
    another `schema` than the type's, and what the dataclass itself refuses. whole: every key must be there; without it
    a key whose field has a default may be missing, as in files of older versions.
    """
    from pydantic import ValidationError

    try:
        values, schema = json_value(text), getattr(kind, "SCHEMA", None)
        if schema and (not isinstance(values, dict) or values.get("schema") != schema):
            raise ValueError(f"its schema is not {schema}")
        fields = {key: value for key, value in values.items() if key != "schema"} if schema else values
        # From text, since of Python values pydantic would take no list for a tuple and no word for an enum.
        plain = json.dumps(fields, ensure_ascii=False)
        value: T = _adapter(kind).validate_json(_SURROGATE.sub(lambda half: chr(ord(half[0]) + _PRIVATE), plain))
        value = _with_surrogates(value) if _SURROGATE.search(plain) else value
    except ValidationError as error:
        raise ValueError(_explained(error.errors(include_url=False)[0])) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except (GlyphpressError, TargetError) as error:
        raise ValueError(str(error)) from error
    if whole and (missing := _first_missing(values, to_json(value))):
        raise ValueError(f"'{missing}' is missing")
    return value


@dataclass(frozen=True)
class ArrayAsList:
    """Annotation of a numpy array that stands in JSON as a list, and is read back as one of a single axis.

    dtype: `int64`, or `float32` for numbers from 0 to 1.
    """

    dtype: str

    def __get_pydantic_core_schema__(self, _source: object, _handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return how pydantic reads and writes the field."""
        import numpy as np
        from pydantic_core import core_schema

        whole = core_schema.int_schema(strict=True, ge=-(2**63), lt=2**63)
        share = core_schema.float_schema(strict=True, ge=0, le=1, allow_inf_nan=False)
        numbers = core_schema.list_schema(whole if self.dtype == "int64" else share, strict=True, fail_fast=True)
        return core_schema.no_info_after_validator_function(
            lambda values: np.array(values, self.dtype),
            numbers,
            serialization=core_schema.plain_serializer_function_ser_schema(self._listed),
        )

    def _listed(self, array: NDArray[Any]) -> list[Any]:
        # Nine digits are every bit of a float32.
        return array.tolist() if self.dtype == "int64" else [float(f"{value:.9g}") for value in array.tolist()]


@dataclass(frozen=True)
class ByItself:
    """Annotation of a type of `targets`, which boards read without pydantic: its own `from_dict` reads it here too.

    written: whether its own `to_dict` writes it, instead of its fields as they stand.
    """

    written: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return how pydantic reads and writes the field."""
        from pydantic_core import core_schema

        def read(values: Any, _: object) -> Any:
            try:
                return source.from_dict(values)
            except KeyError as error:
                raise ValueError(f"{error} is missing") from error
            except (TypeError, TargetError) as error:
                raise ValueError(str(error)) from error

        if not self.written:
            return core_schema.no_info_wrap_validator_function(read, handler(source))
        writer = core_schema.plain_serializer_function_ser_schema(source.to_dict)
        return core_schema.no_info_wrap_validator_function(read, core_schema.any_schema(), serialization=writer)


@dataclass(frozen=True)
class AsText:
    """Annotation of a type that stands in JSON as the text that `write` gives. read: takes it, raises ValueError."""

    read: Callable[[str], Any]
    write: Callable[[Any], str]

    def __get_pydantic_core_schema__(self, _source: object, _handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return how pydantic reads and writes the field."""
        from pydantic_core import core_schema

        writer = core_schema.plain_serializer_function_ser_schema(self.write)
        return core_schema.no_info_after_validator_function(
            self.read, core_schema.str_schema(strict=True), serialization=writer
        )


class _AsWritten:
    """Annotation of a number that is read back as the int or the float that was written."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return how pydantic reads the field."""
        from pydantic_core import core_schema

        def read(value: Any, check: Callable[[Any], object]) -> Any:
            check(value)
            return value

        return core_schema.no_info_wrap_validator_function(read, handler(source))


Number = Annotated[float, _AsWritten()]
"""A number of a dataclass that may also be a count: an int stays one through JSON."""


class _Count:
    """Annotation of a whole number of 0 or more that fits an int64."""

    def __get_pydantic_core_schema__(self, _source: object, _handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return how pydantic reads the field."""
        from pydantic_core import core_schema

        return core_schema.int_schema(strict=True, ge=0, lt=2**63)


Count = Annotated[int, _Count()]
"""A whole number of 0 or more, of a dataclass that is read from JSON."""


_SURROGATE = re.compile("[\ud800-\udfff]")
_PRIVATE = 0x100000
"""Half a character stands in the name of a file that is no UTF-8. pydantic reads none, so it is given a character of
Unicode's last private plane in its place."""


def _with_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return re.sub("[\U0010d800-\U0010dfff]", lambda half: chr(ord(half[0]) - _PRIVATE), value)
    if isinstance(value, dict):
        return {_with_surrogates(key): _with_surrogates(inner) for key, inner in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(map(_with_surrogates, value))
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _with_surrogates(getattr(value, field.name)) for field in fields(value)})
    return value


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    """Return what reads and writes a type; building it takes milliseconds, so that is done once."""
    if kind not in _ADAPTERS:
        from pydantic import ConfigDict, TypeAdapter

        # A dataclass at the top would take no settings from here; those inside another type inherit them.
        settings = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
        _ADAPTERS[kind] = TypeAdapter(NewType(kind.__name__, kind), config=settings)
    return _ADAPTERS[kind]


def _explained(problem: ErrorDetails) -> str:
    """Return the key and what is wrong with its value."""
    place = ".".join(map(str, problem["loc"]))
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"unknown key '{place}'"
    if problem["type"] == "missing":
        return f"'{place}' is missing"
    words = problem["msg"].removeprefix("Value error, ").replace("Input should be", "it should be", 1)
    value = "" if problem["type"] == "value_error" else f", not {_short(problem['input'])}"
    return f"{place}: {words}{value}" if place else words + value


def _first_missing(values: Any, expected: Any) -> str:
    """Return the first key that stands only in what is expected, its parents before it; nothing where there is none."""
    if isinstance(expected, list) and expected and isinstance(expected[0], dict):
        values, expected = (dict(enumerate(items)) for items in (values, expected))
    if not isinstance(expected, dict):
        return ""
    for key, inner in expected.items():
        if key not in values:
            return str(key)
        if below := _first_missing(values[key], inner):
            return f"{key}.{below}"
    return ""


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:40] + "…"
