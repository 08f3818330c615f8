"""Whether int8 will help on a place: small models of given shapes are costed there before anybody quantizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from targets import catalog
from targets.artifact import Artifact, Format
from targets.errors import TargetUnavailable
from targets.target import Counting, RuntimeFacts, Target, TimingPlan
from toolchain.errors import UsageProblem
from toolchain.probe_models import Shape, probe_pair
from toolchain.progress import Progress, silent
from toolchain.verdict.latency import profile

DEFAULTS = ("16x32x3@14x14", "32x64x3@7x7", "576x128")
PAYS = 0.95
"""Below this share of float's cost int8 is said to pay."""
_PLAN, _ROUNDS = TimingPlan(min_runs=200, min_seconds=0.2), 10
Cell = tuple[Format, Shape]


@dataclass(frozen=True)
class Ratio:
    """What int8 costs of float for one shape, in one runtime: below 1 it helps. low, high: 95 %, of latencies."""

    shape: str
    format: Format
    ratio: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Int8Probe:
    """What was found on a place. overall: the geometric mean of the ratios of each format."""

    facts: RuntimeFacts
    ratios: tuple[Ratio, ...]

    def overall(self) -> dict[Format, float]:
        """Return the geometric mean of each format's ratios."""
        kinds = dict.fromkeys(one.format for one in self.ratios)
        own = {kind: [math.log(one.ratio) for one in self.ratios if one.format == kind] for kind in kinds}
        return {kind: math.exp(sum(logs) / len(logs)) for kind, logs in own.items()}

    def advice(self) -> list[str]:
        """Return the conclusion, a line each format."""
        cost = "instructions" if self.facts.cost == "instructions" else "time"
        return [
            f"{kind}: int8 takes {ratio:.2f} of float's {cost} on {self.facts.target}: "
            + ("quantize" if ratio < PAYS else "it will not pay in speed there; the file still shrinks to a quarter")
            for kind, ratio in self.overall().items()
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        rows = [asdict(one) for one in self.ratios]
        return {"facts": asdict(self.facts), "ratios": rows, "overall": self.overall(), "advice": self.advice()}


def probe_int8(
    target: str, shapes: Sequence[str] = DEFAULTS, *, seed: int = 0, progress: Progress = silent
) -> Int8Probe:
    """Cost a float and an int8 model of every shape on a target, in every format that it takes.

    Raises UsageProblem for a shape that is none, or a place that tells no cost, and what the place raises.
    """
    place, wanted = catalog.get(target), [Shape.parse(word) for word in shapes or DEFAULTS]
    state = place.probe()
    if not state.ok:
        raise TargetUnavailable(f"{place.name}: {state.reason}; {state.fix}")
    formats: tuple[Format, ...] = ("onnx", "tflite")
    cells = [(kind, shape) for kind in formats if kind in place.formats for shape in wanted]
    if not cells:
        raise UsageProblem(f"{place.name} runs neither .onnx nor .tflite files; take another target")
    if isinstance(place, Counting):
        return _counted(place, cells, seed, progress)
    return _timed(place, cells, seed, progress)


def _counted(place: Counting, cells: list[Cell], seed: int, progress: Progress) -> Int8Probe:
    files: list[Artifact] = []
    for done, (kind, shape) in enumerate(cells, 1):
        files += probe_pair(str(shape), kind, seed)
        progress("small models", done, len(cells))
    # Two inferences, since a count hardly varies, and one emulator for all, since starting it is what takes long.
    counts = place.counts(files, runs=2, progress=progress)
    costs = [count.median for count in counts]
    ratios = [
        Ratio(str(shape), kind, own / base)
        for (kind, shape), base, own in zip(cells, costs[::2], costs[1::2], strict=True)
    ]
    return Int8Probe(counts[0].facts, tuple(ratios))


def _timed(place: Target, cells: list[Cell], seed: int, progress: Progress) -> Int8Probe:
    ratios: list[Ratio] = []
    for done, (kind, shape) in enumerate(cells, 1):
        pair = probe_pair(str(shape), kind, seed)
        with place.open(pair[0]) as session:
            facts = session.facts
        if facts.cost != "latency":
            raise UsageProblem(f"{place.name} is simulated and tells no cost; probe the device itself")
        found = profile(pair, target=place, plan=_PLAN, rounds=_ROUNDS, seed=seed).rows[1].ratio
        if found is None:
            raise UsageProblem(f"{shape}: too short for the clock of {place.name}; give a larger shape")
        ratios.append(Ratio(str(shape), kind, found.ratio, found.low, found.high))
        progress("probing int8", done, len(cells))
    return Int8Probe(facts, tuple(ratios))
