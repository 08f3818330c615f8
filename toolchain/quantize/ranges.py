"""Ranges: the [low, high] of every tensor that a static scheme quantizes.

They are chosen from what the tensors held on a calibration set, and can be saved to a file and used again. Values
outside a range are clipped; a narrower range gives those inside it finer steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat, ValidationError, model_validator

from calibration.sample import facts_problem
from targets.artifact import Artifact
from targets.host.text import as_lines, instead_of, json_value
from toolchain.checkpoint.float_model import Range
from toolchain.core.errors import StageError
from toolchain.core.files import write_whole
from toolchain.core.settings import Strict, first_problem
from toolchain.formats.graph import Values
from toolchain.quantize.step import Calibration, Quantize

BINS = 2048
"""Bins of a histogram while a range is chosen: eight for each step of 8 bits."""
SMOOTHING = 0.95
"""Weight of earlier images in the moving average of extremes, as in TFLite's tools."""
KEPT_BINS = 128
"""Bins of a histogram in a saved file: enough to draw it."""
Bounds = tuple[float, float]
_SHARES = np.arange(1, 101) / 100
"""Shares of the whole range that `mse` tries."""
MOST_WIDER = 100
"""How many times as far as its tensor's values a range may reach; a margin that a person adds is far smaller."""
LARGEST_END = 1e12
"""Over a wider range every ordinary value is rounded to 0, whatever the number of bits."""
_MOST = 2**63 - 1
_EMPTY_LEVEL = 1e-4
"""Count of a level without values; with 0, a range that ends beside a gap would have an infinite divergence."""


@dataclass(frozen=True, eq=False)
class TensorStatistics:
    """The values of one tensor on all images.

    average: the moving average of each image's lowest and highest value. counts: int64 [BINS], the values between
    `lowest` and `highest` in bins of equal width. Exact zeros are counted in `zeros` instead: every scheme represents
    them exactly, and after a ReLU they would dominate the histogram.
    """

    lowest: float
    highest: float
    average: tuple[float, float]
    counts: NDArray[np.int64]
    zeros: int

    @property
    def edges(self) -> NDArray[np.float64]:
        """Return float64 [BINS + 1], the edges of the bins."""
        return np.linspace(self.lowest, self.highest, len(self.counts) + 1)


def collect_statistics(run: Callable[[], Iterator[Values]], source: str) -> dict[str, TensorStatistics]:
    """Return the statistics of each tensor.

    run: yields the tensors' values image by image; it is called twice, for the extremes and for the counts. source: the
    file's name, for messages. Raises StageError, naming the tensor, for NaN or infinity.
    """
    extremes: dict[str, tuple[float, float]] = {}
    averages: dict[str, tuple[float, float]] = {}
    for values in run():
        for name, tensor in values.items():
            low, high = float(tensor.min()), float(tensor.max())
            if not (np.isfinite(low) and np.isfinite(high)):
                raise StageError(
                    f"{source}: tensor {name} holds NaN or infinity on a calibration image; fix the float model"
                )
            (lowest, highest), mean = extremes.get(name, (low, high)), averages.get(name, (low, high))
            extremes[name] = min(lowest, low), max(highest, high)
            averages[name] = SMOOTHING * mean[0] + (1 - SMOOTHING) * low, SMOOTHING * mean[1] + (1 - SMOOTHING) * high
    counts = {name: np.zeros(BINS, np.int64) for name in extremes}
    zeros = dict.fromkeys(extremes, 0)
    for values in run():
        for name, tensor in values.items():
            nonzero = tensor[tensor != 0]
            zeros[name] += tensor.size - nonzero.size
            counts[name] += _histogram(nonzero, *extremes[name])
    return {name: TensorStatistics(*extremes[name], averages[name], counts[name], zeros[name]) for name in extremes}


def _histogram(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.int64]:
    share = (values.astype(np.float64) - low) * (BINS / (high - low) if high > low else 0.0)
    return np.bincount(np.minimum(share.astype(np.int64), BINS - 1), minlength=BINS)


