"""Raw pixels as the input of a file: the preprocessing becomes the quantization of its first tensor."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from targets.preprocess import Preprocess
from toolchain.core.errors import StageError


@dataclass(frozen=True)
class PixelInput:
    """A model's input x as pixels p: x = sign * scale * (p - zero_point) + shift.

    A file declares `scale` and the whole number `zero_point`, at no cost. The first layer takes in what is left:
    `sign` (-1 where the model wants dark ink on white) times its weights, and `shift` (of less than half a grey level)
    times their sums in its bias. Padding is zero in x, and so `zero_point` in pixels.
    """

    preprocess: Preprocess
    scale: float
    zero_point: int
    sign: int
    shift: float

    @classmethod
    def of(cls, preprocess: Preprocess) -> PixelInput:
        """Raise StageError where the mean is no pixel: its zero would be outside of 0 to 255."""
        unit = 255.0 if preprocess.scale == "0-1" else 1.0
        zero = preprocess.mean * unit
        if preprocess.invert:
            zero = 255 - zero
        if not 0 <= zero <= 255:
            raise StageError(
                f"`integer_io`: a mean of {preprocess.mean:g} is outside of what pixels can be; leave `integer_io` out"
            )
        sign, scale, point = -1 if preprocess.invert else 1, 1 / (unit * preprocess.std), round(zero)
        return cls(preprocess, scale, point, sign, sign * scale * (point - zero))

    @property
    def given(self) -> Preprocess:
        """Return what is left to do before the file: it takes pixels, turned as the model was trained."""
        return replace(self.preprocess, dtype="uint8")

    def values(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return what uint8 [N, 28, 28] stand for in the file, without sign and shift: scale * (p - zero_point)."""
        pixels = self.given.apply(images).astype(np.float32)
        return (pixels - np.float32(self.zero_point)) * np.float32(self.scale)


def refuse_first(kind: str) -> StageError:
    """Return the error for a model whose first layer cannot take in sign and shift."""
    return StageError(
        f"integer_io: the input goes to {kind}, but a mean between two grey levels, or an inversion, has to go into "
        "the weights of a convolution or dense layer; leave `integer_io` out"
    )
