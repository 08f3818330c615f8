"""Qat: training that knows it will be quantized."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from toolchain.recipe.strict import Strict


class Qat(Strict):
    """Quantization-aware training (Jacob et al., arXiv:1712.05877) for the quantize step that follows.

    Weights and the inputs of layers are rounded in training as that step will round them; what it learns of ranges is
    what the file gets. The model as it came teaches, as in `distill`.
    """

    kind: Literal["qat"] = "qat"
    epochs: int = Field(default=4, ge=1, le=100_000, description="epochs on the train split")
    lr: float = Field(default=1e-3, gt=0, le=0.1, description="peak of the learning rate")
    augment: float = Field(default=1.0, ge=0, le=3, description="strength of the random affine maps; 0 none")
    teacher: str = Field(default="", description="a checkpoint to learn from; empty learns from the model as it came")
    temperature: float = Field(default=2.0, ge=1, le=20, description="softens the probabilities of both")
    soft: float = Field(default=0.9, gt=0, le=1, description="weight of the teacher's answers against the labels")