def choose_range(statistics: TensorStatistics, method: Calibration, *, percentile: float, levels: int) -> Bounds:
    """Return the range [low, high]. It always includes 0, which padding and ReLU need exactly.

    A tensor that held only zeros, as after a ReLU that is never active, gets [0, 1]: with tiny steps the biases of the
    layers around it would overflow.

    `min-max`: the extremes. `moving-average`: the average of each image's extremes (Jacob, arXiv:1712.05877).
    `percentile`: `percentile` percent of all values, with half of the rest cut off at each end. `entropy`: the range
    whose quantized histogram diverges least from the whole one (Migacz, "8-bit inference with TensorRT", GTC 2017).
    `mse`: least mean squared error, clipped and rounded, at `levels` levels (Banner, arXiv:1810.05723, searched).
    """
    rules: dict[Calibration, Callable[[], Bounds]] = {
        "min-max": lambda: (statistics.lowest, statistics.highest),
        "moving-average": lambda: statistics.average,
        "percentile": lambda: _percentile(statistics, percentile / 100),
        "entropy": lambda: _least_divergence(statistics, levels),
        "mse": lambda: _least_error(statistics, levels),
    }
    if statistics.lowest == statistics.highest == 0:
        return 0.0, 1.0
    low, high = rules[method]()
    # + 0.0 turns -0.0 into 0.0, which has other bytes.
    return min(low, 0.0) + 0.0, max(high, 0.0) + 0.0


def _percentile(statistics: TensorStatistics, share: float) -> Bounds:
    edges, counts = statistics.edges, statistics.counts.copy()
    counts[np.searchsorted(edges[1:-1], 0.0, side="right")] += statistics.zeros
    mass = np.concatenate([[0], np.cumsum(counts)]) / max(1, counts.sum())
    tail = (1 - share) / 2
    low, high = np.interp([tail, 1 - tail], mass, edges)
    return float(low), float(high)


