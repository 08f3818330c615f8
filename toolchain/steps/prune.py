"""Prune: what of a model goes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from toolchain.steps.strict import Strict


class Prune(Strict):
    """Structured pruning: whole channels go, the rest is fine-tuned."""

    kind: Literal["prune"] = "prune"
    ratio: float = Field(gt=0, lt=0.95, description="share of every layer's channels that goes")
    epochs: int = Field(default=4, ge=0, description="epochs of fine-tuning on the train split")
    round_to: int = Field(default=8, ge=1, description="channel counts are kept multiples of this")
