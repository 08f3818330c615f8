"""Gallery: every flipped character is there as it is, and can be told apart without colours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from tests.fixtures.judgements import answers, gathered
from tests.fixtures.small_readers import digits
from toolchain.report.pull_request import Flip, contact_sheet, flips

PICTURE = np.where(np.add.outer(np.arange(28), np.arange(28)) % 9 < 3, 255, 0).astype(np.uint8)


def tile(label: str = "O", before: str = "O", after: str = "0", kind: str = "lost", image: int = 7) -> Flip:
    return Flip(image, label, before, after, (0.5, 0.25), kind, PICTURE)  # type: ignore[arg-type]


def grey(*tiles: Flip, title: str = "int8.onnx") -> np.ndarray:
    """The sheet as a person sees it who sees no colours."""
    return np.asarray(contact_sheet([(title, tiles)]).convert("L"))


def test_a_real_candidate_s_flips_are_told_with_what_they_were_and_became() -> None:
    evidence = gathered()
    pairs, found = evidence.pairs, flips(evidence)
    assert len(found) == int(pairs.flipped.sum()) > 5
    assert [one.kind for one in found] == sorted((one.kind for one in found), key=["lost", "other", "gained"].index)
    assert {one.kind for one in found} == {"lost", "other", "gained"}
    for one in found:
        told = (pairs.classes[int(side[one.image])] for side in (pairs.labels, pairs.before, pairs.after))
        assert (one.label, one.before, one.after) == tuple(told)
        assert one.picture is not None
        assert np.array_equal(one.picture, digits().images[one.image])
        assert (one.label == one.before, one.label == one.after) == {
            "lost": (True, False),
            "gained": (False, True),
            "other": (False, False),
        }[one.kind]


def test_without_pictures_the_same_characters_are_told() -> None:
    evidence = gathered()
    with_pictures, without = flips(evidence), flips(replace(evidence, flipped=None))
    assert [one.image for one in without] == [one.image for one in with_pictures]
    assert {one.picture for one in without} == {None}
    assert len(flips(evidence, most=3)) == 3


def test_each_glyph_stands_on_the_sheet_pixel_by_pixel_as_dark_on_light() -> None:
    found = flips(gathered())
    pixels = np.asarray(contact_sheet([("int8.onnx", found)]).convert("L"))
    for one in found:
        glyph = np.kron(255 - np.asarray(one.picture), np.ones((3, 3), np.uint8))
        # One row of the glyph that is not blank, looked for in every row of the sheet.
        line = int(np.argmax(np.ptp(glyph, axis=1)))
        windows = sliding_window_view(pixels, glyph.shape[1], axis=1)
        places = np.argwhere((windows == glyph[line]).all(axis=2))
        assert any(np.array_equal(pixels[y - line :, x:][: len(glyph), : len(glyph)], glyph) for y, x in places)


def test_lost_gained_and_other_differ_in_form_not_only_in_colour() -> None:
    frames = [grey(tile(kind=kind)) < 200 for kind in ("lost", "gained", "other")]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert np.count_nonzero(frames[first] ^ frames[second]) > 200


def test_label_and_answers_are_written_below_in_that_order() -> None:
    plain = grey(tile())
    for change in ({"label": "M"}, {"before": "M"}, {"after": "M"}, {"image": 8}):
        rows, columns = np.nonzero(plain != grey(replace(tile(), **change)))
        below = rows.min() - 14 - 3 * 17 - 94
        assert below > 0, "within the glyph"
        line = {"label": 0, "before": 1, "after": 1, "image": 2}[next(iter(change))]
        assert line * 17 <= below <= rows.max() - 14 - 3 * 17 - 94 <= (line + 1) * 17 + 4
        if line == 1:
            assert (columns.mean() < 14 + 47) == ("before" in change)


@pytest.mark.parametrize("name", ["京", "é", " ", "", "\x1b", "a name that is far too long for a tile", "|`<&"])
def test_any_class_name_fits_its_tile(name: str) -> None:
    alone = grey(tile(), tile())
    named = grey(tile(name, name, name), tile())
    assert named.shape == alone.shape
    # The second tile is not written over, and the first is not left empty.
    assert np.array_equal(named[60:, 14 + 94 + 14 :], alone[60:, 14 + 94 + 14 :])
    assert not np.array_equal(named, alone)


def test_names_that_the_font_lacks_are_told_apart() -> None:
    assert not np.array_equal(grey(tile("京")), grey(tile("都")))


def test_candidates_stand_below_each_other_and_the_same_flips_give_the_same_bytes() -> None:
    one, two = (flips(answers(lost, 3, name=f"{lost}.onnx")) for lost in (5, 40))
    sheets = [contact_sheet([("a", one), ("b", two)]) for _ in range(2)]
    assert sheets[0].tobytes() == sheets[1].tobytes()
    alone = [contact_sheet([("a", one)]).height, contact_sheet([("b", two)]).height]
    assert max(alone) < sheets[0].height <= sum(alone)