def _least_divergence(statistics: TensorStatistics, levels: int) -> Bounds:
    """Search both ends in turn, as `_least_error` does, in steps of the bins of one level."""
    edges, counts = statistics.edges, statistics.counts.astype(np.float64)
    bins, zero = len(counts), int(np.searchsorted(edges[1:-1], 0.0, side="right"))
    first, last, stride = 0, bins, max(1, bins // levels)
    for _ in range(2):
        lasts = range(bins, max(zero, min(first + levels, bins)) - 1, -stride)
        last = min(lasts, key=lambda end: _divergence(counts, first, end, levels))
        firsts = range(0, min(zero, max(last - levels, 0)) + 1, stride)
        first = min(firsts, key=lambda start: _divergence(counts, start, last, levels))
    return float(edges[first]), float(edges[last])


def _divergence(counts: NDArray[np.float64], first: int, last: int, levels: int) -> float:
    """Return the Kullback-Leibler divergence of the clipped histogram from the same one rounded to `levels` levels."""
    inside = counts[first:last]
    clipped = inside.copy()
    clipped[0] += counts[:first].sum()
    clipped[-1] += counts[last:].sum()
    level = np.arange(len(inside)) * levels // len(inside)
    # The count of a level is spread over its bins with values; after clipping the outer bins always have some.
    occupied = clipped > 0
    mean = np.bincount(level, inside) / np.maximum(1, np.bincount(level, occupied))
    coarse = np.maximum(mean[level], _EMPTY_LEVEL)[occupied]
    p, q = clipped[occupied] / clipped.sum(), coarse / coarse.sum()
    return float((p * np.log(p / q)).sum())


def _least_error(statistics: TensorStatistics, levels: int) -> Bounds:
    """Search the upper and the lower end in turn, twice, because the width of a step depends on both."""
    low, high = min(statistics.lowest, 0.0), max(statistics.highest, 0.0)
    widest = low, high
    for _ in range(2):
        highs = [_error(statistics, low, share * widest[1], levels) for share in _SHARES]
        high = float(_SHARES[_last_least(highs)] * widest[1])
        lows = [_error(statistics, share * widest[0], high, levels) for share in _SHARES]
        low = float(_SHARES[_last_least(lows)] * widest[0])
    return low, high


def _last_least(errors: list[float]) -> int:
    return len(errors) - 1 - int(np.argmin(errors[::-1]))


def _error(statistics: TensorStatistics, low: float, high: float, levels: int) -> float:
    """Return the squared error of the bins' centres, rounded as the runtimes do, with an integer zero point."""
    step = (high - low) / (levels - 1)
    if not step > 0:
        return np.inf
    middles = (statistics.edges[1:] + statistics.edges[:-1]) / 2
    zero = round(-low / step)
    rounded = (np.clip(np.rint(middles / step) + zero, 0, levels - 1) - zero) * step
    return float(((middles - rounded) ** 2 * statistics.counts).sum())


class TensorRange(Strict):
    """The range of one tensor, and the statistics that it was chosen from (see `TensorStatistics`).

    counts: in KEPT_BINS bins. origin: the layer and operator that compute it, where its name does not say so.
    """

    name: str
    origin: str = ""
    low: FiniteFloat
    high: FiniteFloat
    lowest: FiniteFloat
    highest: FiniteFloat
    zeros: int = Field(ge=0, le=_MOST)
    counts: tuple[Annotated[int, Field(ge=0, le=_MOST)], ...] = Field(min_length=KEPT_BINS, max_length=KEPT_BINS)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.low <= 0 <= self.high:
            raise ValueError(f"the range of {self.name} is [{self.low:g}, {self.high:g}]; it must include 0")
        if self.low == self.high:
            raise ValueError(f"the range of {self.name} is only 0, which leaves no steps to round to")
        if self.lowest > self.highest or not self.zeros + sum(self.counts):
            raise ValueError(f"the histogram of {self.name} has inverted limits or no values")
        if max(-self.low, self.high) > MOST_WIDER * max(-self.lowest, self.highest, 1.0):
            raise ValueError(
                f"the range of {self.name} is [{self.low:g}, {self.high:g}], and its values lay in "
                f"[{self.lowest:g}, {self.highest:g}]"
            )
        return self

    @classmethod
    def of(cls, name: str, statistics: TensorStatistics, low: float, high: float, origin: str = "") -> TensorRange:
        """Build it from statistics, whose bins are merged to KEPT_BINS."""
        counts = tuple(map(int, statistics.counts.reshape(KEPT_BINS, -1).sum(axis=1)))
        ends = _float32(low, high) | {"lowest": statistics.lowest, "highest": statistics.highest}
        return cls(name=name, origin=origin, **ends, zeros=statistics.zeros, counts=counts)

    @property
    def title(self) -> str:
        """The name with the origin, to be shown."""
        return f"{self.name}: {self.origin}" if self.origin else self.name

    @property
    def clipped(self) -> float:
        """Share of the values that lie outside the range, estimated from the bins."""
        edges = np.linspace(self.lowest, self.highest, KEPT_BINS + 1)
        middles = (edges[1:] + edges[:-1]) / 2
        outside = (middles < self.low) | (middles > self.high)
        return float(np.asarray(self.counts)[outside].sum()) / max(1, self.zeros + sum(self.counts))


class Ranges(Strict):
    """The ranges of a file's tensors.

    calibration: `CalibrationSet.facts()` of the images on which they were chosen. learned: whether those of the layers'
    inputs come from training, which rounded the weights too.
    """

    schema_: Literal["glyphpress/ranges/1"] = Field(default="glyphpress/ranges/1", alias="schema")
    source: str = Field(min_length=1)
    source_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    method: Calibration
    percentile: float | None = Field(gt=50, le=100)
    calibration: dict[str, Any]
    tensors: tuple[TensorRange, ...] = Field(min_length=1)
    learned: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if problem := facts_problem(self.calibration):
            raise ValueError(f"the facts of the calibration images are not usable: {problem}")
        if (self.percentile is None) == (self.method == "percentile"):
            raise ValueError(f"a percentile of {self.percentile} does not go with the method {self.method}")
        if len(self.bounds) < len(self.tensors):
            raise ValueError("two tensors have the same name")
        return self

    @classmethod
    def choose(
        cls,
        artifact: Artifact,
        step: Quantize,
        statistics: dict[str, TensorStatistics],
        calibration: dict[str, Any],
        origins: Mapping[str, str],
    ) -> Ranges:
        """Choose every tensor's range by the step's method, for the levels of its activations."""
        choose = partial(choose_range, method=step.calibration, percentile=step.percentile, levels=step.row.levels)
        return cls(
            source=artifact.path.name,
            source_sha256=artifact.sha256,
            method=step.calibration,
            percentile=step.percentile if step.calibration == "percentile" else None,
            calibration=calibration,
            tensors=tuple(
                TensorRange.of(name, values, *choose(values), origins.get(name, ""))
                for name, values in statistics.items()
            ),
        )

    @property
    def bounds(self) -> dict[str, tuple[float, float]]:
        """The range of each tensor by its name."""
        return {tensor.name: (tensor.low, tensor.high) for tensor in self.tensors}

    def with_learned(self, learned: dict[str, Range]) -> Ranges:
        """Return the ranges with `learned`, tensor -> range from training, in place of those on the images."""
        ends = {name: _float32(limits.low, limits.high) for name, limits in learned.items()}
        tensors = tuple(tensor.model_copy(update=ends.get(tensor.name, {})) for tensor in self.tensors)
        return self.model_copy(update={"tensors": tensors, "learned": bool(learned)})

    def save(self, path: Path, *, force: bool = False) -> None:
        """Write as JSON, whole or not at all; `read_ranges` is the inverse."""
        write_whole(path, as_lines(self.model_dump_json(by_alias=True, indent=1)) + "\n", force=force)

    def belong_to(self, artifact: Artifact, tensors: list[str], path: str) -> Ranges:
        """Return the ranges; raises StageError unless they were made of `artifact` and cover `tensors`.

        path: the file of the ranges, for messages.
        """
        if self.source_sha256 != artifact.sha256:
            raise StageError(
                f"{path} holds the ranges of {self.source} (sha256 {self.source_sha256[:12]}), not of "
                f"{artifact.path.name} ({artifact.sha256[:12]}); calibrate this file with --data"
            )
        if missing := sorted(set(tensors) - set(self.bounds)):
            raise StageError(f"{path} has no range for {', '.join(missing[:3])}; calibrate again with --data")
        return self


def _float32(low: float, high: float) -> dict[str, float]:
    """Round to float32, as the quantizers do, so that saved and new ranges give the same bytes."""
    return {"low": float(np.float32(low)), "high": float(np.float32(high))}


def read_ranges(path: Path) -> Ranges:
    """Read a file of ranges; raises StageError where it does not exist, or with what is wrong in it."""
    if not path.is_file():
        raise StageError(f"{path}: no such file of ranges; `glyphpress quantize --save-ranges` writes one")
    if problem := instead_of(path, "glyphpress/ranges/1"):
        raise StageError(f"{path} {problem}")
    try:
        ranges = Ranges.model_validate(json_value(path.read_bytes()))
    except ValidationError as error:
        key, reason = first_problem(error)
        raise StageError(
            f"{path}: no usable ranges: {key or 'ranges'}: {reason}; calibrate again with --data"
        ) from error
    except (ValueError, RecursionError) as error:
        raise StageError(f"{path}: no usable ranges: {error}; calibrate again with --data") from error
    for tensor in ranges.tensors:
        if (end := max(tensor.low, tensor.high, tensor.lowest, tensor.highest, key=abs)) and abs(end) > LARGEST_END:
            raise StageError(
                f"{path}: no usable ranges: {tensor.name} reaches to {end:.1e}, over which integers round every "
                "ordinary value to 0; calibrate again with --data, or keep its layer in float with --keep"
            )
    return ranges
