"""The null target: scripted logits and times, for tests of code that uses targets."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns

import numpy as np
from numpy.typing import ArrayLike, NDArray

from targets.artifact import Artifact, Format
from targets.errors import RunFailed
from targets.host.machine import machine_state
from targets.host.runtime_session import check_glyphs, require_finite, resolved_threads
from targets.session import Cost, RuntimeFacts, Session, TimingPlan, Timings
from targets.target import Availability, Target

Logits = Callable[[NDArray[np.uint8]], ArrayLike]
Times = Callable[[np.random.Generator, int], ArrayLike]


class NullTarget(Target):
    """Scripted logits and times for files of any format, marked as simulated; for tests.

    logits: an array [M, classes], answered row by row over successive calls of `run`, starting over after the last;
    or a callable from uint8 images [N, 28, 28] to [N, classes]. Without it the logits of an image are drawn from its
    pixels and `seed`.
    times: nanoseconds per inference: a number (5 % of log-normal noise is added, as on a quiet machine), or a callable
    `(generator, n) -> n nanoseconds`. Nothing sleeps: a minute of samples takes a millisecond. The number of samples is
    that of a real run of this speed, so a `TimingPlan` keeps its meaning.

        right = np.eye(47)[labels]
        with NullTarget(logits=right, times=120_000).open(artifact) as session: ...
        NullTarget(times=lambda random, n: 100_000 + random.exponential(5_000, n))
    """

    name = "null"
    cost: Cost = "scripted"
    formats: frozenset[Format] = frozenset({"onnx", "ort", "tflite"})

    def __init__(self, logits: ArrayLike | Logits | None = None, times: float | Times = 100_000, seed: int = 0) -> None:
        """Take the script."""
        self.logits, self.times, self.seed = logits, times, seed

    def probe(self) -> Availability:
        """Return that it is always available."""
        return Availability(True)

    def open(self, artifact: Artifact, *, threads: int = 1) -> NullSession:
        """Open any artifact; its file is not read."""
        facts = RuntimeFacts(self.name, "scripted", "1", "null", resolved_threads(threads), device_type="script")
        return NullSession(artifact, facts, self)


class NullSession(Session):
    """A session with a NullTarget's script; every session starts at its beginning."""

    def __init__(self, artifact: Artifact, facts: RuntimeFacts, target: NullTarget) -> None:
        """Start the script."""
        start = perf_counter_ns()
        self.artifact, self.facts = artifact, facts
        self._target, self._row = target, 0
        self._random = np.random.default_rng(target.seed)
        self._load_ns = perf_counter_ns() - start

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Session.run`."""
        check_glyphs(images, self.artifact)
        logits = np.asarray(self._scripted(images), dtype=np.float32)
        expected = (len(images), len(self.artifact.classes))
        if logits.shape != expected:
            raise RunFailed(f"null: the script answers {list(logits.shape)}, expected {list(expected)}; correct it")
        return require_finite(logits, self.artifact)

    def time(self, plan: TimingPlan) -> Timings:
        """See `Session.time`."""
        samples = self._durations(plan)
        return Timings(
            artifact_sha256=self.artifact.sha256,
            facts=self.facts,
            samples_ns=samples,
            batch=plan.batch,
            inner=plan.inner or 1,
            warmup=plan.warmup,
            load_ns=self._load_ns,
            first_run_ns=int(samples[0]),
            machine=machine_state(),
        )

    def _scripted(self, images: NDArray[np.uint8]) -> ArrayLike:
        script = self._target.logits
        if callable(script):
            return script(images)
        if script is None:
            return [self._drawn(image) for image in images] or np.empty((0, len(self.artifact.classes)))
        rows = np.asarray(script, dtype=np.float32)
        indices = np.arange(self._row, self._row + len(images)) % len(rows)
        self._row += len(images)
        return rows[indices]

    def _drawn(self, image: NDArray[np.uint8]) -> NDArray[np.float64]:
        pixels = np.frombuffer(image.tobytes(), np.uint32).tolist()
        return np.random.default_rng([self._target.seed, *pixels]).normal(size=len(self.artifact.classes))

    def _durations(self, plan: TimingPlan) -> NDArray[np.int64]:
        """Return as many samples as a real run would have taken by the plan."""
        samples = np.asarray(self._draw(plan.min_runs), dtype=np.int64)
        while samples.sum() < plan.min_seconds * 1e9 and len(samples) < plan.max_runs:
            missing = plan.min_seconds * 1e9 - samples.sum()
            more = min(plan.max_runs - len(samples), max(1, int(missing / max(samples.mean(), 1))))
            samples = np.concatenate([samples, np.asarray(self._draw(more), dtype=np.int64)])
        return samples[: plan.max_runs]

    def _draw(self, count: int) -> ArrayLike:
        if callable(self._target.times):
            return self._target.times(self._random, count)
        return self._target.times * np.exp(self._random.normal(0.0, 0.05, count))

    def __exit__(self, *_error: object) -> None:
        """Do nothing: it holds no resources."""
