"""The picture of a character: a PNG that any reader opens, dark on white."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from tests.fixtures.small_readers import digits
from toolchain.report.charts.gallery import GlyphSheet


def decoded(uri: str) -> np.ndarray:
    head, _, body = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body, validate=True))).convert("L"))


def test_characters_are_dark_on_white_at_most_half_a_grey_off_and_each_is_there_once() -> None:
    sheet, images = GlyphSheet(), digits().images[:20]
    tops = [sheet.top(image) for image in [*images, *images[:5]]]
    assert tops == [*range(0, 560, 28), *range(0, 140, 28)]
    assert sheet.height == 560
    shown = decoded(sheet.uri)
    assert shown.shape == (560, 28)
    for image, top in zip(images, tops, strict=False):
        assert np.abs(shown[top : top + 28].astype(int) - (255 - image.astype(int))).max() <= 9
    assert len(sheet.uri) < 20 * 300


def test_every_grey_comes_through() -> None:
    sheet, ramp = GlyphSheet(), np.linspace(0, 255, 28 * 28).astype(np.uint8).reshape(28, 28)
    sheet.top(ramp)
    shown = decoded(sheet.uri)
    assert shown[0, 0] == 255
    assert shown[-1, -1] == 0
    assert len(np.unique(shown)) == 16
    assert (np.diff(shown.ravel().astype(int)) <= 0).all()
