"""Weights of a torch module in a file instead of memory, while a converter holds copies of its own."""

from __future__ import annotations

import mmap
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

LARGE = 1 << 24
"""Bytes of weights from which on moving them is worth the time."""
_SMALL = 1 << 16
"""Bytes of a tensor that stays in memory."""


class DiskWeights:
    """The large weights of a module, moved to a temporary file that no other program can reach.

    The module goes on to answer as before: what it reads comes into memory again, and `leave` takes it out, as well as
    what was written to the weights meanwhile.
    """

    def __init__(self, module: nn.Module) -> None:
        """Move the weights; those of a small module stay where they are. Raises OSError where the disk is full."""
        tensors = [tensor for tensor in (*module.parameters(), *module.buffers()) if _movable(tensor)]
        self._pages: mmap.mmap | None = None
        # Tied weights are one tensor of the file too.
        self.size = sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())
        if self.size >= LARGE:
            self._move(tensors)

    def leave(self) -> None:
        """Take out of memory what was read of the weights."""
        if self._pages is not None:
            self._pages.madvise(mmap.MADV_DONTNEED)

    def _move(self, tensors: list[Tensor]) -> None:
        import torch

        places: dict[tuple[int, torch.Size], int] = {}
        with tempfile.TemporaryFile() as stream:
            for tensor in tensors:
                key = (tensor.data_ptr(), tensor.shape)
                if key not in places:
                    places[key] = stream.seek(-stream.tell() % mmap.PAGESIZE, 1)
                    stream.write(tensor.detach().reshape(-1).view(torch.uint8).numpy().data)
            stream.flush()
            # Private: what is written to a weight does not go to the file.
            self._pages = mmap.mmap(stream.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
        for tensor in tensors:
            place = places[tensor.data_ptr(), tensor.shape]
            stored = torch.frombuffer(self._pages, dtype=tensor.dtype, count=tensor.numel(), offset=place)
            tensor.data = stored.reshape(tensor.shape)


def _movable(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.is_contiguous() and tensor.nbytes >= _SMALL
