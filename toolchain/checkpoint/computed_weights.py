"""Replace weights that a model computes at every run (weight_norm, spectral_norm, pruning masks) by their result.

`bake` does it in a module, `bake_state` in a state_dict that holds the parts of such weights.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def bake(module: nn.Module) -> tuple[str, ...]:
    """Give every layer the plain weights that it runs with in eval mode; return a note if any weights were computed.

    Handles torch.nn.utils.parametrize, and the older hooks of weight_norm, spectral_norm and torch.nn.utils.prune.
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
    """Yield functions that each replace a computed weight of a layer by its value, the last hook first."""
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


def bake_state(tensors: Mapping[str, Tensor], expected: Collection[str]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Replace the parts of each expected weight by the weight itself; return the tensors and the weights' names.

    A weight is computed as its layer does in eval mode. Known are the parametrizations of torch.nn.utils.parametrize
    and the older hooks. What fits no known form stays as it is.
    """
    weights, used = {}, set[str]()
    for weight, (compute, parts) in _forms(tensors).items():
        is_needed = weight in expected and weight not in tensors
        if is_needed and (value := compute(*(tensors[part] for part in parts))) is not None:
            weights[weight] = value
            used.update(parts)
    return {key: value for key, value in tensors.items() if key not in used} | weights, tuple(weights)


def computed_names(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return the names of the weights that `bake_state` can compute."""
    return tuple(_forms(tensors))


_Compute = Callable[..., "Tensor | None"]


def _forms(tensors: Mapping[str, Tensor]) -> dict[str, tuple[_Compute, list[str]]]:
    """Return for each weight that can be computed the function and the names of its tensors."""
    forms: dict[str, tuple[_Compute, list[str]]] = {}
    sizes = Counter(start for name in tensors for start in prefixes(name))
    for key in tensors:
        for pattern, parts, compute in _KNOWN:
            if match := re.fullmatch(pattern, key):
                names = [part.format(*match.groups()) for part in parts]
                if all(name in tensors for name in names) and _is_only_parametrization(key, names, sizes):
                    forms[f"{match[1]}{match[2]}"] = compute, names
    return forms


def prefixes(name: str) -> Iterator[str]:
    """Yield the prefixes of a dotted name: for `net.conv.weight` the empty string, `net.` and `net.conv.`."""
    return accumulate((f"{part}." for part in name.split(".")[:-1]), initial="")


def _is_only_parametrization(key: str, names: Collection[str], sizes: Mapping[str, int]) -> bool:
    """Return whether a weight has no other parametrization, since several on one weight are not known.

    sizes: how many tensors the file has under each prefix.
    """
    prefix, dot, _ = key.rpartition(".original")
    return not dot or sizes[f"{prefix}."] == sum(name.startswith(f"{prefix}.") for name in names)


def _weight_norm(g: Tensor, v: Tensor) -> Tensor | None:
    import torch

    shapes = [[size if axis == channels else 1 for axis, size in enumerate(v.shape)] for channels in range(v.ndim)]
    if g.ndim and list(g.shape) not in shapes:
        return None
    axis = shapes.index(list(g.shape)) if g.ndim else -1
    return torch._weight_norm(v.float(), g.float(), axis)


def _spectral_norm(weight: Tensor, u: Tensor, v: Tensor) -> Tensor | None:
    from torch.nn.functional import cosine_similarity

    weight, u, v = weight.float(), u.float(), v.float()
    products = []
    for axis, size in enumerate(weight.shape[:2]):
        matrix = weight.movedim(axis, 0).flatten(1)
        if u.shape == (size,) and v.shape == matrix.shape[1:]:
            products.append(matrix @ v)
    # Transposed convolutions are normed over their second axis: the axis whose product points where u does.
    product = max(products, key=lambda product: float(cosine_similarity(product, u, dim=0)), default=None)
    return None if product is None else weight / u.dot(product)


def _masked(weight: Tensor, mask: Tensor) -> Tensor | None:
    return weight * mask if weight.shape == mask.shape else None


_NEW = "{0}parametrizations.{1}."
_KNOWN: tuple[tuple[str, tuple[str, ...], _Compute], ...] = (
    (r"(.*?)([^.]+)_g", ("{0}{1}_g", "{0}{1}_v"), _weight_norm),
    (r"(.*?)parametrizations\.([^.]+)\.original0", (f"{_NEW}original0", f"{_NEW}original1"), _weight_norm),
    (r"(.*?)([^.]+)_orig", ("{0}{1}_orig", "{0}{1}_u", "{0}{1}_v"), _spectral_norm),
    (r"(.*?)parametrizations\.([^.]+)\.original", (f"{_NEW}original", f"{_NEW}0._u", f"{_NEW}0._v"), _spectral_norm),
    (r"(.*?)([^.]+)_orig", ("{0}{1}_orig", "{0}{1}_mask"), _masked),
)
"""Pattern of the first tensor's name, names of all tensors that a weight is computed from, and how."""
