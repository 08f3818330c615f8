"""Which images an epoch fits, in which order, and how pairs of them are mixed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import Labels

if TYPE_CHECKING:
    from torch import Generator, Tensor


def epoch_order(labels: Labels, sampling: str, generator: Generator) -> NDArray[np.int64]:
    """Return as many indices as there are labels, in random order.

    sampling: `shuffled` has each index once; `balanced` draws with replacement, all classes equally often.
    """
    import torch

    if sampling == "shuffled":
        return torch.randperm(len(labels), generator=generator).numpy()
    weights = torch.from_numpy(1 / np.bincount(labels)[labels])
    return torch.multinomial(weights, len(labels), replacement=True, generator=generator).numpy()


@dataclass(frozen=True)
class Mix:
    """How images were mixed: each has `share` of its own image, and the rest of that at its index in `partners`."""

    share: float
    partners: NDArray[np.int64]


def mixed(images: Tensor, alpha: float, generator: Generator) -> tuple[Tensor, Mix | None]:
    """Return uint8 [N, H, W] mixed in pairs by a share from Beta(alpha, alpha); alpha 0 returns the images unchanged.

    mixup (Zhang et al., arXiv:1710.09412), with one share for the whole batch as in their code.
    """
    import torch

    if alpha == 0:
        return images, None
    seed = int(torch.randint(2**62, (), generator=generator))
    share = float(np.random.default_rng(seed).beta(alpha, alpha))
    partners = torch.randperm(len(images), generator=generator)
    mixture = images.float().mul_(share).add_(images[partners], alpha=1 - share)
    return mixture.round_().to(torch.uint8), Mix(share, partners.numpy())
