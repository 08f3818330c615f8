"""The gate: the evidence on a candidate, and the verdicts that a policy gives on it.

Evidence is all that was measured; it can be stored and judged again. The gate fails closed: a limit without its
evidence is an error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from numbers import Real
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np

from glyphpress.registry import Plugin, PluginFailed
from targets.host.text import json_text
from targets.session import Timings
from toolchain.core.errors import EvidenceError
from toolchain.core.files import refuse_other, write_whole
from toolchain.core.json_codec import ByItself, Count, from_json, to_json
from toolchain.core.quantities import beside, percent_text
from toolchain.evaluation.compare import Answers, ComparedFiles, Flipped, Pairs
from toolchain.gate.limit import Limit, Verdict
from toolchain.gate.limits import LIMITS, REGISTRY, definition, definitions
from toolchain.gate.limits.leaks import Leaks
from toolchain.gate.limits.runtimes import Place
from toolchain.gate.limits.stress import StressPairs
from toolchain.gate.policy import Policy
from toolchain.stats.decision import Outcome

StoredTimings = Annotated[Timings, ByItself(written=True)]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the gate judges. Only `pairs` is always there; the rest where the policy asked for it.

    places: the candidate on other runtimes. packed: bytes of the candidate packed by zstd. memory: peak bytes of its
    session. flipped: pictures for people, no verdict looks at them. baseline_digest: of the stored baseline that the
    baseline's answers came from, None where they came from the file or a saved evaluation. collected: what limits of
    plug-ins collected, as JSON types by their names. plugins: those whose code took part.
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
    collected: dict[str, Any] = field(default_factory=dict)
    plugins: tuple[Plugin, ...] = ()

    def __post_init__(self) -> None:
        """Reject timings, pictures and counts that belong to other files or images than the answers."""
        for role, file, timings in (
            ("candidate", self.pairs.candidate, self.timings),
            ("baseline", self.pairs.baseline, self.baseline_timings),
        ):
            if timings is not None and timings.artifact_sha256 != file.sha256:
                raise EvidenceError(
                    f"the {role}'s timings are of another file than its evaluation; time and evaluate the same"
                )
        changed = np.flatnonzero(self.pairs.flipped)
        if self.flipped is not None and not np.isin(self.flipped.indices, changed).all():
            raise EvidenceError("the pictures are of other images than the changed answers; gather the evidence again")
        counts = [place.images for place in self.places if not place.left_out]
        counts += [self.leaks.images] if self.leaks is not None else []
        if any(images != len(self.pairs) for images in counts):
            raise EvidenceError("places or leaks are of other images than the answers; gather the evidence again")
        for damaged in self.stress:
            if damaged.after.shape != (len(self.pairs),):
                raise EvidenceError(
                    f"the answers under '{damaged.kind}' are not of the {len(self.pairs)} images judged; gather the "
                    "evidence again"
                )

    @property
    def rows(self) -> Pairs:
        """The answers to all images, copies of an image included."""
        return self.pairs

    def part(self, name: str) -> object:
        """Return what a limit is judged by (`LimitDefinition.evidence`); None where it was not collected."""
        # Here and not in each limit, so that none can forget that copies of an image count once.
        if name == "pairs":
            return self.pairs.once
        own = {"rows", "files", *(each.name for each in fields(self))}
        return getattr(self, name) if name in own else self.collected.get(name)

    @property
    def files(self) -> ComparedFiles:
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
        refuse_other(path, cls.SCHEMA)
        try:
            return from_json(cls, path.read_bytes(), newer=("collected", "plugins"))
        except ValueError as error:
            raise EvidenceError(f"{path}: not stored evidence ({error}); gather it again") from error


def judge(policy: Policy, evidence: Evidence, *, competitors: int = 1) -> tuple[Verdict, ...]:
    """Judge every limit of the policy, in the policy's order, and that the candidate takes the baseline's images.

    competitors: of how many candidates the best will ship (`Policy.among`). Raises EvidenceError when a limit is
    asked for without the evidence it needs, or the baseline is not the one that the policy names or reads too little.
    """
    check_pin(policy, evidence.baseline_digest, evidence.pairs.baseline.name)
    pairs = evidence.pairs.once
    check_floor(policy, pairs.baseline.name, pairs.before, pairs.labels)
    asked = dict(policy.among(competitors).limits())
    verdicts = [judge_limit(name, limit, evidence) for name, limit in asked.items()]
    unasked = (
        judge_limit(name, limit_definition.settings(), evidence)
        for name, limit_definition in definitions().items()
        if limit_definition.always and name not in asked
    )
    verdicts += [verdict for verdict in unasked if verdict.outcome is not Outcome.PASS]
    return tuple(replace(verdict, artifact=evidence.pairs.candidate.name) for verdict in verdicts)


def judge_limit(name: str, limit: Limit, evidence: Evidence) -> Verdict:
    """Judge one limit.

    Raises EvidenceError where the evidence does not hold what it is judged by, and PluginFailed where a plug-in gives
    no verdict on it.
    """
    limit_definition = definition(name)
    parts = [evidence.part(part) for part in limit_definition.evidence]
    if any(part is None or part == () for part in parts):
        raise EvidenceError(
            f"the policy or an option limits {name}, but the evidence does not hold it; store it again with "
            "`glyphpress gate --evidence` and this limit, or drop the limit"
        )
    verdict = limit_definition.judge(limit, *parts)
    return verdict if name in LIMITS else _checked(name, limit, verdict)


def _checked(name: str, limit: Limit, verdict: object) -> Verdict:
    """Return the verdict of a plug-in; raises PluginFailed where it is none on this limit, or counts no number."""
    if not isinstance(verdict, Verdict) or not isinstance(verdict.outcome, Outcome):
        problem = f"gives no Verdict ({verdict!r:.60})"
    elif (verdict.limit, verdict.action) != (name, limit.action):
        problem = f"judged [{verdict.limit}] with the action {verdict.action}, not what the policy asks for"
    elif not all(map(_finite, (verdict.threshold, verdict.measured or 0, verdict.bound or 0))):
        problem = f"measured {verdict.measured} (bound {verdict.bound}), which is no number"
    else:
        return verdict
    plugin = REGISTRY.plugins()[name]
    raise PluginFailed(f"the {plugin} {problem}; repair or uninstall {plugin.package}, or drop [{name}]")


def _finite(value: object) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def check_pin(policy: Policy, digest: str | None, name: str) -> None:
    """Raise EvidenceError unless the baseline of this digest, None where it has none, is the one the policy names."""
    if policy.baseline is None or policy.baseline.digest in (None, digest):
        return
    assert policy.baseline.digest
    pinned = policy.baseline.digest[:12]
    given = f"the stored baseline of {name} has digest {digest[:12]}" if digest else f"{name} is no stored baseline"
    raise EvidenceError(
        f"the policy was written for the stored baseline {pinned}, but {given}; give that one, or change the policy's "
        "[baseline]"
    )


def check_floor(policy: Policy, name: str, answers: Answers, labels: Answers) -> None:
    """Raise EvidenceError where the baseline's answers are too bad for a drop from them to say anything.

    Without the policy's `min_accuracy` the floor is a quarter of the way from chance to 100 %; chance is the accuracy
    of the best constant answer.
    """
    accuracy = float(np.equal(answers, labels).mean())
    chance = float(np.bincount(labels).max() / len(labels))
    min_accuracy = policy.baseline.min_accuracy if policy.baseline else None
    floor = chance + (1 - chance) / 4 if min_accuracy is None else min_accuracy
    if accuracy < floor:
        raise EvidenceError(
            f"the baseline {name} reads {beside(accuracy, floor, percent_text)} of the images, and chance "
            f"is {percent_text(chance)}, so nothing can be judged against it: at least {percent_text(floor)} is "
            "required; check its preprocess and classes, give another baseline, or set [baseline] min_accuracy"
        )
