"""cnn-small: a plain convolutional network for 28x28 glyphs, made to be pruned, folded, exported and quantized.

For 47 classes 213,591 parameters and 8 million multiply-accumulates. Every convolution is followed at once by its batch
norm, so that the two fold into one; the last feature map is pooled by a depthwise convolution, since what distinguishes
`0` from `O` or `9` from `g` is where the ink is, which an average would lose.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from toolchain.models import scaled
from toolchain.models.classifier import Classifier

# Channels at width 1, kernel and stride of the convolutions: 28x28 -> 14 -> 14 -> 7 -> 7 -> 4, 2 where six are named.
STAGES = ((24, 5, 2), (48, 3, 1), (64, 3, 2), (96, 3, 1), (128, 3, 2), (160, 3, 2))
USUAL, FEWEST = 5, 4
LAST_MAPS = (14, 14, 7, 7, 4, 2)
DROPOUT = 0.1


class CnnSmall(Classifier):
    """Float32 [N, 1, 28, 28] to logits [N, classes].

    width: factor on every channel count, rounded to multiples of 8 (the vector width of int8 kernels), at least 8.
    channels: the counts themselves, of the first four, the usual five or six convolutions. dropout: share of the last
    features that training leaves out. Raises ValueError for fewer or more channels.
    """

    def __init__(
        self, classes: int = 47, width: float = 1.0, channels: tuple[int, ...] = (), dropout: float = DROPOUT
    ) -> None:
        """Draw random weights from torch's global generator."""
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if channels and not FEWEST <= len(channels) <= len(STAGES):
            raise ValueError(f"it has four to six convolutions, usually five, not {len(channels)}")
        counts = channels or tuple(scaled(count, width) for count, _, _ in STAGES[:USUAL])
        before = 1
        for number, (after, (_, kernel, stride)) in enumerate(zip(counts, STAGES, strict=False), start=1):
            layers[f"conv{number}"] = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)
            layers[f"norm{number}"] = nn.BatchNorm2d(after)
            layers[f"relu{number}"] = nn.ReLU()
            before = after
        layers["pool"] = nn.Conv2d(before, before, LAST_MAPS[len(counts) - 1], groups=before, bias=False)
        layers["pool_norm"] = nn.BatchNorm2d(before)
        super().__init__(nn.Sequential(layers), before, classes=classes, dropout=dropout)
