"""Explanation: how far the result of each layer of a quantized file is from that of its float file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import log10, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import Dataset, Images, ImageSource
from targets.artifact import Artifact
from targets.host.runtime_session import TensorCodec
from toolchain.core.context import Progress, silent
from toolchain.core.errors import EvidenceError, UsageProblem
from toolchain.core.json_codec import to_json
from toolchain.formats import catalog
from toolchain.formats.graph import Kernel, Layer, Trace


@dataclass(frozen=True)
class Error:
    """The error of the values of a quantized file against those of the float file.

    signal, noise: root mean square of the float file's values and of the differences. cosine: the cosine similarity of
    the two tensors, None where one is all zero. saturated: the share of values outside the range of the integers, None
    where the tensor holds floats.
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
        return {"sqnr_db": self.sqnr_db} | to_json(self)


class ErrorSums:
    """The error of one tensor, summed over batches in float64."""

    def __init__(self, codec: TensorCodec | None) -> None:
        """Take the quantization of the tensor, None where it holds floats."""
        self._codec = codec
        self._sums = np.zeros(4)
        self._count = self._saturated = 0

    def add(self, exact: NDArray[np.float32], measured: NDArray[np.float32]) -> None:
        """Add a batch: the tensor in the float file and in the quantized one, of the same size."""
        x, y = (values.astype(np.float64).reshape(-1) for values in (exact, measured))
        self._sums += (x @ x, y @ y, x @ y, (y - x) @ (y - x))
        self._count += x.size
        if self._codec is not None:
            self._saturated += _count_saturated(self._codec, x)

    def error(self) -> Error:
        """Return the error over all batches that were added."""
        exact_power, measured_power, product, noise = self._sums
        cosine = float(product / sqrt(exact_power * measured_power)) if exact_power and measured_power else None
        saturated = self._saturated / self._count if self._codec is not None else None
        return Error(sqrt(exact_power / self._count), sqrt(noise / self._count), cosine, saturated)


def _count_saturated(codec: TensorCodec, exact: NDArray[np.float64]) -> int:
    """Return how many values are outside the integers' range by more than half a step, the error of rounding."""
    limits = np.iinfo(codec.spec.dtype)
    low, high = (codec.scale * (limit - codec.zero_point) for limit in (limits.min, limits.max))
    half_step = codec.scale / 2
    return int(np.count_nonzero((exact < low - half_step) | (exact > high + half_step)))


