"""Wheels of the runtimes for another machine: fetched on this host, so that the other machine needs no network."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from targets.errors import TargetUnavailable
from targets.host.cache import full_disk

RUNTIME_PACKAGES = ("numpy", "onnxruntime", "ai-edge-litert", "flatbuffers", "protobuf")
ARCHITECTURES = ("aarch64", "x86_64")
"""Architectures for which all of them have wheels."""
_MANYLINUX = ("_2_28", "_2_27", "_2_17", "2014")


def installed() -> list[str]:
    """Return `NAME==VERSION` of every package of the runtimes that this host has."""
    pins = []
    for name in RUNTIME_PACKAGES:
        try:
            pins.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            continue  # a host without LiteRT cannot make .tflite files to run there
    return pins


def unpack(folder: Path, python: str, architecture: str) -> None:
    """Install the packages into `folder` for that Python (`3.11`) and architecture.

    They have the host's versions, so that the same code runs there; where there are none for that Python, the newest
    ones, and no LiteRT where that has none at all. Raises TargetUnavailable with pip's last line.
    """
    pins = installed()
    newest = [pin.partition("==")[0] for pin in pins]
    errors = ""
    for requirements in (pins, newest, [name for name in newest if name != "ai-edge-litert"]):
        pip = _pip_command(folder, python, architecture, requirements)
        done = subprocess.run(
            pip, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, check=False
        )
        if not done.returncode:
            return
        errors = done.stderr.strip() or "pip failed"
    advice = full_disk(folder, message=errors) or "check that the package registry can be reached"
    raise TargetUnavailable(f"no wheels for Python {python} on {architecture} ({errors.splitlines()[-1]}); {advice}")


def _pip_command(folder: Path, python: str, architecture: str, requirements: list[str]) -> list[str]:
    platforms = [option for tag in _MANYLINUX for option in ("--platform", f"manylinux{tag}_{architecture}")]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--upgrade"]
    wheels = ["--only-binary=:all:", "--no-compile", "--python-version", python, "--target", str(folder)]
    return [*pip, *wheels, *platforms, *requirements]
