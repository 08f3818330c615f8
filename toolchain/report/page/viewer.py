"""Show a page in the user's browser."""

from __future__ import annotations

import webbrowser
from pathlib import Path

from targets.errors import TargetUnavailable
from toolchain.core.errors import EvidenceError
from toolchain.core.files import MARK

PAGE = "report.html"
"""The page's name in the folder of a press."""


def page_of(folder: Path) -> Path:
    """Return the page in the folder of a press, or beside its `report.json`; raises EvidenceError if it has none."""
    page = (folder if folder.is_dir() else folder.parent) / PAGE
    if page.is_file():
        return page
    if (page.parent / MARK).is_file():
        raise EvidenceError(f"{page.parent} holds no {PAGE}: an older version pressed it; -o {PAGE} makes the page")
    raise EvidenceError(f"{page.parent} holds no {PAGE}; give the folder that `glyphpress press --out` wrote")


def open_page(page: Path) -> None:
    """Open a page in the browser; raises TargetUnavailable where none can be started."""
    try:
        started = webbrowser.open(page.resolve().as_uri())
    except (OSError, webbrowser.Error):
        started = False
    if not started:
        raise TargetUnavailable(
            "there is no web browser here", f"copy {page} to a machine with one, or name one in BROWSER"
        )
