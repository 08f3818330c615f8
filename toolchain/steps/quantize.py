"""Quantize: fewer bits a weight, and a number."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from toolchain.steps.strict import Strict

Scheme = Literal["dynamic-int8", "static-int8", "static-int8-act16"]
Calibration = Literal["min-max", "moving-average", "percentile", "entropy", "mse"]
PERCENTILE = 99.99


class Quantize(Strict):
    """8-bit weights, per channel; activations by scheme.

    reduce_range: x86 processors without VNNI add two products of an activation (0 to 255) and a weight in 16 bits,
    which saturate beyond weights of 64; 7 bits of them give the same answers on every processor.

    calibration: see `toolchain.quantize.clipping.chosen`.
    """

    kind: Literal["quantize"] = "quantize"
    scheme: Scheme
    calibration_images: int = Field(default=512, ge=8, description="images of the train split (static schemes)")
    reduce_range: bool = Field(default=True, description="ONNX: weights of 7 bits, safe on x86 without VNNI")
    integer_io: bool = Field(default=False, description="TFLite static schemes: integer input and output")
    calibration: Calibration = Field(default="min-max", description="how static schemes choose a tensor's range")
    percentile: float = Field(default=PERCENTILE, gt=50, le=100, description="of all values, kept by that calibration")
    ranges: str = Field(default="", description="a file of ranges to take instead (quantize --save-ranges)")
    bias_correction: bool = Field(default=False, description="static schemes: mend the mean error of each layer")

    @model_validator(mode="after")
    def _calibration_means_something(self) -> Self:
        if self.percentile != PERCENTILE and self.calibration != "percentile":
            raise ValueError(f'percentile has no part in calibration = "{self.calibration}"; set it to "percentile"')
        if self.ranges and self.calibration != "min-max":
            raise ValueError(f'ranges are taken from {self.ranges}, so calibration = "{self.calibration}" has no part')
        asked = self.calibration != "min-max" or self.ranges or self.bias_correction
        if asked and not self.calibrated:
            raise ValueError(
                f"{self.scheme} has no ranges: calibration, ranges and bias_correction are for static ones"
            )
        return self

    @property
    def calibrated(self) -> bool:
        """Return whether activations have ranges that are set beforehand."""
        return self.scheme != "dynamic-int8"

    @property
    def needs_images(self) -> bool:
        """Return whether a calibration set has to be drawn."""
        return self.calibrated and (not self.ranges or self.bias_correction)

    @property
    def top_level(self) -> int:
        """Return the largest level of a weight, of which as many lie below zero as above."""
        return 64 if self.reduce_range else 127
