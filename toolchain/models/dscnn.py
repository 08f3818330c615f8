"""dscnn: depthwise separable convolutions, for microcontrollers.

The layout is that of DS-CNN (Zhang et al., arXiv:1711.07128), the network of small devices made of MobileNet's blocks
(Howard et al., arXiv:1704.04861): an ordinary first convolution, then pairs of a depthwise 3x3 and a pointwise 1x1.
For 47 classes 29,759 parameters and 1.3 million multiply-accumulates.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from toolchain.models import scaled
from toolchain.models.classifier import Classifier

STEM = 32
# Channels and stride of each pair: 14x14 -> 14 -> 7 -> 7 -> 7 -> 4.
PAIRS = ((48, 1), (64, 2), (64, 1), (64, 1), (96, 2))
LAST_MAP = 4
DROPOUT = 0.05


class DsCnn(Classifier):
    """Float32 [N, 1, 28, 28] to logits [N, classes].

    width: factor on every channel count, rounded to multiples of 8, at least 8. dropout: share of the last features
    that training leaves out.
    """

    def __init__(self, classes: int = 47, width: float = 1.0, dropout: float = DROPOUT) -> None:
        """Draw random weights from torch's global generator."""
        layers: OrderedDict[str, nn.Module] = OrderedDict()

        def add(name: str, before: int, after: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
            layers[f"{name}_conv"] = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
            layers[f"{name}_norm"] = nn.BatchNorm2d(after)
            layers[f"{name}_relu"] = nn.ReLU()

        before = scaled(STEM, width)
        add("stem", 1, before, 5, stride=2)
        for number, (count, stride) in enumerate(PAIRS, start=1):
            after = scaled(count, width)
            add(f"depthwise{number}", before, before, 3, stride=stride, groups=before)
            add(f"pointwise{number}", before, after, 1)
            before = after
        layers["pool"] = nn.Conv2d(before, before, LAST_MAP, groups=before, bias=False)
        layers["pool_norm"] = nn.BatchNorm2d(before)
        super().__init__(nn.Sequential(layers), before, classes=classes, dropout=dropout)
