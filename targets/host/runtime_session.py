"""RuntimeSession: the base of sessions of runtimes that take and return numpy arrays, and how they are timed."""

from __future__ import annotations

import gc
import os
import resource
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from math import prod
from time import perf_counter_ns, thread_time_ns
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glyphpress.extras import pip_line
from targets.artifact import Artifact, TensorSpec
from targets.errors import RunFailed, TargetUnavailable
from targets.host.machine import machine_state
from targets.session import RuntimeFacts, Session, TimingPlan, Timings

Array = NDArray[Any]
"""An array in the dtype of a file's input or output."""

Interrupted = tuple[tuple[int, int], ...]
"""Index of each sample during which the system gave the core to other processes, and for how many nanoseconds."""

PROFILE_WARMUP, PROFILE_RUNS = 20, 200
"""Inferences of a per-operator profile: first untimed ones, then timed ones."""

RESOLUTIONS = 100
"""A calibrated sample takes at least this many times the clock's resolution."""


def clock_resolution_ns() -> int:
    """Return the clock's step in nanoseconds: the greatest common divisor of measured steps.

    Measured, since the clock of a browser or a virtual machine may be far coarser than it reports.
    """
    readings: list[int] = []
    while len(readings) < 200:
        now = perf_counter_ns()
        if not readings or now != readings[-1]:
            readings.append(now)
    return int(np.gcd.reduce(np.diff(readings)))


def calibrated_inner(once: Callable[[], object], resolution_ns: int) -> int:
    """Return how many calls of `once` take at least 100 clock resolutions; 1 except for the smallest models."""
    inner = 1
    while True:
        shortest = min(_sample(once, inner) for _ in range(3))
        if shortest >= RESOLUTIONS * resolution_ns:
            return inner
        inner *= 2


