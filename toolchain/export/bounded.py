"""Activations without branches, for TFLite: each intermediate value stays bounded, so that integers can hold it.

The usual lowering of softplus is `where(x > 20, x, log1p(exp(x)))`. A range for integers then spans the exp of the
branch that is not taken, and nothing else is left of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from toolchain.export.branches import bound_branches
from toolchain.export.by_hand import operator, use_own_operators

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

FELT = 15.0
"""Beyond this threshold of softplus float32 hardly tells it from x."""


@contextmanager
def bounded_programs() -> Iterator[None]:
    """Bound what a model writes by hand, in every program that `torch.export.export` returns inside the block.

    Converters call it themselves. A program that they are given in place of the module has lost its layers' names.
    """
    import torch

    original: Callable[..., ExportedProgram] = torch.export.export
    with patch("torch.export.export", lambda *args, **kwargs: bounded(original(*args, **kwargs))):
        yield


def bounded(program: ExportedProgram) -> ExportedProgram:
    """Return the program with bounded intermediate values where exp or a `where` is written by hand."""
    if not any(operator(node) in ("exp", "where") for node in program.graph.nodes):
        return program
    if any(getattr(getattr(node.target, "_schema", None), "is_mutable", False) for node in program.graph.nodes):
        # What another operator reads again must not be changed in place meanwhile.
        program = program.run_decompositions({})
    if use_own_operators(program.graph) | bound_branches(program.graph):
        program.graph.eliminate_dead_code()
        program.graph_module.recompile()
    return program


def bounded_forms() -> dict[Any, Callable[..., Any]]:
    """Return for each of torch's operators that needs it a function to write it as, for `run_decompositions`."""
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
    rest = _below_zero(scaled)
    if threshold < FELT:
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
    """Return a leaky ReLU of the mean slope, which RReLU is outside training, and the noise, which is unused."""
    from torch.nn.functional import leaky_relu

    return leaky_relu(x, (lower + upper) / 2), noise


def log_sigmoid(x: Tensor) -> Tensor:
    """Return -softplus(-x)."""
    return -softplus(-x)


def logaddexp(one: Tensor, other: Tensor) -> Tensor:
    """Return log(exp(one) + exp(other)) of finite values."""
    import torch

    return torch.maximum(one, other) - _below_zero(one - other)


def logsumexp(x: Tensor, dim: list[int], keepdim: bool = False) -> Tensor:
    """Return log(sum(exp(x))) of finite values."""
    largest = x.amax(dim, keepdim=True)
    total = (x - largest).exp().sum(dim, keepdim=True).log() + largest
    return total if keepdim else total.squeeze(dim)


def _below_zero(x: Tensor) -> Tensor:
    """Return -log(1 + exp(-|x|)).

    With log1p there would be a sum of 1 and at most 1: scales that LiteRT takes for powers of two, for which its 16-bit
    ADD then refuses the file.
    """
    return x.abs().sigmoid().log()
