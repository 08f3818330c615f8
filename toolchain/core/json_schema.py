"""JSON schemas of what `to_json` writes, made from the same dataclasses, so that they cannot say anything else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from inspect import getdoc
from typing import Any

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def typed_schema(kind: type[Any]) -> dict[str, Any]:
    """Return the JSON schema of what a dataclass, a pydantic model or a TypedDict is as JSON.

    Every key is required but those that a TypedDict marks `NotRequired`.
    """
    from pydantic import TypeAdapter
    from pydantic.json_schema import GenerateJsonSchema

    class Written(GenerateJsonSchema):
        """Of values that are written: what a missing value would mean plays no part."""

        def field_is_required(self, field: Any, total: bool) -> bool:
            optional = field["type"] == "typed-dict-field"
            return super().field_is_required(field, total) if optional else True

        def dataclass_schema(self, schema: Any) -> dict[str, Any]:
            return super().dataclass_schema(schema) | {"description": getdoc(schema["cls"])}

        def default_schema(self, schema: Any) -> dict[str, Any]:
            return self.generate_inner(schema["schema"])

        def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
            return False

    return TypeAdapter(kind).json_schema(mode="serialization", schema_generator=Written)


def stored_schema(
    kind: type[Any],
    *,
    parts: Iterable[type[Any]],
    tables: Mapping[str, type[Any]] | None = None,
    older: bool = False,
) -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a dataclass with a `SCHEMA`; unknown keys are errors.

    parts: the dataclasses inside it, whose docstrings explain their fields. tables: fields that hold a dictionary in
    Python, and what it is in JSON; keys of these may be missing, and those within them that are None. older: keys whose
    fields have a default may be missing too, as `from_json` allows in files of older versions.
    """
    from pydantic import TypeAdapter

    kinds = {"": kind, **(tables or {})}
    references, definitions = TypeAdapter.json_schemas(
        [(name, "serialization", TypeAdapter(each)) for name, each in kinds.items()], ref_template="#/$defs/{model}"
    )
    defined: dict[str, Any] = definitions["$defs"]
    titles = {name: references[name, "serialization"]["$ref"].rpartition("/")[2] for name in kinds}
    root: dict[str, Any] = defined.pop(titles.pop(""))
    del root["title"]
    for name, title in titles.items():
        root["properties"][name] = {"$ref": f"#/$defs/{title}"}
    root["properties"] = {"schema": {"const": kind.SCHEMA}} | root["properties"]
    within = {title for each in (tables or {}).values() for title in TypeAdapter(each).json_schema().get("$defs", {})}
    for title, table in ((None, root), *defined.items()):
        if "properties" not in table:
            continue
        table["additionalProperties"] = False
        if not older and title not in titles.values():
            missing = {key for key, value in table["properties"].items() if value.get("default", "") is None}
            table["required"] = [key for key in table["properties"] if title not in within or key not in missing]
    if older:
        root["required"] = ["schema", *root["required"]]
    for part in parts:
        defined[part.__name__]["description"] = getdoc(part)
    head = {"$schema": DRAFT, "title": kind.SCHEMA, "description": getdoc(kind)}
    return head | root | {"$defs": defined}
