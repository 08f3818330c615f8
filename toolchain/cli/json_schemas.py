"""The JSON schemas of what `--json` prints, of the files that a press writes and of those that users write.

They are made from the types that hold the values. `glyphpress/NAME/1` in a `schema` key means version 1 of the schema
NAME. `python -m toolchain.cli.json_schemas FOLDER` writes them all.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from toolchain.core.json_schema import DRAFT, typed_schema

STABILITY = (
    "A minor version of glyphpress may add keys, and values of a text that names a kind. Within a version of a schema "
    "no key is removed, renamed, or given another type, unit or meaning, and none that is always there becomes "
    "optional. Read the keys that you know and ignore others."
)


class Published(NamedTuple):
    """A schema: what it describes, and the types ("module:name") whose keys it has together.

    without: keys of these types that are not printed. by_hand: users write the file; it has no `schema` key, and keys
    that the schema does not know are errors.
    """

    what: str
    types: tuple[str, ...]
    without: tuple[str, ...] = ()
    by_hand: bool = False


_OURS, _TIMINGS = "toolchain.cli.json_types", "toolchain.cli.json_timings"


def _own(what: str, name: str) -> Published:
    return Published(what, (f"{_OURS}:{name}",))


def _timed(what: str, name: str) -> Published:
    return Published(what, (f"{_TIMINGS}:{name}",))


def _types(what: str, *references: str) -> Published:
    return Published(what, references)


_SIDECAR = ("targets.artifact:Artifact", f"{_OURS}:Sidecar")
_NOT_IN_SIDECAR = ("path", "preprocess_source")

# The name of a command with dashes, and of a mode behind it where that prints something else.
SCHEMAS: dict[str, Published] = {
    "artifact": Published("`FILE.json`, the sidecar of a model file", _SIDECAR, _NOT_IN_SIDECAR),
    "verdict": _types(
        "`verdict.json`, what `glyphpress gate --verdict` writes", "toolchain.report.judgement:verdict_schema"
    ),
    "policy": Published(
        "`gate.toml`, which you write: the limits of `gate`", ("toolchain.gate.policy:schema",), by_hand=True
    ),
    "recipe": Published(
        "`RECIPE.toml`, which you write: the steps of `press`", ("toolchain.recipe:schema",), by_hand=True
    ),
    "inspect": _types("`glyphpress inspect --json`", "toolchain.formats.inspection:Inspection", f"{_OURS}:InspectMore"),
    "data-list": _own("`glyphpress data list --json`", "DataList"),
    "data-check": _types("`glyphpress data check --json`", "calibration.check:CheckReport"),
    "data-fetch": _own("`glyphpress data fetch --json`", "DataFetch"),
    "train": _own("`glyphpress train --json`", "Train"),
    "folds": _own("`glyphpress train --folds --json`, without -o", "Folds"),
    "press": _own("`glyphpress press --json`", "Press"),
    "adopt": Published("`glyphpress adopt --json`", _SIDECAR, _NOT_IN_SIDECAR),
    "prune": _own("`glyphpress prune --json`", "Compress"),
    "distill": _own("`glyphpress distill --json`", "Compress"),
    "sensitivity": _types("`glyphpress sensitivity --json`", "toolchain.compress.prune.sensitivity:Sensitivity"),
    "export": Published("`glyphpress export --json`", _SIDECAR, _NOT_IN_SIDECAR),
    "quantize": Published("`glyphpress quantize --json`", (*_SIDECAR, f"{_OURS}:QuantizeMore"), _NOT_IN_SIDECAR),
    "ranges": _types(
        "`glyphpress ranges --json`, and what `quantize --save-ranges` writes", "toolchain.quantize.ranges:Ranges"
    ),
    "explain": _types("`glyphpress explain --json`", "toolchain.cli.json_answers:Explain"),
    "evaluate": _types("`glyphpress evaluate --json`", "toolchain.cli.json_answers:Evaluate"),
    "read": _types("`glyphpress read --json`", "toolchain.cli.json_answers:Read"),
    "compare": _types("`glyphpress compare --json`", "toolchain.evaluation.compare:Comparison"),
    "profile": _timed("`glyphpress profile --json`", "Profile"),
    "profile-operators": _timed("`glyphpress profile --per-op --json`", "ProfileOperators"),
    "profile-sweep": _timed("`glyphpress profile --json` with --sweep-threads or --sweep-batch", "ProfileSweep"),
    "profile-list": _timed("`glyphpress profile list --json`", "ProfileList"),
    "profile-compare": _timed("`glyphpress profile compare --json`", "ProfileCompare"),
    "profile-history": _timed("`glyphpress profile history --json`", "ProfileHistory"),
    "probe-int8": _types(
        "`glyphpress probe-int8 --json`", "toolchain.commands.probe_int8:Int8Probe", f"{_TIMINGS}:ProbeMore"
    ),
    "gate": _types("`glyphpress gate --json`", "toolchain.report.judgement:verdict_schema", f"{_OURS}:GateMore"),
    "gate-plan": _types("`glyphpress gate plan --margin --json`", "toolchain.gate.plan:Plan"),
    "gate-plan-policy": _types("`glyphpress gate plan --policy --json`", "toolchain.gate.plan:PolicyPlan"),
    "gate-baseline": _own("`glyphpress gate baseline --json`", "GateBaseline"),
    "recipe-list": _own("`glyphpress recipe list --json`", "RecipeList"),
    "recipe-show": _types("`glyphpress recipe show --json`", "toolchain.recipe:Recipe"),
    "targets-list": _own("`glyphpress targets list --json`", "TargetsList"),
    "targets-probe": _own("`glyphpress targets probe --json`", "TargetsProbe"),
    "targets-show": _own("`glyphpress targets show --json`", "TargetsShow"),
    "targets-setup": _own("`glyphpress targets setup --json`", "TargetsSetup"),
    "report": _types(
        "`glyphpress report --json`, and `report.json` of a press", "toolchain.report.report:report_schema"
    ),
    "report-runs": _own("`glyphpress report RUN RUN --json`", "ReportRuns"),
    "report-timings": _timed("`glyphpress report --json` of stored timings", "ReportTimings"),
    "deploy": _types("`glyphpress deploy --json`", "targets.ssh.deployment:Deployed", f"{_OURS}:DeployMore"),
    "kiosk": _own("`glyphpress kiosk --json`", "Kiosk"),
    "demo": _own("`glyphpress demo --json`", "Demo"),
    "plugins": _own("`glyphpress plugins --json`", "Plugins"),
    "version": _own("`glyphpress version --json`", "Version"),
}
"""name -> what the schema describes. The `schema` key of a value that glyphpress wrote names it."""


def published(name: str) -> dict[str, Any]:
    """Return a schema (draft 2020-12) by its name in SCHEMAS; keys that it does not know are allowed.

    Of a file that users write, they are errors.
    """
    if SCHEMAS[name].by_hand:
        head = {"$schema": DRAFT, "$id": identifier(name)}
        return head | _schema_of(*SCHEMAS[name].types) | {"title": f"glyphpress {name}"}
    properties: dict[str, Any] = {}
    required: list[str] = []
    definitions: dict[str, Any] = {}
    descriptions = [f"{SCHEMAS[name].what}."]
    for part in map(_schema_of, SCHEMAS[name].types):
        properties |= part["properties"]
        required += part.get("required", [])
        definitions |= part.get("$defs", {})
        descriptions += [part["description"]] if "description" in part else []
    left_out = {"schema", *SCHEMAS[name].without}
    properties = {"schema": {"const": f"glyphpress/{name}/1"}} | {
        key: value for key, value in properties.items() if key not in left_out
    }
    whole = {
        "$schema": DRAFT,
        "$id": identifier(name),
        "title": f"glyphpress/{name}/1",
        "description": "\n\n".join(descriptions),
        "$comment": STABILITY,
        "type": "object",
        "properties": properties,
        "required": ["schema", *(key for key in required if key not in left_out)],
    }
    schema: dict[str, Any] = _open(whole | ({"$defs": definitions} if definitions else {}))
    return schema


def schema_text(name: str) -> str:
    """Return a schema as its published file holds it."""
    return json.dumps(published(name), indent=1, ensure_ascii=False) + "\n"


def identifier(name: str) -> str:
    """Return the `$id` of a schema."""
    return f"urn:glyphpress:schema:{name}:1"


def _schema_of(reference: str) -> dict[str, Any]:
    module, _, name = reference.partition(":")
    kind = getattr(import_module(module), name)
    schema: dict[str, Any] = typed_schema(kind) if isinstance(kind, type) else kind()
    if "report" in schema["properties"] and name in ("Press", "Demo"):
        # A schema inside another one keeps its `$id`, by which references are found.
        schema["properties"]["report"] = {"$ref": identifier("report")}
        schema.setdefault("$defs", {})["report"] = published("report")
    return schema


def _open(schema: Any) -> Any:
    """Return a schema in which nothing says that unknown keys are errors."""
    if isinstance(schema, list):
        return [_open(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _open(value) for key, value in schema.items() if (key, value) != ("additionalProperties", False)}


def _write(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name in SCHEMAS:
        (folder / f"{name}.schema.json").write_text(schema_text(name), encoding="utf-8")


if __name__ == "__main__":
    _write(Path(sys.argv[1]))
