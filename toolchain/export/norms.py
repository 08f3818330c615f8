"""Batch norms of a large model folded into the convolutions before them, on the way to a converter.

The converter would fold them itself, with one more copy of all weights in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from toolchain.export.by_hand import operator
from toolchain.export.disk_weights import LARGE, DiskWeights

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram


@contextmanager
def folded_norms(weights: DiskWeights) -> Iterator[None]:
    """Fold the norms in every program that `torch.export.export` returns inside the block, if the weights are large.

    A small model's weights keep every bit.
    """
    import torch

    if weights.size < LARGE:
        yield
        return
    original: Callable[..., ExportedProgram] = torch.export.export
    with patch("torch.export.export", lambda *args, **kwargs: fold_norms(original(*args, **kwargs), weights)):
        yield


def fold_norms(program: ExportedProgram, weights: DiskWeights) -> ExportedProgram:
    """Fold each norm that alone reads a convolution, and return the program; `weights` keeps the new weights."""
    import torch

    inputs = _Inputs(program)
    norms = [node for node in program.graph.nodes if _foldable(node, inputs)]
    biases: list[Tensor] = []
    # Each goes to the disk before the next is made.
    kernels = weights.added(_folded(norm, inputs, biases) for norm in norms)
    for norm, kernel, bias in zip(norms, kernels, biases, strict=True):
        convolution, mean = norm.args[0], norm.args[3]
        # The mean stands for the new bias: not every layer has a bias of its own, and nothing else reads the mean.
        inputs.replace(mean, bias)
        inputs.replace(convolution.args[1], torch.nn.Parameter(kernel, requires_grad=False))
        convolution.args = (*convolution.args[:2], mean, *convolution.args[3:])
        norm.replace_all_uses_with(convolution)
        program.graph.erase_node(norm)
    program.graph_module.recompile()
    return program


class _Inputs:
    """The weights and statistics behind a program's inputs."""

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
    """Return whether it is a norm of fixed statistics that alone reads a convolution, with tensors of their own."""
    if operator(norm) != "batch_norm" or norm.args[5]:
        return False
    convolution, mean = norm.args[0], norm.args[3]
    if operator(convolution) not in ("conv1d", "conv2d", "conv3d") or len(convolution.users) > 1:
        return False
    kernel, *bias = convolution.args[1:3]
    read = [node for node in (kernel, *bias, *norm.args[1:5]) if node is not None]
    return all(node in inputs for node in read) and all(len(node.users) == 1 for node in (kernel, mean))


def _folded(norm: Any, inputs: _Inputs, biases: list[Tensor]) -> Tensor:
    """Return the convolution's weight with the norm in it, rounded once; add the bias to the others."""
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
