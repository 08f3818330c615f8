"""Policy: what a candidate must meet to be shipped. Every limit is a table of its own (`limits`), with its own action.

[drop]          # fall in accuracy against the baseline: the non-inferiority margin
max = "0.3pp"
confidence = 0.95
action = "fail" # or "warn"

[size]          # of the file
max = "250KB"

`glyphpress gate init` writes a file with every table explained; `glyphpress schema policy` prints its JSON
schema.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeVar, get_args

from pydantic import Field, ValidationError, create_model

from targets.errors import nearest, translated
from toolchain.core.errors import PolicyError
from toolchain.core.settings import FROM_FILE, Accuracy, refused
from toolchain.gate.limit import Limit, LimitDefinition, Table
from toolchain.gate.limits import REGISTRY, definition, definitions

L = TypeVar("L", bound=Limit)
P = TypeVar("P", bound="PolicyTables")


class BaselinePin(Table):
    """What a baseline must be to be judged against, not a limit: how well it reads, and which stored one it is.

    min_accuracy: without it a quarter of the way from chance to all (27 % of 47 equal classes, 33 % of 10).
    """

    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        default=None, description="`glyphpress gate baseline` prints it"
    )
    min_accuracy: Accuracy | None = Field(default=None, description='of the baseline itself, such as "85%"')


_ABOUT = """The limits that are asked for; None where one is not. At least one must be able to fail.

[preprocess] does not count, since it says nothing of how well a candidate reads; it also holds where it is not set.
"""


class PolicyTables(Table):
    """The methods of a policy, whatever its tables are."""

    def limits(self) -> Iterator[tuple[str, Limit]]:
        """Yield name and table of every limit that is set, in the order of `limits.LIMITS`."""
        for name in type(self).model_fields:
            table = getattr(self, name)
            if isinstance(table, Limit):
                yield name, table

    @classmethod
    def kind(cls, name: str) -> type[Table]:
        """Return the class of the table `name`."""
        kinds = get_args(cls.model_fields[name].annotation)
        table: type[Table] = next(kind for kind in kinds if kind is not type(None))
        return table

    def needs(self, part: str) -> bool:
        """Return whether a limit is judged by this part of the evidence."""
        return any(part in definition(name).evidence for name, _ in self.limits())

    @property
    def needs_training_images(self) -> bool:
        """Whether a limit needs the images that the candidate was trained on."""
        return any(definition(name).training_images for name, _ in self.limits())

    def settings(self, kind: type[L]) -> L | None:
        """Return the first limit with these settings that is set, None where none is."""
        return next((limit for _, limit in self.limits() if type(limit) is kind), None)

    def to_dict(self) -> dict[str, Any]:
        """Return the tables as JSON types, values with their units; `policy_from` is the inverse."""
        return self.model_dump(mode="json", exclude_none=True)

    def with_limits(self, **limits: float | None) -> Self:
        """Return the policy with the given limits, in base units, in place of its own; None leaves one as it is.

        A limit that was there keeps its action and confidence. Raises PolicyError for a name that is no limit.
        """
        tables = self.to_dict()
        known = [name for name in type(self).model_fields if issubclass(self.kind(name), Limit)]
        for name in limits.keys() - set(known):
            near = nearest(name.removeprefix("max_").removeprefix("min_"), known, f"there are {', '.join(known)}")
            raise PolicyError(f"no limit '{name}'; {near}")
        for name, value in limits.items():
            if value is not None:
                tables[name] = tables.get(name, {}) | {"min" if "min" in self.kind(name).model_fields else "max": value}
        return _validated(type(self), tables, "the limits given", context=None)

    def among(self, competitors: int) -> Self:
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
        return _validated(type(self), tables, "the policy", context=None)


def _fields(limits: Mapping[str, LimitDefinition]) -> dict[str, Any]:
    """Return the field of each limit's table."""
    return {
        name: (limit.settings | None, Field(default=None, description=limit.about, examples=[dict(limit.example)]))
        for name, limit in limits.items()
    }


