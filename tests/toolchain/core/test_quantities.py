"""Quantities as people read them."""

from __future__ import annotations

import math

import pytest

from toolchain.core.quantities import counted, size_text, sure_text


@pytest.mark.parametrize(("size", "text"), [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1.0 KB")])
def test_one_byte_is_a_singular(size: int, text: str) -> None:
    assert size_text(size) == text


def test_counted_things_have_the_number_of_their_noun() -> None:
    assert [counted(1, "class", "classes"), counted(2, "class", "classes")] == ["1 class", "2 classes"]
    assert counted(1200, "image") == "1,200 images"


@pytest.mark.parametrize(
    ("confidence", "text"),
    [(0.95, "95 %"), (1 - 0.05 / 3, "98.33 %"), (0.99999, "99.999 %"), (0.999999999, "99.9999999 %")],
)
def test_nothing_is_said_to_be_certain(confidence: float, text: str) -> None:
    assert sure_text(confidence) == text
    assert not sure_text(math.nextafter(1.0, 0.0)).startswith("100 ")
