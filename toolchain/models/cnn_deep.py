"""cnn-deep: blocks of 3x3 convolutions at 28x28, 14x14 and 7x7, the most accurate network that ships.

For 47 classes 634,831 parameters and 45 million multiply-accumulates. The blocks are those of VGG (Simonyan and
Zisserman, arXiv:1409.1556) with a batch norm after each convolution; as in cnn-small the last feature map is pooled by
a depthwise convolution, since where the ink is tells one character from another.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from toolchain.models import scaled
from toolchain.models.classifier import Classifier

# Channels and convolutions of each block; a maximum over 2x2 pixels lies between two blocks.
BLOCKS = ((32, 2), (64, 2), (160, 3))
LAST_MAP = 7
BLOCK_DROPOUT = 0.05
DROPOUT = 0.3


class CnnDeep(Classifier):
    """Float32 [N, 1, 28, 28] to logits [N, classes].

    width: factor on every channel count, rounded to multiples of 8, at least 8. dropout: share of the last features
    that training leaves out; block_dropout: share of the channels that it leaves out after each block.
    """

    def __init__(
        self, classes: int = 47, width: float = 1.0, dropout: float = DROPOUT, block_dropout: float = BLOCK_DROPOUT
    ) -> None:
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
            if block < len(BLOCKS):
                layers[f"shrink{block}"] = nn.MaxPool2d(2)
            layers[f"dropout{block}"] = nn.Dropout2d(block_dropout)
        layers["pool"] = nn.Conv2d(before, before, LAST_MAP, groups=before, bias=False)
        layers["pool_norm"] = nn.BatchNorm2d(before)
        super().__init__(nn.Sequential(layers), before, classes=classes, dropout=dropout)
