"""Augmentation: glyphs move as much as the settings say, and never mirror."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from calibration.load import load
from tests.fixtures.lazy import torch
from toolchain.training.augment import distorted, elastic_field
from toolchain.training.settings import SHAPES, TrainSettings

if TYPE_CHECKING:
    from torch import Tensor

NONE = dict.fromkeys(SHAPES, 0.0)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.from_numpy(load("builtin:digits", "train").images[:300])


def moved(images: Tensor, seed: int = 0, **values: float) -> Tensor:
    return distorted(images, TrainSettings(**values), torch.Generator().manual_seed(seed))


def centres(images: Tensor) -> Tensor:
    """Return [2, N]: where the centre of each image's ink is, down and across."""
    weights = images.float() / images.float().sum((1, 2), keepdim=True)
    places = torch.arange(images.shape[1]).float()
    return torch.stack([(weights.sum(2) * places).sum(1), (weights.sum(1) * places).sum(1)])


@pytest.mark.parametrize("values", [{}, {"elastic": 34.0}, NONE | {"elastic": 34.0}], ids=["affine", "both", "elastic"])
def test_glyphs_move_a_little_and_keep_their_ink(images: Tensor, values: dict[str, float]) -> None:
    result = moved(images, **values)
    assert result.dtype == torch.uint8
    assert result.shape == images.shape
    assert (result != images).any(dim=(1, 2)).all()
    ink = result.float().sum((1, 2)) / images.float().sum((1, 2))
    assert 0.9 < ink.mean() < 1.15
    assert ink.min() > 0.5
    assert torch.equal(result, moved(images, **values))
    assert not torch.equal(result, moved(images, seed=1, **values))


@pytest.mark.parametrize("values", [{"augment": 0.0}, NONE], ids=["no strength", "no shapes"])
def test_no_augmentation_changes_nothing_and_draws_nothing(images: Tensor, values: dict[str, float]) -> None:
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    assert torch.equal(distorted(images, TrainSettings(**values), generator), images)
    assert torch.equal(generator.get_state(), state)


def test_a_shift_is_a_share_of_the_image(images: Tensor) -> None:
    distance = (centres(moved(images, **NONE | {"shift": 0.1})) - centres(images)).abs()
    assert distance.max() <= 2.8 + 0.3
    assert distance.max() > 2.2


def test_zoom_and_rotation_leave_the_middle_where_it_is(images: Tensor) -> None:
    disc = torch.from_numpy(np.hypot(*np.mgrid[-13.5:14, -13.5:14]) < 6).to(torch.uint8)[None].repeat(200, 1, 1) * 200
    turned = moved(disc, **NONE | {"rotation": 90.0})
    assert (turned.float() - disc.float()).abs().mean() < 4
    zoomed = moved(disc, **NONE | {"zoom": 0.1}).float().sum((1, 2)) / disc.float().sum((1, 2))
    assert 0.75 < zoomed.min() < 0.9
    assert 1.1 < zoomed.max() < 1.3


def test_elastic_displacements_are_smooth_and_of_simards_size() -> None:
    field = elastic_field([500, 1, 28, 28], 34.0, 4.0, torch.Generator().manual_seed(0)) * 14
    # Noise with a standard deviation of 1 / sqrt(3), smoothed over sigma in two dimensions.
    expected = 34 / np.sqrt(3) / (2 * np.sqrt(np.pi) * 4)
    assert field[:, 12:16, 12:16].std() == pytest.approx(expected, rel=0.1)
    assert (field[:, 1:] - field[:, :-1]).abs().max() < 1.5
