"""Fidelity: how closely a quantized file answers like the float file that it was made from."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite
from typing import Any


@dataclass(frozen=True)
class Fidelity:
    """A comparison of a quantized file with its float file on a few images.

    base: the float file's name. images: how many both files read. sqnr_db: ratio of signal to quantization noise of all
    their logits in decibels, None where none differs. agreement: share of the images with the same answer. collapsed:
    whether either is below what sound quantization of that many bits keeps. worst: the layers that add the most error
    themselves, and their SQNR; only of a file that collapsed.
    """

    base: str
    images: int
    sqnr_db: float | None
    agreement: float
    collapsed: bool = False
    worst: dict[str, float | None] = field(default_factory=dict)

    @property
    def sqnr_text(self) -> str:
        """Return `42.3 dB`, or `exact`."""
        return "exact" if self.sqnr_db is None else f"{self.sqnr_db:.1f} dB"

    @property
    def agreement_text(self) -> str:
        """Return `99.6 %`; what is not all is never rounded up to all."""
        return "100 %" if self.agreement == 1 else f"{min(self.agreement * 100, 99.9):.1f} %"

    def __str__(self) -> str:
        """Return `SQNR of the logits 42.3 dB, 99.6 % equal answers on 256 images`."""
        return f"SQNR of the logits {self.sqnr_text}, {self.agreement_text} equal answers on {self.images} images"

    def warning(self, file: str) -> str | None:
        """Return what is wrong with `file`, the worst layers and what to do, on one line; None where all is well."""
        if not self.collapsed:
            return None
        noise = [f"{layer} ({'exact' if db is None else f'{db:.1f} dB'})" for layer, db in self.worst.items()]
        worst = f"; most error comes from {', '.join(noise)}" if noise else ""
        return (
            f"{file} does not answer like {self.base}: {self}{worst}; see `glyphpress explain {self.base} {file} "
            "--data ...`, keep such layers float (--keep LAYER, --fallback 8), or take another scheme"
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Fidelity:
        """Rebuild from `dataclasses.asdict`; raises ValueError, KeyError or TypeError on anything else."""
        read = cls(**values)
        if not isinstance(read.worst, dict):
            raise TypeError("the worst layers of a fidelity are no table")
        numbers = [one for one in (read.sqnr_db, *read.worst.values()) if one is not None]
        if not (isinstance(read.base, str) and isinstance(read.collapsed, bool) and 0 <= read.agreement <= 1):
            raise ValueError("fidelity holds a name, a share between 0 and 1 and a yes or no")
        if read.images < 1 or not all(isfinite(number) for number in numbers):
            raise ValueError("fidelity needs images and finite numbers")
        return read
