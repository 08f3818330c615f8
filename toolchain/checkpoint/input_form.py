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
    from collections.abc import Callable, Iterator

_CHANNELS = 3
Channels = tuple[tuple[float, ...], tuple[float, ...]]
"""Means and standard deviations of the three channels, of pixels from 0 to 1."""
IMAGENET: Channels = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""What most training scripts for images of three channels subtract and divide by."""
_SIDE = 32
"""Pixels of a side of what LeNet-5 and models for CIFAR-10 take."""


class Formed(nn.Module):
    """A model behind what brings float32 [N, 1, 28, 28] into the form that it takes."""

    def __init__(
        self,
        model: nn.Module,
        *,
        flat: bool = False,
        larger: str = "",
        channels: int = 1,
        normalization: Channels | None = None,
    ) -> None:
        """Flat: 784 values. larger: `padded` or `resized` to 32x32, empty for 28x28. channels: copies of the image.

        normalization: of the three copies, whose pixels are then from 0 to 1; None leaves them equal.
        """
        super().__init__()
        self.model, self.flat, self.larger, self.channels = model, flat, larger, channels
        self.normalized = None if normalization is None else _normalizing(normalization)

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
        if self.normalized is not None:
            return self.model(self.normalized(image))
        return self.model(image.expand(-1, self.channels, -1, -1) if self.channels > 1 else image)


def _normalizing(normalization: Channels) -> nn.Conv2d:
    """Return the layer that makes three normalized channels of one: a convolution, which every format has."""
    means, stds = (torch.tensor(numbers) for numbers in normalization)
    layer = nn.Conv2d(1, _CHANNELS, 1)
    layer.weight = nn.Parameter((1 / stds).reshape(_CHANNELS, 1, 1, 1))
    layer.bias = nn.Parameter(-means / stds)
    return layer


class FormedModel(NamedTuple):
    """A model that takes float32 [N, 1, 28, 28], and a note on how, empty where it does so itself.

    normalized: whether it normalizes its three channels itself, so that it takes pixels from 0 to 1.
    """

    module: nn.Module
    note: str
    normalized: bool = False


def formed(module: nn.Module, name: str, stored: Channels | None = None) -> tuple[FormedModel, ...]:
    """Return the model as it takes 1x28x28, in each way that is possible.

    There are two ways where images of 32x32 may be padded or resized ones, and each of them also with the channels
    normalized, by ImageNet's numbers and before that by `stored`, those of the checkpoint.

    Raises CheckpointError where no form fits.
    """
    normalizations = tuple(dict.fromkeys(filter(None, (stored, IMAGENET))))
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
                equal = FormedModel(summed, "takes three equal channels: the weights of its first layer are summed")
                return (equal, *_normalized(module, normalizations))
            plain = FormedModel(candidate, note)
            repeated = isinstance(candidate, Formed) and candidate.channels == _CHANNELS
            return (plain, *(_normalized(module, normalizations) if repeated else ()))
        refusal = refusal or error
    for channels, of in ((1, ""), (_CHANNELS, " of three channels")):
        ways = [(way, Formed(module, larger=way, channels=channels)) for way in ("padded", "resized")]
        if _refusal(ways[0][1]) is None:
            forms_of = (FormedModel(model, f"takes 32x32 pixels{of}: images are {way} inside") for way, model in ways)
            every = normalizations if channels == _CHANNELS else ()
            return (*forms_of, *(form for way, _ in ways for form in _normalized(module, every, way)))
    assert refusal, "the first form was refused"
    raise CheckpointError(
        f"{name} does not take float32 [N, 1, 28, 28] with N = 2 ({first_line(refusal)}), nor [N, 784], [N, 3, 28, 28] "
        "or 32x32 pixels; give a model for 28x28 images, with a batch axis that is not fixed"
    ) from refusal


def _normalized(module: nn.Module, normalizations: tuple[Channels, ...], larger: str = "") -> Iterator[FormedModel]:
    """Yield the model behind each normalization of three channels."""
    for normalization in normalizations:
        means, stds = (", ".join(f"{number:g}" for number in numbers) for numbers in normalization)
        of = "ImageNet's" if normalization == IMAGENET else "the checkpoint's"
        size = f"32x32 pixels of three channels: images are {larger}," if larger else "three channels: images are"
        note = f"takes {size} repeated and normalized inside, by {of} mean {means} and std {stds}"
        yield FormedModel(Formed(module, larger=larger, normalization=normalization), note, normalized=True)


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
