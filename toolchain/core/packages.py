"""Which extra of glyphpress brings a package that the core does without.

The core judges, evaluates, compares, profiles and reports; training, pressing and TFLite need more.
"""

from __future__ import annotations

from importlib.util import find_spec

from toolchain.core.errors import PackageMissing

PRESS, LITERT = "press", "litert"
EXTRAS = {
    "torch": PRESS,
    "torch_pruning": PRESS,
    "onnxscript": PRESS,
    "safetensors": PRESS,
    "litert_torch": PRESS,
    "litert_quantizer": PRESS,
    "ai_edge_litert": LITERT,
    "flatbuffers": LITERT,
}
"""Module -> the extra in pyproject.toml that names its package."""


def require(module: str) -> None:
    """Raise PackageMissing unless a module of EXTRAS is installed; before work that would end without it."""
    if find_spec(module) is None:
        raise _missing(module)


def missing(error: BaseException | None) -> PackageMissing | None:
    """Return what to say of an import that failed, also below another error that it caused.

    None unless it failed for want of a module of EXTRAS.
    """
    while error is not None:
        module = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        if module in EXTRAS and find_spec(module) is None:
            return _missing(module)
        error = error.__cause__
    return None


def _missing(module: str) -> PackageMissing:
    return PackageMissing(f"{module} is not installed: pip install 'glyphpress[{EXTRAS[module]}]'")
