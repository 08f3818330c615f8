"""Explanation: layer by layer, what a quantized file does to the numbers of the float file it was made from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import log10, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import Dataset, Images, ImageSource
from targets.artifact import Artifact
from targets.host.runtime_session import TensorCodec
from toolchain.core.errors import EvidenceError, UsageProblem
from toolchain.core.progress import Progress, silent
from toolchain.formats import catalog
from toolchain.formats.graph import Layer
from toolchain.formats.kernels import Kernel
from toolchain.formats.trace import Trace


@dataclass(frozen=True)
class Error:
    """How far values lie from the exact ones.

    signal, noise: root mean square of the exact values and of the differences. cosine: of the two tensors, None where
    one is all zero. saturated: the share of values that the integer range cut off, None where there is none.
    """

    signal: float
    noise: float
    cosine: float | None
    saturated: float | None

    @property
    def sqnr_db(self) -> float | None:
        """The ratio of signal to quantization noise in decibels, None where either is zero."""
        return 20 * log10(self.signal / self.noise) if self.signal and self.noise else None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        return {"sqnr_db": self.sqnr_db} | vars(self)


class ErrorSums:
    """Sums over batches, in float64."""

    def __init__(self, port: TensorCodec | None) -> None:
        """Take how the integers of the tensor stand for numbers, None where it holds floats."""
        self._port = port
        self._sums = np.zeros(4)
        self._values = self._cut = 0

    def add(self, exact: NDArray[np.float32], seen: NDArray[np.float32]) -> None:
        """Take in a batch of one tensor."""
        x, y = (values.astype(np.float64).reshape(-1) for values in (exact, seen))
        self._sums += (x @ x, y @ y, x @ y, (y - x) @ (y - x))
        self._values += x.size
        if self._port is not None:
            self._cut += _cut_off(self._port, x)

    def error(self) -> Error:
        """Return the error of everything that was added."""
        power, other, both, noise = self._sums
        cosine = float(both / sqrt(power * other)) if power and other else None
        saturated = self._cut / self._values if self._port is not None else None
        return Error(sqrt(power / self._values), sqrt(noise / self._values), cosine, saturated)


def _cut_off(port: TensorCodec, exact: NDArray[np.float64]) -> int:
    """Return how many values lie beyond the range by more than the half step that rounding costs anyway."""
    limits = np.iinfo(port.spec.dtype)
    low, high = (port.scale * (end - port.zero_point) for end in (limits.min, limits.max))
    half = port.scale / 2
    return int(np.count_nonzero((exact < low - half) | (exact > high + half)))


@dataclass(frozen=True)
class LayerError:
    """One layer of the candidate, in the order of execution.

    weights, values: the types that its weights are stored in, and its result. whole: the error of its result in the
    whole candidate, which piles up from layer to layer. alone: what this layer adds itself, behind exact inputs that
    were only rounded to the candidate's steps. kernel: what it runs in.
    """

    layer: str
    operator: str
    weights: str
    values: str
    whole: Error
    alone: Error
    kernel: Kernel | None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        words = {name: getattr(self, name) for name in ("layer", "operator", "weights", "values")}
        kernel = asdict(self.kernel) if self.kernel else None
        return words | {"whole": self.whole.to_dict(), "alone": self.alone.to_dict(), "kernel": kernel}


@dataclass(frozen=True)
class Explanation:
    """The error of every layer of `candidate` against `base`, and the other operators that it computes in float."""

    base: Artifact
    candidate: Artifact
    images: Dataset
    layers: tuple[LayerError, ...]
    others: tuple[Kernel, ...]

    def blame(self) -> tuple[LayerError, ...]:
        """Return the quantized layers, the one that adds the most error itself first."""
        own = [one for one in self.layers if one.weights != "float32" and one.alone.noise]
        return tuple(sorted(own, key=lambda one: one.alone.sqnr_db if one.alone.sqnr_db is not None else -np.inf))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        files = {"base": self.base, "candidate": self.candidate}
        named = {role: {"file": one.path.name, "sha256": one.sha256} for role, one in files.items()}
        drawn = {"origin": self.images.origin, "count": len(self.images), "sha256": self.images.sha256}
        rows = {
            "layers": [one.to_dict() for one in self.layers],
            "float_operators": [asdict(one) for one in self.others],
        }
        return named | {"format": self.candidate.format, "images": drawn} | rows


def explain(base: Artifact, candidate: Artifact, images: Dataset, *, progress: Progress = silent) -> Explanation:
    """Explain a quantized file by the float file that it was made from, on these images.

    Raises UsageProblem for files of two formats, or where nothing is quantized or the base is; EvidenceError for files
    of two models; StageError where a runtime cannot show the layers.
    """
    if base.format != candidate.format or catalog.get(base.format).opaque:
        pairs_of = " or ".join(f"two {readable.suffix}" for readable in catalog.readable())
        raise UsageProblem(
            f"{base.path.name} and {candidate.path.name} cannot be compared layer by layer; give {pairs_of}"
        )
    own_format = catalog.get(base.format)
    exact, rounded = own_format.trace(base), own_format.trace(candidate)
    pairs = _paired(exact, rounded, base, candidate)
    # Before the sessions that show the layers are opened, so that its own does not stand beside them in memory.
    ran = own_format.kernels(candidate)
    ports = rounded.graph.ports
    whole = {own.name: ErrorSums(ports.get(own.result)) for _, own in pairs}
    alone = {own.name: ErrorSums(ports.get(own.result)) for _, own in pairs}
    done = 0
    # One after the other, each in a session of its own: the two hold the expanded weights twice.
    for tallies in (whole, alone):
        rounded = own_format.trace(candidate)
        for some in _batches(images.images, exact, rounded, base.path.name):
            # A quantized file may take raw pixels.
            given, pixels = exact.whole(base.preprocess.apply(some)), candidate.preprocess.apply(some)
            meant = {own.name: given[source.name] for source, own in pairs}
            seen = rounded.whole(pixels) if tallies is whole else rounded.alone(pixels, meant)
            for name, values in meant.items():
                tallies[name].add(values, seen[name])
            done += len(some)
            progress(f"explain {candidate.path.name}", done, 2 * len(images))
    by_layer = {one.layer: one for one in ran if one.layer}
    rows = tuple(
        LayerError(
            own.name,
            own.kind,
            own.weights.dtype,
            ports[own.result].spec.dtype if own.result in ports else "float32",
            whole[own.name].error(),
            alone[own.name].error(),
            by_layer.get(own.name),
        )
        for _, own in pairs
    )
    return Explanation(base, candidate, images, rows, tuple(one for one in ran if not one.layer))


def _paired(exact: Trace, rounded: Trace, base: Artifact, candidate: Artifact) -> list[tuple[Layer, Layer]]:
    """Return the layers of both files two by two: by their names where those agree, else in their order."""
    names = f"{base.path.name} and {candidate.path.name}"
    ours, theirs = exact.graph.layers, rounded.graph.layers
    if not ours:
        raise UsageProblem(f"{base.path.name} has no layer with weights to explain; give a file of a network")
    if any(layer.weights.dtype != "float32" for layer in ours):
        raise UsageProblem(f"{base.path.name} is quantized itself; give the float file that the other was made from")
    known = {layer.name: layer for layer in ours}
    if set(known) == {layer.name for layer in theirs}:
        ours = tuple(known[layer.name] for layer in theirs)
    same = [layer.weights.size for layer in ours] == [layer.weights.size for layer in theirs]
    origins = {base.checkpoint_sha256, candidate.checkpoint_sha256} - {None}
    if not same or len(origins) > 1 or base.classes != candidate.classes:
        raise EvidenceError(f"{names} are not of one model; give the float file that {candidate.path.name} was made of")
    if all(layer.weights.dtype == "float32" for layer in theirs):
        raise UsageProblem(f"{candidate.path.name} holds no quantized layer; give the quantized file second")
    return list(zip(ours, theirs, strict=True))


def _batches(images: ImageSource, exact: Trace, rounded: Trace, name: str) -> Iterator[Images]:
    """Yield the images in batches that both files take; of a fixed batch only whole ones."""
    fixed = {trace.fixed for trace in (exact, rounded)} - {0}
    size = max(fixed) if fixed else min(exact.batch, rounded.batch)
    if len(fixed) > 1 or (fixed and size > len(images)):
        raise UsageProblem(f"{name} and its candidate take batches of {sorted(fixed)}; give files of one image a batch")
    for start in range(0, len(images), size):
        if start + size <= len(images) or not fixed:
            yield images[start : start + size]
