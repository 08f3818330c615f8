"""Distill: a model learns another one's answers."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from toolchain.recipe.strict import Strict


class Distill(Strict):
    """Knowledge distillation (Hinton, arXiv:1503.02531): a student is fitted to the answers of the model as it came.

    The loss is `soft` times the divergence from the teacher's probabilities at `temperature` (times its square, so that
    gradients keep their size), and the rest the usual loss on labels.
    """

    kind: Literal["distill"] = "distill"
    student: str = Field(default="", description="a reference architecture; empty goes on with the model as it stands")
    channels: tuple[int, ...] = Field(default=(), description="of the student's convolutions; empty takes its own")
    dropout: float | None = Field(
        default=None, ge=0, lt=1, description="of the student in training; empty takes its own"
    )
    teacher: str = Field(default="", description="a checkpoint to learn from; empty learns from the model as it came")
    epochs: int = Field(default=24, ge=1, le=100_000, description="epochs on the train split")
    augment: float = Field(default=1.0, ge=0, le=3, description="strength of the random affine maps; 0 none")
    temperature: float = Field(default=2.0, ge=1, le=20, description="softens the probabilities of both")
    soft: float = Field(default=0.9, gt=0, le=1, description="weight of the teacher's answers against the labels")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.student and self.architecture:
            raise ValueError(f"{' and '.join(self.architecture)} belong to a student; name one, or leave them out")
        return self

    @property
    def architecture(self) -> dict[str, tuple[int, ...] | float]:
        """Return what the student is built with in place of its own."""
        channels = {"channels": self.channels} if self.channels else {}
        return channels | ({} if self.dropout is None else {"dropout": self.dropout})
