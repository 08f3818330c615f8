"""RuntimeSession: the base of sessions of runtimes that take and return numpy arrays."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from targets.artifact import Artifact, TensorSpec
from targets.errors import RunFailed
from targets.host.clock import Interrupted, time_calls
from targets.host.machine import machine_state
from targets.session import RuntimeFacts, Session, TimingPlan, Timings


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

    def encode(self, values: NDArray[Any]) -> NDArray[Any]:
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
        quantized: NDArray[Any] = np.clip(steps, limits.min, limits.max).astype(dtype)
        return quantized

    def decode(self, raw: NDArray[Any]) -> NDArray[np.float32]:
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
        finite(self._columns(blank), artifact)
        self.first_run_ns = perf_counter_ns() - start

    @abstractmethod
    def _infer(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Return the raw output of one inference; raises RunFailed."""

    @abstractmethod
    def _prepared(self, batch: NDArray[Any]) -> Callable[[], object]:
        """Set the input to `batch`, and return the call that runs one inference, after which the output can be read."""

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

    def answer(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Return all columns [N, width] of the file's output for preprocessed values."""
        parts = range(0, len(values), self.batch)
        return np.concatenate([self._columns(values[start : start + self.batch]) for start in parts])

    def _columns(self, values: NDArray[Any]) -> NDArray[np.float32]:
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


def finite(logits: NDArray[np.float32], artifact: Artifact) -> NDArray[np.float32]:
    """Return the logits; raises RunFailed with the number of images whose logits are not finite."""
    bad = int((~np.isfinite(logits).all(axis=1)).sum()) if logits.size else 0
    if bad:
        raise RunFailed(
            f"{artifact.path}: logits of {bad} of {len(logits)} images are not finite; the file is broken, export again"
        )
    return logits
