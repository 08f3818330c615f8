"""cnn-keras: the network of the well-known Keras tutorials for handwritten digits.

For 10 classes 887,530 parameters and 32 million multiply-accumulates: two 5x5 and two 3x3 convolutions, each pair
followed by a maximum and by dropout, then a hidden layer of 256. Its preset trains it as the tutorials do: RMSprop, and
a learning rate that is halved on a plateau.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

BLOCK_DROPOUT = 0.25
DROPOUT = 0.5


class CnnKeras(nn.Module):
    """Float32 [N, 1, 28, 28] to logits [N, classes].

    dropout: share of the hidden layer that training leaves out; block_dropout: share of the maps after each pair of
    convolutions.
    """

    memory_format = torch.channels_last

    def __init__(self, classes: int = 10, dropout: float = DROPOUT, block_dropout: float = BLOCK_DROPOUT) -> None:
        """Draw random weights from torch's global generator."""
        super().__init__()
        self.features = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(1, 32, 5, padding=2),
                relu1=nn.ReLU(),
                conv2=nn.Conv2d(32, 32, 5, padding=2),
                relu2=nn.ReLU(),
                shrink1=nn.MaxPool2d(2),
                dropout1=nn.Dropout(block_dropout),
                conv3=nn.Conv2d(32, 64, 3, padding=1),
                relu3=nn.ReLU(),
                conv4=nn.Conv2d(64, 64, 3, padding=1),
                relu4=nn.ReLU(),
                shrink2=nn.MaxPool2d(2),
                dropout2=nn.Dropout(block_dropout),
            )
        )
        self.flatten = nn.Flatten()
        self.hidden = nn.Sequential(
            OrderedDict(linear=nn.Linear(64 * 7 * 7, 256), relu5=nn.ReLU(), dropout3=nn.Dropout(dropout))
        )
        self.classifier = nn.Linear(256, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits, not probabilities."""
        logits: torch.Tensor = self.classifier(self.hidden(self.flatten(self.features(image))))
        return logits
