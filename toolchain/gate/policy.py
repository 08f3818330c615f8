"""Policy: what a candidate must hold to be shipped. Every limit is a table of its own (`tables`), with its own action.

[drop]          # fall in accuracy against the baseline: the non-inferiority margin
max = "0.3pp"
confidence = 0.95
action = "fail" # or "warn"

[size]          # of the file
max = "250KB"

`glyphpress gate init` writes a file with every table explained (`template`); `glyphpress gate schema` prints its JSON
schema.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import Field, ValidationError

from targets.errors import nearest, translated
from toolchain.errors import PolicyError
from toolchain.gate.limit import Limit, Table
from toolchain.gate.limits.classes import ClassesLimit
from toolchain.gate.limits.confidence import EceLimit, RejectsLimit
from toolchain.gate.limits.confusables import ConfusablesLimit, CostLimit
from toolchain.gate.limits.drop import DropLimit
from toolchain.gate.limits.flips import FlipsLimit
from toolchain.gate.limits.leaks import LeaksLimit
from toolchain.gate.limits.memory import MemoryLimit
from toolchain.gate.limits.preprocess import PreprocessLimit
from toolchain.gate.limits.runtimes import RuntimesLimit
from toolchain.gate.limits.sizes import ShrinkLimit, SizeLimit
from toolchain.gate.limits.speed import TimeLimit, TimeRatioLimit
from toolchain.gate.limits.stress import StressLimit
from toolchain.gate.outcome import Action
from toolchain.written import WRITTEN, Points, said

__all__ = ["Action", "Policy", "choose_policy", "default_policy", "named", "policy_from", "read_policy", "schema"]


class BaselinePin(Table):
    """What a baseline must be to be judged against, not a limit: how well it reads, and which stored one it is.

    min_accuracy: without it a quarter of the way from chance to all (27 % of 47 equal classes, 33 % of 10).
    """

    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        default=None, description="`glyphpress gate baseline` prints it"
    )
    min_accuracy: Points | None = Field(default=None, description='of the baseline itself, such as "85%"')


def _table(about: str, **example: object) -> Any:
    """Return the field of a table: what it limits, and how it may be written."""
    return Field(default=None, description=about, examples=[example])


class Policy(Table):
    """The limits that are asked for; None where one is not. At least one must be able to fail.

    [preprocess] does not count, since it says nothing of how well a candidate reads; it also holds where it is not set.
    """

    drop: DropLimit | None = _table("Fall in accuracy against the baseline.", max="0.3pp")
    classes: ClassesLimit | None = _table("Fall in accuracy of each class by itself.", max="3pp")
    confusables: ConfusablesLimit | None = _table(
        "How much more often a character is read as one that looks like it.", max="2pp"
    )
    cost: CostLimit | None = _table(
        "Rise of what misreadings cost, an image on average.", max="0.5pp", costs={"1->7": 20, "O->0": 0}
    )
    flips: FlipsLimit | None = _table("Share of the images whose answer changes at all.", max="1pp")
    rejects: RejectsLimit | None = _table(
        "Rise in the share of images that a scanner must reject to stay within an error.", max="1pp"
    )
    ece: EceLimit | None = _table("Change of the expected calibration error, either way.", max="1pp")
    stress: StressLimit | None = _table("Fall in accuracy under scanner damage, for each kind by itself.", max="1pp")
    runtimes: RuntimesLimit | None = _table(
        "Images that other runtimes or kernels answer otherwise with the same file.", max=20
    )
    preprocess: PreprocessLimit | None = _table(
        "Settings by which it takes images unlike the baseline. Left out, any such setting fails.", max=0
    )
    leaks: LeaksLimit | None = _table("Test images that are also training or calibration images.", max=0)
    size: SizeLimit | None = _table("The file's size.", max="250KB")
    packed: SizeLimit | None = _table(
        "The file's size packed by zstd (level 19), as an update carries it.", max="200KB"
    )
    shrink: ShrinkLimit | None = _table("How many times smaller than the baseline it must be.", min="3x")
    memory: MemoryLimit | None = _table("Peak of resident memory that a session adds.", max="32MB")
    p50: TimeLimit | None = _table("Median latency of one inference.", max="1ms")
    p95: TimeLimit | None = _table("Latency that 95 of 100 inferences stay within.", max="2ms")
    p50_ratio: TimeRatioLimit | None = _table("Median latency against the baseline's, timed in turns.", max="1x")
    p95_ratio: TimeRatioLimit | None = _table("The same of the 95th percentile.", max="1.2x")
    baseline: BaselinePin | None = _table(
        "What the baseline must be, not a limit: the one stored for this policy, and how well it reads.",
        digest="0" * 64,
        min_accuracy="85%",
    )

    def limits(self) -> Iterator[tuple[str, Limit]]:
        """Yield name and table of every limit that is set, in the order above."""
        for name in type(self).model_fields:
            table = getattr(self, name)
            if isinstance(table, Limit):
                yield name, table

    @classmethod
    def kind(cls, name: str) -> type[Table]:
        """Return the class of the table `name`."""
        kinds = get_args(cls.model_fields[name].annotation)
        found: type[Table] = next(kind for kind in kinds if kind is not type(None))
        return found

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
        return self.model_dump(mode="json", exclude_none=True)

    def with_limits(self, **limits: float | None) -> Policy:
        """Return the policy with the given limits, in base units, in place of its own; None leaves one as it is.

        A limit that was there keeps its action and confidence.
        """
        tables = self.to_dict()
        for name, value in limits.items():
            if value is not None:
                tables[name] = tables.get(name, {}) | {"min" if name == "shrink" else "max": value}
        return _validated(tables, "the limits given", context=None)

    def among(self, competitors: int) -> Policy:
        """Return the policy by which each of several candidates is judged when only the best of them ships.

        Every confidence C becomes 1 - (1 - C) / competitors (Bonferroni), so that the chance that any bad one of
        them passes, and with it a bad winner, stays at 1 - C.
        """
        if competitors < 1:
            raise PolicyError(f"{competitors} candidates cannot compete; give at least one")
        if competitors == 1:
            return self
        tables = self.to_dict()
        for name, limit in self.limits():
            if (confidence := getattr(limit, "confidence", None)) is not None:
                tables[name]["confidence"] = 1 - (1 - confidence) / competitors
        return _validated(tables, "the policy", context=None)


def policy_from(tables: dict[str, Any], source: str = "policy") -> Policy:
    """Return the policy that parsed TOML or JSON tables say.

    Raises PolicyError on unknown keys (naming the nearest known one), values without units, limits that cannot hold,
    and a policy that limits nothing.
    """
    return _validated(tables, source, context=WRITTEN)


def read_policy(path: Path) -> Policy:
    """Read a policy file; raises PolicyError as `policy_from` does, and on what is no TOML file."""
    try:
        # Numbers of thousands of digits and deep nesting are no errors of TOML to tomllib.
        with translated(lambda reason: PolicyError(f"{path}: not a TOML file: {reason}; correct it")):
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PolicyError(f"{path}: no such policy file; write one, or give the limits as options") from error
    except IsADirectoryError as error:
        raise PolicyError(f"{path}: not a TOML file: {error}; correct it") from error
    return policy_from(tables, str(path))


@cache
def named() -> dict[str, Policy]:
    """Return the policies that come with glyphpress, by name."""
    folder = files("toolchain") / "policies"
    entries = (entry for entry in folder.iterdir() if entry.name.endswith(".toml"))
    found = {entry.name.removesuffix(".toml"): entry.read_text(encoding="utf-8") for entry in entries}
    return {name: policy_from(tomllib.loads(text), name) for name, text in sorted(found.items())}


def default_policy() -> Policy:
    """Return the policy of a gate that is given none."""
    return named()["default"]


def choose_policy(words: str | None = None, **limits: float | None) -> Policy:
    """Return the policy that is named, or that stands in a file, with the limits given in place of its own.

    words: a shipped name or a TOML file; None takes the default policy.
    """
    if words is None or words in named():
        policy = named()[words or "default"]
    elif Path(words).suffix == ".toml":
        policy = read_policy(Path(words))
    else:
        near = nearest(words, named(), "`glyphpress gate --help` names them.")
        raise PolicyError(f"no policy '{words}'; {near} A file of your own ends in .toml")
    return policy.with_limits(**limits)


def schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a policy file as people write it, quantities with their units."""
    written = Policy.model_json_schema(mode="validation")
    for table in written["properties"].values():
        # TOML has no null: a limit that is not asked for is left out.
        table["$ref"] = table.pop("anyOf")[0]["$ref"]
        del table["default"]
    about = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "glyphpress policy"}
    return written | about | {"minProperties": 1}


