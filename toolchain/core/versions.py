"""Versions of the packages that make an artifact, recorded in its sidecar."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def tool_versions(*packages: str) -> dict[str, str]:
    """Return the installed version of glyphpress and of each package that is there."""
    found: dict[str, str] = {}
    for package in ("glyphpress", *packages):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
