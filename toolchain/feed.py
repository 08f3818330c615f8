"""How a torch module gets its pixels, in the memory layout that it is fastest on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import nn


def memory_format(module: nn.Module) -> torch.memory_format:
    """Return the layout that the module's class names, or the contiguous one."""
    import torch

    # Not for strangers: a model that flattens with view() would fail on it.
    chosen: torch.memory_format = getattr(module, "memory_format", torch.contiguous_format)
    return chosen


def feed(module: nn.Module, pixels: NDArray[np.float32]) -> torch.Tensor:
    """Return float32 [N, 1, 28, 28] (`Preprocess.apply`) as the tensor that the module takes."""
    import torch

    return torch.from_numpy(pixels).contiguous(memory_format=memory_format(module))
