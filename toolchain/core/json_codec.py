"""JSON of frozen dataclasses: `to_json` writes their fields, and `from_json` reads them back and checks every value.

Both use pydantic, which is imported only when the first value is written or read. The annotations are for fields whose
type pydantic does not know or must not convert.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, NewType, TypeVar

from targets.errors import TargetError, unknown_key
from targets.host.text import as_written, json_value
from toolchain.core.errors import GlyphpressError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydantic import GetCoreSchemaHandler, TypeAdapter
    from pydantic_core import CoreSchema, ErrorDetails

T = TypeVar("T")


def to_json(value: object) -> dict[str, Any]:
    """Return a dataclass as a dictionary of JSON types, its fields in order, after its `SCHEMA` if it has one."""
    from pydantic_core import to_jsonable_python

    # In two steps, since its own mode for JSON writes the int of a float field as a float.
    plain: dict[str, Any] = to_jsonable_python(_adapter(type(value)).dump_python(value, warnings=False))
    schema = getattr(value, "SCHEMA", None)
    return {"schema": schema} | plain if schema else plain


def json_types(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values with dataclasses and tuples as dictionaries and lists, for JSON that is only written."""
    from pydantic_core import to_jsonable_python

    plain: dict[str, Any] = to_jsonable_python(values)
    return plain


def from_json(kind: type[T], text: str | bytes, *, whole: bool = True, newer: Collection[str] = ()) -> T:
    """Return the dataclass that `to_json` wrote.

    whole: every key must be present; otherwise a key whose field has a default may be missing, as in files of older
    versions. newer: keys that may be missing even so, since the first files of this schema lack them. Raises
    ValueError, which names the key, for unknown keys, values of another type ("1", 1.0 and true are not integers),
    numbers that are not finite, a `schema` that is not the type's, and whatever the dataclass refuses.
    """
    from pydantic import ValidationError

    try:
        values, schema = json_value(text), getattr(kind, "SCHEMA", None)
        if schema and (not isinstance(values, dict) or values.get("schema") != schema):
            raise ValueError(f"its schema is not {schema}")
        fields = {key: value for key, value in values.items() if key != "schema"} if schema else values
        # From text: among Python values, strict pydantic accepts no list for a tuple and no string for an enum.
        plain = json.dumps(fields, ensure_ascii=False)
        value: T = _adapter(kind).validate_json(_SURROGATE.sub(lambda half: chr(ord(half[0]) + _PRIVATE), plain))
        value = _with_surrogates(value) if _SURROGATE.search(plain) else value
    except ValidationError as error:
        raise ValueError(_explained(error.errors(include_url=False)[0])) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except (GlyphpressError, TargetError) as error:
        raise ValueError(str(error)) from error
    expected = {key: inner for key, inner in to_json(value).items() if key in values or key not in newer}
    if whole and (missing := _first_missing(values, expected)):
        raise ValueError(f"'{missing}' is missing")
    return value


