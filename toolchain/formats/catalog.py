"""The catalog of file formats: what each has to offer, and the table of all, imported on use; plug-ins add some."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from glyphpress.registry import Registry, subclass
from toolchain.core.errors import UsageProblem

if TYPE_CHECKING:
    from targets.artifact import Artifact, Format, TensorSpec
    from toolchain.formats.graph import Diagnosis, FloatParts, Graph, Kernel, Trace
    from toolchain.formats.inspection import Inspection


class FileFormat:
    """A format of model files. Nobody outside of `formats/` and `targets/` tests which one a file has.

    name: as in `Artifact.format`; the suffix without its dot. title, runtime: the usual names of the format and of what
    runs it here. magic: bytes 4 to 8 of a file, where the format has such an identifier. pressed: whether a press makes
    such files. extra: the extra of glyphpress that brings the runtime, where the core has it not. loads: whether a
    float file can be loaded and pressed as a checkpoint can. parent: the format whose files it is converted from, None
    where it is exported from a model. opaque: why its graph cannot be read and what to give instead, to follow the
    file's name in a message; empty where it can. arithmetic: how `explain` computes the errors and finds the kernels.

    Properties of the runtime's kernels: saturates: whether sums of 8-bit products may saturate on some processors.
    activations: the 8-bit types that they take. converts_pixels: whether a file of int8 activations can take uint8
    pixels.
    """

    name: ClassVar[Format]
    title: ClassVar[str]
    runtime: ClassVar[str]
    magic: ClassVar[bytes] = b""
    pressed: ClassVar[bool] = False
    extra: ClassVar[str] = ""
    loads: ClassVar[bool] = False
    parent: ClassVar[Format | None] = None
    opaque: ClassVar[str] = ""
    arithmetic: ClassVar[str] = ""
    saturates: ClassVar[bool] = False
    activations: ClassVar[tuple[str, ...]] = ()
    converts_pixels: ClassVar[bool] = False

    @property
    def suffix(self) -> str:
        """Return the end of its files' names, with the dot."""
        return f".{self.name}"

    def recognises(self, path: Path, head: bytes) -> bool:  # noqa: ARG002 (OnnxFormat uses it)
        """Return whether a file may be of this format, where no other kind is certain; head: its first 64 bytes."""
        return not self.magic and path.suffix == self.suffix

    def tensors(self, path: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Return inputs and outputs of a file of a plug-in's format; raises ArtifactError. Ours are in `targets`."""
        raise self._refusal(path)

    def inspect(self, path: Path) -> Inspection:
        """Return the contents of a file; raises CheckpointError when it cannot be read."""
        raise self._refusal(path)

    def graph(self, path: Path) -> Graph:
        """Return the operators and layers of a file; on a damaged one its parser raises whatever it raises."""
        raise self._refusal(path)

    def weight_files(self, path: Path) -> tuple[Path, ...]:  # noqa: ARG002 (of every format)
        """Return the files beside a model that hold its weights, sorted; none for most models."""
        return ()

    def kernels(self, artifact: Artifact) -> tuple[Kernel, ...]:
        """Return the kernels of all layers, and of other operators that compute in float, in the order of execution.

        Raises RunFailed where the runtime refuses the file.
        """
        raise self._refusal(artifact.path)

    def trace(self, artifact: Artifact) -> Trace:
        """Open a file so that the results of its layers can be read; its session raises StageError on first use."""
        raise self._refusal(artifact.path)

    def diagnosis(self, artifact: Artifact) -> Diagnosis:
        """Return an object that finds out why a file is slow."""
        raise self._refusal(artifact.path)

    def size_reason(self, path: Path) -> str:
        """Return a sentence on how many bytes the weights and the graph of a file take."""
        inspection = self.inspect(path)
        dtypes = inspection.bytes_by_dtype
        weights = sum(dtypes.values())
        most = ", ".join(f"{size:,} {dtype}" for dtype, size in list(dtypes.items())[:2])
        graph = inspection.bytes - weights
        return f"of its {inspection.bytes:,} bytes {most} are weights and constants, {graph:,} are the graph"

    def float_parts(self, content: bytes) -> FloatParts:  # noqa: ARG002 (of every format)
        """Return an object that tells which operators and weights of a quantized file are still float."""
        raise UsageProblem(f"an {self.suffix} {self.opaque}")

    def check_runs(self, path: Path) -> None:
        """Raise RunFailed where the runtime refuses to open a file, if that can be tried without its sidecar."""

    def refused_operator(self, path: Path, message: str) -> str | None:  # noqa: ARG002 (of every format)
        """Return the operator that a runtime's message is about, as ` (ADD behind layer conv1)`; empty where unknown.

        None where the message names the operator itself.
        """
        return None

    def embed(self, path: Path, facts: dict[str, Any]) -> None:
        """Store how a file was made in the file itself, where the format has room for metadata."""

    def _refusal(self, path: Path) -> UsageProblem:
        return UsageProblem(f"{path} {self.opaque}")


FORMATS = {
    "onnx": "toolchain.formats.onnx:OnnxFormat",
    "ort": "toolchain.formats.ort:OrtFormat",
    "tflite": "toolchain.formats.tflite:TfliteFormat",
}
"""Name -> "module:Class", in the order in which formats are listed."""


def _taken() -> tuple[str, ...]:
    from targets.artifact import TAKEN  # which imports numpy

    return TAKEN


REGISTRY = Registry("format", lambda: FORMATS, subclass(FileFormat), _taken)
"""Those above and those of plug-ins, which are found by the suffix of a file alone."""


@cache
def get(name: str) -> FileFormat:
    """Return the format of a name; raises KeyError where there is none."""
    return REGISTRY.get(name)()


def formats() -> tuple[FileFormat, ...]:
    """Return every format of FORMATS; no plug-in is imported for a file that is not of its format."""
    return tuple(map(get, FORMATS))


def of(path: Path) -> FileFormat | None:
    """Return the format of a file by its suffix, None where no format has it."""
    try:
        return get(path.suffix.removeprefix("."))
    except KeyError:
        return None


def suffixes(listed: Iterable[FileFormat], conjunction: str) -> str:
    """Return the suffixes of formats as a sentence lists them: `.onnx, .ort or .tflite`."""
    *others, last = [file_format.suffix for file_format in listed]
    return f"{', '.join(others)} {conjunction} {last}" if others else last


def readable() -> tuple[FileFormat, ...]:
    """Return the formats whose graph can be read."""
    return tuple(file_format for file_format in formats() if not file_format.opaque)


def pressed() -> tuple[Format, ...]:
    """Return the names of the formats that a press can make."""
    return tuple(file_format.name for file_format in formats() if file_format.pressed)
