from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from calibration.check import CheckReport, check
from calibration.errors import CorruptData, DataNotFound
from calibration.load import load
from tests.fixtures.official_files import write_split
from toolchain.core.json_codec import from_json


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The built-in digits in the official form."""
    for split in ("train", "test"):
        data = load("builtin:digits", split)  # type: ignore[arg-type]
        write_split(tmp_path, "digits", split, data.images, data.labels)
    return tmp_path


def rewrite(folder: Path, split: str, **changed: np.ndarray) -> None:
    data = load(f"{folder}:digits", split)  # type: ignore[arg-type]
    write_split(folder, "digits", split, changed.get("images", data.images), changed.get("labels", data.labels))


def test_builtin_digits_have_nothing_to_find() -> None:
    report = check("builtin:digits")
    assert report.findings == ()
    assert report.shared == 0
    assert [split.images for split in report.splits] == [599, 1198]
    assert "finding: none" in report.lines()


def test_report_survives_json() -> None:
    report = check("builtin:digits")
    assert from_json(CheckReport, json.dumps(report.to_dict())) == report


def test_counts_are_held_against_the_official_ones(folder: Path) -> None:
    findings = check(f"{folder}:digits").findings
    assert "test: 599 images, not the official 40,000" in findings
    assert "train: 1,198 images, not the official 240,000" in findings
    assert not [text for text in findings if "upright" in text or "copies" in text]


@pytest.mark.parametrize(("turn", "looks"), [("swapaxes", "transpose"), ("mirror", "mirror")])
def test_turned_images_are_found(turn: str, looks: str, folder: Path) -> None:
    images = load(f"{folder}:digits").images
    rewrite(folder, "test", images=images.swapaxes(1, 2) if turn == "swapaxes" else images[:, :, ::-1])
    turned_findings = [text for text in check(f"{folder}:digits").findings if "not upright" in text]
    assert len(turned_findings) == 1
    assert f"not upright: {looks} by " in turned_findings[0]


def test_copies_within_and_between_are_counted(folder: Path) -> None:
    train, test = (load(f"{folder}:digits", split) for split in ("train", "test"))  # type: ignore[arg-type]
    write_split(
        folder,
        "digits",
        "test",
        np.concatenate([test.images, train.images[:7], test.images[:2]]),
        np.concatenate([test.labels, train.labels[:7], test.labels[:2]]),
    )
    report = check(f"{folder}:digits")
    assert (report.shared, report.splits[0].copies, report.splits[0].conflicts) == (7, 2, 0)
    assert any(text.startswith("7 images of the test split are in the train split too") for text in report.findings)
    assert "test: 2 images are copies of another one in it" in report.findings


def test_copies_with_another_label(folder: Path) -> None:
    test = load(f"{folder}:digits")
    wrong = (test.labels[:3] + 1) % 10
    rewrite(folder, "test", images=np.concatenate([test.images, test.images[:3]]), labels=np.append(test.labels, wrong))
    assert "test: 3 images are copies of one that has another label" in check(f"{folder}:digits").findings


def test_absent_and_uneven_classes(folder: Path) -> None:
    test = load(f"{folder}:digits")
    keep = (test.labels != 4) & ((test.labels != 5) | (np.cumsum(test.labels == 5) <= 3))
    rewrite(folder, "test", images=test.images[keep], labels=test.labels[keep])
    findings = check(f"{folder}:digits").findings
    assert "test: no image of 1 class: 4" in findings
    assert any(text.startswith("test: classes are uneven, 0 to ") for text in findings)


def test_dark_on_light_is_found(folder: Path) -> None:
    rewrite(folder, "test", images=255 - load(f"{folder}:digits").images)
    assert "test: dark ink on light, the reverse of EMNIST" in check(f"{folder}:digits").findings


def test_one_split_alone_is_said(folder: Path) -> None:
    for path in folder.glob("*train*"):
        path.unlink()
    report = check(f"{folder}:digits")
    assert report.shared is None
    assert report.findings[0].startswith(
        "train: not checked, nor compared with the other split: no emnist-digits-train"
    )


def test_no_split_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound):
        check(f"{tmp_path}:digits")


def test_corrupt_file_is_an_error(folder: Path) -> None:
    path = folder / "emnist-digits-test-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(CorruptData, match=r"test-images.*unpacked byte"):
        check(f"{folder}:digits")


@pytest.mark.slow
def test_real_files(emnist_root: Path) -> None:
    byclass = check("emnist:byclass", emnist_root)
    assert byclass.splits[0].images == byclass.splits[0].official == 116_323
    assert [text[:6] for text in byclass.findings] == ["train:"], "only that there is no train split here"
    balanced = check("emnist:balanced", emnist_root)
    assert balanced.shared == 0
    assert balanced.findings == (
        "train: 74,851 images, not the official 112,800",
        "train: classes are uneven, 498 to 2,400 images each",
    )
