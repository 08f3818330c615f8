"""Whether int8 will help on a place: small models of given shapes are costed there before anybody quantizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from targets import catalog
from targets.artifact import Artifact, Format
from targets.errors import TargetUnavailable
from targets.session import RuntimeFacts, TimingPlan, Timings, taints_of
from targets.target import Target
from toolchain.commands.probe_models import Shape, probe_pair
from toolchain.commands.probe_shapes import wanted_shapes
from toolchain.core.context import RunContext
from toolchain.core.errors import UsageProblem
from toolchain.export.exporters import EXPORTERS
from toolchain.formats import catalog as formats
from toolchain.profiling.latency import profile

DEFAULTS = ("16x32x3@14x14", "32x64x3@7x7", "576x128")
PAYS = 0.95
"""Below this share of float's cost int8 is said to pay."""
_PLAN, _ROUNDS = TimingPlan(min_runs=200, min_seconds=0.2), 10
Cell = tuple[Format, Shape]


@dataclass(frozen=True)
class Ratio:
    """What int8 costs of float for one shape, in one runtime: below 1 it helps. low, high: 95 %, of latencies.

    cost: of the small float model, nanoseconds or instructions. times: how often the model has such a layer.
    """

    shape: str
    format: Format
    ratio: float
    low: float | None = None
    high: float | None = None
    cost: float = 1.0
    times: int = 1


@dataclass(frozen=True)
class Int8Probe:
    """What was found on a place.

    left_out: layers of a model that no shape stands for, with their share of its work. taints: what made the machine
    less than quiet while it was timed.
    """

    facts: RuntimeFacts
    ratios: tuple[Ratio, ...]
    left_out: tuple[str, ...] = ()
    taints: tuple[str, ...] = ()

    def overall(self) -> dict[Format, float]:
        """Return what int8 takes of float of each format: every shape weighs what it costs in float."""
        return {kind: _weighed(own, [one.ratio for one in own]) for kind, own in self._by_format().items()}

    def interval(self) -> dict[Format, tuple[float, float] | None]:
        """Return bounds of `overall`, of latencies: as if all shapes erred to the same side. None of instructions."""
        found: dict[Format, tuple[float, float] | None] = {}
        for kind, own in self._by_format().items():
            bounds = [(one.low, one.high) for one in own if one.low is not None and one.high is not None]
            whole = len(bounds) == len(own)
            found[kind] = (
                (_weighed(own, [low for low, _ in bounds]), _weighed(own, [high for _, high in bounds]))
                if whole
                else None
            )
        return found

    def _by_format(self) -> dict[Format, list[Ratio]]:
        kinds = dict.fromkeys(one.format for one in self.ratios)
        return {kind: [one for one in self.ratios if one.format == kind] for kind in kinds}

    def advice(self) -> list[str]:
        """Return the conclusion, a line each format, and what no shape stands for."""
        cost, bounds = "instructions" if self.facts.cost == "instructions" else "time", self.interval()
        lines = [
            f"{kind}: int8 takes {ratio:.2f} of float's {cost} on {self.facts.target}: "
            + _conclusion(ratio, bounds[kind], cost)
            for kind, ratio in self.overall().items()
        ]
        return [*lines, *(f"left out: {words}" for words in self.left_out)]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        rows = [asdict(one) for one in self.ratios]
        said = {"overall": self.overall(), "interval": self.interval(), "advice": self.advice()}
        listed = {"left_out": list(self.left_out), "taints": list(self.taints)}
        return {"facts": asdict(self.facts), "ratios": rows} | listed | said


def _weighed(ratios: Sequence[Ratio], values: Sequence[float]) -> float:
    """Return the mean of values, one a shape, by what each costs in float as often as it is there."""
    weights = [one.cost * one.times for one in ratios]
    return sum(weight * value for weight, value in zip(weights, values, strict=True)) / sum(weights)


def _conclusion(ratio: float, bounds: tuple[float, float] | None, cost: str) -> str:
    low, high = bounds or (ratio, ratio)
    if high < PAYS:
        return "quantize"
    if low < PAYS:
        return (
            "undecided, it may pay or not: give your model's float .onnx, or time its files with `glyphpress profile`"
        )
    gain = "speed" if cost == "time" else "instructions"
    return f"it will not pay in {gain} there; the file still shrinks to a quarter"


def probe_int8(target: str, shapes: Sequence[str], context: RunContext) -> Int8Probe:
    """Cost a float and an int8 model of every shape on a target, in every format that it takes.

    shapes: words, or one float .onnx file, whose layers are taken as often as they are there; without any, DEFAULTS.
    Raises UsageProblem for a shape that is none, or a place that tells no cost, and what the place raises.
    """
    place, (counted, left_out) = catalog.get(target), wanted_shapes(shapes or DEFAULTS)
    wanted = list(counted)
    state = place.probe()
    if not state.ok:
        raise TargetUnavailable(f"{place.name}: {state.reason}; {state.fix}")
    cells = [(kind, shape) for kind in EXPORTERS if kind in place.formats for shape in wanted]
    if not cells:
        names = formats.suffixes(map(formats.get, EXPORTERS), "nor")
        raise UsageProblem(f"{place.name} runs neither {names} files; take another target")
    measure = _counted if place.cost == "instructions" else _timed
    found = measure(place, cells, context)
    ratios = tuple(replace(one, times=counted[shape]) for one, (_, shape) in zip(found.ratios, cells, strict=True))
    return replace(found, ratios=ratios, left_out=left_out)


def _counted(place: Target, cells: list[Cell], context: RunContext) -> Int8Probe:
    files: list[Artifact] = []
    for done, (kind, shape) in enumerate(cells, 1):
        files += probe_pair(str(shape), kind, context.seed)
        context.progress("small models", done, len(cells))
    # Two inferences, since a count hardly varies, and one emulator for all, since starting it is what takes long.
    counts = place.count(files, runs=2, together=True, progress=context.progress)
    costs = [count.median for count in counts]
    ratios = [
        Ratio(str(shape), kind, own / base, cost=base)
        for (kind, shape), base, own in zip(cells, costs[::2], costs[1::2], strict=True)
    ]
    return Int8Probe(counts[0].facts, tuple(ratios))


def _timed(place: Target, cells: list[Cell], context: RunContext) -> Int8Probe:
    ratios: list[Ratio] = []
    timed: list[Timings] = []
    for done, (kind, shape) in enumerate(cells, 1):
        pair = probe_pair(str(shape), kind, context.seed)
        with place.open(pair[0]) as session:
            facts = session.facts
        if facts.cost != "latency":
            raise UsageProblem(f"{place.name} is simulated and has no cost to measure; probe the device itself")
        first, second = profile(pair, target=place, plan=_PLAN, rounds=_ROUNDS, seed=context.seed).rows
        timed += [first.timings, second.timings]
        found, cost = second.ratio, first.timings.percentile(50)
        if found is None or cost is None:
            raise UsageProblem(f"{shape}: too short for the clock of {place.name}; give a larger shape")
        ratios.append(Ratio(str(shape), kind, found.ratio, found.low, found.high, cost))
        context.progress("probing int8", done, len(cells))
    return Int8Probe(facts, tuple(ratios), taints=taints_of(timed))
