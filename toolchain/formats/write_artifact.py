"""Write a model file as an Artifact: described, checked, then named together with its sidecar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from targets.artifact import SCHEMA, Artifact, Fidelity, file_format, file_sha256, sidecar_of, utf8
from targets.errors import ArtifactError, RunFailed
from targets.metadata import describe
from targets.preprocess import Preprocess
from toolchain.core.errors import UsageProblem
from toolchain.core.files import refuse_existing, whole_files
from toolchain.core.versions import tool_versions
from toolchain.formats import catalog


@dataclass(frozen=True)
class Origin:
    """Where an artifact comes from: what its sidecar says beyond the file itself."""

    preprocess: Preprocess
    classes: tuple[str, ...]
    recipe: str
    parent_sha256: str | None
    tools: dict[str, str]
    calibration: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    checkpoint_sha256: str | None = None

    @classmethod
    def of(cls, parent: Artifact, recipe: str, *packages: str, **changes: Any) -> Origin:
        """Return the origin of a file made from `parent`."""
        tools = parent.tools | tool_versions(*packages)
        changes = {"checkpoint_sha256": parent.checkpoint_sha256} | changes
        return cls(parent.preprocess, parent.classes, recipe, parent.sha256, tools, **changes)

    def facts(self) -> dict[str, Any]:
        """Return what is stored in the file itself, as JSON types.

        Notes are only in the sidecar: they are for people, and would take a fortieth of a file of 16 KiB.
        """
        facts = {"schema": SCHEMA} | asdict(self)
        del facts["notes"]
        return facts


def write_artifact(
    path: Path,
    origin: Origin,
    write: Callable[[Path], object],
    *,
    force: bool = False,
    check: Callable[[Artifact], None] | None = None,
    compare: Callable[[Artifact], Fidelity] | None = None,
    beside: dict[Path, str] | None = None,
    facts: dict[str, Any] | None = None,
) -> Artifact:
    """Let `write` make the file and `check` examine it, and then give file and sidecar their names.

    compare: returns the sidecar's `fidelity`. beside: texts to write too, by their paths in the same folder. facts:
    JSON types for the file itself, beside its origin. Raises what these functions raise; then nothing is written.
    Without `force` nothing is overwritten, except a sidecar whose file is gone.
    """
    refuse_model(path, force=force)
    texts = beside or {}
    with whole_files(path, sidecar_of(path), *texts, force=force) as (part, side, *others), _renamed(part, path):
        write(part)
        inputs, outputs = describe(part)
        # vars, not asdict, which would turn the preprocess into a dictionary too.
        artifact = Artifact(part, file_format(part), "", inputs, outputs, **vars(origin))
        catalog.get(artifact.format).embed(part, (facts or {}) | origin.facts())
        artifact = replace(artifact, sha256=file_sha256(part))
        if check:
            check(artifact)
        if compare:
            artifact = replace(artifact, fidelity=compare(artifact))
        side.write_text(artifact.description(), encoding="utf-8", errors="backslashreplace")
        for other, text in zip(others, texts.values(), strict=True):
            other.write_text(text, encoding="utf-8", errors="backslashreplace")
    return replace(artifact, path=path)


def refuse_model(path: Path, *, force: bool) -> None:
    """Raise UsageProblem where writing would replace a file, or a file that has the sidecar's name but is none."""
    if not utf8(path):
        raise UsageProblem(f"{path}: the name is not UTF-8, so the runtimes could not open it; give another name")
    refuse_existing(path, force=force)
    sidecar = sidecar_of(path)
    if sidecar.is_file() and not force and SCHEMA.encode() not in sidecar.read_bytes():
        refuse_existing(sidecar, force=False)


@contextmanager
def _renamed(part: Path, path: Path) -> Iterator[None]:
    """Let errors in the block name `path` instead of the temporary file, which is deleted before they are shown."""
    try:
        yield
    except (ArtifactError, RunFailed) as error:
        raise type(error)(str(error).replace(str(part), str(path))) from error
