"""The catalog of targets: an explicit table, imported when a name is asked for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib import import_module

from targets.artifact import Format
from targets.errors import UnknownTarget
from targets.target import Target


def table(entries: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return name -> "module:Class"; raises ValueError on a name that stands there twice."""
    found: dict[str, str] = {}
    for name, place in entries:
        if name in found:
            raise ValueError(f"target {name} stands in the catalog twice: {found[name]} and {place}")
        found[name] = place
    return found


TARGETS = table(
    [
        ("ort-cpu", "targets.ort:OrtCpu"),
        ("ort-precise", "targets.ort:OrtPrecise"),
        ("ort-reference", "targets.ort:OrtReference"),
        ("litert-cpu", "targets.litert:LiteRtCpu"),
        ("litert-reference", "targets.litert:LiteRtReference"),
        ("null", "targets.null:NullTarget"),
    ]
)

DEFAULTS: dict[Format, str] = {"onnx": "ort-cpu", "tflite": "litert-cpu"}


def names() -> list[str]:
    """Return the known target names in the order of the catalog."""
    return list(TARGETS)


def get(name: str) -> Target:
    """Return the target of that name; raises UnknownTarget with the nearest names and all that are known."""
    if name not in TARGETS:
        near = difflib.get_close_matches(name, TARGETS, n=1)
        nearest = f"did you mean {near[0]}? " if near else ""
        raise UnknownTarget(f"no target '{name}'; {nearest}known: {', '.join(TARGETS)}")
    module, attribute = TARGETS[name].split(":")
    target: Target = getattr(import_module(module), attribute)()
    return target


def default_for(kind: Format) -> Target:
    """Return the target that runs a file of that format when none is named."""
    return get(DEFAULTS[kind])
