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

from toolchain.models import scaled
from toolchain.models.classifier import Classifier

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


class ResNet18(Classifier):
    """Float32 [N, 1, 28, 28] to logits [N, classes].

    width: factor on every channel count, rounded to multiples of 8, at least 8; 4 gives the widths of the paper.
    dropout: share of the last features that training leaves out.
    """

    def __init__(self, classes: int = 47, width: float = 1.0, dropout: float = DROPOUT) -> None:
        """Draw random weights from torch's global generator."""
        counts = [scaled(count, width) for count in STAGES]
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
        super().__init__(nn.Sequential(layers), before, classes=classes, dropout=dropout)
