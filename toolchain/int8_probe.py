"""Whether int8 will help on a place: small models of given shapes are costed there before anybody quantizes.

Each model repeats one layer, so that this layer is what an inference costs, and is made by the press's own exporter and
quantizer: what is told holds for the files that a press would make.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calibration.dataset import load
from calibration.sample import CalibrationSet, draw
from targets import catalog
from targets.artifact import Artifact, Format
from targets.errors import TargetUnavailable
from targets.preprocess import Preprocess
from targets.target import RuntimeFacts, Target, TimingPlan
from toolchain.errors import UsageProblem
from toolchain.export import export
from toolchain.model import FloatModel
from toolchain.profiling.counts import counted
from toolchain.progress import Progress, silent
from toolchain.quantize import quantize
from toolchain.steps import Quantize
from toolchain.verdict.latency import profile

if TYPE_CHECKING:
    from torch import nn

DEFAULTS = ("16x32x3@14x14", "32x64x3@7x7", "576x128")
LAYERS = 4
"""So often the layer is repeated, there and back."""
PAYS = 0.95
"""Below this share of float's cost int8 is said to pay."""
_PLAN = TimingPlan(min_runs=400, min_seconds=0.4)
_FORM = re.compile(r"(\d+)x(\d+)(?:x(\d+)@(\d+)x(\d+))?")


@dataclass(frozen=True)
class Shape:
    """A layer: `INxOUT` of a matrix, or `INxOUTxKERNEL@HEIGHTxWIDTH` of a convolution."""

    inputs: int
    outputs: int
    kernel: int = 0
    height: int = 0
    width: int = 0

    @classmethod
    def parse(cls, word: str) -> Shape:
        """Read a shape; raises UsageProblem."""
        match = _FORM.fullmatch(word)
        numbers = [int(number) for number in match.groups() if number] if match else []
        if not numbers or min(numbers) < 1 or max(numbers) > 4096 or max(numbers[3:], default=1) > 28:
            raise UsageProblem(f"no shape '{word}'; give INxOUT (576x47) or INxOUTxKERNEL@HEIGHTxWIDTH (16x32x3@14x14)")
        return cls(*numbers)

    def __str__(self) -> str:
        """Return the word."""
        window = f"x{self.kernel}@{self.height}x{self.width}" if self.kernel else ""
        return f"{self.inputs}x{self.outputs}{window}"


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
    images = draw(load("builtin:digits", "train"), 64, seed=seed)
    formats: tuple[Format, ...] = ("onnx", "tflite")
    kinds = [kind for kind in formats if kind in place.formats]
    ratios, facts = [], None
    with tempfile.TemporaryDirectory() as folder:
        for done, (kind, shape) in enumerate([(kind, shape) for kind in kinds for shape in wanted], 1):
            pair = _pair(shape, kind, images, Path(folder), seed)
            with place.open(pair[0]) as session:
                facts = session.facts
            if facts.cost not in ("latency", "instructions"):
                raise UsageProblem(f"{place.name} is simulated and tells no cost; probe the device itself")
            ratios.append(_ratio(place, facts, shape, pair, seed))
            progress("probing int8", done, len(kinds) * len(wanted))
    if facts is None:
        raise UsageProblem(f"{place.name} runs neither .onnx nor .tflite files; take another target")
    return Int8Probe(facts, tuple(ratios))


def _ratio(place: Target, facts: RuntimeFacts, shape: Shape, pair: list[Artifact], seed: int) -> Ratio:
    kind = pair[0].format
    if facts.cost == "instructions":
        base, own = (count.median for count in counted(pair, place))
        return Ratio(str(shape), kind, own / base)
    found = profile(pair, target=place, plan=_PLAN, seed=seed).rows[1].ratio
    if found is None:
        raise UsageProblem(f"{shape}: too short for the clock of {place.name}; give a larger shape")
    return Ratio(str(shape), kind, found.ratio, found.low, found.high)


def _pair(shape: Shape, kind: Format, images: CalibrationSet, folder: Path, seed: int) -> list[Artifact]:
    """Return the float and the int8 file."""
    model = FloatModel("probe", _module(shape, seed), Preprocess(), tuple("0123456789"), "0" * 64)
    source = export(model, kind, folder / f"{shape}.float.{kind}")
    step = Quantize(scheme="static-int8")
    return [source, quantize(source, step, images, folder / f"{shape}.int8.{kind}", recipe="static-int8")]


def _module(shape: Shape, seed: int) -> nn.Module:
    """Return a model from 28x28 glyphs to 10 logits whose layers but the first and last have the shape."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    there_and_back = [(shape.inputs, shape.outputs), (shape.outputs, shape.inputs)] * (LAYERS // 2)
    if not shape.kernel:
        matrices = [layer for pair in there_and_back for layer in (nn.Linear(*pair), nn.ReLU())]
        return nn.Sequential(nn.Flatten(), nn.Linear(784, shape.inputs), *matrices, nn.Linear(shape.inputs, 10)).eval()
    window = [nn.Conv2d(a, b, shape.kernel, padding="same") for a, b in there_and_back]
    layers = [layer for one in window for layer in (one, nn.ReLU())]
    # A crop, since what brings the glyphs to size must cost nothing.
    stem = [nn.ZeroPad2d((0, shape.width - 28, 0, shape.height - 28)), nn.Conv2d(1, shape.inputs, 1)]
    size = shape.inputs * shape.height * shape.width
    return nn.Sequential(*stem, *layers, nn.Flatten(), nn.Linear(size, 10)).eval()
