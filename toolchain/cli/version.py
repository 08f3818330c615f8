"""`glyphpress version`: what to paste into a bug report."""

from __future__ import annotations

import platform

import rich_click as click

from toolchain.cli import console
from toolchain.cli.options import json_option
from toolchain.core.versions import tool_versions

PACKAGES = (
    *("torch", "onnx", "onnxscript", "onnxruntime", "litert-torch", "ai-edge-litert", "litert-quantizer"),
    *("torch-pruning", "onnx2torch", "numpy", "scipy", "scikit-learn", "safetensors"),
)


@click.command()
@json_option
def version(as_json: bool) -> None:
    """Print the versions of glyphpress, Python, the system and every installed runtime.

    \b
    Example:
      glyphpress version --json
    """
    from targets.host.machine import machine_state

    state = machine_state()
    place = {key: state[key] for key in ("os", "kernel", "architecture", "cpu") if key in state}
    installed = tool_versions(*PACKAGES)
    if as_json:
        console.emit("version", {"python": platform.python_version(), "machine": place, "packages": installed})
        return
    facts = {"glyphpress": installed.pop("glyphpress", "not installed"), "python": platform.python_version()}
    for name, value in (facts | place | installed).items():
        click.echo(f"{name:18} {value}")
