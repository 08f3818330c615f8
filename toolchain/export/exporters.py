"""The exporters: what makes a float file of a model, one row per format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from targets.artifact import Format
    from toolchain.checkpoint.float_model import FloatModel


@dataclass(frozen=True)
class Exporter:
    """How a float file is made.

    function: "module:function"; takes the model, the path to write and the file for the converter's output.
    packages: those whose versions the sidecar records. needs: a module that is not installed on every machine. missing:
    what to say where it is not. takes_onnx: whether it writes an `OnnxModel` from its graph, without torch.
    """

    function: str
    packages: tuple[str, ...]
    needs: str = ""
    missing: str = ""
    takes_onnx: bool = False

    @property
    def installed(self) -> bool:
        """Return whether it can run on this machine."""
        return not self.needs or find_spec(self.needs) is not None

    def convert(self, model: FloatModel, path: Path, log: Path | None) -> None:
        """Write the file; raises StageError when the converter refuses the model, PackageMissing without it."""
        module, _, name = self.function.partition(":")
        write: Callable[[FloatModel, Path, Path | None], None] = getattr(import_module(module), name)
        write(model, path, log)


EXPORTERS: dict[Format, Exporter] = {
    "onnx": Exporter("toolchain.export.onnx:write_onnx", ("torch", "onnx", "onnxscript"), takes_onnx=True),
    "tflite": Exporter(
        "toolchain.export.tflite:write_tflite",
        ("torch", "litert-torch"),
        needs="litert_torch",
        missing="litert-torch has no wheels for this machine; press on x86-64 for it",
    ),
}
"""Format -> exporter. Files of other formats are made of a file, as an .ort is of an .onnx."""


def installed_formats() -> tuple[Format, ...]:
    """Return the formats that can be exported on this machine."""
    return tuple(name for name, exporter in EXPORTERS.items() if exporter.installed)
