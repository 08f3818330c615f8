"""Baseline: a float model's answers as they are stored for CI, signed by a digest of everything they hold.

The digest tells a damaged or edited file. Who could edit the file could also write its digest anew: what the policy
names in [baseline] is what cannot be exchanged without a change to the policy.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from targets.host.text import json_value
from toolchain.core.errors import EvidenceError
from toolchain.core.files import refuse_other
from toolchain.core.json_codec import from_json, to_json
from toolchain.evaluation.damaged import StressAnswers
from toolchain.evaluation.evaluate import UNREADABLE, Evaluation, save_npz, unpacked

_ARRAYS = {"logits": np.dtype("<f4"), "labels": np.dtype("<i8"), "sample_ids": np.dtype("S32")}
_STRESS = {"strengths": np.dtype("<i8"), "answers": np.dtype("<i8")}
_ADVICE = "store it again with `glyphpress gate baseline`"


@dataclass(frozen=True)
class _Damage:
    """One kind of damage that answers were given under; the fields of `StressAnswers` that are no arrays."""

    kind: str
    seed: int
    sha256: str


@dataclass(frozen=True)
class _Facts:
    """What the file holds besides its arrays. evaluation: `Evaluation.to_dict()`. The rest as in `Baseline`."""

    SCHEMA: ClassVar = "glyphpress/baseline/1"

    evaluation: dict[str, Any]
    stress: tuple[_Damage, ...]
    parent_sha256: str | None
    checkpoint_sha256: str | None
    tool: str
    digest: str


@dataclass(frozen=True, eq=False)
class Baseline:
    """What a gate needs of a baseline in place of its file.

    evaluation: its answers. stress: those under damage, where a policy asked for them. parent_sha256 and
    checkpoint_sha256 are those of its artifact (`targets.artifact.Artifact`), which tell whether a
    candidate is of another line of models. tool: the version of glyphpress that stored it. Raises EvidenceError when
    built from answers to other images.
    """

    evaluation: Evaluation
    stress: tuple[StressAnswers, ...] = ()
    parent_sha256: str | None = None
    checkpoint_sha256: str | None = None
    tool: str = ""

    def __post_init__(self) -> None:
        """Reject answers under damage that are not of the images evaluated."""
        count, columns = len(self.evaluation), len(self.evaluation.classes)
        for damaged in self.stress:
            if not damaged.strengths.shape == damaged.answers.shape == (count,):
                raise EvidenceError(f"the answers under '{damaged.kind}' are not of the {count} images; {_ADVICE}")
            if damaged.answers.min() < 0 or damaged.answers.max() >= columns:
                raise EvidenceError(f"the answers under '{damaged.kind}' do not fit {columns} classes; {_ADVICE}")
        if len({damaged.kind for damaged in self.stress}) < len(self.stress):
            raise EvidenceError(f"a kind of damage stands in it twice; {_ADVICE}")

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of everything that the baseline holds, however the file was packed.

        Of the facts as JSON, keys sorted, without blanks; then of each array in the order of the names: its name,
        dtype, shape and little-endian bytes. Every piece is preceded by its length.
        """
        digest = hashlib.sha256()
        facts = to_json(self._facts(digest=""))
        del facts["digest"]
        pieces = [json.dumps(facts, ensure_ascii=True, sort_keys=True, separators=(",", ":")).encode()]
        for name, array in sorted(self._arrays().items()):
            little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            pieces += [name.encode(), f"{little.dtype.str}{list(little.shape)}".encode(), little.tobytes()]
        for piece in pieces:
            digest.update(len(piece).to_bytes(8, "little"))
            digest.update(piece)
        return digest.hexdigest()

    def _facts(self, digest: str) -> _Facts:
        damage = tuple(_Damage(answers.kind, answers.seed, answers.sha256) for answers in self.stress)
        line = self.parent_sha256, self.checkpoint_sha256
        return _Facts(self.evaluation.to_dict(), damage, *line, self.tool, digest)

    def _arrays(self) -> dict[str, NDArray[Any]]:
        arrays = {name: getattr(self.evaluation, name) for name in _ARRAYS}
        return arrays | {
            f"{answers.kind}_{name}": getattr(answers, name) for answers in self.stress for name in _STRESS
        }

    def save(self, path: Path, *, force: bool = False) -> None:
        """Write an `.npz` that `load` reads back to the same bits; raises UsageProblem over an existing file."""
        save_npz(path, to_json(self._facts(self.digest)), self._arrays(), force=force)

    @classmethod
    def load(cls, path: Path) -> Baseline:
        """Read what `save` wrote; raises EvidenceError on anything else, a changed byte of what it holds included."""
        if not path.is_file():
            raise EvidenceError(f"{path}: no such baseline; make it with `glyphpress gate baseline`")
        refuse_other(path, _Facts.SCHEMA)
        content = path.read_bytes()
        try:
            arrays = unpacked(content)
            facts = from_json(_Facts, str(arrays.pop("meta")))
            baseline = cls._of(facts, arrays)
        except (*UNREADABLE, EvidenceError) as error:
            raise EvidenceError(f"{path}: not a stored baseline ({error}); {_ADVICE}") from error
        if facts != baseline._facts(baseline.digest):
            raise EvidenceError(
                f"{path}: its digest does not match its content, so it was changed after it was stored; {_ADVICE}"
            )
        return baseline

    @classmethod
    def _of(cls, facts: _Facts, arrays: dict[str, NDArray[Any]]) -> Baseline:
        kinds = [damage.kind for damage in facts.stress]
        expected = _ARRAYS | {f"{kind}_{name}": dtype for kind in kinds for name, dtype in _STRESS.items()}
        if {name: array.dtype for name, array in arrays.items()} != expected:
            raise ValueError(f"expected arrays {', '.join(expected)}")
        stress = tuple(
            StressAnswers(kind, damage.seed, arrays[f"{kind}_strengths"], arrays[f"{kind}_answers"], damage.sha256)
            for kind, damage in zip(kinds, facts.stress, strict=True)
        )
        evaluation = Evaluation.of_parts(facts.evaluation, arrays)
        return cls(evaluation, stress, facts.parent_sha256, facts.checkpoint_sha256, facts.tool)


def is_baseline(path: Path) -> bool:
    """Return whether an `.npz` says that it is a stored baseline; False for what cannot be read."""
    try:
        schema: object = json_value(str(unpacked(path.read_bytes())["meta"]))["schema"]
    except (*UNREADABLE, OSError):
        return False
    return isinstance(schema, str) and schema.startswith("glyphpress/baseline/")
