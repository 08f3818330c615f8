"""What a spec names: EMNIST's splits, and chosen classes (row 17) of every kind of data set."""

from __future__ import annotations

from pathlib import Path
from string import ascii_uppercase

import numpy as np
import pytest
from PIL import Image

from calibration import dataset
from calibration.dataset import Dataset
from calibration.errors import DataError, EmptyData, UnknownData
from calibration.load import check_mapping, load
from calibration.sample import draw, image_hashes
from calibration.spec import SPLITS, class_names, classes_text, emnist_split, split_brackets, with_classes
from tests.fixtures.official_files import strokes, write_split


@pytest.mark.parametrize(
    ("name", "classes", "train", "test", "offset"),
    [
        ("byclass", 62, 697_932, 116_323, 0),
        ("bymerge", 47, 697_932, 116_323, 0),
        ("balanced", 47, 112_800, 18_800, 0),
        ("letters", 26, 124_800, 20_800, 1),
        ("digits", 10, 240_000, 40_000, 0),
        ("mnist", 10, 60_000, 10_000, 0),
    ],
)
def test_table_is_as_published(name: str, classes: int, train: int, test: int, offset: int) -> None:
    split = SPLITS[name]
    assert (len(split.classes), split.train, split.test, split.label_offset) == (classes, train, test, offset)
    assert len(set(split.classes)) == classes


def test_official_mapping_files_agree(emnist_root: Path) -> None:
    for folder, names in (("official", ["byclass"]), ("resplit", ["balanced", "letters", "digits"])):
        for name in names:
            assert (emnist_root / folder / f"emnist-{name}-mapping.txt").is_file()
            check_mapping(SPLITS[name], emnist_root / folder)


def test_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownData, match="'balnced'; did you mean balanced"):
        emnist_split("balnced")


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("0-9", tuple("0123456789")),
        ("A-Ca", ("A", "B", "C", "a")),
        ("cat,dog", ("cat", "dog")),
        ("0-2, X-Z", tuple("012XYZ")),
        ("+-*/", tuple("+-*/")),
        ("A-z", ("A", "-", "z")),
        ("43210", tuple("43210")),
    ],
)
def test_row17_words_name_classes_in_their_order(words: str, names: tuple[str, ...]) -> None:
    assert class_names(words) == names
    assert class_names(classes_text(names)) == names


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "has an empty name; write it as 0-9A-Z or cat,dog"),
        ("a,,b", "has an empty name"),
        ("0-33", "names '3' twice"),
        ("9-0", "runs backwards; write 0-9"),
    ],
)
def test_row17_words_that_choose_nothing(words: str, message: str) -> None:
    with pytest.raises(UnknownData, match=message):
        split_brackets(f"emnist:digits[{words}]")


def test_row17_brackets_of_a_folder_s_name_are_no_choice(tmp_path: Path) -> None:
    place = tmp_path / "forms [1]"
    for name in "ab":
        (place / name).mkdir(parents=True)
        for index, image in enumerate(strokes(4, ord(name))):
            Image.fromarray(image).save(place / name / f"{index}.png")
    assert load(str(place)).classes == ("a", "b")


@pytest.fixture
def byclass(tmp_path: Path) -> Path:
    """Four images of each of the 62 classes, in random order, in both splits."""
    for seed, split in enumerate(("train", "test")):
        labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(62), 4))
        write_split(tmp_path, "byclass", split, strokes(len(labels), seed), labels)
    return tmp_path


def test_row17_only_the_chosen_classes_of_a_split_are_read(byclass: Path) -> None:
    whole, some = load(f"{byclass}:byclass"), load(f"{byclass}:byclass[A-Z]")
    assert some.classes == tuple(ascii_uppercase)
    assert some.origin == "emnist:byclass[A-Z]/test"
    kept = np.flatnonzero((whole.labels >= 10) & (whole.labels < 36))
    assert np.array_equal(some.images, whole.images[kept])
    assert np.array_equal(some.labels, whole.labels[kept] - 10)
    assert some.sha256 != whole.sha256


def test_row17_the_order_of_the_choice_is_the_order_of_the_labels(byclass: Path) -> None:
    one, other = (load(f"{byclass}:byclass[{words}]") for words in ("ab7", "7ba"))
    assert (one.classes, other.classes) == (("a", "b", "7"), ("7", "b", "a"))
    assert np.array_equal(one.images, other.images)
    assert np.array_equal(one.labels, 2 - other.labels)
    assert one.sha256 != other.sha256


def test_row17_all_classes_are_no_choice() -> None:
    whole, same = load("builtin:digits"), load("builtin:digits[0-9]")
    assert (same.origin, same.sha256) == (whole.origin, whole.sha256)


