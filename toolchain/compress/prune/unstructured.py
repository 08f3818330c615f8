"""Unstructured pruning: single weights become zero, by magnitude (arXiv:1506.02626) or n:m (arXiv:2104.08378)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calibration.dataset import Dataset
from toolchain.checkpoint.float_model import FloatModel
from toolchain.compress import weights
from toolchain.compress.prune import Prune
from toolchain.compress.prune.structured import refuse_unknown
from toolchain.core.errors import StageError, UsageProblem
from toolchain.core.quantities import size_text
from toolchain.formats.inspection import QUICK, packed_bytes

if TYPE_CHECKING:
    from torch import Tensor, nn


def magnitude_mask(values: Tensor, count: int) -> Tensor:
    """Return a mask, False for the `count` weights of smallest magnitude; of equal ones the first are removed."""
    import torch

    mask = torch.ones(values.numel(), dtype=torch.bool)
    mask[values.abs().flatten().argsort(stable=True)[:count]] = False
    return mask.view(values.shape)


def n_of_m(values: Tensor, stay: int, of: int) -> Tensor | None:
    """Return a mask that keeps the `stay` largest of each `of` weights along the inputs.

    values: [outputs, inputs / groups, ...]; each position of a kernel has its own groups. None where the number of
    inputs is not a multiple of `of`.
    """
    import torch

    inputs = values.abs().movedim(1, -1)
    if inputs.shape[-1] % of:
        return None
    groups = inputs.reshape(-1, of)
    mask = torch.zeros_like(groups, dtype=torch.bool)
    mask.scatter_(1, groups.argsort(dim=1, descending=True, stable=True)[:, :stay], True)
    return mask.view(inputs.shape).movedim(-1, 1)


def outputs_first(layer: nn.Module, values: Tensor) -> Tensor:
    """Return a layer's weights, or a mask of them, with outputs on the first axis and inputs on the second.

    Only a transposed convolution stores them the other way round, in each of its groups. Applied twice, the function
    gives back its input.
    """
    from torch.nn.modules.conv import _ConvTransposeNd

    if not isinstance(layer, _ConvTransposeNd):
        return values
    return values.reshape(layer.groups, -1, *values.shape[1:]).transpose(1, 2).flatten(0, 1)


class Unstructured:
    """Pruning of single weights of one model, in the rounds of the step."""

    def __init__(self, model: FloatModel, step: Prune, _data: Dataset, _seed: int) -> None:
        """Raise UsageProblem or StageError where the step cannot be done."""
        self.model, self.step = model, step
        module = model.torch_module("pruning")
        known = list(weights(module))
        for layer in step.layers:
            if layer not in known:
                refuse_unknown(layer, known, model.name)
        masks = self._masks(module, 1.0)
        if not masks:
            stay, of = step.n_of_m
            reason = f"whose inputs are a multiple of {of} (pattern {stay}:{of})" if known else "that runs"
            raise StageError(f"{model.name} has no Linear or Conv2d layer {reason}; press it without pruning")
        if all(bool(mask.all()) for mask in masks.values()):
            raise UsageProblem(f"{model.name}: this ratio removes no weight; give a higher one")

    def cut(self, module: nn.Module, share: float) -> nn.Module:
        """Return the module with `share`, 0 to 1, of the pruning done; `module` is changed in place."""
        tensors = weight_tensors(module)
        for name, mask in self._masks(module, share).items():
            # Not times the mask: that would leave half of the zeros negative, and files do not pack.
            tensors[name].masked_fill_(mask == 0, 0)
        return module

    def line(self, module: nn.Module) -> str:
        """Return a line on what was done and gained, for the history."""
        tensors = weight_tensors(module)
        zeros = sum(int((tensor == 0).sum()) for tensor in tensors.values())
        total = sum(tensor.numel() for tensor in tensors.values())
        unpruned = [name for name in tensors if self.step.method == "n:m" and not bool((tensors[name] == 0).any())]
        note = f"; left whole: {', '.join(unpruned)} (inputs no multiple of {self.step.n_of_m[1]})" if unpruned else ""
        if others := _unsupported_layers(module):
            note += f"; left whole: {', '.join(others)}"
        return (
            f"zeroed {zeros / total:.1%} of {total:,} weights {self._amount()}{note}; the file gets neither smaller "
            f"nor faster until it is packed{_packed_gain(self.model.torch_module('pruning'), module)}"
        )

    def _amount(self) -> str:
        if self.step.method == "n:m":
            return "({} of {} stay)".format(*self.step.n_of_m)
        scope = "over all layers" if self.step.scope == "global" else "in each layer"
        return f"by magnitude ({self.step.ratios_text(scope)})"

    def _masks(self, module: nn.Module, share: float) -> dict[str, Tensor]:
        """Return a mask of each weight that is pruned when `share` of the pruning is done."""
        tensors = weight_tensors(module)
        if self.step.method == "n:m":
            layers = {name: layer for name, (layer, _) in weights(module).items()}
            masks = {
                name: n_of_m(outputs_first(layers[name], tensor), *self.step.n_of_m) for name, tensor in tensors.items()
            }
            return {name: outputs_first(layers[name], mask) for name, mask in masks.items() if mask is not None}
        if self.step.scope == "global":
            return _global_masks(tensors, (self.step.ratio or 0.0) * share)
        ratios = {name: self.step.layers.get(name, self.step.ratio or 0.0) * share for name in tensors}
        return {
            name: magnitude_mask(tensors[name], round(ratio * tensors[name].numel()))
            for name, ratio in ratios.items()
            if ratio
        }


def weight_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return the weights that can be pruned by the names of their layers, sharing memory with the module's."""
    return {name: getattr(layer, attribute).detach() for name, (layer, attribute) in weights(module).items()}


def _unsupported_layers(module: nn.Module) -> list[str]:
    """Return the layers of other kinds, with their classes, that have weights of two or more axes."""
    known = {id(layer) for layer, _ in weights(module).values()}
    others = {
        name: layer
        for name, layer in module.named_modules()
        if name and id(layer) not in known and any(weight.ndim > 1 for weight in layer.parameters(recurse=False))
    }
    return [f"{name} ({type(layer).__name__})" for name, layer in others.items()]


def _global_masks(tensors: dict[str, Tensor], ratio: float) -> dict[str, Tensor]:
    import torch

    flat = torch.cat([tensor.flatten() for tensor in tensors.values()])
    mask = magnitude_mask(flat, round(ratio * flat.numel()))
    parts = torch.split(mask, [tensor.numel() for tensor in tensors.values()])
    return {name: part.view(tensors[name].shape) for name, part in zip(tensors, parts, strict=True)}


def _packed_gain(module: nn.Module, pruned: nn.Module) -> str:
    """Return the packed sizes of the parameters after and before; empty where packing would take long."""
    if sum(value.nbytes for value in module.parameters()) > QUICK:
        return ""
    contents = (b"".join(value.detach().numpy().tobytes() for value in each.parameters()) for each in (module, pruned))
    before, after = map(packed_bytes, contents)
    return f": its float parameters pack to {size_text(after)}, {size_text(before)} before"
