"""Pictures of drawn strokes are cut into the characters that a person sees, in the order in which one reads them."""

from __future__ import annotations

import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calibration.builtin import digits
from calibration.errors import CorruptData, DataNotFound
from calibration.words import Writing, cut, cut_file
from tests.fixtures.drawn_lines import drawn, grainy, shaded


def text(writing: Writing) -> str:
    """Return the letters by the number of ink pixels: `x` for a letter, `.` for a mark."""
    return writing.text(["." if character.mark else "x" for character in writing.characters])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("HEL", "xxx"),
        ("i", "x"),
        ("HiTiL", "xxxxx"),
        ("Hjij", "xxxx"),
        ("H=L", "xxx"),
        ("L:T", "xxx"),
        ("T5E5", "xxxx"),
        ("HE LL", "xx xx"),
        ("a Hat"[:4], "x xx"),
        ("HE.", "xx."),
        ("L", "x"),
    ],
)
def test_what_belongs_together_holds_together(line: str, expected: str) -> None:
    assert text(cut(np.asarray(drawn([line])))) == expected


@pytest.mark.parametrize("gap", [0.2, 0.3, 0.45])
@pytest.mark.parametrize("size", [24, 60, 140])
def test_spacing_and_size_do_not_matter(gap: float, size: int) -> None:
    assert text(cut(np.asarray(drawn(["HiTEL", "LET"], gap=gap, size=size)))) == "xxxxx\nxxx"


def test_overlapping_columns_do_not_join_letters() -> None:
    """The foot of the L reaches under the bar of the T."""
    writing = cut(np.asarray(drawn(["LT"], gap=-0.2)))
    boxes = [character.box for character in writing.characters]
    assert len(boxes) == 2
    assert any(after[0] < before[2] for before, after in pairwise(boxes))


@pytest.mark.parametrize("slant", [-0.1, 0.1])
def test_slanted_lines_are_read_line_by_line(slant: float) -> None:
    picture = drawn(["HEL LET", "THE TEE i HEEL", "TELL"], slant=slant)
    picture = Image.fromarray(np.pad(np.asarray(picture), 120, constant_values=255))
    assert text(cut(np.asarray(picture))) == "xxx xxx\nxxx xxx x xxxx\nxxxx"