def _validated(tables: dict[str, Any], source: str, *, context: str | None) -> Policy:
    try:
        policy = Policy.model_validate(tables, context=context)
    except ValidationError as error:
        raise PolicyError(f"{source}: {_explain(error)}") from error
    actions = [limit.action for name, limit in policy.limits() if name != "preprocess"]
    if not actions:
        raise PolicyError(f"{source}: limits nothing, so everything would pass; add a table such as [drop]")
    if "fail" not in actions:
        raise PolicyError(f'{source}: only warns, so everything would pass; give one limit action = "fail"')
    return policy


def _explain(error: ValidationError) -> str:
    """Return one line about the first thing that is wrong, with what to write instead."""
    # A key that is not known often explains the one that is missing.
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    place = [str(part) for part in first["loc"]]
    where = ".".join(place)
    if first["type"] == "extra_forbidden":
        known = _keys(place[:-1])
        return f"unknown key '{where}'; {nearest(place[-1], known, 'see `glyphpress gate schema`', cutoff=0.5)}"
    if first["type"] == "missing":
        return f"'{where}' is missing; the limit [{place[0]}] needs it"
    return f"'{where}' cannot be {first['input']!r}: {said(first)}"


def _keys(place: list[str]) -> list[str]:
    if not place:
        return list(Policy.model_fields)
    return list(Policy.kind(place[0]).model_fields)
