"""The model `softmax`: one linear layer, the least that reads characters."""

from __future__ import annotations

import torch
from torch import nn


class Softmax(nn.Module):
    """Float32 [N, 1, 28, 28] to logits [N, classes]."""

    def __init__(self, classes: int = 10) -> None:
        """Draw random weights from torch's global generator."""
        super().__init__()
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(784, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits, not probabilities."""
        logits: torch.Tensor = self.classifier(self.flatten(image))
        return logits
