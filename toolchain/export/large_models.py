"""Large models on their way through a converter that holds copies of its own: fewer of their weights in memory at once.

The weights move to a temporary file. Batch norms are folded into the convolutions before them here, since the converter
would fold them with one more copy of all weights in memory.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from toolchain.export.graph_rewrites import operator

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram

LARGE = 1 << 24
"""Bytes of weights from which moving them is worth the time."""
_SMALL = 1 << 16
"""Tensors of fewer bytes stay in memory."""


class DiskWeights:
    """The large weights of a module, moved to a temporary file without a name.

    The module answers as before: what it reads is loaded into memory again, and `release` frees that memory and drops
    what was written to the weights meanwhile.
    """

    def __init__(self, module: nn.Module) -> None:
        """Move the weights, unless the module is small. Raises OSError where the disk is full."""
        tensors = [tensor for tensor in (*module.parameters(), *module.buffers()) if _movable(tensor)]
        self._pages: list[mmap.mmap] = []
        # Tied weights are one tensor of the file too.
        distinct = {(tensor.data_ptr(), tensor.shape): tensor.detach() for tensor in tensors}
        self.size = sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())
        if self.size >= LARGE:
            stored = dict(zip(distinct, self.added(distinct.values()), strict=True))
            for tensor in tensors:
                tensor.data = stored[tensor.data_ptr(), tensor.shape]

    def release(self) -> None:
        """Free the memory that reading the weights took."""
        for pages in self._pages:
            pages.madvise(mmap.MADV_DONTNEED)

    def added(self, tensors: Iterable[Tensor]) -> list[Tensor]:
        """Write tensors to one more file, each before the next is asked for, and return them mapped from it.

        Raises OSError where the disk is full.
        """
        import torch

        layouts = []
        with tempfile.TemporaryFile() as stream:
            for tensor in tensors:
                offset = stream.seek(-stream.tell() % mmap.PAGESIZE, 1)
                stream.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
                layouts.append((offset, tensor.dtype, tensor.shape))
            if not layouts:
                return []
            stream.flush()
            # Private: a write to a weight does not reach the file.
            pages = mmap.mmap(stream.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
        self._pages.append(pages)
        return [
            torch.frombuffer(pages, dtype=dtype, count=shape.numel(), offset=offset).reshape(shape)
            for offset, dtype, shape in layouts
        ]


def _movable(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.is_contiguous() and tensor.nbytes >= _SMALL


@contextmanager
def folded_norms(weights: DiskWeights) -> Iterator[None]:
    """Fold the norms of every program that `torch.export.export` returns inside the block, if the weights are large.

    A small model is left to the converter, so its weights keep every bit.
    """
    import torch

    if weights.size < LARGE:
        yield
        return
    original: Callable[..., ExportedProgram] = torch.export.export
    with patch("torch.export.export", lambda *args, **kwargs: fold_norms(original(*args, **kwargs), weights)):
        yield


def fold_norms(program: ExportedProgram, weights: DiskWeights) -> ExportedProgram:
    """Fold each norm that is the only reader of a convolution, and return the program; `weights` stores the result."""
    import torch

    inputs = _Inputs(program)
    norms = [node for node in program.graph.nodes if _foldable(node, inputs)]
    biases: list[Tensor] = []
    # A generator: each kernel goes to the disk before the next is computed.
    kernels = weights.added(_folded(norm, inputs, biases) for norm in norms)
    for norm, kernel, bias in zip(norms, kernels, biases, strict=True):
        convolution, mean = norm.args[0], norm.args[3]
        # The input of the mean becomes the new bias: not every convolution has one, and nothing else reads the mean.
        inputs.replace(mean, bias)
        inputs.replace(convolution.args[1], torch.nn.Parameter(kernel, requires_grad=False))
        convolution.args = (*convolution.args[:2], mean, *convolution.args[3:])
        norm.replace_all_uses_with(convolution)
        program.graph.erase_node(norm)
    program.graph_module.recompile()
    return program


class _Inputs:
    """The weights and statistics that a program takes as inputs."""

    def __init__(self, program: ExportedProgram) -> None:
        signature = program.graph_signature
        self._names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        self._state = program.state_dict

    def __contains__(self, node: Any) -> bool:
        return self._names.get(node.name) in self._state

    def exact(self, node: Any) -> Tensor:
        """Return a float64 copy of an input's tensor."""
        tensor: Tensor = self._state[self._names[node.name]]
        return tensor.detach().double()

    def replace(self, node: Any, tensor: Tensor) -> None:
        self._state[self._names[node.name]] = tensor


def _foldable(norm: Any, inputs: _Inputs) -> bool:
    """Return whether it is a norm of fixed statistics, the only reader of a convolution, and neither shares tensors."""
    if operator(norm) != "batch_norm" or norm.args[5]:
        return False
    convolution, mean = norm.args[0], norm.args[3]
    if operator(convolution) not in ("conv1d", "conv2d", "conv3d") or len(convolution.users) > 1:
        return False
    kernel, *bias = convolution.args[1:3]
    read = [node for node in (kernel, *bias, *norm.args[1:5]) if node is not None]
    return all(node in inputs for node in read) and all(len(node.users) == 1 for node in (kernel, mean))


def _folded(norm: Any, inputs: _Inputs, biases: list[Tensor]) -> Tensor:
    """Return the convolution's weight with the norm folded in, rounded once; append the bias to `biases`."""
    import torch

    gain, offset, mean, variance = norm.args[1:5]
    kernel, *bias = (inputs.exact(node) for node in norm.args[0].args[1:3] if node is not None)
    scale = (inputs.exact(variance) + norm.args[7]).rsqrt()
    if gain is not None:
        scale *= inputs.exact(gain)
    shift = sum(bias) - inputs.exact(mean)
    shift *= scale
    if offset is not None:
        shift += inputs.exact(offset)
    biases.append(shift.to(torch.float32))
    kernel *= scale.reshape(-1, *[1] * (kernel.ndim - 1))
    return kernel.to(torch.float32)