def test_row17_a_choice_of_a_choice() -> None:
    assert load("builtin:digits[0-4][42]").origin == "builtin:digits[42]/test"
    with pytest.raises(UnknownData, match=r"builtin:digits has no class '7'; it has 0-4"):
        load("builtin:digits[0-4][72]")


def test_row17_either_case_names_a_letter_that_has_one_class(tmp_path: Path) -> None:
    write_split(tmp_path, "letters", "test", strokes(52), np.arange(52) % 26)
    assert load(f"{tmp_path}:letters[a-c]").classes == ("A", "B", "C")


def test_row17_pictures_of_other_classes_are_not_opened(tmp_path: Path) -> None:
    for name in ("cat", "dog", "eel"):
        (tmp_path / name).mkdir()
        for index, image in enumerate(strokes(4, len(name) + ord(name[0]))):
            Image.fromarray(image).save(tmp_path / name / f"{index}.png")
    (tmp_path / "eel" / "0.png").write_bytes(b"no picture")
    data = load(f"{tmp_path}[dog,cat]", "train")
    assert (data.classes, data.origin) == (("dog", "cat"), f"{tmp_path.name}[dog,cat]/train")
    with pytest.raises(DataError, match=r"eel/0.png"):
        load(str(tmp_path), "train")


@pytest.mark.parametrize(
    ("choice", "error", "message"),
    [
        ("0-9a-z", UnknownData, "emnist:balanced has no class 'c', 'i', 'j', 'k', 'l', 'm', 'o', 'p', 's', 'u' and 5"),
        ("0Z", EmptyData, r"emnist:balanced\[0Z\]/test has no image of class 'Z'; leave it out"),
        ("0", EmptyData, r"emnist:balanced\[0\]/test holds a single class, '0'"),
    ],
    ids=["unknown", "absent", "single"],
)
def test_row17_what_is_missing_is_named(choice: str, error: type[DataError], message: str, tmp_path: Path) -> None:
    names = SPLITS["balanced"].classes
    labels = np.arange(len(names))
    write_split(tmp_path, "balanced", "test", strokes(46), labels[labels != names.index("Z")])
    with pytest.raises(error, match=message):
        load(f"{tmp_path}:balanced[{choice}]")


def test_row17_calibration_images_are_of_the_chosen_classes_and_say_so() -> None:
    train = load("builtin:digits[3-5]", "train")
    drawn = draw(train, 30)
    assert drawn.origin == "builtin:digits[3-5]/train"
    assert np.bincount(train.labels[drawn.indices]).tolist() == [10, 10, 10]


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("choice", ["", "[A-Fz]"])
def test_row55_a_large_file_is_streamed_and_reads_the_same(
    suffix: str, choice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(62), 9))
    write_split(tmp_path, "byclass", "train", strokes(len(labels)), labels, suffix=suffix)
    held = load(f"{tmp_path}:byclass{choice}", "train")
    monkeypatch.setattr("calibration.dataset.LARGE", 10)
    monkeypatch.setattr(dataset, "CHUNK", 50)
    data = load(f"{tmp_path}:byclass{choice}", "train")
    assert isinstance(data.images, dataset.StreamedImages)
    assert (data.sha256, data.origin, data.classes) == (held.sha256, held.origin, held.classes)
    order = np.random.default_rng(1).permutation(len(data))
    for key in (slice(0, 20), slice(30, 33), slice(5, 60), slice(0, 0), order, order[:3], labels[: len(data)] > 30):
        assert np.array_equal(data.images[key], held.images[key])
    assert np.array_equal(image_hashes(data.images), image_hashes(held.images))
    assert np.array_equal(np.asarray(data.images), held.images)
    assert draw(data, 62).sha256 == draw(held, 62).sha256
    for few in (np.sort(order[:40]), order[:40]):
        assert data.take(few, "few").sha256 == held.take(few, "few").sha256


def test_row55_a_file_that_changes_while_it_is_streamed_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calibration.dataset.LARGE", 10)
    write_split(tmp_path, "digits", "test", strokes(40), np.arange(40) % 10)
    data = load(f"{tmp_path}:digits")
    write_split(tmp_path, "digits", "test", strokes(41, 1), np.arange(41) % 10)
    with pytest.raises(DataError, match="was changed while it was read"):
        data.images[:5]


def test_row17_a_data_set_made_in_python_can_be_narrowed() -> None:
    labels = np.arange(30) % 3
    data = Dataset.of(strokes(30), labels, ("0", "O", "o"), "mine/train", "train")
    assert with_classes("mine", ("o", "0")) == "mine[o0]"
    some = data.choose(("o", "0"))
    assert (some.origin, some.classes) == ("mine[o0]/train", ("o", "0"))
    assert np.array_equal(some.images, data.images[labels != 1])
