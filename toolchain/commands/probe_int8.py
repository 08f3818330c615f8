"""Estimate whether int8 will help on a target, by measuring small models of given shapes there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from targets import catalog
from targets.artifact import Artifact, Format
from targets.errors import TargetUnavailable
from targets.session import RuntimeFacts, TimingPlan, Timings, taints_of
from targets.target import Target
from toolchain.commands.probe_models import Shape, probe_pair, shapes_of
from toolchain.core.context import RunContext
from toolchain.core.errors import UsageProblem
from toolchain.export import EXPORTERS
from toolchain.formats import catalog as formats
from toolchain.profiling.latency import profile

DEFAULTS = ("16x32x3@14x14", "32x64x3@7x7", "576x128")
PAYS = 0.95
"""int8 pays below this share of float's cost."""
_PLAN, _ROUNDS = TimingPlan(min_runs=200, min_seconds=0.2), 10
Case = tuple[Format, Shape]
"""One pair of models to measure."""


@dataclass(frozen=True)
class Ratio:
    """Cost of int8 over that of float for one shape in one format; below 1 int8 helps.

    low, high: 95 % interval, of latencies only. cost: of the small float model, in nanoseconds or instructions. times:
    number of such layers in the model.
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
    """The result on a target.

    left_out: layers of a model that no shape represents. taints: what disturbed the machine while it was timed.
    """

    facts: RuntimeFacts
    ratios: tuple[Ratio, ...]
    left_out: tuple[str, ...] = ()
    taints: tuple[str, ...] = ()

    def overall(self) -> dict[Format, float]:
        """Return the ratio of each format over all shapes, each weighted by its cost in float."""
        return {kind: _weighted(rows, [row.ratio for row in rows]) for kind, rows in self._by_format().items()}

    def interval(self) -> dict[Format, tuple[float, float] | None]:
        """Return bounds of `overall`, as if all shapes erred to the same side; None for instructions."""
        intervals: dict[Format, tuple[float, float] | None] = {}
        for kind, rows in self._by_format().items():
            bounds = [(row.low, row.high) for row in rows if row.low is not None and row.high is not None]
            complete = len(bounds) == len(rows)
            intervals[kind] = (
                (_weighted(rows, [low for low, _ in bounds]), _weighted(rows, [high for _, high in bounds]))
                if complete
                else None
            )
        return intervals

    def _by_format(self) -> dict[Format, list[Ratio]]:
        kinds = dict.fromkeys(row.format for row in self.ratios)
        return {kind: [row for row in self.ratios if row.format == kind] for kind in kinds}

    def advice(self) -> list[str]:
        """Return the conclusion, a line for each format, and the layers that no shape represents."""
        cost, bounds = "instructions" if self.facts.cost == "instructions" else "time", self.interval()
        lines = [
            f"{kind}: int8 takes {ratio:.2f} of float's {cost} on {self.facts.target}: "
            + _conclusion(ratio, bounds[kind], cost)
            for kind, ratio in self.overall().items()
        ]
        return [*lines, *(f"left out: {layer}" for layer in self.left_out)]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        rows = [asdict(row) for row in self.ratios]
        conclusion = {"overall": self.overall(), "interval": self.interval(), "advice": self.advice()}
        listed = {"left_out": list(self.left_out), "taints": list(self.taints)}
        return {"facts": asdict(self.facts), "ratios": rows} | listed | conclusion


def _weighted(ratios: Sequence[Ratio], values: Sequence[float]) -> float:
    """Return the mean of values, one for each shape, weighted by the shape's cost in float times its count."""
    weights = [row.cost * row.times for row in ratios]
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


def probe_int8(target_name: str, shapes: Sequence[str], context: RunContext) -> Int8Probe:
    """Measure a float and an int8 model of every shape on a target, in every format that it runs.

    shapes: such as `576x128`, or one float .onnx file, whose layers count as often as they occur; without any,
    DEFAULTS. Raises UsageProblem for an invalid shape or a target without a cost, and what the target raises.
    """
    target, (counts, left_out) = catalog.get(target_name), shapes_of(shapes or DEFAULTS)
    state = target.probe()
    if not state.ok:
        raise TargetUnavailable(f"{target.name}: {state.reason}; {state.fix}")
    cases = [(kind, shape) for kind in EXPORTERS if kind in target.formats for shape in counts]
    if not cases:
        names = formats.suffixes(map(formats.get, EXPORTERS), "nor")
        raise UsageProblem(f"{target.name} runs neither {names} files; take another target")
    measure = _counted if target.cost == "instructions" else _timed
    result = measure(target, cases, context)
    ratios = tuple(replace(row, times=counts[shape]) for row, (_, shape) in zip(result.ratios, cases, strict=True))
    return replace(result, ratios=ratios, left_out=left_out)


def _counted(target: Target, cases: list[Case], context: RunContext) -> Int8Probe:
    files: list[Artifact] = []
    for done, (kind, shape) in enumerate(cases, 1):
        files += probe_pair(str(shape), kind, context.seed)
        context.progress("small models", done, len(cases))
    # Two inferences, since counts hardly vary, and one emulator for all files, since its start takes longest.
    counts = target.count(files, runs=2, together=True, progress=context.progress)
    costs = [count.median for count in counts]
    ratios = [
        Ratio(str(shape), kind, int8 / base, cost=base)
        for (kind, shape), base, int8 in zip(cases, costs[::2], costs[1::2], strict=True)
    ]
    return Int8Probe(counts[0].facts, tuple(ratios))


def _timed(target: Target, cases: list[Case], context: RunContext) -> Int8Probe:
    ratios: list[Ratio] = []
    timed: list[Timings] = []
    for done, (kind, shape) in enumerate(cases, 1):
        pair = probe_pair(str(shape), kind, context.seed)
        with target.open(pair[0]) as session:
            facts = session.facts
        if facts.cost != "latency":
            raise UsageProblem(f"{target.name} is simulated and has no cost to measure; probe the device itself")
        one_thread = RunContext(context.seed, threads=1)
        first, second = profile(pair, target=target, plan=_PLAN, rounds=_ROUNDS, context=one_thread).rows
        timed += [first.timings, second.timings]
        ratio, cost = second.ratio, first.timings.percentile(50)
        if ratio is None or cost is None:
            raise UsageProblem(f"{shape}: too short for the clock of {target.name}; give a larger shape")
        ratios.append(Ratio(str(shape), kind, ratio.ratio, ratio.low, ratio.high, cost))
        context.progress("probing int8", done, len(cases))
    return Int8Probe(facts, tuple(ratios), taints=taints_of(timed))
