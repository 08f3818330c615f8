"""Session: an artifact that is open on a target, and the types of what it measures."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from math import isfinite
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from targets.artifact import Artifact
from targets.errors import RunFailed, plain_reason
from targets.host.machine import busy_by_others, taints
from targets.host.text import as_written

_TIMED: Final = ("batch", "inner", "warmup", "load_ns", "first_run_ns")
LARGEST: Final = 2**63 - 1
"""The largest int64: every stored count must fit one."""


INTERRUPTED: Final = 0.02
"""Share of the measured time that the system may give to others on a quiet machine."""

DeviceType = Literal["cpu", "gpu", "emulated", "software", "script"]
"""What computes the answers: a processor, a GPU, a processor emulated by QEMU, a GPU emulated in software (SwiftShader,
lavapipe), or a script (`null`). The last three are simulated."""

Cost = Literal["latency", "instructions", "outputs", "scripted"]
"""What a target can measure of an inference: its latency, its instructions, only its outputs, or scripted times."""

COSTS: Final[dict[DeviceType, Cost]] = {
    "cpu": "latency",
    "gpu": "latency",
    "emulated": "instructions",
    "software": "outputs",
    "script": "scripted",
}


@dataclass(frozen=True)
class RuntimeFacts:
    """Which runtime gave the answers, and on which device: recorded with every evaluation and timing.

    target: the target's name, settings included. device: the name that its system or runtime gives the device.
    precision: the type in which float operators compute ("float32", "float16"), whatever the file stores.
    placement: number of nodes that each execution provider or delegate runs; empty where the runtime does not tell.
    simulated: whether the device is emulated, so that it has no latency. Raises TypeError for values of other types.
    """

    target: str
    runtime: str
    version: str
    device: str
    threads: int
    device_type: DeviceType = "cpu"
    precision: str = "float32"
    placement: dict[str, int] = field(default_factory=dict, hash=False)
    simulated: bool = False

    def __post_init__(self) -> None:
        """Reject values that another program stored, or that were changed by hand."""
        if type(self.threads) is not int:
            raise TypeError("facts of a runtime: threads must be a whole number")
        texts = [self.target, self.runtime, self.version, self.device, self.precision, *self.placement]
        if not all(type(text) is str for text in texts) or self.device_type not in COSTS:
            raise TypeError(f"facts of a runtime must be texts, and the device type one of {', '.join(COSTS)}")
        _counts([self.threads, *self.placement.values()])
        if self.simulated not in (False, self.cost != "latency"):
            raise TypeError(f"a device of type {self.device_type} is not simulated")
        object.__setattr__(self, "simulated", self.cost != "latency")

    @property
    def cost(self) -> Cost:
        """What a session on this device can measure of an inference."""
        return COSTS[self.device_type]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RuntimeFacts:
        """Rebuild from `dataclasses.asdict`; raises KeyError or TypeError on anything else."""
        if not isinstance(values["placement"], dict):
            raise TypeError(
                "facts of a runtime: placement must map execution providers or delegates to numbers of nodes"
            )
        facts = cls(**values | {each.name: values[each.name] for each in fields(cls)})
        if values["simulated"] is not facts.simulated:
            raise TypeError(f"facts of a runtime: simulated does not fit the device type {facts.device_type}")
        return facts


@dataclass(frozen=True)
class TimingPlan:
    """How long to time: until both `min_runs` and `min_seconds` are reached, never past `max_runs` samples.

    batch: images per inference. warmup: untimed inferences at the start. inner: inferences per sample; 0 chooses it
    so that one sample takes at least 100 times the clock's resolution. Raises RunFailed on a plan that times nothing.
    """

    batch: int = 1
    warmup: int = 20
    min_runs: int = 100
    min_seconds: float = 1.0
    max_runs: int = 200_000
    inner: int = 0

    def __post_init__(self) -> None:
        """Reject a plan that times nothing or never ends."""
        if min(self.batch, self.min_runs) < 1 or min(self.warmup, self.inner) < 0 or self.max_runs < self.min_runs:
            raise RunFailed("a timing plan needs a batch and 1 <= min_runs <= max_runs; correct the plan")
        if not (isfinite(self.min_seconds) and self.min_seconds >= 0):
            raise RunFailed(f"cannot time for {self.min_seconds} seconds; give 0 or more")


@dataclass(frozen=True)
class Timings:
    """Raw latencies of one artifact in one session.

    samples_ns: int64 [N], nanoseconds per inference (of `batch` images), unrounded, in order; where `inner` is above 1
    each is the mean of that many. load_ns, first_run_ns: time of opening the session and of its very first inference.
    machine: state of the host when it was measured. blocks: index in samples_ns at which each block of an interleaved
    measurement starts; a single 0 otherwise. interrupted: index of each sample during which the system gave the core
    to other processes, and for how many nanoseconds per inference, where that is known.
    """

    artifact_sha256: str
    facts: RuntimeFacts
    samples_ns: NDArray[np.int64]
    batch: int
    inner: int
    warmup: int
    load_ns: int
    first_run_ns: int
    machine: dict[str, Any] = field(default_factory=dict)
    blocks: tuple[int, ...] = (0,)
    interrupted: tuple[tuple[int, int], ...] = ()

    @cached_property
    def worked_ns(self) -> NDArray[np.int64]:
        """The samples without the time of interruptions: what the file itself took."""
        worked = self.samples_ns.copy()
        for index, away in self.interrupted:
            worked[index] -= away
        return worked

    @property
    def taints(self) -> tuple[str, ...]:
        """What disturbed the measurement, as texts (`targets.host.machine.taints`).

        So is time that the system gave to others (`interrupted_share`).
        """
        others = (f"the system gave the core to others for {100 * self.interrupted_share:.0f} % of the time",)
        marked = self.interrupted_share > INTERRUPTED
        return taints(self.machine, self.machine.get("end", self.machine)) + others * marked

    @property
    def interrupted_share(self) -> float:
        """The share of the measured time in which the thread that timed had the core taken away.

        Its processor time checks the clock: this shows other work even where the system does not tell what all
        processes used, as in some containers.
        """
        return sum(ns for _, ns in self.interrupted) / int(self.samples_ns.sum()) if self.interrupted else 0.0

    @property
    def busy_cores(self) -> float:
        """How many cores other processes kept busy during the measurement; 0 where that is not known."""
        return busy_by_others(self.machine, self.machine.get("end", self.machine)) or 0.0

    def percentile(self, q: float, *, raw: bool = False) -> float | None:
        """Return the q-th percentile (0 to 100) in nanoseconds, or None where there are too few samples.

        Of `worked_ns`, or `raw` of `samples_ns`, with the time that the system gave to others. At least ten samples
        must lie beyond it (on each side for the median), and percentiles above the median need single inferences.
        """
        # 100 - 99.9 is a little less than 0.1 in floating point.
        beyond = round(len(self.samples_ns) * min(q, 100 - q) / 100, 6)
        if beyond < 10 or (self.inner > 1 and q > 50):
            return None
        return float(np.percentile(self.samples_ns if raw else self.worked_ns, q))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types, every sample included; `from_dict` is the inverse."""
        return (
            asdict(self)
            | {"samples_ns": self.samples_ns.tolist(), "blocks": list(self.blocks)}
            | {"interrupted": [list(interruption) for interruption in self.interrupted]}
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Timings:
        """Rebuild from `to_dict`; raises RunFailed on anything else."""
        try:
            samples, blocks = _counts(values["samples_ns"]), _counts(values["blocks"])
            if not (samples and blocks and sorted({*blocks, 0}) == blocks and blocks[-1] < len(samples)):
                raise ValueError("samples and blocks do not fit")
            stored = values["interrupted"]
            if type(stored) is not list or any(type(pair) is not list for pair in stored):
                raise TypeError("interruptions are pairs in a list")
            interrupted = [tuple(_counts(pair)) for pair in stored]
            if any(len(pair) != 2 or pair[0] >= len(samples) or pair[1] >= samples[pair[0]] for pair in interrupted):
                raise ValueError("samples and interruptions do not fit")
            _counts(values[name] for name in _TIMED)
            if not (isinstance(values["artifact_sha256"], str) and isinstance(values["machine"], dict)):
                raise TypeError("a digest or the machine is missing")
            read = {"samples_ns": np.array(samples, np.int64), "facts": RuntimeFacts.from_dict(values["facts"])}
            return cls(**values | read | {"blocks": tuple(blocks), "interrupted": tuple(interrupted)})
        except (KeyError, TypeError, ValueError) as error:
            raise RunFailed(f"not stored timings ({plain_reason(error)}); time again") from error


def taints_of(timings: Iterable[Timings]) -> tuple[str, ...]:
    """Return what disturbed these measurements, as texts.

    Of texts that differ in their numbers alone, only that of the timings on the busiest machine is kept.
    """
    measured = sorted(
        (timing for timing in timings if not timing.facts.simulated), key=lambda timing: timing.busy_cores
    )
    return tuple({re.sub(r"[\d.]+", "", taint): taint for timing in measured for taint in timing.taints}.values())


@dataclass(frozen=True)
class ColdStart:
    """Nanoseconds of loading and of the first inference in a fresh process."""

    load_ns: int
    first_run_ns: int


@dataclass(frozen=True)
class Instructions:
    """Number of instructions that an inference of `batch` images executes on an emulated processor; it is no time.

    samples: of single inferences, in order, without the instructions of the counting itself.
    """

    artifact_sha256: str
    facts: RuntimeFacts
    samples: tuple[int, ...]
    batch: int

    @property
    def median(self) -> float:
        """The median of the samples."""
        from statistics import median

        return float(median(self.samples))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types; `from_dict` is the inverse."""
        return asdict(self) | {"median": self.median}


@dataclass(frozen=True)
class Operator:
    """One operator and its time, in the order of execution.

    kernel: the runtime's name for it. layer: the layer of the file that it computes, empty for an operator that the
    runtime added. ns: nanoseconds per inference (`typical_ns` of its times); profilers count whole microseconds.
    """

    kernel: str
    layer: str
    ns: float


def _counts(values: Iterable[object]) -> list[int]:
    """Return whole numbers of 0 or more that fit an int64; raises TypeError on anything else, booleans too."""
    counts = []
    for value in values:
        if type(value) is not int or not 0 <= value <= LARGEST:
            raise TypeError(f"{as_written(value)} is no count")
        counts.append(value)
    return counts


class Session(AbstractContextManager["Session"], Protocol):
    """An artifact opened on a target."""

    artifact: Artifact
    facts: RuntimeFacts

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return float32 logits [N, len(artifact.classes)] of upright uint8 glyphs [N, 28, 28].

        The artifact's own Preprocess is applied, integer inputs and outputs are quantized and dequantized, and the
        columns before `label_offset` are dropped. Any N works, also on files with a fixed batch. Raises RunFailed
        on a runtime error, a wrong width or logits that are not finite.
        """
        ...

    def time(self, plan: TimingPlan) -> Timings:
        """Time the inference alone (input ready in memory) on the device, by a monotonic clock.

        Raises RunFailed where `facts.cost` is neither `latency` nor `scripted`: such a target has no latency.
        """
        ...

    def count(self, *, runs: int = 5, batch: int = 1) -> Instructions:  # noqa: ARG002 (few targets can)
        """Count the instructions of `runs` inferences, one by one; raises RunFailed where `facts.cost` is another."""
        raise RunFailed(f"{self.facts.target} counts no instructions; take arm64:cortex-a72 or another emulated target")