@pytest.mark.parametrize(
    ("change", "paper"),
    [
        (lambda gray: gray, "light"),
        (lambda gray: 255 - gray, "dark"),
        (shaded, "light"),
        (grainy, "light"),
        (lambda gray: (gray // 6 + 150).astype(np.uint8), "light"),
    ],
    ids=["white", "black", "shadow", "grain", "faint"],
)
def test_paper_may_be_white_blackshadedgrainy_or_pale(change: object, paper: str) -> None:
    gray = np.asarray(drawn(["HE TiL", "LET"]))
    writing = cut(change(gray))  # type: ignore[operator]
    assert (text(writing), writing.paper) == ("xx xxx\nxxx", paper)


@pytest.mark.parametrize("thick", [1, 4])
def test_rules_and_frames_are_no_characters(thick: int) -> None:
    page = np.array(drawn(["HE", "TH"]))
    expected = np.array([character.box for character in cut(page).characters])
    sheet = np.full((page.shape[0] + 80, page.shape[1] + 800), 255, np.uint8)
    sheet[40:-40, 40 : 40 + page.shape[1]] = page
    sheet[-20 : thick - 20, 10:-10] = 0
    ruled = cut(sheet)
    sheet[4 : 4 + thick] = sheet[-4 - thick : -4] = sheet[:, 4 : 4 + thick] = sheet[:, -4 - thick : -4] = 0
    framed = cut(sheet)
    for writing, rules in ((ruled, 1), (framed, 2)):
        assert writing.rules == rules
        assert np.abs(np.array([character.box for character in writing.characters]) - 40 - expected).max() <= 1


def test_glyphs_are_those_of_the_characters_alone() -> None:
    """A digit in a line of others, close to both, becomes the glyph that it has when it stands alone."""
    cuts = [(image, cut(np.pad(image, 9)).characters) for image in digits("test").images[:15]]
    # An 8 with a stroke as faint as paper is two pieces.
    images, alone = zip(*((image, parts[0].glyph) for image, parts in cuts if len(parts) == 1), strict=True)
    assert len(images) >= 12
    line = np.zeros((46, 40 + 27 * len(images)), np.uint8)
    for index, image in enumerate(images):
        spot = line[9:37, 20 + 27 * index : 48 + 27 * index]
        np.maximum(spot, image, out=spot)
    together = cut(line).characters
    different = [np.abs(one.glyph.astype(int) - other).mean() for one, other in zip(together, alone, strict=True)]
    assert max(different) < 6


def _saved(folder: Path, kind: str) -> Path:
    picture = drawn(["HE T"])
    path = folder / f"{kind}.{'tif' if kind in ('cmyk', 'deep') else 'png'}"
    if kind == "cmyk":
        picture.convert("CMYK").save(path)
    elif kind == "deep":
        Image.fromarray(np.asarray(picture).astype(np.uint16) * 200 + 3000).save(path)
    elif kind == "alpha":
        ink = Image.new("RGBA", picture.size, (20, 20, 160, 255))
        ink.putalpha(Image.fromarray(255 - np.asarray(picture)))
        ink.save(path)
    elif kind == "turned by EXIF":
        exif = Image.Exif()
        exif[0x0112] = 6
        picture.rotate(90, expand=True).save(path, exif=exif)
    else:
        picture.convert(kind).save(path)
    return path


@pytest.mark.parametrize("kind", ["L", "1", "P", "RGB", "LA", "cmyk", "deep", "alpha", "turned by EXIF"])
def test_any_kind_of_picture_file_reads_alike(kind: str, tmp_path: Path) -> None:
    assert text(cut_file(_saved(tmp_path, kind))) == "xx x"


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_page_can_be_turned(turn: int, tmp_path: Path) -> None:
    picture = drawn(["HE T"])
    picture.rotate(turn, expand=True).save(tmp_path / "turned.png")
    writing = cut_file(tmp_path / "turned.png", turn)
    assert text(writing) == "xx x"
    assert writing.gray.shape == (picture.height, picture.width)


def _noise(levels: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, levels, (200, 300)).astype(np.uint8)


def _rule() -> np.ndarray:
    page = np.full((200, 900), 255, np.uint8)
    page[100:103, 20:-20] = 0
    return page


def _speckles() -> np.ndarray:
    return np.where(np.random.default_rng(2).random((300, 300)) < 0.1, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("gray", "said"),
    [
        (np.full((100, 200), 255, np.uint8), "no ink"),
        (np.zeros((1, 1), np.uint8), "no ink"),
        (np.array([[0, 255]], np.uint8), "no ink"),
        (np.linspace(90, 255, 200 * 100).reshape(100, 200).astype(np.uint8), "no ink"),
        (_noise(256), "no ink"),
        (_noise(40) + np.uint8(200), "no ink"),
        (_speckles(), "only noise"),
        (_rule(), "only long thin lines"),
    ],
    ids=["blank", "one pixel", "two pixels", "only a shadow", "white noise", "grain", "salt and pepper", "only a rule"],
)
def test_what_holds_no_writing_is_refused(gray: np.ndarray, said: str) -> None:
    with pytest.raises(CorruptData, match=said):
        cut(gray)


def test_more_pieces_than_a_page_holds_are_refused() -> None:
    page = np.full((2000, 2000), 255, np.uint8)
    for row, column in ((y, x) for y in range(4) for x in range(4)):
        page[1 + row :: 12, 1 + column :: 12] = 0
    with pytest.raises(CorruptData, match="pieces of ink"):
        cut(page)


def _bad(folder: Path, kind: str) -> Path:
    path = folder / "bad.png"
    whole = drawn(["HE"])
    if kind == "cut":
        whole.save(path)
        path.write_bytes(path.read_bytes()[:300])
    elif kind == "40 megapixels":
        Image.new("1", (8000, 5000), 1).save(path)
    elif kind == "400 megapixels":
        Image.new("1", (8000, 5000), 1).save(path)
        content = path.read_bytes()
        header = content[12:16] + (20_000).to_bytes(4, "big") * 2 + content[24:29]
        path.write_bytes(content[:12] + header + zlib.crc32(header).to_bytes(4, "big") + content[33:])
    elif kind == "animated":
        whole.save(path, save_all=True, append_images=[drawn(["LE"])])
    elif kind == "pages":
        path = folder / "bad.tif"
        whole.save(path, save_all=True, append_images=[drawn(["LE"])])
    else:
        path.write_bytes({"PDF": b"%PDF-1.7 ...", "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n", "text": b"hello"}[kind])
    return path


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("cut", "damaged picture"),
        ("40 megapixels", "8,000 x 5,000 pixels are too many, at most 16,777,216 are read; scan the page at 300 dpi"),
        ("400 megapixels", "more than 178,956,970 pixels are too many, at most 16,777,216 are read; scan the page"),
        ("animated", "2 frames or pages; save the one to read"),
        ("pages", "2 frames or pages"),
        ("PDF", "pdftoppm -r 300"),
        ("PostScript", "save the page as PNG"),
        ("text", "not a readable picture"),
    ],
)
def test_files_that_are_not_one_picture_are_refused_in_one_line(kind: str, said: str, tmp_path: Path) -> None:
    path = _bad(tmp_path, kind)
    with pytest.raises(CorruptData) as caught:
        cut_file(path)
    assert str(caught.value).startswith(f"{path}")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match=r"no picture .*none\.png"):
        cut_file(tmp_path / "none.png")