def _baseline() -> dict[str, Any]:
    about = "What the baseline must be, not a limit: the one stored for this policy, and how well it reads."
    example = {"digest": "0" * 64, "min_accuracy": "85%"}
    return {"baseline": (BaselinePin | None, Field(default=None, description=about, examples=[example]))}


if TYPE_CHECKING:

    class Policy(PolicyTables):
        """A table of each limit in `limits.LIMITS`, which `create_model` adds, and the baseline."""

        baseline: BaselinePin | None = None

else:
    Policy = create_model(
        "Policy", __base__=PolicyTables, __doc__=_ABOUT, __module__=__name__, **_fields(definitions()), **_baseline()
    )


@cache
def policy_form(plugins: frozenset[str] = frozenset()) -> type[Policy]:
    """Return the class of policies that may also have the tables of these limits of plug-ins; raises PluginFailed."""
    if not plugins:
        return Policy
    fields = _fields({name: definition(name) for name in sorted(plugins)})
    return create_model("Policy", __base__=Policy, __doc__=_ABOUT, __module__=__name__, **fields)


def whole_form() -> type[Policy]:
    """Return the class of policies with the tables of every plug-in that loads."""
    return policy_form(frozenset(REGISTRY.added()))


def _named_plugins(names: Iterable[str]) -> frozenset[str]:
    """Return which of these tables are limits of plug-ins; raises PluginFailed for one that may not be used."""
    found = set()
    for name in set(names) - Policy.model_fields.keys():
        with suppress(KeyError):
            REGISTRY.require(name)
            found.add(name)
    return frozenset(found)


def policy_from(tables: dict[str, Any], source: str = "policy") -> Policy:
    """Return the policy that parsed TOML or JSON tables say.

    Raises PolicyError on unknown keys (naming the nearest known one), values without units, limits that cannot hold,
    and a policy that limits nothing, and PluginFailed for a table of a plug-in that cannot be used.
    """
    return _validated(policy_form(_named_plugins(tables)), tables, source, context=FROM_FILE)


def read_policy(path: Path) -> Policy:
    """Read a policy file; raises PolicyError as `policy_from` does, and on what is no TOML file."""
    try:
        # Numbers of thousands of digits and deep nesting are no errors of TOML to tomllib.
        with translated(lambda reason: PolicyError(f"{path}: not a TOML file: {reason}; correct it")):
            tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise PolicyError(f"{path}: no such policy file; write one, or give the limits as options") from error
    except IsADirectoryError as error:
        raise PolicyError(f"{path}: not a TOML file: {error}; correct it") from error
    return policy_from(tables, str(path))


@cache
def named() -> dict[str, Policy]:
    """Return the policies that come with glyphpress, by name."""
    folder = files("toolchain") / "gate" / "shipped"
    entries = (entry for entry in folder.iterdir() if entry.name.endswith(".toml"))
    texts = {entry.name.removesuffix(".toml"): entry.read_text(encoding="utf-8") for entry in entries}
    return {name: policy_from(tomllib.loads(text), name) for name, text in sorted(texts.items())}


def default_policy() -> Policy:
    """Return the policy of a gate that is given none."""
    return named()["default"]


def choose_policy(name: str | None = None, **limits: float | None) -> Policy:
    """Return a shipped policy or that of a file, with the limits given in place of its own.

    name: a shipped name or a TOML file; None takes the default policy. limits: by the names of their tables, such as
    `drop=0.01`: a share as a fraction, bytes, seconds or a ratio, or a text with its unit ("1pp", "250KB", "2ms");
    None leaves one as it is. Raises PolicyError, also for a name that is no limit.
    """
    if name is None or name in named():
        policy = named()[name or "default"]
    elif Path(name).suffix == ".toml":
        policy = read_policy(Path(name))
    else:
        near = nearest(name, named(), "`glyphpress gate --help` names them.")
        raise PolicyError(f"no policy '{name}'; {near} A file of your own ends in .toml")
    return policy.with_limits(**limits)


def schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a policy file as people write it, quantities with their units."""
    tables = whole_form().model_json_schema(mode="validation")
    for table in tables["properties"].values():
        # TOML has no null: a limit that is not asked for is left out.
        table["$ref"] = table.pop("anyOf")[0]["$ref"]
        del table["default"]
    return tables | {"minProperties": 1}


def _validated(form: type[P], tables: dict[str, Any], source: str, *, context: str | None) -> P:
    try:
        policy = form.model_validate(tables, context=context)
    except ValidationError as error:
        raise PolicyError(f"{source}: {_explain(error, form)}") from error
    actions = [limit.action for name, limit in policy.limits() if not definition(name).always]
    if not actions:
        raise PolicyError(f"{source}: limits nothing, so everything would pass; add a table such as [drop]")
    if "fail" not in actions:
        raise PolicyError(f'{source}: only warns, so everything would pass; give one limit action = "fail"')
    return policy


_BOUNDS = {"max": "min", "min": "max"}


def _explain(error: ValidationError, form: type[PolicyTables]) -> str:
    """Return one line about the first thing that is wrong, with what to write instead."""
    # A key that is not known often explains the one that is missing.
    first = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    keys = [str(part) for part in first["loc"]]
    key = ".".join(keys)
    if first["type"] == "extra_forbidden":
        known = form.kind(keys[0]).model_fields if keys[1:] else [*form.model_fields, *REGISTRY.plugins()]
        if (other := _BOUNDS.get(keys[-1])) in known:
            return f"unknown key '{key}'; this limit has a {other}"
        return f"unknown key '{key}'; {nearest(keys[-1], known, 'see `glyphpress schema policy`', cutoff=0.5)}"
    if first["type"] == "missing":
        return f"'{key}' is missing; the limit [{keys[0]}] needs it"
    return refused(key, first)


_HEAD = """\
# What a candidate must hold to be shipped: `glyphpress gate --policy {file}`.
#
# Every table is a limit of its own. max is its margin, with a unit. confidence is that of PASS and of FAIL, each
# shown one-sided; what neither can be shown of is INCONCLUSIVE. action = "warn" tells, but lets it through.
# To set a limit, take the first # off its lines. `glyphpress schema policy` prints the JSON schema for an editor.
"""
# The head explains these once for all tables.
_ORDER = {"max": -1, "min": -1, "confidence": 1, "action": 2}


def template(policy: Policy, file: str = "gate.toml") -> str:
    """Return TOML in which the policy's own tables are set and the others commented out with an example each.

    `policy_from` reads it back as the same policy. file: the name by which the text calls itself.
    """
    return _HEAD.format(file=file) + "".join(_block(policy, name) for name in whole_form().model_fields)


def _block(policy: Policy, name: str) -> str:
    form, table_set = whole_form(), getattr(policy, name, None)
    field = form.model_fields[name]
    example: dict[str, Any] = (field.examples or [{}])[0]
    table = table_set or form.kind(name).model_validate(example)
    values = table.model_dump(mode="json", exclude_none=True) | ({} if table_set else example)
    mark = "" if table_set else "#"
    return f"\n# {field.description}\n{mark}[{name}]\n" + "".join(f"{mark}{line}\n" for line in _lines(table, values))


def _lines(table: Table, values: dict[str, Any]) -> Iterator[str]:
    """Yield a line a key, the margin first and the action last."""
    for key in sorted(values, key=lambda key: _ORDER.get(key, 0)):
        about = type(table).model_fields[key].description
        note = f"  # {about}" if about and key not in _ORDER else ""
        yield f"{key} = {_toml(values[key])}{note}"


def _toml(value: Any) -> str:
    """Return a value on one line; a JSON string, number or array is the same text in TOML."""
    if isinstance(value, dict):
        pairs = (f"{json.dumps(key, ensure_ascii=False)} = {_toml(entry)}" for key, entry in value.items())
        return f"{{ {', '.join(pairs)} }}" if value else "{}"
    return json.dumps(value, ensure_ascii=False)
