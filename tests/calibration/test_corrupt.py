"""Scanner damage: the same bytes everywhere and in any batch; every class has every strength."""

from __future__ import annotations

import hashlib
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.corrupt import KINDS, STRENGTHS, damage, strengths_in_turn
from calibration.errors import UnknownData

COUNT = 200


def glyphs(count: int = COUNT) -> np.ndarray:
    """Rings and bars of integers alone, so that no library's rounding is in them."""
    y, x = np.mgrid[:28, :28]
    index = np.arange(count)[:, None, None]
    ring = np.abs((x - 14) ** 2 + (y - 14 + index % 5) ** 2 - 64 - 3 * (index % 7)) < 18 + index % 11
    bar = (np.abs(x - 10 - index % 9) < 2) & (y > 4) & (y < 24)
    ink = np.where(ring | bar, 255 - index % 3, np.where(np.roll(ring | bar, 1, axis=2), 110, 0))
    return ink.astype(np.uint8)


IMAGES = glyphs()
MIXED = np.arange(COUNT) % 5 + 1

# What these bytes are must not depend on the machine or on a package's version: a stored baseline is refused otherwise.
DIGESTS = {
    "skew": "66416c2bb694fa72",
    "blur": "e5e6ec9b4faf9c2f",
    "threshold": "00841436c9f1f72e",
    "speckle": "bef68875c22cf556",
    "faint": "af50a911ccdbc493",
    "thick": "b808505e67ed5c30",
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bytes_on_every_machine_and_in_every_version(kind: str) -> None:
    assert hashlib.sha256(damage(IMAGES, kind, MIXED, 3).tobytes()).hexdigest()[:16] == DIGESTS[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_any_subset_in_any_order_is_damaged_as_within_the_whole(kind: str) -> None:
    whole = damage(IMAGES, kind, MIXED, 0)
    some = np.random.default_rng(0).permutation(COUNT)[:37]
    assert np.array_equal(damage(IMAGES[some], kind, MIXED[some], 0), whole[some])
    assert np.array_equal(damage(IMAGES[5:6], kind, MIXED[5:6], 0)[0], whole[5])


@pytest.mark.parametrize("kind", KINDS)
def test_every_strength_goes_further_from_the_image_and_leaves_the_original_alone(kind: str) -> None:
    kept = IMAGES.copy()
    away = [
        np.abs(damage(IMAGES, kind, np.full(COUNT, strength), 0).astype(int) - IMAGES).mean() for strength in STRENGTHS
    ]
    assert away[0] > 0
    assert all(np.diff(away) > 0)
    assert np.array_equal(IMAGES, kept)


@pytest.mark.parametrize("kind", ["skew", "threshold", "speckle"])
def test_where_chance_plays_another_seed_gives_another_damage(kind: str) -> None:
    assert not np.array_equal(damage(IMAGES, kind, MIXED, 0), damage(IMAGES, kind, MIXED, 1))


def test_what_each_kind_does_can_be_told_from_its_name() -> None:
    full = np.full(COUNT, 4)
    ink = IMAGES.astype(int).sum()
    assert set(np.unique(damage(np.where(IMAGES > 128, 255, 0).astype(np.uint8), "speckle", full, 0))) == {0, 255}
    assert damage(IMAGES, "faint", full, 0).max() < 160
    assert damage(IMAGES, "faint", full, 0).sum() < 0.6 * ink
    assert damage(IMAGES, "thick", full, 0).sum() > 1.3 * ink
    assert abs(damage(IMAGES, "blur", full, 0).sum() / ink - 1) < 0.02
    assert abs(damage(IMAGES, "skew", full, 0).sum() / ink - 1) < 0.05
    levels = damage(IMAGES, "threshold", full, 0)
    assert len(np.unique(levels)) <= 10
    widths = levels.astype(int).sum(axis=(1, 2)) / IMAGES.astype(int).sum(axis=(1, 2))
    assert widths.min() < 0.95  # some levels are too high, so that strokes break
    assert widths.max() > 1.15  # and some too low
    blank = np.zeros((2, 28, 28), np.uint8)
    for kind in set(KINDS) - {"speckle"}:
        assert not damage(blank, kind, full[:2], 0).any()


def test_speckle_hits_about_the_share_of_pixels_that_it_says() -> None:
    grey = np.full((COUNT, 28, 28), 100, np.uint8)
    grey[:, 0, 0] = np.arange(COUNT)
    hit = damage(grey, "speckle", np.full(COUNT, 5), 0)[:, 1:]
    assert abs((hit == 255).mean() - 0.025) < 0.002
    assert abs((hit == 0).mean() - 0.025) < 0.002


@given(st.integers(2, 60), st.integers(1, 6), st.sampled_from(list(KINDS)), st.integers(0, 5), st.data())
def test_strengths_go_round_within_every_class(
    count: int, classes: int, kind: str, seed: int, data: st.DataObject
) -> None:
    labels = np.array(data.draw(st.lists(st.integers(0, classes - 1), min_size=count, max_size=count)))
    turns = tuple(sorted(data.draw(st.sets(st.sampled_from(STRENGTHS), min_size=1))))
    given_out = strengths_in_turn(IMAGES[:count], labels, kind, seed, turns)
    for label in np.unique(labels):
        counts = [int(np.count_nonzero(given_out[labels == label] == strength)) for strength in turns]
        assert sum(counts) == np.count_nonzero(labels == label)
        assert max(counts) - min(counts) <= 1


def test_strengths_are_drawn_anew_for_each_kind_and_seed() -> None:
    labels = np.zeros(COUNT, np.int64)
    drawn = {(kind, seed): strengths_in_turn(IMAGES, labels, kind, seed) for kind in KINDS for seed in (0, 1)}
    alike = [np.mean(one == other) for a, one in drawn.items() for b, other in drawn.items() if a < b]
    assert max(alike) < 0.4
    again = strengths_in_turn(IMAGES, labels, "blur", 0)
    assert np.array_equal(again, drawn["blur", 0])


@pytest.mark.parametrize(
    ("kind", "strengths", "said"),
    [
        pytest.param("blurr", [1, 1], "did you mean blur", id="unknown kind"),
        pytest.param("coffee", [1, 1], "gate init", id="row39-nothing near"),
        pytest.param("blur", [1, 6], "not 6", id="too strong"),
        pytest.param("blur", [0, 1], "not 0", id="none at all"),
        pytest.param("blur", [1, 1, 1], "one strength per image", id="too many strengths"),
    ],
)
def test_what_is_not_known_is_refused(kind: str, strengths: list[int], said: str) -> None:
    with pytest.raises(UnknownData, match=said):
        damage(IMAGES[:2], kind, np.array(strengths), 0)
    with pytest.raises(UnknownData, match="glyphs"):
        damage(IMAGES[:2].astype(np.float32), "blur", np.array([1, 1]), 0)  # type: ignore[arg-type]


def test_18_800_images_take_a_few_seconds_a_kind() -> None:
    images = np.resize(glyphs(1880), (1880, 28, 28))
    start = time.process_time()
    for kind in KINDS:
        damage(images, kind, np.arange(1880) % 5 + 1, 0)
    # A tenth of a test split in all six kinds; 0.3 s when nothing else runs.
    assert time.process_time() - start < 2