@dataclass(frozen=True)
class ArrayAsList:
    """Annotation of a numpy array of one axis that is a list in JSON.

    dtype: `int64`, `float32` for numbers from 0 to 1, or `S32` for hexadecimal digits.
    """

    dtype: str

    def __get_pydantic_core_schema__(self, _source: object, _handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return how pydantic reads and writes the field."""
        import numpy as np
        from pydantic_core import core_schema

        whole = core_schema.int_schema(strict=True, ge=-(2**63), lt=2**63)
        share = core_schema.float_schema(strict=True, ge=0, le=1, allow_inf_nan=False)
        digits = core_schema.str_schema(strict=True, pattern="^[0-9a-f]{1,32}$")
        members = {"int64": whole, "float32": share, "S32": digits}[self.dtype]
        return core_schema.no_info_after_validator_function(
            lambda values: np.array(values, self.dtype),
            core_schema.list_schema(members, strict=True, fail_fast=True),
            serialization=core_schema.plain_serializer_function_ser_schema(self._listed),
        )

    def _listed(self, array: NDArray[Any]) -> list[Any]:
        if self.dtype == "S32":
            return [digits.decode() for digits in array.tolist()]
        # Nine digits are every bit of a float32.
        return array.tolist() if self.dtype == "int64" else [float(f"{value:.9g}") for value in array.tolist()]


@dataclass(frozen=True)
class ByItself:
    """Annotation of a type of `targets`, which has its own `from_dict` because boards have no pydantic.

    written: its own `to_dict` writes it too.
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
    """Annotation of a type that is a string in JSON. write: gives the string; read: parses it or raises ValueError."""

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
    """Annotation of a number that stays an int or a float when it is read back."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return how pydantic reads the field."""
        from pydantic_core import core_schema

        def read(value: Any, check: Callable[[Any], object]) -> Any:
            check(value)
            return value

        return core_schema.no_info_wrap_validator_function(read, handler(source))


Number = Annotated[float, _AsWritten()]
"""A float field of a dataclass that may hold an int, which stays an int through JSON."""


class _Count:
    """Annotation of an integer from 0 to the largest int64."""

    def __get_pydantic_core_schema__(self, _source: object, _handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return how pydantic reads the field."""
        from pydantic_core import core_schema

        return core_schema.int_schema(strict=True, ge=0, lt=2**63)


Count = Annotated[int, _Count()]
"""An integer of 0 or more in a dataclass that is read from JSON."""


_SURROGATE = re.compile("[\ud800-\udfff]")
_PRIVATE = 0x100000
"""Python puts lone surrogates into file names that are not UTF-8. pydantic refuses them in JSON, so characters of
Unicode's last private plane stand in for them while it reads."""


def _with_surrogates(value: Any) -> Any:
    if type(value) is str:  # an enum's member stays one
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
    """Return pydantic's adapter of a type. Building one takes milliseconds, so each is built once."""
    if kind not in _ADAPTERS:
        from pydantic import ConfigDict, TypeAdapter

        # pydantic refuses a config for a dataclass itself; behind a NewType the dataclass inherits it.
        settings = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
        _ADAPTERS[kind] = TypeAdapter(NewType(kind.__name__, kind), config=settings)
    return _ADAPTERS[kind]


_PLAIN = (
    (r"a valid integer(, .*)?", "a whole number"),
    (r"a valid number(, .*)?", "a number"),
    (r"a valid boolean(, .*)?", "true or false"),
    (r"a valid string", "a text"),
    (r"a valid (list|tuple|array)", "a list"),
    (r"a valid (dictionary|mapping)( or .*)?", "a table"),
)


_PATTERNS = {
    "^[0-9a-f]{64}$": "64 hexadecimal digits",
    "^[0-9a-f]{1,32}$": "1 to 32 hexadecimal digits",
    "^[a-z0-9][a-z0-9-]*$": "a name of a to z, 0 to 9 and -, such as small-int8",
    r"^[1-9]\d?:[1-9]\d?$": "n:m, such as 2:4",
}
"""Regular expression of a field -> what a text of it is."""
_PATTERN = "String should match pattern '"
_LENGTH = re.compile(r"\w+ should have (at least|at most) (\d+) (items?|characters?)\b.*")


def problem_text(message: str) -> str:
    """Return what is wrong with a value in plain English; message: pydantic's."""
    if message.startswith(_PATTERN) and (meant := _PATTERNS.get(message.removeprefix(_PATTERN)[:-1])):
        return f"it should be {meant}"
    if length := _LENGTH.fullmatch(message):
        return f"it should have {length[1]} {length[2]} {length[3]}"
    text = message.removeprefix("Value error, ").replace("Input should be", "it should be", 1)
    for theirs, ours in _PLAIN:
        text = re.sub(f"^it should be {theirs}$", f"it should be {ours}", text)
    return text


def _explained(problem: ErrorDetails) -> str:
    """Return the key of the value and what is wrong with it."""
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return unknown_key(key)
    if problem["type"] == "missing":
        return f"'{key}' is missing"
    message = problem_text(problem["msg"])
    value = "" if problem["type"] == "value_error" else f", not {as_written(problem['input'])}"
    return f"{key}: {message}{value}" if key else message + value


def _first_missing(values: Any, expected: Any) -> str:
    """Return the first key of `expected` that `values` lacks, with its parents ("a.b"), or an empty string."""
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
