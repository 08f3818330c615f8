from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from calibration.builtin import all_digits
from calibration.conventions import Hints
from calibration.data_file import load_file
from calibration.dataset import Dataset
from calibration.errors import CorruptData, DataNotFound, EmptyData, UnknownData
from calibration.listener import Listener, listening
from calibration.load import load
from tests.fixtures.data_files import LAYOUTS, Halves, dark_on_light, kaggle, parquet, table
from tests.fixtures.official_files import strokes, write_idx


@pytest.fixture(scope="module")
def halves() -> Halves:
    """1,000 of scikit-learn's digits to test and 797 to train, in the order of their classes."""
    images, labels = all_digits()
    order = np.random.default_rng(0).permutation(len(labels))
    parts = {"test": np.sort(order[:1000]), "train": np.sort(order[1000:])}
    return {
        name: (images[part][(by := np.argsort(labels[part], kind="stable"))], labels[part][by])
        for name, part in parts.items()
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_images_have_one_digest_in_every_layout(layout: str, tmp_path: Path, halves: Halves) -> None:
    spec = LAYOUTS[layout](tmp_path, halves)
    for split in ("test", "train"):
        images, labels = halves[split]
        wanted = Dataset.of(images, labels, tuple("0123456789"), "x", split)  # type: ignore[arg-type]
        data = load(spec, split)  # type: ignore[arg-type]
        assert (data.sha256, data.split, data.classes) == (wanted.sha256, split, wanted.classes)
    assert load(f"{spec}[3,8]", "test").classes == ("3", "8")


@pytest.mark.parametrize("turn", ["mirror", "rot90", "rot270", "transpose"])
def test_a_turn_is_seen_in_the_images(turn: str, tmp_path: Path, halves: Halves) -> None:
    from calibration.orientation import TURNS

    images, labels = halves["test"]
    path = tmp_path / "scans.csv"
    path.write_bytes(table(TURNS[turn](images), labels))
    data = load_file(path, "test", Hints(alone=True))
    kept = {image.tobytes() for image in images}
    assert all(image.tobytes() in kept for image in data.images)
    assert f"orientation {turn} (" in data.found
    assert "a fifth of each class is the test split" in data.found


def test_what_was_found_is_said(tmp_path: Path, halves: Halves) -> None:
    said: list[str] = []
    steps: list[tuple[int, int]] = []
    spec = dark_on_light(tmp_path, halves)
    with listening(Listener(said.append, lambda _label, done, total: steps.append((done, total)))):
        load(spec)
        load("builtin:digits")
    assert len(said) == 1
    assert said[0].startswith("scans-test.csv: 1,000 images of 28x28, orientation upright (")
    assert "labels 0 to 9 are the digits (0-9)" in said[0]
    assert said[0].endswith("dark ink on light, inverted")
    assert steps
    assert steps[-1][0] == steps[-1][1]


def test_images_that_show_no_orientation_need_a_hint(tmp_path: Path) -> None:
    path = tmp_path / "clothes_test.csv"
    path.write_bytes(table(strokes(300), np.arange(300) % 10))
    with pytest.raises(UnknownData, match=r"do not show how they stand; write .*clothes_test.csv:upright, or"):
        load(str(path))
    assert np.array_equal(load(f"{path}:upright").images, strokes(300))
    assert np.array_equal(load(f"{path}:transpose").images, strokes(300).swapaxes(1, 2))
    # Fashion-MNIST's own files are upright, as MNIST's are.
    write_idx(tmp_path / "t10k-images-idx3-ubyte", strokes(300))
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", (np.arange(300) % 10).astype(np.uint8))
    path.unlink()
    assert np.array_equal(load(str(tmp_path)).images, strokes(300))
    with pytest.raises(DataNotFound, match=r"lacks train-images-idx3-ubyte"):
        load(str(tmp_path), "train")


def test_labels_of_letters_may_start_at_0_or_1(tmp_path: Path) -> None:
    images = strokes(260)
    for first in (0, 1):
        path = tmp_path / f"emnist-letters-test-{first}.csv"
        path.write_bytes(table(images.swapaxes(1, 2), np.arange(260) % 26 + first))
        data = load(f"{path}:letters,transpose")
        assert np.array_equal(data.images, images)
        assert data.classes[0] == "A"
        assert set(data.labels) == set(range(26))


def test_labels_that_no_known_classes_have_need_the_split(tmp_path: Path) -> None:
    path = tmp_path / "some_test.csv"
    path.write_bytes(table(strokes(300), np.arange(300) % 44))
    with pytest.raises(UnknownData, match=r"labels run from 0 to 43, .* write .*:balanced"):
        load(str(path))
    assert load(f"{path}:balanced,upright").classes == load(f"{path}:upright,bymerge").classes
    with pytest.raises(CorruptData, match=r"line 11: expected a label from 0 to 9 \(the classes of digits\), found 10"):
        load(f"{path}:digits")
    with pytest.raises(UnknownData, match="'sideways' says nothing about a data file; write a split"):
        load(f"{path}:sideways")


@pytest.mark.parametrize("side", [8, 16])
def test_small_glyphs_are_resized_with_a_note(side: int, tmp_path: Path, halves: Halves) -> None:
    images, labels = halves["test"]
    inner = images[:, 2:26, 2:26].reshape(-1, 8, 3, 8, 3).mean((2, 4))
    small = np.round(inner * (16 / 255)).astype(np.uint8) if side == 8 else np.pad(images, [(0, 0), (2, 2), (2, 2)])
    small = small if side == 8 else small.reshape(-1, 16, 2, 16, 2).mean((2, 4)).astype(np.uint8)
    (tmp_path / "small_test.csv").write_bytes(table(small, labels))
    data = load(f"{tmp_path}/small_test.csv")
    assert data.images.shape == (1000, 28, 28)
    assert data.found.endswith("resized to 28x28")
    assert ("values 0 to 16 scaled to 255" in data.found) == (side == 8)
    # The same digits: each is most like its original, though 8x8 pixels cannot tell all of a class apart.
    near = np.corrcoef(data.images[::50].reshape(20, -1), images[::50].reshape(20, -1))[:20, 20:]
    assert (near.argmax(1) == np.arange(20)).sum() >= 19


def test_a_half_that_is_not_there(tmp_path: Path, halves: Halves) -> None:
    spec = kaggle(tmp_path, {"test": halves["test"]})
    assert len(load(spec, "test")) == 1000
    with pytest.raises(DataNotFound, match=r"holds test images, and there is no emnist-digits-train.csv beside it; .*"):
        load(spec, "train")
    parts = [len(load(f"{spec}:alone", split)) for split in ("train", "test")]  # type: ignore[arg-type]
    assert sum(parts) == 1000
    assert parts[1] == pytest.approx(200, abs=10)


def test_official_tables_are_found_in_folders(tmp_path: Path, halves: Halves) -> None:
    (tmp_path / "archive").mkdir()
    kaggle(tmp_path / "archive", halves)
    data = load("emnist:digits[0-4]", "test", tmp_path)
    assert data.origin == "emnist:digits[0-4]/test (archive)"
    assert data.classes == tuple("01234")
    shutil.copy(tmp_path / "archive" / "emnist-digits-test.csv", tmp_path / "emnist-letters-test.csv")
    with pytest.raises(CorruptData, match="expected a label from"):
        load(f"{tmp_path}:letters")


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (b"", EmptyData, "is empty; copy it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid x", CorruptData, "pointer of Git LFS, .*`git lfs pull`"),
        (b"PK\x03\x04rest", CorruptData, "is a zip archive; unpack it"),
        (b"\0\0\x08\x03rest", CorruptData, "one of several IDX files; give their folder"),
        (b"PAR1rest", CorruptData, "is a damaged parquet file"),
        (b"MATLAB 5.0 MAT-file, rest", CorruptData, "is a damaged MATLAB file"),
        (b"hello\nworld\n", CorruptData, "line 1: expected a label and the pixels of a square"),
        (b"\0\0\0\0\x01\0\0\0\x01\0\0\0", CorruptData, "nor a MATLAB file of version 5 or later; .*save -v7"),
        (b"1,0,1,2,3\n\n2,0,1,2,3\n", CorruptData, "line 2: expected 5 columns, found an empty line"),
        (b"1,0,0,0,0\n2,0,0.25,0,0\n", CorruptData, r"line 2, column 3: .*found 0\.25: multiply by 255 and round"),
    ],
)
def test_other_content_is_refused_in_a_line(content: bytes, error: type[Exception], said: str, tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(content)
    with pytest.raises(error, match=said) as caught:
        load(str(path))
    assert "\n" not in str(caught.value)


def test_a_file_with_one_class(tmp_path: Path) -> None:
    path = tmp_path / "some_test.csv"
    path.write_bytes(table(strokes(30), np.zeros(30, int)))
    with pytest.raises(EmptyData, match=r"holds a single class, label 0, .* first column"):
        load(f"{path}:digits,upright")


def test_parquet_with_names_of_its_own(tmp_path: Path, halves: Halves) -> None:
    names = tuple(f"form {number}" for number in range(10))
    spec = parquet(tmp_path, halves, names)
    with pytest.raises(UnknownData, match="do not show how they stand"):
        load(spec)
    assert load(f"{spec}:upright").classes == names


def test_a_folder_of_tables_names_the_file_to_give(tmp_path: Path, halves: Halves) -> None:
    kaggle(tmp_path, halves)
    with pytest.raises(EmptyData, match=f"give that file: {tmp_path}/emnist-"):
        load(str(tmp_path))
    with pytest.raises(DataNotFound, match=f"or give {tmp_path}/emnist-[a-z-]+.csv itself"):
        load(f"{tmp_path}:byclass")


def test_capitals_in_official_names_and_labels_from_one_are_understood(tmp_path: Path) -> None:
    images, labels = strokes(94), np.arange(94) % 47
    for split in ("Train", "Test"):
        (tmp_path / f"EMNIST-Balanced-{split}.CSV").write_bytes(table(images, labels + 1))
    data = load(f"{tmp_path}:balanced")
    assert (len(data.classes), data.labels.tolist()) == (47, labels.tolist())
