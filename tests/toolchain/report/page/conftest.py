"""A Chromium for the tests of pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from targets.errors import TargetUnavailable
from tests.fixtures.large_report import large_press
from tests.fixtures.viewed_pages import Viewer
from toolchain.report.page.press_page import press_html


@pytest.fixture(scope="session")
def large_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a press of ten files and 47 classes."""
    path = tmp_path_factory.mktemp("large") / "report.html"
    path.write_text(press_html(*large_press(path.parent)), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def viewer() -> Iterator[Viewer]:
    try:
        opened = Viewer()
    except TargetUnavailable as error:
        pytest.skip(f"no browser ({error}): NOT checked")
    yield opened
    opened.close()