@dataclass(frozen=True)
class LayerError:
    """One layer of the candidate and its errors.

    weights, values: the dtypes of its stored weights and of its result. whole: the error of its result when the whole
    candidate runs, so that errors of earlier layers are included. alone: the error of this layer alone: its inputs are
    those of the float file, only rounded as the candidate rounds them. kernel: the kernel that it runs in, None where
    that is not known.
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
        return to_json(self) | {"whole": self.whole.to_dict(), "alone": self.alone.to_dict()}


@dataclass(frozen=True)
class Explanation:
    """The error of every layer of `candidate` against `base`, in the order of execution.

    others: the kernels of operators without weights that `candidate` computes in float.
    """

    base: Artifact
    candidate: Artifact
    images: Dataset
    layers: tuple[LayerError, ...]
    others: tuple[Kernel, ...]

    def blame(self) -> tuple[LayerError, ...]:
        """Return the quantized layers that have an error of their own, the one with the largest first."""
        erring = [layer for layer in self.layers if layer.weights != "float32" and layer.alone.noise]
        return tuple(
            sorted(erring, key=lambda layer: layer.alone.sqnr_db if layer.alone.sqnr_db is not None else -np.inf)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        artifacts = {"base": self.base, "candidate": self.candidate}
        files = {role: {"file": artifact.path.name, "sha256": artifact.sha256} for role, artifact in artifacts.items()}
        images = {"origin": self.images.origin, "count": len(self.images), "sha256": self.images.sha256}
        rows = {
            "layers": [layer.to_dict() for layer in self.layers],
            "float_operators": [to_json(kernel) for kernel in self.others],
        }
        return files | {"format": self.candidate.format, "images": images} | rows


def explain(base: Artifact, candidate: Artifact, images: Dataset, *, progress: Progress = silent) -> Explanation:
    """Compare a quantized file layer by layer with the float file that it was made from, on these images.

    Raises UsageProblem where the files have different formats, the base is quantized or the candidate is not;
    EvidenceError where they are not of the same model; StageError where a runtime cannot return the layers' results.
    """
    if base.format != candidate.format or catalog.get(base.format).opaque:
        pairs = " or ".join(f"two {readable.suffix}" for readable in catalog.readable())
        raise UsageProblem(
            f"{base.path.name} and {candidate.path.name} cannot be compared layer by layer; give {pairs}"
        )
    file_format = catalog.get(base.format)
    float_trace, quantized_trace = file_format.trace(base), file_format.trace(candidate)
    layer_pairs = _layer_pairs(float_trace, quantized_trace, base, candidate)
    # This opens a session too. It comes first, so that it is closed before those that return the layers are opened.
    kernels = file_format.kernels(candidate)
    codecs = quantized_trace.graph.codecs
    whole = {layer.name: ErrorSums(codecs.get(layer.result)) for _, layer in layer_pairs}
    alone = {layer.name: ErrorSums(codecs.get(layer.result)) for _, layer in layer_pairs}
    done = 0
    # One pass after the other, each in its own session: two at once would hold the expanded weights twice.
    for sums in (whole, alone):
        quantized_trace = file_format.trace(candidate)
        for batch in _batches(images.images, float_trace, quantized_trace, base.path.name):
            # The two files may differ in their preprocessing: a quantized one may take raw pixels.
            pixels = candidate.preprocess.apply(batch)
            float_results = float_trace.whole(base.preprocess.apply(batch))
            exact = {layer.name: float_results[float_layer.name] for float_layer, layer in layer_pairs}
            measured = quantized_trace.whole(pixels) if sums is whole else quantized_trace.alone(pixels, exact)
            for name, values in exact.items():
                sums[name].add(values, measured[name])
            done += len(batch)
            progress(f"explain {candidate.path.name}", done, 2 * len(images))
    kernel_of = {kernel.layer: kernel for kernel in kernels if kernel.layer}
    rows = tuple(
        LayerError(
            layer.name,
            layer.kind,
            layer.weights.dtype,
            codecs[layer.result].spec.dtype if layer.result in codecs else "float32",
            whole[layer.name].error(),
            alone[layer.name].error(),
            kernel_of.get(layer.name),
        )
        for _, layer in layer_pairs
    )
    return Explanation(base, candidate, images, rows, tuple(kernel for kernel in kernels if not kernel.layer))


def _layer_pairs(
    float_trace: Trace, quantized_trace: Trace, base: Artifact, candidate: Artifact
) -> list[tuple[Layer, Layer]]:
    """Return each layer of the candidate behind its layer of the base: of the same name, else at the same position.

    Raises UsageProblem and EvidenceError as `explain` does.
    """
    names = f"{base.path.name} and {candidate.path.name}"
    float_layers, quantized_layers = float_trace.graph.layers, quantized_trace.graph.layers
    if not float_layers:
        raise UsageProblem(f"{base.path.name} has no layer with weights to explain; give a file of a network")
    if any(layer.weights.dtype != "float32" for layer in float_layers):
        raise UsageProblem(f"{base.path.name} is quantized itself; give the float file that the other was made from")
    by_name = {layer.name: layer for layer in float_layers}
    if set(by_name) == {layer.name for layer in quantized_layers}:
        float_layers = tuple(by_name[layer.name] for layer in quantized_layers)
    same_sizes = [layer.weights.size for layer in float_layers] == [layer.weights.size for layer in quantized_layers]
    checkpoints = {base.checkpoint_sha256, candidate.checkpoint_sha256} - {None}
    if not same_sizes or len(checkpoints) > 1 or base.classes != candidate.classes:
        raise EvidenceError(f"{names} are not of one model; give the float file that {candidate.path.name} was made of")
    if all(layer.weights.dtype == "float32" for layer in quantized_layers):
        raise UsageProblem(f"{candidate.path.name} holds no quantized layer; give the quantized file second")
    return list(zip(float_layers, quantized_layers, strict=True))


def _batches(images: ImageSource, float_trace: Trace, quantized_trace: Trace, name: str) -> Iterator[Images]:
    """Yield the images in batches that both files take; where a file fixes the batch, only full ones.

    name: of the float file, for the UsageProblem that is raised where the two files fix different batches or there are
    fewer images than one batch.
    """
    fixed = {trace.fixed_batch for trace in (float_trace, quantized_trace)} - {0}
    size = max(fixed) if fixed else min(float_trace.batch, quantized_trace.batch)
    if len(fixed) > 1 or (fixed and size > len(images)):
        raise UsageProblem(f"{name} and its candidate take batches of {sorted(fixed)}; give files of one image a batch")
    for start in range(0, len(images), size):
        if start + size <= len(images) or not fixed:
            yield images[start : start + size]
