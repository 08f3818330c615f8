"""Weights of a torch module in a file instead of memory, while a converter holds copies of its own."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable
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
        self._pages: list[mmap.mmap] = []
        # Tied weights are one tensor of the file too.
        different = {(tensor.data_ptr(), tensor.shape): tensor.detach() for tensor in tensors}
        self.size = sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())
        if self.size >= LARGE:
            stored = dict(zip(different, self.added(different.values()), strict=True))
            for tensor in tensors:
                tensor.data = stored[tensor.data_ptr(), tensor.shape]

    def leave(self) -> None:
        """Take out of memory what was read of the weights."""
        for pages in self._pages:
            pages.madvise(mmap.MADV_DONTNEED)

    def added(self, tensors: Iterable[Tensor]) -> list[Tensor]:
        """Return the tensors as they are read from one more file, to which each goes before the next is asked for.

        Raises OSError where the disk is full.
        """
        import torch

        forms = []
        with tempfile.TemporaryFile() as stream:
            for tensor in tensors:
                place = stream.seek(-stream.tell() % mmap.PAGESIZE, 1)
                stream.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
                forms.append((place, tensor.dtype, tensor.shape))
            if not forms:
                return []
            stream.flush()
            # Private: what is written to a weight does not go to the file.
            pages = mmap.mmap(stream.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
        self._pages.append(pages)
        return [
            torch.frombuffer(pages, dtype=dtype, count=shape.numel(), offset=place).reshape(shape)
            for place, dtype, shape in forms
        ]


def _movable(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.is_contiguous() and tensor.nbytes >= _SMALL
