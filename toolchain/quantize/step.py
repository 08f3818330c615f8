"""Quantize: the settings of a quantization, as a step of a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from targets.errors import nearest
from toolchain.core.settings import Step
from toolchain.formats import catalog
from toolchain.quantize.schemes import REGISTRY, Scheme

if TYPE_CHECKING:
    SchemeName = str
else:

    def _scheme(name: str) -> str:
        """Return the name of a scheme; raises ValueError where there is none, and PluginFailed as `Registry.get`."""
        try:
            return REGISTRY.get(name).name
        except KeyError:
            raise ValueError(
                f"no scheme has this name; {nearest(name, REGISTRY, 'the schema lists them', cutoff=0.4)}"
            ) from None

    def _names(schema: dict[str, Any]) -> None:
        schema["enum"] = list(REGISTRY)

    SchemeName = Annotated[str, AfterValidator(_scheme), Field(json_schema_extra=_names)]
Calibration = Literal["min-max", "moving-average", "percentile", "entropy", "mse"]
PERCENTILE = 99.99


class Quantize(Step):
    """Weights of fewer bits; activations by scheme.

    `static-*`: activations are integers with ranges from a calibration set. `dynamic-*`: with ranges taken at run time.
    `weight-*` and `float16`: weights are small in the file, but computations are in float.

    reduce_range: x86 processors without VNNI add two products of an activation (0 to 255) and a weight in 16 bits,
    which saturate for weights above 64; 7-bit weights give the same answers on every processor.

    calibration: see `toolchain.quantize.ranges.choose_range`.
    """

    ends: ClassVar[bool] = True
    kind: Literal["quantize"] = "quantize"
    scheme: SchemeName
    per_channel: bool = Field(default=True, description="a scale for each output channel; false: one for each tensor")
    activations: Literal["uint8", "int8"] | None = Field(
        default=None, description="static schemes; by default what the runtime takes: uint8 (ONNX), int8 (TFLite)"
    )
    calibration_images: int = Field(
        default=512,
        ge=8,
        le=10_000_000,
        description="static schemes: number of training images, or all if there are fewer",
    )
    reduce_range: bool | None = Field(
        default=None,
        description="ONNX: 7-bit int8 weights, safe on x86 without VNNI; default: where the target needs it",
    )
    integer_io: bool = Field(
        default=False, description="static schemes: takes uint8 pixels and does all preprocessing but the rotation"
    )
    calibration: Calibration = Field(default="min-max", description="how static schemes choose a tensor's range")
    percentile: float = Field(default=PERCENTILE, gt=50, le=100, description="of the values, for that `calibration`")
    ranges: str | None = Field(default=None, description="a file of ranges to use instead (quantize --save-ranges)")
    bias_correction: bool = Field(default=False, description="static schemes: correct the mean error of each layer")
    keep: tuple[str, ...] = Field(
        default=(), description="layers that stay float, by the names that `glyphpress explain` shows"
    )
    fallback: int = Field(
        default=0, ge=0, le=100, description="number of files to try with layers kept float where the drop is too large"
    )

    @property
    def row(self) -> Scheme:
        """Return its scheme."""
        return REGISTRY.get(self.scheme)

    @property
    def calibrated(self) -> bool:
        """Return whether activations have calibrated ranges."""
        return self.row.calibrated

    @property
    def needs_images(self) -> bool:
        """Return whether a calibration set has to be drawn."""
        return self.calibrated and (not self.ranges or self.bias_correction)

    @property
    def needs_training(self) -> bool:
        """Return whether training images are needed: to calibrate, or to choose layers."""
        return self.needs_images or self.fallback > 0

    @property
    def weight_bits(self) -> int:
        """Return the bits of a weight in the file."""
        return self.row.weights

    @property
    def reduced(self) -> bool:
        """Return whether int8 weights are limited to 7 bits; they are unless the step or the target says otherwise."""
        return self.reduce_range is not False

    @property
    def largest_level(self) -> int:
        """Return the largest integer of a weight; the smallest is its negative."""
        return 7 if self.weight_bits == 4 else 64 if self.reduced else 127

    def for_target(self, *, saturates: bool) -> Quantize:
        """Return the step with `reduce_range` decided. saturates: whether the target's 8-bit kernels may saturate."""
        return self if self.reduce_range is not None else self.model_copy(update={"reduce_range": saturates})

    def refusal(self, kind: str) -> str | None:
        """Return why a file of format `kind` cannot be quantized in this way, or None where it can."""
        row, file_format = self.row, catalog.get(kind)
        kernels = f"{file_format.runtime}'s kernels"
        if kind not in row.formats:
            return row.refused.get(kind, f"this scheme makes {', '.join(row.formats)} only")
        if kind in row.channels_only and not self.per_channel:
            return row.channels_only[kind]
        if self.activations and self.activations not in file_format.activations:
            return f"{kernels} take {file_format.activations[0]} activations; leave `activations` out"
        if self.integer_io and self.activations == "int8" and not file_format.converts_pixels:
            return f"pixels are uint8, and {kernels} take and give the same type; leave `activations` out"
        if self.reduce_range and not file_format.saturates:
            return f"{kernels} do not saturate; leave `reduce_range` out"
        return None

    def other_schemes(self) -> str:
        """Return the advice which schemes to take where this one fails."""
        if self.row.activations == "int16":
            return "take --scheme static-int8, or one that computes in float between layers: weight-int8, dynamic-int8"
        if self.calibrated:
            return "take --scheme weight-int8, dynamic-int8 or float16, which compute in float between layers"
        return "take --scheme float16, which leaves all operators as they are"

    @model_validator(mode="after")
    def _fits_scheme(self) -> Self:
        """Refuse settings that do not apply to the scheme; none is silently ignored."""
        if not self.row.scaled and not self.per_channel:
            raise ValueError(f"{self.scheme} has no scales; leave `per_channel` out")
        if self.integer_io and self.row.activations != "int8":
            raise ValueError(
                f"{self.scheme} computes with more than 8 bits; `integer_io` needs static-int8 or static-int4"
            )
        if self.activations and self.row.activations != "int8":
            raise ValueError(f"{self.scheme} has no activations of 8 bits to choose; leave `activations` out")
        if self.reduce_range is not None and not self.row.saturating:
            raise ValueError(f"{self.scheme} has no products of 8 bits that could saturate; leave `reduce_range` out")
        return self

    @model_validator(mode="after")
    def _calibration_fits(self) -> Self:
        """Refuse settings of ranges where the scheme has none, or where they are read from a file."""
        method = self.calibration
        if self.percentile != PERCENTILE and method != "percentile":
            raise ValueError(f"`percentile` does not apply to `calibration` {method}; set that to percentile")
        if self.ranges and method != "min-max":
            raise ValueError(f"the ranges are taken from {self.ranges}, so `calibration` {method} has no effect")
        needs_ranges = method != "min-max" or self.ranges or self.bias_correction
        if needs_ranges and not self.calibrated:
            raise ValueError(
                f"{self.scheme} has no ranges: `calibration`, `ranges` and `bias_correction` need a static scheme"
            )
        return self
