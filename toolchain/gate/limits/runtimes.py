"""Runtimes: whether the same file gives the same answers on the other runtimes and kernels of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from queue import SimpleQueue
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from calibration.dataset import Dataset, Images, chunks
from targets import catalog
from targets.artifact import Artifact
from targets.errors import RunFailed, TargetUnavailable
from targets.session import RuntimeFacts, Session
from targets.target import Target
from toolchain.core.context import Progress, silent
from toolchain.core.errors import EvidenceError
from toolchain.core.json_codec import ByItself, Count
from toolchain.evaluation.compare import ComparedFiles
from toolchain.evaluation.evaluate import Evaluation, columns_of
from toolchain.gate.candidate import Sources
from toolchain.gate.limit import MOST, Limit, LimitDefinition, Measure, Part, Verdict, side, within
from toolchain.stats.decision import Outcome


class RuntimesLimit(Limit):
    """How many of the candidate's answers may change on another runtime or other kernels, for each of these targets.

    targets: other targets to run it on; empty means every available one that takes its format.
    """

    measure: ClassVar[Measure] = "count"
    max: int = Field(ge=0, le=MOST, strict=True)
    targets: tuple[str, ...] = Field(default=(), description="other targets to run it on; empty: every available one")


# What `evaluate` gives a session at once, so that the same kernels see the same batches.
_CHUNK = 256
LISTED = 200
"""At most so many differences of a place are stored, the first ones; their number is always given."""
_NAMED = 5


@dataclass(frozen=True)
class Difference:
    """An image with two different answers: its index in the data set, and the class names of both answers."""

    image: Count
    truth: str
    here: str
    there: str

    def __str__(self) -> str:
        """Return one line for people."""
        return f"image {self.image}: '{self.here}' here, '{self.there}' there, truth '{self.truth}'"


@dataclass(frozen=True)
class Place:
    """How the answers of another target differ from those that the candidate is judged by.

    images: how many it read: all, or none where it was left out. largest: the largest difference of a logit.
    differing: how many answers changed; differences: the first LISTED of them. left_out: why nothing
    was read on it. available: False where that is because the target is not available.
    """

    runtime: Annotated[RuntimeFacts, ByItself()]
    images: Count
    largest: float
    differing: Count
    differences: tuple[Difference, ...] = ()
    left_out: str = ""
    available: bool = True

    def __post_init__(self) -> None:
        """Reject counts that cannot be, so that nothing passes by them."""
        read = not self.left_out and self.available
        fits = self.images > 0 if read else self.images == 0 and bool(self.left_out)
        counted = 0 <= self.differing <= self.images and len(self.differences) == min(self.differing, LISTED)
        if not (fits and counted and isfinite(self.largest) and self.largest >= 0):
            raise EvidenceError(f"{self.runtime.target}: its counts do not fit together; gather the evidence again")


def judge_runtimes(limit: RuntimesLimit, places: tuple[Place, ...]) -> Verdict:
    """Judge the number of images whose answer changed, at most `limit.max` a place.

    Raises EvidenceError where the evidence lacks a place that the limit names, or holds no place at all.
    """
    asked = [place for place in places if not limit.targets or place.runtime.target in limit.targets]
    known = {place.runtime.target for place in asked if place.available}
    missing = [name for name in limit.targets if name not in known]
    read = [place for place in asked if not place.left_out]
    if missing or not read:
        raise EvidenceError(
            f"the evidence holds no answers of {', '.join(missing) or 'another place'}; gather it again where there is"
        )
    parts = tuple(_part(limit, place) for place in read)
    worst = max(read, key=lambda place: place.differing)
    outcome = within("runtimes", worst.differing, limit.max)
    reason = f"{_counts_text(read, limit, outcome)}, {side(outcome)} {limit.max:,} a place{_differences(read, limit)}"
    absent = [f"{place.runtime.target}: {place.left_out}" for place in asked if place.left_out]
    reason += f"; left out: {'; '.join(absent)}" if absent else ""
    return Verdict("runtimes", outcome, limit.action, limit.max, worst.differing, None, reason, parts=parts)


def _judge(limit: RuntimesLimit, places: tuple[Place, ...], files: ComparedFiles) -> Verdict:
    """Judge them; raises EvidenceError where a target on which such files run is neither read nor left out."""
    kind, own = Path(files.candidate.name).suffix.lower().removeprefix("."), files.candidate.runtime.target
    expected = [name for name in catalog.KERNELS if kind in catalog.get(name).formats and name != own]
    held = {place.runtime.target for place in places}
    if not limit.targets and (missing := [name for name in expected if name not in held]):
        raise EvidenceError(
            f"the evidence says nothing of {', '.join(missing)}, where {files.candidate.name} runs too; gather it "
            "again, or name the targets that count in [runtimes] targets"
        )
    return judge_runtimes(limit, places)


def _part(limit: RuntimesLimit, place: Place) -> Part:
    note = f"{place.differing:,} of {place.images:,} answers changed, largest difference of a logit {place.largest:.2g}"
    outcome = within(place.runtime.target, place.differing, limit.max)
    return Part(place.runtime.target, outcome, limit.max, place.differing, None, place.images, note)


def _counts_text(read: list[Place], limit: RuntimesLimit, outcome: Outcome) -> str:
    """Return how many answers changed on each target; of a FAIL only the targets with too many."""
    shown = [place for place in read if outcome is Outcome.PASS or place.differing > limit.max]
    counts = ", ".join(f"{place.differing:,} on {place.runtime.target}" for place in shown)
    return f"of {read[0].images:,} images, answers changed: {counts}"


def _differences(read: list[Place], limit: RuntimesLimit) -> str:
    """Return the first images whose answer changed on each failing target."""
    text = ""
    for place in read:
        if place.differing > limit.max:
            more = f" and {place.differing - _NAMED:,} more" if place.differing > _NAMED else ""
            text += f"; {place.runtime.target}: {'; '.join(map(str, place.differences[:_NAMED]))}{more}"
    return text


def answers_on_other_targets(
    limit: RuntimesLimit, artifact: Artifact, evaluation: Evaluation, dataset: Dataset, *, progress: Progress = silent
) -> tuple[Place, ...]:
    """Read the whole data set with the same file on the other targets that the limit names, or all available ones.

    All cores are used, a session each. Targets that cannot take the file, and unavailable ones where the limit names
    none, are returned too, with the reason. Raises UnknownTarget, TargetUnavailable for a named target, RunFailed where
    a target refuses the file, EvidenceError where no target remains or `evaluation` is of another file or data set.
    """
    _check_same(artifact, evaluation, dataset)
    plan = list(_planned(limit, artifact, evaluation))
    if not any(left_out is None for _, left_out in plan):
        reasons = (
            "; ".join(f"{target.name}: {left_out.left_out}" for target, left_out in plan if left_out) or "none known"
        )
        raise EvidenceError(
            f"{artifact.path.name} can run nowhere else than on {evaluation.facts.target} here ({reasons}); drop the "
            "limit [runtimes], or judge where there is another place"
        )
    return tuple(left_out or _read(target, artifact, evaluation, dataset, progress) for target, left_out in plan)


def _check_same(artifact: Artifact, evaluation: Evaluation, dataset: Dataset) -> None:
    if evaluation.artifact_sha256 != artifact.sha256 or evaluation.dataset_sha256 != dataset.sha256:
        raise EvidenceError(
            f"{artifact.path.name} on {dataset.origin} is not what was evaluated ({evaluation.artifact} on "
            f"{evaluation.origin}); evaluate it again"
        )
    columns_of(artifact.path.name, artifact.classes, dataset)


def _planned(limit: RuntimesLimit, artifact: Artifact, evaluation: Evaluation) -> Iterator[tuple[Target, Place | None]]:
    """Yield each target with None, or with the Place that says why the file cannot run on it."""
    for name in dict.fromkeys(limit.targets or catalog.KERNELS):
        target = catalog.get(name)
        foreign, same = artifact.format not in target.formats, name == evaluation.facts.target
        if not limit.targets and (foreign or same):
            continue
        state = target.probe()
        if foreign:
            kinds = " or ".join(f".{kind}" for kind in sorted(target.formats))
            yield target, _left_out(name, f"runs {kinds} files")
        elif same:
            yield target, _left_out(name, "is the place that the answers are compared with")
        elif state.ok:
            yield target, None
        elif limit.targets:
            raise TargetUnavailable(f"{name}: {state.reason}; {state.fix}, or leave it out of [runtimes] targets")
        else:
            yield target, _left_out(name, state.reason, available=False)


def _left_out(name: str, why: str, *, available: bool = True) -> Place:
    return Place(RuntimeFacts(name, "", "", "", 0), 0, 0.0, 0, left_out=why, available=available)


def _read(target: Target, artifact: Artifact, evaluation: Evaluation, dataset: Dataset, progress: Progress) -> Place:
    try:
        facts, logits = _logits(target, artifact, dataset, progress)
    except RunFailed as error:
        raise RunFailed(f"{target.name}: {error}") from error
    judged, answers = evaluation.predictions, np.argmax(logits, axis=1)
    flipped = np.flatnonzero(judged != answers)
    names = dataset.classes
    differences = tuple(
        Difference(int(k), names[evaluation.labels[k]], names[judged[k]], names[answers[k]]) for k in flipped[:LISTED]
    )
    largest = float(np.abs(logits - evaluation.logits).max())
    return Place(facts, len(dataset), largest, len(flipped), differences)


def _logits(
    target: Target, artifact: Artifact, dataset: Dataset, progress: Progress
) -> tuple[RuntimeFacts, NDArray[np.float32]]:
    """Return float32 logits [N, K] in the order of the data set.

    They are read by as many sessions of one thread as there are cores.

    The reference kernels of LiteRT know no threads (5.5 ms an image for `cnn-small` in float), and every runtime
    lets go of Python's lock while it infers. Sessions are opened one after another: opening silences descriptor 2.
    """
    blocks = chunks(len(dataset))
    workers = min(len(os.sched_getaffinity(0)), -(-len(dataset) // _CHUNK))
    logits = np.empty((len(dataset), len(artifact.classes)), np.float32)
    free: SimpleQueue[Session] = SimpleQueue()

    def read(images: Images) -> NDArray[np.float32]:
        session = free.get()
        try:
            return session.run(images)
        finally:
            free.put(session)

    from concurrent.futures import ThreadPoolExecutor

    with ExitStack() as opened, ThreadPoolExecutor(workers) as pool:
        sessions = [opened.enter_context(target.open(artifact, threads=1)) for _ in range(workers)]
        for session in sessions:
            free.put(session)
        for block in blocks:
            images = dataset.images[block]
            parts = [images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK)]
            done = block.start
            for answers in pool.map(read, parts):
                logits[done : done + len(answers)] = answers
                done += len(answers)
                progress(f"{artifact.path.name} on {target.name}", done, len(dataset))
    return sessions[0].facts, logits[:, columns_of(artifact.path.name, artifact.classes, dataset)]


def _collect(limit: RuntimesLimit, sources: Sources) -> tuple[Place, ...]:
    file, images = sources.file(RUNTIMES), sources.test_images(RUNTIMES)
    return answers_on_other_targets(
        limit, file, sources.candidate.evaluation, images, progress=sources.context.progress
    )


RUNTIMES = LimitDefinition(
    name="runtimes",
    settings=RuntimesLimit,
    about="Images to which other runtimes or kernels give another answer with the same file.",
    example={"max": 20},
    evidence=("places", "files"),
    judge=_judge,
    collect=_collect,
    file_must="be run elsewhere",
    images=True,
)
