"""The published form of `verdict.json` (`Judgement`): a JSON schema, draft 2020-12."""

from __future__ import annotations

from inspect import getdoc
from typing import Any

from pydantic import TypeAdapter

from targets.session import RuntimeFacts
from toolchain.evaluation.compare import ClassDrop, Comparison, NewConfusion
from toolchain.evaluation.paired_answers import FileFacts
from toolchain.gate.outcome import Part, Verdict
from toolchain.gate.policy import Policy
from toolchain.report.judgement import Judged, Judgement

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
# What their docstrings say of the fields is what a reader of the schema asks.
_EXPLAINED = (Judged, FileFacts, RuntimeFacts, Verdict, Part, Comparison, ClassDrop, NewConfusion)


def verdict_schema() -> dict[str, Any]:
    """Return the JSON schema of what `to_json` gives of a `Judgement`, its policy included; unknown keys are errors."""
    adapters = {"judgement": TypeAdapter[Any](Judgement), "policy": TypeAdapter[Any](Policy)}
    found, definitions = TypeAdapter.json_schemas(
        [(name, "serialization", adapter) for name, adapter in adapters.items()],
        ref_template="#/$defs/{model}",
    )
    tables: dict[str, Any] = definitions["$defs"]
    whole: dict[str, Any] = tables.pop(found["judgement", "serialization"]["$ref"].rpartition("/")[2])
    del whole["title"]
    whole["properties"] |= {"schema": {"const": Judgement.SCHEMA}, "policy": found["policy", "serialization"]}
    for table in (whole, *tables.values()):
        if "properties" in table:
            _close(table)
    for kind in _EXPLAINED:
        tables[kind.__name__]["description"] = getdoc(kind)
    head = {"$schema": _DRAFT, "title": Judgement.SCHEMA, "description": getdoc(Judgement)}
    return head | whole | {"$defs": tables}


def _close(table: dict[str, Any]) -> None:
    """Refuse unknown keys; of what is always written, only a policy's limits may be missing."""
    table["additionalProperties"] = False
    if table.get("title") != "Policy":
        table["required"] = list(table["properties"])
