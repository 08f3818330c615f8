"""What is known by a name: what is built in, and the plug-ins of other packages, and whether they load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from glyphpress.registry import KINDS, Plugin, PluginFailed, Registry, enabled, installed, refusal, resolved
from toolchain.core.versions import tool_versions

REGISTRIES = {
    "target": "targets.catalog:REGISTRY",
    "format": "toolchain.formats.catalog:REGISTRY",
    "scheme": "toolchain.quantize.schemes:REGISTRY",
    "limit": "toolchain.gate.limits:REGISTRY",
    "reader": "calibration.data_file:REGISTRY",
    "recipe": "toolchain.recipe:REGISTRY",
    "model": "toolchain.models:REGISTRY",
}
"""Kind of `glyphpress.registry.KINDS` -> its registry."""
BUILT_IN = "glyphpress"
State = Literal["built in", "loads", "fails", "refused", "off"]


@dataclass(frozen=True)
class Row:
    """One name. package: that which gives it. reason: of a plug-in that does not load, why; else empty."""

    kind: str
    name: str
    package: str
    version: str
    state: State
    reason: str = ""


def listed() -> list[Row]:
    """Return every name, by kind, built-in ones first; imports every plug-in that may be used."""
    own_version = tool_versions().get(BUILT_IN, "")
    rows = []
    for kind in KINDS:
        registry: Registry[Any] = resolved(REGISTRIES[kind])
        rows += [Row(kind, name, BUILT_IN, own_version, "built in") for name in registry.builtin()]
        rows += [_row(plugin, registry) for plugin in installed() if plugin.kind == kind]
    return rows + [_row(plugin, None) for plugin in installed() if plugin.kind not in KINDS]


def _row(plugin: Plugin, registry: Registry[Any] | None) -> Row:
    state: State = "loads"
    reason = refusal(plugin, registry.taken() if registry else ())
    if reason:
        state = "refused" if enabled() else "off"
    elif registry:
        try:
            registry.get(plugin.name)
        except PluginFailed as error:
            state, reason = "fails", str(error)
    return Row(plugin.kind, plugin.name, plugin.package, plugin.version, state, reason)
