"""RuntimeSession: what the sessions of runtimes that take and give numpy arrays have in common."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from targets.artifact import Artifact
from targets.errors import RunFailed
from targets.host.clock import Interrupted, time_calls
from targets.host.machine import machine_state
from targets.port import Port
from targets.target import RuntimeFacts, Session, TimingPlan, Timings


def resolved_threads(threads: int) -> int:
    """Return the thread count that is meant; 0 stands for every core this process may use."""
    return threads or len(os.sched_getaffinity(0))


class RuntimeSession(Session):
    """An artifact in a runtime of this process; a runtime adds `_infer` and `_prepared`.

    The first inference, on one blank batch (one image where the batch is dynamic), is made when the session opens: a
    file that cannot run fails there, and `first_run_ns` is truly the first.
    """

    def __init__(
        self, artifact: Artifact, facts: RuntimeFacts, source: Port, sink: Port, *, batch: int, load_ns: int
    ) -> None:
        """Take the ports of the open file; `batch` is what `run` gives at once where the file leaves it open."""
        self.artifact, self.facts = artifact, facts
        self.source, self.sink = source, sink
        self.batch = source.batch or batch
        self.load_ns = load_ns
        start = perf_counter_ns()
        blank = artifact.preprocess.apply(np.zeros((source.batch or 1, 28, 28), np.uint8))
        finite(self._columns(blank), artifact)
        self.first_run_ns = perf_counter_ns() - start

    @abstractmethod
    def _infer(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Return the raw output of one inference; raises RunFailed."""

    @abstractmethod
    def _prepared(self, batch: NDArray[Any]) -> Callable[[], object]:
        """Put `batch` in place and return the call that infers: input ready in memory, output readable after it."""

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Session.run`."""
        check_glyphs(images, self.artifact)
        first = self.artifact.preprocess.label_offset
        logits = np.empty((len(images), len(self.artifact.classes)), np.float32)
        for start in range(0, len(images), self.batch):
            chunk = images[start : start + self.batch]
            logits[start : start + len(chunk)] = self._columns(self.artifact.preprocess.apply(chunk))[:, first:]
        return finite(logits, self.artifact)

    def time(self, plan: TimingPlan) -> Timings:
        """See `Session.time`: the inference alone, without Preprocess and without copying the output."""
        if self.facts.cost != "latency":
            raise RunFailed(f"{self.facts.target} is simulated on {self.facts.device}: it has no latency, only answers")
        machine = machine_state()
        samples, inner, interrupted = self._timed(plan)
        return Timings(
            artifact_sha256=self.artifact.sha256,
            facts=self.facts,
            samples_ns=samples,
            batch=plan.batch,
            inner=inner,
            warmup=plan.warmup,
            load_ns=self.load_ns,
            first_run_ns=self.first_run_ns,
            machine=machine,
            interrupted=interrupted,
        )

    def _timed(self, plan: TimingPlan) -> tuple[NDArray[np.int64], int, Interrupted]:
        """Return what `time_calls` does; a runtime with a clock of its own counts by that."""
        return time_calls(self.prepared(plan.batch), plan)

    def prepared(self, batch: int) -> Callable[[], object]:
        """Return the call that infers on `batch` seeded images that are ready in memory; raises RunFailed."""
        if self.source.batch not in (0, batch):
            raise RunFailed(
                f"{self.artifact.path}: its batch is fixed at {self.source.batch}; time it with that, not {batch}"
            )
        images = np.random.default_rng(0).integers(0, 256, (batch, 28, 28), dtype=np.uint8)
        return self._prepared(self.source.encode(self.artifact.preprocess.apply(images)))

    def answer(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Return every column [N, width] of the file's answer to values that are preprocessed already."""
        parts = range(0, len(values), self.batch)
        return np.concatenate([self._columns(values[start : start + self.batch]) for start in parts])

    def _columns(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Answer at most one batch, padding where its size is fixed."""
        count, fixed = len(values), self.source.batch
        if count < fixed:
            # Repeating an image, unlike zeros, leaves the ranges of dynamic quantization alone.
            values = np.concatenate([values, np.repeat(values[-1:], fixed - count, axis=0)])
        raw = self._infer(self.source.encode(values))
        width = self.artifact.preprocess.label_offset + len(self.artifact.classes)
        if raw.size != len(values) * width:
            raise RunFailed(
                f"{self.artifact.path}: answered {list(raw.shape)} for {len(values)} images, expected {width} columns "
                f"for {len(self.artifact.classes)} classes and label offset {self.artifact.preprocess.label_offset}"
            )
        return self.sink.decode(raw).reshape(len(values), width)[:count]


def check_glyphs(images: NDArray[np.uint8], artifact: Artifact) -> None:
    """Raise RunFailed on anything but uint8 glyphs [N, 28, 28]."""
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (28, 28):
        raise RunFailed(f"{artifact.path}: takes uint8 glyphs [N, 28, 28], got {images.dtype} {list(images.shape)}")


def finite(logits: NDArray[np.float32], artifact: Artifact) -> NDArray[np.float32]:
    """Return the logits; raises RunFailed saying for how many images they are not finite."""
    bad = int((~np.isfinite(logits).all(axis=1)).sum()) if logits.size else 0
    if bad:
        raise RunFailed(
            f"{artifact.path}: logits of {bad} of {len(logits)} images are not finite; the file is broken, export again"
        )
    return logits