def time_calls(once: Callable[[], object], plan: TimingPlan) -> tuple[NDArray[np.int64], int, Interrupted]:
    """Return nanoseconds per call of `once`, int64 [N] in order, the calls per sample, and the interruptions.

    `plan.min_runs` and `plan.max_runs` count samples. Python's garbage collector is off during the measurement. A
    sample of several calls is their mean, rounded down to a nanosecond. Interruptions are those of the calling thread,
    known on Linux only.
    """
    for _ in range(plan.warmup):
        once()
    gc_was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        inner = plan.inner or calibrated_inner(once, clock_resolution_ns())
        samples, interrupted = _collect(once, plan, inner)
    finally:
        if gc_was_on:
            gc.enable()
    shares = tuple((index, away // inner) for index, away in interrupted)
    return np.array(samples, dtype=np.int64) // inner, inner, shares


def _collect(once: Callable[[], object], plan: TimingPlan, inner: int) -> tuple[list[int], list[tuple[int, int]]]:
    samples: list[int] = []
    interrupted: list[tuple[int, int]] = []
    until = perf_counter_ns() + int(plan.min_seconds * 1e9)
    switches, cpu_ns = _thread()
    while len(samples) < plan.max_runs:
        took = _sample(once, inner)
        before, (switches, cpu_ns) = (switches, cpu_ns), _thread()
        # At least a nanosecond per call must remain.
        away = min(took - (cpu_ns - before[1]), took - inner)
        if switches > before[0] and away >= inner:
            interrupted.append((len(samples), away))
        samples.append(took)
        if len(samples) >= plan.min_runs and perf_counter_ns() >= until:
            break
    return samples, interrupted


def _thread() -> tuple[int, int]:
    """Return the involuntary context switches of this thread, and its CPU time in nanoseconds."""
    who = getattr(resource, "RUSAGE_THREAD", None)
    return (0, 0) if who is None else (resource.getrusage(who).ru_nivcsw, thread_time_ns())


def _sample(once: Callable[[], object], inner: int) -> int:
    if inner == 1:
        start = perf_counter_ns()
        once()
        return perf_counter_ns() - start
    start = perf_counter_ns()
    for _ in range(inner):
        once()
    return perf_counter_ns() - start


def typical_ns(microseconds: list[int]) -> float:
    """Return the mean of the middle three fifths in nanoseconds, which interruptions hardly change."""
    ranked, cut = sorted(microseconds), len(microseconds) // 5
    middle = ranked[cut : len(ranked) - cut]
    return sum(middle) / len(middle) * 1000


def required_module(name: str, package: str) -> ModuleType:
    """Import a module that a target needs; raises TargetUnavailable where the package that has it is not installed."""
    try:
        with quiet_stderr():
            return import_module(name)
    except ImportError as error:
        fix = f"install it with `{pip_line(name)}`"
        raise TargetUnavailable(f"{package} cannot be imported ({error})", fix) from error


def quiet_stderr() -> AbstractContextManager[object]:
    """Discard what the process, C++ code included, writes to descriptor 2 inside the block."""
    return captured_output(2)


@contextmanager
def captured_output(*descriptors: int) -> Iterator[Callable[[], str]]:
    """Capture what the process writes to these descriptors in the block; yields a function that returns it so far.

    C++ code writes to the descriptors themselves, past sys.stderr. They belong to the whole process, so keep the block
    as short as the opening of a session. A descriptor that is closed (as a daemon does) is left alone.
    """
    with tempfile.TemporaryFile() as sink, ExitStack() as restored:
        for descriptor in descriptors:
            try:
                original = os.dup(descriptor)
            except OSError:
                continue
            restored.callback(os.close, original)
            restored.callback(os.dup2, original, descriptor)
            os.dup2(sink.fileno(), descriptor)

        def captured() -> str:
            # The file position is shared with the descriptors, so reading must not move it.
            return os.pread(sink.fileno(), os.fstat(sink.fileno()).st_size, 0).decode(errors="replace")

        yield captured


@dataclass(frozen=True)
class TensorCodec:
    """An input or output of a file, with conversion to and from its integers. The first axis is the batch (-1: any)."""

    spec: TensorSpec

    @property
    def scale(self) -> float:
        """Return the scale of its integers; 1 where they are not quantized."""
        return 1.0 if self.spec.scale is None else self.spec.scale

    @property
    def zero_point(self) -> int:
        """Return the integer that represents 0."""
        return self.spec.zero_point or 0

    @property
    def batch(self) -> int:
        """Return the batch size that the file fixes, or 0 where it is dynamic."""
        return max(self.spec.shape[0], 0) if self.spec.shape else 0

    def encode(self, values: Array) -> Array:
        """Return float32 values [N, ...] in the tensor's dtype and shape; values of that dtype are not scaled."""
        dtype = np.dtype(self.spec.dtype)
        inner = self.spec.shape[1:]
        shaped = values if -1 in inner else values.reshape(len(values), *inner)
        if dtype.kind == "f":
            return shaped.astype(dtype, copy=False)
        if values.dtype == dtype:
            return shaped
        limits = np.iinfo(dtype)
        steps = np.rint(shaped / np.float32(self.scale)) + self.zero_point
        quantized: Array = np.clip(steps, limits.min, limits.max).astype(dtype)
        return quantized

    def decode(self, raw: Array) -> NDArray[np.float32]:
        """Return values in the tensor's dtype as float32."""
        if raw.dtype.kind == "f":
            return raw.astype(np.float32, copy=False)
        return (raw.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)


def _image_input(artifact: Artifact, inputs: list[TensorCodec]) -> TensorCodec:
    """Return the one input that takes 28x28 glyphs; raises RunFailed where there is none or more than one."""
    if len(inputs) != 1:
        names = ", ".join(codec.spec.name for codec in inputs)
        raise RunFailed(f"{artifact.path}: needs one input, has {len(inputs)} ({names}); export the model alone")
    inner = inputs[0].spec.shape[1:]
    fits = len(inner) == 3 if -1 in inner else prod(inner) == 28 * 28 and bool(inner)
    if not fits:
        shape = "x".join("?" if axis < 0 else str(axis) for axis in inputs[0].spec.shape)
        raise RunFailed(f"{artifact.path}: takes {shape}, not one-channel 28x28 glyphs; give a model of those")
    return inputs[0]


def _logits_output(artifact: Artifact, outputs: list[TensorCodec]) -> int:
    """Return the index of the output as wide as classes and label offset; raises RunFailed where there is none."""
    expected = artifact.preprocess.label_offset + len(artifact.classes)
    widths = [prod(codec.spec.shape[1:]) if -1 not in codec.spec.shape[1:] else -1 for codec in outputs]
    for width in (expected, -1):
        if width in widths:
            return widths.index(width)
    raise RunFailed(
        f"{artifact.path}: its outputs are {widths} wide, but {len(artifact.classes)} classes with label offset "
        f"{artifact.preprocess.label_offset} need {expected}; name the right data set or label offset"
    )


def input_and_output(
    artifact: Artifact, inputs: list[TensorCodec], outputs: list[TensorCodec]
) -> tuple[TensorCodec, TensorCodec, int]:
    """Return the image input, the logits output and the index of that; raises RunFailed where one is missing."""
    source, index = _image_input(artifact, inputs), _logits_output(artifact, outputs)
    return source, outputs[index], index


def codecs_of(artifact: Artifact) -> tuple[list[TensorCodec], list[TensorCodec]]:
    """Return the inputs and outputs that the artifact's sidecar describes."""
    return [TensorCodec(spec) for spec in artifact.inputs], [TensorCodec(spec) for spec in artifact.outputs]


def resolved_threads(threads: int) -> int:
    """Return the number of threads; 0 means every core that this process may use."""
    return threads or len(os.sched_getaffinity(0))


class RuntimeSession(Session):
    """An artifact in a runtime of this process; each runtime implements `_infer` and `_prepared`.

    The first inference, on one blank batch (one image where the batch is dynamic), runs when the session opens: a file
    that cannot run fails there, and `first_run_ns` is the time of the very first inference.
    """

    def __init__(
        self,
        artifact: Artifact,
        facts: RuntimeFacts,
        source: TensorCodec,
        sink: TensorCodec,
        *,
        batch: int,
        load_ns: int,
    ) -> None:
        """Take input and output of the open file. batch: images per inference where the file's batch is dynamic."""
        self.artifact, self.facts = artifact, facts
        self.source, self.sink = source, sink
        self.batch = source.batch or batch
        self.load_ns = load_ns
        start = perf_counter_ns()
        blank = artifact.preprocess.apply(np.zeros((source.batch or 1, 28, 28), np.uint8))
        require_finite(self._columns(blank), artifact)
        self.first_run_ns = perf_counter_ns() - start

    @abstractmethod
    def _infer(self, batch: Array) -> Array:
        """Return the raw output of one inference; raises RunFailed."""

    @abstractmethod
    def _prepared(self, batch: Array) -> Callable[[], object]:
        """Set the input to `batch`, and return the call that runs one inference, after which the output can be read."""

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Session.run`."""
        check_glyphs(images, self.artifact)
        first = self.artifact.preprocess.label_offset
        logits = np.empty((len(images), len(self.artifact.classes)), np.float32)
        for start in range(0, len(images), self.batch):
            chunk = images[start : start + self.batch]
            logits[start : start + len(chunk)] = self._columns(self.artifact.preprocess.apply(chunk))[:, first:]
        return require_finite(logits, self.artifact)

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
        """Return what `time_calls` does; a runtime with a clock of its own overrides it."""
        return time_calls(self.prepared(plan.batch), plan)

    def prepared(self, batch: int) -> Callable[[], object]:
        """Return the call that runs one inference on `batch` seeded images, ready in memory; raises RunFailed."""
        if self.source.batch not in (0, batch):
            raise RunFailed(
                f"{self.artifact.path}: its batch is fixed at {self.source.batch}; time it with that, not {batch}"
            )
        images = np.random.default_rng(0).integers(0, 256, (batch, 28, 28), dtype=np.uint8)
        return self._prepared(self.source.encode(self.artifact.preprocess.apply(images)))

    def answer(self, values: Array) -> NDArray[np.float32]:
        """Return all columns [N, width] of the file's output for preprocessed values."""
        parts = range(0, len(values), self.batch)
        return np.concatenate([self._columns(values[start : start + self.batch]) for start in parts])

    def _columns(self, values: Array) -> NDArray[np.float32]:
        """Return all columns for at most one batch, padded where the file fixes its size."""
        count, fixed = len(values), self.source.batch
        if count < fixed:
            # A repeated image, unlike zeros, does not change the ranges of dynamic quantization.
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
    """Raise RunFailed for anything but uint8 glyphs [N, 28, 28]."""
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (28, 28):
        raise RunFailed(f"{artifact.path}: takes uint8 glyphs [N, 28, 28], got {images.dtype} {list(images.shape)}")


def require_finite(logits: NDArray[np.float32], artifact: Artifact) -> NDArray[np.float32]:
    """Return the logits; raises RunFailed with the number of images whose logits are not finite."""
    bad = int((~np.isfinite(logits).all(axis=1)).sum()) if logits.size else 0
    if bad:
        raise RunFailed(
            f"{artifact.path}: logits of {bad} of {len(logits)} images are not finite; the file is broken, export again"
        )
    return logits
