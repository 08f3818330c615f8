"""glyphpress: presses a trained handwriting model until it fits the device, and refuses to ship it when it reads worse.

The names below are the public API. They keep their meaning within a major version (semantic versioning); what other
modules hold may change at any time. A module is imported when one of its names is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from glyphpress.registry import resolved

if TYPE_CHECKING:
    from calibration.dataset import Dataset as Dataset
    from calibration.load import load as load_data  # noqa: F401 (a public name)
    from toolchain.commands.gate import GateRequest as GateRequest
    from toolchain.commands.gate import gate as gate
    from toolchain.commands.press import press as press
    from toolchain.commands.press_request import PressRequest as PressRequest
    from toolchain.commands.profile import ProfileRequest as ProfileRequest
    from toolchain.commands.profile import profile_files as profile  # noqa: F401 (a public name)
    from toolchain.core.context import RunContext as RunContext
    from toolchain.core.errors import GlyphpressError as GlyphpressError
    from toolchain.evaluation.compare import Comparison as Comparison
    from toolchain.evaluation.compare import compare as compare
    from toolchain.evaluation.evaluate import Evaluation as Evaluation
    from toolchain.gate.candidate import evaluate_file as evaluate  # noqa: F401 (a public name)
    from toolchain.gate.policy import Policy as Policy
    from toolchain.gate.policy import choose_policy as choose_policy
    from toolchain.gate.policy import read_policy as read_policy
    from toolchain.recipe import Recipe as Recipe
    from toolchain.recipe import find as find_recipe  # noqa: F401 (a public name)
    from toolchain.report.judgement import Judgement as Judgement
    from toolchain.report.report import Report as Report

    __version__: str

_HOMES = {
    "Comparison": "toolchain.evaluation.compare:Comparison",
    "Dataset": "calibration.dataset:Dataset",
    "Evaluation": "toolchain.evaluation.evaluate:Evaluation",
    "GateRequest": "toolchain.commands.gate:GateRequest",
    "GlyphpressError": "toolchain.core.errors:GlyphpressError",
    "Judgement": "toolchain.report.judgement:Judgement",
    "Policy": "toolchain.gate.policy:Policy",
    "PressRequest": "toolchain.commands.press_request:PressRequest",
    "ProfileRequest": "toolchain.commands.profile:ProfileRequest",
    "Recipe": "toolchain.recipe:Recipe",
    "Report": "toolchain.report.report:Report",
    "RunContext": "toolchain.core.context:RunContext",
    "choose_policy": "toolchain.gate.policy:choose_policy",
    "compare": "toolchain.evaluation.compare:compare",
    "evaluate": "toolchain.gate.candidate:evaluate_file",
    "find_recipe": "toolchain.recipe:find",
    "gate": "toolchain.commands.gate:gate",
    "load_data": "calibration.load:load",
    "press": "toolchain.commands.press:press",
    "profile": "toolchain.commands.profile:profile_files",
    "read_policy": "toolchain.gate.policy:read_policy",
}
__all__ = ["__version__", *_HOMES]  # noqa: PLE0604 (keys of the table are names)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("glyphpress")
    if name in _HOMES:
        from glyphpress.program import import_own  # which boards do not have

        import_own()
        return resolved(_HOMES[name])
    raise AttributeError(f"module 'glyphpress' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
