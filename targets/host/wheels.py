"""Wheels of the runtimes for another machine: fetched on this host, so that the other one needs no network."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from targets.errors import TargetUnavailable
from targets.host.cache import full_disk

NEEDED = ("numpy", "onnxruntime", "ai-edge-litert", "flatbuffers", "protobuf")
ARCHITECTURES = ("aarch64", "x86_64")
"""Of which there are wheels of all of them."""
_TAGS = ("_2_28", "_2_27", "_2_17", "2014")


def installed() -> list[str]:
    """Return `NAME==VERSION` of every needed package that this host has."""
    found = []
    for name in NEEDED:
        try:
            found.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            continue  # a host without LiteRT has no .tflite files to run elsewhere
    return found


def unpack(folder: Path, python: str, architecture: str) -> None:
    """Put the packages into `folder` for that Python (`3.11`) and architecture.

    The host's own versions, so that the same code runs there; where there are none for that Python, the newest that
    there are, and without LiteRT where there is none at all. Raises TargetUnavailable with what pip said last.
    """
    own = installed()
    newest = [pin.partition("==")[0] for pin in own]
    said = ""
    for wanted in (own, newest, [name for name in newest if name != "ai-edge-litert"]):
        pip = _pip(folder, python, architecture, wanted)
        done = subprocess.run(
            pip, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, check=False
        )
        if not done.returncode:
            return
        said = done.stderr.strip() or "pip failed"
    advice = full_disk(folder, said=said) or "is the registry within reach?"
    raise TargetUnavailable(f"no wheels for Python {python} on {architecture} ({said.splitlines()[-1]}); {advice}")


def _pip(folder: Path, python: str, architecture: str, wanted: list[str]) -> list[str]:
    platforms = [word for tag in _TAGS for word in ("--platform", f"manylinux{tag}_{architecture}")]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--upgrade"]
    where = ["--only-binary=:all:", "--no-compile", "--python-version", python, "--target", str(folder)]
    return [*pip, *where, *platforms, *wanted]
