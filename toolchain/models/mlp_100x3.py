"""mlp-100x3: three hidden layers of 100 sigmoid neurons, as introductions to handwriting recognition build it.

For 26 classes 101,326 parameters, and about as many multiply-accumulates: each weight is used once per image. A network
without convolutions has to learn each place of a stroke anew; it is the baseline that the others are compared with.
"""

from __future__ import annotations

import torch
from torch import nn

PIXELS = 28 * 28


class Mlp100x3(nn.Module):
    """Float32 [N, 1, 28, 28] to logits [N, classes].

    neurons: the width of each hidden layer, from the first to the last.
    """

    def __init__(self, classes: int = 26, neurons: tuple[int, ...] = (100, 100, 100)) -> None:
        """Draw random weights from torch's global generator."""
        super().__init__()
        self.flatten = nn.Flatten()
        hidden: list[nn.Module] = []
        before = PIXELS
        for after in neurons:
            linear = nn.Linear(before, after)
            # The usual start of torch is for ReLU: behind three sigmoids its signal would be nearly constant.
            nn.init.xavier_normal_(linear.weight, gain=4)
            nn.init.zeros_(linear.bias)
            hidden += [linear, nn.Sigmoid()]
            before = after
        self.hidden = nn.Sequential(*hidden)
        self.classifier = nn.Linear(before, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits, not probabilities."""
        logits: torch.Tensor = self.classifier(self.hidden(self.flatten(image)))
        return logits
