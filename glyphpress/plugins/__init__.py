"""The types that plug-ins are made of; `docs/how-to/plugins.md` shows each kind.

The names keep their meaning as those of `glyphpress` do. A module is imported when one of its names is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from glyphpress.program import import_own
from glyphpress.registry import resolved

if TYPE_CHECKING:
    from calibration.errors import CorruptData as CorruptData
    from calibration.stored import Stored as Stored
    from targets.artifact import Artifact as Artifact
    from targets.artifact import TensorSpec as TensorSpec
    from targets.errors import ArtifactError as ArtifactError
    from targets.errors import RunFailed as RunFailed
    from targets.errors import TargetUnavailable as TargetUnavailable
    from targets.host.local_target import LocalTarget as LocalTarget
    from targets.host.machine import cpu_name as cpu_name
    from targets.host.runtime_session import RuntimeSession as RuntimeSession
    from targets.host.runtime_session import TensorCodec as TensorCodec
    from targets.session import RuntimeFacts as RuntimeFacts
    from targets.session import Session as Session
    from targets.target import Target as Target
    from toolchain.core.errors import StageError as StageError
    from toolchain.evaluation.compare import Pairs as Pairs
    from toolchain.formats.catalog import FileFormat as FileFormat
    from toolchain.formats.inspection import Inspection as Inspection
    from toolchain.formats.inspection import StoredTensor as StoredTensor
    from toolchain.gate.candidate import Sources as Sources
    from toolchain.gate.limit import Limit as Limit
    from toolchain.gate.limit import LimitDefinition as LimitDefinition
    from toolchain.gate.limit import MarginLimit as MarginLimit
    from toolchain.gate.limit import Verdict as Verdict
    from toolchain.quantize.schemes import Scheme as Scheme
    from toolchain.quantize.step import Quantize as Quantize
    from toolchain.recipe import Recipe as Recipe
    from toolchain.recipe import parse as parse_recipe  # noqa: F401 (a public name)
    from toolchain.stats.decision import Outcome as Outcome

_HOMES = {
    "Artifact": "targets.artifact:Artifact",
    "ArtifactError": "targets.errors:ArtifactError",
    "CorruptData": "calibration.errors:CorruptData",
    "FileFormat": "toolchain.formats.catalog:FileFormat",
    "Inspection": "toolchain.formats.inspection:Inspection",
    "Limit": "toolchain.gate.limit:Limit",
    "LimitDefinition": "toolchain.gate.limit:LimitDefinition",
    "LocalTarget": "targets.host.local_target:LocalTarget",
    "MarginLimit": "toolchain.gate.limit:MarginLimit",
    "Outcome": "toolchain.stats.decision:Outcome",
    "Pairs": "toolchain.evaluation.compare:Pairs",
    "Quantize": "toolchain.quantize.step:Quantize",
    "Recipe": "toolchain.recipe:Recipe",
    "RunFailed": "targets.errors:RunFailed",
    "RuntimeFacts": "targets.session:RuntimeFacts",
    "RuntimeSession": "targets.host.runtime_session:RuntimeSession",
    "Scheme": "toolchain.quantize.schemes:Scheme",
    "Session": "targets.session:Session",
    "Sources": "toolchain.gate.candidate:Sources",
    "StageError": "toolchain.core.errors:StageError",
    "Stored": "calibration.stored:Stored",
    "StoredTensor": "toolchain.formats.inspection:StoredTensor",
    "Target": "targets.target:Target",
    "TargetUnavailable": "targets.errors:TargetUnavailable",
    "TensorCodec": "targets.host.runtime_session:TensorCodec",
    "TensorSpec": "targets.artifact:TensorSpec",
    "Verdict": "toolchain.gate.limit:Verdict",
    "cpu_name": "targets.host.machine:cpu_name",
    "parse_recipe": "toolchain.recipe:parse",
}
__all__ = [*_HOMES]  # noqa: PLE0604 (keys of the table are names)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import_own()
        return resolved(_HOMES[name])
    raise AttributeError(f"module 'glyphpress.plugins' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
