"""Equalize: the channels of neighbouring layers are brought to one scale."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from toolchain.recipe.strict import Strict


class Equalize(Strict):
    """Cross-layer equalization (Nagel, arXiv:1906.04721): what a layer's channel shrinks by, the next one grows by.

    What the model computes stays; quantized per tensor it loses less, since no channel is much smaller than another.
    """

    kind: Literal["equalize"] = "equalize"
    sweeps: int = Field(
        default=20, ge=1, le=1000, description="at most so many times over all pairs; it ends once nothing moves"
    )
