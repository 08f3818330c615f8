"""Weights that are computed anew at every run (weight_norm, spectral_norm, masks) -> the weights that come of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def bake(module: nn.Module) -> tuple[str, ...]:
    """Give every layer the plain weights that it runs with in eval mode, and return the note on it, if any had others.

    Parametrizations of either style: torch.nn.utils.parametrize, and the hooks of weight_norm, spectral_norm and
    torch.nn.utils.prune that came before it.
    """
    module.eval()
    names = []
    for name, layer in module.named_modules():
        removers = list(_removers(layer))
        for remove in removers:
            remove()
        names += [name or type(layer).__name__] if removers else []
    return (f"weights computed once and kept: {', '.join(names)}",) if names else ()


def _removers(layer: Any) -> Iterator[Callable[[], Any]]:
    """Yield what takes off a layer the computations of its weights, the last one first, which stands on the others."""
    from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
    from torch.nn.utils.spectral_norm import SpectralNorm
    from torch.nn.utils.weight_norm import WeightNorm

    for hook in reversed(layer._forward_pre_hooks.values()):
        match hook:
            case WeightNorm():
                yield partial(remove_weight_norm, layer, hook.name)
            case SpectralNorm():
                yield partial(remove_spectral_norm, layer, hook.name)
            case prune.BasePruningMethod():
                yield partial(prune.remove, layer, hook._tensor_name)
    if parametrize.is_parametrized(layer):
        yield from [partial(parametrize.remove_parametrizations, layer, name) for name in layer.parametrizations]
