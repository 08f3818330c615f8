"""The catalog: explicit, lazy, and helpful about names."""

from __future__ import annotations

import pytest

from targets import catalog
from targets.errors import UnknownTarget


@pytest.mark.parametrize("name", catalog.names())
def test_every_name_leads_to_the_target_that_bears_it(name: str) -> None:
    assert catalog.get(name).name == name


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownTarget, match=r"did you mean litert-cpu, [^,]+, [^,]+\?$"):
        catalog.get("litert-cpuu")


def test_a_name_given_twice_raises() -> None:
    with pytest.raises(ValueError, match="twice: a:A and b:B"):
        catalog.table([("x", "a:A"), ("x", "b:B")])


def test_the_format_decides_where_nothing_is_named() -> None:
    assert catalog.default_for("onnx").name == "ort-cpu"
    assert catalog.default_for("tflite").name == "litert-cpu"
