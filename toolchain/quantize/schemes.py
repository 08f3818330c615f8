"""The schemes of quantization, one row each: bits of weights and activations, formats, and the function for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Literal

from glyphpress.registry import Registry, instance
from toolchain.formats import catalog

if TYPE_CHECKING:
    from pathlib import Path

    from targets.artifact import Artifact

Activations = Literal["float", "dynamic", "int8", "int16"]


@dataclass(frozen=True)
class Scheme:
    """One scheme.

    weights: bits of a weight in the file. activations: `float`, integers with ranges taken at run time (`dynamic`), or
    integers with calibrated ranges. formats: format -> "module:function" that takes an artifact, the step, the ranges
    (None without a calibration) and the converters' log, and returns the bytes of the quantized file. summary: one line
    for the help. refused: format -> why no such file is made. scaled: whether weights have scales, one for each channel
    or tensor. channels_only: format -> why one scale for a tensor is refused. stays_float: whether the file's weights
    are float32 on purpose, so that no note says that they are.
    """

    name: str
    weights: Literal[4, 8, 16]
    activations: Activations
    formats: Mapping[str, str]
    summary: str
    refused: Mapping[str, str] = field(default_factory=dict)
    scaled: bool = True
    channels_only: Mapping[str, str] = field(default_factory=dict)
    stays_float: bool = False

    @property
    def calibrated(self) -> bool:
        """Return whether activations have calibrated ranges."""
        return self.activations in ("int8", "int16")

    @property
    def levels(self) -> int:
        """Return the number of levels of a calibrated activation."""
        return 2**16 if self.activations == "int16" else 2**8

    @property
    def saturating(self) -> bool:
        """Return whether 8-bit weights are multiplied by integers in kernels that may saturate (never in LiteRT).

        In `static-int4` those are the weights of convolutions with one input channel.
        """
        return self.activations in ("int8", "dynamic") and any(catalog.get(name).saturates for name in self.formats)

    def quantizer(self, kind: str) -> Callable[..., bytes]:
        """Return the function that makes a file of that format."""
        function: Callable[..., bytes] = resolve_name(self.formats[kind])
        return function


@dataclass(frozen=True)
class Quantizer:
    """What all schemes of one format share.

    packages: those whose versions the sidecar records. float_file: "module:Class" of the format's
    `toolchain.quantize.calibrate.FloatFile`, which takes the artifact and a folder.
    """

    packages: tuple[str, ...]
    float_file: str

    def open(self, artifact: Artifact, folder: Path) -> Any:
        """Return a float artifact as a `FloatFile`; raises StageError or CheckpointError on a quantized one.

        folder: takes another form of the file; it must exist as long as the open file is used.
        """
        return resolve_name(self.float_file)(artifact, folder)


_ONNX = "toolchain.quantize.onnx"
_TFLITE = "toolchain.quantize.tflite:quantized_tflite"
_CHANNELS: dict[str, str] = {
    "tflite": "LiteRT's dynamic kernels need a scale for each channel; with one for a tensor their answers are wrong"
}
_NO_DYNAMIC_INT4 = (
    "onnxruntime's dynamic kernels take only int8 weights, of Gemm and MatMul; weight-int4 is as small and runs like "
    "float, static-int4 is faster"
)
_ROWS = (
    Scheme(
        *("dynamic-int8", 8, "dynamic", {"onnx": f"{_ONNX}:dynamic", "tflite": _TFLITE}),
        "8-bit weights; activations become integers at run time",
        channels_only=_CHANNELS,
    ),
    Scheme(
        *("dynamic-int4", 4, "dynamic", {"tflite": _TFLITE}),
        "4-bit weights; activations become integers at run time",
        refused={"onnx": _NO_DYNAMIC_INT4},
        channels_only=_CHANNELS,
    ),
    Scheme(
        *("static-int8", 8, "int8", {"onnx": f"{_ONNX}:static", "tflite": _TFLITE}),
        "8-bit weights and activations, calibrated",
    ),
    Scheme(
        *("static-int8-act16", 8, "int16", {"tflite": _TFLITE}),
        "8-bit weights and 16-bit activations, calibrated",
        refused={"onnx": "onnxruntime has no kernels with int16 activations"},
    ),
    Scheme(
        *("static-int4", 4, "int8", {"onnx": f"{_ONNX}:static", "tflite": _TFLITE}),
        "4-bit weights and 8-bit activations, calibrated",
    ),
    Scheme(
        *("weight-int8", 8, "float", {"onnx": f"{_ONNX}:weight_only", "tflite": _TFLITE}),
        "8-bit weights, computed in float",
    ),
    Scheme(
        *("weight-int4", 4, "float", {"onnx": f"{_ONNX}:weight_only", "tflite": _TFLITE}),
        "4-bit weights, computed in float",
    ),
    Scheme(
        *("float16", 16, "float", {"onnx": f"{_ONNX}:weight_only", "tflite": _TFLITE}),
        "16-bit float weights, computed in float",
        scaled=False,
    ),
)
SCHEMES = {row.name: row for row in _ROWS}
REGISTRY = Registry("scheme", lambda: SCHEMES, instance(Scheme))
"""The schemes above, and those of plug-ins."""
QUANTIZERS = {
    "onnx": Quantizer(("onnxruntime", "onnx"), "toolchain.quantize.onnx:FloatOnnx"),
    "tflite": Quantizer(("litert-quantizer",), "toolchain.quantize.tflite:FloatTflite"),
}
"""Format -> what quantizes its files; files of other formats are converted from one of these."""
