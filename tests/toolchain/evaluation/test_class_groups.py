from __future__ import annotations

import numpy as np

from calibration.spec import SPLITS
from toolchain.evaluation.class_groups import kinds, look_alikes

BYCLASS, BALANCED = SPLITS["byclass"].classes, SPLITS["balanced"].classes


def matrix(classes: tuple[str, ...], *mistakes: tuple[str, str, int]) -> np.ndarray:
    """Return a matrix of 100 images of each class, of which some were read as another."""
    counts = 100 * np.eye(len(classes), dtype=np.int64)
    for truth, read, count in mistakes:
        row, column = classes.index(truth), classes.index(read)
        counts[row, row] -= count
        counts[row, column] += count
    return counts


def test_kinds_are_counted_apart() -> None:
    found = {group.name: group for group in kinds(matrix(BYCLASS, ("0", "O", 30), ("o", "O", 52)), BYCLASS)}
    assert [found[name].images for name in ("digits", "uppercase", "lowercase")] == [1000, 2600, 2600]
    assert [found[name].right for name in ("digits", "uppercase", "lowercase")] == [970, 2600, 2548]
    low, high = found["digits"].interval
    assert low < 0.97 < high
    assert kinds(matrix(tuple("0123456789")), tuple("0123456789")) == ()


def test_groups_hold_what_the_classes_have() -> None:
    mistakes = ("0", "O", 30), ("O", "0", 10), ("0", "D", 5), ("5", "S", 7)
    found = {group.name: group for group in look_alikes(matrix(BYCLASS, *mistakes), BYCLASS)}
    assert list(found) == ["0/O/o", "1/I/l", "5/S", "C/c", "K/k", "b/d", "p/q", "M/W"]
    assert (found["0/O/o"].images, found["0/O/o"].right, found["0/O/o"].within) == (300, 255, 40)
    assert (found["5/S"].within, found["M/W"].within) == (7, 0)
    # EMNIST's balanced classes merge C and c, K and k; p stands in P.
    merged = look_alikes(matrix(BALANCED), BALANCED)
    assert [group.name for group in merged] == ["0/O", "1/I/L", "5/S", "b/d", "P/q", "M/W"]
    assert look_alikes(matrix(tuple("0123456789")), tuple("0123456789")) == ()


def test_a_member_without_images_makes_no_group() -> None:
    counts = matrix(BYCLASS)
    counts[BYCLASS.index("S")] = 0
    assert "5/S" not in [group.name for group in look_alikes(counts, BYCLASS)]
