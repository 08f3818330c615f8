"""lenet5: the network that published compression figures are most often given for.

For 10 classes 61,706 parameters and 0.4 million multiply-accumulates. The layout is LeNet-5's (LeCun et al. 1998,
"Gradient-based learning applied to document recognition") as it is commonly rebuilt: all maps of the second
convolution see all of the first, ReLU instead of tanh, a maximum instead of a trained average, and logits instead of
Gaussian units.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn


class LeNet5(nn.Module):
    """Float32 [N, 1, 28, 28] to logits [N, classes]."""

    def __init__(self, classes: int = 10) -> None:
        """Draw random weights from torch's global generator."""
        super().__init__()
        self.features = nn.Sequential(
            OrderedDict(
                # The padding makes 32x32 of 28x28, the size that the paper reads.
                conv1=nn.Conv2d(1, 6, 5, padding=2),
                relu1=nn.ReLU(),
                shrink1=nn.MaxPool2d(2),
                conv2=nn.Conv2d(6, 16, 5),
                relu2=nn.ReLU(),
                shrink2=nn.MaxPool2d(2),
            )
        )
        self.flatten = nn.Flatten()
        self.hidden = nn.Sequential(
            OrderedDict(linear1=nn.Linear(400, 120), relu3=nn.ReLU(), linear2=nn.Linear(120, 84), relu4=nn.ReLU())
        )
        self.classifier = nn.Linear(84, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits, not probabilities."""
        logits: torch.Tensor = self.classifier(self.hidden(self.flatten(self.features(image))))
        return logits
