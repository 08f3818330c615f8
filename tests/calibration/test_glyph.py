from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from calibration.errors import CorruptData
from calibration.glyph import glyph
from calibration.load import all_digits, load


def scan(char: str = "R", size: int = 120, ink: int = 20, paper: int = 235) -> Image.Image:
    page = Image.new("L", (2 * size, 2 * size), paper)
    ImageDraw.Draw(page).text((size // 2, size // 4), char, font=ImageFont.load_default(size), fill=ink)
    return page


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one.reshape(-1), other.reshape(-1))[0, 1])


def test_form_is_emnists() -> None:
    made = glyph(scan())
    assert (made.shape, made.dtype, made.max()) == ((28, 28), np.uint8, 255)
    rows, columns = np.flatnonzero((made > 48).any(1)), np.flatnonzero((made > 48).any(0))
    assert (rows[0], rows[-1]) == (2, 25), "the longer side fills 24 pixels, with 2 of padding"
    assert abs((columns[0] + columns[-1]) / 2 - 13.5) <= 0.5, "the shorter side is centred"


def test_dark_on_light_and_the_reverse_give_the_same() -> None:
    gray = np.asarray(scan())
    assert np.abs(glyph(gray).astype(int) - glyph(255 - gray)).max() <= 3


@pytest.mark.parametrize("side", [40, 80, 480, 1800])
def test_scans_of_any_resolution_give_nearly_the_same(side: int) -> None:
    assert likeness(glyph(scan().resize((side, side))), glyph(scan())) > 0.95


def test_low_contrast_is_stretched() -> None:
    assert likeness(glyph(scan(ink=120, paper=170)), glyph(scan())) > 0.98


def test_aspect_is_kept() -> None:
    made = glyph(scan("l"))
    assert np.ptp(np.flatnonzero(made.any(0))) < 10


def test_a_speck_does_not_decide_the_crop() -> None:
    page = scan()
    page.putpixel((3, 3), 0)
    assert likeness(glyph(page), glyph(scan())) > 0.99


def test_the_dot_of_an_i_stays() -> None:
    rows = glyph(scan("i")).max(1)
    assert rows[3] > 200
    assert (rows[4:12] < 64).any(), "a gap under the dot"


def test_a_glyph_stays_as_it_is_and_inverted_is_turned_back() -> None:
    """Folders of EMNIST saved as pictures must not be blurred a second time."""
    made = glyph(scan())
    assert np.array_equal(glyph(made), made)
    assert np.array_equal(glyph(255 - made), made)


def test_transparent_16_bit_and_rotated_pictures() -> None:
    page, plain = scan(), glyph(scan())
    clear = Image.new("RGBA", page.size, (0, 0, 0, 0))
    clear.putalpha(page.point(lambda level: 255 - level))
    deep = Image.fromarray(np.asarray(page).astype(np.uint16) * 257)
    assert likeness(glyph(clear), plain) > 0.99
    assert likeness(glyph(deep), plain) > 0.99
    turned = page.transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6
    assert likeness(glyph(turned), plain) > 0.99


@pytest.mark.parametrize(
    "blank", [np.full((50, 40), 200, np.uint8), np.zeros((0, 4), np.uint8)], ids=["white", "empty"]
)
def test_blank_scan_is_refused(blank: np.ndarray) -> None:
    with pytest.raises(CorruptData, match="no ink"):
        glyph(blank)


def test_other_arrays_are_refused() -> None:
    with pytest.raises(CorruptData, match="expected a uint8 scan"):
        glyph(np.zeros((28, 28), np.float32))  # type: ignore[arg-type] # the mistake under test


def test_strokes_and_brightness_are_like_the_real_ones(emnist_root: Path) -> None:
    real = load("emnist:digits", "test", emnist_root).images
    made, _ = all_digits()
    assert abs(float(made.mean()) - float(real.mean())) < 5
    for level, tolerance in ((0, 0.03), (127, 0.02), (250, 0.05)):
        assert abs(float((made > level).mean()) - float((real > level).mean())) < tolerance, level
