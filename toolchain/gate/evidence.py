"""Evidence: all that a policy judges a candidate by, as it was measured; it can be stored and judged again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from targets.errors import RunFailed
from targets.host.text import json_text, json_value
from targets.session import Timings
from toolchain.core.errors import EvidenceError
from toolchain.core.files import refuse_other, write_whole
from toolchain.evaluation.flip_images import Flipped
from toolchain.evaluation.paired_answers import Files, Pairs
from toolchain.evaluation.strict_json import count, members, text, told
from toolchain.gate.limits.leaks import Leaks
from toolchain.gate.limits.runtimes import Place
from toolchain.gate.limits.stress import StressPairs

SCHEMA = "glyphpress/evidence/1"


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the gate judges. Only `pairs` is always there; the rest where the policy asked for it.

    places: the candidate on other runtimes. packed: bytes of the candidate packed by zstd. memory: peak bytes of its
    session. flipped: pictures for people, no verdict looks at them. baseline_digest: of the stored baseline that the
    baseline's answers came from, None where they came from the file or a saved evaluation.
    """

    pairs: Pairs
    stress: tuple[StressPairs, ...] = ()
    places: tuple[Place, ...] = ()
    leaks: Leaks | None = None
    packed: int | None = None
    memory: int | None = None
    timings: Timings | None = None
    baseline_timings: Timings | None = None
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

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types; `from_dict` is the inverse."""
        single = {name: getattr(self, name) for name in _KINDS}
        return {
            "schema": SCHEMA,
            "pairs": self.pairs.to_dict(),
            "stress": [one.to_dict() for one in self.stress],
            "places": [one.to_dict() for one in self.places],
        } | {name: value.to_dict() if hasattr(value, "to_dict") else value for name, value in single.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Evidence:
        """Rebuild from `to_dict`; raises EvidenceError on anything else."""
        try:
            if not isinstance(values, dict) or values["schema"] != SCHEMA:
                raise ValueError(f"its schema is not {SCHEMA}")
            single = {name: None if values[name] is None else kind(values[name]) for name, kind in _KINDS.items()}
            return cls(
                pairs=Pairs.from_dict(values["pairs"]),
                stress=tuple(map(StressPairs.from_dict, members(values["stress"], dict))),
                places=tuple(map(Place.from_dict, members(values["places"], dict))),
                **single,
            )
        except (KeyError, TypeError, ValueError, RunFailed) as error:
            raise EvidenceError(f"not stored evidence ({told(error)}); gather it again") from error

    def save(self, path: Path, *, force: bool = False) -> None:
        """Write the evidence as JSON that `load` reads back."""
        write_whole(path, json_text(self.to_dict()), force=force)

    @classmethod
    def load(cls, path: Path) -> Evidence:
        """Read what `save` wrote; raises EvidenceError on anything else."""
        if not path.is_file():
            raise EvidenceError(f"{path}: no such evidence; `glyphpress gate ... --evidence {path.name}` makes it")
        refuse_other(path, "evidence")
        try:
            return cls.from_dict(json_value(path.read_text(encoding="utf-8")))
        except (ValueError, RecursionError) as error:
            raise EvidenceError(f"{path}: not stored evidence ({error}); gather it again") from error
        except EvidenceError as error:
            raise EvidenceError(f"{path}: {error}") from error


_KINDS: dict[str, Callable[[Any], Any]] = {
    "leaks": Leaks.from_dict,
    "packed": count,
    "memory": count,
    "timings": Timings.from_dict,
    "baseline_timings": Timings.from_dict,
    "flipped": Flipped.from_dict,
    "baseline_digest": text,
}


def _flips(pairs: Pairs, indices: NDArray[np.int64]) -> bool:
    """Return whether every index is that of an image whose answer changed."""
    return bool(((indices >= 0) & (indices < len(pairs))).all() and pairs.flipped[indices].all())
