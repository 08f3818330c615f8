"""FileFormat: what glyphpress knows of one kind of model file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from toolchain.core.errors import UsageProblem

if TYPE_CHECKING:
    from pathlib import Path

    from targets.artifact import Artifact, Format
    from toolchain.formats.graph import FloatParts, Graph
    from toolchain.formats.inspection import Inspection
    from toolchain.formats.kernels import Diagnosis, Kernel
    from toolchain.formats.trace import Trace


class FileFormat:
    """A format of model files. Nobody outside of `formats/` and `targets/` tests which one a file has.

    name: as in `Artifact.format`; the suffix without its dot. title, runtime: what people call the format, and what
    runs it here. magic: bytes 4 to 8 of a file, where the format has such an identifier. pressed: whether a press makes
    such files. loads: whether a float file of it can be loaded and pressed as a checkpoint can. parent: the format
    whose files it is converted from, None where it is exported from a model. opaque: why its graph cannot be read and
    what to give instead, to be put behind the file's name; empty where it can. arithmetic: how `explain` computes the
    errors and finds the kernels.

    Of the runtime's kernels: saturates: whether sums of 8-bit products may saturate on some processors. activations:
    the 8-bit types that they take. converts_pixels: whether uint8 pixels can go into a file of int8 activations.
    """

    name: ClassVar[Format]
    title: ClassVar[str]
    runtime: ClassVar[str]
    magic: ClassVar[bytes] = b""
    pressed: ClassVar[bool] = False
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

    def recognises(self, path: Path, head: bytes) -> bool:  # noqa: ARG002 (one without magic looks at the first bytes)
        """Return whether a file may be one, if no other kind of file is certain; head: its first 64 bytes."""
        return not self.magic and path.suffix == self.suffix

    def inspect(self, path: Path) -> Inspection:
        """Return what stands in a file; raises CheckpointError when it cannot be read."""
        raise self._refusal(path)

    def graph(self, path: Path) -> Graph:
        """Return the operators and layers of a file; raises as its parser does on a damaged one."""
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
        """Return what tells why a file is slow."""
        raise self._refusal(artifact.path)

    def size_reason(self, path: Path) -> str:
        """Return which parts of a file take how many bytes."""
        inspection = self.inspect(path)
        dtypes = inspection.bytes_by_dtype
        weights = sum(dtypes.values())
        most = ", ".join(f"{size:,} {dtype}" for dtype, size in list(dtypes.items())[:2])
        graph = inspection.bytes - weights
        return f"of its {inspection.bytes:,} bytes {most} are weights and constants, {graph:,} are the graph"

    def float_parts(self, content: bytes) -> FloatParts:  # noqa: ARG002 (of every format)
        """Parse a quantized file, so that it can be asked what of it is still float."""
        raise UsageProblem(f"an {self.suffix} {self.opaque}")

    def check_runs(self, path: Path) -> None:
        """Raise RunFailed where the runtime refuses a file when it opens it, if that shows without the sidecar."""

    def refused_operator(self, path: Path, message: str) -> str | None:  # noqa: ARG002 (of every format)
        """Return ` (ADD behind layer conv1)` for the operator that a runtime's message is about, empty for none.

        None where the runtime's message is plain enough as it is.
        """
        return None

    def embed(self, path: Path, facts: dict[str, Any]) -> None:
        """Write how a file was made into the file itself, where the format has room for metadata."""

    def _refusal(self, path: Path) -> UsageProblem:
        return UsageProblem(f"{path} {self.opaque}")
