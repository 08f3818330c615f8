"""Preprocess: the eight orientations against numpy's own words, the arithmetic against torchvision's."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given

from targets.errors import ArtifactError
from targets.preprocess import ORIENTATIONS, Orientation, Preprocess
from tests.fixtures.small_models import glyphs
from tests.fixtures.strategies import preprocesses

NUMPYS_WORDS = {
    "upright": lambda x: x,
    "mirror": np.fliplr,
    "flip": np.flipud,
    "rot180": lambda x: np.rot90(x, 2),
    "transpose": np.transpose,
    "rot90": np.rot90,
    "rot270": lambda x: np.rot90(x, 3),
    "anti-transpose": lambda x: np.rot90(x, 2).T,
}
INVERSE = {"rot90": "rot270", "rot270": "rot90"}
RAW = {"scale": "0-255"}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_orientations_are_what_numpy_calls_so(orientation: str) -> None:
    images = glyphs(3)
    turned = Preprocess(orientation=orientation, **RAW).apply(images)
    for image, got in zip(images, turned[:, 0], strict=True):
        np.testing.assert_array_equal(got, NUMPYS_WORDS[orientation](image))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_orientation_has_its_inverse(orientation: str) -> None:
    images = glyphs(2)
    there = Preprocess(orientation=orientation, **RAW).apply(images)[:, 0].astype(np.uint8)
    back = Preprocess(orientation=INVERSE.get(orientation, orientation), **RAW).apply(there)[:, 0]
    np.testing.assert_array_equal(back, images)


def test_the_floats_are_torchvisions() -> None:
    import torch

    images = glyphs(4)
    got = Preprocess(mean=0.1736, std=0.3317).apply(images)
    normal = torch.from_numpy(images)[:, None].float().div(255).sub(0.1736).div(0.3317)
    np.testing.assert_array_equal(got, normal.numpy())


def test_inversion_comes_before_scaling_and_layout_only_moves_the_axis() -> None:
    images = glyphs(2)
    inverted = Preprocess(invert=True, mean=0.5).apply(images)
    np.testing.assert_allclose(inverted[:, 0], (255.0 - images) / 255 - 0.5, atol=1e-6)
    nhwc = Preprocess(invert=True, mean=0.5, layout="NHWC").apply(images)
    assert nhwc.shape == (2, 28, 28, 1)
    np.testing.assert_array_equal(nhwc[..., 0], inverted[:, 0])
    assert inverted.flags.c_contiguous
    assert nhwc.flags.c_contiguous


def test_the_images_given_are_left_alone() -> None:
    images = glyphs(2)
    kept = images.copy()
    for orientation in ORIENTATIONS:
        Preprocess(orientation=orientation, mean=0.5, std=0.1).apply(images)
    np.testing.assert_array_equal(images, kept)


@given(preprocesses)
def test_it_survives_json(preprocess: Preprocess) -> None:
    assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess


@pytest.mark.parametrize(
    "words",
    [
        {"orientation": "sideways"},
        {"scale": "0-2"},
        {"layout": "HW"},
        {"std": 0.0},
        {"std": float("inf")},
        {"std": 1e-320},
        {"mean": float("nan")},
        {"mean": 1e308},
        {"mean": "0.5"},
        {"label_offset": -1},
        {"invert": "yes"},
        {"invert": 1.0},
        {"label_offset": 1.0},
        {"gamma": 2},
    ],
    ids=str,
)
def test_what_cannot_be_applied_is_refused_in_one_line(words: dict[str, object]) -> None:
    with pytest.raises(ArtifactError) as caught:
        Preprocess.from_dict(words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_row37_every_turn_but_none_is_the_callers(orientation: Orientation) -> None:
    told = Preprocess(orientation=orientation, dtype="uint8", invert=True).duties()
    assert len(told["caller"]) == 1 + (orientation != "upright")
    assert told["caller"][0].startswith("crop to one character, upright")
    assert told["file"] == ["invert: 255 - pixel", "divide by 255"]
