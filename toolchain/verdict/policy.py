"""Policy: what a candidate must hold to be shipped. Every limit is a table of its own, with its own action.

[drop]          # fall in accuracy against the baseline: the non-inferiority margin
max = "0.3pp"
confidence = 0.95
action = "fail" # or "warn"

[size]          # of the file
max = "250KB"

[shrink]        # how many times smaller than the baseline
min = "3.6x"

[p95]           # latency at batch 1; also [p50]
max = "2ms"

[p50_ratio]     # latency over the baseline's; also [p95_ratio]
max = "0.9x"
"""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError, ValidationInfo

from toolchain import quantities
from toolchain.errors import PolicyError

Action = Literal["fail", "warn"]

# Validation context of values that a person wrote, where a number without its unit is refused.
_WRITTEN = "written"


def _quantity(unit: quantities.Unit) -> Any:
    """Return the annotation of a positive number that is written with one of `unit`'s suffixes."""

    def read(value: object, info: ValidationInfo) -> object:
        if isinstance(value, str):
            return unit.parse(value)
        if info.context == _WRITTEN:
            raise ValueError(f'{value!r} needs quotes and a unit, such as "{unit.example}"')
        return value

    return Annotated[
        float, BeforeValidator(read), PlainSerializer(unit.text), Field(gt=0, allow_inf_nan=False, strict=True)
    ]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DropLimit(_Table):
    """The margin of the non-inferiority test on accuracy, a fraction, and its one-sided confidence."""

    max: _quantity(quantities.POINTS)  # type: ignore[valid-type] # an annotation made from the unit
    confidence: float = Field(0.95, gt=0.5, lt=1)
    action: Action = "fail"


class SizeLimit(_Table):
    """The largest file, in bytes."""

    max: _quantity(quantities.SIZE)  # type: ignore[valid-type]
    action: Action = "fail"


class ShrinkLimit(_Table):
    """How many times smaller than the baseline the file must at least be."""

    min: _quantity(quantities.RATIO)  # type: ignore[valid-type]
    action: Action = "fail"


class TimeLimit(_Table):
    """The largest latency of one inference, in seconds."""

    max: _quantity(quantities.DURATION)  # type: ignore[valid-type]
    action: Action = "fail"


class TimeRatioLimit(_Table):
    """The largest ratio of a latency to the baseline's."""

    max: _quantity(quantities.RATIO)  # type: ignore[valid-type]
    action: Action = "fail"


class Policy(_Table):
    """The limits that are asked for; None where one is not. At least one must be."""

    drop: DropLimit | None = None
    size: SizeLimit | None = None
    shrink: ShrinkLimit | None = None
    p50: TimeLimit | None = None
    p95: TimeLimit | None = None
    p50_ratio: TimeRatioLimit | None = None
    p95_ratio: TimeRatioLimit | None = None

    @property
    def needs_timings(self) -> bool:
        """Whether a limit asks for the candidate's latency."""
        return self.needs_baseline_timings or self.p50 is not None or self.p95 is not None

    @property
    def needs_baseline_timings(self) -> bool:
        """Whether a limit asks for the baseline's latency too."""
        return self.p50_ratio is not None or self.p95_ratio is not None

    def to_dict(self) -> dict[str, Any]:
        """Return the tables as JSON types, values with their units; `policy_from` is the inverse."""
        return self.model_dump(exclude_none=True)

    def with_limits(self, **limits: float | None) -> Policy:
        """Return the policy with the given limits, in base units, in place of its own; None leaves one as it is.

        A limit that was there keeps its action and confidence.
        """
        tables = self.model_dump(exclude_none=True)
        for name, value in limits.items():
            if value is not None:
                tables[name] = tables.get(name, {}) | {"min" if name == "shrink" else "max": value}
        return _validated(tables, "the limits given", context=None)


def policy_from(tables: dict[str, Any], source: str = "policy") -> Policy:
    """Return the policy that parsed TOML or JSON tables say.

    Raises PolicyError on unknown keys (naming the nearest known one), values without units, limits that cannot hold,
    and a policy that limits nothing.
    """
    return _validated(tables, source, context=_WRITTEN)


def read_policy(path: Path) -> Policy:
    """Read a policy file; raises PolicyError as `policy_from` does, and on what is no TOML file."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PolicyError(f"{path}: no such policy file; write one, or give the limits as options") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, IsADirectoryError) as error:
        raise PolicyError(f"{path}: not a TOML file: {error}; correct it") from error
    return policy_from(tables, str(path))


def default_policy() -> Policy:
    """Return the policy of a gate that is given none: at most 0.3 percentage points of accuracy."""
    return policy_from({"drop": {"max": "0.3pp"}}, "default policy")


def choose_policy(path: Path | None = None, **limits: float | None) -> Policy:
    """Return the policy in `path`, or the default one, with the limits given in place of its own."""
    policy = default_policy() if path is None else read_policy(path)
    return policy.with_limits(**limits)


def _validated(tables: dict[str, Any], source: str, *, context: str | None) -> Policy:
    try:
        policy = Policy.model_validate(tables, context=context)
    except ValidationError as error:
        raise PolicyError(f"{source}: {_explain(error)}") from error
    if not policy.model_fields_set:
        raise PolicyError(f"{source}: limits nothing, so everything would pass; add a table such as [drop]")
    return policy


def _explain(error: ValidationError) -> str:
    """Return one line about the first thing that is wrong, with what to write instead."""
    # A key that is not known often explains the one that is missing.
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    place = [str(part) for part in first["loc"]]
    where = ".".join(place)
    if first["type"] == "extra_forbidden":
        known = _keys(place[:-1])
        near = difflib.get_close_matches(place[-1], known, n=1, cutoff=0.5)
        advice = f"did you mean '{near[0]}'" if near else f"known are {', '.join(known)}"
        return f"unknown key '{where}'; {advice}?" if near else f"unknown key '{where}'; {advice}"
    if first["type"] == "missing":
        return f"'{where}' is missing; the limit [{place[0]}] needs it"
    return f"'{where}' cannot be {first['input']!r}: {first['msg'].removeprefix('Value error, ')}"


def _keys(place: list[str]) -> list[str]:
    if not place:
        return list(Policy.model_fields)
    table = next(kind for kind in get_args(Policy.model_fields[place[0]].annotation) if kind is not type(None))
    return list(table.model_fields)
