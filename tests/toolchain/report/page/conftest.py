"""A Chromium for the tests of pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from targets.errors import TargetUnavailable
from tests.fixtures.viewed_pages import Viewer


@pytest.fixture(scope="session")
def viewer() -> Iterator[Viewer]:
    try:
        opened = Viewer()
    except TargetUnavailable as error:
        pytest.skip(f"no browser ({error}): NOT checked")
    yield opened
    opened.close()
