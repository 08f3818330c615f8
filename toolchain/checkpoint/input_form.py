"""Models that want their images in another form than 1x28x28: as 784 values, with three channels, or as 32x32 pixels.

What brings an image into that form becomes the first operation of the model, so every file that is made of it takes
1x28x28 as all others do.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from targets.errors import first_line
from toolchain.core.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable

_CHANNELS = 3
_SIDE = 32
"""Pixels of a side of what LeNet-5 and models for CIFAR-10 take."""


class Formed(nn.Module):
    """A model behind what brings float32 [N, 1, 28, 28] into the form that it takes."""

    def __init__(self, model: nn.Module, *, flat: bool = False, larger: str = "", channels: int = 1) -> None:
        """Flat: 784 values. larger: `padded` or `resized` to 32x32, empty for 28x28. channels: copies of the image."""
        super().__init__()
        self.model, self.flat, self.larger, self.channels = model, flat, larger, channels

    def forward(self, image: Tensor) -> object:
        """Return what the model answers."""
        if self.flat:
            return self.model(image.flatten(1))
        if self.larger == "padded":
            # The edge of the image is repeated, since black is another number under each mean and std.
            margin = (_SIDE - image.shape[-1]) // 2
            image = pad(image, (margin, margin, margin, margin), mode="replicate")
        elif self.larger == "resized":
            image = interpolate(image, (_SIDE, _SIDE), mode="bilinear")
        return self.model(image.expand(-1, self.channels, -1, -1) if self.channels > 1 else image)


class FormedModel(NamedTuple):
    """A model that takes float32 [N, 1, 28, 28], and a note on how, empty where it does so itself."""

    module: nn.Module
    note: str


def formed(module: nn.Module, name: str) -> tuple[FormedModel, ...]:
    """Return the model as it takes 1x28x28: one way, or two where images of 32x32 may be padded or resized ones.

    Raises CheckpointError where no form fits.
    """
    forms: tuple[tuple[str, Callable[[nn.Module], nn.Module]], ...] = (
        ("", lambda model: model),
        ("takes 784 values: images are flattened inside", lambda model: Formed(model, flat=True)),
        ("takes three channels: images are repeated inside", lambda model: Formed(model, channels=_CHANNELS)),
    )
    refusal: Exception | None = None
    for note, form in forms:
        error = _refusal(candidate := form(module))
        if error is None:
            if summed := _summed(module, candidate):
                return (FormedModel(summed, "takes three equal channels: the weights of its first layer are summed"),)
            return (FormedModel(candidate, note),)
        refusal = refusal or error
    for channels, of in ((1, ""), (_CHANNELS, " of three channels")):
        ways = [(way, Formed(module, larger=way, channels=channels)) for way in ("padded", "resized")]
        if _refusal(ways[0][1]) is None:
            return tuple(FormedModel(model, f"takes 32x32 pixels{of}: images are {way} inside") for way, model in ways)
    assert refusal, "the first form was refused"
    raise CheckpointError(
        f"{name} does not take float32 [N, 1, 28, 28] with N = 2 ({first_line(refusal)}), nor [N, 784], [N, 3, 28, 28] "
        "or 32x32 pixels; give a model for 28x28 images, with a batch axis that is not fixed"
    ) from refusal


def _summed(module: nn.Module, repeated: nn.Module) -> nn.Module | None:
    """Return a model of one channel that answers as `repeated` does, which repeats it three times; None where not.

    Equal channels times three weights are one channel times their sum: a smaller and faster first layer.
    """
    names = [name for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d)]
    first = module.get_submodule(names[0]) if names else None
    if not (isinstance(repeated, Formed) and isinstance(first, nn.Conv2d) and first.in_channels == _CHANNELS):
        return None
    summed = copy.deepcopy(module)
    layer = summed.get_submodule(names[0])
    assert isinstance(layer, nn.Conv2d), "it is a copy of one"
    layer.weight = nn.Parameter(first.weight.detach().sum(1, keepdim=True))
    layer.in_channels = 1
    if _refusal(summed):
        return None
    images = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = summed(images), repeated(images)
    if not (isinstance(ours, Tensor) and isinstance(theirs, Tensor)):
        return None
    return summed if torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5) else None


def _refusal(module: nn.Module) -> Exception | None:
    """Return what running two blank images raises, None if they run."""
    try:
        with torch.no_grad():
            module(torch.zeros(2, 1, 28, 28))
    except Exception as error:  # noqa: BLE001 (a user's forward can raise anything)
        return error
    return None
