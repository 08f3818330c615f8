"""Ranges: the [low, high] of every tensor that a static scheme quantizes, which can be saved to a file and reused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, FiniteFloat, ValidationError, model_validator

from targets.artifact import Artifact
from targets.host.result_files import instead_of
from targets.host.text import as_lines, json_value
from toolchain.checkpoint.float_model import Range
from toolchain.core.errors import StageError, UsageProblem
from toolchain.core.files import write_whole
from toolchain.core.settings import Strict
from toolchain.quantize.clipping import TensorStatistics, choose_range
from toolchain.quantize.step import Calibration, Quantize

KEPT_BINS = 128
"""Bins of a histogram in a file: enough to draw it."""


class TensorRange(Strict):
    """The range of one tensor, and the statistics that it was chosen from.

    counts: values in each of KEPT_BINS bins between lowest and highest, without zeros, which are counted apart.
    origin: the layer and operator that compute it, where its name does not tell.
    """

    name: str
    origin: str = ""
    low: FiniteFloat
    high: FiniteFloat
    lowest: FiniteFloat
    highest: FiniteFloat
    zeros: int = Field(ge=0)
    counts: tuple[int, ...] = Field(min_length=KEPT_BINS, max_length=KEPT_BINS)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.low <= 0 <= self.high:
            raise ValueError(f"the range of {self.name} is [{self.low:g}, {self.high:g}]; it must hold 0")
        if self.lowest > self.highest or any(count < 0 for count in self.counts):
            raise ValueError(f"the histogram of {self.name} has inverted limits or negative counts")
        return self

    @classmethod
    def of(cls, name: str, statistics: TensorStatistics, low: float, high: float, origin: str = "") -> TensorRange:
        """Build it from statistics, whose bins are merged to KEPT_BINS."""
        counts = tuple(map(int, statistics.counts.reshape(KEPT_BINS, -1).sum(axis=1)))
        ends = _float32(low, high) | {"lowest": statistics.lowest, "highest": statistics.highest}
        return cls(name=name, origin=origin, **ends, zeros=statistics.zeros, counts=counts)

    @property
    def title(self) -> str:
        """The name and the origin, for people."""
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

    calibration: `CalibrationSet.facts()` of the images on which they were chosen. learned: whether training found those
    of layers' inputs, and rounded the weights.
    """

    schema_: Literal["glyphpress/ranges/1"] = Field(default="glyphpress/ranges/1", alias="schema")
    source: str
    source_sha256: str
    method: Calibration
    percentile: float | None
    calibration: dict[str, Any]
    tensors: tuple[TensorRange, ...] = Field(min_length=1)
    learned: bool = False

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
        bounds = {
            name: choose_range(values, step.calibration, percentile=step.percentile, levels=step.row.levels)
            for name, values in statistics.items()
        }
        return cls(
            source=artifact.path.name,
            source_sha256=artifact.sha256,
            method=step.calibration,
            percentile=step.percentile if step.calibration == "percentile" else None,
            calibration=calibration,
            tensors=tuple(
                TensorRange.of(name, values, *bounds[name], origins.get(name, ""))
                for name, values in statistics.items()
            ),
        )

    @property
    def bounds(self) -> dict[str, tuple[float, float]]:
        """The range of each tensor by its name."""
        return {tensor.name: (tensor.low, tensor.high) for tensor in self.tensors}

    def with_learned(self, learned: dict[str, Range]) -> Ranges:
        """Return the ranges with those replaced that training learned, by the names of their tensors."""
        ends = {name: _float32(limits.low, limits.high) for name, limits in learned.items()}
        tensors = tuple(tensor.model_copy(update=ends.get(tensor.name, {})) for tensor in self.tensors)
        return self.model_copy(update={"tensors": tensors, "learned": bool(learned)})

    def save(self, path: Path, *, force: bool = False) -> None:
        """Write as JSON, whole or not at all; `read_ranges` is the inverse."""
        write_whole(path, as_lines(self.model_dump_json(by_alias=True, indent=1)) + "\n", force=force)

    def belong_to(self, artifact: Artifact, tensors: list[str], path: str) -> Ranges:
        """Return the ranges; raises StageError when they are not the artifact's. path: their file, for messages."""
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
    """Read a file of ranges; raises UsageProblem when it does not exist, StageError that says what is wrong in it."""
    if not path.is_file():
        raise UsageProblem(f"{path}: no such file of ranges; `glyphpress quantize --save-ranges` writes one")
    if words := instead_of(path, "ranges"):
        raise UsageProblem(f"{path} {words}")
    try:
        return Ranges.model_validate(json_value(path.read_bytes()))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "ranges"
        raise StageError(f"{path}: no usable ranges: {where}: {first['msg']}; calibrate again with --data") from error
    except (ValueError, RecursionError) as error:
        raise StageError(f"{path}: no usable ranges: {error}; calibrate again with --data") from error
