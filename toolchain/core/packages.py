"""Errors for want of a package that an extra of glyphpress brings."""

from __future__ import annotations

from importlib.util import find_spec

from glyphpress.extras import EXTRAS, pip_line
from toolchain.core.errors import PackageMissing


def require(module: str) -> None:
    """Raise PackageMissing unless a module of EXTRAS is installed; before work that would end without it."""
    if find_spec(module) is None:
        raise _missing(module)


def missing(error: BaseException | None) -> PackageMissing | None:
    """Return what to say of an import that failed, also below another error that it caused.

    None unless it failed for want of a module of EXTRAS.
    """
    seen: list[BaseException] = []
    while error is not None and not any(error is other for other in seen):  # a chain may run in a circle
        seen.append(error)
        module = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        if module in EXTRAS and find_spec(module) is None:
            return _missing(module)
        error = error.__cause__
    return None


def _missing(module: str) -> PackageMissing:
    return PackageMissing(f"{module} is not installed: {pip_line(module)}")
