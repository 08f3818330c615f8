"""Activations whose intermediate values stay bounded, so that integers can hold them.

The usual lowering of softplus is `where(x > 20, x, log1p(exp(x)))`. The range of its integers then spans the exp of the
branch that is not taken, which leaves no precision for the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from toolchain.export.graph_rewrites import bound_branches, operator, use_own_operators

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

THRESHOLD_FELT = 15.0
"""From this threshold of softplus on, float32 can hardly tell it from x, so the threshold is left out."""


@contextmanager
def bounded_programs() -> Iterator[None]:
    """Apply `bounded` to every program that `torch.export.export` returns inside the block.

    Converters call it themselves: given a program in place of the module, they would lose the names of its layers.
    """
    import torch

    original: Callable[..., ExportedProgram] = torch.export.export
    with patch("torch.export.export", lambda *args, **kwargs: bounded(original(*args, **kwargs))):
        yield


def bounded(program: ExportedProgram) -> ExportedProgram:
    """Return the program with bounded intermediate values (`graph_rewrites`)."""
    if not any(operator(node) in ("exp", "where") for node in program.graph.nodes):
        return program
    if any(getattr(getattr(node.target, "_schema", None), "is_mutable", False) for node in program.graph.nodes):
        # The rewrites read a value again, so no operator may change one in place.
        program = program.run_decompositions({})
    if use_own_operators(program.graph) | bound_branches(program.graph):
        program.graph.eliminate_dead_code()
        program.graph_module.recompile()
    return program


def bounded_forms() -> dict[Any, Callable[..., Any]]:
    """Return the bounded form of each of torch's operators that needs one, for `run_decompositions`."""
    import torch

    aten = torch.ops.aten
    return {
        aten.softplus.default: softplus,
        aten.mish.default: mish,
        aten.elu.default: elu,
        aten.selu.default: selu,
        aten.celu.default: celu,
        aten.log_sigmoid.default: log_sigmoid,
        aten.logaddexp.default: logaddexp,
        aten.logsumexp.default: logsumexp,
        aten.rrelu_with_noise_functional.default: rrelu,
    }


def softplus(x: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """Return log(1 + exp(beta x)) / beta, and x where beta x is above the threshold."""
    scaled = x * beta if beta != 1 else x
    rest = _log_sigmoid_of_magnitude(scaled)
    if threshold < THRESHOLD_FELT:
        rest = rest * (scaled <= threshold)
    total = scaled.relu() - rest
    return total / beta if beta != 1 else total


def mish(x: Tensor) -> Tensor:
    """Return x tanh(softplus(x))."""
    return x * softplus(x).tanh()


def elu(x: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Tensor:
    """Return scale x above 0, and scale alpha (exp(input_scale x) - 1) below."""
    below = (x.clamp(max=0) * input_scale).expm1() * (scale * alpha)
    return x.relu() * scale + below


def selu(x: Tensor) -> Tensor:
    """Return ELU with the two constants that keep mean and variance."""
    return elu(x, 1.6732632423543772, 1.0507009873554805)


def celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """Return ELU whose slope is continuous for each alpha."""
    return elu(x, alpha, 1.0, 1 / alpha)


def rrelu(
    x: Tensor, noise: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, *_settings: Any
) -> tuple[Tensor, Tensor]:
    """Return a leaky ReLU of the mean slope, which is RReLU outside training, and the unused noise."""
    from torch.nn.functional import leaky_relu

    return leaky_relu(x, (lower + upper) / 2), noise


def log_sigmoid(x: Tensor) -> Tensor:
    """Return -softplus(-x)."""
    return -softplus(-x)


def logaddexp(first: Tensor, second: Tensor) -> Tensor:
    """Return log(exp(first) + exp(second)) of finite values."""
    import torch

    return torch.maximum(first, second) - _log_sigmoid_of_magnitude(first - second)


def logsumexp(x: Tensor, dim: list[int], keepdim: bool = False) -> Tensor:
    """Return log(sum(exp(x))) of finite values."""
    largest = x.amax(dim, keepdim=True)
    total = (x - largest).exp().sum(dim, keepdim=True).log() + largest
    return total if keepdim else total.squeeze(dim)


def _log_sigmoid_of_magnitude(x: Tensor) -> Tensor:
    """Return -log(1 + exp(-|x|)), at most 0.

    log1p would add 1 to at most 1. LiteRT takes the scales of that sum for powers of two, and its 16-bit ADD then
    refuses the file.
    """
    return x.abs().sigmoid().log()
