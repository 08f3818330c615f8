"""Preprocess: turns uint8 pixels into the input of a model.

It is stored in every artifact, and boards run it too, so it needs numpy alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from targets.errors import ArtifactError
from targets.host.text import as_written

Orientation = Literal["upright", "mirror", "flip", "rot180", "transpose", "rot90", "rot270", "anti-transpose"]
Scale = Literal["0-1", "0-255"]
Layout = Literal["NCHW", "NHWC"]
Dtype = Literal["float32", "uint8"]

ORIENTATIONS: tuple[Orientation, ...] = get_args(Orientation)

TURNS: dict[Orientation, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    "upright": lambda x: x,
    "mirror": lambda x: x[:, :, ::-1],
    "flip": lambda x: x[:, ::-1, :],
    "rot180": lambda x: x[:, ::-1, ::-1],
    "transpose": lambda x: x.swapaxes(1, 2),
    "rot90": lambda x: x.swapaxes(1, 2)[:, ::-1, :],
    "rot270": lambda x: x.swapaxes(1, 2)[:, :, ::-1],
    "anti-transpose": lambda x: x.swapaxes(1, 2)[:, ::-1, ::-1],
}
"""Orientation -> function that turns upright images [N, 28, 28]."""

_TURNING: dict[Orientation, str] = {
    "mirror": "swap left and right",
    "flip": "swap top and bottom",
    "rot180": "turn by 180 degrees",
    "transpose": "transpose: rows become columns",
    "rot90": "turn by 90 degrees counter-clockwise",
    "rot270": "turn by 90 degrees clockwise",
    "anti-transpose": "transpose, then turn by 180 degrees",
}

_GLYPH = (
    "crop to one character, upright, as EMNIST was made: ink 255 on paper 0, centred in 28x28 pixels with 2 of padding"
)

MOST = 1e6
"""Largest mean and std: pixels reach 255, so more is a damaged value, and would overflow float32."""


@dataclass(frozen=True)
class Preprocess:
    """How upright uint8 glyphs [N, 28, 28] become the input of a model.

    orientation: turn applied to upright pixels (`rot90` is counter-clockwise).
    scale: `0-1` divides by 255; `0-255` keeps the raw values.
    mean, std: subtracted and divided by after scaling, in scaled units.
    invert: dark ink on white; applied before scaling.
    layout: position of the channel axis; with one channel the bytes are the same.
    label_offset: the model's output column of class 0 (1 for a letters model that keeps EMNIST's labels 1 to 26).
    dtype: `uint8` where a file takes the turned pixels unchanged; it then applies scale, mean, std and invert itself.
    """

    orientation: Orientation = "upright"
    scale: Scale = "0-1"
    mean: float = 0.0
    std: float = 1.0
    invert: bool = False
    layout: Layout = "NCHW"
    label_offset: int = 0
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        """Reject values that cannot be applied; raises ArtifactError."""
        choices = {"scale": get_args(Scale), "layout": get_args(Layout), "dtype": get_args(Dtype)}
        for key, known in ({"orientation": ORIENTATIONS} | choices).items():
            if getattr(self, key) not in known:
                raise ArtifactError(
                    f"unknown {key} {as_written(getattr(self, key))} in a preprocess; give {', '.join(known)}"
                )
        numbers = all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in (self.mean, self.std))
        if not numbers or type(self.label_offset) is not int or type(self.invert) is not bool:
            raise ArtifactError(
                "preprocess needs numbers for mean and std, a whole label offset, and true or false for invert"
            )
        if not (abs(self.mean) <= MOST and 1 / MOST <= self.std <= MOST) or self.label_offset < 0:
            raise ArtifactError(
                f"preprocess needs a mean of at most {MOST:g} either way, a std from {1 / MOST:g} to {MOST:g} and a "
                "label offset of 0 or more"
            )

    def apply(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        """Return uint8 [N, 28, 28] as `dtype` [N, 1, 28, 28] (NCHW) or [N, 28, 28, 1] (NHWC).

        The steps and their order are those of torchvision's ToTensor and Normalize, so the floats are identical.
        """
        if images.dtype != np.uint8 or images.ndim != 3:
            raise ArtifactError(f"expected uint8 images [N, H, W], got {images.dtype} {list(images.shape)}")
        turned = TURNS[self.orientation](images)
        pixels = np.ascontiguousarray(turned) if self.dtype == "uint8" else self._normalized(turned)
        return pixels[:, None] if self.layout == "NCHW" else pixels[..., None]

    def _normalized(self, turned: NDArray[np.uint8]) -> NDArray[np.float32]:
        pixels = (255 - turned if self.invert else turned).astype(np.float32, order="C")
        if self.scale == "0-1":
            pixels /= np.float32(255)
        if self.mean:
            pixels -= np.float32(self.mean)
        if self.std != 1:
            pixels /= np.float32(self.std)
        return pixels

    def __str__(self) -> str:
        """Return orientation and values in a few words."""
        labels = [f"labels from {self.label_offset}"] * (self.label_offset > 0)
        return ", ".join([self.orientation, self._values(), *labels])

    def unlike(self, other: Preprocess) -> tuple[str, ...]:
        """Return how this preprocess differs from another one, as texts.

        A difference in layout alone is left out, since the bytes are the same, as is one in dtype, which the runtime
        refuses.
        """
        differences = []
        if self.orientation != other.orientation:
            differences.append(f"orientation {self.orientation} instead of {other.orientation}")
        if self.dtype == other.dtype == "float32" and not np.allclose(
            self._extremes(), other._extremes(), rtol=0, atol=1e-3
        ):
            differences.append(f"pixels {self._values()} instead of {other._values()}")
        if self.label_offset != other.label_offset:
            differences.append(f"labels from {self.label_offset} instead of {other.label_offset}")
        return tuple(differences)

    def _values(self) -> str:
        if self.dtype == "uint8":
            return "raw uint8"
        parts = [{"0-1": "0 to 1", "0-255": "0 to 255"}[self.scale]]
        parts += [f"mean {self.mean:g} std {self.std:g}"] * ((self.mean, self.std) != (0.0, 1.0))
        return ", ".join(parts + ["inverted"] * self.invert)

    def _extremes(self) -> tuple[float, float]:
        """Return the model's input values of black and white."""
        black, white = self._normalized(np.array([[[0, 255]]], np.uint8)).ravel().tolist()
        return black, white

    def duties(self) -> dict[str, list[str]]:
        """Return as texts what the `caller` does to make a picture the file's values, and what the `file` does itself.

        `Artifact.duties` adds what depends on the file's input and output.
        """
        values = ["invert: 255 - pixel"] * self.invert + ["divide by 255"] * (self.scale == "0-1")
        values += [f"subtract {self.mean}"] * (self.mean != 0) + [f"divide by {self.std}"] * (self.std != 1)
        turn = [_TURNING[self.orientation]] if self.orientation in _TURNING else []
        raw = self.dtype == "uint8"
        return {"caller": [_GLYPH, *turn, *([] if raw else values)], "file": values if raw else []}

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocess:
        """Rebuild from `to_dict`; raises ArtifactError on unknown keys."""
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise ArtifactError(f"unknown preprocess keys {sorted(unknown)}; was the file made by a newer version?")
        try:
            return cls(**values)
        except TypeError as error:
            raise ArtifactError(f"not a preprocess: {error}; export the model again") from error
