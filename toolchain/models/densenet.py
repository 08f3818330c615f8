"""densenet: each layer sees the features of all layers before it in its block.

The layout is DenseNet-BC's (Huang et al., arXiv:1608.06993) with a small growth rate for grey 28x28 images: three
blocks of two, four and six layers at 28x28, 14x14 and 7x7. Each layer is a 1x1 and a 3x3 convolution, and between
blocks a 1x1 convolution halves the channels before an average over 2x2 pixels. Unlike in the paper the norm follows its
convolution, so that the two fold into one for the device. For 47 classes 145,015 parameters and 21 million
multiply-accumulates.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from toolchain.models import scaled
from toolchain.models.classifier import Classifier

STEM = 24
LAYERS_OF_A_BLOCK = (2, 4, 6)
GROWTH = 16
BOTTLENECK = 2
DROPOUT = 0.2


def _convolution(before: int, after: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False),
            norm=nn.BatchNorm2d(after),
            relu=nn.ReLU(),
        )
    )


class DenseLayer(nn.Module):
    """Features, and `growth` new ones computed from all of them."""

    def __init__(self, before: int, growth: int) -> None:
        """Draw random weights."""
        super().__init__()
        self.narrow = _convolution(before, BOTTLENECK * growth, 1)
        self.new = _convolution(BOTTLENECK * growth, growth, 3)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the features with the new ones behind them."""
        return torch.cat([features, self.new(self.narrow(features))], dim=1)


class DenseNet(Classifier):
    """Float32 [N, 1, 28, 28] to logits [N, classes].

    growth: new channels of each layer, a multiple of 8 for int8 kernels. dropout: share of the last features that
    training leaves out.
    """

    def __init__(self, classes: int = 47, growth: int = GROWTH, dropout: float = DROPOUT) -> None:
        """Draw random weights from torch's global generator."""
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["stem"] = _convolution(1, STEM, 3)
        channels = STEM
        for block, count in enumerate(LAYERS_OF_A_BLOCK, start=1):
            for number in range(1, count + 1):
                layers[f"layer{block}_{number}"] = DenseLayer(channels, growth)
                channels += growth
            if block < len(LAYERS_OF_A_BLOCK):
                half = scaled(channels, 0.5)
                layers[f"narrow{block}"] = _convolution(channels, half, 1)
                layers[f"shrink{block}"] = nn.AvgPool2d(2)
                channels = half
        layers["last"] = _convolution(channels, 2 * channels, 1)
        layers["pool"] = nn.AdaptiveAvgPool2d(1)
        super().__init__(nn.Sequential(layers), 2 * channels, classes=classes, dropout=dropout)
