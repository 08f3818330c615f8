"""The picture of a character: a PNG that any reader opens, dark on white."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from tests.fixtures.small_readers import digits
from toolchain.report.charts.gallery import glyph_uri


def decoded(uri: str) -> np.ndarray:
    head, _, body = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body, validate=True))).convert("L"))


def test_a_character_is_dark_on_white_and_at_most_half_a_grey_off() -> None:
    for image in digits().images[:20]:
        shown = decoded(glyph_uri(image))
        assert shown.shape == (28, 28)
        assert np.abs(shown.astype(int) - (255 - image.astype(int))).max() <= 9
    assert len(glyph_uri(digits().images[0])) < 600


def test_every_grey_comes_through() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    shown = decoded(glyph_uri(ramp))
    assert shown[0, 0] == 255
    assert shown[-1, -1] == 0
    assert (np.diff(shown.ravel().astype(int)) <= 0).all()
