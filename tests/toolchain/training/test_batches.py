"""Batches: every image once, or every class as often; mixed in pairs where that is asked for."""

from __future__ import annotations

import numpy as np
import pytest

from tests.fixtures.lazy import torch
from toolchain.training.batches import epoch_order, mixed

LABELS = np.repeat([0, 1, 2], [900, 90, 10])


def test_shuffled_has_every_image_once() -> None:
    order = epoch_order(LABELS, "shuffled", torch.Generator().manual_seed(0))
    assert sorted(order) == list(range(1000))
    assert np.array_equal(order, torch.randperm(1000, generator=torch.Generator().manual_seed(0)).numpy())


def test_balanced_has_every_class_about_as_often_and_repeats_with_the_seed() -> None:
    order = epoch_order(LABELS, "balanced", torch.Generator().manual_seed(0))
    assert np.bincount(LABELS[order]) == pytest.approx([333, 333, 333], abs=60)
    assert np.unique(order[LABELS[order] == 2]).size == 10
    assert np.array_equal(order, epoch_order(LABELS, "balanced", torch.Generator().manual_seed(0)))


def test_balanced_leaves_out_a_class_without_images() -> None:
    labels = np.repeat([0, 2], 20)
    assert set(labels[epoch_order(labels, "balanced", torch.Generator())]) == {0, 2}


def test_mixed_images_are_weighted_means_of_pairs() -> None:
    images = torch.randint(256, (64, 28, 28), dtype=torch.uint8)
    mixture, mix = mixed(images, 0.4, torch.Generator().manual_seed(3))
    assert mix is not None
    assert 0 < mix.share < 1
    exact = mix.share * images.double() + (1 - mix.share) * images[torch.from_numpy(mix.partners)].double()
    assert (mixture.double() - exact).abs().max() <= 0.501
    again, same = mixed(images, 0.4, torch.Generator().manual_seed(3))
    assert torch.equal(mixture, again)
    assert same is not None
    assert same.share == mix.share


def test_no_mixup_draws_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    images = torch.zeros((4, 28, 28), dtype=torch.uint8)
    assert mixed(images, 0.0, generator) == (images, None)
    assert torch.equal(generator.get_state(), state)
