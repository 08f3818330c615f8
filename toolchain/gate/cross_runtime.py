"""Elsewhere: what the same file answers on other runtimes and other kernels, with everything this machine has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import Dataset, Images
from calibration.streamed import chunks
from targets import catalog
from targets.artifact import Artifact
from targets.errors import RunFailed, TargetUnavailable
from targets.target import RuntimeFacts, Session, Target
from toolchain.errors import EvidenceError
from toolchain.evaluation.evaluate import Evaluation, check_classes
from toolchain.gate.limits.runtimes import LISTED, Difference, Place
from toolchain.gate.tables import RuntimesLimit
from toolchain.progress import Progress, silent

# What `evaluate` gives a session at once, so that the same kernels see the same batches.
_CHUNK = 256


def answers_elsewhere(
    limit: RuntimesLimit, artifact: Artifact, own: Evaluation, dataset: Dataset, *, progress: Progress = silent
) -> tuple[Place, ...]:
    """Read the whole data set with the same file on every other place that the limit names, or that there is.

    All cores are used, a session each. Places that cannot take the file or, where none are named, are not here are
    among what is returned, with the reason. Raises UnknownTarget, TargetUnavailable where a named one is not here,
    RunFailed where a place refuses the file, EvidenceError when no other place is left or `own` is of something else.
    """
    _check_same(artifact, own, dataset)
    plan = list(_planned(limit, artifact, own))
    if not any(left_out is None for _, left_out in plan):
        reasons = (
            "; ".join(f"{place.name}: {left_out.left_out}" for place, left_out in plan if left_out) or "none known"
        )
        raise EvidenceError(
            f"{artifact.path.name} can run nowhere else than on {own.facts.target} here ({reasons}); drop the limit "
            "[runtimes], or judge where there is another place"
        )
    return tuple(left_out or _read(place, artifact, own, dataset, progress) for place, left_out in plan)


def _check_same(artifact: Artifact, own: Evaluation, dataset: Dataset) -> None:
    if own.artifact_sha256 != artifact.sha256 or own.dataset_sha256 != dataset.sha256:
        raise EvidenceError(
            f"{artifact.path.name} on {dataset.origin} is not what was evaluated ({own.artifact} on {own.origin}); "
            "evaluate it again"
        )
    check_classes(artifact.path.name, artifact.classes, dataset)


def _planned(limit: RuntimesLimit, artifact: Artifact, own: Evaluation) -> Iterator[tuple[Target, Place | None]]:
    """Yield every place that is meant and, where nothing can be read there, the Place that says why."""
    for name in dict.fromkeys(limit.targets or catalog.KERNELS):
        place = catalog.get(name)
        foreign, same = artifact.format not in place.formats, name == own.facts.target
        if not limit.targets and (foreign or same):
            continue
        state = place.probe()
        if foreign:
            kinds = " or ".join(f".{kind}" for kind in sorted(place.formats))
            yield place, _left_out(name, f"runs {kinds} files")
        elif same:
            yield place, _left_out(name, "is the place that the answers are compared with")
        elif state.ok:
            yield place, None
        elif limit.targets:
            raise TargetUnavailable(f"{name}: {state.reason}; {state.fix}, or leave it out of [runtimes] targets")
        else:
            yield place, _left_out(name, state.reason, available=False)


def _left_out(name: str, why: str, *, available: bool = True) -> Place:
    return Place(RuntimeFacts(name, "", "", "", 0), 0, 0.0, 0, left_out=why, available=available)


def _read(place: Target, artifact: Artifact, own: Evaluation, dataset: Dataset, progress: Progress) -> Place:
    try:
        facts, logits = _logits(place, artifact, dataset, progress)
    except RunFailed as error:
        raise RunFailed(f"{place.name}: {error}") from error
    here, there = own.predictions, np.argmax(logits, axis=1)
    flipped = np.flatnonzero(here != there)
    names = dataset.classes
    differences = tuple(
        Difference(int(k), names[own.labels[k]], names[here[k]], names[there[k]]) for k in flipped[:LISTED]
    )
    largest = float(np.abs(logits - own.logits).max())
    return Place(facts, len(dataset), largest, len(flipped), differences)


def _logits(
    place: Target, artifact: Artifact, dataset: Dataset, progress: Progress
) -> tuple[RuntimeFacts, NDArray[np.float32]]:
    """Return float32 logits [N, K], read by as many sessions of one thread as there are cores.

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

    with ExitStack() as opened, ThreadPoolExecutor(workers) as pool:
        sessions = [opened.enter_context(place.open(artifact, threads=1)) for _ in range(workers)]
        for session in sessions:
            free.put(session)
        for block in blocks:
            images = dataset.images[block]
            parts = [images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK)]
            done = block.start
            for answers in pool.map(read, parts):
                logits[done : done + len(answers)] = answers
                done += len(answers)
                progress(f"{artifact.path.name} on {place.name}", done, len(dataset))
    return sessions[0].facts, logits
