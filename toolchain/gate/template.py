"""Template: a policy as a commented TOML file to start from, with a line of explanation for every table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from toolchain.gate.limit import Table
from toolchain.gate.policy import Policy

_HEAD = """\
# What a candidate must hold to be shipped: `glyphpress gate --policy {file}`.
#
# Every table is a limit of its own. max is its margin, with a unit. confidence is that of PASS and of FAIL, each
# shown one-sided; what neither can be shown of is INCONCLUSIVE. action = "warn" tells, but lets it through.
# To set a limit, take the first # off its lines. `glyphpress gate schema` prints the JSON schema for an editor.
"""
# The head explains these once for all tables.
_ORDER = {"max": -1, "min": -1, "confidence": 1, "action": 2}


def template(policy: Policy, file: str = "gate.toml") -> str:
    """Return TOML in which the policy's own tables are set and the others commented out with an example each.

    `policy_from` reads it back as the same policy. file: the name by which the text calls itself.
    """
    return _HEAD.format(file=file) + "".join(_block(policy, name) for name in Policy.model_fields)


def _block(policy: Policy, name: str) -> str:
    field, table_set = Policy.model_fields[name], getattr(policy, name)
    example: dict[str, Any] = (field.examples or [{}])[0]
    table = table_set or Policy.kind(name).model_validate(example)
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
