"""resnet18: eight residual blocks of two 3x3 convolutions, narrow enough for grey 28x28 images.

The layout is that of ResNet-18 (He et al., arXiv:1512.03385) in its form for small images: the stem keeps the
resolution, and the four stages see 28x28, 14x14, 7x7 and 7x7. A maximum over 2x2 pixels halves the resolution where
the paper takes a stride, whose gradient on a CPU takes ten times as long in bfloat16. Widths are a quarter of the
paper's: for 47 classes 705,951 parameters and 46 million multiply-accumulates.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

STAGES = (16, 32, 64, 128)
BLOCKS_OF_A_STAGE = 2
# The stages that are preceded by a maximum.
HALVED = (2, 3)
DROPOUT = 0.2


def _convolution(before: int, after: int, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(conv=nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False), norm=nn.BatchNorm2d(after))
    )


class Block(nn.Module):
    """Two convolutions whose result is added to their input."""

    def __init__(self, before: int, after: int) -> None:
        """Draw random weights; the input goes through a 1x1 convolution where its width changes."""
        super().__init__()
        self.first = _convolution(before, after)
        self.relu1 = nn.ReLU()
        self.second = _convolution(after, after)
        self.shortcut: nn.Module = _convolution(before, after, kernel=1) if before != after else nn.Identity()
        self.relu2 = nn.ReLU()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features of the block's width."""
        result: torch.Tensor = self.relu2(self.second(self.relu1(self.first(features))) + self.shortcut(features))
        return result


class ResNet18(nn.Module):
    """Float32 [N, 1, 28, 28] to logits [N, classes].

    width: factor on every channel count, rounded to multiples of 8, at least 8; 4 gives the widths of the paper.
    dropout: share of the last features that training leaves out.
    """

    memory_format = torch.channels_last

    def __init__(self, classes: int = 47, width: float = 1.0, dropout: float = DROPOUT) -> None:
        """Draw random weights from torch's global generator."""
        super().__init__()
        counts = [max(8, 8 * round(count * width / 8)) for count in STAGES]
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["stem"] = _convolution(1, counts[0])
        layers["relu"] = nn.ReLU()
        before = counts[0]
        for stage, after in enumerate(counts, start=1):
            if stage in HALVED:
                layers[f"shrink{stage}"] = nn.MaxPool2d(2)
            for number in range(1, BLOCKS_OF_A_STAGE + 1):
                layers[f"block{stage}_{number}"] = Block(before, after)
                before = after
        layers["pool"] = nn.AdaptiveAvgPool2d(1)
        self.features = nn.Sequential(layers)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(before, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits, not probabilities."""
        logits: torch.Tensor = self.classifier(self.dropout(self.flatten(self.features(image))))
        return logits
