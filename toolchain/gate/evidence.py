"""Evidence: all that a policy judges a candidate by, as it was measured; it can be stored and judged again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray

from targets.host.text import json_text
from targets.session import Timings
from toolchain.core.errors import EvidenceError
from toolchain.core.files import refuse_other, write_whole
from toolchain.core.json_codec import ByItself, Count, from_json, to_json
from toolchain.evaluation.compare import Files, Flipped, Pairs
from toolchain.gate.limits.leaks import Leaks
from toolchain.gate.limits.runtimes import Place
from toolchain.gate.limits.stress import StressPairs

StoredTimings = Annotated[Timings, ByItself(written=True)]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the gate judges. Only `pairs` is always there; the rest where the policy asked for it.

    places: the candidate on other runtimes. packed: bytes of the candidate packed by zstd. memory: peak bytes of its
    session. flipped: pictures for people, no verdict looks at them. baseline_digest: of the stored baseline that the
    baseline's answers came from, None where they came from the file or a saved evaluation.
    """

    SCHEMA: ClassVar = "glyphpress/evidence/1"

    pairs: Pairs
    stress: tuple[StressPairs, ...] = ()
    places: tuple[Place, ...] = ()
    leaks: Leaks | None = None
    packed: Count | None = None
    memory: Count | None = None
    timings: StoredTimings | None = None
    baseline_timings: StoredTimings | None = None
    flipped: Flipped | None = None
    baseline_digest: str | None = None

    def __post_init__(self) -> None:
        """Reject what is not of the files and images that the answers are of."""
        for role, file, timings in (
            ("candidate", self.pairs.candidate, self.timings),
            ("baseline", self.pairs.baseline, self.baseline_timings),
        ):
            if timings is not None and timings.artifact_sha256 != file.sha256:
                raise EvidenceError(
                    f"the {role}'s timings are of another file than its evaluation; time and evaluate the same"
                )
        if self.flipped is not None and not _flips(self.pairs, self.flipped.indices):
            raise EvidenceError("the pictures are of other images than the changed answers; gather the evidence again")
        counts = [place.images for place in self.places if not place.left_out]
        counts += [self.leaks.images] if self.leaks is not None else []
        if any(images != len(self.pairs) for images in counts):
            raise EvidenceError("places or leaks are of other images than the answers; gather the evidence again")

    @property
    def files(self) -> Files:
        """The facts of both files, always there as `pairs` is."""
        return self.pairs.files

    def save(self, path: Path, *, force: bool = False) -> None:
        """Write the evidence as JSON that `load` reads back."""
        write_whole(path, json_text(to_json(self)), force=force)

    @classmethod
    def load(cls, path: Path) -> Evidence:
        """Read what `save` wrote; raises EvidenceError on anything else."""
        if not path.is_file():
            raise EvidenceError(f"{path}: no such evidence; `glyphpress gate ... --evidence {path.name}` makes it")
        refuse_other(path, "evidence")
        try:
            return from_json(cls, path.read_bytes())
        except ValueError as error:
            raise EvidenceError(f"{path}: not stored evidence ({error}); gather it again") from error


def _flips(pairs: Pairs, indices: NDArray[np.int64]) -> bool:
    """Return whether every index is that of an image whose answer changed."""
    return bool(((indices >= 0) & (indices < len(pairs))).all() and pairs.flipped[indices].all())
