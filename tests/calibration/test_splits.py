from __future__ import annotations

from pathlib import Path

import pytest

from calibration.errors import UnknownData
from calibration.load import check_mapping
from calibration.spec import SPLITS, emnist_split


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
