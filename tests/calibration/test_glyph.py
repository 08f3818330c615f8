from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from calibration.builtin import all_digits
from calibration.errors import CorruptData, DataError, DataNotFound, EmptyData
from calibration.glyph import glyph
from calibration.load import load
from calibration.sample import image_hashes


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


def test_specks_and_hairlines_are_no_ink() -> None:
    specks, hairline = np.zeros((2, 400, 400), np.uint8)
    specks[::9, ::9] = 255
    hairline[200] = 255
    for scan in (specks, hairline):
        with pytest.raises(CorruptData, match="only specks or hairlines"):
            glyph(scan)


def test_other_arrays_are_refused() -> None:
    with pytest.raises(CorruptData, match="expected a uint8 scan"):
        glyph(np.zeros((28, 28), np.float32))  # type: ignore[arg-type] # the mistake under test


def test_strokes_and_brightness_are_like_the_real_ones(emnist_root: Path) -> None:
    real = load("emnist:digits", "test", emnist_root).images
    made, _ = all_digits()
    assert abs(float(made.mean()) - float(real.mean())) < 5
    for level, tolerance in ((0, 0.03), (127, 0.02), (250, 0.05)):
        assert abs(float((made > level).mean()) - float((real > level).mean())) < tolerance, level


PER_CLASS = 10


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of ten glyphs, saved dark on light as scans are."""
    root = tmp_path / "forms"
    images, labels = all_digits()
    for digit in (3, 7):
        place = root / str(digit)
        place.mkdir(parents=True)
        for index, image in enumerate(images[labels == digit][:PER_CLASS]):
            Image.fromarray(255 - image).save(place / f"{index:02}.png")
    return root


def test_pictures_become_upright_glyphs_split_by_class(folder: Path) -> None:
    images, labels = all_digits()
    train, test = load(str(folder), "train"), load(str(folder), "test")
    assert (len(train), len(test)) == (16, 4)
    assert np.bincount(test.labels).tolist() == [2, 2]
    assert (test.classes, test.origin) == (("3", "7"), "forms/test")
    threes = image_hashes(images[labels == 3][:PER_CLASS])
    assert np.isin(image_hashes(train.images[train.labels == 0]), threes).all()


def test_copies_never_straddle_the_split(folder: Path) -> None:
    for path in sorted(folder.rglob("*.png")):
        shutil.copy(path, path.with_name(f"copy-{path.name}"))
    # A copy under another label must not straddle either.
    for path in sorted((folder / "3").glob("0*.png")):
        shutil.copy(path, folder / "7" / f"wrong-{path.name}")
    train, test = load(str(folder), "train"), load(str(folder), "test")
    assert len(train) + len(test) == 50
    assert not np.isin(image_hashes(test.images), image_hashes(train.images)).any()


def test_split_hangs_on_pixels_not_names(folder: Path) -> None:
    before = set(image_hashes(load(str(folder), "test").images))
    for path in sorted(folder.rglob("*.png")):
        path.rename(path.with_name(f"{99 - int(path.stem)}.png"))
    assert set(image_hashes(load(str(folder), "test").images)) == before


def test_row21_a_folder_with_one_split_gives_that_one(folder: Path, tmp_path: Path) -> None:
    folder.rename(tmp_path / "test")
    (tmp_path / "set").mkdir()
    (tmp_path / "test").rename(tmp_path / "set" / "test")
    assert len(load(str(tmp_path / "set"), "test")) == 2 * PER_CLASS
    with pytest.raises(DataNotFound, match=r"has no folder train/ beside test/"):
        load(str(tmp_path / "set"), "train")


def test_train_and_test_folders_are_the_splits(folder: Path) -> None:
    for split in ("train", "test"):
        shutil.copytree(folder, folder.parent / "both" / split)
    for path in (folder.parent / "both" / "test").rglob("0[3-9].png"):
        path.unlink()
    assert len(load(str(folder.parent / "both"), "train")) == 20
    assert len(load(str(folder.parent / "both"), "test")) == 6


def test_train_and_test_with_other_classes(folder: Path) -> None:
    for split in ("train", "test"):
        shutil.copytree(folder, folder.parent / "both" / split)
    (folder.parent / "both" / "test" / "7").rename(folder.parent / "both" / "test" / "8")
    with pytest.raises(CorruptData, match="classes 7, 8 are not in both"):
        load(str(folder.parent / "both"), "train")


def test_hidden_files_are_left_out(folder: Path) -> None:
    (folder / "3" / ".DS_Store").write_bytes(b"x")
    (folder / ".cache").mkdir()
    assert len(load(str(folder), "train")) == 16


def spoil_text(folder: Path) -> None:
    (folder / "3" / "notes.txt").write_text("hello")


def spoil_cut(folder: Path) -> None:
    path = folder / "7" / "04.png"
    path.write_bytes(path.read_bytes()[:-60])


def spoil_blank(folder: Path) -> None:
    Image.new("L", (40, 40), 255).save(folder / "7" / "blank.png")


def spoil_class(folder: Path) -> None:
    shutil.rmtree(folder / "7")


def spoil_all(folder: Path) -> None:
    spoil_class(folder)
    shutil.rmtree(folder / "3")


def spoil_pictures(folder: Path) -> None:
    for path in (folder / "3").iterdir():
        path.unlink()


def spoil_variety(folder: Path) -> None:
    for path in (folder / "3").iterdir():
        shutil.copy(folder / "3" / "00.png", path) if path.name != "00.png" else None


def spoil_kind(folder: Path) -> None:
    (folder / "official").mkdir()
    (folder / "official" / "emnist-letters-test-images-idx3-ubyte.gz").touch()


def spoil_name(folder: Path) -> None:
    (folder / "7").rename(os.fsdecode(bytes(folder) + b"/z\xff"))


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        pytest.param(spoil_name, CorruptData, r"the folder name 'z\\udcff' is not UTF-8; rename it", id="row61-name"),
        (spoil_text, CorruptData, "3/notes.txt is not a readable picture"),
        (spoil_cut, CorruptData, "7/04.png is a damaged picture"),
        (spoil_blank, CorruptData, "7/blank.png: there is no ink in it"),
        (spoil_class, EmptyData, "holds a single class, '3'"),
        (spoil_all, EmptyData, "holds no class subfolders; put the pictures"),
        (spoil_pictures, EmptyData, "3 holds no pictures"),
        (spoil_variety, EmptyData, "class '3' has 1 different images and cannot be split"),
        (spoil_kind, EmptyData, "holds EMNIST files, not pictures; write .*forms:letters"),
    ],
)
def test_bad_folder_is_one_clear_line(spoil, error: type[DataError], message: str, folder: Path) -> None:
    spoil(folder)
    with pytest.raises(error, match=message) as caught:
        load(str(folder))
    assert "\n" not in str(caught.value)
