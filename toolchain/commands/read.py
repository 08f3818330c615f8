"""Read pictures of handwriting by a model file, or by a model that comes with the package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from calibration.errors import CorruptData, DataError
from calibration.words import Writing, cut_file
from targets import catalog
from targets.artifact import Artifact, file_sha256
from targets.host.cache import cached
from targets.metadata import load_artifact
from targets.session import RuntimeFacts
from toolchain import models
from toolchain.checkpoint import CheckpointRequest, settle
from toolchain.core.context import RunContext
from toolchain.core.errors import StageError, UsageProblem
from toolchain.core.versions import tool_versions
from toolchain.evaluation.reading import Reading, ReadSettings, read_writing
from toolchain.evaluation.untracked import open_described
from toolchain.export import EXPORTERS, export
from toolchain.gate.candidate import open_session

DEFAULT = "cnn-deep"
"""The most accurate model that comes with the package."""


@dataclass(frozen=True)
class Readings:
    """What pictures say, by which file and where it ran. unread: why others could not be read, with their names."""

    artifact: Artifact
    facts: RuntimeFacts
    pictures: tuple[Reading, ...]
    unread: tuple[tuple[Path, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        model = {"artifact": self.artifact.path.name, "artifact_sha256": self.artifact.sha256}
        about = {"classes": list(self.artifact.classes), "facts": asdict(self.facts)}
        unread = [{"file": str(path), "reason": reason} for path, reason in self.unread]
        return model | about | {"pictures": [picture.to_dict() for picture in self.pictures], "unread": unread}

    def raise_unless_all(self) -> None:
        """Raise StageError where a picture could not be read."""
        if self.unread:
            names, total = ", ".join(str(path) for path, _ in self.unread), len(self.pictures) + len(self.unread)
            raise StageError(f"{len(self.unread)} of {total} pictures could not be read: {names}")


def read_pictures(
    pictures: Sequence[Path],
    model: str | None = None,
    *,
    target: str | None = None,
    settings: ReadSettings | None = None,
    context: RunContext | None = None,
) -> Readings:
    """Read pictures, each of a word, a line or a page.

    model: an artifact's file, or the name of a model that ships, `cnn-deep` without one. Such a model is converted on
    first use and kept in the user's cache. All pictures are cut before anything is read; one that cannot be, a blank
    one for example, does not keep the others from being read. Raises what `cut_file` raises where none can be read,
    what `open_session` and `read_writing` raise, and EvidenceError for a file that nothing describes.
    """
    settings, context = settings or ReadSettings(), context or RunContext()
    writings, unread = list[tuple[Path, Writing]](), list[tuple[Path, str]]()
    for done, path in enumerate(pictures, 1):
        try:
            writings.append((path, cut_file(path, settings.turn)))
        except DataError as error:
            if len(pictures) == 1:
                raise
            unread.append((path, str(error)))
        context.progress("cut into characters", done, len(pictures))
    if not writings:
        raise CorruptData("; ".join(reason for _, reason in unread))
    artifact = _artifact(model or DEFAULT, target, context)
    with open_session(artifact, target, context.threads) as session:
        readings = tuple(read_writing(session, path, writing, settings, context.progress) for path, writing in writings)
        return Readings(artifact, session.facts, readings, tuple(unread))


def _artifact(model: str, target: str | None, context: RunContext) -> Artifact:
    path = Path(model)
    if model in models.shipped_names() and not path.exists():
        return shipped(model, target, context)
    if path.suffix == "" and not path.exists():
        names = " or ".join(models.shipped_names())
        raise UsageProblem(f"--artifact {model} is neither a model file nor {names}; give one of them")
    return open_described(path)


def shipped(name: str, target: str | None, context: RunContext) -> Artifact:
    """Return a model that ships as a float file of a format that the target runs, converted on first use.

    Without a target it is of the first format that can be exported. Raises as `export` and `targets.catalog.get` do.
    """
    kinds = list(EXPORTERS)
    kind = next((each for each in kinds if not target or each in catalog.get(target).formats), kinds[0])
    weights = models.shipped_weights(name)
    assert weights, "it ships"
    file = f"{name}.float.{kind}"

    def build(folder: Path) -> None:
        context.say(f"{name} is converted to {file}, once; it is kept in the cache")
        export(settle(name, CheckpointRequest(), None).model, kind, folder / file)

    versions = tool_versions(*EXPORTERS[kind].packages)
    folder = cached(f"read/{name}.{kind}", f"{file_sha256(weights)} {versions}", build)
    return load_artifact(folder / file)
