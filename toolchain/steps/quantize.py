"""Quantize: fewer bits a weight, and a number."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from toolchain.steps.strict import Strict

Scheme = Literal["dynamic-int8", "static-int8", "static-int8-act16"]


class Quantize(Strict):
    """8-bit weights, per channel; activations by scheme.

    reduce_range: x86 processors without VNNI add two products of an activation (0 to 255) and a weight in 16 bits,
    which saturate beyond weights of 64; 7 bits of them give the same answers on every processor.
    """

    kind: Literal["quantize"] = "quantize"
    scheme: Scheme
    calibration_images: int = Field(default=512, ge=8, description="images of the train split (static schemes)")
    reduce_range: bool = Field(default=True, description="ONNX: weights of 7 bits, safe on x86 without VNNI")
    integer_io: bool = Field(default=False, description="TFLite static schemes: integer input and output")

    @property
    def calibrated(self) -> bool:
        """Return whether ranges come from a calibration set."""
        return self.scheme != "dynamic-int8"

    @property
    def top_level(self) -> int:
        """Return the largest level of a weight, of which as many lie below zero as above."""
        return 64 if self.reduce_range else 127
