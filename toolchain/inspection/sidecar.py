"""What the sidecar of a file says, whatever stands in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from targets.artifact import file_sha256
from targets.terminal_text import json_value


def sidecar_facts(path: Path) -> dict[str, Any]:
    """Return the sidecar of `path`, empty where there is none that can be read."""
    try:
        facts = json_value(path.with_name(path.name + ".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def compared(path: Path) -> dict[str, Any]:
    """Return the `fidelity` of an ONNX file, which stands in a sidecar of the same bytes and not in the file."""
    facts = sidecar_facts(path)
    same = facts.get("fidelity") and facts.get("sha256") == file_sha256(path)
    return {"fidelity": facts["fidelity"]} if same else {}
