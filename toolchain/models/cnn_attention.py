"""cnn-attention: convolution blocks that weigh their channels, and then their pixels.

After each block the channels are scaled by squeeze and excitation (Hu et al., arXiv:1709.01507), and the pixels by the
spatial attention of CBAM (Woo et al., arXiv:1807.06521), which is computed from the mean and the maximum over channels.
The mean is a convolution that starts as one, so that channels can be pruned without a change in their weights. For 47
classes 311,024 parameters and 29 million multiply-accumulates.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from toolchain.models import scaled
from toolchain.models.classifier import Classifier

BLOCKS = ((32, 2), (64, 2), (128, 2))
REDUCTION = 4
SPATIAL_KERNEL = 7
LAST_MAP = 7
DROPOUT = 0.2


class ChannelAttention(nn.Module):
    """Squeeze and excitation: each channel times a share, 0 to 1, computed from the means of all channels."""

    def __init__(self, channels: int) -> None:
        """Draw random weights."""
        super().__init__()
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.shares = nn.Sequential(
            OrderedDict(
                reduce=nn.Conv2d(channels, channels // REDUCTION, 1),
                relu=nn.ReLU(),
                expand=nn.Conv2d(channels // REDUCTION, channels, 1),
                sigmoid=nn.Sigmoid(),
            )
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features of the same shape."""
        scaled: torch.Tensor = features * self.shares(self.mean(features))
        return scaled


class SpatialAttention(nn.Module):
    """Each pixel times a share, 0 to 1, computed from the mean and the maximum over channels around it."""

    def __init__(self, channels: int) -> None:
        """Draw random weights."""
        super().__init__()
        self.mean = nn.Conv2d(channels, 1, 1, bias=False)
        nn.init.constant_(self.mean.weight, 1 / channels)
        self.conv = nn.Conv2d(2, 1, SPATIAL_KERNEL, padding=SPATIAL_KERNEL // 2)
        self.sigmoid = nn.Sigmoid()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features of the same shape."""
        summary = torch.cat([self.mean(features), features.amax(dim=1, keepdim=True)], dim=1)
        scaled: torch.Tensor = features * self.sigmoid(self.conv(summary))
        return scaled


class CnnAttention(Classifier):
    """Float32 [N, 1, 28, 28] to logits [N, classes].

    width: factor on every channel count, rounded to multiples of 8, at least 8. dropout: share of the last features
    that training leaves out.
    """

    def __init__(self, classes: int = 47, width: float = 1.0, dropout: float = DROPOUT) -> None:
        """Draw random weights from torch's global generator."""
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        before = 1
        for block, (count, convolutions) in enumerate(BLOCKS, start=1):
            after = scaled(count, width)
            for number in range(1, convolutions + 1):
                layers[f"conv{block}_{number}"] = nn.Conv2d(before, after, 3, padding=1, bias=False)
                layers[f"norm{block}_{number}"] = nn.BatchNorm2d(after)
                layers[f"relu{block}_{number}"] = nn.ReLU()
                before = after
            layers[f"channels{block}"] = ChannelAttention(after)
            layers[f"pixels{block}"] = SpatialAttention(after)
            if block < len(BLOCKS):
                layers[f"shrink{block}"] = nn.MaxPool2d(2)
        layers["pool"] = nn.Conv2d(before, before, LAST_MAP, groups=before, bias=False)
        layers["pool_norm"] = nn.BatchNorm2d(before)
        super().__init__(nn.Sequential(layers), before, classes=classes, dropout=dropout)
