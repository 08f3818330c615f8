"""Versions of the packages that make an artifact, recorded in its sidecar."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def tool_versions(*packages: str) -> dict[str, str]:
    """Return the versions of glyphpress and of those of the packages that are installed."""
    versions: dict[str, str] = {}
    for package in ("glyphpress", *packages):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
